"""What functions of graphs a class of networks approximates: all those that are equal on graphs that it does not tell apart, and no others.

    found = reproduce("universality", out="runs/reproduce")
    print(found.tables[0])

The talk's C^{+L} puts ReLU layers on functions of a class C (Chen, Villar, Chen and Bruna 2019, theorem 2, for finitely many graphs).
Here the functions are the answers of one network of C with random weights, and one ReLU layer on them is fitted to a target on all graphs
of up to 7 nodes so that the largest error is smallest. Where C does not tell two graphs apart, half the difference of their targets is a
lower bound.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robustlab import seeding
from robustlab.errors import UserError, unknown
from robustlab.experiments.cache import ExperimentCache, Measurement, Values
from robustlab.experiments.finding import Finding, LinePlot
from robustlab.extras import networkx, scipy_module
from robustlab.gnn.families import ATLAS, all_graphs
from robustlab.gnn.graphs import GraphBatch, side_by_side
from robustlab.gnn.ign import IGN
from robustlab.gnn.networks import GraphNetwork, clipped
from robustlab.gnn.pooled import GIN, PooledSGNN
from robustlab.gnn.ring import RingGNN
from robustlab.gnn.separation import METHODS, Method, by_network, clipped_powers
from robustlab.gnn.spectral_network import SpectralNetwork
from robustlab.reports.plots import Axes, Line
from robustlab.reports.tables import Table

VERSION = 1  # of the measurements: another one measures again
DIRECTIONS = 50  # along which the functions are looked at, of which the best is taken
ALL = "one for each"  # graph that is told apart: as many units
LOWEST = 1e-5  # where smaller errors are drawn
RESOLVED = 1e-9  # of the range along it: answers that are nearer count as equal


@dataclass(frozen=True)
class Class:
    """A class of networks.

    Attributes:
        made: from a seed to networks whose answers are the functions.
        bound: the method that tells apart at least as much, and its name.
    """

    made: Callable[[int], Sequence[GraphNetwork]]
    bound: Method
    name: str


CLASSES: dict[str, Class] = {
    "GIN": Class(lambda seed: [GIN(16, width=64, depth=6, norm="none", seed=seed)], METHODS["1-WL"], "1-WL"),
    "2-IGN": Class(lambda seed: [IGN(16, width=16, depth=4, seed=seed)], METHODS["1-WL"], "1-WL"),
    "sGNN, clipped powers to 3": Class(
        lambda seed: [PooledSGNN(16, clipped(3), width=32, depth=4, norm="none", seed=seed)],
        clipped_powers(3),
        "clipped powers to 3",
    ),
    "spectrum": Class(lambda seed: [SpectralNetwork(16, width=256, seed=seed)], METHODS["spectrum"], "spectrum"),
    "GIN and spectrum": Class(
        lambda seed: [GIN(16, width=64, depth=6, norm="none", seed=seed), SpectralNetwork(16, width=256, seed=seed)],
        METHODS["1-WL and spectrum"],
        "1-WL and spectrum",
    ),
    "Ring-GNN": Class(lambda seed: [RingGNN(16, width=(8, 8), seed=seed)], METHODS["2-FWL"], "2-FWL"),
}


@dataclass(frozen=True)
class Config:
    """Attributes:
    classes: names of ``CLASSES``; all if empty.
    targets: names of ``TARGETS``; all if empty.
    nodes: of the largest graphs, up to 7.
    units: of the ReLU layer, for each point of the plot; as many as graphs that are told apart are always tried.
    seed: of the networks' weights, and of the directions.
    """

    classes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    nodes: int = ATLAS
    units: tuple[int, ...] = (1, 3, 10, 30, 100, 300)
    seed: int = 0


FULL = Config()


# Targets


def _of_each(value: Callable[[Any], float]) -> Callable[[GraphBatch], Tensor]:
    """A function of networkx graphs for all graphs of a batch."""

    def values(graphs: GraphBatch) -> Tensor:
        found = []
        for which in range(len(graphs)):
            one = graphs.one(which)
            made = networkx().empty_graph(one.n)
            made.add_edges_from(one.edge_index[:, one.tail < one.head].T.tolist())
            found.append(float(value(made)))
        return torch.tensor(found, dtype=torch.float64)

    return values


def _random(graphs: GraphBatch) -> Tensor:
    return seeding.uniform(seeding.fold(seeding.example_keys(0, torch.arange(len(graphs))), "target"), (), torch.float64)


def _algebraic_connectivity(graph: Any) -> float:
    laplacian = networkx().laplacian_matrix(graph).toarray().astype(float)
    return float(torch.linalg.eigvalsh(torch.from_numpy(laplacian))[1]) if len(graph) > 1 else 0.0


# Each scaled to the range from 0 to 1 over all graphs.
TARGETS: dict[str, Callable[[GraphBatch], Tensor]] = {
    "triangles": _of_each(lambda graph: sum(networkx().triangles(graph).values()) / 3),
    "components": _of_each(lambda graph: networkx().number_connected_components(graph)),
    "largest clique": _of_each(lambda graph: max(map(len, networkx().find_cliques(graph)))),
    "algebraic connectivity": _of_each(_algebraic_connectivity),
    "a random number": _random,
}


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Fit every target by every class, or what is missing of it.

    Raises:
        UserError: an unknown class or target, data, or other graphs than are listed.
    """
    if cache.own_place is not None:
        raise UserError("universality is shown on all small graphs: it takes no `data`")
    for name, known in ((one, table) for some, table in ((config.classes, CLASSES), (config.targets, TARGETS)) for one in some):
        if name not in known:
            raise unknown("class" if known is CLASSES else "target", name, known)
    names, targets = config.classes or tuple(CLASSES), config.targets or tuple(TARGETS)
    graphs = side_by_side([all_graphs(n) for n in range(1, config.nodes + 1)])
    settings = {"nodes": config.nodes, "units": list(config.units), "seed": config.seed, "version": VERSION}
    measurements = [
        Measurement(name, {**settings, "class": name, "targets": list(targets)}, partial(_fitted, graphs, config, CLASSES[name], targets))
        for name in names
    ]
    found = dict(zip(names, cache.measured("universality", measurements), strict=True))
    tables = (_classes(config, graphs, found), *(_of_target(graphs, target, found) for target in targets))
    plots = {f"universality-{target.replace(' ', '-')}": _plot(graphs, target, found) for target in targets}
    return Finding(tables, {"universality": found}, lines=plots)


