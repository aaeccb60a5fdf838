"""A clique of size ``c sqrt(n)``, planted in a graph whose other edges are fair coins: by degrees, by the second eigenvector, and by a
graph network. Can it be learned where the spectral method works, and does a network go beyond?

    found = reproduce("hidden-structure", out="runs/reproduce", seeds=20)
    print(found.tables[0])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from robustlab import seeding
from robustlab.errors import UserError, unknown
from robustlab.experiments.cache import ExperimentCache, Measurement, Values
from robustlab.experiments.finding import Finding, LinePlot
from robustlab.experiments.graphs import mean_line, shown
from robustlab.gnn.cliques import by_degree, by_second_eigenvector, cleaned, highest, recovered
from robustlab.gnn.generators import planted_clique
from robustlab.gnn.graphs import GraphBatch, side_by_side
from robustlab.gnn.networks import SGNN
from robustlab.gnn.operators import Adjacency, Degree, GraphMean, Identity
from robustlab.reports.plots import Axes, Line
from robustlab.reports.tables import Table
from robustlab.training.graphs import GraphTraining
from robustlab.training.losses import Outcome

VERSION = 1  # of the measurements: another one measures again
LEARNED = "graph network"
SCORES: dict[str, Callable[[GraphBatch], Tensor]] = {"degrees": by_degree, "second eigenvector": by_second_eigenvector}


def clique_size(n: int, c: float) -> int:
    """``c sqrt(n)``, rounded."""
    return round(c * n**0.5)


@dataclass(frozen=True)
class PlantedCliques:
    """Graphs with a clique each, as a source to train on.

    Attributes:
        n: nodes.
        low, high: between which ``c`` is drawn.
        seed: of all graphs.
    """

    n: int
    low: float = 0.5
    high: float = 2.0
    seed: int = 0

    def __call__(self, first: int, count: int) -> GraphBatch:
        """Graphs number ``first`` to ``first + count - 1``."""
        keys = seeding.fold(seeding.example_keys(self.seed, torch.arange(first, first + count)), "size")
        drawn = (self.low + (self.high - self.low) * seeding.uniform(keys, ())).tolist()
        sizes = [clique_size(self.n, c) for c in drawn]
        return side_by_side([planted_clique(self.n, size, seed=self.seed, first=first + i) for i, size in enumerate(sizes)])


def members(model: nn.Module, batch: GraphBatch) -> Outcome:
    """The cross-entropy of being in the clique, in which both kinds of nodes weigh the same; ``found`` is the share of the clique that the
    highest values have."""
    assert batch.y is not None
    logits, inside = model(batch)[:, 0], (batch.y == 1)
    costs = binary_cross_entropy_with_logits(logits, inside.to(logits), reduction="none")
    shares = batch.summed(inside.to(logits)) / batch.sizes
    weights = torch.where(inside, 1 / shares.clamp(min=1e-6)[batch.graph], 1 / (1 - shares).clamp(min=1e-6)[batch.graph]) / 2
    found = torch.stack([_found(logits.detach()[batch.graph == one], inside[batch.graph == one]) for one in range(len(batch))])
    return Outcome(batch.mean(costs * weights), {"found": found})


def _found(values: Tensor, inside: Tensor) -> Tensor:
    return inside[values.topk(int(inside.sum())).indices].float().mean()


@dataclass(frozen=True)
class Config:
    """Attributes:
    n: nodes.
    cs: sizes of the clique over the root of ``n``.
    methods: names of ``SCORES``, or ``LEARNED``; all if empty.
    seeds: graphs of each size.
    depth, width, lr, graphs: of the network, and of its training.
    low, high: sizes over the root of ``n`` that it is trained on.
    """

    n: int = 400
    cs: tuple[float, ...] = (0.5, 0.6, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0, 3.0)
    methods: tuple[str, ...] = ()
    seeds: int = 20
    depth: int = 8
    width: int = 12
    lr: float = 0.004
    graphs: int = 2000
    low: float = 0.5
    high: float = 2.0


FULL = Config(n=2000, seeds=50, depth=15, width=16, graphs=20_000)


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Look for the cliques, or for those that are missing, and put what was found into tables.

    Raises:
        UserError: data, an unknown method, or a clique larger than the graph.
    """
    if cache.data is not None:
        raise UserError("the experiment 'hidden-structure' has graphs of its own: leave out `data`")
    names = [*SCORES, LEARNED]
    for name in config.methods:
        if name not in names:
            raise unknown("method", name, names)
    for c in config.cs:
        if not 2 <= clique_size(config.n, c) <= config.n:
            raise UserError(
                f"a clique of {c:g} times the root of {config.n} has {clique_size(config.n, c)} nodes: it must have 2 to {config.n}"
            )
    chosen = [name for name in names if not config.methods or name in config.methods]
    found = {name: _measured(cache, config, name) for name in chosen}
    told = {name: [{"c": c, **values} for c, values in each.items()] for name, each in found.items()}
    lines = {"hidden-structure": _plot(config, found)}
    return Finding((_table(config, found),), {"n": config.n, "found": told}, lines=lines)


