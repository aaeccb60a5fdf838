"""Classes of graphs, by networks with one answer for a graph, on a set of TUDataset or on circulants, where the answer is known.

    found = reproduce("graph-classification", "MUTAG", out="runs/reproduce")
    print(found.tables[0])

Papers in this field report the best epoch *on the folds that they test on* (Xu et al. 2019 say so). The same trainings give an honest
number beside it: in each fold the number of epochs is chosen within the part to train on, and only then is the fold looked at.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robustlab import seeding
from robustlab.errors import UserError, unknown
from robustlab.experiments.cache import ExperimentCache, Measurement, Values
from robustlab.experiments.finding import Finding, LinePlot
from robustlab.experiments.graphs import T_95, mean_line
from robustlab.gnn.graph_sets import read_tu
from robustlab.gnn.graphs import GraphBatch, graph, side_by_side
from robustlab.gnn.ign import IGN
from robustlab.gnn.networks import GraphNetwork, describe, dyadic
from robustlab.gnn.pooled import GIN, PooledSGNN
from robustlab.gnn.ring import RingGNN
from robustlab.gnn.sources import GivenGraphs, fingerprint
from robustlab.reports.plots import Axes
from robustlab.reports.tables import Table
from robustlab.training.graphs import GraphTraining, classes_of_graphs, train_graphs

VERSION = 2  # of the measurements: another one measures again
CIRCULANTS = 112  # graphs of the set where the answer is known
RIDGE = 0.1  # weight of the squared weights in the logistic regression, in graphs

# Mean and standard deviation over the 10 folds, in percent, of the best epoch on them.
PUBLISHED: dict[str, dict[str, str]] = {
    "MUTAG": {"GIN": "89.4 ± 5.6", "2-IGN": "84.6 ± 10", "Ring-GNN": "86.8 ± 6.4"},
    "PROTEINS": {"GIN": "76.2 ± 2.8", "2-IGN": "75.2 ± 4.3", "Ring-GNN": "75.7 ± 2.9"},
}
KNOWN = {"GIN": "50", "sGNN": "100", "2-IGN": "50", "Ring-GNN": "100"}  # on circulants: what the class of networks can reach


@dataclass(frozen=True)
class Learned:
    """A network, and how it is trained.

    Attributes:
        make: called with the number of classes, ``features`` and ``seed``.
        lr: of Adam, halved after each seventh of training, as GIN's and Ring-GNN's authors do.
        share: of the steps of an epoch that the others take; networks on tensors are slow.
    """

    make: Callable[..., GraphNetwork]
    lr: float
    share: float = 1.0

    def steps(self, most: int) -> int:
        """Of an epoch, where the others take ``most``."""
        return max(1, round(self.share * most))


NETWORKS: dict[str, Learned] = {
    "GIN": Learned(partial(GIN, width=32, depth=4), 0.01),
    "sGNN": Learned(partial(PooledSGNN, operators=dyadic(3), width=16, depth=4), 0.01),
    "2-IGN": Learned(partial(IGN, order=2, width=16, depth=2), 0.01, share=1 / 3),
    "Ring-GNN": Learned(partial(RingGNN, width=(16, 16)), 0.003, share=1 / 5),
}
BASELINES = ("majority class", "counts of labels")


@dataclass(frozen=True)
class Config:
    """Attributes:
    seeds: times that the set is split into folds anew.
    networks: names of ``NETWORKS``; all if empty.
    folds: each is tested on once.
    inner: folds of the rest, on which the number of epochs is chosen.
    epochs: at most so many.
    steps: of an epoch on the whole part to train on; where the inner folds leave a smaller one, so many fewer.
    batch_size: graphs of a step.
    """

    seeds: int = 1
    networks: tuple[str, ...] = ()
    folds: int = 10
    inner: int = 3
    epochs: int = 30
    steps: int = 15
    batch_size: int = 32


FULL = Config(seeds=10, epochs=350, steps=50)


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Train and judge what is missing, and put the accuracies into tables.

    Raises:
        UserError: an unknown network, or too few graphs or classes for the folds.
    """
    for name in config.networks:
        if name not in NETWORKS:
            raise unknown("network", name, NETWORKS)
    given = cache.own_file(partial(read_tu, attributes=False), fingerprint)
    graphs = circulants(CIRCULANTS) if given is None else given
    called = "circulants" if cache.own_place is None else cache.own_place.name
    _check(graphs, config)
    chosen = [name for name in NETWORKS if not config.networks or name in config.networks]
    measured = {name: _measured(cache, config, graphs, called, name) for name in chosen}
    judged = {name: judge(folds) for name, folds in measured.items()}
    plain = {name: _plain(config, graphs, name) for name in BASELINES}
    table = _table(config, graphs, called, plain, judged, measured)
    numbers = {name: {**asdict(found), "folds": measured[name]} for name, found in judged.items()}
    lines = {f"graph-classification-{called}": _plot(called, measured)}
    return Finding((table,), {"set": called, "networks": numbers, "baselines": plain}, lines=lines)


