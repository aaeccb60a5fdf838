"""Training losses against their formulas, and what they must leave out of the network's statistics."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.attacks import FGSM, NFGSM, PGD
from robustlab.constraints import ThreatModel
from robustlab.data.batches import Batch
from robustlab.errors import UserError
from robustlab.norms import L1, L2, Linf
from robustlab.objectives import value_and_gradient
from robustlab.seeding import example_keys
from robustlab.training import MART, TRADES, Adversarial, Standard
from robustlab.training.losses import AttackedLoss, Outcome, adversarial_images, inner

LINF = ThreatModel(Linf(), 8 / 255)
THREATS = [LINF, ThreatModel(L2(), 0.5), ThreatModel(L1(), 3.0)]
PGD3 = PGD(LINF, steps=3, keep_best=False)
LOSSES = {
    "standard": Standard(),
    "smoothed": Standard(0.1),
    "adversarial": Adversarial(PGD3),
    "n-fgsm": Adversarial(NFGSM(LINF)),
    "trades": TRADES(PGD3),
    "mart": MART(PGD3),
}


@pytest.fixture
def model() -> nn.Sequential:
    """In training mode, in float64, with statistics of BatchNorm that differ from any batch's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(24, 4)
        )
        nn.init.normal_(net[1].running_mean)
        nn.init.uniform_(net[1].running_var, 0.1, 2)
    return net.double().train()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, 3, 8, 8, generator=generator, dtype=torch.float64)
    return x, torch.arange(6) % 4, example_keys(0, torch.arange(6))


def labelled(x: Tensor, y: Tensor, keys: Tensor) -> Batch:
    return Batch(x, y, torch.arange(len(x)), keys)


def statistics(model: nn.Sequential) -> list[Tensor]:
    return [buffer.clone() for buffer in model.buffers()]


