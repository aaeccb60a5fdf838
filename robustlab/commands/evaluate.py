"""``robustlab evaluate``: numbers, a curve, one line per image, and the adversarial images themselves."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from robustlab import files, pictures
from robustlab.attacks import PGD
from robustlab.attacks.by_name import named_attack
from robustlab.attacks.protocols import Attack
from robustlab.commands import settings
from robustlab.commands.common import choose_device, images_for, load_model, named_threat, required_model
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
from robustlab.models.matching import check_fits
from robustlab.models.naming import short_names
from robustlab.options import changed, given, names, paths
from robustlab.progress import say
from robustlab.records import Resumable, Run, differences, environment
from robustlab.reports.plots import Axes, accuracy_line, line_plot

SHOWN = 10  # images on a grid
FREE = ("images.name",)  # of what was asked for: it may change before the work goes on


def run(args: settings.Evaluate) -> None:
    """Print the accuracies of each model; with ``--out`` also write them, the records, pictures, and the curve.

    What was found is kept batch by batch in ``--out``, or beside ``--save-adversarial``: after an interruption the same command goes on.
    """
    chosen = paths(required_model(args.model))
    out, kept, grid = _places(args, chosen)
    attacks = _attacks(args)
    device = choose_device(args.compute.device, args.compute.threads)
    models = {name: load_model(name, args.model).to(device) for name in chosen}
    images = images_for(models, args.data, args.data.split)
    for name, model in models.items():
        check_fits(model, images, name, chosen=bool(args.data.classes))
    asked = _identity(args, models, images, attacks, kept)
    if out and not Run.is_run(Resumable.folder_of(out)) and (reports := _reports(out, list(short_names(models).values()))):
        _repeat(out, reports, asked, images)
        if grid:
            pictures.save(grid, _examples(args, next(iter(models.values())), images, attacks[0]))
        return
    try:
        place, beside = (out, False) if out else (kept, True)
        with Resumable.at(place, asked, FREE, what="measurement", beside=beside) as parts:
            _measure_all(args, models, images, attacks, (out, kept, grid), parts, asked)
    except KeyboardInterrupt:
        if out or kept:
            say("what was found is kept: the same command goes on from here")
        raise


def _measure_all(
    args: settings.Evaluate,
    models: dict[str, Classifier],
    images: Images,
    attacks: list[Attack],
    places: tuple[Path | None, Path | None, Path | None],
    parts: Resumable,
    asked: dict[str, Any],
) -> None:
    """Measure every model, or what is missing of it, and write all that was asked for."""
    out, kept, grid = places
    short, curves = short_names(models), {}
    for k, (name, model) in enumerate(models.items()):
        report, curves[short[name]] = measured(args, name, model, images, attacks, _Parts(parts, k, keeps=kept is not None))
        if out:
            place = out / short[name] if len(models) > 1 else out
            _write(place, args, name, model, images, attacks, report, curves[short[name]], asked)
        if grid:
            pictures.save(grid, _examples(args, model, images, attacks[0]))
    if kept:
        _write_adversarial(kept, list(short.values()), attacks, parts)
    if out and args.attack.curve:
        axes = Axes(f"{type(attacks[0].threat.norm).__name__} eps, pixels in [0, 1]", "accuracy", percent=True)
        title = f"{images.name}: accuracy under {method(attacks[0])}"
        line_plot(out / "curve.png", [accuracy_line(name, rates) for name, rates in curves.items()], axes, title=title)
    parts.finish()
    for place in filter(None, (out, kept, grid)):
        print(f"written to {place}")


def _places(args: settings.Evaluate, models: list[str]) -> tuple[Path | None, Path | None, Path | None]:
    """Folder of the results, folder of the adversarial images, and file of the grid; checked before any work."""
    out, kept, grid = (Path(place) if place else None for place in (args.output.out, args.output.save_adversarial, args.output.grid))
    goes_on = [place for place, beside in ((out, False), (kept, True)) if place and Run.is_run(Resumable.folder_of(place, beside=beside))]
    for place in filter(None, (out, kept)):
        if not goes_on and not (place == out and _reports(place, list(short_names(models).values()))):
            files.check_vacant(place, hidden_allowed=place == out)
    if grid is not None and (grid.suffix.lower() != ".png" or grid.is_dir()):
        raise UserError(f"--grid takes a PNG file to write, such as sheet.png, got {grid}")
    if grid is not None and len(models) > 1:
        raise UserError("--grid shows one model: give one with --model")
    for place in filter(None, (out, kept, grid)):
        files.check_writable(place)
    return out, kept, grid


def _attacks(args: settings.Evaluate) -> list[Attack]:
    """The attacks of ``--attack``; ``--steps``, ``--step-size`` and ``--restarts`` are those of ``pgd``.

    Raises:
        UserError: no such attack, or settings of PGD where there is no ``pgd``.
    """
    threat = named_threat(args.threat.norm, args.threat.eps)
    pgd = PGD(threat, args.attack.steps, args.attack.step_size, restarts=args.attack.restarts)
    chosen = names(args.attack.attack)
    own = [name for name in ("steps", "step_size", "restarts") if name in given(args)]
    if own and "pgd" not in chosen:
        raise UserError(f"--{own[0].replace('_', '-')} belongs to the attack pgd, and --attack names {', '.join(chosen)}")
    return [pgd if name == "pgd" else named_attack(name, threat) for name in chosen]


def method(attack: Attack) -> str:
    """An attack's name without its threat model: ``PGD-20``."""
    return str(attack).partition(" (")[0]


