"""The loop: resumed anywhere it ends with the same bits, it averages and clips as it says, and it says when training failed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.attacks import NFGSM, PGD
from robustlab.constraints import ThreatModel
from robustlab.data.augment import crop_flip
from robustlab.data.batches import Batches
from robustlab.data.imageset import ImageSet
from robustlab.errors import UserError
from robustlab.norms import L2, Linf
from robustlab.training import TRADES, Adversarial, Epoch, Optimization, Standard, TrainingState, decay_groups, fit
from robustlab.training.fit import READ_EVERY
from robustlab.training.losses import ImageOutcome, Outcome

LINF, L2_HALF = ThreatModel(Linf(), 8 / 255), ThreatModel(L2(), 0.5)
SETTINGS = Optimization(epochs=3, batch_size=8, lr=0.1, ema=0.9)
STEPS = 4  # per epoch, in `batches`


@pytest.fixture
def batches() -> Batches:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (35, 3, 8, 8), generator=generator, dtype=torch.uint8)
    images = ImageSet(pixels, torch.arange(35) % 3, ("a", "b", "c"), "noise")
    return Batches(images, 8, seed=1, augment=crop_flip(1), shuffle=True, drop_last=True)


def network(seed: int = 0) -> nn.Module:
    """It has what a resume can lose: statistics of BatchNorm, and dropout, which draws from the global random state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Dropout(0.3),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(24, 3),
        )


def saved_and_loaded(state: TrainingState, optimization: Optimization) -> TrainingState:
    """Through a file that may hold no code, into objects made anew from other weights."""
    file = io.BytesIO()
    torch.save(state.state_dict(), file)
    file.seek(0)
    fresh = TrainingState.fresh(network(seed=5), optimization)
    fresh.load_state_dict(torch.load(file, weights_only=True))
    return fresh


