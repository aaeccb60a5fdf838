"""The training loop. It knows no images and no attacks: batches and a loss come in, epochs come out.

On a GPU a step neither waits for the device nor copies to it: losses and metrics are summed there, and read every
``READ_EVERY`` steps and at the end of an epoch. So is the flag that a step raises there when something is no longer finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.training.awp import kept_buffers, perturbed
from robustlab.training.distributed import ALONE, World
from robustlab.training.ema import average_in, averaged_copy
from robustlab.training.losses import AttackedLoss, Outcome, TrainingLoss
from robustlab.training.optimizers import OptimizerFactory, named_optimizer
from robustlab.training.schedules import Schedule, one_cycle

READ_EVERY = 20  # steps between two looks at the loss: so late a training that diverged is noticed


class EpochBatches(Protocol):
    """Batches of whatever the loss takes, the same for the same epoch every time; ``start`` skips the first ones."""

    def __len__(self) -> int: ...

    def epoch(self, n: int, start: int = 0) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Optimization:
    """How weights are trained.

    Attributes:
        epochs: passes over the training set.
        batch_size: examples of one update, over all processes and all batches of ``accumulate``.
        lr: the schedule's peak.
        momentum: of SGD, in Nesterov's form; of Adam and its kin beta1.
        weight_decay: 5e-4 matters for robustness (Pang et al. 2021).
        ema: decay of the weight average that is evaluated and kept; 0 keeps the weights themselves.
        awp: how far weights move against themselves before the gradient is taken (Wu et al. 2020), as a share of each layer's norm; 0.01
            in the source; 0 leaves them. For losses on attacked images.
        clip: largest L2 norm of the whole gradient; 0 does not clip.
        amp: compute in bfloat16 where autocast finds that safe.
        optimizer: ``sgd``, ``adam``, ``adamw`` or ``adamax``; or a function from the network to an optimizer of any kind, which may
            have groups of parameters. The schedule then scales each group's own learning rate, and ``lr``, ``momentum`` and
            ``weight_decay`` mean nothing.
        accumulate: batches whose gradients are added up for one update.
    """

    epochs: int = 30
    batch_size: int = 128
    lr: float = 0.2
    schedule: Schedule = one_cycle
    momentum: float = 0.9
    weight_decay: float = 5e-4
    ema: float = 0.0
    awp: float = 0.0
    clip: float = 0.0
    amp: bool = False
    optimizer: str | OptimizerFactory = "sgd"
    accumulate: int = 1

    def __post_init__(self) -> None:
        if self.epochs < 1 or not self.lr > 0 or self.weight_decay < 0 or not 0 <= self.ema < 1 or self.clip < 0:
            raise UserError(
                "training needs epochs >= 1, lr > 0, weight_decay >= 0, ema in [0, 1) and clip >= 0, "
                f"got {self.epochs}, {self.lr}, {self.weight_decay}, {self.ema}, {self.clip}"
            )
        if not 0 <= self.awp < 1:
            raise UserError(f"`awp` moves each layer's weights by a share of their norm in [0, 1), got {self.awp}")
        if self.accumulate < 1:
            raise UserError(f"training adds up the gradients of accumulate >= 1 batches, got {self.accumulate}")

    def factor(self, epoch: int, step: int, steps: int) -> float:
        """The schedule at the middle of one of the ``steps`` of an epoch, so that no step is taken at its zeros."""
        return self.schedule((epoch + (step + 0.5) / steps) / self.epochs)

    def learning_rate(self, epoch: int, step: int, steps: int) -> float:
        """The learning rate of one of the ``steps`` of an epoch."""
        return self.lr * self.factor(epoch, step, steps)

    def optimizer_for(self, model: nn.Module) -> torch.optim.Optimizer:
        """The optimizer of a network's parameters.

        Raises:
            UserError: no optimizer of that name.
        """
        if callable(self.optimizer):
            return self.optimizer(model)
        return named_optimizer(self.optimizer, model.parameters(), lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Epoch:
    """What one pass over the data gave: averages over its examples, as they were trained on.

    Attributes:
        lr: learning rate of the last step, in the first group of parameters.
    """

    number: int
    loss: float
    lr: float
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def accuracy(self) -> float:
        """The metric ``accuracy``, which losses on images have."""
        return self.metrics["accuracy"]


@dataclass
class TrainingState:
    """Everything that a run needs to go on: save it between any two steps, load it, and nothing is different.

    Attributes:
        peaks: the largest learning rate of each group of parameters.
        epoch: the current epoch, from 0.
        step: steps done in it.
        metrics: names of the loss's metrics, known from its first step on.
        sums: over the epoch so far and all processes, on the device, float64 ``(2 + len(metrics),)``: loss, metrics, examples.
        latest: the averages so far in the epoch when they were last read.
        diverged: the step of this epoch after which loss, weights or statistics of BatchNorm were first no longer finite, -1 where they
            are; on the device, float64 ``()``. It is not saved: what is not finite stays so, and the next step tells.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module | None = None
    peaks: tuple[float, ...] = ()
    epoch: int = 0
    step: int = 0
    metrics: tuple[str, ...] = ()
    sums: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64))
    latest: Epoch | None = None
    diverged: Tensor = field(default_factory=lambda: torch.full((), -1.0, dtype=torch.float64))

    @classmethod
    def fresh(cls, model: nn.Module, optimization: Optimization) -> TrainingState:
        """The state before the first step, on the model's device."""
        optimizer = optimization.optimizer_for(model)
        average = averaged_copy(model) if optimization.ema else None
        sums = torch.zeros(2, dtype=torch.float64, device=_device(model))
        peaks = tuple(group["lr"] for group in optimizer.param_groups)
        return cls(model, optimizer, average, peaks, sums=sums, diverged=torch.full_like(sums[0], -1.0))

    @property
    def result(self) -> nn.Module:
        """The network to evaluate and keep: the weight average where there is one."""
        return self.average or self.model

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers, lists and dicts only, so that it loads without running code."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.average.state_dict() if self.average else None,
            "epoch": self.epoch,
            "step": self.step,
            "metrics": list(self.metrics),
            "sums": self.sums,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take up what ``state_dict`` gave."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.average:
            self.average.load_state_dict(saved["ema"])
        self.epoch, self.step = saved["epoch"], saved["step"]
        self.metrics = tuple(saved.get("metrics", ["accuracy"]))  # files of before knew no other metric
        self.sums = saved["sums"].to(self.sums)

    def add(self, metrics: Sequence[str], sums: Tensor) -> None:
        """Count a step with its sums, see ``sums``."""
        if self.step == 0:
            self.metrics, self.sums = tuple(metrics), sums
        elif tuple(metrics) != self.metrics:
            raise ValueError(f"a loss must have the same metrics at every step, but had {list(self.metrics)} and then {list(metrics)}")
        else:
            self.sums += sums
        unsound = ~(self.sums[0].isfinite() & _all_finite(self.model))
        self.diverged = torch.where(unsound & (self.diverged < 0), torch.full_like(self.diverged, float(self.step)), self.diverged)
        self.step += 1

    def read(self, optimization: Optimization, steps: int) -> Epoch:
        """The averages so far in the epoch; the device has to wait for this.

        Raises:
            UserError: the loss, a weight or a statistic of BatchNorm is no longer a finite number.
        """
        total, *metrics, seen, diverged = torch.cat([self.sums, self.diverged[None]]).tolist()
        # Not the last step's own variable: a run resumed after the last step of an epoch takes none in it.
        lr = self.peaks[0] * optimization.factor(self.epoch, self.step - 1, steps)
        if diverged >= 0 or not math.isfinite(total):
            what = "weights or statistics of BatchNorm are no longer finite" if math.isfinite(total) else f"the loss is {total}"
            then = lr if diverged < 0 else self.peaks[0] * optimization.factor(self.epoch, int(diverged), steps)
            raise divergence_of_training(what, self.epoch, then)
        self.latest = Epoch(self.epoch, total / seen, lr, dict(zip(self.metrics, (value / seen for value in metrics), strict=True)))
        return self.latest

    def begin_next_epoch(self) -> None:
        """Stand at the first step of the next epoch, with nothing counted yet."""
        self.epoch, self.step = self.epoch + 1, 0
        self.sums = torch.zeros_like(self.sums)