def _identity(
    args: settings.Evaluate, models: dict[str, Classifier], images: Images, attacks: list[Attack], kept: Path | None
) -> dict[str, Any]:
    """What the numbers depend on, wherever models and images lie."""
    device = next(iter(models.values())).mean.device
    return {
        "attacks": [_told(attack) for attack in attacks],
        "curve": args.attack.curve,
        "images": {**identity(images), "split": args.data.split},
        "models": [digest(model) for model in models.values()],
        "compute": {name: getattr(args.compute, name) for name in ("seed", "batch_size", "amp", "compile")} | {"device": device.type},
        "save_adversarial": kept is not None,
    }


def _told(attack: Any) -> dict[str, Any]:
    """An attack's settings in values that JSON holds."""
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


def _repeat(out: Path, reports: list[dict[str, Any]], asked: dict[str, Any], images: Images) -> None:
    """Print again what a measurement that ended found.

    Raises:
        UserError: it had other settings; names the differences.
    """
    without_name = {**asked, "images": {**asked["images"], "name": None}}
    for report in reports:
        before = report["asked"] | {"images": {**report["asked"].get("images", {}), "name": None}}
        different = differences(before, without_name)
        if different:
            raise UserError(f"{out} holds a measurement with other settings ({different}): name another folder with `out`")
    for report in reports:
        for text in report.get("printed", []):
            print(text)
    print(f"this was finished before, in {out}")


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
            made = [{"attack": one.attack, "classes": list(one.classes)} for one in batch]
            tensors = {f"{i} {name}": tensor for i, one in enumerate(batch) for name, tensor in one.tensors().items()}
            line = {"records": [record.to_json() for record in found], "adversarial": made}
            self.parts.add(f"records {self.model}", line, tensors if batch else None)
            batch.clear()

        return {"on_batch": on_batch, "progress": True, "on_adversarial": batch.append if self.keeps else None}


def _write_adversarial(kept: Path, models: list[str], attacks: list[Attack], parts: Resumable) -> None:
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
                        save(AdversarialImages(made["attack"], norms[made["attack"]], tuple(made["classes"]), **own))


def measured(
    args: settings.Evaluate, name: str, model: Classifier, images: Images, attacks: list[Attack], parts: _Parts
) -> tuple[Report, dict[float, Rate]]:
    """Attack a model on the images that are not done yet, and print its numbers on all."""
    fast_model = accelerate(model, dtype=torch.bfloat16 if args.compute.amp else None, compile=args.compute.compile)
    done = parts.records
    rest = evaluate(model, _from(images, len(done)), attacks, fast_model=fast_model, **parts.adding(), **_batches(args))
    report = replace(rest, records=(*done, *rest.records))
    rates: dict[float, Rate] = {}
    if args.attack.curve:
        ended = sum(n for n, _ in parts.standing)
        told: dict[str, Any] = {"on_standing": parts.add_standing, "fast_model": fast_model}
        radii = list(curve(model, _from(images, ended), attacks[0], args.attack.curve, **told, **_batches(args)))
        counted = [counts for _, counts in parts.standing]
        rates = {eps: Rate(sum(counts[k] for counts in counted), len(images)) for k, eps in enumerate(radii)}
    for text in _printed(args, name, images, report, rates):
        print(text)
    sys.stdout.flush()
    return report, rates


def _from(images: Images, first: int) -> Images:
    """The images from a position on; they keep their places in the split, and so their draws."""
    return images.subset(torch.arange(first, len(images))) if first else images


def _printed(args: settings.Evaluate, name: str, images: Images, report: Report, rates: dict[float, Rate]) -> list[str]:
    """What is printed of a model."""
    return [
        f"{name} on {images.name} ({args.data.split})",
        *(f"  {attack:<28} {rate}" for attack, rate in report.rates().items()),
        *(f"  note: {note}" for note in report.notes),
        *(f"  at eps = {eps:<19.4g} {rate}" for eps, rate in rates.items()),
    ]


def _batches(args: settings.Evaluate) -> dict[str, Any]:
    """How images are cut into batches."""
    return {"batch_size": args.compute.batch_size, "seed": args.compute.seed, "workers": args.compute.workers}


def _examples(args: settings.Evaluate, model: Classifier, images: Images, attack: Attack) -> torch.Tensor:
    """Some images before and after an attack, one of each class where there are ten; float ``(3, H, W)``."""
    shown = hold_out(images, min(SHOWN, len(images)), seed=0)[1]
    some = evaluate(model, images.subset(shown), attack, keep=True, progress=False, **_batches(args))
    if not some.adversarial:
        raise UserError("there is nothing to show: the model is wrong for all the images of the grid before any attack")
    return adversarial_grid(some.adversarial[str(attack)], len(shown))


def _write(
    out: Path,
    args: settings.Evaluate,
    name: str,
    model: Classifier,
    images: Images,
    attacks: list[Attack],
    report: Report,
    rates: dict[float, Rate],
    asked: dict[str, Any],
) -> None:
    """Records first, the report last: a folder with a report is complete."""
    files.write_text(out / "records.jsonl", "".join(json.dumps(record.to_json()) + "\n" for record in report.records))
    threat = attacks[0].threat
    if rates:
        points = [{"eps": eps, **rate.to_json()} for eps, rate in rates.items()]
        files.write_json(out / "curve.json", {"attack": method(attacks[0]), "norm": type(threat.norm).__name__, "points": points})
    if report.clean.count:
        try:
            pictures.save(out / "examples.png", _examples(args, model, images, attacks[0]))
        except UserError as error:
            say(f"note: no examples.png: {error}")
    files.write_json(
        out / "report.json",
        {
            "settings": dataclasses.asdict(changed(args, eps=threat.eps)),
            "environment": environment(),
            "dataset": images.name,
            "accuracies": {name: rate.to_json() for name, rate in report.rates().items()},
            "notes": report.notes,
            "printed": _printed(args, name, images, report, rates),
            "asked": asked,
        },
    )
