"""Beside another evaluation's verdicts, image by image: which images does our line-up leave, and which the other?

    python benchmarks/verdicts.py --data datasets/cifar10 --verdicts FILE.json
    python benchmarks/verdicts.py --data datasets/cifar10 --verdicts FILE.json --attack fab-t

The file has ``rows``, each with ``model``, ``norm``, ``eps`` (pixel units, perhaps ``"8/255"``), ``n`` and ``broken_by``, from
``CLASS/FILE`` to what broke that image; an image that is not in it stands. The images are the first ``n / classes`` files by name of each
class of the test split. The file may also have ``cpu_seconds`` in each row, and ``bare_ms_per_image`` with the CPU milliseconds of a
forward and backward pass of the ``folded`` copy that it searched. Then the table has ratios: those seconds are scaled by a bare pass of the
model itself, measured here beside each row, since users of that evaluation run it on the model itself.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.interleaved import described, exit_code, table  # noqa: E402
from robustlab import files  # noqa: E402
from robustlab.data.catalog import open_dataset  # noqa: E402
from robustlab.errors import UserError  # noqa: E402
from robustlab.evaluation import evaluate  # noqa: E402
from robustlab.models.accelerate import accelerate  # noqa: E402
from robustlab.models.zoo import load  # noqa: E402
from robustlab.options import radius  # noqa: E402
from robustlab.pixels import to_float  # noqa: E402
from robustlab.records import environment  # noqa: E402
from robustlab.threats import named_threat  # noqa: E402

KINDS = {"model": str, "norm": str, "eps": (str, float), "n": int, "broken_by": dict}
BATCH, ROUNDS = 100, 9  # of the bare passes


def bare(model: nn.Module, x: Tensor) -> float:
    """CPU milliseconds an image of one forward pass and one backward pass to the pixels, the median of some batches."""
    took = []
    for _ in range(ROUNDS):
        some = x[:BATCH].clone().requires_grad_()
        begin = time.process_time()
        torch.autograd.grad(model(some).square().sum(), some)
        took.append(1000 * (time.process_time() - begin) / len(some))
    return statistics.median(took)


def compare(row: dict[str, object], data: str, attack: str, searched: float | None) -> dict[str, object]:
    """One line of the table.

    Args:
        row: of the file.
        data: folder with a split ``test`` of one folder for each class.
        attack: by name.
        searched: CPU milliseconds of a forward and backward pass where the file was made, if it says so.
    """
    model, threat = load(str(row["model"])), named_threat(str(row["norm"]).lower(), radius(str(row["eps"])))
    images = open_dataset(None, data, "test")
    names = [str(name) for name in getattr(images, "files", None) or ()]
    if not names:
        raise UserError(f"{data} has no files to compare by their names: give a folder with one folder for each class")
    first = sorted(range(len(names)), key=lambda k: names[k])
    each, labels = int(str(row["n"])) // len(images.classes), images.labels.tolist()
    chosen = [k for label in range(len(images.classes)) for k in [k for k in first if labels[k] == label][:each]]
    some = images.subset(torch.tensor(chosen))
    pixels = to_float(some.fetch(torch.arange(min(BATCH, len(some)))))
    passes = [] if searched is None else [bare(model, pixels)]
    begin = time.process_time()
    report = evaluate(model, some, attack, threat=threat, fast_model=accelerate(model), progress=False)
    seconds = time.process_time() - begin
    other = {"/".join(names[k].split("/")[-2:]) for k in chosen} - set(dict(row["broken_by"]))  # type: ignore[call-overload]
    ours = {"/".join(names[k].split("/")[-2:]) for k, record in zip(chosen, report.records, strict=True) if record.broken_by is None}
    name = report.attacks[0]
    stages = ", ".join(str(rate.count) for rate in report.after(name).values()) if name in report.stages else "-"
    told = {}
    if searched is not None:
        pass_ms = statistics.mean([*passes, bare(model, pixels)])
        theirs = float(str(row["cpu_seconds"])) * pass_ms / searched
        told = {"bare pass, ms": f"{pass_ms:.2f}", "other's CPU s, scaled": f"{theirs:.0f}", "times as fast": f"{theirs / seconds:.1f}"}
    return {
        "model": row["model"],
        "threat": str(threat),
        "n": len(chosen),
        "other stand": len(other),
        "ours stand": len(ours),
        "only ours": len(ours - other),
        "only other": len(other - ours),
        "after each stage": stages,
        "passes per attacked image": f"{report.passes(name):,.0f}",
        "CPU s": f"{seconds:.0f}",
        **told,
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Beside another evaluation's verdicts, image by image.")
    parser.add_argument("--data", required=True, metavar="PATH", help="image folder with a test split")
    parser.add_argument("--verdicts", required=True, metavar="FILE", help="JSON file, see the head of this script")
    parser.add_argument("--attack", default="standard", metavar="NAME", help="what attacks (default: standard, which is AutoAttack)")
    return parser.parse_args(argv)


def run(wanted: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    held = files.read_json(wanted.verdicts, "verdicts of an evaluation")
    rows = held.get("rows")
    if not isinstance(rows, list):
        raise UserError(f"{wanted.verdicts} should hold rows of verdicts")
    timed = "bare_ms_per_image" in held
    files.check_kinds(held, {"bare_ms_per_image": {"folded": float}} if timed else {}, wanted.verdicts, "verdicts")
    for row in rows:
        files.check_kinds(row, KINDS | ({"cpu_seconds": float} if timed else {}), wanted.verdicts, "verdicts")
    searched = float(held["bare_ms_per_image"]["folded"]) if timed else None
    found = [compare(row, wanted.data, wanted.attack, searched) for row in rows]
    print(f"{wanted.attack} beside {Path(wanted.verdicts).name}; {described(environment())}\n")
    print(table(found))


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code(lambda: run(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