def divergence_of_training(what: str, epoch: int, lr: float) -> UserError:
    """The error for a training that diverged.

    Args:
        what: how it shows.
        epoch: in which, from 0.
        lr: the learning rate that it was trained at.
    """
    return UserError(f"training diverged: {what} in epoch {epoch + 1} at a learning rate of {lr:.3g}; try a smaller `lr`, or `clip=1`")


def _all_finite(model: nn.Module) -> Tensor:
    """Whether all weights and statistics are finite, bool ``()``, where they are: the device need not wait."""
    tensors = [tensor.detach() for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
    # Of finite float32 numbers neither the largest nor the sum in float64 is infinite. The first is one call for all tensors on a GPU, the
    # second more than ten times as fast on a CPU.
    on_cpu = _device(model).type == "cpu"
    found = [tensor.sum(dtype=torch.float64) for tensor in tensors] if on_cpu else torch._foreach_norm(tensors, math.inf)
    return torch.stack([one.double() for one in found]).isfinite().all()


def fit(
    state: TrainingState,
    batches: EpochBatches,
    loss: TrainingLoss,
    optimization: Optimization,
    *,
    world: World = ALONE,
    seed: int = 0,
    stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[TrainingState], object] = lambda state: None,
    compile: bool = False,
) -> Iterator[Epoch]:
    """Train from ``state`` to the end, one epoch at a time; the caller evaluates, logs and saves in between.

    When an epoch is yielded, ``state`` already stands at the start of the next one.

    Args:
        state: changed in place.
        batches: this process's share of each batch. The last batches of an epoch that are too few for ``accumulate`` are left out.
        loss: called with the network and a batch.
        seed: of what the network itself draws, dropout for one; each batch has a seed of its own.
        stop: asked after every step; a true answer ends the iteration with ``state`` as it stands.
        on_step: called after every step, for a progress bar.
        compile: pass the network through ``torch.compile``.

    Raises:
        UserError: the loss, a weight or a statistic of BatchNorm is no longer finite, told at most ``READ_EVERY`` steps later; there
            are too few batches for one step; or ``awp`` with a loss that does not attack.
    """
    if optimization.awp and not isinstance(loss, AttackedLoss):
        what = getattr(loss, "__name__", type(loss).__name__)
        raise UserError(f"`awp` needs a loss on attacked images, such as Adversarial, TRADES or MART, not {what}")
    model = world.wrap(state.model)
    if compile:
        model.compile()
    steps = len(batches) // optimization.accumulate
    if not steps:
        raise UserError(f"{len(batches)} batches are too few for one step that adds up {optimization.accumulate}")
    update = _Update(state, model, loss, optimization, steps, seed, world)
    while state.epoch < optimization.epochs:
        state.model.train()
        for some in _together(batches.epoch(state.epoch, state.step * optimization.accumulate), optimization.accumulate):
            update(some)
            if state.step % READ_EVERY == 0:
                state.read(optimization, steps)
            on_step(state)
            if world.any(stop()):
                return
        epoch = state.read(optimization, steps)
        state.begin_next_epoch()
        yield epoch


