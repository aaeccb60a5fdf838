"""A training under way: epochs, validation, the best one so far, and the run folder, where there is one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustlab import files, pictures
from robustlab.data.batches import Batches
from robustlab.errors import UserError
from robustlab.evaluation import Rate, Report, evaluate
from robustlab.evaluation.accuracy import Attack, NoNumbers
from robustlab.models.checkpoints import Provenance, save_weights
from robustlab.models.classifier import Classifier
from robustlab.models.description import check_finite
from robustlab.models.placement import on_cpu
from robustlab.models.zoo import TRAINING_FORMAT, describe, from_description, load
from robustlab.options import flat
from robustlab.progress import Progress
from robustlab.records import Run
from robustlab.settings import Training
from robustlab.training.distributed import World
from robustlab.training.fit import READ_EVERY, Epoch, TrainingState, divergence_of_training, fit
from robustlab.training.method import Method
from robustlab.training.trained import Stopped, Trained

SAVE_EVERY = 600.0  # seconds between checkpoints within an epoch
PLACES = ("path", "test_data", "cache", "out", "resume")  # settings that are places on this machine, and not in the record of weights

Line = dict[str, Any]  # the numbers of an epoch


@dataclass
class Trainer:
    """A training under way.

    Attributes:
        settings: complete ones.
        validation: what chooses the epoch; None where the last one is kept.
        folder: of the run; None where nothing is written.
        asked: the caller's own settings, in groups.
        dataset: the images' name.
        on_epoch: called with the numbers of each epoch.
        progress: whether to show a bar, and a line for each epoch.
        run: the folder in the leading process's hands; None in the others, and where nothing is written.
        best: validation accuracy and number of the best epoch so far.
        best_weights: its weights, where this process has no folder to keep them in.
        history: the numbers of the epochs.
        seconds: of training and validation until this process took it up.
    """

    settings: Training
    method: Method
    state: TrainingState
    training: Batches
    validation: Batches | None
    device: torch.device
    world: World
    folder: Path | None
    asked: Mapping[str, Mapping[str, Any]]
    dataset: str
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
        state, optimization = self.state, self.method.optimization
        steps = self.steps
        options: dict[str, Any] = {"world": self.world, "seed": self.settings.seed, "compile": self.settings.optimizing.compile}
        self.clock = self.saved_at = began = time.monotonic()
        first = state.step
        with Progress("training", optimization.epochs * steps, "steps", shown=self.progress) as shown:
            shown.start_from(state.epoch * steps + state.step)
            on_step = self._on_step(shown)
            for epoch in fit(state, self.training, self.method.loss, optimization, stop=stop, on_step=on_step, **options):
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
        return len(self.training) // self.method.optimization.accumulate

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or the last ones were no better than one before them."""
        patience = self.settings.choosing.patience
        out_of_patience = patience is not None and self.state.epoch - 1 - self.best["epoch"] >= patience
        return self.state.epoch >= self.method.optimization.epochs or out_of_patience

    def _on_step(self, shown: Progress) -> Callable[[TrainingState], None]:
        def on_step(state: TrainingState) -> None:
            shown.update()
            if state.step % READ_EVERY == 0 and state.latest is not None:
                shown.note(self._progress_text(state.latest))
            if time.monotonic() - self.saved_at > SAVE_EVERY:
                state.read(self.method.optimization, self.steps)  # what diverged is not saved
                self.save("last")

        return on_step

    def _end_epoch(self, epoch: Epoch, speed: float, shown: Progress) -> None:
        """Validate, keep the weights if they are the best so far, and say and save everything."""
        line: Line = {"epoch": epoch.number, "train/loss": epoch.loss}
        line |= {f"train/{name}": value for name, value in epoch.metrics.items()}
        if self.validation is None:
            self.best = {"value": -1.0, "epoch": epoch.number}
        else:
            with self._telling_divergence(epoch.number, epoch.lr):
                clean, robust = self.validate(self.validation)
            line |= {"val/clean": clean.value, f"val/{self.method.validation_attack}": robust.value}
            judged = (robust if self.method.threat else clean).value
            if judged > self.best["value"]:
                self.best = {"value": judged, "epoch": epoch.number}
                self.save("best")
        line |= {"lr": epoch.lr, "images_per_second": speed, "seconds": self.seconds_so_far}
        self.history.append(line)
        if self.run:
            self.run.log(line)
        shown.write(self._epoch_text(line))
        if self.run and self.validation is not None:
            self._show_examples(self.run, self.validation, epoch.number)
        self.on_epoch(line)
        self.save("last")

    def validate(self, validation: Batches) -> tuple[Rate, Rate]:
        """Clean and robust accuracy on the validation part, over all processes."""
        attack = self.method.validation_attack
        report = evaluate(self.state.result, validation.epoch(0), [attack])
        counts = [report.clean.count, report.under(str(attack)).count, report.clean.n]
        clean, robust, n = (int(v) for v in self.world.sum(torch.tensor(counts, dtype=torch.float64, device=self.device)).tolist())
        return Rate(clean, n), Rate(robust, n)

    @contextmanager
    def _telling_divergence(self, epoch: int, lr: float) -> Iterator[None]:
        """Say of answers that are NaN what they mean here: weights that are finite, but far too large."""
        try:
            yield
        except NoNumbers as error:
            raise divergence_of_training("the network's answers to images that it was not trained on are NaN", epoch, lr) from error

    def _show_examples(self, run: Run, validation: Batches, epoch: int) -> None:
        """Some images, clean and attacked, to TensorBoard."""
        batch = next(validation.epoch(0))
        x, y = batch.x[:8], batch.y[:8]
        x_adv = self.method.validation_attack(self.state.result, x, y, keys=batch.keys[:8])
        run.picture("clean, adversarial, difference", pictures.sheet([x, x_adv, pictures.amplified(x_adv - x)], 2), epoch)

    def _epoch_text(self, line: Line) -> str:
        numbers = "  ".join(f"{name} {100 * value:.2f}%" for name, value in line.items() if name.startswith(("val/", "train/acc")))
        text = f"epoch {line['epoch'] + 1:>3}/{self.method.optimization.epochs}  loss {line['train/loss']:.4f}  {numbers}"
        return f"{text}  {line['images_per_second']:.0f} img/s"

    def _progress_text(self, latest: Epoch) -> str:
        words = [f"epoch {latest.number + 1} loss {latest.loss:.3f} train {100 * latest.accuracy:.1f}%"]
        validated = {name: value for name, value in (self.history or [{}])[-1].items() if name.startswith("val/")}
        return " ".join([*words, *(f"{name} {100 * value:.1f}%" for name, value in validated.items())])

    @property
    def seconds_so_far(self) -> float:
        """Of training and validation, whoever did it."""
        return self.seconds + time.monotonic() - self.clock

    def save(self, name: str) -> None:
        """Write a checkpoint that resumes training and that ``robustlab.load`` reads; whoever has no folder keeps the best weights."""
        self.saved_at = time.monotonic()
        if self.run:
            state = {**describe(self.state.model), **self.state.state_dict()}  # type: ignore[arg-type]
            self.run.save(name, {"format": TRAINING_FORMAT, **state, "best": self.best, "seconds": self.seconds_so_far})
        elif name == "best":
            self.best_weights = {key: tensor.clone() for key, tensor in self.state.result.state_dict().items()}

    def finish(self, test: Batches | None, attack: Attack) -> Trained:
        """Test the epoch that was kept, and write its weights; the leading process's work.

        The others do not wait for it: testing may take longer than a collective may.

        Raises:
            UserError: the weights are no numbers.
        """
        model = self._kept()
        if not torch.stack([tensor.isfinite().all() for tensor in model.state_dict().values()]).all():
            raise UserError("training diverged: the weights are no longer numbers; try a smaller `lr`, or `clip=1`")
        report = None
        if test is not None and self.world.leads:
            best, peak = int(self.best["epoch"]), self.method.optimization.lr
            with Progress("testing", len(test.images), "img", shown=self.progress) as shown, self._telling_divergence(best, peak):
                report = evaluate(model, test.epoch(0), [attack], on_batch=lambda found: shown.update(len(found)))
        if self.run:
            self.run.close()
            save_weights(self.run.folder / "model", model, self._provenance(self.run, report))
        return Trained(model, self.settings, tuple(self.history), int(self.best["epoch"]), report, self.folder)

    def _kept(self) -> Classifier:
        """The network of the epoch that was kept."""
        if self.folder is not None and self.validation is not None and self.best_weights is None:
            return load(self.folder / "best.pt").to(self.device)
        weights = self.state.result.state_dict() if self.best_weights is None else self.best_weights
        network = from_description(describe(self.state.model))  # type: ignore[arg-type]
        network.load_state_dict(on_cpu(weights))
        return network.eval().to(self.device)

    def _provenance(self, run: Run, report: Report | None) -> Provenance:
        """The record beside the weights, without places on this machine."""
        settings = flat(self.settings)
        if self.settings.network.init is not None:
            settings["init"] = Path(self.settings.network.init).name
        for group in self.asked.values():
            settings |= {name: value for name, value in group.items() if name not in PLACES}
        begun_with = run.environment
        return Provenance(
            dataset=self.dataset,
            recipe=self.settings.recipe,
            threat=str(self.method.threat or "none"),
            accuracies={name: round(100 * rate.value, 2) for name, rate in report.rates().items()} if report else {},
            n=report.clean.n if report else 0,
            seed=self.settings.seed,
            commit=str(begun_with.get("commit") or "unknown"),
            details={
                "best_epoch": int(self.best["epoch"]),
                "epochs": self.method.optimization.epochs,
                "seconds": round(self.seconds_so_far),
                "settings": settings,
                "environment": {name: value for name, value in begun_with.items() if name != "command"},
            },
        )