def circulants(count: int) -> GraphBatch:
    """Graphs of 9 to 15 nodes in a circle, each joined to its two neighbours and, in class 0, to the nodes two steps away, in class 1 three
    steps. Every node has four neighbours, and there are as many graphs of each size in both: neither 1-WL nor a network that it bounds can
    tell the classes apart. Walks of two steps can: they reach 9 nodes in class 0 (from 9 nodes on), and at most 7 in class 1."""
    made = []
    for i in range(count):
        n, step = 9 + i // 2 % 7, 2 + i % 2
        node = torch.arange(n).repeat(2)
        made.append(graph(torch.stack([node, (node + torch.tensor([1, step]).repeat_interleave(n)) % n]), n))
    return side_by_side(made).labelled(torch.arange(count) % 2)


def _check(graphs: GraphBatch, config: Config) -> None:
    assert graphs.y is not None
    if config.folds < 2 or config.inner < 2:
        raise UserError(f"`folds` and `inner` must be at least 2, got {config.folds} and {config.inner}")
    counts = graphs.y.bincount().tolist()
    if len(counts) < 2 or min(counts) < config.folds:
        raise UserError(f"{config.folds} folds need at least 2 classes with a graph for each fold, but the classes have {counts} graphs")


# Folds


def folds(y: Tensor, count: int, seed: int, *names: str | int) -> list[Tensor]:
    """The graphs of each of ``count`` folds, with nearly the same share of every class in each; a partition.

    Args:
        y: classes, int64 ``(B,)``.
        count: of folds.
        seed: of the split.
        names: what it is for.
    """
    dealt = []
    for label in y.unique().tolist():
        of_class = (y == label).nonzero()[:, 0]
        dealt.append(of_class[seeding.permutation(seed, len(of_class), "folds", *names, label)])
    in_turn = torch.cat(dealt)
    return [in_turn[first::count].sort().values for first in range(count)]


@dataclass(frozen=True, eq=False)
class Split:
    """What one fold is tested on and trained on.

    Attributes:
        test: numbers of the graphs to test on.
        train: all others.
        inner: parts of ``train``, on each of which the number of epochs is judged.
    """

    test: Tensor
    train: Tensor
    inner: tuple[Tensor, ...]

    @classmethod
    def of(cls, y: Tensor, config: Config, seed: int, fold: int) -> Split:
        """One of the folds."""
        test = folds(y, config.folds, seed)[fold]
        train = without(torch.arange(len(y)), test)
        return cls(test, train, tuple(train[part] for part in folds(y[train], config.inner, seed, "inner", fold)))


def without(some: Tensor, others: Tensor) -> Tensor:
    """The numbers of ``some`` that ``others`` lacks."""
    return some[~torch.isin(some, others)]


# Trainings


def _measured(cache: ExperimentCache, config: Config, graphs: GraphBatch, called: str, name: str) -> list[list[Values]]:
    """What each fold of each split gave: ``inner`` and ``test``, the accuracies after every epoch, and ``seconds``."""
    network = describe(NETWORKS[name].make(2, features=0))
    asked = {"version": VERSION, "network": network, "lr": NETWORKS[name].lr, "share": NETWORKS[name].share, "set": fingerprint(graphs)}
    how = {key: value for key, value in asdict(config).items() if key not in ("seeds", "networks")}
    measurements = [
        Measurement(
            f"{called} {name} split {seed} fold {fold}",
            {**asked, **how, "seed": seed, "fold": fold},
            partial(_fold, cache, config, graphs, NETWORKS[name], seed, fold),
        )
        for seed in range(config.seeds)
        for fold in range(config.folds)
    ]
    found = cache.measured("graph-classification", measurements)
    return [found[seed * config.folds : (seed + 1) * config.folds] for seed in range(config.seeds)]


def _fold(cache: ExperimentCache, config: Config, graphs: GraphBatch, learned: Learned, seed: int, fold: int) -> Values:
    assert graphs.y is not None
    split, began = Split.of(graphs.y, config, seed, fold), time.monotonic()
    steps = learned.steps(config.steps)
    train = partial(curve, cache, config, graphs, learned, seed=seed * config.folds + fold)
    inner = []
    for part in split.inner:
        rest = without(split.train, part)
        inner.append(train(rest, part, max(1, round(steps * len(rest) / len(split.train)))))
    test = train(split.train, split.test, steps)
    sizes = {"tested": len(split.test), "validated": [len(part) for part in split.inner]}
    return {"inner": inner, "test": test, **sizes, "seconds": time.monotonic() - began}