def _together(batches: Iterator[Any], count: int) -> Iterator[list[Any]]:
    """``count`` batches at a time; what is left over at the end is left out."""
    while len(some := list(islice(batches, count))) == count:
        yield some


@dataclass(frozen=True)
class _Update:
    """One update of the weights, with the mean gradient over the examples of some batches."""

    state: TrainingState
    model: nn.Module  # as it is called: in DistributedDataParallel, perhaps
    loss: TrainingLoss
    optimization: Optimization
    steps: int  # of an epoch
    seed: int
    world: World

    def __call__(self, batches: Sequence[Any]) -> None:
        state, optimization = self.state, self.optimization
        updates, factor = state.epoch * self.steps + state.step, optimization.factor(state.epoch, state.step, self.steps)
        for peak, group in zip(state.peaks, state.optimizer.param_groups, strict=True):
            group["lr"] = peak * factor
        state.optimizer.zero_grad(set_to_none=True)
        outcomes = self._outcomes(batches, updates * len(batches))
        if len(batches) > 1:
            examples = sum(len(outcome.loss) for outcome in outcomes)
            torch._foreach_div_([p.grad for p in state.model.parameters() if p.grad is not None], float(examples))
        if optimization.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), optimization.clip)
        state.optimizer.step()
        if state.average:
            average_in(state.average, state.model, optimization.ema, updates)
        state.add(list(outcomes[0].metrics), self.world.sum(torch.stack([_sums(outcome) for outcome in outcomes]).sum(0)))

    def _outcomes(self, batches: Sequence[Any], first: int) -> list[Outcome]:
        """What the loss finds on each batch, with the gradient added up in the parameters; with ``awp`` that at perturbed weights.

        Args:
            first: number of the first of the batches, over the whole training.
        """
        gamma = self.optimization.awp
        if not gamma:
            return self._gradients([self.loss] * len(batches), batches, first)
        losses = [self._at_attacked(batch, first + k) for k, batch in enumerate(batches)]
        with kept_buffers(self.state.model):
            self._gradients(losses, batches, first)
        with perturbed(self.state.model, gamma):
            return self._gradients(losses, batches, first)

    def _at_attacked(self, batch: Any, number: int) -> TrainingLoss:
        """The loss with the images that it attacks found once and for all."""
        assert isinstance(self.loss, AttackedLoss)
        with self._drawing(number), self._autocast():
            return partial(self.loss.at, x_adv=self.loss.attacked(self.model, batch))

    def _gradients(self, losses: Sequence[TrainingLoss], batches: Sequence[Any], first: int) -> list[Outcome]:
        """Add the batches' gradients to the parameters' own: of a mean loss where a batch stands alone, else of summed losses."""
        outcomes = []
        for k, (loss, batch) in enumerate(zip(losses, batches, strict=True)):
            alone, last = len(batches) == 1, k + 1 == len(batches)
            # Processes exchange their gradients once an update.
            unshared = self.model.no_sync() if isinstance(self.model, DistributedDataParallel) and not last else nullcontext()
            with self._drawing(first + k), unshared:
                with self._autocast():
                    outcome = loss(self.model, batch)
                (outcome.loss.mean() if alone else outcome.loss.sum()).backward()
            outcomes.append(Outcome(outcome.loss.detach(), {name: value.detach() for name, value in outcome.metrics.items()}))
        return outcomes

    def _drawing(self, number: int) -> AbstractContextManager[None]:
        """Lends the random state a seed of a batch's own."""
        seed = seeding.generator(self.seed, "step", number, self.world.rank).initial_seed()
        return _lent_random_state(seed, _device(self.state.model))

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(_device(self.state.model).type, torch.bfloat16) if self.optimization.amp else nullcontext()


def _sums(outcome: Outcome) -> Tensor:
    """Loss, metrics and number of this process's examples, summed where they are, float64 ``(2 + metrics,)``."""
    values = [value.double().sum() for value in (outcome.loss, *outcome.metrics.values())]
    return torch.stack([*values, torch.full_like(values[0], len(outcome.loss))])


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


@contextmanager
def _lent_random_state(seed: int, device: torch.device) -> Iterator[None]:
    """Lend torch's global random state a seed: layers such as dropout can draw from nowhere else."""
    backend = getattr(torch, device.type, None) if device.type != "cpu" else None
    if not hasattr(backend, "get_rng_state"):  # the CPU, or a device without a random state of its own
        backend = None
    with torch.random.fork_rng([device] if backend else [], device_type=device.type if backend else "cuda"):
        torch.default_generator.manual_seed(seed)
        if backend:
            with backend.device(device):
                backend.manual_seed(seed)
        yield
