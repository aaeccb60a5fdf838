"""``robustlab evaluate``: numbers, a curve, one line per image, and the adversarial images themselves."""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from robustlab import files, pictures
from robustlab.attacks import PGD
from robustlab.attacks.by_name import named_attack
from robustlab.attacks.protocols import Attack
from robustlab.commands import settings
from robustlab.commands.common import choose_device, images_for, load_model, named_threat, required_model
from robustlab.data.imageset import Images, hold_out
from robustlab.errors import UserError
from robustlab.evaluation import Rate, Report, curve, evaluate
from robustlab.evaluation.adversarial import saving
from robustlab.evaluation.grids import adversarial_grid
from robustlab.models.accelerate import accelerate
from robustlab.models.classifier import Classifier
from robustlab.models.matching import check_fits
from robustlab.models.naming import short_names
from robustlab.options import changed, given, names, paths
from robustlab.records import environment
from robustlab.reports.plots import Axes, accuracy_line, line_plot

SHOWN = 10  # images on a grid


def run(args: settings.Evaluate) -> None:
    """Print the accuracies of each model; with ``--out`` also write them, the records, pictures, and the curve."""
    chosen = paths(required_model(args.model))
    out, kept, grid = _places(args, len(chosen))
    attacks = _attacks(args)
    device = choose_device(args.compute.device, args.compute.threads)
    models = {name: load_model(name, args.model).to(device) for name in chosen}
    images = images_for(models, args.data, args.data.split)
    for name, model in models.items():
        check_fits(model, images, name, chosen=bool(args.data.classes))
    short, curves = short_names(models), {}
    for name, model in models.items():
        with nullcontext() if kept is None else saving(kept / short[name] if len(models) > 1 else kept) as save:
            report, curves[short[name]] = measured(args, name, model, images, attacks, save)
        if out:
            _write(out / short[name] if len(models) > 1 else out, args, model, images, attacks, report, curves[short[name]])
        if grid:
            pictures.save(grid, _examples(args, model, images, attacks[0]))
    if out and args.attack.curve:
        axes = Axes(f"{type(attacks[0].threat.norm).__name__} eps, pixels in [0, 1]", "accuracy", percent=True)
        title = f"{images.name}: accuracy under {method(attacks[0])}"
        line_plot(out / "curve.png", [accuracy_line(name, rates) for name, rates in curves.items()], axes, title=title)
    for place in filter(None, (out, kept, grid)):
        print(f"written to {place}")


def _places(args: settings.Evaluate, models: int) -> tuple[Path | None, Path | None, Path | None]:
    """Folder of the results, folder of the adversarial images, and file of the grid; checked before any work."""
    out, kept, grid = (Path(place) if place else None for place in (args.output.out, args.output.save_adversarial, args.output.grid))
    for place in filter(None, (out, kept)):
        files.check_vacant(place)
    if grid is not None and (grid.suffix.lower() != ".png" or grid.is_dir()):
        raise UserError(f"--grid takes a PNG file to write, such as sheet.png, got {grid}")
    if grid is not None and models > 1:
        raise UserError("--grid shows one model: give one with --model")
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


def measured(
    args: settings.Evaluate, name: str, model: Classifier, images: Images, attacks: list[Attack], save: Any
) -> tuple[Report, dict[float, Rate]]:
    """Attack a model, and print its numbers."""
    fast_model = accelerate(model, dtype=torch.bfloat16 if args.compute.amp else None, compile=args.compute.compile)
    report = evaluate(model, images, attacks, fast_model=fast_model, on_adversarial=save, **_batches(args))
    print(f"{name} on {images.name} ({args.data.split})")
    for attack, rate in report.rates().items():
        print(f"  {attack:<28} {rate}")
    for note in report.notes:
        print(f"  note: {note}")
    rates: dict[float, Rate] = {}
    if args.attack.curve:
        rates = curve(model, images, attacks[0], args.attack.curve, fast_model=fast_model, **_batches(args))
    for eps, rate in rates.items():
        print(f"  at eps = {eps:<19.4g} {rate}")
    sys.stdout.flush()
    return report, rates


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
    out: Path, args: settings.Evaluate, model: Classifier, images: Images, attacks: list[Attack], report: Report, rates: dict[float, Rate]
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
            print(f"note: no examples.png: {error}", file=sys.stderr)
    files.write_json(
        out / "report.json",
        {
            "settings": dataclasses.asdict(changed(args, eps=threat.eps)),
            "environment": environment(),
            "dataset": images.name,
            "accuracies": {name: rate.to_json() for name, rate in report.rates().items()},
            "notes": report.notes,
        },
    )
