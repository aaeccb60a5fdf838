"""How soon does the interactive page answer, and what does the way through the server cost?

    python benchmarks/demo.py                                   # ResNet-18 with random weights, 32 pixels, one thread
    python benchmarks/demo.py --model cifar10-small-l2 --tabs 20

A real server on a port of this machine, and readers that take every line as it comes. The bare loop is the run's own work,
forward and backward passes of the same stand-in without projection, frames or network; runs and bare loops take turns.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.interleaved import Spread, clock, described, in_turn, table  # noqa: E402
from robustlab import files  # noqa: E402
from robustlab.demo.page import Page  # noqa: E402
from robustlab.demo.server import start_page  # noqa: E402
from robustlab.demo.session import Served, as_image  # noqa: E402
from robustlab.demo.starters import sketches  # noqa: E402
from robustlab.devices import choose_device  # noqa: E402
from robustlab.errors import UserError  # noqa: E402
from robustlab.models.zoo import build, load  # noqa: E402
from robustlab.options import positive  # noqa: E402
from robustlab.records import environment  # noqa: E402

Line = tuple[float, dict[str, Any]]  # seconds after the press, and what came


def bare(served: Served, x: torch.Tensor, steps: int) -> None:
    """Forward and backward passes, and nothing else."""
    for _ in range(steps):
        image = x.detach().requires_grad_()
        logits, _ = served.outputs(image)
        torch.autograd.grad(logits[:, 0].sum(), image)


def press(address: tuple[str, int], picture: bytes, steps: int, target: int = 0) -> list[Line]:
    """Ask for a run, again where the server is busy, and read it to its end."""
    image = base64.b64encode(picture).decode()
    request = {"model": "model", "image": image, "target": target, "eps": 4.0, "step_size": 0.2, "steps": steps}
    begin = time.perf_counter()
    while True:
        connection = http.client.HTTPConnection(*address, timeout=600)
        connection.request("POST", "/api/run", json.dumps(request), {"content-type": "application/json"})
        response = connection.getresponse()
        if response.status == 200:
            lines = [(time.perf_counter() - begin, json.loads(line)) for line in response]
            connection.close()
            return lines
        response.read()
        connection.close()
        if response.status != 503:
            raise UserError(f"the server answered {response.status}")
        time.sleep(0.1)


def frames(lines: Sequence[Line]) -> list[float]:
    """When each frame came."""
    return [when for when, line in lines if line["type"] in ("frame", "done")]


def crowd(address: tuple[str, int], pictures: Sequence[bytes], steps: int, tabs: int) -> dict[str, float]:
    """All press at once; when the first and the last of them have their pictures, and what memory server and readers took for it."""
    ends: list[float] = []
    before = peak_megabytes()

    def one(k: int) -> None:
        ends.append(press(address, pictures[k % len(pictures)], steps)[-1][0])

    threads = [threading.Thread(target=one, args=(k,)) for k in range(tabs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"tabs": tabs, "served": len(ends), "first_s": min(ends), "last_s": max(ends), "added_mb": peak_megabytes() - before}


def peak_megabytes() -> float:
    """The most memory that this process has held so far; 0 where the system does not say."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def main(argv: Sequence[str] | None = None) -> int:
    """Print the times; returns the exit code."""
    try:
        return _main(argv)
    except UserError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2


def _main(argv: Sequence[str] | None) -> int:
    wanted = _parser().parse_args(argv)
    device = choose_device(wanted.device, wanted.threads)
    model = load(wanted.model) if wanted.model else build(wanted.arch, num_classes=10).eval()
    served = Served("model", "", model.to(device))
    with start_page(Page({"model": served}, wanted.size), "127.0.0.1", 0) as running:
        host, _, port = running.address.removeprefix("http://").rstrip("/").partition(":")
        found = measured(wanted, served, (host, int(port)), device)
    if wanted.out:
        files.write_json(Path(wanted.out), found)
    return 0


def measured(wanted: argparse.Namespace, served: Served, address: tuple[str, int], device: torch.device) -> dict[str, Any]:
    """Measure and print; returns all numbers."""
    pictures, now = [starter.picture for starter in sketches(wanted.size)], clock(device)
    press(address, pictures[0], 2)  # the first call is the slowest
    x = as_image(pictures[0]).to(device)
    bare(served, x, 2)
    runs: list[list[Line]] = []
    tasks = {
        "bare loop": lambda number: bare(served, x, wanted.steps),
        "page": lambda number: press(address, pictures[number % len(pictures)], wanted.steps),
    }
    seconds = in_turn(tasks, range(wanted.repeats), now, lambda name, number, result: runs.append(result) if result else None)
    first = Spread.of([frames(lines)[0] for lines in runs])
    rate = Spread.of([wanted.steps / taken for taken in seconds["page"]])
    found = {
        "settings": vars(wanted),
        "environment": environment(),
        "first_frame_s": vars(first),
        "steps_per_s": vars(rate),
        "ratio_to_bare_loop": vars(Spread.ratio(seconds["page"], seconds["bare loop"])),
        "frames_per_run": vars(Spread.of([float(len(frames(lines))) for lines in runs])),
        "crowd": crowd(address, pictures, wanted.steps, wanted.tabs),
    }
    what = f"{wanted.model or wanted.arch}, {wanted.size} pixels, {wanted.steps} steps, {wanted.repeats} runs"
    print(f"{described(found['environment'])}; {what}\n")
    together = found["crowd"]
    rows = {
        "first frame after the press, ms": str(Spread(*(1000 * value for value in vars(first).values()))),
        "steps per second": str(rate),
        "time of a run, ratio to the bare loop": str(Spread.ratio(seconds["page"], seconds["bare loop"])),
        "frames that came": str(Spread.of([float(len(frames(lines))) for lines in runs])),
        f"{wanted.tabs} tabs at once: first and last served, s": f"{together['first_s']:.2f}, {together['last_s']:.2f}",
        "memory that they add, MB": f"{together['added_mb']:.0f}",
    }
    print(table([{"": name, "median [min, max]": value} for name, value in rows.items()]))
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--arch", default="resnet18", help="with random weights (default: resnet18)")
    parser.add_argument("--model", help="a pretrained model's name, or a checkpoint")
    parser.add_argument("--size", type=positive, default=32, help="pixels of a side (default: 32)")
    parser.add_argument("--steps", type=positive, default=20, help="of each run (default: 20)")
    parser.add_argument("--repeats", type=positive, default=7, help="runs (default: 7)")
    parser.add_argument("--tabs", type=positive, default=20, help="that press at once (default: 20)")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", help="JSON file for everything measured")
    return parser


if __name__ == "__main__":
    sys.exit(main())
