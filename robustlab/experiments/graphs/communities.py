"""Communities of random graphs by every method on one axis, with the threshold and the level of chance; three sentences of the talk beside
what is measured; the 5-community task; the karate club, or a graph of one's own.

    found = reproduce("communities", out="runs/reproduce", seeds=10)
    print(found.tables[0])

The networks of ``NETWORKS`` are trained for it, and kept.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from robustlab.errors import UserError, unknown
from robustlab.experiments.cache import ExperimentCache, Measurement, Values
from robustlab.experiments.finding import Finding, LinePlot
from robustlab.experiments.graphs import mean_line, shown
from robustlab.extras import networkx
from robustlab.gnn.communities import METHODS, communities, one_by_one
from robustlab.gnn.generators import signal_to_noise, stochastic_block_model
from robustlab.gnn.graphs import GraphBatch, as_graphs
from robustlab.gnn.networks import LGNN, SGNN, GraphNetwork
from robustlab.gnn.operators import BetheHessian, Laplacian
from robustlab.gnn.overlap import chance, overlap
from robustlab.gnn.propagation import Blocks, belief_propagation
from robustlab.gnn.readers import read_graph
from robustlab.gnn.sources import BlockModels, Mixture
from robustlab.gnn.spectral import eigenvectors, estimated_k, labelled
from robustlab.reports.plots import Axes, Line
from robustlab.reports.tables import Table
from robustlab.training.graphs import GraphTraining
from robustlab.training.graphs import asked as as_asked
from robustlab.training.graphs import communities as loss_on_communities

VERSION = 1  # of the measurements: another one measures again
VERSIONS = {"belief propagation": 2, "semidefinite": 2}  # of methods that have changed since
PARTS = ("ratios", "five", "laplacians", "second-eigenvector", "own")
Find = Callable[[GraphBatch], Tensor]


@dataclass(frozen=True)
class Task:
    """Graphs to find communities in.

    Attributes:
        n, k: nodes and communities.
        a, b: ``n`` times the probability of an edge inside a community and between two.
        graphs: how many.
    """

    n: int
    k: int
    a: float
    b: float
    graphs: int

    @property
    def assortative(self) -> bool:
        """Whether communities like each other."""
        return self.a > self.b

    @property
    def ratio(self) -> float:
        """The signal-to-noise ratio."""
        return signal_to_noise(self.a, self.b, self.k)

    @property
    def blocks(self) -> Blocks:
        """The model that the graphs are drawn from."""
        return Blocks.planted(self.k, self.a, self.b)

    def drawn(self) -> GraphBatch:
        """The graphs, with their true labels."""
        return stochastic_block_model(self.n, self.k, inside=self.a / self.n, between=self.b / self.n, graphs=self.graphs, seed=1)


@dataclass(frozen=True)
class Learned:
    """A graph network that is trained on graphs like those of a task, and the settings of its training.

    Attributes:
        made: from the number of communities to a network to begin with.
        graphs: to train on, for two communities and for five; 0 trains none.
        after: another of ``NETWORKS``, as which this one begins when it has been trained, to learn the task's own two probabilities alone;
            for ratios within ``HARD``.
    """

    made: Callable[[int], GraphNetwork]
    graphs: tuple[int, int]
    after: str = ""

    def asked(self, task: Task) -> tuple[GraphNetwork, Mixture | BlockModels, GraphTraining] | None:
        """What to train, on what and how: on two communities of every ratio above 1 and both kinds at once, or on the task's own model."""
        count = self.graphs[task.k > 2]
        if not count or task.k not in (2, 5) or (self.after and not HARD[0] < task.ratio < HARD[1]):
            return None
        own = BlockModels(task.n, task.k, task.a / task.n, task.b / task.n)
        source = Mixture(task.n, (task.a + task.b) / 2) if task.k == 2 and not self.after else own
        training = GraphTraining(count, 10, 4)
        return self.made(task.k), source, replace(training, lr=0.01, schedule="one-cycle") if self.after else training

    def settings(self, task: Task) -> Values:
        """All that the trained weights depend on; nothing where there is no network for the task."""
        asked = self.asked(task)
        if not asked:
            return {}
        begun = {"after": NETWORKS[self.after].settings(task)} if self.after else {}
        return {"trained": as_asked(asked[0], asked[1], loss_on_communities, asked[2]), **begun}

    def trained(self, cache: ExperimentCache, task: Task, name: str) -> GraphNetwork:
        """The trained network."""
        asked = self.asked(task)
        assert asked
        network, source, training = asked
        told = f"{name} {task.k} communities"
        if self.after:
            network, told = NETWORKS[self.after].trained(cache, task, self.after), f"{told} a {task.a:g} b {task.b:g}"
        begun = self.settings(task).get("after")
        trained, _ = cache.trained_on_graphs(network, source, loss_on_communities, training, told, begun=begun)
        return trained.cpu()

    def find(self, cache: ExperimentCache, task: Task, name: str) -> Find:
        """The trained network as a function from graphs to labels."""
        trained = self.trained(cache, task, name)
        return lambda graphs: one_by_one(lambda graph: trained(graph).detach().argmax(1), graphs)


