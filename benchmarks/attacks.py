"""How fast is PGD here? The loop written by hand, ours, ours in bfloat16 and other libraries', in one run on one model.

    python benchmarks/attacks.py --arch resnet18 --batch-size 32
    python benchmarks/attacks.py --model best.pt --data datasets/cifar10 --device cuda --batch-size 512 --compile

Every contender attacks the same images with the same eps, step size, number of steps and kind of start, and returns its
last point. The labels are what the model predicts for the clean images; an attack has succeeded where the model itself,
in float32, predicts something else, whatever found the point. Where a stand-in searched, that check is in our time.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import contenders  # noqa: E402
from benchmarks.contenders import Attack, Task  # noqa: E402
from benchmarks.interleaved import Spread, clock, described, exit_code, in_turn, table, timed  # noqa: E402
from robustlab import files  # noqa: E402
from robustlab.data.batches import Batch, Batches  # noqa: E402
from robustlab.data.catalog import open_dataset  # noqa: E402
from robustlab.data.imageset import Images  # noqa: E402
from robustlab.devices import choose_device  # noqa: E402
from robustlab.errors import UserError  # noqa: E402
from robustlab.evaluation import Rate  # noqa: E402
from robustlab.evaluation.accuracy import predictions  # noqa: E402
from robustlab.goals import Untargeted  # noqa: E402
from robustlab.models.accelerate import accelerate  # noqa: E402
from robustlab.models.classifier import Classifier  # noqa: E402
from robustlab.models.zoo import build, load  # noqa: E402
from robustlab.objectives import goal_objective, value_and_gradient  # noqa: E402
from robustlab.options import positive, radius  # noqa: E402
from robustlab.records import environment  # noqa: E402
from robustlab.threats import named_threat  # noqa: E402

BARE = "bare loop"


@dataclass(frozen=True)
class Row:
    """What was seen of one contender.

    Attributes:
        seconds: per batch, over the rounds.
        ratio: to the bare loop, round by round.
        prepared: seconds for what is done once per model: the stand-in, or the library's wrapper.
        first: seconds of the first call, which is not among the others; compiling happens there.
        success: share of the images whose prediction changed.
        excess: how much farther than eps the farthest image lies, in pixel units; 0 is exact.
    """

    name: str
    seconds: Spread
    ratio: Spread
    prepared: float
    first: float
    success: Rate
    excess: float

    def cells(self) -> dict[str, str]:
        low, high = self.success.interval
        return {
            "attack": self.name,
            "s per batch": f"{self.seconds.median:.3g}",
            "ratio to the bare loop [min, max]": str(self.ratio),
            "once, s": f"{self.prepared:.2g}",
            "first call, s": f"{self.first:.3g}",
            "success, % [95 % interval]": f"{100 * self.success.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
            "beyond eps": f"{self.excess:.0e}" if self.excess else "0",
        }


def measure(model: nn.Module, batches: Sequence[Batch], task: Task, *, compile: bool, peers: bool) -> tuple[list[Row], dict[str, str]]:
    """One row per contender, the bare loop first, and the libraries that are missing with the reason.

    Args:
        model: in evaluation mode.
        batches: one for each round; the first one serves for the first call, too.
    """
    now = clock(batches[0].x.device)
    attacks: dict[str, Attack] = {}
    prepared: dict[str, float] = {}
    missing: dict[str, str] = {}
    for name, make in entrants(model, task, compile, peers).items():
        try:
            attacks[name], prepared[name] = timed(make, now)
        except ImportError as error:
            missing[name] = str(error)
    labels = [predictions(model, batch.x) for batch in batches]
    broken, excess = dict.fromkeys(attacks, 0), dict.fromkeys(attacks, 0.0)

    def judge(name: str, number: int, x_adv: Tensor) -> None:
        distance = task.threat.norm.measure(x_adv.double() - batches[number].x.double())
        broken[name] += int((predictions(model, x_adv) != labels[number]).sum())
        excess[name] = max(excess[name], float(distance.max()) - task.eps)

    calls = {name: (lambda number, attack=attack: attack(batches[number].x, labels[number])) for name, attack in attacks.items()}
    first = in_turn(calls, [0], now, lambda name, number, x_adv: None)
    seconds = in_turn(calls, range(len(batches)), now, judge)
    n = sum(len(batch.x) for batch in batches)
    rows = [
        Row(
            name,
            Spread.of(seconds[name]),
            Spread.ratio(seconds[name], seconds[BARE]),
            prepared[name],
            first[name][0],
            Rate(broken[name], n),
            excess[name],
        )
        for name in attacks
    ]
    return rows, missing


def entrants(model: nn.Module, task: Task, compile: bool, peers: bool) -> dict[str, Callable[[], Attack]]:
    """By name, how to prepare each contender."""

    def on_stand_in(dtype: torch.dtype | None = None, compile: bool = False, keep_best: bool = False) -> Attack:
        return contenders.ours(model, task, accelerate(model, dtype=dtype, compile=compile), keep_best)

    makers: dict[str, Callable[[], Attack]] = {
        BARE: partial(contenders.bare_loop, model, task),
        "ours, the model itself": partial(contenders.ours, model, task),
        "ours, as it is called": partial(contenders.ours, model, task, keep_best=True, accelerate=True),
        "ours, float32": on_stand_in,
        "ours, float32, best point": partial(on_stand_in, keep_best=True),
        "ours, bfloat16": partial(on_stand_in, torch.bfloat16),
    }
    if compile:
        makers["ours, float32, compiled"] = partial(on_stand_in, compile=True)
        makers["ours, bfloat16, compiled"] = partial(on_stand_in, torch.bfloat16, compile=True)
    if peers:
        # Each its own copy of the model, since some of them leave gradients behind.
        makers |= {name: partial(make, copy.deepcopy(model), task) for name, make in contenders.PEERS.items()}
    return makers


def gradient_cosine(model: nn.Module, x: Tensor, y: Tensor) -> Spread:
    """Cosine, per image, between the loss's gradient in bfloat16 on a stand-in and the one in float32 on the model."""
    fast = accelerate(model, dtype=torch.bfloat16)
    exact, rough = (value_and_gradient(goal_objective(m, Untargeted(y)), x)[2].flatten(1) for m in (model, fast))
    return Spread.of(torch.cosine_similarity(exact, rough).tolist())


