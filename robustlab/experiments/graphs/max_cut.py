"""Large cuts of random regular graphs: greedy, local search, the semidefinite relaxation, extremal optimization, and graph networks that
are trained without any cut to learn from (Yao, Bandeira and Villar 2019), as P against P* = .7632, over degree and size.

    found = reproduce("max-cut", out="runs/reproduce", seeds=10)
    print(found.tables[0])
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from robustlab import seeding
from robustlab.errors import UserError, unknown
from robustlab.experiments.cache import ExperimentCache, Measurement, Values
from robustlab.experiments.finding import Finding, LinePlot
from robustlab.experiments.graphs import mean_line, shown
from robustlab.gnn.cuts import CUTS, P_STAR, as_p_value, best_of, extremal_optimization, max_cut, one_opt, p_value
from robustlab.gnn.generators import random_regular
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.networks import SGNN
from robustlab.gnn.operators import Adjacency, GraphMean, Identity
from robustlab.gnn.readers import read_graph
from robustlab.gnn.sdp import cut_relaxation, solved
from robustlab.reports.plots import Axes
from robustlab.reports.tables import Table
from robustlab.training.graphs import GraphTraining
from robustlab.training.losses import Outcome, TrainingLoss

VERSION = 1  # of the measurements: another one measures again
FEATURES = 4  # random numbers at each node that a network begins with: without them all nodes of a regular graph are the same to it
TRIES = 20  # of those numbers, of which the best cut is kept
BOUND = "semidefinite bound"
LONG = "extremal optimization, ten times as long"
LOSSES = ("relaxed", "policy")
SIMPLE = ("greedy", "1-opt", "semidefinite", "semidefinite + 1-opt", "extremal optimization")  # what networks are compared with
Find = Callable[[GraphBatch], Tensor]


@dataclass(frozen=True)
class RegularGraphs:
    """Random regular graphs with random features, as a source to train on.

    Attributes:
        n, degree: nodes, and neighbours of each.
        seed: of all graphs.
    """

    n: int
    degree: int
    seed: int = 0

    def __call__(self, first: int, count: int) -> GraphBatch:
        """Graphs number ``first`` to ``first + count - 1``."""
        return with_noise(random_regular(self.n, self.degree, graphs=count, seed=self.seed, first=first))


def with_noise(graphs: GraphBatch, number: int = 0) -> GraphBatch:
    """Graphs with ``FEATURES`` normal numbers at each node; ``number`` gives others."""
    keys = torch.zeros(len(graphs), dtype=torch.int64) if graphs.keys is None else graphs.keys
    drawn = zip(seeding.fold(keys, "features", number), graphs.sizes.tolist(), strict=True)
    return replace(graphs, x=torch.cat([seeding.normal(key.reshape(1), (n, FEATURES))[0] for key, n in drawn]))


def relaxed_cut(model: nn.Module, batch: GraphBatch) -> Outcome:
    """The loss ``x^T A x / (n sqrt(d))`` for values ``x = tanh(network)``: what is cut, with sides between -1 and 1."""
    x = model(batch).tanh()
    value = batch.summed(x * Adjacency().apply(batch, x))[:, 0] / batch.sizes
    return Outcome(value / _root(batch), {"P": _share(batch, x)})


@dataclass(frozen=True)
class PolicyGradient:
    """The loss whose gradient is that of the expected cut, for sides drawn by the network's probabilities (REINFORCE: Williams 1992).

    Attributes:
        draws: of all sides; each is compared with the mean cut of the others.
    """

    draws: int = 8

    def __call__(self, model: nn.Module, batch: GraphBatch) -> Outcome:
        """The loss of each graph, and its P."""
        logits = model(batch)
        keys = torch.zeros(len(batch), dtype=torch.int64) if batch.keys is None else batch.keys
        sizes = zip(seeding.fold(keys.cpu(), "policy"), batch.sizes.tolist(), strict=True)
        uniform = torch.cat([seeding.uniform(key.reshape(1), (n, self.draws))[0] for key, n in sizes]).to(logits)
        sides = (uniform < logits.detach().sigmoid()).to(logits)
        signs = 2 * sides - 1
        cuts = -batch.summed(signs * Adjacency().apply(batch, signs)) / batch.sizes[:, None] / _root(batch)[:, None]
        better = cuts - (cuts.sum(1, keepdim=True) - cuts) / (self.draws - 1)
        likely = batch.summed(sides * logsigmoid(logits) + (1 - sides) * logsigmoid(-logits))
        return Outcome(-(better * likely).mean(1), {"P": _share(batch, logits)})


def _root(batch: GraphBatch) -> Tensor:
    return batch.mean(batch.degree.float()).clamp(min=1).sqrt()


def _share(batch: GraphBatch, values: Tensor) -> Tensor:
    return p_value(batch, (values.detach()[:, 0] > 0).long()).float()


@dataclass(frozen=True)
class Config:
    """Attributes:
    degrees: of the graphs with ``n`` nodes.
    sizes: of the graphs with ``degree`` neighbours.
    methods: names of ``CUTS`` and of ``LOSSES``; all if empty.
    seeds: graphs of each kind.
    depth, width, lr: of the networks, and of their training.
    graphs, training_n: what a network is trained on: how many graphs, and their nodes.
    """

    degrees: tuple[int, ...] = (3, 5, 10, 15, 20)
    n: int = 500
    sizes: tuple[int, ...] = (100, 500, 2000)
    degree: int = 3
    methods: tuple[str, ...] = ()
    seeds: int = 10
    depth: int = 30
    width: int = 16
    lr: float = 0.005
    graphs: int = 1600
    training_n: int = 200

    @property
    def kinds(self) -> list[tuple[int, int]]:
        """Nodes and degree of all graphs, each once."""
        return list(dict.fromkeys([(self.n, d) for d in self.degrees] + [(n, self.degree) for n in self.sizes]))


FULL = Config(sizes=(100, 500, 2000, 10_000), seeds=50, depth=30, graphs=20_000, training_n=500)
# P at n = 500, as recalled from the tables of Toenshoff et al. 2019 (RUN-CSP); not checked against the paper. Degrees 3, 5, 10, 15, 20.
RECALLED = {
    "relaxed": (0.707, 0.701, 0.670, 0.607, 0.614),
    "policy": (0.693, 0.668, 0.599, 0.629, 0.626),
    "semidefinite": (0.702, 0.690, 0.682, 0.678, 0.674),
    "extremal optimization": (0.727, 0.737, 0.735, 0.736, 0.732),
}
# Measured before this code was written, on 4 graphs each.
REFERENCE = {
    BOUND: (0.801, 0.854, 0.889, 0.895, 0.899),
    "semidefinite": (0.698, 0.679, 0.676, 0.675, 0.664),
    "semidefinite + 1-opt": (0.717, 0.713, 0.703, 0.719, 0.699),
    "extremal optimization": (0.723, 0.724, 0.728, 0.731, 0.725),
}


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Cut the graphs, or what is missing of it, and put P into tables.

    Raises:
        UserError: an unknown method, or a file of one's own that is no graph.
    """
    known = [*CUTS, LONG, BOUND, *LOSSES]
    for name in config.methods:
        if name not in known:
            raise unknown("method", name, known)
    graphs = cache.own_file(read_graph)
    if graphs is not None:
        return _own(cache, config, graphs)
    found = {kind: _measured(cache, config, *kind) for kind in config.kinds}
    tables = (
        _table(config, found, "degree", {degree: (config.n, degree) for degree in config.degrees}),
        _table(config, found, "n", {n: (n, config.degree) for n in config.sizes}),
    )
    told = [{"n": n, "degree": degree, "P": values} for (n, degree), values in found.items()]
    names = list(next(iter(found.values())))
    lines = {
        "max-cut-degree": _plot(f"n = {config.n}", names, {d: found[config.n, d] for d in config.degrees}, "degree"),
        "max-cut-n": _plot(f"degree {config.degree}", names, {n: found[n, config.degree] for n in config.sizes}, "n", log=True),
    }
    return Finding((*tables, *_verdict(found)), {"max-cut": told}, lines=lines)