HARD = (1.0, 2.0)  # ratios, between which a network that learned all at once falls behind
NETWORKS: dict[str, Learned] = {
    "sGNN": Learned(lambda k: SGNN(k, depth=30 if k == 2 else 15), (4000, 3000)),
    "sGNN, one ratio": Learned(lambda k: SGNN(k, depth=30), (4000, 0), "sGNN"),
    "LGNN": Learned(lambda k: LGNN(k, depth=15), (1600, 2400)),
    "linear LGNN": Learned(lambda k: LGNN(k, depth=15, linear=True), (0, 1600)),
}


@dataclass(frozen=True)
class Config:
    """Attributes:
    parts: which tables to make, of ``PARTS``.
    methods: names of ``METHODS`` and ``NETWORKS``; all if empty.
    n, degree: nodes, and neighbours of a node on average, of the graphs with two communities.
    differences: between ``a`` and ``b``, for each point of the plot.
    seeds: graphs of each point.
    five: graphs of the 5-community task for each of ``seeds``.
    networks: train the networks of ``NETWORKS``, on as many graphs as they say.
    """

    parts: tuple[str, ...] = PARTS
    methods: tuple[str, ...] = ()
    n: int = 1000
    degree: float = 3.0
    differences: tuple[float, ...] = (6.0, 5.5, 5.0, 4.5, 4.0, 3.5, 3.0)
    seeds: int = 10
    five: int = 4
    networks: bool = True

    def task(self, difference: float) -> Task:
        """Two communities with that difference between ``a`` and ``b``."""
        return Task(self.n, 2, self.degree + difference / 2, self.degree - difference / 2, self.seeds)

    @property
    def tasks(self) -> list[Task]:
        """All points of the plot: assortative ones first."""
        return [self.task(sign * difference) for sign in (1, -1) for difference in self.differences]


FULL = Config(n=10_000, seeds=20, five=10)
GIVEN = "belief propagation, model given"
# Overlap on 10 graphs of 1,000 nodes at mean degree 3, measured before this code was written; each row from a - b = 6 down to 3.
REFERENCE: dict[tuple[bool, str], tuple[float, ...]] = {
    (True, "adjacency"): (0.44, 0.70, 0.57, 0.45, 0.19, 0.13, 0.07),
    (True, "laplacian"): (0.74, 0.89, 0.27, 0.15, 0.05, 0.04, 0.04),
    (True, "regularized laplacian"): (math.nan, 0.855, 0.761, 0.631, 0.378, math.nan, math.nan),
    (True, "bethe hessian"): (math.nan, 0.859, 0.771, 0.631, 0.388, 0.27, 0.08),
    (True, "bethe hessian at zeta"): (math.nan, 0.883, 0.784, 0.641, 0.397, math.nan, math.nan),
    (True, "non-backtracking"): (math.nan, 0.85, 0.74, 0.62, 0.32, 0.22, 0.06),
    (True, GIVEN): (0.95, 0.89, 0.80, 0.70, 0.39, 0.16, 0.07),
    (False, "adjacency"): (0.94, 0.86, 0.71, 0.47, 0.32, 0.15, 0.07),
    (False, "bethe hessian"): (0.93, 0.89, 0.77, 0.63, 0.41, 0.20, 0.09),
    (False, GIVEN): (0.93, 0.89, 0.80, 0.64, 0.42, 0.16, 0.07),
}
# Chen, Li and Bruna 2019, table 1: overlap on the 5-community task with its error.
PUBLISHED_FIVE = {
    "GNN": ".17 ± .012",
    "LGNN": ".207 ± .015",
    "linear LGNN": ".165 ± .015",
    "GAT": ".164 ± .047",
    "belief propagation": ".1435 ± .02",
}


