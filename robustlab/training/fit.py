"""The training loop. It knows no images and no attacks: batches and a loss come in, epochs come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.training.distributed import ALONE, World
from robustlab.training.ema import average_in, averaged_copy
from robustlab.training.losses import TrainingLoss
from robustlab.training.schedules import Schedule, one_cycle


class EpochBatches(Protocol):
    """Batches with ``x``, ``y`` and ``keys``, the same for the same epoch every time; ``start`` skips the first ones."""

    def __len__(self) -> int: ...

    def epoch(self, n: int, start: int = 0) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Optimization:
    """How weights are trained: SGD with Nesterov momentum.

    Attributes:
        epochs: passes over the training set.
        lr: the schedule's peak.
        weight_decay: 5e-4 matters for robustness (Pang et al. 2021).
        ema: decay of the weight average that is evaluated and kept; 0 keeps the weights themselves.
        clip: largest L2 norm of the whole gradient; 0 does not clip.
        amp: compute in bfloat16 where autocast finds that safe.
    """

    epochs: int = 30
    batch_size: int = 128
    lr: float = 0.2
    schedule: Schedule = one_cycle
    momentum: float = 0.9
    weight_decay: float = 5e-4
    ema: float = 0.0
    clip: float = 0.0
    amp: bool = False
    channels_last: bool = True

    def __post_init__(self) -> None:
        if self.epochs < 1 or not self.lr > 0 or self.weight_decay < 0 or not 0 <= self.ema < 1 or self.clip < 0:
            raise UserError(
                "training needs epochs >= 1, lr > 0, weight_decay >= 0, ema in [0, 1) and clip >= 0, "
                f"got {self.epochs}, {self.lr}, {self.weight_decay}, {self.ema}, {self.clip}"
            )

    def learning_rate(self, epoch: int, step: int, steps: int) -> float:
        """The schedule at the middle of one of the ``steps`` of an epoch, so that no step is taken at its zeros."""
        return self.lr * self.schedule((epoch + (step + 0.5) / steps) / self.epochs)


@dataclass(frozen=True)
class Epoch:
    """What one pass over the data gave: averages over its examples, on the images that were trained on."""

    number: int
    loss: float
    accuracy: float
    lr: float


@dataclass
class TrainingState:
    """Everything that a run needs to go on: save it between any two steps, load it, and nothing is different.

    Attributes:
        epoch: the current epoch, from 0.
        step: steps done in it.
        sums: loss, correct, seen so far in it by all processes together, float64.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module | None = None
    epoch: int = 0
    step: int = 0
    sums: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))

    @classmethod
    def fresh(cls, model: nn.Module, optimization: Optimization) -> TrainingState:
        """The state before the first step, on the model's device."""
        if optimization.channels_last:
            model.to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=optimization.lr,
            momentum=optimization.momentum,
            weight_decay=optimization.weight_decay,
            nesterov=optimization.momentum > 0,
        )
        device = next(model.parameters()).device
        average = averaged_copy(model) if optimization.ema else None
        return cls(model, optimizer, average, sums=torch.zeros(3, dtype=torch.float64, device=device))

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
            "sums": self.sums,
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        if self.average:
            self.average.load_state_dict(saved["ema"])
        self.epoch, self.step = saved["epoch"], saved["step"]
        self.sums = saved["sums"].to(self.sums)


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
        batches: this process's share of each batch.
        seed: of what the network itself draws, dropout for one; each step has a seed of its own.
        stop: asked after every step; a true answer ends the iteration with ``state`` as it stands.
        on_step: called after every step, for a progress bar.
        compile: pass the network through ``torch.compile``.

    Raises:
        UserError: the loss is no longer a number.
    """
    model = world.wrap(state.model)
    if compile:
        model.compile()
    while state.epoch < optimization.epochs:
        state.model.train()
        for batch in batches.epoch(state.epoch, state.step):
            for group in state.optimizer.param_groups:
                group["lr"] = optimization.learning_rate(state.epoch, state.step, len(batches))
            updates = state.epoch * len(batches) + state.step
            with _drawing(seeding.generator(seed, "step", updates, world.rank).initial_seed(), batch.x.device):
                sums = _step(state, model, batch, loss, optimization, updates)
            state.sums += world.sum(sums)
            state.step += 1
            on_step(state)
            if world.any(stop()):
                return
        total, correct, seen = state.sums.tolist()
        if not math.isfinite(total):
            raise UserError(f"training diverged: the loss is {total} in epoch {state.epoch + 1}; try a smaller --lr, or --clip 1")
        # Not the last step's own variable: a run resumed after the last step of an epoch takes none in it.
        lr = optimization.learning_rate(state.epoch, len(batches) - 1, len(batches))
        epoch = Epoch(state.epoch, total / seen, correct / seen, lr)
        state.epoch, state.step = state.epoch + 1, 0
        state.sums.zero_()
        yield epoch


def _step(state: TrainingState, model: nn.Module, batch: Any, loss: TrainingLoss, optimization: Optimization, updates: int) -> Tensor:
    """Take one step; returns loss, correct and number of this process's examples, summed, float64 ``(3,)``."""
    x = batch.x.contiguous(memory_format=torch.channels_last) if optimization.channels_last and batch.x.ndim == 4 else batch.x
    with torch.autocast(x.device.type, torch.bfloat16) if optimization.amp else nullcontext():
        outcome = loss(model, x, batch.y, batch.keys)
    state.optimizer.zero_grad(set_to_none=True)
    outcome.loss.mean().backward()
    if optimization.clip:
        nn.utils.clip_grad_norm_(model.parameters(), optimization.clip)
    state.optimizer.step()
    if state.average:
        average_in(state.average, state.model, optimization.ema, updates)
    correct = (outcome.logits.detach().argmax(1) == batch.y).sum()
    return torch.stack([outcome.loss.detach().double().sum(), correct.double(), correct.new_tensor(len(x)).double()])


@contextmanager
def _drawing(seed: int, device: torch.device) -> Iterator[None]:
    """Lend torch's global random state a seed: layers such as dropout can draw from nowhere else."""
    with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        yield