# Fits


def _fitted(graphs: GraphBatch, config: Config, kind: Class, targets: Sequence[str]) -> Values:
    began = time.process_time()
    answers = torch.cat([by_network(network)(graphs).values for network in kind.made(config.seed)], 1)  # type: ignore[attr-defined]
    places, labels = projected(answers, config.seed)
    answers = answers[_first(labels)[labels]]  # a fit must not live on rounding errors
    bound = kind.bound(graphs).labels
    told: Values = {"classes": int(labels.max()) + 1, "bound classes": int(bound.max()) + 1}
    for target in targets:
        values = TARGETS[target](graphs)
        values = (values - values.min()) / (values.max() - values.min())
        errors = {str(units): sup_error(fitted_layer(answers, values, units, config.seed), answers, values) for units in config.units}
        errors[ALL] = sup_error(bends_at_all(places, values), places[:, None], values)
        told[target] = {"least": least_error(values, bound), "of network": least_error(values, labels), "errors": errors}
    return told | {"seconds": round(time.process_time() - began, 1)}


def _first(labels: Tensor) -> Tensor:
    """The first graph with each label."""
    order = labels.argsort(stable=True)
    return order[torch.bincount(labels).cumsum(0) - torch.bincount(labels)]


def projected(answers: Tensor, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The answers along one direction, from 0 to 1, which keeps apart what they tell apart: of ``DIRECTIONS`` drawn at random that one
    whose smallest gap is largest.

    Args:
        answers: float64 ``(B, d)``.
        seed: of the directions.

    Returns:
        The places, ``(B,)``; and labels, the same for graphs that are at one place, int64 ``(B,)``.
    """
    scale = answers.std(0)
    scaled = (answers - answers.mean(0))[:, scale > 0] / scale[scale > 0]
    best: tuple[int, float, Tensor, Tensor] | None = None
    for direction in torch.randn(DIRECTIONS, scaled.shape[1], dtype=torch.float64, generator=seeding.generator(seed, "directions")):
        along = scaled @ direction
        along = (along - along.min()) / (along.max() - along.min())
        order = along.argsort()
        new = along[order].diff(prepend=along.new_zeros(1)) > RESOLVED
        labels = torch.empty_like(order)
        labels[order] = new.long().cumsum(0)
        gaps = along[order].diff()
        gap = float(gaps[gaps > RESOLVED].min()) if bool((gaps > RESOLVED).any()) else math.inf
        if best is None or (int(labels.max()), gap) > best[:2]:
            first = torch.zeros(int(labels.max()) + 1, dtype=torch.float64).scatter_reduce(0, labels, along, "amin", include_self=False)
            best = int(labels.max()), gap, first[labels], labels
    assert best is not None
    return best[2], best[3]


def least_error(values: Tensor, labels: Tensor) -> float:
    """Half the largest difference of values with one label: no function of the labels is nearer in the maximum, and one is as near."""
    size = int(labels.max()) + 1
    high = torch.full((size,), -torch.inf, dtype=torch.float64).scatter_reduce(0, labels, values, "amax")
    low = torch.full((size,), torch.inf, dtype=torch.float64).scatter_reduce(0, labels, values, "amin")
    return float((high - low).max()) / 2


def sup_error(network: nn.Module, functions: Tensor, values: Tensor) -> float:
    """The largest error of a network from functions, ``(B, d)``, to one value, as it computes in float64."""
    with torch.no_grad():
        found: Tensor = network(functions)[:, 0]
    return float((found - values).abs().max())


def fitted_layer(answers: Tensor, values: Tensor, units: int, seed: int = 0) -> nn.Sequential:
    """A network with one layer of ``units`` ReLUs in random directions, each bent at one of the points, whose last map makes the largest
    error smallest: a linear program.

    Args:
        answers: of the class's network, float64 ``(B, d)``.
        values: to reach, ``(B,)``.
        units: of the layer, at least 1.
        seed: of the directions and bends.

    Raises:
        UserError: no unit, or the program was not solved.
    """
    if units < 1:
        raise UserError(f"a layer has at least one of `units`, got {units}")
    source, scale = seeding.generator(seed, "layer"), answers.std(0)
    directions = torch.randn(units, answers.shape[1], dtype=torch.float64, generator=source) / torch.where(scale > 0, scale, torch.inf)
    bends = (answers[torch.randint(len(answers), (units,), generator=source)] * directions).sum(1)
    first = nn.Linear(answers.shape[1], units, dtype=torch.float64)
    with torch.no_grad():
        first.weight.copy_(directions)
        first.bias.copy_(-bends)
        hidden = first(answers).relu()
    weights, shift = nearest(hidden, values)
    return _network(first, weights, shift)


def bends_at_all(places: Tensor, values: Tensor) -> nn.Sequential:
    """A network from one number to one, with a ReLU bent at every place: at each it is in the middle of the values there.

    Args:
        places: of the points, float64 ``(B,)``.
        values: to reach, ``(B,)``.
    """
    bends, labels = places.unique(return_inverse=True)
    high = torch.full_like(bends, -torch.inf).scatter_reduce(0, labels, values, "amax")
    low = torch.full_like(bends, torch.inf).scatter_reduce(0, labels, values, "amin")
    heights = (high + low) / 2
    slopes = heights.diff() / bends.diff()
    first = nn.Linear(1, len(bends), dtype=torch.float64)
    with torch.no_grad():
        first.weight.fill_(1)
        first.bias.copy_(-bends)
    return _network(first, torch.cat([slopes, slopes.new_zeros(1)]).diff(prepend=slopes.new_zeros(1)), float(heights[0]))


def _network(first: nn.Linear, weights: Tensor, shift: float) -> nn.Sequential:
    last = nn.Linear(len(weights), 1, dtype=torch.float64)
    with torch.no_grad():
        last.weight.copy_(weights[None])
        last.bias.fill_(shift)
    return nn.Sequential(first, nn.ReLU(), last)


def nearest(columns: Tensor, values: Tensor) -> tuple[Tensor, float]:
    """The weights and the shift for which ``columns @ weights + shift`` is nearest to the values in the maximum (Chebyshev), from
    ``(B, m)`` and ``(B,)``; a linear program.

    Raises:
        UserError: it was not solved.
    """
    scale = columns.abs().amax(0)
    scaled = columns / torch.where(scale > 0, scale, torch.inf)
    one = torch.ones(len(values), 1, dtype=torch.float64)
    limits = torch.cat([torch.cat([scaled, one, -one], 1), torch.cat([-scaled, -one, -one], 1)])
    cost = [0.0] * (columns.shape[1] + 1) + [1.0]
    bounds = [(None, None)] * (columns.shape[1] + 1) + [(0, None)]
    right = torch.cat([values, -values]).numpy()
    solved = scipy_module("optimize").linprog(cost, A_ub=limits.numpy(), b_ub=right, bounds=bounds, method="highs")
    if solved.status != 0:
        raise UserError(f"the linear program of a fit was not solved: {solved.message}")
    found = torch.from_numpy(solved.x)
    return found[:-2] / torch.where(scale > 0, scale, torch.inf), float(found[-2])


# Tables


def _classes(config: Config, graphs: GraphBatch, found: dict[str, Values]) -> Table:
    rows = [(name, str(values["classes"]), CLASSES[name].name, str(values["bound classes"])) for name, values in found.items()]
    return Table(
        "How many graphs the functions of each class tell apart",
        f"All {len(graphs):,} graphs of up to {config.nodes} nodes; one network of each class with random weights, along one direction of "
        "its answers, in float64.",
        ("class", "told apart", "never more than", "told apart by it"),
        tuple(rows),
    )


def _of_target(graphs: GraphBatch, target: str, found: dict[str, Values]) -> Table:
    rows, columns = [], list(next(iter(found.values()))[target]["errors"])
    for name, values in found.items():
        one = values[target]
        rows.append((name, f"{one['least']:.4f}", f"{one['of network']:.4f}", *(_written(one["errors"][units]) for units in columns)))
    heads = [units if units == ALL else f"{units} unit{'s' * (units != '1')}" for units in columns]
    return Table(
        f"{target}: the largest error of a ReLU layer on a class's functions",
        f"{len(graphs):,} graphs, target scaled to the range from 0 to 1; the best possible error of any function of the class, by the "
        "method that bounds it; of any function of the network at hand; and what the fitted layer reaches with so many units.",
        ("class", "least, by the bound", "least, of this network", *heads),
        tuple(rows),
    )


def _written(error: float) -> str:
    return f"{error:.4f}" if error >= 5e-5 else f"{error:.0e}"


def _plot(graphs: GraphBatch, target: str, found: dict[str, Values]) -> LinePlot:
    lines = []
    for name, values in found.items():
        errors = {(values["classes"] if units == ALL else int(units)): error for units, error in values[target]["errors"].items()}
        lines.append(Line(name, sorted(errors), [max(errors[units], LOWEST) for units in sorted(errors)]))
    axes = Axes("units of the ReLU layer", "largest error", log_x=True, log_y=True)
    title = f"{target}: largest error on all {len(graphs):,} graphs; the last point has a unit for each that is told apart"
    return LinePlot(title, tuple(lines), axes)