def finders(cache: ExperimentCache, config: Config, task: Task) -> dict[str, Find]:
    """Every method of a configuration as a function from graphs to labels.

    Raises:
        UserError: an unknown method.
    """
    known: dict[str, Find] = {
        name: partial(lambda graphs, name: communities(graphs, task.k, name, assortative=task.assortative), name=name) for name in METHODS
    }
    known[GIVEN] = lambda graphs: belief_propagation(graphs, task.blocks).labels
    known |= {
        name: learned.find(cache, task, name)
        for name, learned in NETWORKS.items()
        if config.networks and _wanted(config, name) and learned.asked(task)
    }
    for name in config.methods:
        if name not in {*known, *NETWORKS}:
            raise unknown("method", name, {*known, *NETWORKS})
    return {name: find for name, find in known.items() if _wanted(config, name)}


def _wanted(config: Config, name: str) -> bool:
    return not config.methods or name in config.methods


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Find the communities, or what is missing of it, and put the overlaps into tables.

    Raises:
        UserError: an unknown part or method, or a file of one's own that is no graph.
    """
    for part in config.parts:
        if part not in PARTS:
            raise unknown("part", part, PARTS)
    graphs = cache.own_file(read_graph)
    if graphs is not None:
        return _own(cache, config, graphs)
    made = {"ratios": _ratios, "five": _five, "laplacians": _laplacians, "second-eigenvector": _second, "own": _own}
    found = [made[part](cache, config) for part in config.parts]
    numbers = {name: value for each in found for name, value in each.numbers.items()}
    lines = {name: plot for each in found for name, plot in each.lines.items()}
    return Finding(tuple(table for each in found for table in each.tables), numbers, lines=lines)


def measured(cache: ExperimentCache, task: Task, found: Mapping[str, Find]) -> dict[str, list[float]]:
    """The overlaps of every method on a task's graphs."""
    where = f"k {task.k} a {task.a:g} b {task.b:g}"
    measurements = [
        Measurement(f"{name} {where}", {**vars(task), **_method(name, task)}, partial(_overlaps, task, find))
        for name, find in found.items()
    ]
    return {name: values["overlaps"] for name, values in zip(found, cache.measured("communities", measurements), strict=True)}


def _method(name: str, task: Task) -> Values:
    """What tells a measurement of a method from others: of a network also how it was trained."""
    learned = NETWORKS[name].settings(task) if name in NETWORKS else {}
    return {"version": VERSIONS.get(name, VERSION), "method": name, **learned}


def _overlaps(task: Task, find: Find) -> Values:
    graphs, began = task.drawn(), time.process_time()
    found = find(graphs)
    return {"seconds": round(time.process_time() - began, 2), "overlaps": overlap(graphs, found, task.k).tolist()}


# Two communities over the signal-to-noise ratio


