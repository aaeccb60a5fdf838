"""A measurement of several models that is kept batch by batch, so that it goes on where it was interrupted, and all that it leaves behind:
numbers, one line per image, a curve, a grid and the adversarial images."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from robustlab import files, pictures
from robustlab.attacks.lineup import LineUp
from robustlab.attacks.protocols import Attack
from robustlab.data.fingerprint import identity
from robustlab.data.imageset import Images, hold_out
from robustlab.errors import UserError
from robustlab.evaluation import Rate, Report, curve, evaluate
from robustlab.evaluation.adversarial import AdversarialImages, saving_within
from robustlab.evaluation.grids import adversarial_grid
from robustlab.evaluation.report import Record
from robustlab.models.accelerate import accelerate
from robustlab.models.classifier import Classifier
from robustlab.models.digest import digest
from robustlab.models.naming import short_names
from robustlab.progress import say
from robustlab.records import Resumable, Run, check_same, environment
from robustlab.reports.plots import Axes, accuracy_line, line_plot

SHOWN = 10  # images on a grid
FREE = ("images.name",)  # of what was asked for: it may change before the work goes on


@dataclass(frozen=True)
class Measuring:
    """What to measure, and how.

    Attributes:
        attacks: within threat models, at least one; the first gives the curve and the pictures.
        radii: of the curve, in pixel units; none for no curve.
        split: which part of the data it is, for the words.
        batch_size, seed, workers: as for ``evaluate``.
        bfloat16, compile: of the stand-in that takes the attacks' steps.
        settings: what else the report should say about itself, in values that JSON holds.
    """

    attacks: Sequence[Attack]
    radii: Sequence[float] | None = None
    split: str = "test"
    batch_size: int = 250
    seed: int = 0
    workers: int = 0
    bfloat16: bool = False
    compile: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def batches(self) -> dict[str, Any]:
        """How images are cut into batches."""
        return {"batch_size": self.batch_size, "seed": self.seed, "workers": self.workers}


@dataclass(frozen=True)
class Places:
    """Where a measurement leaves what it found; nothing is written where there is none.

    Attributes:
        out: folder of the report, the records, the curve and examples; several models have a folder each within it.
        adversarial: folder of the adversarial images.
        grid: PNG file with some images before and after the first attack, of one model.
    """

    out: Path | None = None
    adversarial: Path | None = None
    grid: Path | None = None

    def check(self, models: Sequence[str]) -> None:
        """Refuse places that are taken or cannot be written, before any work.

        Args:
            models: their names.

        Raises:
            UserError: which one, and why.
        """
        beside = ((self.out, False), (self.adversarial, True))
        goes_on = [place for place, hidden in beside if place and Run.is_run(Resumable.folder_of(place, beside=hidden))]
        for place in filter(None, (self.out, self.adversarial)):
            if not goes_on and not (place == self.out and _reports(place, list(short_names(models).values()))):
                files.check_vacant(place, hidden_allowed=place == self.out)
        if self.grid is not None and (self.grid.suffix.lower() != ".png" or self.grid.is_dir()):
            raise UserError(f"`grid` takes a PNG file to write, such as sheet.png, got {self.grid}")
        if self.grid is not None and len(models) > 1:
            raise UserError("`grid` shows one model: give one by `model`")
        for place in filter(None, (self.out, self.adversarial, self.grid)):
            files.check_writable(place)


def measure_models(
    models: Mapping[str, Classifier], images: Images, measuring: Measuring, places: Places, *, tell: Callable[[str], object] = print
) -> None:
    """Attack every model, tell its numbers, and leave what was found in its places.

    What is found is kept batch by batch in ``places.out``, or beside ``places.adversarial``: after an interruption the same call goes on,
    and its files are those of an uninterrupted one.

    Args:
        models: by name, all on one device.
        images: labelled.
        measuring: what to measure.
        places: see ``Places.check``, which is for the caller to ask first.
        tell: called with each line of the result.

    Raises:
        UserError: a place holds a measurement with other settings, or is in use; and as for ``evaluate``.
    """
    asked = _identity(measuring, models, images, places.adversarial is not None)
    out, grid = places.out, places.grid
    if out and not Run.is_run(Resumable.folder_of(out)) and (reports := _reports(out, list(short_names(models).values()))):
        _repeat(out, reports, asked, tell)
        if grid:
            pictures.save(grid, _examples(measuring, next(iter(models.values())), images))
        return
    try:
        place, beside = (out, False) if out else (places.adversarial, True)
        with Resumable.at(place, asked, FREE, what="measurement", beside=beside) as parts:
            _measure_all(models, images, measuring, places, parts, asked, tell)
    except KeyboardInterrupt:
        if out or places.adversarial:
            say("what was found is kept: the same command goes on from here")
        raise


def _measure_all(
    models: Mapping[str, Classifier],
    images: Images,
    measuring: Measuring,
    places: Places,
    parts: Resumable,
    asked: dict[str, Any],
    tell: Callable[[str], object],
) -> None:
    """Measure every model, or what is missing of it, and write all that was asked for."""
    out, kept, grid = places.out, places.adversarial, places.grid
    short, curves = short_names(models), {}
    for k, (name, model) in enumerate(models.items()):
        report, curves[short[name]] = _measured(measuring, model, images, _Parts(parts, k, keeps=kept is not None))
        printed = _printed(measuring, name, images, report, curves[short[name]])
        for text in printed:
            tell(text)
        sys.stdout.flush()
        if out:
            place = out / short[name] if len(models) > 1 else out
            _write(place, measuring, model, images, report, curves[short[name]], {"printed": printed, "asked": asked})
        if grid:
            pictures.save(grid, _examples(measuring, model, images))
    if kept:
        _write_adversarial(kept, list(short.values()), measuring.attacks, parts)
    if out and measuring.radii:
        axes = Axes(f"{type(measuring.attacks[0].threat.norm).__name__} eps, pixels in [0, 1]", "accuracy", percent=True)
        title = f"{images.name}: accuracy under {method(measuring.attacks[0])}"
        line_plot(out / "curve.png", [accuracy_line(name, rates) for name, rates in curves.items()], axes, title=title)
    parts.finish()
    for place in filter(None, (out, kept, grid)):
        tell(f"written to {place}")


def method(attack: Attack) -> str:
    """An attack's name without its threat model: ``PGD-20``."""
    return str(attack).partition(" (")[0]


