"""Data, a network and settings so small that an experiment takes a second, and a way to end it in the middle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robustlab.construction import Inverted, Relabelled
from robustlab.experiments import capacity, data_size, mislabelled, regimes, robustified, transfer, two_classes, usefulness
from robustlab.models.architectures import BODIES
from robustlab.models.mlp import MLP
from robustlab.training import trainer

CLASSES = ("dog", "cat", "bird")
TRAIN, TEST = 300, 30  # more than two batches of 128, and more than one shard of 250
STEPS = TRAIN // 128

# Of every experiment on images a configuration, by its name.
CONFIGS: dict[str, Any] = {
    "mislabelled": mislabelled.Config(
        "standard:1", n=150, steps=1, arch="tiny", epochs=1, lrs=(0.05,), also=(("D_rand", "fast-l2:1"),), times=2.0
    ),
    "two-classes": two_classes.Config(("standard:1", "fast-l2:1"), n=140, eps=(1.0, 2.0), steps=1, arch="tiny", epochs=1),
    "robustified": robustified.Config("fast-l2:1", "standard:1", n=140, steps=2, arch="tiny", epochs=1, test=20),
    "transfer": transfer.Config("standard:1", ("tiny", "tiny2", "tiny3"), n=140, steps=1, attacked=20, epochs=1),
    "data-size": data_size.Config((130, 260), shipped=(), arch="tiny", updates=2, epochs=(1, 2), seeds=2, test=20),
    "capacity": capacity.Config(("tiny", "tiny3"), n=140, epochs=1, seeds=2, test=20),
    "usefulness": usefulness.Config(("standard:1", "fast-l2:1"), steps=1, n=140, per_class=10, arch="tiny"),
    "regimes": regimes.Config(("standard:1:150", "standard:2"), (0.5, 1.0), (True, False), n=140, steps=1, arch="tiny", epochs=1),
}


def write_data(folder: Path, train: int = TRAIN, size: int = 8) -> Path:
    """``train.npz`` and ``test.npz`` with small images of three classes, told apart by their colour, in noise."""
    folder.mkdir(parents=True, exist_ok=True)
    for n, name in ((train, "train"), (TEST, "test")):
        random = np.random.default_rng(n)
        y = np.arange(n) % 3
        x = random.integers(0, 160, (n, 3, size, size))
        x[np.arange(n), y] += 60
        np.savez(folder / f"{name}.npz", x=x.astype(np.uint8), y=y, classes=np.array(CLASSES))
    return folder


def add_architectures(patch: pytest.MonkeyPatch) -> None:
    """``tiny``, and two of other widths."""
    for name, width in (("tiny", 16), ("tiny2", 12), ("tiny3", 24)):
        patch.setitem(BODIES, name, lambda channels, width=width: MLP(channels, size=4, width=width))


@dataclass
class Work:
    """What was done: calls of the training loop, its steps, images that were constructed."""

    trainings: int = 0
    steps: int = 0
    images: int = 0


def count_work(patch: pytest.MonkeyPatch, on_work: Callable[[Work], object] = lambda work: None) -> Work:
    """Counts what caches do from now on; ``on_work`` is called after each step of a training."""
    work = Work()
    fit = trainer.fit

    def counted(*args: Any, on_step: Callable[[Any], object], **options: Any) -> Any:
        work.trainings += 1

        def step(state: Any) -> None:
            work.steps += 1
            on_step(state)
            on_work(work)

        return fit(*args, on_step=step, **options)

    patch.setattr(trainer, "fit", counted)
    for kind in (Relabelled, Inverted):
        patch.setattr(kind, "__call__", _counting(kind.__call__, work))
    return work


def _counting(make: Callable[..., Any], work: Work) -> Callable[..., Any]:
    def counted(self: Any, source: Any, index: Any, *args: Any, **options: Any) -> Any:
        work.images += len(index)
        return make(self, source, index, *args, **options)

    return counted