def equal(a: Any, b: Any) -> bool:
    """Bit for bit, through dicts and lists."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def train(state: TrainingState, batches: Batches, loss: Any, optimization: Optimization, stop_after: int | None = None) -> list[Epoch]:
    done = 0

    def stop() -> bool:
        nonlocal done
        done += 1
        return done == stop_after

    return list(fit(state, batches, loss, optimization, seed=2, stop=stop))


LOSSES = {
    "standard": Standard(label_smoothing=0.1),
    "pgd": Adversarial(PGD(LINF, steps=2, keep_best=False)),
    "pgd in training mode": Adversarial(PGD(LINF, steps=2, keep_best=False, training_mode=True)),
    "n-fgsm": Adversarial(NFGSM(L2_HALF)),
    "trades": TRADES(PGD(LINF, steps=2, keep_best=False)),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("stop_after", [1, STEPS - 1, STEPS, STEPS + 2, 3 * STEPS - 1])
def test_stopped_after_a_step_and_resumed_gives_the_same_bits(batches: Batches, loss: Any, stop_after: int) -> None:
    whole = TrainingState.fresh(network(), SETTINGS)
    epochs = train(whole, batches, loss, SETTINGS)
    assert len(epochs) == 3

    first = TrainingState.fresh(network(), SETTINGS)
    before = train(first, batches, loss, SETTINGS, stop_after)
    assert first.epoch * STEPS + first.step == stop_after
    torch.rand(7)  # a new process has another global random state, too
    second = saved_and_loaded(first, SETTINGS)
    after = train(second, batches, loss, SETTINGS)

    assert before + after == epochs
    assert equal(second.state_dict(), whole.state_dict())


def test_stopped_after_every_single_step_gives_the_same_bits(batches: Batches) -> None:
    whole = TrainingState.fresh(network(), SETTINGS)
    epochs = train(whole, batches, Standard(), SETTINGS)
    state, found = TrainingState.fresh(network(), SETTINGS), []
    for _ in range(3 * STEPS):
        found += train(state, batches, Standard(), SETTINGS, stop_after=1)
        state = saved_and_loaded(state, SETTINGS)
    found += train(state, batches, Standard(), SETTINGS)
    assert found == epochs
    assert equal(state.state_dict(), whole.state_dict())


def test_saved_between_epochs_gives_the_same_bits(batches: Batches) -> None:
    whole = TrainingState.fresh(network(), SETTINGS)
    epochs = train(whole, batches, Standard(), SETTINGS)
    state, found = TrainingState.fresh(network(), SETTINGS), []
    for number in range(3):
        epoch = next(fit(state, batches, Standard(), SETTINGS, seed=2))
        assert (state.epoch, state.step) == (number + 1, 0)
        found.append(epoch)
        state = saved_and_loaded(state, SETTINGS)
    assert found == epochs
    assert equal(state.state_dict(), whole.state_dict())
    assert train(state, batches, Standard(), SETTINGS) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.0},
        {"clip": 0.1},
        {"amp": True},
        {"momentum": 0.0},
        {"accumulate": 2},
        {"optimizer": "adam", "lr": 0.01},
        {"optimizer": "adamw", "lr": 0.01},
        {"optimizer": "adamax", "lr": 0.01},
        {"optimizer": lambda model: torch.optim.RMSprop(decay_groups(model, 0.01), lr=0.01)},
    ],
    ids="-".join,
)
def test_each_setting_survives_a_resume(batches: Batches, changes: dict[str, Any]) -> None:
    settings = replace(SETTINGS, **changes)
    whole, first = (TrainingState.fresh(network(), settings) for _ in range(2))
    train(whole, batches, Standard(), settings)
    train(first, batches, Standard(), settings, STEPS + 1)
    second = saved_and_loaded(first, settings)
    train(second, batches, Standard(), settings)
    assert equal(second.state_dict(), whole.state_dict())


def test_the_global_random_state_is_neither_read_nor_changed(batches: Batches) -> None:
    states = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            state = TrainingState.fresh(network(), SETTINGS)
            train(state, batches, LOSSES["pgd"], SETTINGS)
            assert torch.equal(torch.get_rng_state(), before)
            states.append(state.state_dict())
    assert equal(*states)


def test_the_seed_and_the_step_choose_what_dropout_drops(batches: Batches) -> None:
    class Fractions(Standard):
        """Standard training that looks at what the network's dropout leaves of a batch of ones."""

        found: list[Tensor] = []

        def __call__(self, model: nn.Module, batch: Any) -> ImageOutcome:
            self.found.append(model[3](torch.ones(64)))  # type: ignore[index, operator]
            return super().__call__(model, batch)

    settings = replace(SETTINGS, epochs=1)
    for seed in (0, 0, 1):
        list(fit(TrainingState.fresh(network(), settings), batches, Fractions(), settings, seed=seed))
    first, again, other = torch.stack(Fractions.found).split(STEPS)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.unique(dim=0)) == STEPS


def test_one_step_is_sgd_with_nesterov_momentum_and_weight_decay() -> None:
    """Two steps on a linear model in float64, against the formulas written out."""
    settings = Optimization(epochs=1, lr=0.5, schedule=lambda progress: 1.0, momentum=0.9, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 4, 1, 1, 3, generator=generator, dtype=torch.float64)
    y = torch.tensor([[0, 1, 1, 0], [1, 0, 1, 0]])
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2, bias=False)).double()
    w, velocity = model[1].weight.detach().clone(), torch.zeros(2, 3, dtype=torch.float64)
    losses = []
    for images, labels in zip(x, y, strict=True):
        w.requires_grad_()
        loss = F.cross_entropy(images.flatten(1) @ w.T, labels)
        gradient = torch.autograd.grad(loss, w)[0] + 0.01 * w.detach()
        velocity = 0.9 * velocity + gradient
        w = w.detach() - 0.5 * (gradient + 0.9 * velocity)
        losses.append(loss.item())
    (epoch,) = fit(TrainingState.fresh(model, settings), Fixed(x, y), Standard(), settings)
    torch.testing.assert_close(model[1].weight.detach(), w, rtol=0, atol=1e-12)
    assert epoch.loss == pytest.approx(sum(losses) / 2, abs=1e-12)


def test_an_epoch_averages_over_examples_and_not_over_batches() -> None:
    settings = Optimization(epochs=1, lr=1e-12, weight_decay=0.0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[0.0], [1.0]]))
    x = [torch.tensor([[[[1.0]]]] * n, dtype=torch.float64) for n in (3, 1)]
    y = [torch.tensor([1, 1, 1]), torch.tensor([0])]
    (epoch,) = fit(TrainingState.fresh(model, settings), Fixed(x, y), Standard(), settings)
    right, wrong = (F.cross_entropy(torch.tensor([0.0, 1.0]), torch.tensor(k)).item() for k in (1, 0))
    assert epoch.loss == pytest.approx((3 * right + wrong) / 4, abs=1e-6)
    assert epoch.accuracy == 0.75
    assert epoch.number == 0


