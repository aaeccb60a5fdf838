"""How fast are sets constructed, against the bare loop of forward and backward passes of the same model?

    python benchmarks/construction.py --data PATH
    python benchmarks/construction.py --data PATH --model PATH --device cuda --batch-size 1000 --amp

A set is built as ``robustlab construct`` builds it: images fetched, drawn, optimized, judged in float32, stored, hashed and
written. The bare loop does nothing but the passes that the steps need: forward, and backward to the images. They take turns;
``--processes`` adds several processes that build one set together.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.interleaved import Spread, clock, described, exit_code, in_turn, table  # noqa: E402
from robustlab import files  # noqa: E402
from robustlab.construction import Construction, Inverted, Plan, Relabelled, build_set, next_class  # noqa: E402
from robustlab.data.catalog import open_dataset  # noqa: E402
from robustlab.data.imageset import Images  # noqa: E402
from robustlab.devices import choose_device, computes_bfloat16  # noqa: E402
from robustlab.models.classifier import Classifier, Features  # noqa: E402
from robustlab.models.zoo import load  # noqa: E402
from robustlab.options import positive, radius  # noqa: E402
from robustlab.pixels import to_float  # noqa: E402
from robustlab.records import environment  # noqa: E402
from robustlab.threats import named_threat  # noqa: E402

BARE = "bare loop, float32"


@dataclass(frozen=True)
class Row:
    """One way to build: seconds of each round, the ratio of its speed to the first one's, and what the set reached."""

    name: str
    seconds: Spread
    speed: float  # images times steps per second
    ratio: Spread
    taken_for_label: float | None

    def cells(self) -> dict[str, str]:
        return {
            "": self.name,
            "images x steps / s": f"{self.speed:.0f}",
            "speed, ratio to the bare loop [min, max]": str(self.ratio),
            "classified as its label": "-" if self.taken_for_label is None else f"{100 * self.taken_for_label:.1f} %",
        }


def bare(model: torch.nn.Module, x: Tensor, steps: int, batch_size: int) -> None:
    """``steps`` forward and backward passes of each batch, and nothing else."""
    for part in x.split(batch_size):
        for _ in range(steps):
            image = part.detach().requires_grad_()
            torch.autograd.grad(model(image).sum(), image)


def contenders(
    kind: str, construction: Construction, images: Images, model: Classifier, wanted: argparse.Namespace, device: torch.device
) -> dict[str, Callable[[int], Any]]:
    """The bare loop and the ways to build, each called with the round's number; a build returns its manifest."""
    network = copy.deepcopy(model if kind == "relabelled" else Features(model)).eval().requires_grad_(False)
    x = to_float(images.fetch(torch.arange(len(images)))).to(device)
    common: dict[str, Any] = {"batch_size": wanted.batch_size, "shard_size": wanted.shard_size, "dtype": "float16", "device": device}

    def builder(compute_dtype: torch.dtype | None) -> Callable[[int], Any]:
        def task(number: int) -> Any:
            with tempfile.TemporaryDirectory() as folder:
                return build_set(folder, Plan(construction, images, model, compute_dtype=compute_dtype, **common))

        return task

    tasks: dict[str, Callable[[int], Any]] = {BARE: lambda number: bare(network, x, wanted.steps, wanted.batch_size)}
    tasks[f"{kind}, float32"] = builder(None)
    if wanted.amp or (wanted.amp is None and computes_bfloat16(device)):
        tasks[f"{kind}, bfloat16"] = builder(torch.bfloat16)
    return tasks


def measure(kind: str, construction: Construction, images: Images, model: Classifier, wanted: argparse.Namespace) -> list[Row]:
    device = next(model.parameters()).device
    tasks = contenders(kind, construction, images, model, wanted, device)
    reached: dict[str, float | None] = dict.fromkeys(tasks)

    def note(name: str, number: int, manifest: Any) -> None:
        reached[name] = manifest["facts"]["taken_for_label"] if manifest else None

    now = clock(device)
    in_turn(tasks, [-1], now, note)
    seconds = in_turn(tasks, range(wanted.repeats), now, note)
    work = len(images) * wanted.steps
    return [
        Row(name, Spread.of(taken), work / Spread.of(taken).median, Spread.ratio(seconds[BARE], taken), reached[name])
        for name, taken in seconds.items()
    ]