def _identity(measuring: Measuring, models: Mapping[str, Classifier], images: Images, keeps: bool) -> dict[str, Any]:
    """What the numbers depend on, wherever models and images lie."""
    compute = {"seed": measuring.seed, "batch_size": measuring.batch_size, "amp": measuring.bfloat16, "compile": measuring.compile}
    return {
        "attacks": [_told(attack) for attack in measuring.attacks],
        "curve": None if measuring.radii is None else list(measuring.radii),
        "images": {**identity(images), "split": measuring.split},
        "models": [digest(model) for model in models.values()],
        "compute": compute | {"device": next(iter(models.values())).mean.device.type},
        "save_adversarial": keeps,
    }


def _told(attack: Any) -> dict[str, Any]:
    """An attack's settings in values that JSON holds."""
    if isinstance(attack, LineUp):
        return {"name": str(attack), "attacks": [_told(one) for one in attack.attacks]}
    threat = {"norm": type(attack.threat.norm).__name__, "eps": attack.threat.eps}
    values = {each.name: getattr(attack, each.name) for each in dataclasses.fields(attack) if each.name != "threat"}
    return {"name": str(attack), "threat": threat} | {name: getattr(value, "__name__", value) for name, value in values.items()}


def _reports(out: Path, models: list[str]) -> list[dict[str, Any]]:
    """What a measurement that ended left in a folder, for each model; empty where there is none of as many models."""
    places = [out] if len(models) == 1 else [out / name for name in models]
    if not all((place / "report.json").is_file() for place in places):
        return []
    found = [files.read_json(place / "report.json", "the report of a measurement") for place in places]
    return found if all(isinstance(one.get("asked"), dict) for one in found) else []


def _repeat(out: Path, reports: list[dict[str, Any]], asked: dict[str, Any], tell: Callable[[str], object]) -> None:
    """Tell again what a measurement that ended found.

    Raises:
        UserError: it had other settings; names the differences.
    """
    for report in reports:
        check_same(out, report["asked"], asked, FREE, what="measurement")
    for report in reports:
        for text in report.get("printed", []):
            tell(text)
    tell(f"this was finished before, in {out}")


@dataclass(frozen=True)
class _Parts:
    """What is kept of one model's measurement, batch by batch.

    Attributes:
        parts: of the whole call.
        model: which of the models, from 0.
        keeps: whether adversarial images are kept too.
    """

    parts: Resumable
    model: int
    keeps: bool

    @property
    def records(self) -> list[Record]:
        """Of the images that are done."""
        return [Record.from_json(one) for batch in self.parts.found(f"records {self.model}") for one in batch["records"]]

    @property
    def standing(self) -> list[tuple[int, list[int]]]:
        """Of each batch of the curve that is done: its images, and how many stand at each radius."""
        return [(n, counts) for n, counts in self.parts.found(f"curve {self.model}")]

    def add_standing(self, n: int, counts: list[int]) -> None:
        self.parts.add(f"curve {self.model}", [n, counts])

    def adding(self) -> dict[str, Any]:
        """What ``evaluate`` is to call: for what each attack returned on a batch, and then for the batch's records."""
        batch: list[AdversarialImages] = []

        def on_batch(found: list[Record]) -> None:
            made = [{"attack": one.attack, "classes": list(one.classes), "sources": list(one.sources)} for one in batch]
            tensors = {f"{i} {name}": tensor for i, one in enumerate(batch) for name, tensor in one.tensors().items()}
            line = {"records": [record.to_json() for record in found], "adversarial": made}
            self.parts.add(f"records {self.model}", line, tensors if batch else None)
            batch.clear()

        return {"on_batch": on_batch, "progress": True, "on_adversarial": batch.append if self.keeps else None}


