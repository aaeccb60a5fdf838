"""The first result: a standard and a robust model, trained on the same images, attacked and compared, and one page about them.

    from robustlab.experiments.quickstart import quickstart

    found = quickstart(data="photographs", epochs=3, out="runs/mine")
    print(found)

prints the numbers; ``found.page`` is the page with the pictures.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from robustlab import files, pictures
from robustlab.data.catalog import open_dataset
from robustlab.data.imageset import Images
from robustlab.data.splits import matching
from robustlab.errors import UserError, unknown
from robustlab.models.checkpoints import read_record
from robustlab.models.classifier import Classifier
from robustlab.models.zoo import load
from robustlab.paths import place_of
from robustlab.pixels import to_float
from robustlab.progress import Progress
from robustlab.records import differences, environment
from robustlab.reports.comparison import (
    ATTACK,
    CURVE_IMAGES,
    Measured,
    PictureRow,
    attack_rows,
    columns,
    contradiction_rows,
    exchange_lengths,
    gradient_rows,
    measure,
    sheet_of_rows,
    summary,
)
from robustlab.reports.pages import quickstart_page
from robustlab.seeding import example_keys
from robustlab.training.run import train

RECIPES = {"standard": "standard", "robust": "fast-l2"}
TEST_IMAGES = 1000


@dataclass(frozen=True)
class Settings:
    """What the two models are trained and compared on.

    Attributes:
        data, dataset, image_size: as ``open_dataset`` takes them; without both of the first, *shapes*.
        limit: at most so many training images; None means 50,000, of *shapes* 8,000.
        arch: of both networks.
        epochs: None means 10, on *shapes* 6, which takes two minutes on two cores.
        batch_size: None means 128.
        seed: of the training and of the attacks.
    """

    dataset: str | None = None
    data: str | None = None
    image_size: int | None = None
    limit: int | None = None
    arch: str = "small"
    epochs: int | None = None
    batch_size: int | None = None
    seed: int = 0

    @property
    def on_shapes(self) -> bool:
        """Whether the data are the embedded *shapes*, about which everything is known; a folder of that name is not."""
        return (self.dataset or ("shapes" if self.data is None else "")) == "shapes"

    def completed(self) -> Settings:
        """With everything filled in that was left open."""
        return replace(
            self,
            limit=self.limit or (8000 if self.on_shapes else 50_000),
            epochs=self.epochs or (6 if self.on_shapes else 10),
            batch_size=self.batch_size or 128,
            data=None if self.data is None else str(Path(self.data).expanduser().absolute()),
        )


@dataclass(frozen=True)
class Comparison:
    """What was found; ``str`` gives the numbers as a table.

    Attributes:
        results: what ``results.json`` holds.
        page: the page with the pictures.
        next_commands: commands that lead on from here, each with what it does.
    """

    results: Mapping[str, Any]
    page: Path
    next_commands: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return summary(self.results)


@dataclass(frozen=True)
class _Compute:
    """Where and how to compute; nothing of it changes what is asked."""

    device: torch.device
    workers: int
    bfloat16: bool
    download: bool


def quickstart(
    settings: Settings | None = None,
    *,
    out: str | os.PathLike[str] = "runs/quickstart",
    device: torch.device | str = "cpu",
    workers: int = 2,
    bfloat16: bool = False,
    download: bool = False,
    say: Callable[[str], object] = lambda text: None,
    **changes: Any,
) -> Comparison:
    """Train a standard and a robust model, attack and compare them, and write one page about them.

    Called again with the same settings, also after an interruption, it goes on where it was. The folder then holds the page
    (``index.html``), its numbers (``results.json``), its pictures, and the two training runs (``standard/``, ``robust/``).

    Args:
        settings: images and network; None for *shapes*, which needs no data and takes two minutes on two cores.
        out: an empty or missing folder, or that of an earlier call.
        device: where to train and to attack.
        workers: processes that read images ahead.
        bfloat16: attack in it, where the device computes it fast; success is judged in float32.
        download: fetch CIFAR where it is missing.
        say: told in words what is begun.
        changes: settings by name, such as ``epochs=3``, instead of those in ``settings``.

    Raises:
        UserError: no such setting, data or network, or the folder holds something else or a quickstart with other settings.
    """
    began = time.monotonic()
    for name in changes:
        if name not in Settings.__dataclass_fields__:
            raise unknown("setting", name, Settings.__dataclass_fields__)
    args, out = replace(settings or Settings(), **changes).completed(), place_of(out)
    compute = _Compute(torch.device(device), workers, bfloat16, download)
    _claim(out, args)
    trained = {name: _trained(name, args, out / name, compute, say) for name in RECIPES}
    models = {name: load(path).to(compute.device) for name, path in trained.items()}
    test = _test_images(args)
    say(f"attacking both: {ATTACK} on {len(test)} test images")
    measured = {name: _measured(name, model, test, args, compute) for name, model in models.items()}
    rows = _rows(models, measured, test, args, compute.device)
    numbers = {name: _numbers(measured[name], read_record(path)) for name, path in trained.items()}
    results = {
        "dataset": test.name,
        "image": list(test.shape),
        "eps": ATTACK.threat.eps,
        "attack": str(ATTACK),
        "models": numbers,
        **({"exchange_lengths": exchange_lengths()} if args.on_shapes else {}),
        "made": _made(args, numbers, time.monotonic() - began, compute.device),
    }
    commands = next_commands(args, out)
    for section, shown in rows.items():
        pictures.save(out / f"{section}.png", sheet_of_rows(shown))
    files.write_json(out / "results.json", results)
    files.write_text(out / "index.html", quickstart_page(results, rows, commands))
    return Comparison(results, out / "index.html", commands)


def _claim(out: Path, args: Settings) -> None:
    """Make the folder this quickstart's own; settings count from the moment that a training began with them.

    Raises:
        UserError: it holds something else, or a quickstart with other settings.
    """
    mark, now = out / "quickstart.json", dataclasses.asdict(args)
    if not mark.exists():
        files.check_vacant(out)
    before = files.read_json(mark, "a quickstart's settings") if any((out / name).exists() for name in RECIPES) else now
    if different := differences(before, now):
        raise UserError(f"{out} holds a quickstart with other settings ({different}): name another folder with `out`")
    files.write_json(mark, now)


def _trained(name: str, args: Settings, out: Path, compute: _Compute, say: Callable[[str], object]) -> Path:
    """The weights of one of the two models: those there are, or trained now, from the start or from where it stopped."""
    weights = out / "model.json"
    if weights.exists():
        say(f"the {name} model is there already: {weights}")
    else:
        say(f"training the {name} model (recipe {RECIPES[name]})")
        _train(RECIPES[name], args, out, compute)
    return weights


def _train(recipe: str, args: Settings, out: Path, compute: _Compute) -> None:
    """Run or resume one training, which ends with ``out/model.json``."""
    images = open_dataset(args.dataset, args.data, "train", image_size=args.image_size, limit=args.limit, download=compute.download)
    matching(_test_images(args), images)  # what does not fit is told before the training, not after it
    train(
        images,
        recipe=recipe,
        arch=args.arch,
        epochs=args.epochs,
        batch_size=args.batch_size,
        val_size=200 if args.on_shapes else 500,
        seed=args.seed,
        out=out,
        resume=(out / "settings.json").exists(),
        device=compute.device,
        workers=compute.workers,
    )


def _test_images(args: Settings) -> Images:
    limit = min(TEST_IMAGES, args.limit or TEST_IMAGES)
    return open_dataset(args.dataset, args.data, "test", image_size=args.image_size, limit=limit)


def _measured(name: str, model: Classifier, test: Images, args: Settings, compute: _Compute) -> Measured:
    with Progress(f"attacking the {name} model", len(test) + min(CURVE_IMAGES, len(test)), "img") as progress:
        return measure(
            model,
            test,
            features_known=args.on_shapes,
            bfloat16=compute.bfloat16,
            seed=args.seed,
            device=compute.device,
            workers=compute.workers,
            on_images=progress.update,
        )


def _rows(
    models: Mapping[str, Classifier], measured: Mapping[str, Measured], test: Images, args: Settings, device: torch.device
) -> dict[str, list[PictureRow]]:
    """The pictures of the page, by section."""
    records = zip(*(found.report.records for found in measured.values()), strict=True)
    recognized = torch.tensor([all(record.prediction == record.label for record in both) for both in records])
    index = columns(test.labels.cpu(), recognized, len(test.classes))
    x, y = to_float(test.fetch(index)).to(device), test.labels.cpu()[index].to(device)
    rows = {
        "attacks": attack_rows(models, x, y, example_keys(args.seed, index).to(device), test.classes),
        "gradients": gradient_rows(models, x, y, test.classes),
    }
    return {**rows, "contradictions": contradiction_rows(models, device)} if args.on_shapes else rows


def _numbers(found: Measured, record: Mapping[str, Any]) -> dict[str, Any]:
    """One model's part of ``results.json``."""
    return {
        "recipe": record["recipe"],
        "trained_against": record["threat"],
        "best_epoch": record["details"]["best_epoch"] + 1,
        "seconds": record["details"]["seconds"],
        "accuracies": {name: rate.to_json() for name, rate in found.report.rates().items()},
        "curve": [{"eps": eps, **rate.to_json()} for eps, rate in found.curve.items()],
        "follows": {feature: rate.to_json() for feature, rate in found.follows.items()},
    }