def _measured(cache: ExperimentCache, config: Config, n: int, degree: int) -> dict[str, list[float]]:
    """P of every method on the graphs of one kind."""
    graphs = partial(random_regular, n, degree, graphs=config.seeds, seed=1)
    settings = {"n": n, "degree": degree, "graphs": config.seeds, "version": VERSION}
    found: dict[str, list[float]] = {}
    methods = [name for name in (*CUTS, LONG, BOUND) if not config.methods or name in config.methods]
    pieces = [Measurement(f"{name} n {n} d {degree}", {**settings, "method": name}, partial(_cut, graphs, name)) for name in methods]
    for name, values in zip(methods, cache.measured("max-cut", pieces), strict=True):
        found[name] = values["P"]
    for name in LOSSES:
        if not config.methods or name in config.methods:
            found |= _learned(cache, config, name, graphs, {**settings, **_training(config, degree)})
    return found


def _cut(graphs: Callable[[], GraphBatch], name: str) -> Values:
    here, began = graphs(), time.process_time()
    found = p_of(here, name)
    return {"P": found.tolist(), "seconds": round(time.process_time() - began, 2)}


def p_of(graphs: GraphBatch, name: str) -> Tensor:
    """P of each graph by a method that needs no training, or of the bound."""
    if name == BOUND:
        values = [solved(cut_relaxation(graphs.one(which))).bound() for which in range(len(graphs))]
        return as_p_value(graphs, graphs.summed(graphs.degree.double()) / 4 + torch.tensor(values) / 4)
    if name == LONG:
        return p_value(graphs, extremal_optimization(graphs, flips=600 * int(graphs.sizes.max())))
    return p_value(graphs, max_cut(graphs, name))


