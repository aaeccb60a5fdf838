"""How far apart metric spaces are: the Gromov-Hausdorff distance between its bounds, and what a Gromov-Wasserstein plan is good for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.experiments.cache import ExperimentCache, Measurement, Values
from robustlab.experiments.finding import Finding
from robustlab.experiments.graphs import shown
from robustlab.gnn.generators import points
from robustlab.gnn.metric_spaces import (
    LOWER_BOUNDS,
    circle,
    distances,
    distortion,
    gromov_hausdorff,
    gromov_wasserstein,
    sdp_bound,
)
from robustlab.reports.plots import HeatMap
from robustlab.reports.tables import Table

VERSION = 1  # of the measurements: another one measures again
PAIRS = 20
NOISE = 0.1  # standard deviation of what moves the points of the second kind of pairs
EXACT, SDP, PLAN = "exact", "semidefinite program", "plan (upper bound)"
TIGHT = 1e-6


@dataclass(frozen=True)
class Config:
    """Attributes:
    seeds: pairs of each kind, ``PAIRS`` where left out.
    n: points of each space.
    sdp: the semidefinite bound too, which takes a second or more for each pair.
    shape: points of each shape in the second table.
    """

    seeds: int | None = None
    n: int = 4
    sdp: bool = True
    shape: int = 24

    @property
    def pairs(self) -> int:
        """Pairs of each kind."""
        return self.seeds or PAIRS


FULL = Config(seeds=200, n=5)


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Measure what is missing, and put the numbers into tables."""
    settings = {"version": VERSION, "n": config.n, "pairs": config.pairs, "sdp": config.sdp}
    measurements = [Measurement(kind, {**settings, "kind": kind}, partial(_bounds, make, config)) for kind, make in KINDS.items()]
    shapes = Measurement("shapes", {"version": VERSION, "points": config.shape}, partial(_shapes, config.shape))
    *found, apart = cache.measured("metric-spaces", [*measurements, shapes])
    tables = [_table(kind, values, config) for kind, values in zip(KINDS, found, strict=True)]
    numbers = {"bounds": dict(zip(KINDS, found, strict=True)), "shapes": apart}
    return Finding(tuple(tables), numbers, maps={"metric-spaces-shapes": _map(apart)})


# Bounds


def _independent(n: int, key: int) -> tuple[Tensor, Tensor]:
    return distances(points(n, first=2 * key)[0]), distances(points(n, first=2 * key + 1)[0])


def _moved(n: int, key: int) -> tuple[Tensor, Tensor]:
    place = points(n, first=key, seed=1)[0]
    step = seeding.normal(seeding.fold(seeding.example_keys(1, torch.tensor([key])), "moved"), (n, 2), torch.float64)[0]
    order = seeding.permutation(key, n, "points")
    return distances(place), distances((place + NOISE * step)[order])


KINDS: dict[str, Callable[[int, int], tuple[Tensor, Tensor]]] = {"independent": _independent, "moved": _moved}


def _bounds(make: Callable[[int, int], tuple[Tensor, Tensor]], config: Config) -> Values:
    """Each bound of each pair of spaces, and the seconds that it took for all of them."""
    methods: dict[str, Callable[[Tensor, Tensor], float]] = {
        EXACT: lambda X, Y: gromov_hausdorff(X, Y).value,
        **LOWER_BOUNDS,
        **({SDP: sdp_bound} if config.sdp else {}),
        PLAN: lambda X, Y: distortion(X, Y, gromov_wasserstein(X, Y, starts=5).correspondence) / 2,
    }
    found: Values = {"values": {name: [] for name in methods}, "seconds": dict.fromkeys(methods, 0.0)}
    for key in range(config.pairs):
        X, Y = make(config.n, key)
        for name, method in methods.items():
            began = time.process_time()
            found["values"][name].append(method(X, Y))
            found["seconds"][name] += time.process_time() - began
    return found


def _table(kind: str, found: Values, config: Config) -> Table:
    words = {
        "independent": "both uniform in the unit square",
        "moved": f"the second is the first with every coordinate moved by noise of standard deviation {NOISE:g}, in another order",
    }
    rows = []
    for name, values in found["values"].items():
        ratios = [value / exact for value, exact in zip(values, found["values"][EXACT], strict=True) if exact > 0]
        tight = sum(abs(value - exact) < TIGHT for value, exact in zip(values, found["values"][EXACT], strict=True))
        milliseconds = 1000 * found["seconds"][name] / len(values)
        rows.append((name, shown(values), shown(ratios), f"{tight} of {len(values)}", f"{milliseconds:.3g}"))
    return Table(
        f"Gromov-Hausdorff distance of {config.n} and {config.n} points: {kind}",
        f"{config.pairs} pairs of spaces of {config.n} points in the plane, {words[kind]}. Means with their 95 % intervals; all but the "
        "exact value and the plan's are lower bounds.",
        ("method", "value", "over the exact distance", "equal to it", "ms of CPU time for a pair"),
        tuple(rows),
    )


# Shapes


def _families(n: int) -> dict[str, list[Tensor]]:
    """Two samples of each shape, by their distances, each of diameter 1."""
    found: dict[str, list[Tensor]] = {}
    for which in range(2):
        square, noise = points(n, seed=7, first=which)[0], points(n, seed=8, first=which)[0]
        shapes = {
            "circle": circle(n)[:, _order(n, which)][_order(n, which)],
            "line": distances(square[:, :1]),
            "square": distances(square),
            "two groups": distances(0.1 * square + (torch.arange(n) % 2)[:, None]),
            "three groups": distances(0.1 * noise + torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.87]])[torch.arange(n) % 3]),
        }
        for name, space in shapes.items():
            found.setdefault(name, []).append(space / space.max())
    return found


def _order(n: int, which: int) -> Tensor:
    return seeding.permutation(which, n, "shapes")


def _shapes(n: int) -> Values:
    """The Gromov-Wasserstein distance of a first and a second sample, for every two shapes."""
    families = _families(n)
    rows = [[gromov_wasserstein(a, b, starts=5).value ** 0.5 for _, b in families.values()] for a, _ in families.values()]
    return {"shapes": list(families), "distances": rows}


def _map(found: Values) -> HeatMap:
    names, rows = tuple(found["shapes"]), found["distances"]
    largest = max(max(row) for row in rows)
    title = "Gromov-Wasserstein distance of two samples"
    return HeatMap(title, "second sample", "first sample", names, names, _rows(rows), 0.0, (0.0, largest), percent=False)


def _rows(rows: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(round(value, 6) for value in row) for row in rows)
