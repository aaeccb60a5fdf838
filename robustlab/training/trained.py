"""What a training gives back, and how it ends when it is stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robustlab.evaluation import Report
from robustlab.models.classifier import Classifier
from robustlab.settings import Training


@dataclass(frozen=True, eq=False, repr=False)
class Trained:
    """A trained network, and how it came to be.

    Attributes:
        model: the network of the epoch that was kept, in evaluation mode, where it was trained.
        settings: with all that was left open filled in.
        history: the numbers of each epoch: ``epoch``, ``train/loss``, ``train/accuracy``, ``val/clean``, ``val/`` and the attack's
            name, ``lr``, ``images_per_second``, ``seconds``; accuracies are shares of 1.
        best_epoch: the epoch that was kept, from 0.
        report: of the test images; None where there were none.
        folder: of the run, which holds ``model.safetensors`` and ``model.json``; None where nothing was written.
    """

    model: Classifier
    settings: Training
    history: tuple[Mapping[str, Any], ...]
    best_epoch: int
    report: Report | None = None
    folder: Path | None = None

    def __repr__(self) -> str:
        optimizing = self.settings.optimizing
        lines = [f"{self.model.arch}, trained by {self.settings.recipe}: epoch {self.best_epoch + 1} of {optimizing.epochs} was kept"]
        kept = next((line for line in self.history if line["epoch"] == self.best_epoch), {})
        for part, title in (("train/", "training"), ("val/", "validation")):
            numbers = {name.removeprefix(part): value for name, value in kept.items() if name.startswith(part)}
            if numbers:
                lines.append(f"{title}: " + ", ".join(f"{name} {_shown(name, value)}" for name, value in numbers.items()))
        if self.report is not None:
            lines.append("test: " + ", ".join(f"{name} {rate}" for name, rate in self.report.rates().items()))
        if self.folder is not None:
            lines.append(f"folder: {self.folder}")
        return "\n  ".join(lines)


def _shown(name: str, value: float) -> str:
    return f"{value:.4f}" if name == "loss" else f"{100 * value:.2f} %"


class Stopped(KeyboardInterrupt):
    """Training was stopped before its end, by Ctrl-C, SIGTERM or the caller; a run with a folder is saved there and can go on.

    Attributes:
        epoch: in which it was, from 0.
        epochs: how many there were to be.
        folder: of the run.
    """

    def __init__(self, epoch: int, epochs: int, folder: Path | None) -> None:
        super().__init__(f"stopped in epoch {epoch + 1} of {epochs}")
        self.epoch, self.epochs, self.folder = epoch, epochs, folder