def curve(
    cache: ExperimentCache, config: Config, graphs: GraphBatch, learned: Learned, train: Tensor, judged: Tensor, steps: int, *, seed: int
) -> list[float]:
    """The accuracy on some graphs after every epoch of a training on others.

    Args:
        cache: where to compute, and when to stop.
        config: says how to train.
        graphs: all of them.
        learned: the network.
        train, judged: numbers of the graphs to train on and to judge on.
        steps: of an epoch.
        seed: of the first weights and the order of the graphs.
    """
    assert graphs.y is not None
    features = 0 if graphs.x is None else graphs.x.shape[1]
    network = learned.make(int(graphs.y.max()) + 1, features=features, seed=seed)
    unseen = graphs.some(judged).to(cache.device)

    def accuracy(model: nn.Module) -> dict[str, float]:
        return {"accuracy": float(classes_of_graphs(model, unseen).metrics["accuracy"].double().mean())}

    how = GraphTraining(
        graphs=config.epochs * steps * config.batch_size,
        epochs=config.epochs,
        batch_size=config.batch_size,
        lr=learned.lr,
        optimizer="adam",
        clip=5.0,
        schedule="halving",
        seed=seed,
    )
    source = GivenGraphs(graphs.some(train), seed)
    trained = train_graphs(network, source, classes_of_graphs, how, device=cache.device, stop=cache.stop, judge=accuracy)
    return [line["val/accuracy"] for line in trained.history]


# What the trainings are worth


@dataclass(frozen=True)
class Judged:
    """A network's accuracies, one list for each split.

    Attributes:
        nested: on each fold, after the number of epochs that was chosen without it.
        epochs: those numbers.
        papers: on each fold, after the epoch with the best mean over the folds themselves.
        best: that epoch, from 1, of each split.
        last: on each fold, after the last epoch, with nothing chosen.
    """

    nested: list[list[float]] = field(default_factory=list)
    epochs: list[list[int]] = field(default_factory=list)
    papers: list[list[float]] = field(default_factory=list)
    best: list[int] = field(default_factory=list)
    last: list[list[float]] = field(default_factory=list)


def judge(splits: Sequence[Sequence[Mapping[str, Any]]]) -> Judged:
    """Both ways to report the same trainings.

    Args:
        splits: for each split what each fold gave: ``inner``, accuracies ``(parts, epochs)``, with ``validated``, the graphs of each part,
            and ``test``, accuracies ``(epochs,)``.
    """
    found = Judged()
    for split in splits:
        epochs = [_first_best(_pooled(fold["inner"], fold["validated"])) for fold in split]
        best = _first_best([statistics.mean(values) for values in zip(*(fold["test"] for fold in split), strict=True)])
        found.nested.append([fold["test"][epoch] for fold, epoch in zip(split, epochs, strict=True)])
        found.epochs.append([epoch + 1 for epoch in epochs])
        found.papers.append([fold["test"][best] for fold in split])
        found.best.append(best + 1)
        found.last.append([fold["test"][-1] for fold in split])
    return found


def _pooled(curves: Sequence[Sequence[float]], sizes: Sequence[int]) -> list[float]:
    """The share of all inner graphs that is right after each epoch; a multiple of one graph, so that equal ones are equal."""
    counts = [[round(value * size) for value in values] for values, size in zip(curves, sizes, strict=True)]
    return [sum(values) / sum(sizes) for values in zip(*counts, strict=True)]


def _first_best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda epoch: (values[epoch], -epoch))


def _plain(config: Config, graphs: GraphBatch, name: str) -> list[list[float]]:
    """The accuracies of a baseline on each fold of each split."""
    assert graphs.y is not None
    judged = by_majority if name == "majority class" else by_counts
    splits = [[Split.of(graphs.y, config, seed, fold) for fold in range(config.folds)] for seed in range(config.seeds)]
    return [[judged(graphs, each.train, each.test) for each in split] for split in splits]


def by_majority(graphs: GraphBatch, train: Tensor, test: Tensor) -> float:
    """The accuracy on ``test`` of the most frequent class of ``train``."""
    assert graphs.y is not None
    return float((graphs.y[test] == graphs.y[train].bincount().argmax()).double().mean())