def _ratios(cache: ExperimentCache, config: Config) -> Finding:
    runs = {task: measured(cache, task, finders(cache, config, task)) for task in config.tasks}
    names = list(dict.fromkeys(name for each in runs.values() for name in each))
    level = chance(config.tasks[0].drawn(), 2)
    about = f"{config.seeds} graphs of {config.n:,} nodes with mean degree {config.degree:g} for each row"
    rows = [(_kind(task), f"{task.ratio:.2f}", *(shown(runs[task].get(name, ())) for name in names)) for task in config.tasks]
    trained = "A network is trained on all ratios above 1 and both kinds at once; *one ratio*: then on the row's two probabilities alone."
    table = Table(
        "Two communities: overlap over the signal-to-noise ratio",
        f"{about}; mean with its 95 % interval. Above a ratio of 1 communities can be found. Labels at random have {level:.3f}.",
        ("communities", "ratio", *names),
        tuple(rows),
        (
            f"{GIVEN}: it is told both probabilities; the other methods are told only whether communities like or avoid each other.",
            *([trained] if set(names) & set(NETWORKS) else []),
        ),
    )
    told = [{**vars(task), "ratio": task.ratio, "overlaps": runs[task]} for task in config.tasks]
    plots = {f"communities-{_kind(task)}": _plot(config, runs, task.assortative, level) for task in (config.tasks[0], config.tasks[-1])}
    tables = (table, *_against_reference(config, runs))
    return Finding(tables, {"ratios": told, "chance of two": level}, lines=plots)


def _kind(task: Task) -> str:
    return "assortative" if task.assortative else "dissociative"


def _plot(config: Config, runs: Mapping[Task, Mapping[str, Sequence[float]]], assortative: bool, level: float) -> LinePlot:
    here = {task: found for task, found in runs.items() if task.assortative == assortative}
    names = list(dict.fromkeys(name for found in here.values() for name in found))
    lines = [mean_line(name, {task.ratio: found[name] for task, found in here.items() if name in found}, 0.0, 1.0) for name in names]
    kind = "like" if assortative else "avoid"
    title = f"Two communities that {kind} each other, {config.n:,} nodes, mean degree {config.degree:g}, {config.seeds} graphs a point"
    lines.append(Line("threshold", (1.0, 1.0), (0.0, 1.0)))
    return LinePlot(title, tuple(lines), Axes("signal-to-noise ratio", "overlap"), {"labels at random": level})


def _against_reference(config: Config, runs: Mapping[Task, Mapping[str, Sequence[float]]]) -> tuple[Table, ...]:
    """Differences in joint standard errors, where the graphs are those of the reference."""
    if (config.n, config.degree) != (1000, 3.0) or config.seeds < 2:
        return ()
    rows = []
    for (assortative, name), expected in REFERENCE.items():
        cells = []
        for difference, value in zip((6.0, 5.5, 5.0, 4.5, 4.0, 3.5, 3.0), expected, strict=True):
            found = runs.get(config.task(difference if assortative else -difference), {}).get(name)
            cells.append("" if found is None or math.isnan(value) else _differs(found, value))
        if any(cells):
            far = sum(abs(float(cell.split(" ")[0])) > 2 for cell in cells if cell)
            rows.append(
                (
                    "assortative" if assortative else "dissociative",
                    name,
                    *cells,
                    f"{sum(map(bool, cells)) - far} of {sum(map(bool, cells))}",
                )
            )
    ratios = [f"{config.task(d).ratio:.2f}" for d in (6.0, 5.5, 5.0, 4.5, 4.0, 3.5, 3.0)]
    table = Table(
        "Difference from the reference, in joint standard errors",
        "In brackets the reference's overlap, of 10 graphs of its own, whose standard error is taken to be that of 10 graphs here.",
        ("communities", "method", *ratios, "within 2"),
        tuple(rows),
    )
    return (table,) if rows else ()


def _differs(found: Sequence[float], value: float) -> str:
    deviation = statistics.stdev(found)
    joint = deviation * math.sqrt(1 / len(found) + 1 / 10)
    return f"{(statistics.mean(found) - value) / max(joint, 0.005):+.1f} ({value:.2f})"  # references have two digits


# The 5-community task