def _measured(cache: ExperimentCache, config: Config, name: str) -> dict[float, Values]:
    settings = {"n": config.n, "graphs": config.seeds, "method": name, "version": VERSION}
    if name == LEARNED:
        settings |= {f"training {each}": getattr(config, each) for each in ("depth", "width", "lr", "graphs", "low", "high")}
    pieces = [Measurement(f"{name} c {c:g}", {**settings, "c": c}, partial(_look, cache, config, name, c)) for c in config.cs]
    return dict(zip(config.cs, cache.measured("hidden-structure", pieces), strict=True))


def _look(cache: ExperimentCache, config: Config, name: str, c: float) -> Values:
    size = clique_size(config.n, c)
    graphs = planted_clique(config.n, size, graphs=config.seeds, seed=1)
    values = SCORES[name](graphs) if name in SCORES else _learned(cache, config, graphs)
    first = highest(graphs, values, size)
    better = cleaned(graphs, first, size)
    return {"first": recovered(graphs, first).tolist(), "cleaned": recovered(graphs, better).tolist()}


def _learned(cache: ExperimentCache, config: Config, graphs: GraphBatch) -> Tensor:
    """A network's values; trained now, unless it was before."""
    operators = (Identity(), Degree(), Adjacency(), GraphMean())
    network = SGNN(1, operators, width=config.width, depth=config.depth)
    how = GraphTraining(graphs=config.graphs, epochs=4, batch_size=4, lr=config.lr, optimizer="adam", schedule="one-cycle")
    trained, _ = cache.trained_on_graphs(network, PlantedCliques(config.n, config.low, config.high), members, how, f"cliques n {config.n}")
    device = next(trained.parameters()).device
    alone = [graphs.one(which) for which in range(len(graphs))]
    with torch.no_grad():
        return torch.cat([trained(one.to(device))[:, 0].double().cpu() for one in alone])


def _table(config: Config, found: Mapping[str, Mapping[float, Values]]) -> Table:
    columns = [f"{name}{ending}" for name in found for ending in ("", ", cleaned up")]
    rows = []
    for c in config.cs:
        cells = [shown(found[name][c][kind]) for name in found for kind in ("first", "cleaned")]
        whole = [_whole(found[name][c]["cleaned"]) for name in found]
        rows.append((f"{c:g}", str(clique_size(config.n, c)), *cells, *whole))
    return Table(
        "A planted clique of c times the root of n",
        f"{config.seeds} graphs of {config.n} nodes for each size, other edges with probability 1/2; the share of the clique among as many "
        "nodes with the highest values, with its 95 % interval; cleaned up: nodes that know 3/4 of those (Alon, Krivelevich and Sudakov "
        "1998).",
        ("c", "nodes", *columns, *(f"{name}: found whole" for name in found)),
        tuple(rows),
        (
            f"The network has {config.depth} layers and was trained on {config.graphs:,} graphs with c from {config.low:g} to "
            f"{config.high:g}. Known: degrees need c of the order of the root of log n; the "
            "spectral method a constant, 1 in the limit; message passing 1 / sqrt(e) = .61 (Deshpande and Montanari 2015).",
        ),
    )


def _whole(shares: Sequence[float]) -> str:
    return f"{sum(share == 1 for share in shares)} of {len(shares)}"


def _plot(config: Config, found: Mapping[str, Mapping[float, Values]]) -> LinePlot:
    lines = [
        mean_line(f"{name}, cleaned up", {c: values["cleaned"] for c, values in each.items()}, 0.0, 1.0) for name, each in found.items()
    ]
    chance = Line("nodes at random", config.cs, [clique_size(config.n, c) / config.n for c in config.cs])
    title = f"A planted clique in {config.n} nodes, {config.seeds} graphs a point"
    return LinePlot(title, (*lines, chance), Axes("size of the clique over the root of n", "share of the clique that is found"))