def test_clipping_bounds_the_norm_of_the_whole_gradient(batches: Batches) -> None:
    settings = replace(SETTINGS, clip=0.01, epochs=1)
    state = TrainingState.fresh(network(), settings)
    norms = []

    def note(state: TrainingState) -> None:
        norms.append(torch.stack([p.grad.norm() for p in state.model.parameters() if p.grad is not None]).norm().item())

    list(fit(state, batches, Standard(), settings, on_step=note))
    assert len(norms) == STEPS
    assert all(norm == pytest.approx(0.01, rel=1e-3) for norm in norms)


def test_the_average_is_what_a_run_gives_and_it_follows_the_weights(batches: Batches) -> None:
    state = TrainingState.fresh(network(), SETTINGS)
    expected = {name: value.clone() for name, value in state.model.state_dict().items()}

    def follow(state: TrainingState) -> None:
        n = state.epoch * STEPS + state.step - 1
        decay = min(0.9, (1 + n) / (10 + n))
        for name, value in state.model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value if value.is_floating_point() else value.clone()

    list(fit(state, batches, Standard(), SETTINGS, on_step=follow))
    assert state.result is state.average is not None
    for name, value in state.average.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


def test_without_an_average_the_weights_themselves_are_the_result() -> None:
    state = TrainingState.fresh(network(), replace(SETTINGS, ema=0.0))
    assert state.result is state.model
    assert state.state_dict()["ema"] is None


def test_a_model_left_in_evaluation_mode_between_epochs_trains_on_in_training_mode(batches: Batches) -> None:
    modes = []
    state = TrainingState.fresh(network(), SETTINGS)
    for _ in fit(state, batches, Standard(), SETTINGS, on_step=lambda state: modes.append(state.model[1].training)):
        state.model.eval()
    assert modes == [True] * 3 * STEPS


def test_a_loss_that_is_not_a_number_ends_training_with_a_sentence(batches: Batches) -> None:
    settings = replace(SETTINGS, lr=1e30)
    with pytest.raises(
        UserError, match=r"training diverged: the loss is (nan|inf) in epoch 1 at a learning rate of \S+; try a smaller `lr`"
    ):
        train(TrainingState.fresh(network(), settings), batches, Standard(), settings)


def test_images_laid_out_as_convolutions_like_best_survive_a_resume(batches: Batches) -> None:
    batches = replace(batches, channels_last=True)

    def fresh() -> TrainingState:
        return TrainingState.fresh(network().to(memory_format=torch.channels_last), SETTINGS)

    assert next(batches.epoch(0)).x.is_contiguous(memory_format=torch.channels_last)
    whole, first, second = fresh(), fresh(), fresh()
    train(whole, batches, Standard(), SETTINGS)
    train(first, batches, Standard(), SETTINGS, STEPS + 1)
    second.load_state_dict(first.state_dict())
    train(second, batches, Standard(), SETTINGS)
    assert equal(second.state_dict(), whole.state_dict())


