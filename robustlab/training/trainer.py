"""A training under way: epochs, the best one so far, and the run folder, where there is one. What it trains on is for its kinds to know:
``ImageTrainer`` and ``GraphTrainer``."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from robustlab import files
from robustlab.errors import UserError
from robustlab.models.description import check_finite
from robustlab.progress import Progress
from robustlab.records import Run
from robustlab.training.distributed import ALONE, World
from robustlab.training.fit import READ_EVERY, Epoch, EpochBatches, Optimization, TrainingState, fit
from robustlab.training.losses import TrainingLoss
from robustlab.training.trained import Stopped

SAVE_EVERY = 600.0  # seconds between checkpoints within an epoch

SHORT = {"images": "img"}  # units as the progress bar has them
SHARES = {"accuracy": "train", "overlap": "overlap"}  # metrics that are shares of 1, with their words for the progress bar

Line = dict[str, Any]  # the numbers of an epoch


@dataclass(kw_only=True)
class Trainer(ABC):
    """A training under way.

    Attributes:
        training: the batches.
        seed: of what the network itself draws.
        folder: of the run; None where nothing is written.
        compile: pass the network through ``torch.compile``.
        on_epoch: called with the numbers of each epoch.
        progress: whether to show a bar, and a line for each epoch.
        run: the folder in the leading process's hands; None in the others, and where nothing is written.
        best: value and number of the best epoch so far; the last one where nothing judges them.
        best_weights: its weights, where this process has no folder to keep them in.
        history: the numbers of the epochs.
        seconds: of training and validation until this process took it up.
    """

    state: TrainingState
    training: EpochBatches
    loss: TrainingLoss
    optimization: Optimization
    seed: int
    folder: Path | None = None
    world: World = ALONE
    compile: bool = False
    on_epoch: Callable[[Line], object] = lambda line: None
    progress: bool = False
    run: Run | None = None
    best: dict[str, float] = field(default_factory=lambda: {"value": -1.0, "epoch": -1})
    best_weights: dict[str, Tensor] | None = None
    history: list[Line] = field(default_factory=list)
    seconds: float = 0.0
    clock: float = field(default_factory=time.monotonic)
    saved_at: float = field(default_factory=time.monotonic)

    def take_up(self, run: Run | None, saved: dict[str, Any] | None) -> None:
        """Go on with a run.

        Args:
            run: its folder, in the leading process's hands; None in the others.
            saved: its last checkpoint; None where it was killed before the first.

        Raises:
            UserError: a checkpoint or a log that is not this run's.
        """
        self.run = run
        if saved is not None:
            try:
                self.state.load_state_dict(saved)
                self.best, self.seconds = saved["best"], saved["seconds"]
            except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
                raise UserError(f"{self.folder}/last.pt is not the checkpoint that this run wrote: what it holds does not fit") from error
            files.check_kinds(saved, {"best": {"value": float, "epoch": int}, "seconds": float}, f"{self.folder}/last.pt", "a training")
            for network in filter(None, (self.state.model, self.state.average)):
                check_finite(network.state_dict(), f"{self.folder}/last.pt")
        if run:
            run.keep_epochs_before(self.state.epoch)
            self.history = list(run.metrics)
            missing = set(range(self.state.epoch)) - {line["epoch"] for line in run.metrics}
            if missing and run.log_file.exists():
                raise UserError(f"{run.log_file} is damaged: it lacks epoch {min(missing) + 1}, which {run.folder}/last.pt says is done")

    def go(self, stop: Callable[[], bool]) -> None:
        """Train to the end.

        Raises:
            Stopped: ``stop`` gave a true answer, in any process; the state is saved.
        """
        if self.is_finished:
            return
        state, optimization = self.state, self.optimization
        steps = self.steps
        options: dict[str, Any] = {"world": self.world, "seed": self.seed, "compile": self.compile}
        self.clock = self.saved_at = began = time.monotonic()
        first = state.step
        with Progress("training", optimization.epochs * steps, "steps", shown=self.progress) as shown:
            shown.start_from(state.epoch * steps + state.step)
            on_step = self._on_step(shown)
            for epoch in fit(state, self.training, self.loss, optimization, stop=stop, on_step=on_step, **options):
                speed = (steps - first) * optimization.batch_size / (time.monotonic() - began)
                self._end_epoch(epoch, speed, shown)
                if self.world.any(stop()) or self.is_finished:
                    break
                first, began = 0, time.monotonic()
        if not self.is_finished:
            self.save("last")
            raise Stopped(state.epoch, optimization.epochs, self.folder)

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return len(self.training) // self.optimization.accumulate

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done."""
        return self.state.epoch >= self.optimization.epochs

    def _on_step(self, shown: Progress) -> Callable[[TrainingState], None]:
        def on_step(state: TrainingState) -> None:
            shown.update()
            if state.step % READ_EVERY == 0 and state.latest is not None:
                shown.note(self._progress_text(state.latest))
            if time.monotonic() - self.saved_at > SAVE_EVERY:
                state.read(self.optimization, self.steps)  # what diverged is not saved
                self.save("last")

        return on_step

    def _end_epoch(self, epoch: Epoch, speed: float, shown: Progress) -> None:
        """Judge the epoch, and say and save everything."""
        line: Line = {"epoch": epoch.number, "train/loss": epoch.loss}
        line |= {f"train/{name}": value for name, value in epoch.metrics.items()}
        line |= self.judged(epoch)
        line |= {"lr": epoch.lr, f"{self.unit}_per_second": speed, "seconds": self.seconds_so_far}
        self.history.append(line)
        if self.run:
            self.run.log(line)
        shown.write(self._epoch_text(line, speed))
        if self.run:
            self.show(self.run, epoch.number)
        self.on_epoch(line)
        self.save("last")

    # What its kinds have of their own

    unit: ClassVar[str] = "examples"

    def judged(self, epoch: Epoch) -> Line:
        """What a look at other examples gave, after an epoch; keeps the weights if they are the best so far."""
        self.best = {"value": -1.0, "epoch": epoch.number}
        return {}

    def show(self, run: Run, epoch: int) -> None:
        """Pictures for TensorBoard, after an epoch; none here."""
        return None

    @abstractmethod
    def described(self) -> dict[str, Any]:
        """What a checkpoint says of the network, with its ``format``, in values that safe pickles hold."""

    def _epoch_text(self, line: Line, speed: float) -> str:
        shown = [*(name for name in line if name.startswith("val/")), *(f"train/{name}" for name in SHARES)]
        shares = [f"{name} {100 * line[name]:.2f}%" for name in line if name in shown]
        text = f"epoch {line['epoch'] + 1:>3}/{self.optimization.epochs}  loss {line['train/loss']:.4f}  {'  '.join(shares)}"
        return f"{text}  {speed:.0f} {SHORT.get(self.unit, self.unit)}/s"

    def _progress_text(self, latest: Epoch) -> str:
        measured = [f"{SHARES[name]} {100 * value:.1f}%" for name, value in latest.metrics.items() if name in SHARES]
        validated = {name: value for name, value in (self.history or [{}])[-1].items() if name.startswith("val/")}
        words = [f"epoch {latest.number + 1} loss {latest.loss:.3f}", *measured]
        return " ".join([*words, *(f"{name} {100 * value:.1f}%" for name, value in validated.items())])

    @property
    def seconds_so_far(self) -> float:
        """Of training and validation, whoever did it."""
        return self.seconds + time.monotonic() - self.clock

    def save(self, name: str) -> None:
        """Write a checkpoint that resumes training; whoever has no folder keeps the best weights."""
        self.saved_at = time.monotonic()
        if self.run:
            state = {**self.described(), **self.state.state_dict()}
            self.run.save(name, {**state, "best": self.best, "seconds": self.seconds_so_far})
        elif name == "best":
            self.best_weights = {key: tensor.clone() for key, tensor in self.state.result.state_dict().items()}