def by_counts(graphs: GraphBatch, train: Tensor, test: Tensor) -> float:
    """The accuracy on ``test`` of a logistic regression on each graph's numbers of nodes, of edges, and of nodes with each label, fitted to
    ``train``: what can be said without looking at how nodes are joined."""
    assert graphs.y is not None
    ones = torch.ones(graphs.n, 1, dtype=torch.float64)
    labels = [] if graphs.x is None else [graphs.x.double()]
    counts = graphs.summed(torch.cat([ones, graphs.degree.double()[:, None] / 2, *labels], 1))
    mean, spread = counts[train].mean(0), counts[train].std(0)
    x = (counts - mean) / torch.where(spread > 0, spread, 1.0)
    x = torch.cat([x, ones[: len(graphs)]], 1)
    y, classes = graphs.y, int(graphs.y.max()) + 1
    weights = torch.zeros(x.shape[1], classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(x[train] @ weights, y[train]) + RIDGE * weights.square().sum() / len(train)
        value.backward()
        return value

    optimizer.step(loss)
    return float(((x[test] @ weights.detach()).argmax(1) == y[test]).double().mean())


# Tables


def over_folds(splits: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """The mean over folds and splits, half of its 95 % interval, and the standard deviation over folds. The interval is that of one split:
    other splits have the same graphs, so they make the mean steadier, but do not stand for more graphs."""
    deviation = math.sqrt(statistics.mean(statistics.variance(values) for values in splits))
    count = len(splits[0])
    quantile = T_95[max(known for known in T_95 if known <= count - 1)]
    return statistics.mean(statistics.mean(values) for values in splits), quantile * deviation / math.sqrt(count), deviation


def _table(
    config: Config,
    graphs: GraphBatch,
    called: str,
    plain: Mapping[str, Sequence[Sequence[float]]],
    judged: Mapping[str, Judged],
    measured: Mapping[str, Sequence[Sequence[Values]]],
) -> Table:
    rows: list[tuple[str, ...]] = []
    for name, values in plain.items():
        mean, half, deviation = over_folds(values)
        rows.append((name, f"{100 * mean:.1f} ± {100 * half:.1f}", f"{100 * deviation:.1f}", "", "", "", "", ""))
    for name, found in judged.items():
        mean, half, deviation = over_folds(found.nested)
        last, best = over_folds(found.last)[0], over_folds(found.papers)
        numbers = sorted(number for split in found.epochs for number in split)
        seconds = statistics.mean(fold["seconds"] for split in measured[name] for fold in split) / (config.inner + 1)
        rows.append(
            (
                name,
                f"{100 * mean:.1f} ± {100 * half:.1f}",
                f"{100 * deviation:.1f}",
                f"{100 * last:.1f}",
                f"{100 * best[0]:.1f} ± {100 * best[2]:.1f}",
                KNOWN[name] if called == "circulants" else PUBLISHED.get(called, {}).get(name, ""),
                f"{numbers[0]} to {numbers[-1]}, median {statistics.median(numbers):g}",
                f"{seconds:.0f}",
            )
        )
    steps = ", ".join(f"{NETWORKS[name].steps(config.steps)} ({name})" for name in judged)
    best_title = "best epoch on the test folds ± s.d."
    known = "the most that the class of networks can reach" if called == "circulants" else "published, ± standard deviation"
    return Table(
        f"Classes of graphs: {called}",
        f"{len(graphs):,} graphs, accuracy in percent over {config.folds} folds of {_counted(config.seeds, 'split')}, with the 95 % "
        f"interval over the folds of one; the number of epochs, 1 to {config.epochs}, is chosen on {config.inner} folds of the rest.",
        ("method", "chosen inside", "s.d. over folds", "last epoch", best_title, known, "epochs chosen", "s"),
        tuple(rows),
        (
            f"An epoch has {steps} steps of {config.batch_size} graphs; published were up to 350 epochs of 50. Adam's learning rate is "
            "halved after each seventh of them. `s` is the mean time of a training here. Networks see the labels of nodes, no attributes.",
            "Counts of labels: a logistic regression on the numbers of nodes, of edges, and of nodes with each label.",
        ),
    )


def _counted(count: int, name: str) -> str:
    return f"{count} {name}{'s' * (count != 1)}"


def _plot(called: str, measured: Mapping[str, Sequence[Sequence[Values]]]) -> LinePlot:
    """The accuracy on the test folds over the epochs: what a choice of the epoch on them has to choose from."""
    lines = []
    for name, splits in measured.items():
        curves = zip(*(fold["test"] for split in splits for fold in split), strict=True)
        lines.append(mean_line(name, {float(epoch): values for epoch, values in enumerate(curves, 1)}, 0.0, 1.0))
    return LinePlot(f"Classes of graphs: {called}, accuracy on the test folds", tuple(lines), Axes("epoch", "accuracy", percent=True))