@pytest.mark.parametrize("failing", [1, READ_EVERY - 1, READ_EVERY, READ_EVERY + 1, 2 * READ_EVERY + 3])
def test_divergence_is_told_soon_after_the_step_and_before_the_epoch_ends(failing: int) -> None:
    class Fails:
        """A loss that is no number at one step alone."""

        steps = 0

        def __call__(self, model: nn.Module, batch: Any) -> Outcome:
            self.steps += 1
            return Outcome(model(batch) * (torch.nan if self.steps == failing else 1))

    loss, settings = Fails(), Optimization(epochs=3, lr=1e-9)
    batches = Anything([torch.ones(2, 3)] * (2 * READ_EVERY + 5))
    with pytest.raises(UserError, match="training diverged: the loss is nan in epoch 1"):
        list(fit(TrainingState.fresh(Sum(3), settings), batches, loss, settings))
    assert failing <= loss.steps <= min(failing + READ_EVERY - 1, len(batches))


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
@pytest.mark.parametrize("what", ["0.weight", "1.running_mean", "1.running_var", "6.bias"])
@pytest.mark.parametrize("failing", [1, READ_EVERY, READ_EVERY + 1])
def test_a_weight_or_a_statistic_that_is_no_longer_finite_is_told_with_the_rate_of_its_step(what: str, value: float, failing: int) -> None:
    """Also where the loss in training mode knows nothing of it, as of the statistics of BatchNorm."""
    steps, peak = 2 * READ_EVERY + 5, 1e-4
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 3, 8, 8, generator=generator)
    batches, settings = Anything([x] * steps), Optimization(epochs=1, lr=peak)
    state, seen = TrainingState.fresh(network(), settings), []

    class Spoils:
        def __call__(self, model: nn.Module, batch: Any) -> Outcome:
            loss = model(batch).square().mean(1)
            seen.append(settings.learning_rate(0, len(seen), steps))
            if len(seen) == failing:
                named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
                named[what].data.view(-1)[0] = value  # unseen by autograd, which knows the weights of this step already
            return Outcome(loss)

    with pytest.raises(
        UserError, match="training diverged: (weights or statistics of BatchNorm are no longer finite|the loss is nan)"
    ) as told:
        list(fit(state, batches, Spoils(), settings))
    assert failing <= len(seen) <= failing + READ_EVERY - 1
    assert f"in epoch 1 at a learning rate of {seen[failing - 1]:.3g};" in str(told.value)


@pytest.mark.parametrize("largest", [torch.finfo(torch.float32).max, torch.finfo(torch.float32).tiny])
def test_weights_that_are_finite_are_no_divergence_however_large(largest: float) -> None:
    state = TrainingState.fresh(Sum(3), SETTINGS)
    with torch.no_grad():
        next(state.model.parameters()).fill_(largest)
    state.add([], torch.tensor([1.0, 2.0], dtype=torch.float64))
    assert state.diverged == -1 and state.read(SETTINGS, 1).loss == 0.5


# Batches of anything


class Sum(nn.Module):
    """From vectors ``(B, D)`` to their weighted sums ``(B,)``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, v: Tensor) -> Tensor:
        return v @ self.weight


class Anything:
    """Given batches, whatever they are, the same in every epoch."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, n: int, start: int = 0) -> Iterator[Any]:
        return iter(self.batches[start:])


def squared(model: nn.Module, batch: dict[str, Tensor]) -> Outcome:
    """The squared error, with two metrics."""
    error = model(batch["v"]) - batch["t"]
    return Outcome(error.square(), {"error": error.abs(), "high": error > 0})


def test_a_batch_is_whatever_the_loss_takes_and_metrics_are_averaged_over_examples() -> None:
    settings = Optimization(epochs=1, lr=1e-12, weight_decay=0.0)
    batches = [{"v": torch.eye(3)[:n], "t": torch.arange(n) / 1.0} for n in (3, 1)]
    (epoch,) = fit(TrainingState.fresh(Sum(3), settings), Anything(batches), squared, settings)
    assert epoch.loss == pytest.approx((1 + 0 + 1 + 1) / 4) and epoch.lr == pytest.approx(1e-12, rel=0.7)
    assert epoch.metrics == {"error": pytest.approx(3 / 4), "high": pytest.approx(2 / 4)}


def test_metrics_that_change_from_step_to_step_are_refused() -> None:
    def changing(model: nn.Module, batch: Tensor) -> Outcome:
        return Outcome(model(batch), {f"{len(batch)} examples": batch[:, 0]})

    settings = Optimization(epochs=1)
    with pytest.raises(ValueError, match="the same metrics"):
        list(fit(TrainingState.fresh(Sum(3), settings), Anything([torch.ones(1, 3), torch.ones(2, 3)]), changing, settings))