def _made(args: Settings, models: Mapping[str, Any], seconds: float, device: torch.device) -> dict[str, str]:
    """Settings, times and hardware, in words."""
    here = environment()
    hardware = ", ".join(here["gpus"]) if device.type == "cuda" else f"{here['processor']}, {here['threads']} threads"
    return {
        "Network": f"{args.arch}, both times",
        "NetworkTraining images": f"up to {args.limit:,}, in batches of {args.batch_size}",
        "Epochs": f"{args.epochs}; the one with the best validation accuracy was kept",
        "Standard training": f"recipe {models['standard']['recipe']}, {models['standard']['seconds']} s",
        "Robust training": f"recipe {models['robust']['recipe']} ({models['robust']['trained_against']}), {models['robust']['seconds']} s",
        "Seed": str(args.seed),
        "Time of the last call": f"{seconds:.0f} s, with everything that was still to do",
        "Hardware": hardware,
        "Software": f"Python {here['python']}, torch {here['torch']}, commit {here['commit'] or 'unknown'}",
    }


def next_commands(args: Settings, out: Path) -> tuple[tuple[str, str], ...]:
    """Some commands that lead on from the two models in ``out``, each with what it does."""
    places = [[f"--{name.replace('_', '-')}", str(value)] for name in ("dataset", "data", "image_size") if (value := getattr(args, name))]
    data = [word for place in places for word in place]
    evaluate = ["evaluate", "--model", str(out / "robust" / "model.json"), *data]
    harder = ([*evaluate, "--steps", "50", "--restarts", "3", "--limit", "500"], "attack the robust model harder: does its number hold?")
    both = ",".join(str(out / name / "model.json") for name in ("robust", "standard"))
    page = (["demo", "--model", both, *data], "draw, press a class, and watch what each model makes of it; needs `pip install -e '.[web]'`")
    mine = ["quickstart", "--data", "PATH", "--out", "runs/mine"]
    photographs = ["train", "--recipe", "fast-l2", "--dataset", "cifar10", "--download"]
    longer = ["train", "--recipe", "fast-l2", "--epochs", "30", *data, "--out", "runs/longer"]
    otherwise = [*evaluate, "--norm", "linf", "--eps", "8/255"]
    if args.on_shapes:
        return _typed(
            (mine, "the same on your own images: PATH/train/CLASS/*.png and PATH/test/CLASS/*.png"),
            harder,
            page,
            (photographs, "a robust model for photographs, in half an hour to an hour on two cores"),
        )
    return _typed(
        (longer, "train a robust model for longer"), harder, page, (otherwise, "attack it in a way that it was not trained against")
    )


def _typed(*commands: tuple[list[str], str]) -> tuple[tuple[str, str], ...]:
    return tuple((f"{program()} {shlex.join(words)}", what) for words, what in commands)


def program() -> str:
    """How the command line is called here: by its name where the shell finds it."""
    if shutil.which("robustlab"):
        return "robustlab"
    python = os.path.relpath(sys.executable)
    return f"{shlex.quote(sys.executable if python.startswith('..') else python)} -m robustlab"