def together(processes: int, argv: Sequence[str], rounds: int) -> list[float]:
    """Seconds that so many processes take for one set, each round; starting them is not counted."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(processes + 1)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        workers = [context.Process(target=_work, args=(folder, list(argv), rounds, barrier, rank, processes)) for rank in range(processes)]
        for worker in workers:
            worker.start()
        now = clock(torch.device("cpu"))
        for _ in range(rounds + 1):
            barrier.wait(timeout=600)
            begin = now()
            barrier.wait(timeout=3600)
            seconds.append(now() - begin)
        for worker in workers:
            worker.join()
    return seconds[1:]  # the first one warms up


def _work(folder: str, argv: list[str], rounds: int, barrier: Barrier, rank: int, processes: int) -> None:
    wanted = parse(argv)
    device = choose_device(wanted.device, 1)
    images, model = open_images(wanted), load(wanted.model).to(device)
    construction = constructions(wanted)["relabelled"]
    plan = Plan(construction, images, model, batch_size=wanted.batch_size, shard_size=wanted.shard_size, dtype="float16", device=device)
    for number in range(rounds + 1):
        barrier.wait(timeout=600)
        try:
            build_set(Path(folder) / str(number), plan)
        except BaseException:
            barrier.abort()  # the others would wait for us
            raise
        barrier.wait(timeout=3600)


def constructions(wanted: argparse.Namespace) -> dict[str, Construction]:
    return {
        "relabelled": Relabelled(next_class, named_threat(wanted.norm, wanted.eps), wanted.steps, None),
        "inverted": Inverted(wanted.steps),
    }


def open_images(wanted: argparse.Namespace) -> Images:
    images = open_dataset(None, wanted.data, "train", limit=wanted.images)
    return images


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed of construction against the bare loop of forward and backward passes.")
    parser.add_argument("--model", default="cifar10-small-standard", metavar="NAME|PATH")
    parser.add_argument("--data", required=True, metavar="PATH", help="images of the model's classes")
    parser.add_argument("--images", type=positive, default=500, help="images in the set (default: 500)")
    parser.add_argument("--batch-size", type=positive, default=250)
    parser.add_argument("--shard-size", type=positive, default=250)
    parser.add_argument("--norm", choices=("linf", "l2", "l1"), default="l2")
    parser.add_argument("--eps", type=radius, help="pixel units; usual for the norm where left out")
    parser.add_argument("--steps", type=positive, default=20)
    parser.add_argument("--repeats", type=positive, default=5, help="rounds after the first, which does not count (default: 5)")
    parser.add_argument("--processes", type=positive, help="also let so many processes build one set together, one thread each")
    parser.add_argument(
        "--amp", action=argparse.BooleanOptionalAction, help="also in bfloat16; where left out, if the device computes in it"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=positive)
    parser.add_argument("--out", metavar="FILE", help="also write the numbers as JSON")
    return parser.parse_args(argv)


def run(argv: Sequence[str] | None) -> None:
    wanted = parse(argv)
    device = choose_device(wanted.device, wanted.threads)
    images, model = open_images(wanted), load(wanted.model).to(device)
    where = environment()
    print(f"{wanted.model} on {len(images)} images of {images.name}, {wanted.steps} steps, batches of {wanted.batch_size}")
    print(f"{wanted.repeats} rounds; {described(where)}\n")
    rows = []
    for kind, construction in constructions(wanted).items():
        rows += measure(kind, construction, images, model, wanted)
    print(table([row.cells() for row in rows]))
    found: dict[str, Any] = {"settings": vars(wanted), "environment": where, "rows": [asdict(row) for row in rows]}
    if wanted.processes:
        words = list(sys.argv[1:] if argv is None else argv)
        alone, many = (together(n, words, wanted.repeats) for n in (1, wanted.processes))
        found["processes"] = {"alone": alone, "together": many}
        gain = Spread.ratio(alone, many)
        print(f"\n{wanted.processes} processes against one, one thread each: {gain} times as fast")
    found["largest_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if not computes_bfloat16(device):
        print("\nbfloat16 is emulated on this device, and not measured unless --amp asks for it")
    if wanted.out:
        files.write_json(wanted.out, found)


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code(lambda: run(argv))


if __name__ == "__main__":
    sys.exit(main())