@pytest.mark.parametrize("sizes", [(2, 2, 2, 2), (1, 3, 2, 1)], ids=str)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_gradients_added_up_over_batches_are_those_of_one_large_batch(optimizer: str, sizes: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    v, t = torch.randn(sum(sizes), 3, generator=generator, dtype=torch.float64), torch.randn(sum(sizes), generator=generator)
    small = [{"v": a, "t": b} for a, b in zip(v.split(sizes), t.double().split(sizes), strict=True)]
    large = [{name: torch.cat([one[name], other[name]]) for name in one} for one, other in zip(small[::2], small[1::2], strict=True)]
    found = []
    for batches, accumulate in ((large, 1), (small, 2), ([*small, small[0]], 2)):  # one that is left over is left out
        settings = Optimization(epochs=2, lr=0.05, clip=0.5, ema=0.5, optimizer=optimizer, accumulate=accumulate)
        state = TrainingState.fresh(Sum(3).double(), settings)
        epochs = list(fit(state, Anything(batches), squared, settings))
        assert state.average is not None
        found.append([state.model.weight, state.average.weight, *(torch.tensor([e.loss, *e.metrics.values()]) for e in epochs)])
    for others in found[1:]:
        for a, b in zip(found[0], others, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_too_few_batches_for_one_step_are_refused() -> None:
    settings = Optimization(accumulate=3)
    with pytest.raises(UserError, match="2 batches are too few for one step that adds up 3"):
        list(fit(TrainingState.fresh(Sum(3), settings), Anything([torch.ones(1, 3)] * 2), squared, settings))


# Optimizers


def test_named_optimizers_are_torch_s() -> None:
    model = network()
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "adamax": torch.optim.Adamax}
    for name, kind in kinds.items():
        made = Optimization(optimizer=name, lr=0.3, momentum=0.8, weight_decay=0.01).optimizer_for(model)
        (group,) = made.param_groups
        assert type(made) is kind and (group["lr"], group["weight_decay"]) == (0.3, 0.01)
        assert (group["momentum"] if name == "sgd" else group["betas"][0]) == 0.8
    with pytest.raises(UserError, match="unknown optimizer 'adan'. Did you mean 'adam'"):
        Optimization(optimizer="adan").optimizer_for(model)


def test_groups_of_parameters_keep_the_ratio_of_their_learning_rates_and_their_own_weight_decay(batches: Batches) -> None:
    def grouped(model: nn.Module) -> torch.optim.Optimizer:
        body, head = list(model[:5].parameters()), list(model[6].parameters())  # type: ignore[index]
        return torch.optim.SGD([{"params": body, "lr": 0.4, "weight_decay": 0.1}, {"params": head, "lr": 0.1, "weight_decay": 0.0}])

    settings = Optimization(epochs=2, lr=77.0, optimizer=grouped)
    rates: list[list[float]] = []
    state = TrainingState.fresh(network(), settings)
    note = lambda state: rates.append([group["lr"] for group in state.optimizer.param_groups])  # noqa: E731
    list(fit(state, batches, Standard(), settings, on_step=note))
    expected = [settings.factor(epoch, step, STEPS) for epoch in range(2) for step in range(STEPS)]
    assert rates == [[pytest.approx(0.4 * factor), pytest.approx(0.1 * factor)] for factor in expected]
    assert [group["weight_decay"] for group in state.optimizer.param_groups] == [0.1, 0.0]


def test_weights_decay_and_biases_and_scales_do_not() -> None:
    model = network()
    weights, others = decay_groups(model, 0.3)
    assert weights["weight_decay"] == 0.3 and others["weight_decay"] == 0.0
    assert {id(p) for p in weights["params"]} == {id(model[0].weight), id(model[6].weight)}
    assert {id(p) for p in others["params"]} == {id(model[1].weight), id(model[1].bias), id(model[6].bias)}
    model[6].requires_grad_(False)
    assert [len(group["params"]) for group in decay_groups(model, 0.3)] == [1, 2]


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"lr": 0.0}, {"lr": -0.1}, {"lr": float("nan")}, {"weight_decay": -1e-4}, {"ema": 1.0}, {"ema": -0.1}, {"clip": -1.0}],
    ids=str,
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match="training needs epochs >= 1, lr > 0"):
        Optimization(**wrong)  # type: ignore[arg-type]


class Fixed:
    """Given batches, in every epoch the same."""

    def __init__(self, x: Any, y: Any) -> None:
        self.pairs = list(zip(x, y, strict=True))

    def __len__(self) -> int:
        return len(self.pairs)

    def epoch(self, n: int, start: int = 0) -> Iterator[Any]:
        from robustlab.data.batches import Batch

        for x, y in self.pairs[start:]:
            yield Batch(x, y, torch.arange(len(x)), torch.arange(len(x)))