def calibrated(arch: str, images: Images, x: Tensor) -> Classifier:
    """A network with random weights whose BatchNorm statistics are those of a batch, so that its gradients are of usual size."""
    mean, std = (value.tolist() for value in images.mean_std())
    model = build(arch, num_classes=len(images.classes), mean=mean, std=std, channels=images.shape[0]).to(x.device)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the average of all batches seen: here of one
    with torch.no_grad():
        model(x)
    return model.eval()


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="PGD by hand, ours, and other libraries', in one run on one model.")
    parser.add_argument("--arch", default="resnet18", metavar="NAME", help="architecture, with random weights (default: resnet18)")
    parser.add_argument("--model", metavar="NAME|PATH", help="a trained model instead")
    parser.add_argument("--data", metavar="PATH", help="images to attack (default: the generated shapes)")
    parser.add_argument("--batch-size", type=positive, default=32)
    parser.add_argument("--steps", type=positive, default=10)
    parser.add_argument("--norm", choices=("linf", "l2"), default="linf")
    parser.add_argument("--eps", type=radius, help="pixel units; 8/255 in linf and 0.5 in l2 where left out")
    parser.add_argument("--no-random-start", action="store_true", help="start at the image, not at a random point of the ball")
    parser.add_argument("--repeats", type=positive, default=7, help="rounds, each with a batch of its own (default: 7)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=positive)
    parser.add_argument("--compile", action="store_true", help="also ours through torch.compile")
    parser.add_argument("--no-peers", action="store_true", help="leave torchattacks, foolbox and ART out")
    parser.add_argument("--out", metavar="FILE", help="also write the numbers as JSON")
    return parser.parse_args(argv)


def run(wanted: argparse.Namespace) -> None:
    device = choose_device(wanted.device, wanted.threads)
    n = wanted.repeats * wanted.batch_size
    images = open_dataset(None, wanted.data, "test", limit=n)
    if len(images) < n:
        raise UserError(f"{images.name} has {len(images)} images, too few for {wanted.repeats} batches of {wanted.batch_size}")
    batches = list(Batches(images, wanted.batch_size, shuffle=True, device=device).epoch(0))
    model = load(wanted.model).to(device) if wanted.model else calibrated(wanted.arch, images, batches[0].x)
    threat = named_threat(wanted.norm, wanted.eps)
    task = Task(threat, wanted.steps, not wanted.no_random_start, (wanted.batch_size, *images.shape), model.num_classes)

    rows, missing = measure(model, batches, task, compile=wanted.compile, peers=not wanted.no_peers)
    cosine = gradient_cosine(model, batches[0].x, predictions(model, batches[0].x))
    where = environment()
    start = "a random point" if task.random_start else "the image"
    print(f"PGD-{task.steps}, {threat}, step {task.step_size:.3g}, from {start}: {wanted.model or model.arch + ', random weights'}")
    print(f"{wanted.repeats} batches of {wanted.batch_size} from {images.name}, n = {n}; {described(where)}\n")
    print(table([row.cells() for row in rows]))
    print(f"\ngradient in bfloat16 against float32, cosine per image: median {cosine} (n = {len(batches[0].x)})")
    for name, reason in missing.items():
        print(f"not compared, not installed: {name} ({reason})")
    if wanted.out:
        found = {"rows": [asdict(row) for row in rows], "missing": missing, "gradient_cosine": asdict(cosine)}
        files.write_json(wanted.out, {"settings": vars(wanted), "environment": where, **found})


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code(lambda: run(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
