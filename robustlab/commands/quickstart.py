"""``robustlab quickstart``: a standard and a robust model, trained, attacked and compared, and one page about them."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import torch

from robustlab import files, pictures
from robustlab.commands import settings
from robustlab.commands.common import bar, choose_device, computes_bfloat16, open_data
from robustlab.commands.comparison import (
    ATTACK,
    CURVE_IMAGES,
    Measured,
    Row,
    attack_rows,
    columns,
    contradiction_rows,
    exchange_lengths,
    gradient_rows,
    measure,
    sheet,
)
from robustlab.commands.page import UNCLEAR, clear, render
from robustlab.commands.train import train
from robustlab.data.imageset import Images
from robustlab.errors import UserError
from robustlab.models.checkpoints import read_record
from robustlab.models.classifier import Classifier
from robustlab.models.zoo import load
from robustlab.options import changed, flat, leaves, value_of
from robustlab.pixels import to_float
from robustlab.records import environment
from robustlab.seeding import example_keys

RECIPES = {"standard": "standard", "robust": "fast-l2"}
TEST_IMAGES = 1000
FREE = ("out", "device", "threads", "workers", "download")  # settings that may differ when a quickstart goes on


def run(args: settings.Quickstart) -> None:
    """The command. Called again after an interruption, it goes on where it was."""
    began = time.monotonic()
    device = choose_device(args.machine.device, args.machine.threads)
    args = completed(args)
    out = Path(args.output.out)
    _claim(out, args)
    try:
        trained = {name: _trained(name, args, out / name, device) for name in RECIPES}
        _compare(args, out, trained, device, began)
    except KeyboardInterrupt:
        print("the same quickstart command goes on from here", file=sys.stderr)
        raise


def completed(args: settings.Quickstart) -> settings.Quickstart:
    """The settings with everything filled in that was left open: on *shapes* as much as takes two minutes on two cores."""
    generated = _generated(args)
    return changed(
        args,
        limit=args.data.limit or (8000 if generated else 50_000),
        epochs=args.training.epochs or (6 if generated else 10),
        batch_size=args.training.batch_size or 128,
        data=None if args.data.path is None else str(Path(args.data.path).expanduser().absolute()),
    )


def _claim(out: Path, args: settings.Quickstart) -> None:
    """Make the folder this quickstart's own; settings count from the moment that a training began with them.

    Raises:
        UserError: it holds something else, or a quickstart with other settings.
    """
    mark = out / "quickstart.json"
    now = {name: value for name, value in flat(args).items() if name not in FREE}
    if not mark.exists() and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} is not an empty folder, and no quickstart made it: name another one with --out")
    before = files.read_json(mark, "a quickstart's settings") if any((out / name).exists() for name in RECIPES) else now
    different = [f"{_flag(k, before.get(k))} there, {_flag(k, now[k])} here" for k in now if before.get(k) != now[k]]
    if different:
        raise UserError(f"{out} holds a quickstart with other settings ({'; '.join(different)}): name another folder with --out")
    files.write_json(mark, now)


def _flag(name: str, value: object) -> str:
    flag = f"--{name.replace('_', '-')}"
    return f"no {flag}" if value is None else f"{flag} {value}"


def _trained(name: str, args: settings.Quickstart, out: Path, device: torch.device) -> Path:
    """The weights of one of the two models: those there are, or trained now, from the start or from where it stopped."""
    result = out / "model.json"
    if result.exists():
        print(f"the {name} model is there already: {result}")
        return result
    print(f"training the {name} model (recipe {RECIPES[name]})")
    shared = leaves(settings.Train).keys() & leaves(settings.Quickstart).keys()
    train(
        changed(
            settings.Train(),
            **{
                **{key: value_of(args, key) for key in shared},
                "recipe": RECIPES[name],
                "val_size": 200 if _generated(args) else 500,
                "no_test": True,
                "out": str(out),
                "resume": str(out) if (out / "settings.json").exists() else None,
            },
        ),
        device,
    )
    return result


def _compare(args: settings.Quickstart, out: Path, trained: dict[str, Path], device: torch.device, began: float) -> None:
    """Attack both models, and write and print what was found."""
    models = {name: load(path).to(device) for name, path in trained.items()}
    limit = min(TEST_IMAGES, args.data.limit or TEST_IMAGES)
    test = open_data(args.data.dataset, args.data.path, "test", image_size=args.data.image_size, limit=limit)
    measured = _measured(models, test, args, device)
    rows = _rows(models, measured, test, args, device)
    for section, shown in rows.items():
        pictures.save(out / f"{section}.png", sheet(shown))
    numbers = {name: _numbers(measured[name], read_record(path)) for name, path in trained.items()}
    results = {
        "dataset": test.name,
        "image": list(test.shape),
        "eps": ATTACK.threat.eps,
        "attack": str(ATTACK),
        "models": numbers,
        **({"exchange_lengths": exchange_lengths()} if _generated(args) else {}),
        "made": _made(args, numbers, time.monotonic() - began, device),
    }
    files.write_json(out / "results.json", results)
    following = next_commands(args)
    files.write_text(out / "index.html", render(results, rows, following))
    _print(results)
    print(f"\nthe page with the pictures: {(out / 'index.html').absolute()}\n\nnext:")
    for command, what in following:
        print(f"  {command}\n      {what}")


def _measured(models: dict[str, Classifier], test: Images, args: settings.Quickstart, device: torch.device) -> dict[str, Measured]:
    print(f"attacking both: {ATTACK} on {len(test)} test images")
    options: dict[str, Any] = {"features_known": _generated(args), "bfloat16": computes_bfloat16(device)}
    options |= {"seed": args.machine.seed, "device": device, "workers": args.machine.workers}
    measured = {}
    for name, model in models.items():
        with bar(len(test) + min(CURVE_IMAGES, len(test)), f"attacking the {name} model", "img") as shown:
            measured[name] = measure(model, test, on_images=shown.update, **options)
    return measured


def _rows(
    models: dict[str, Classifier], measured: dict[str, Measured], test: Images, args: settings.Quickstart, device: torch.device
) -> dict[str, list[Row]]:
    """The pictures of the page, by section."""
    records = zip(*(found.report.records for found in measured.values()), strict=True)
    recognized = torch.tensor([all(record.prediction == record.label for record in both) for both in records])
    index = columns(test.labels.cpu(), recognized, len(test.classes))
    x, y = to_float(test.fetch(index)).to(device), test.labels.cpu()[index].to(device)
    rows = {
        "attacks": attack_rows(models, x, y, example_keys(args.machine.seed, index).to(device), test.classes),
        "gradients": gradient_rows(models, x, y, test.classes),
    }
    return {**rows, "contradictions": contradiction_rows(models, device)} if _generated(args) else rows


def _numbers(found: Measured, record: dict[str, Any]) -> dict[str, Any]:
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


def _made(args: settings.Quickstart, models: dict[str, Any], seconds: float, device: torch.device) -> dict[str, str]:
    """Settings, times and hardware, in words."""
    here = environment()
    hardware = ", ".join(here["gpus"]) if device.type == "cuda" else f"{here['processor']}, {here['threads']} threads"
    return {
        "Network": f"{args.training.arch}, both times",
        "Training images": f"up to {args.data.limit:,}, in batches of {args.training.batch_size}",
        "Epochs": f"{args.training.epochs}; the one with the best validation accuracy was kept",
        "Standard training": f"recipe {models['standard']['recipe']}, {models['standard']['seconds']} s",
        "Robust training": f"recipe {models['robust']['recipe']} ({models['robust']['trained_against']}), {models['robust']['seconds']} s",
        "Seed": str(args.machine.seed),
        "Time of the last call": f"{seconds:.0f} s, with everything that was still to do",
        "Hardware": hardware,
        "Software": f"Python {here['python']}, torch {here['torch']}, commit {here['commit'] or 'unknown'}",
    }


def next_commands(args: settings.Quickstart) -> list[tuple[str, str]]:
    """Some commands that lead on from here, each with what it does."""
    places = [[f"--{name.replace('_', '-')}", str(value)] for name in ("dataset", "data", "image_size") if (value := value_of(args, name))]
    data = [word for place in places for word in place]
    evaluate = ["evaluate", "--model", str(Path(args.output.out) / "robust" / "model.json"), *data]
    harder = ([*evaluate, "--steps", "50", "--restarts", "3", "--limit", "500"], "attack the robust model harder: does its number hold?")
    both = ",".join(str(Path(args.output.out) / name / "model.json") for name in ("robust", "standard"))
    page = (["demo", "--model", both, *data], "draw, press a class, and watch what each model makes of it; needs `pip install -e .[web]`")
    mine = ["quickstart", "--data", "PATH", "--out", "runs/mine"]
    photographs = ["train", "--recipe", "fast-l2", "--dataset", "cifar10", "--download"]
    longer = ["train", "--recipe", "fast-l2", "--epochs", "30", *data, "--out", "runs/longer"]
    otherwise = [*evaluate, "--norm", "linf", "--eps", "8/255"]
    if _generated(args):
        return _typed(
            (mine, "the same on your own images: PATH/train/CLASS/*.png and PATH/test/CLASS/*.png"),
            harder,
            page,
            (photographs, "a robust model for photographs, in half an hour to an hour on two cores"),
        )
    return _typed(
        (longer, "train a robust model for longer"), harder, page, (otherwise, "attack it in a way that it was not trained against")
    )


def _typed(*commands: tuple[list[str], str]) -> list[tuple[str, str]]:
    return [(f"{program()} {shlex.join(words)}", what) for words, what in commands]


def program() -> str:
    """How this command is called here: by its name where the shell finds it."""
    if shutil.which("robustlab"):
        return "robustlab"
    python = os.path.relpath(sys.executable)
    return f"{shlex.quote(sys.executable if python.startswith('..') else python)} -m robustlab"


def _generated(args: settings.Quickstart) -> bool:
    """Whether the data are the embedded *shapes*, about which everything is known; a folder of that name is not."""
    return (args.data.dataset or ("shapes" if args.data.path is None else "")) == "shapes"


def _print(results: dict[str, Any]) -> None:
    """The comparison as a table on the terminal."""
    models = results["models"]
    lines = [("untouched", [model["accuracies"]["clean"] for model in models.values()])]
    lines += [(f"attacked: {results['attack']}", [model["accuracies"][results["attack"]] for model in models.values()])]
    lines += [(f"goes by the {name}", [model["follows"][name] for model in models.values()]) for name in models["standard"]["follows"]]
    print(f"\n{'':<32}" + "".join(f"{name:<26}" for name in models))
    for title, rates in lines:
        print(f"{title:<32}" + "".join(f"{_short(rate):<26}" for rate in rates).rstrip())
    print(f"accuracy on {lines[0][1][0]['n']} test images of {results['dataset']}, with 95 % intervals")
    if models["standard"]["follows"]:
        print("goes by: of as many pictures that show the shape of one class and carry the faint pattern of another")
    if not clear(models, results["attack"]):
        print(f"under attack the two do not differ beyond doubt: {UNCLEAR}")


def _short(rate: dict[str, Any]) -> str:
    low, high = rate["interval95"]
    return f"{100 * rate['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