def _five(cache: ExperimentCache, config: Config) -> Finding:
    task = Task(400, 5, 0.0, 18.0, config.five * config.seeds)
    found = finders(cache, config, task)
    if GIVEN in found:
        found["belief propagation, model given, one start"] = lambda graphs: belief_propagation(graphs, task.blocks, restarts=1).labels
    runs, level = measured(cache, task, found), chance(task.drawn(), 5)
    best = sorted(runs.items(), key=lambda item: -statistics.mean(item[1]))
    rows = [(name, shown(values), f"{statistics.stdev(values) if len(values) > 1 else 0:.3f}", "here") for name, values in best]
    rows += [(name, value, "", "Chen, Li and Bruna 2019") for name, value in PUBLISHED_FIVE.items()]
    table = Table(
        "Five communities that avoid each other",
        f"{task.graphs} graphs of 400 nodes, no edge inside, 18/n between, signal-to-noise ratio {task.ratio:.2f}; mean with its 95 % "
        f"interval. Labels at random have {level:.3f}.",
        ("method", "overlap", "standard deviation of graphs", "source"),
        tuple(rows),
        (
            "Belief propagation with the model finds nearly all or nearly nothing of a graph: the mean says little about one graph.",
            "belief propagation: with a model that it learns.",
        ),
    )
    return Finding((table,), {"five": runs, "chance of five": level})


# "The Laplacian is not useful", and the second eigenvector


def _laplacians(cache: ExperimentCache, config: Config) -> Finding:
    def of(operator: Callable[[GraphBatch], Laplacian]) -> Find:
        return partial(one_by_one, lambda graph: labelled(eigenvectors(operator(graph).sparse(graph), 2).vectors, 2))

    kinds: dict[str, Find] = {
        "laplacian, not normalized": of(lambda graph: Laplacian()),
        "laplacian": lambda graphs: communities(graphs, 2, "laplacian"),
        "laplacian, tau = mean degree / 4": of(lambda graph: Laplacian(normalized=True, tau=graph.mean_degree / 4)),
        "regularized laplacian": lambda graphs: communities(graphs, 2, "regularized laplacian"),
        "laplacian, tau = 4 mean degrees": of(lambda graph: Laplacian(normalized=True, tau=4 * graph.mean_degree)),
        "bethe hessian": lambda graphs: communities(graphs, 2, "bethe hessian"),
    }
    tasks = [task for task in config.tasks if task.assortative]
    runs = {task: measured(cache, task, kinds) for task in tasks}
    table = Table(
        '"The Laplacian is not useful": for the plain one only',
        f"{config.seeds} graphs for each column, two communities that like each other; overlap with its 95 % interval.",
        ("operator", *(f"ratio {task.ratio:.2f}" for task in tasks)),
        tuple((name, *(shown(runs[task][name]) for task in tasks)) for name in kinds),
        ("normalized but for the first; regularized: D + tau I in place of D, with tau the mean degree.",),
    )
    return Finding((table,), {"laplacians": [{**vars(task), "overlaps": runs[task]} for task in tasks]})


def _second(cache: ExperimentCache, config: Config) -> Finding:
    def second(r: Callable[[GraphBatch], float], which: int) -> Find:
        return partial(one_by_one, lambda graph: _by_sign(graph, r(graph), which))

    def of(sign: float) -> dict[str, Find]:
        return {
            "r = +root of the mean degree, second eigenvector": second(lambda graph: graph.mean_degree**0.5, 1),
            "r = -root of the mean degree, first eigenvector": second(lambda graph: -(graph.mean_degree**0.5), 0),
            "networkx's r, second or first eigenvector": second(lambda graph: sign * without_root(graph), 1 if sign > 0 else 0),
            "bethe hessian, k-means on all its eigenvectors": lambda graphs: communities(graphs, 2, assortative=sign > 0),
        }

    runs = {task: measured(cache, task, of(1 if task.assortative else -1)) for task in config.tasks}
    names = list(next(iter(runs.values())))
    table = Table(
        '"The second eigenvector of the Bethe Hessian": of which sign of r, and when',
        f"{config.seeds} graphs for each row; overlap with its 95 % interval; labels are signs of one eigenvector but in the last column.",
        ("communities", "ratio", *names),
        tuple((_kind(task), f"{task.ratio:.2f}", *(shown(found[name]) for name in names)) for task, found in runs.items()),
        (
            "At the largest ratio, without an edge between communities that like each other, the graph has two large pieces, each with an "
            "eigenvector of its own: the sign of the second tells one of them from nothing.",
            "networkx's default r is <d^2>/<d> - 1, without the root.",
        ),
    )
    return Finding((table,), {"second eigenvector": [{**vars(task), "overlaps": found} for task, found in runs.items()]})


