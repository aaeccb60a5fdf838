"""Make the sheets of docs/gallery.md again, and print their numbers: python docs/make_gallery.py PATH [--only NAME,...] [--work FOLDER].

PATH is CIFAR-10 as image folders; ``gradients-shapes`` shows the two models of ``robustlab quickstart``. What lies in the work folder
is not made again; interrupted sheets go on. ``tests/test_gallery.py`` holds the commands on the page to those here.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustlab import pictures
from robustlab.commands import main

IMAGES = Path(__file__).parent / "images"
SMALL, MEDIUM = "cifar10-small-l2-eps1", "cifar10-medium-l2-eps1"
MODELS = f"cifar10-small-standard,cifar10-small-l2,{SMALL},{MEDIUM}"
TOGETHER = "cifar10-small-l2+cifar10-small-l2-eps1"
QUICKSTART = "runs/quickstart/standard/model.json,runs/quickstart/robust/model.json"

SHEETS = {  # by name: the task, and what its command says beyond models and images
    "gradients": "gradients --images 100 --columns 5",
    "gradients-shapes": "gradients --images 100 --columns 6",
    "generate": "generate --images 100 --columns 8",
    "generate-before": "generate --images 100 --columns 8 --tv 0",
    "inpaint": "inpaint --images 50 --columns 7",
    "inpaint-before": "inpaint --images 50 --columns 7 --start mean --eps 1.5 --steps 100 --tv 0",
    "super-resolve": "super-resolve --images 50 --columns 7",
    "super-resolve-before": "super-resolve --images 50 --columns 7 --start nearest --consistency 0 --eps 2.5 --step-size 0.15 --tv 0",
    "translate": "translate --images 50 --columns 8",
    "translate-before": "translate --images 50 --columns 8 --tv 0",
    "sketch": "sketch --images 50 --columns 7",
    "paint": "paint --images 20 --columns 5",
    "invert": "invert --images 20 --columns 6",
    "interpolate": "interpolate --images 2 --points 8",
    "visualize": "visualize --columns 8",
    "extremes": "extremes --limit 1000 --top 3 --units 1,2",
    "add-feature": "add-feature --images 20 --columns 4",
    "sensitivity": "sensitivity --columns 5",
}
MADE = {"generate": "generated", "inpaint": "inpainted", "super-resolve": "super-resolved", "translate": "translated"}  # titles of rows
BEFORE = "-before"  # ends the names of sheets with the settings of before; the page shows them beside those of today
SHOWN = 7  # pictures in a row of such a comparison


def command(name: str, data: str) -> list[str]:
    """The words of a sheet's command, as the page shows them."""
    task, *settings = SHEETS[name].split()
    models, images = (QUICKSTART, ["--dataset", "shapes"]) if name == "gradients-shapes" else (MODELS, ["--data", data])
    if name in ("inpaint", "super-resolve"):
        models += f",{TOGETHER}"
    return ["robustlab", "synthesize", task, "--model", models, *images, *settings, "--grid", f"{name}.png"]


def published(name: str) -> str:
    """What the page shows of a sheet: of one of before the comparison."""
    return f"{name}-after" if name.endswith(BEFORE) else name


def make(name: str, data: str, work: Path) -> None:
    """Make a sheet in ``work``, which prints its numbers; of one that is there only print them."""
    if not (work / f"{name}.png").is_file():
        words = command(name, data)[1:-1] + [str(work / f"{name}.png"), "--out", str(work / name), "--threads", "1"]
        if main(words):
            raise SystemExit(f"{name} could not be made")
    else:
        print(name, json.dumps(json.loads((work / f"{name}.json").read_text(encoding="utf-8"))["numbers"], indent=1))


def picked(folder: Path, task: str, model: str) -> Tensor:
    """The first pictures that a task made with a model, ``(SHOWN, 3, H, W)``."""
    found = [Image.open(folder / "pictures" / f"{MADE[task]}-{model}-{i:04}.png") for i in range(SHOWN)]
    return torch.stack([torch.from_numpy(np.array(one)).permute(2, 0, 1).float() / 255 for one in found])


def compare(task: str, work: Path) -> None:
    """A sheet of what a task made with the settings of before, with those of today, and with today's larger network."""
    rows = [
        ("before", picked(work / f"{task}{BEFORE}", task, SMALL)),
        ("today", picked(work / task, task, SMALL)),
        ("today,\nlarger network", picked(work / task, task, MEDIUM)),
    ]
    pictures.save(work / f"{published(task + BEFORE)}.png", pictures.titled(rows, [""] * SHOWN, scale=3))


def shrink(source: Path, target: Path) -> None:
    """Write a PNG file as small as it gets without a change."""
    Image.open(source).save(target, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", metavar="PATH")
    parser.add_argument("--only", metavar="NAME,...", default=",".join(SHEETS), help=f"some of {', '.join(SHEETS)}")
    parser.add_argument("--work", metavar="FOLDER", type=Path, default=Path("runs/gallery"))
    args = parser.parse_args()
    for name in args.only.split(","):
        if name not in SHEETS:
            parser.error(f"no sheet is called {name!r}")
        make(name, args.data, args.work)
        if name.endswith(BEFORE):
            task = name.removesuffix(BEFORE)
            make(task, args.data, args.work)
            compare(task, args.work)
        shrink(args.work / f"{published(name)}.png", IMAGES / f"gallery-{published(name)}.png")
