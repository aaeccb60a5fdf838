"""What does AutoAttack's standard line-up cost here? As published, ours, and ours on faster stand-ins, in one run on one model.

    python benchmarks/evaluation.py --data datasets/cifar10 --model cifar10-small-l2 --limit 100
    python benchmarks/evaluation.py --data datasets/cifar10 --model cifar10-small-standard --norm l2 --eps 0.5 --limit 100

All get the same images that the model classifies correctly, in batches of 250, and one thread. An image counts as broken where the
model itself, in float32, predicts something else. Passes are counted at the networks, forward and backward, in images.
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import published  # noqa: E402
from benchmarks.attacks import calibrated  # noqa: E402
from benchmarks.interleaved import described, exit_code, table  # noqa: E402
from robustlab import files  # noqa: E402
from robustlab.attacks.autoattack import autoattack  # noqa: E402
from robustlab.constraints import ThreatModel  # noqa: E402
from robustlab.data.batches import Batch, Batches  # noqa: E402
from robustlab.data.catalog import open_dataset  # noqa: E402
from robustlab.errors import UserError  # noqa: E402
from robustlab.evaluation.accuracy import predictions  # noqa: E402
from robustlab.models.accelerate import accelerate  # noqa: E402
from robustlab.models.classifier import Classifier  # noqa: E402
from robustlab.models.zoo import load  # noqa: E402
from robustlab.options import positive, radius  # noqa: E402
from robustlab.records import environment  # noqa: E402
from robustlab.threats import named_threat  # noqa: E402

BATCH = 250  # that of the public code


class Counted(nn.Module):
    """A network that counts the images that go through it, and those whose gradient is asked for."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.forwards, self.backwards = inner, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.forwards += len(x)
        self.backwards += len(x) if x.requires_grad else 0
        logits: Tensor = self.inner(x)
        return logits


def classified_correctly(name: str | None, data: str | None, limit: int) -> tuple[Classifier, Batch, str]:
    """A model, test images that it classifies correctly, labelled as it numbers classes, and a sentence on how many of how many.

    Args:
        name: of the model; None is a `small` one with random weights, whose own predictions are the labels.
        data: where the images are; None is the generated shapes.
        limit: images to choose from.
    """
    images = open_dataset(None, data, "test", limit=limit)
    (batch,) = Batches(images, len(images), of_split=True).epoch(0)
    model = load(name) if name else calibrated("small", images, batch.x)
    y = model.outputs_for(images.classes, images.name)[batch.y] if name else predictions(model, batch.x)
    right = predictions(model, batch.x) == y
    if not right.any():
        raise UserError(f"{name} is wrong for all the {len(images)} images already: there is nothing to attack")
    told = f"{int(right.sum())} of {len(images)} images of {images.name}, which the model classifies correctly"
    return model, Batch(batch.x[right], y[right], batch.index[right], batch.keys[right]), told


