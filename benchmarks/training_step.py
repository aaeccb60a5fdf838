"""What does a training step cost, and which share of it are the data, the attack's random draws, and its exact projection?

    python benchmarks/training_step.py
    python benchmarks/training_step.py --data datasets/cifar10 --norm linf --device cuda --batch-size 512

Standard training, N-FGSM and PGD training of the same network, in float32 and with bfloat16 autocast, take turns in one run.
Steps are those of ``robustlab train``: batches with random crops and flips, the loss, the update. The time for which the
loop waits for a batch is the data's share. Draws and projections are timed right after each round, on a batch of the same
shape, as often as one step does them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, count, islice
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.interleaved import Clock, Spread, clock, described, exit_code, table, timed  # noqa: E402
from robustlab import files  # noqa: E402
from robustlab.attacks import NFGSM, PGD  # noqa: E402
from robustlab.constraints import ConstraintSet  # noqa: E402
from robustlab.data.augment import crop_flip  # noqa: E402
from robustlab.data.batches import Batch, Batches  # noqa: E402
from robustlab.data.catalog import open_dataset  # noqa: E402
from robustlab.data.imageset import Images  # noqa: E402
from robustlab.devices import choose_device  # noqa: E402
from robustlab.errors import UserError  # noqa: E402
from robustlab.options import positive, radius  # noqa: E402
from robustlab.records import environment  # noqa: E402
from robustlab.seeding import fold  # noqa: E402
from robustlab.threats import named_threat  # noqa: E402
from robustlab.training.fit import Epoch, Optimization, TrainingState, fit  # noqa: E402
from robustlab.training.losses import Adversarial, Standard, TrainingLoss  # noqa: E402
from robustlab.training.start import network_for  # noqa: E402


@dataclass
class Watched:
    """Batches, served ``updates`` at a time, noting how long the loop waits for them and how long its steps take in all.

    One real epoch goes on over many of these short ones. What beginning it costs, drawing its order above all, is measured
    once and added to each wait in equal parts.
    """

    batches: Batches
    updates: int
    now: Clock
    waited: float = 0.0  # seconds, in the latest short epoch
    whole: float = 0.0

    def __post_init__(self) -> None:
        _, seconds = timed(lambda: next(self.batches.epoch(0)), self.now)
        self.opening = seconds / len(self.batches)
        self.source = chain.from_iterable(map(self.batches.epoch, count()))

    def __len__(self) -> int:
        return self.updates

    def epoch(self, n: int, start: int = 0) -> Iterator[Batch]:
        self.waited = self.whole = 0.0
        begin = self.now()
        for batch in islice(self.source, self.updates):
            fetched = self.now()
            yield batch  # here the loop takes its step
            end = self.now()
            self.waited += fetched - begin + self.opening
            self.whole += end - begin + self.opening
            begin = end


@dataclass
class Contender:
    """A training that goes on by one short epoch at a time; seconds per step, one number for each epoch.

    Attributes:
        waited: for the batch.
        draws, projection: in the attack.
        whole: the step with all of that.
    """

    name: str
    attack: NFGSM | PGD | None
    watched: Watched
    epochs: Iterator[Epoch]
    waited: list[float] = field(default_factory=list)
    draws: list[float] = field(default_factory=list)
    projection: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)

    def go_on(self, batch: Batch) -> None:
        next(self.epochs)
        self.waited.append(self.watched.waited / len(self.watched))
        self.whole.append(self.watched.whole / len(self.watched))
        draws, projection = parts(self.attack, batch, self.watched.now) if self.attack else (0.0, 0.0)
        self.draws.append(draws)
        self.projection.append(projection)

    def forget(self) -> None:
        for seconds in (self.waited, self.draws, self.projection, self.whole):
            seconds.clear()


def parts(attack: NFGSM | PGD, batch: Batch, now: Clock) -> tuple[float, float]:
    """Seconds for drawing, and for projecting, as often as the attack does in one step of training on this batch."""
    threat, x = attack.threat, batch.x
    allowed: Callable[[], ConstraintSet]
    if isinstance(attack, NFGSM):
        reach, allowed, steps = attack.noise * threat.eps, lambda: threat.box, 1
    else:
        reach, allowed, steps = threat.eps, lambda: threat.around(x), attack.steps
    noise, draws = timed(lambda: threat.norm.sample(fold(batch.keys, "timed"), x.shape[1:], reach), now)
    outside = x + 2 * noise

    def project() -> None:
        inside = allowed()
        for _ in range(1 + steps):
            inside.project(outside)

    return draws, timed(project, now)[1]


def contenders(images: Images, args: argparse.Namespace, device: torch.device) -> list[Contender]:
    """Standard, N-FGSM and PGD training, each in float32 and in bfloat16, and PGD on stand-ins, from the same weights."""
    threat = named_threat(args.norm, args.eps)
    attacks: dict[str, NFGSM | PGD | None] = {
        "standard": None,
        "N-FGSM": NFGSM(threat),
        f"PGD-{args.steps}": PGD(threat, args.steps, keep_best=False),
    }
    entered = [contender(name, attack, amp, None, images, args, device) for name, attack in attacks.items() for amp in (False, True)]
    name, attack = list(attacks.items())[-1]
    return entered + [contender(name, attack, False, dtype, images, args, device) for dtype in (torch.float32, torch.bfloat16)]


def contender(
    name: str,
    attack: NFGSM | PGD | None,
    amp: bool,
    stand_in: torch.dtype | None,
    images: Images,
    args: argparse.Namespace,
    device: torch.device,
) -> Contender:
    model = network_for(images, args.arch).to(device)
    model.to(memory_format=torch.channels_last)
    optimization = Optimization(epochs=args.repeats + 1, batch_size=args.batch_size, lr=0.05, amp=amp)
    batches = Batches(images, args.batch_size, augment=crop_flip(), shuffle=True, device=device, drop_last=True, channels_last=True)
    watched = Watched(batches, args.updates, clock(device))
    loss: TrainingLoss = Adversarial(attack, stand_in=stand_in) if attack else Standard()
    epochs = fit(TrainingState.fresh(model, optimization), watched, loss, optimization)
    precision = ("bfloat16" if amp else "float32") if stand_in is None else f"stand-in in {str(stand_in).removeprefix('torch.')}"
    return Contender(f"{name}, {precision}", attack, watched, epochs)


@dataclass(frozen=True)
class Row:
    """One contender. Shares are of its own step; the ratio is to the first contender's step, round by round."""

    name: str
    seconds: Spread
    images_per_second: float
    ratio: Spread
    data: Spread
    draws: Spread
    projection: Spread

    @classmethod
    def of(cls, one: Contender, baseline: Contender, batch_size: int) -> Row:
        seconds = Spread.of(one.whole)
        shares = (Spread.ratio(part, one.whole) for part in (one.waited, one.draws, one.projection))
        return cls(one.name, seconds, batch_size / seconds.median, Spread.ratio(one.whole, baseline.whole), *shares)

    def cells(self) -> dict[str, str]:
        return {
            "training step": self.name,
            "ms": f"{1e3 * self.seconds.median:.0f}",
            "images/s": f"{self.images_per_second:.0f}",
            "ratio to the first [min, max]": str(self.ratio),
            "data, % [min, max]": self.data.percent(),
            "draws, %": self.draws.percent(),
            "projection, %": self.projection.percent(),
        }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Steps of standard, N-FGSM and PGD training, and where their time goes.")
    parser.add_argument("--arch", default="small", metavar="NAME")
    parser.add_argument("--data", metavar="PATH", help="images to train on (default: the generated shapes)")
    parser.add_argument("--limit", type=positive, default=20_000, help="use this many of them (default: 20000)")
    parser.add_argument("--batch-size", type=positive, default=128)
    parser.add_argument("--norm", choices=("linf", "l2", "l1"), default="l2")
    parser.add_argument("--eps", type=radius, help="pixel units; usual for the norm where left out")
    parser.add_argument("--steps", type=positive, default=10, help="steps of PGD (default: 10)")
    parser.add_argument("--updates", type=positive, default=5, help="training steps in a round (default: 5)")
    parser.add_argument("--repeats", type=positive, default=7, help="rounds after the first, which does not count (default: 7)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=positive)
    parser.add_argument("--out", metavar="FILE", help="also write the numbers as JSON")
    return parser.parse_args(argv)


def run(args: argparse.Namespace) -> None:
    device = choose_device(args.device, args.threads)
    images = open_dataset(None, args.data, "train", limit=args.limit)
    if len(images) < args.updates * args.batch_size:
        raise UserError(f"{images.name} has {len(images)} images, too few for {args.updates} batches of {args.batch_size}")
    entered = contenders(images, args, device)
    batch = next(Batches(images, args.batch_size, device=device).epoch(0))
    for number in range(args.repeats + 1):
        for one in entered:
            one.go_on(batch)
            if number == 0:
                one.forget()
    rows = [Row.of(one, entered[0], args.batch_size) for one in entered]
    where = environment()
    print(f"{args.arch}, batches of {args.batch_size} from {len(images)} images of {images.name}, {named_threat(args.norm, args.eps)}")
    print(f"{args.repeats} rounds of {args.updates} steps; {described(where)}\n")
    print(table([row.cells() for row in rows]))
    if args.out:
        files.write_json(args.out, {"settings": vars(args), "environment": where, "rows": [asdict(row) for row in rows]})


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code(lambda: run(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
