"""Adversarial weight perturbation against the source's own procedure, with a proxy network, and what it must leave as it was."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.attacks import NFGSM, PGD
from robustlab.constraints import ThreatModel
from robustlab.data.batches import Batch, Batches
from robustlab.data.imageset import ImageSet
from robustlab.errors import UserError
from robustlab.norms import Linf
from robustlab.seeding import example_keys
from robustlab.training import MART, TRADES, Adversarial, Optimization, Standard, TrainingState, fit
from robustlab.training.awp import perturbed

PGD2 = PGD(ThreatModel(Linf(), 8 / 255), steps=2, keep_best=False)
LOSSES = {"adversarial": Adversarial(PGD2, 0.1), "n-fgsm": Adversarial(NFGSM(PGD2.threat)), "trades": TRADES(PGD2), "mart": MART(PGD2)}
SETTINGS = Optimization(epochs=2, batch_size=8, lr=0.1, awp=0.01)
STEPS = 4


def network(normalized: bool = True) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        middle = nn.BatchNorm2d(6) if normalized else nn.Identity()
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), middle, nn.ReLU(), nn.Dropout(0.3 * normalized), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(24, 3)
        )


@pytest.fixture
def batches() -> Batches:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (35, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return Batches(ImageSet(pixels, torch.arange(35) % 3, ("a", "b", "c"), "noise"), 8, seed=1, shuffle=True, drop_last=True)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(a: Any, b: Any) -> bool:
    """Bit for bit, through dicts and lists."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


@pytest.mark.parametrize("gamma", [0.001, 0.01, 0.3])
def test_every_layer_moves_by_gamma_of_its_norm_up_the_loss_and_comes_back_to_the_same_bits(gamma: float) -> None:
    model, generator = network().eval(), torch.Generator().manual_seed(1)
    x, y = torch.rand(16, 3, 8, 8, generator=generator), torch.arange(16) % 3
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    before = weights(model)
    with pytest.raises(RuntimeError, match="on the way"), perturbed(model, gamma):
        for name, parameter in model.named_parameters():
            move = parameter.detach() - before[name]
            assert parameter.grad is None
            if parameter.ndim < 2:
                assert not move.any()
                continue
            assert move.norm() == pytest.approx(gamma * before[name].norm().item(), rel=1e-3)  # of float32 weights
            assert F.cosine_similarity(move.flatten(), gradients[name].flatten(), dim=0) > 0.999
        assert F.cross_entropy(model(x), y) > loss
        raise RuntimeError("on the way")
    assert same(weights(model), before)


def test_a_layer_without_gradient_stays() -> None:
    model = network()
    model[6].requires_grad_(False)
    model(torch.rand(4, 3, 8, 8)).sum().mul(0).backward()
    before = weights(model)
    with perturbed(model, 0.5):
        assert same(weights(model), before)


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_a_move_too_small_for_the_weights_is_the_plain_training_to_the_bit(batches: Batches, name: str, amp: bool) -> None:
    """Images, draws of dropout, statistics of BatchNorm, the average and the momentum: nothing else is touched."""
    found = []
    for gamma in (0.0, 1e-30):
        settings = replace(SETTINGS, awp=gamma, amp=amp, ema=0.9, clip=1.0)
        state = TrainingState.fresh(network(), settings)
        found.append((list(fit(state, batches, LOSSES[name], settings)), state.state_dict()))
    assert same(*found)


@pytest.mark.parametrize("name", ["adversarial", "trades", "mart"])
def test_a_step_is_that_of_the_source_with_its_proxy(name: str) -> None:
    """A proxy takes a step of SGD up the loss; the difference, scaled for each layer, is added; then a step, and it is subtracted."""
    settings = Optimization(epochs=1, lr=0.1, awp=0.05, weight_decay=0.0, schedule=lambda progress: 1.0)
    loss: Any = LOSSES[name]
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(8, 3, 8, 8, generator=generator, dtype=torch.float64), torch.arange(8) % 3
    batch = Batch(x, y, torch.arange(8), example_keys(0, torch.arange(8)))
    ours, theirs = (network().double() for _ in range(2))
    ours[3].p = theirs[3].p = 0.0

    x_adv = loss.attacked(theirs.train(), batch)
    proxy = copy.deepcopy(theirs)
    optimizer = torch.optim.SGD(proxy.parameters(), lr=0.01)
    (-loss.at(proxy, batch, x_adv).loss.mean()).backward()
    optimizer.step()
    old, new = dict(theirs.named_parameters()), dict(proxy.named_parameters())
    move = {k: 0.05 * old[k].norm() / (new[k] - old[k]).norm() * (new[k] - old[k]) for k in old if old[k].ndim >= 2}
    with torch.no_grad():
        for key, value in move.items():
            old[key].add_(value)
    step = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    loss.at(theirs, batch, x_adv).loss.mean().backward()
    step.step()
    with torch.no_grad():
        for key, value in move.items():
            old[key].sub_(value)

    list(fit(TrainingState.fresh(ours, settings), Given([batch]), loss, settings))
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=0, atol=1e-6)  # TRADES and MART add up in float32
    assert ours[1].num_batches_tracked == 1


@pytest.mark.parametrize("name", ["adversarial", "mart"])
def test_a_batch_in_parts_moves_the_weights_as_the_whole(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(12, 3, 8, 8, generator=generator, dtype=torch.float64), torch.arange(12) % 3
    whole = Batch(x, y, torch.arange(12), example_keys(0, torch.arange(12)))
    parts = [Batch(*(part.contiguous() for part in of)) for of in zip(*(t.split(6) for t in (x, y, whole.index, whole.keys)), strict=True)]
    found = []
    for given, accumulate in (([whole], 1), (parts, 2)):
        settings = replace(SETTINGS, accumulate=accumulate, awp=0.1)
        state = TrainingState.fresh(network(normalized=False).double(), settings)
        list(fit(state, Given(given), LOSSES[name], settings))
        found.append(weights(state.model))
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["adversarial", "mart"])
def test_stopped_and_resumed_it_ends_with_the_same_bits(batches: Batches, name: str) -> None:
    settings = replace(SETTINGS, ema=0.9)
    whole, first, second = (TrainingState.fresh(network(), settings) for _ in range(3))
    epochs = list(fit(whole, batches, LOSSES[name], settings))
    asked = iter(range(100))
    before = list(fit(first, batches, LOSSES[name], settings, stop=lambda: next(asked) == STEPS))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert before + list(fit(second, batches, LOSSES[name], settings)) == epochs
    assert same(second.state_dict(), whole.state_dict())
    assert not same(whole.state_dict()["ema"], whole.state_dict()["model"])


def test_what_it_cannot_do_is_said_before_the_first_step(batches: Batches) -> None:
    for wrong in (-0.01, 1.0, float("nan")):
        with pytest.raises(UserError, match=r"`awp` moves each layer's weights by a share of their norm in \[0, 1\), got "):
            replace(SETTINGS, awp=wrong)
    with pytest.raises(UserError, match="`awp` needs a loss on attacked images, such as Adversarial, TRADES or MART, not Standard"):
        next(fit(TrainingState.fresh(network(), SETTINGS), batches, Standard(), SETTINGS))


class Given:
    """Given batches, in every epoch the same."""

    def __init__(self, batches: list[Batch]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, n: int, start: int = 0):
        return iter(self.batches[start:])