def _training(config: Config, degree: int) -> dict[str, object]:
    names = ("depth", "width", "lr", "graphs", "training_n")
    return {f"training {name}": getattr(config, name) for name in names} | {"training degree": degree}


def _learned(
    cache: ExperimentCache, config: Config, loss: str, graphs: Callable[[], GraphBatch], settings: Mapping[str, object]
) -> dict[str, list[float]]:
    """P of a network's cuts: of one try, the best of several, and the same after 1-opt."""

    def measure() -> Values:
        network = learned(cache, config, loss, int(str(settings["degree"])))
        here = graphs()
        began = time.process_time()
        tries = network_cuts(network, here)
        seconds = time.process_time() - began
        better = one_opt(here, tries)
        cuts = {
            "": tries[:, 0],
            ", best of 20": best_of(here, tries),
            " + 1-opt": better[:, 0],
            " + 1-opt, best of 20": best_of(here, better),
        }
        return {"P": {ending: p_value(here, labels).tolist() for ending, labels in cuts.items()}, "seconds": round(seconds, 2)}

    name = f"{loss} n {settings['n']} d {settings['degree']}"
    (values,) = cache.measured("max-cut", [Measurement(name, {**settings, "method": loss}, measure)])
    return {f"{loss}{ending}": found for ending, found in values["P"].items()}


def learned(cache: ExperimentCache, config: Config, loss: str, degree: int) -> nn.Module:
    """A network trained to cut regular graphs; trained now, unless it was before.

    Args:
        cache: where it is kept.
        config: how it is made and trained.
        loss: one of ``LOSSES``.
        degree: of the graphs.
    """
    network = SGNN(1, (Identity(), Adjacency(), GraphMean()), features=FEATURES, width=config.width, depth=config.depth)
    how = GraphTraining(graphs=config.graphs, epochs=4, batch_size=8, lr=config.lr, optimizer="adam", schedule="one-cycle")
    loss_of: dict[str, TrainingLoss] = {"relaxed": relaxed_cut, "policy": PolicyGradient()}
    found, _ = cache.trained_on_graphs(network, RegularGraphs(config.training_n, degree), loss_of[loss], how, f"max-cut {loss} d {degree}")
    return found


def network_cuts(network: nn.Module, graphs: GraphBatch, tries: int = TRIES) -> Tensor:
    """A network's labels for ``tries`` draws of random features: int64 ``(N, tries)``."""
    device = next(network.parameters()).device
    with torch.no_grad():
        found = [network(with_noise(graphs, number).to(device))[:, 0] > 0 for number in range(tries)]
    return torch.stack(found, 1).long().cpu()


