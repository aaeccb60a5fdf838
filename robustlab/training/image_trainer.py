"""A training on images under way: validation after each epoch, and a test at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from robustlab import pictures
from robustlab.data.batches import Batches
from robustlab.errors import UserError
from robustlab.evaluation import Rate, Report, evaluate
from robustlab.evaluation.accuracy import Attack, NoNumbers
from robustlab.models.checkpoints import Provenance, save_weights
from robustlab.models.classifier import Classifier
from robustlab.models.placement import on_cpu
from robustlab.models.zoo import TRAINING_FORMAT, describe, from_description, load
from robustlab.options import flat
from robustlab.progress import Progress
from robustlab.records import Run
from robustlab.settings import Training
from robustlab.training.fit import Epoch, divergence_of_training
from robustlab.training.losses import UnderNoise
from robustlab.training.method import Method
from robustlab.training.trained import Trained
from robustlab.training.trainer import Line, Trainer

CLEAN, NOISE = "clean", "noise"  # accuracies on the validation part, beside that under attack
PLACES = ("path", "test_data", "cache", "out", "resume")  # settings that are places on this machine, and not in the record of weights


@dataclass(kw_only=True)
class ImageTrainer(Trainer):
    """A training on images under way.

    Attributes:
        settings: complete ones.
        validation: what chooses the epoch; None where the last one is kept.
        asked: the caller's own settings, in groups.
        dataset: the images' name.
    """

    settings: Training
    method: Method
    validation: Batches | None
    device: torch.device
    asked: Mapping[str, Mapping[str, Any]]
    dataset: str

    unit: ClassVar[str] = "images"

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or the last ones were no better than one before them."""
        patience = self.settings.choosing.patience
        out_of_patience = patience is not None and self.state.epoch - 1 - self.best["epoch"] >= patience
        return super().is_finished or out_of_patience

    def judged(self, epoch: Epoch) -> Line:
        """Validate, and keep the weights if they are the best so far."""
        if self.validation is None:
            return super().judged(epoch)
        with self._telling_divergence(epoch.number, epoch.lr):
            rates = self.validate(self.validation)
        judged = (rates.get(NOISE) or rates[str(self.method.validation_attack) if self.method.threat else CLEAN]).value
        if judged > self.best["value"]:
            self.best = {"value": judged, "epoch": epoch.number}
            self.save("best")
        return {f"val/{name}": rate.value for name, rate in rates.items()}

    def validate(self, validation: Batches) -> dict[str, Rate]:
        """Accuracies on the validation part, over all processes: clean, under attack, and under the noise that was trained with."""
        attack, model = self.method.validation_attack, self.state.result
        report = evaluate(model, validation.epoch(0), [attack], prove=False)
        rates = {CLEAN: report.clean, str(attack): report.under(str(attack))}
        if self.method.sigma is not None:
            rates[NOISE] = evaluate(UnderNoise(model, self.method.sigma), validation.epoch(0)).clean
        counts = [*(rate.count for rate in rates.values()), report.clean.n]
        *found, n = (int(v) for v in self.world.sum(torch.tensor(counts, dtype=torch.float64, device=self.device)).tolist())
        return {name: Rate(count, n) for name, count in zip(rates, found, strict=True)}

    @contextmanager
    def _telling_divergence(self, epoch: int, lr: float) -> Iterator[None]:
        """Say of answers that are NaN what they mean here: weights that are finite, but far too large."""
        try:
            yield
        except NoNumbers as error:
            raise divergence_of_training("the network's answers to images that it was not trained on are NaN", epoch, lr) from error

    def show(self, run: Run, epoch: int) -> None:
        """Some images, clean and attacked, to TensorBoard."""
        if self.validation is None:
            return
        batch = next(self.validation.epoch(0))
        x, y = batch.x[:8], batch.y[:8]
        x_adv = self.method.validation_attack(self.state.result, x, y, keys=batch.keys[:8])
        run.picture("clean, adversarial, difference", pictures.sheet([x, x_adv, pictures.amplified(x_adv - x)], 2), epoch)

    def described(self) -> dict[str, Any]:
        """With it, ``robustlab.load`` reads the checkpoint."""
        return {"format": TRAINING_FORMAT, **describe(self.state.model)}  # type: ignore[arg-type]

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
            best, peak = int(self.best["epoch"]), self.optimization.lr
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
                "epochs": self.optimization.epochs,
                "seconds": round(self.seconds_so_far),
                "settings": settings,
                "environment": {name: value for name, value in begun_with.items() if name != "command"},
            },
        )