def _write_adversarial(kept: Path, models: list[str], attacks: Sequence[Attack], parts: Resumable) -> None:
    """Write the adversarial images of all batches into their folder, all of it or nothing."""
    # Written down first: a folder that is there later is ours, as it is put into its place whole.
    if parts.found("adversarial images") and kept.exists() and any(not entry.name.startswith(".") for entry in kept.iterdir()):
        return
    files.check_vacant(kept)
    parts.add("adversarial images", str(kept))
    norms = {str(attack): attack.threat.norm for attack in attacks}
    with files.atomic_folder(kept) as folder:
        for k, name in enumerate(models):
            place = folder / name if len(models) > 1 else folder
            place.mkdir(exist_ok=True)
            with saving_within(place) as save:
                for number, line in enumerate(parts.found(f"records {k}")):
                    tensors = parts.tensors(f"records {k}", number) if line["adversarial"] else {}
                    for i, made in enumerate(line["adversarial"]):
                        own = {key.partition(" ")[2]: value for key, value in tensors.items() if key.partition(" ")[0] == str(i)}
                        sources = tuple(made.get("sources", ()))  # parts of before have none
                        save(AdversarialImages(made["attack"], norms[made["attack"]], tuple(made["classes"]), **own, sources=sources))


def _measured(measuring: Measuring, model: Classifier, images: Images, parts: _Parts) -> tuple[Report, dict[float, Rate]]:
    """Attack a model on the images that are not done yet; the numbers are of all."""
    fast_model = accelerate(model, dtype=torch.bfloat16 if measuring.bfloat16 else None, compile=measuring.compile)
    done = parts.records
    rest = evaluate(model, _from(images, len(done)), measuring.attacks, fast_model=fast_model, **parts.adding(), **measuring.batches)
    report = replace(rest, records=(*done, *rest.records))
    rates: dict[float, Rate] = {}
    if measuring.radii:
        ended = sum(n for n, _ in parts.standing)
        told: dict[str, Any] = {"on_standing": parts.add_standing, "fast_model": fast_model}
        radii = list(curve(model, _from(images, ended), measuring.attacks[0], measuring.radii, **told, **measuring.batches))
        counted = [counts for _, counts in parts.standing]
        rates = {eps: Rate(sum(counts[k] for counts in counted), len(images)) for k, eps in enumerate(radii)}
    return report, rates


def _from(images: Images, first: int) -> Images:
    """The images from a position on; they keep their places in the split, and so their draws."""
    return images.subset(torch.arange(first, len(images))) if first else images


def _printed(measuring: Measuring, name: str, images: Images, report: Report, rates: dict[float, Rate]) -> list[str]:
    """What is told of a model."""
    return [
        f"{name} on {images.name} ({measuring.split})",
        *(f"  {attack:<28} {rate}" for attack, rate in report.rates().items()),
        *(f"  note: {note}" for note in report.notes),
        *(f"  at eps = {eps:<19.4g} {rate}" for eps, rate in rates.items()),
    ]


def _examples(measuring: Measuring, model: Classifier, images: Images) -> torch.Tensor:
    """Some images before and after an attack, one of each class where there are ten; float ``(3, H, W)``."""
    shown = hold_out(images, min(SHOWN, len(images)), seed=0)[1]
    some = evaluate(model, images.subset(shown), measuring.attacks[0], keep=True, progress=False, **measuring.batches)
    if not some.adversarial:
        raise UserError("there is nothing to show: the model is wrong for all the images of the grid before any attack")
    return adversarial_grid(some.adversarial[str(measuring.attacks[0])], len(shown))


def _write(
    out: Path,
    measuring: Measuring,
    model: Classifier,
    images: Images,
    report: Report,
    rates: dict[float, Rate],
    more: dict[str, Any],
) -> None:
    """Records first, the report last: a folder with a report is complete."""
    files.write_text(out / "records.jsonl", "".join(json.dumps(record.to_json()) + "\n" for record in report.records))
    first = measuring.attacks[0]
    if rates:
        points = [{"eps": eps, **rate.to_json()} for eps, rate in rates.items()]
        files.write_json(out / "curve.json", {"attack": method(first), "norm": type(first.threat.norm).__name__, "points": points})
    if report.clean.count:
        try:
            pictures.save(out / "examples.png", _examples(measuring, model, images))
        except UserError as error:
            say(f"note: no examples.png: {error}")
    accuracies = {name: rate.to_json() for name, rate in report.rates().items()}
    found = {"environment": environment(), "dataset": images.name, "accuracies": accuracies, "notes": report.notes}
    files.write_json(out / "report.json", {"settings": dict(measuring.settings), **found, **more})