def gradients(model: nn.Module, loss: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_one_value_per_example_and_the_images_it_was_taken_at(loss, model, batch) -> None:
    x, y, keys = batch
    outcome = loss(model, labelled(x, y, keys))
    assert isinstance(outcome, Outcome)
    assert outcome.loss.shape == (6,)
    assert outcome.logits.shape == (6, 4)
    assert outcome.x.shape == x.shape and not outcome.x.requires_grad
    assert torch.equal(outcome.metrics["accuracy"], outcome.logits.argmax(1) == y)
    assert all(g is not None for g in gradients(model, outcome.loss.mean()))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_standard_is_cross_entropy(smoothing: float, model, batch) -> None:
    x, y, keys = batch
    outcome = Standard(smoothing)(model.eval(), labelled(x, y, keys))
    expected = F.cross_entropy(model(x), y, label_smoothing=smoothing)
    torch.testing.assert_close(outcome.loss.mean(), expected, rtol=0, atol=1e-14)
    assert torch.equal(outcome.x, x)


def test_label_smoothing_mixes_in_the_mean_over_all_classes(model, batch) -> None:
    x, y, keys = batch
    outcome = Standard(0.3)(model, labelled(x, y, keys))
    minus_log = -outcome.logits.log_softmax(1)
    expected = 0.7 * minus_log.gather(1, y[:, None])[:, 0] + 0.3 * minus_log.mean(1)
    torch.testing.assert_close(outcome.loss, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize(
    "make", [Standard, lambda s: Adversarial(PGD3, s), lambda s: TRADES(PGD3, label_smoothing=s), lambda s: MART(PGD3, label_smoothing=s)]
)
def test_label_smoothing_out_of_range_is_refused(make: Callable[[float], object], smoothing: float) -> None:
    with pytest.raises(UserError, match="label smoothing must lie in"):
        make(smoothing)


def test_adversarial_is_standard_at_the_attacked_images(model, batch) -> None:
    x, y, keys = batch
    x_adv = PGD3(model.eval(), x, y, keys=keys)
    outcome = Adversarial(PGD3, 0.1)(model.train(), labelled(x, y, keys))
    assert torch.equal(outcome.x, x_adv)
    expected = Standard(0.1)(model, labelled(x_adv, y, keys))
    torch.testing.assert_close(outcome.loss, expected.loss, rtol=0, atol=1e-14)
    torch.testing.assert_close(outcome.logits, expected.logits, rtol=0, atol=1e-14)
    assert (outcome.x != x).any()


def test_gradients_go_to_the_weights_through_the_last_pass_only(model, batch) -> None:
    """By Danskin's theorem the attacked images count as constants."""
    x, y, keys = batch
    outcome = Adversarial(PGD3)(model, labelled(x, y, keys))
    found = gradients(model, outcome.loss.mean())
    expected = gradients(model, F.cross_entropy(model(outcome.x), y))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["adversarial", "n-fgsm"])
@pytest.mark.parametrize("training_mode", [False, True])
def test_statistics_of_batch_norm_come_from_exactly_one_pass_over_the_attacked_images(name: str, training_mode: bool, model, batch) -> None:
    """Logging passes in training mode moved them a second time, on clean images (robust_overfitting, train_cifar.py:339)."""
    x, y, keys = batch
    before = statistics(model)
    loss = LOSSES[name]
    outcome = replace(loss, attack=replace(loss.attack, training_mode=training_mode))(model, labelled(x, y, keys))
    after = statistics(model)
    restore(model, before)
    model.train()(outcome.x)
    for found, once in zip(after, statistics(model), strict=True):
        assert torch.equal(found, once)


def test_statistics_under_trades_come_from_one_pass_over_clean_and_attacked_images(model, batch) -> None:
    x, y, keys = batch
    before = statistics(model)
    outcome = TRADES(PGD3)(model, labelled(x, y, keys))
    after = statistics(model)
    restore(model, before)
    model.train()(torch.cat([x, outcome.x]))
    for found, once in zip(after, statistics(model), strict=True):
        torch.testing.assert_close(found, once, rtol=0, atol=1e-14)


def restore(model: nn.Module, buffers: list[Tensor]) -> None:
    for buffer, value in zip(model.buffers(), buffers, strict=True):
        buffer.copy_(value)


@pytest.mark.parametrize("name", ["adversarial", "n-fgsm", "trades", "mart"])
def test_attacks_run_in_evaluation_mode_and_in_training_mode_only_when_told(name: str, model, batch) -> None:
    x, y, keys = batch
    in_mode: dict[bool, list[bool]] = {}
    images = {}
    for training_mode in (False, True):
        seen: list[bool] = []
        hook = model[1].register_forward_hook(lambda module, args, out, seen=seen: seen.append(module.training))
        loss = LOSSES[name]
        images[training_mode] = replace(loss, attack=replace(loss.attack, training_mode=training_mode))(model, labelled(x, y, keys)).x
        hook.remove()
        in_mode[training_mode] = seen
    attack_passes = slice(1 if name == "trades" else 0, -1)  # TRADES first predicts the clean images, in evaluation mode
    assert not any(in_mode[False][:-1]) and in_mode[False][-1]
    assert all(in_mode[True][attack_passes]) and in_mode[True][-1]
    assert len(in_mode[False]) == {"adversarial": 4, "n-fgsm": 2, "trades": 5, "mart": 4}[name]
    assert not torch.equal(images[False], images[True])


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_every_module_keeps_its_own_mode(loss, model, batch) -> None:
    """An attack that ends with ``model.train()`` un-freezes a frozen BatchNorm (robustness, attacker.py:310-315)."""
    x, y, keys = batch
    model[1].eval()
    frozen = statistics(model)
    loss(model, labelled(x, y, keys))
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert all(map(torch.equal, frozen, statistics(model)))
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_trades_is_cross_entropy_plus_beta_times_the_divergence(model, batch) -> None:
    x, y, keys = batch
    outcome = TRADES(PGD3, beta=2.5, label_smoothing=0.1)(model, labelled(x, y, keys))
    clean, attacked = model(torch.cat([x, outcome.x])).chunk(2)
    p, q = clean.softmax(1), attacked.softmax(1)
    expected = F.cross_entropy(clean, y, reduction="none", label_smoothing=0.1) + 2.5 * (p * (p.log() - q.log())).sum(1)
    # The loss is taken in float32, whatever the network computes in.
    torch.testing.assert_close(outcome.loss.double(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(outcome.logits.double(), attacked, rtol=0, atol=1e-5)


@pytest.mark.parametrize("classes", [2, 4])
def test_mart_is_the_formula_of_its_source(classes: int, model, batch) -> None:
    """Wang et al. 2020, equations 8 and 11, with the guards of the public code; one example is right, one sure and wrong."""
    x, y, keys = batch
    y = y % classes
    model[5] = nn.Linear(24, classes).double()
    with torch.no_grad():
        model[5].weight.mul_(20)
    outcome = MART(PGD3, beta=2.5)(model, labelled(x, y, keys))
    clean, attacked = model(torch.cat([x, outcome.x])).chunk(2)
    p, q = clean.softmax(1), attacked.softmax(1)
    for i, label in enumerate(y.tolist()):
        first, second = q[i].argsort(descending=True)[:2].tolist()
        other = second if first == label else first
        boosted = -q[i, label].log() - (1.0001 - q[i, other] + 1e-12).log()
        divergence = (p[i] * (p[i].log() - (q[i] + 1e-12).log())).sum() * (1.0000001 - p[i, label])
        torch.testing.assert_close(outcome.loss[i].double(), boosted + 2.5 * divergence, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outcome.logits.double(), attacked, rtol=1e-5, atol=1e-5)


def test_mart_is_its_parts(model, batch) -> None:
    """Without beta its gradient is that of two classes, right and likeliest wrong; a sure network leaves nothing of the divergence."""
    x, y, keys = batch
    model[1].eval()
    boosted = MART(PGD3, beta=0.0)(model, labelled(x, y, keys))
    plain = Adversarial(PGD3)(model, labelled(x, y, keys))
    assert torch.equal(boosted.x, plain.x)
    rest = boosted.loss - plain.loss
    wrong = plain.logits.softmax(1).masked_fill(F.one_hot(y, 4).bool(), 0).amax(1)
    torch.testing.assert_close(rest.double(), -(1.0001 - wrong).log(), rtol=0, atol=1e-6)
    smoothed = MART(PGD3, beta=0.0, label_smoothing=0.3)(model, labelled(x, y, keys)).loss - rest
    expected = F.cross_entropy(plain.logits, y, reduction="none", label_smoothing=0.3)
    torch.testing.assert_close(smoothed.double(), expected, rtol=0, atol=1e-6)
    with torch.no_grad():
        model[5].weight.zero_()
        model[5].bias.copy_(torch.tensor([50.0, 0.0, 0.0, 0.0]))
    zeros = labelled(x, torch.zeros_like(y), keys)
    torch.testing.assert_close(MART(PGD3, beta=1e3)(model, zeros).loss, MART(PGD3, beta=0.0)(model, zeros).loss, rtol=0, atol=1e-6)


def test_trades_with_beta_zero_is_standard_on_the_clean_images(model, batch) -> None:
    x, y, keys = batch
    model[1].eval()  # its statistics would see the attacked images too
    found = TRADES(PGD3, beta=0.0, label_smoothing=0.1)(model, labelled(x, y, keys))
    expected = Standard(0.1)(model, labelled(x, y, keys))
    torch.testing.assert_close(found.loss.double(), expected.loss, rtol=0, atol=1e-6)
    for a, b in zip(gradients(model, found.loss.mean()), gradients(model, expected.loss.mean()), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_trades_attacks_the_prediction_and_not_the_label(model, batch) -> None:
    x, y, keys = batch
    model.eval()
    first, second = (TRADES(PGD3)(model, labelled(x, labels, keys)).x for labels in (y, (y + 1) % 4))
    assert torch.equal(first, second)


SHORT = PGD(LINF, steps=1, step_size=1 / 255, keep_best=False)  # too short to end in a corner, whatever the start


@pytest.mark.parametrize("loss", [Adversarial(SHORT), Adversarial(NFGSM(LINF)), TRADES(SHORT)], ids=["adversarial", "n-fgsm", "trades"])
def test_random_starts_follow_the_keys(loss, model, batch) -> None:
    """And so differ from epoch to epoch."""
    x, y, keys = batch
    model.eval()
    first, again, other = (loss(model, labelled(x, y, k)).x for k in (keys, keys, example_keys(1, torch.arange(6))))
    assert torch.equal(first, again)
    assert ((first != other).flatten(1).any(1)).all()


def test_trades_images_stay_in_the_threat_model_each_by_itself(model, batch) -> None:
    """The original L2 code took one norm over the whole batch (TRADES, trades.py:8-10)."""
    x, y, keys = batch
    for threat in THREATS:
        x_adv = TRADES(PGD(threat, steps=3, keep_best=False))(model, labelled(x, y, keys)).x
        distance = threat.norm.measure(x_adv - x)
        assert (distance <= threat.eps).all()
        assert (distance > threat.eps / 10).all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_attacked_images_do_not_depend_on_the_examples_beside_them(loss, model, batch) -> None:
    x, y, keys = batch
    model.eval()
    together = loss(model, labelled(x, y, keys)).x
    alone = torch.cat([loss(model, labelled(x[i : i + 1], y[i : i + 1], keys[i : i + 1])).x for i in range(6)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


@pytest.mark.parametrize("threat", THREATS, ids=repr)
def test_n_fgsm_stays_in_the_box_and_leaves_the_ball(threat: ThreatModel, model, batch) -> None:
    x, y, keys = batch
    x = (x * 0.6 + 0.2).float()
    x[0] = 0.0
    x_adv = NFGSM(threat)(model.float(), x, y, keys=keys)
    assert x_adv.min() >= 0 and x_adv.max() <= 1
    distance = threat.norm.measure((x_adv - x).double())
    assert (distance > threat.eps).any()
    assert (distance <= (2 + 1) * threat.eps * (1 + 1e-5)).all()


def test_n_fgsm_is_one_signed_step_from_the_noisy_image(model, batch) -> None:
    x, y, keys = batch
    x = x * 0.6 + 0.2  # the box is out of reach
    start = NFGSM(LINF, step=0.0)(model, x, y, keys=keys)
    assert ((start - x).abs() <= 2 * LINF.eps).all() and ((start - x).abs() > 1.5 * LINF.eps).any()
    still = model.eval()
    _, _, gradient = value_and_gradient(lambda x: F.cross_entropy(still(x), y, reduction="none"), start)
    for step in (1.0, 0.25):
        x_adv = NFGSM(LINF, step=step)(model, x, y, keys=keys)
        torch.testing.assert_close(x_adv, start + step * LINF.eps * gradient.sign(), rtol=0, atol=1e-12)


def test_without_noise_n_fgsm_is_fgsm(model, batch) -> None:
    x, y, keys = batch
    for threat in THREATS:
        torch.testing.assert_close(
            NFGSM(threat, noise=0.0)(model, x, y, keys=keys), FGSM(threat)(model, x, y, keys=keys), rtol=0, atol=1e-9
        )


def test_radius_zero_trains_on_the_images_themselves(model, batch) -> None:
    x, y, keys = batch
    for threat in (ThreatModel(norm, 0.0) for norm in (Linf(), L2(), L1())):
        for attack in (PGD(threat, steps=2, keep_best=False), NFGSM(threat)):
            assert torch.equal(Adversarial(attack)(model, labelled(x, y, keys)).x, x)


def test_the_module_itself_is_attacked_and_not_a_wrapper() -> None:
    module = nn.Linear(2, 2)
    assert inner(module) is module


def test_an_attack_of_ones_own_is_called_and_one_with_a_door_for_training_passes_it(model, batch) -> None:
    x, y, keys = batch

    class Darker:
        threat = LINF

        def __call__(self, model, x, y, *, keys=None, fast_model=None):
            return x / 2

    assert torch.equal(Adversarial(Darker())(model, labelled(x, y, keys)).x, x / 2)
    assert torch.equal(TRADES(Darker())(model, labelled(x, y, keys)).x, x / 2)
    attack = PGD(LINF, steps=2, keep_best=False)
    assert torch.equal(adversarial_images(attack, model, x, y, keys), attack(model, x, y, keys=keys))
    far = adversarial_images(attack, model, x * 255, y, keys)
    assert far.shape == x.shape, "nothing is checked, so nothing is read from the device"


# Searching on a stand-in


def stale(model: nn.Module) -> None:
    """Move weights and statistics past what a stand-in took up before."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-1.5)
    model.train()(torch.rand(8, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if isinstance(loss, AttackedLoss)])
def test_a_stand_in_finds_what_the_network_itself_would_whatever_its_weights_are_by_now(name: str, model, batch) -> None:
    """Up to rounding: in float64 no direction turns round."""
    x, y, keys = batch
    loss = LOSSES[name]
    fast = replace(loss, stand_in=torch.float64)
    for _ in range(2):
        before = [buffer.clone() for buffer in model.buffers()]
        itself, found = (one.attacked(model, labelled(x, y, keys)) for one in (loss, fast))
        torch.testing.assert_close(found, itself, rtol=0, atol=1e-9)
        assert all(map(torch.equal, before, model.buffers())) and all(p.requires_grad for p in model.parameters())
        assert "stand_in" not in "".join(model.state_dict())
        stale(model)


def test_a_stand_in_goes_when_its_network_goes(model, batch) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).double()
    kept = weakref.ref(replace(LOSSES["adversarial"], stand_in=torch.float64).searched(network))
    assert kept() is not None
    del network
    gc.collect()
    assert kept() is None


def test_an_attack_in_training_mode_has_no_stand_in(model, batch) -> None:
    loss = Adversarial(replace(PGD3, training_mode=True), stand_in=torch.float32)
    with pytest.raises(
        UserError, match="BatchNorm is folded in evaluation mode only: leave out `stand_in`, or the attack's `training_mode`"
    ):
        loss(model, labelled(*batch))