def _table(
    config: Config, found: Mapping[tuple[int, int], Mapping[str, list[float]]], over: str, kinds: Mapping[int, tuple[int, int]]
) -> Table:
    names = list(next(iter(found.values())))
    rows: list[tuple[str, ...]] = [(name, "here", *(shown(found[kind][name]) for kind in kinds.values())) for name in names]
    if over == "degree" and config.n == 500 and config.degrees == (3, 5, 10, 15, 20):
        rows += [(name, "measured before, 4 graphs", *(f"{value:.3f}" for value in values)) for name, values in REFERENCE.items()]
        rows += [(name, "published, recalled", *(f"{value:.3f}" for value in values)) for name, values in RECALLED.items()]
    fixed = f"n = {config.n}" if over == "degree" else f"degree {config.degree}"
    return Table(
        f"Cuts of random regular graphs over {over}: P",
        f"{fixed}, {config.seeds} graphs each; P = (cut / n - d / 4) / sqrt(d / 4), mean with its 95 % interval. The largest cut has "
        f"P* = {P_STAR} for large n and degree; labels at random 0.",
        ("method", "source", *(f"{over} {value}" for value in kinds)),
        tuple(rows),
        (
            f"relaxed, policy: graph networks of {config.depth} layers, trained on {config.graphs:,} graphs of {config.training_n} nodes "
            "with the relaxed loss x^T A x, and by policy gradient; best of 20: draws of the random features at the nodes.",
        ),
    )


def _plot(where: str, names: list[str], found: Mapping[int, Mapping[str, list[float]]], over: str, log: bool = False) -> LinePlot:
    kept = [name for name in names if name != "random" and "best of" not in name]
    lines = tuple(mean_line(name, {at: values[name] for at, values in found.items()}) for name in kept)
    return LinePlot(f"Cuts of random regular graphs, {where}", lines, Axes(over, "P", log_x=log), {f"P* = {P_STAR}": P_STAR})


def _verdict(found: Mapping[tuple[int, int], Mapping[str, list[float]]]) -> list[Table]:
    """Each network against methods without learning, graph by graph; no table where one of both is missing."""
    measured = next(iter(found.values()))
    against = [name for name in SIMPLE if name in measured]
    rows = []
    for (n, degree), values in found.items():
        for learner in [name for name in values if name.startswith(LOSSES)]:
            cells = [shown([a - b for a, b in zip(values[learner], values[other], strict=True)]) for other in against]
            rows.append((str(n), str(degree), learner, *cells))
    table = Table(
        "Do graph networks lose to simple methods?",
        "P of the network less P of the other on the same graphs, with the 95 % interval of the mean; above 0 the network is better. "
        "The field's finding (MaxCut-Bench 2024), here the null hypothesis: simple methods are better.",
        ("n", "degree", "network", *(f"less {other}" for other in against)),
        tuple(rows),
    )
    return [table] if rows and against else []


def _own(cache: ExperimentCache, config: Config, graphs: GraphBatch) -> Finding:
    """Cuts of a user's own graphs, by the methods that need no training."""
    if not graphs.edge_index.shape[1]:
        raise UserError("a graph without edges has no cut")
    names = [name for name in (*CUTS, LONG, BOUND) if not config.methods or name in config.methods]
    pieces = [Measurement(f"{name} own", {"method": name, "version": VERSION}, partial(_cut, lambda: graphs, name)) for name in names]
    found = {name: values["P"] for name, values in zip(names, cache.measured("max-cut", pieces), strict=True)}
    degrees, n = graphs.summed(graphs.degree.double()) / graphs.sizes, graphs.sizes
    rows = []
    for name, values in found.items():
        sizes = (torch.tensor(values) * (degrees / 4).sqrt() + degrees / 4) * n
        rows.append(
            (
                name,
                ", ".join(f"{size:.1f}" if name == BOUND else str(round(size)) for size in sizes.tolist()),
                f"{statistics.mean(values):.3f}",
            )
        )
    title = f"Cuts of graphs of one's own: {len(graphs)}, {graphs.n:,} nodes and {graphs.edge_index.shape[1] // 2:,} edges in all"
    return Finding(
        (Table(title, "Edges that are cut, of each graph, and the mean P.", ("method", "edges cut", "P"), tuple(rows)),), {"own": found}
    )