def _by_sign(graph: GraphBatch, r: float, which: int) -> Tensor:
    """The signs of one eigenvector of the Bethe Hessian as labels."""
    return (eigenvectors(BetheHessian(r).sparse(graph), which + 1).vectors[:, which] > 0).long()


def without_root(graph: GraphBatch) -> float:
    """networkx's default ``r`` of its Bethe Hessian: the mean squared degree over the mean degree, less 1."""
    degree = graph.degree.double()
    return float((degree**2).mean() / degree.mean()) - 1


# The karate club, or a graph of one's own


def _own(cache: ExperimentCache, config: Config, graphs: GraphBatch | None = None) -> Finding:
    name = "a graph of one's own" if graphs is not None else "Zachary's karate club"
    one = karate() if graphs is None else graphs
    if len(one) != 1:
        raise UserError(f"communities of one's own are of one graph, but the file has {len(one)}")
    estimate, likes = estimated_k(one, min(20, one.n))
    k = estimate if one.y is None else max(int(one.y.max()) + 1, 2)
    chosen = [method for method in METHODS if _wanted(config, method)]
    settings = {"graph": name, "k": k, "assortative": likes}
    measurements = [
        Measurement(
            f"{method} own",
            {**settings, "version": VERSIONS.get(method, VERSION), "method": method},
            partial(_labels, one, k, likes, method),
        )
        for method in chosen
    ]
    found = dict(zip(chosen, cache.measured("communities", measurements), strict=True))
    labels = {method: torch.tensor(values["labels"]) for method, values in found.items()}
    level = None if one.y is None else chance(one, k, draws=200)
    rows = [(method, _sizes(each, k), *_scored(one, each, k)) for method, each in labels.items()]
    says = "like" if likes else "avoid"
    table = Table(
        f"Communities of {name}",
        f"{one.n:,} nodes, {one.edge_index.shape[1] // 2:,} edges. The Bethe Hessian counts {estimate} communities that {says} each other; "
        f"{k} are looked for." + ("" if level is None else f" Labels at random have an overlap of {level:.3f}."),
        ("method", "nodes in each", *(() if one.y is None else ("overlap with the true labels", "wrong nodes"))),
        tuple(rows),
    )
    told = {method: values["labels"] for method, values in found.items()}
    return Finding((table,), {"own": {"k": k, "estimated k": estimate, "assortative": likes, "chance": level, "labels": told}})


def karate() -> GraphBatch:
    """Zachary's karate club (1977), with the two clubs after it fell apart as labels."""
    found = networkx().karate_club_graph()
    return as_graphs(found).labelled(torch.tensor([int(found.nodes[node]["club"] == "Officer") for node in found.nodes]))


def _labels(graph: GraphBatch, k: int, likes: bool, method: str) -> Values:
    return {"labels": communities(graph, k, method, assortative=likes).tolist()}


def _sizes(labels: Tensor, k: int) -> str:
    return ", ".join(map(str, sorted(torch.bincount(labels, minlength=k).tolist(), reverse=True)))


def _scored(graph: GraphBatch, labels: Tensor, k: int) -> tuple[str, ...]:
    if graph.y is None:
        return ()
    share = float(overlap(graph, labels, k))
    return f"{share:.3f}", str(round((1 - share) * (1 - 1 / k) * graph.n))