def contenders(model: nn.Module, threat: ThreatModel, keys: Tensor, fast: bool) -> dict[str, tuple[list[Counted], Callable]]:
    """By name the networks that each asks, and how it attacks ``(x, y)``."""
    found: dict[str, tuple[list[Counted], Callable]] = {}
    lineup = autoattack(threat)
    plain = Counted(copy.deepcopy(model))

    def by_hand(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([published.standard(plain, threat, a, b) for a, b in zip(x.split(BATCH), y.split(BATCH), strict=True)])

    found["as published"] = [plain], by_hand
    stand_ins = {"ours, the model itself": None, "ours, float32": accelerate(model)}
    stand_ins |= {"ours, bfloat16": accelerate(model, dtype=torch.bfloat16)} if fast else {}
    for name, stand_in in stand_ins.items():
        itself, search = Counted(model), None if stand_in is None else Counted(stand_in)

        def attack(x: Tensor, y: Tensor, itself: Counted = itself, search: Counted | None = search) -> Tensor:
            return lineup.run(itself, x, y, keys=keys, fast_model=search, accelerate=False, batch_size=BATCH).x

        found[name] = [itself, *([search] if search else [])], attack
    return found


def measure(model: nn.Module, threat: ThreatModel, x: Tensor, y: Tensor, keys: Tensor, fast: bool) -> list[dict[str, object]]:
    """A row for each contender; seconds are those of this process's CPU."""
    rows: list[dict[str, object]] = []
    first = 0.0
    for name, (networks, attack) in contenders(model, threat, keys, fast).items():
        begin = time.process_time()
        x_adv = attack(x, y)
        seconds = time.process_time() - begin
        first = first or seconds
        far = float((threat.norm.measure(x_adv.double() - x.double())).max()) - float(threat.eps)
        rows.append(
            {
                "line-up": name,
                "robust": int((predictions(model, x_adv) == y).sum()),
                "CPU s per image": f"{seconds / len(x):.3g}",
                "published / this": f"{first / seconds:.2f}",
                "forwards per image": f"{sum(network.forwards for network in networks) / len(x):,.0f}",
                "backwards per image": f"{sum(network.backwards for network in networks) / len(x):,.0f}",
                "beyond eps": f"{far:.0e}" if far > 0 else "0",
            }
        )
    return rows


def processes(wanted: argparse.Namespace, many: int) -> tuple[float, float]:
    """Seconds of one process and of several that share an evaluation, blocks of 25 images; each has one thread."""
    seconds = []
    for count in (1, many):
        with tempfile.TemporaryDirectory() as folder:
            words = ["evaluate", "--model", wanted.model, "--data", wanted.data, "--limit", str(wanted.limit), "--attack", "apgd-ce+apgd-t"]
            words += ["--norm", wanted.norm, "--batch-size", "25", "--threads", "1", "--out", f"{folder}/out"]
            words += ["--eps", str(wanted.eps)] if wanted.eps is not None else []
            begin = time.perf_counter()
            command = [sys.executable, "-m", "robustlab", *words]
            started = [
                subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}) for _ in range(count)
            ]
            if any([process.wait() for process in started]):
                raise UserError("an evaluation in a process of its own failed: " + " ".join(command))
            seconds.append(time.perf_counter() - begin)
    return seconds[0], seconds[1]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="AutoAttack's standard line-up as published and ours, in one run on one model.")
    parser.add_argument("--model", metavar="NAME|PATH", help="a trained model (default: `small` with random weights)")
    parser.add_argument("--data", metavar="PATH", help="images to attack (default: the generated shapes)")
    parser.add_argument("--limit", type=positive, default=100, metavar="N", help="images (default: 100)")
    parser.add_argument("--norm", choices=("linf", "l2"), default="linf")
    parser.add_argument("--eps", type=radius, help="pixel units; 8/255 in linf and 0.5 in l2 where left out")
    parser.add_argument("--processes", type=positive, default=1, metavar="N", help="also share an evaluation among so many")
    parser.add_argument("--no-bfloat16", action="store_true", help="leave the search in bfloat16 out")
    parser.add_argument("--out", metavar="FILE", help="also write the numbers as JSON")
    return parser.parse_args(argv)


def run(wanted: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    if wanted.processes > 1 and not (wanted.model and wanted.data):
        raise UserError("--processes measures the command, which needs --model and --data")
    threat = named_threat(wanted.norm, wanted.eps)
    model, batch, told = classified_correctly(wanted.model, wanted.data, wanted.limit)
    rows = measure(model, threat, batch.x, batch.y, batch.keys, not wanted.no_bfloat16)
    where = environment()
    print(f"AutoAttack standard, {threat}: {wanted.model or 'small, random weights'}")
    print(f"{told}; {described(where)}\n")
    print(table(rows))
    print("\na robust image takes at least 101 + 909 + 900 + 5,001 forward passes and 100 + 900 + 900 backward passes")
    shared = processes(wanted, wanted.processes) if wanted.processes > 1 else None
    if shared:
        print(f"{wanted.processes} processes that share an evaluation: {shared[0] / shared[1]:.2f} times as fast as one")
    if wanted.out:
        files.write_json(wanted.out, {"settings": vars(wanted), "environment": where, "rows": rows, "shared": shared})


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code(lambda: run(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
