"""Matching two noisy copies of a graph: quadratic assignment without learning, and a siamese network, beside the published numbers; and any
problem of QAPLIB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.experiments.cache import ExperimentCache, Measurement, Values
from robustlab.experiments.finding import Finding, LinePlot
from robustlab.experiments.graphs import mean_line, shown
from robustlab.gnn.assignment import SOLVERS, accuracy, decoded, matching, solve, two_opt
from robustlab.gnn.generators import renumbered
from robustlab.gnn.graphs import GraphBatch, side_by_side
from robustlab.gnn.readers import Instance, read_qap
from robustlab.gnn.siamese import NoisyPairs, matching_cross_entropy, matching_network, similarities
from robustlab.reports.plots import Axes
from robustlab.reports.tables import Table
from robustlab.training.graphs import GraphTraining
from robustlab.training.losses import Outcome

VERSION = 2  # of the measurements: another one measures again
PAIRS, STARTS = 60, 10
TEST_SEED = 1  # of the pairs to test on; those to train on have another

# As they stand in the plots of Nowak et al. (2018), at noise 0, .005, .01, .015, .02, .025, .03, .04, .05.
NOISES = (0.0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05)
PUBLISHED: dict[str, dict[str, tuple[float, ...]]] = {
    "erdos-renyi": {
        "SDP, published": (1, 1, 1, 1, 1, 0.98, 1, 0.96, 0.94),
        "LowRankAlign, published": (1, 0.86, 0.84, 0.76, 0.66, 0.66, 0.50, 0.35, 0.30),
    },
    "regular": {
        "SDP, published": (0.08, 0.06, 0.04, 0.03, 0.02, 0.03, 0.05, 0.02, 0.03),
        "LowRankAlign, published": (1, 0.83, 0.65, 0.40, 0.42, 0.30, 0.34, 0.14, 0.14),
    },
}
METHODS: dict[str, dict[str, Any]] = {
    "spectral (Umeyama)": {"method": "spectral"},
    "GRAMPA": {"method": "grampa"},
    "FAQ, 1 start": {"method": "faq"},
    "FAQ, 5 starts": {"method": "faq", "starts": 5},
    "2-opt, 5 starts": {"method": "2-opt", "starts": 5},
}
IMPROVED = {name: f"{name} + 2-opt" for name in ("spectral (Umeyama)", "GRAMPA", "FAQ, 5 starts")}
UNLEARNED = (*METHODS, *IMPROVED.values())
LEARNED = ("GNN, row by row", "GNN, assignment", "GNN, assignment + 2-opt")


@dataclass(frozen=True)
class Config:
    """Attributes:
    seeds: pairs at each noise, ``PAIRS`` where left out; on a problem of one's own starts of the methods that draw, ``STARTS``.
    families: of graphs.
    noises: those to test at.
    n: nodes.
    steps: of training of each network, with ``batch_size`` pairs in each; 0 leaves the network out.
    """

    seeds: int | None = None
    families: tuple[str, ...] = ("erdos-renyi", "regular")
    noises: tuple[float, ...] = NOISES
    n: int = 50
    steps: int = 2800
    batch_size: int = 16
    depth: int = 12
    width: int = 20
    lr: float = 0.005

    @property
    def pairs(self) -> int:
        """Pairs at each noise."""
        return self.seeds or PAIRS


FULL = Config(seeds=200, steps=60_000, batch_size=32, depth=20)


def matching_loss(model: nn.Module, batch: GraphBatch) -> Outcome:
    """The loss of the siamese network, with the ``accuracy`` of its rows as a metric."""
    scores = similarities(model, batch)
    right = scores.detach().argmax(2) == torch.arange(scores.shape[1], device=scores.device)
    return Outcome(matching_cross_entropy(scores), {"accuracy": right.double().mean(1)})


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Measure what is missing, and put the numbers into tables; on a problem of QAPLIB where the cache has one."""
    instance = cache.own_file(read_qap)
    return _on_instance(cache, config, instance) if instance else _on_pairs(cache, config)


# Noisy copies


def _on_pairs(cache: ExperimentCache, config: Config) -> Finding:
    tables, plots, numbers = [], {}, {}
    for family in config.families:
        found = {noise: _at_noise(cache, config, family, noise) for noise in config.noises}
        seconds = {}
        if config.steps:
            for noise, values in _learned(cache, config, family).items():
                seconds["training"] = values.pop("seconds")
                found[noise] |= values
        tables.append(_table(config, family, found, seconds))
        plots[f"matching-{family}"] = _plot(family, found)
        numbers[family] = {str(noise): values for noise, values in found.items()} | seconds
    return Finding(tuple(tables), numbers, lines=plots)


def _source(config: Config, family: str, noise: float) -> NoisyPairs:
    degree = min(10, config.n - 1 - (config.n - 1) % 2)
    return NoisyPairs(family, config.n, degree=degree, noise=noise, seed=TEST_SEED)


def pairs_to_match(source: NoisyPairs, count: int) -> tuple[GraphBatch, GraphBatch, Tensor]:
    """Graphs, their noisy copies with the nodes in another order, and for each node of the first the one of the second that it is: int64
    ``(count, n)``."""
    both = source(0, count)
    halves = [side_by_side([both.one(k) for k in range(start, start + count)]) for start in (0, count)]
    copies, order = renumbered(halves[1])
    return halves[0], copies, order.reshape(count, source.n) - copies.starts[:-1, None]


def _at_noise(cache: ExperimentCache, config: Config, family: str, noise: float) -> Values:
    settings = {"version": VERSION, "family": family, "noise": noise, "n": config.n, "pairs": config.pairs}
    measure = partial(_methods, _source(config, family, noise), config.pairs)
    (found,) = cache.measured("matching", [Measurement(f"{family} {noise:g}", settings, measure)])
    return found


def _methods(source: NoisyPairs, count: int) -> Values:
    """The accuracies of every method without learning on each pair."""
    first, second, true = pairs_to_match(source, count)
    found: dict[str, list[float]] = {name: [] for name in UNLEARNED}
    for k in range(count):
        problem = matching(first.one(k), second.one(k))
        for name, how in METHODS.items():
            p = solve(problem, seed=k, **how)
            found[name].append(accuracy(p, true[k]))
            if name in IMPROVED:
                found[IMPROVED[name]].append(accuracy(two_opt(problem, p), true[k]))
    return dict(found)


def _learned(cache: ExperimentCache, config: Config, family: str) -> dict[float, Values]:
    """The accuracies of a network that was trained on one family of graphs, at each noise."""
    source = replace(_source(config, family, max(config.noises) or 0.05), mixed=True, seed=0)
    epochs = max(1, config.steps // 200)
    pairs = config.steps // epochs * epochs * config.batch_size
    training = GraphTraining(pairs, epochs, config.batch_size, config.lr, schedule="one-cycle")
    network, seconds = cache.trained_on_graphs(matching_network(config.depth, config.width), source, matching_loss, training, family)
    network = network.cpu()
    trained = {"network": network.settings | {"operators": None}, "pairs": pairs, "lr": config.lr}
    measurements = []
    for noise in config.noises:
        settings = {"version": VERSION, "family": family, "noise": noise, "n": config.n, "pairs": config.pairs, "trained": trained}
        measure = partial(_network, network, _source(config, family, noise), config.pairs)
        measurements.append(Measurement(f"{family} {noise:g} network", settings, measure))
    found = cache.measured("matching", measurements)
    return {noise: {**values, "seconds": seconds} for noise, values in zip(config.noises, found, strict=True)}


def _network(network: nn.Module, source: NoisyPairs, count: int) -> Values:
    """The accuracies of a network on each pair, decoded row by row, as an assignment, and that improved by 2-opt."""
    first, second, true = pairs_to_match(source, count)
    with torch.no_grad():
        scores = similarities(network, side_by_side([first, second]))
    found: dict[str, list[float]] = {name: [] for name in LEARNED}
    for k in range(count):
        assigned = decoded(scores[k])
        improved = two_opt(matching(first.one(k), second.one(k)), assigned)
        for name, p in zip(LEARNED, (scores[k].argmax(1), assigned, improved), strict=True):
            found[name].append(accuracy(p, true[k]))
    return dict(found)


def _table(config: Config, family: str, found: Mapping[float, Values], seconds: Mapping[str, float]) -> Table:
    kind = "Erdős-Rényi graphs of density 0.2" if family == "erdos-renyi" else "10-regular graphs"
    trained = [name for name in LEARNED if config.steps]
    rows: list[tuple[str, ...]] = [(name, *(shown(found[noise][name]) for noise in config.noises)) for name in (*UNLEARNED, *trained)]
    for name, values in PUBLISHED[family].items():
        known = dict(zip(NOISES, values, strict=True))
        rows.append((name, *(f"{known[noise]:g}" if noise in known else "" for noise in config.noises)))
    took = (
        [f"The network was trained for {config.steps} steps of {config.batch_size} pairs, in {seconds['training']:.0f} s here."]
        if trained
        else []
    )
    return Table(
        f"Matching two noisy copies: {family}",
        f"{kind}, n = {config.n} nodes, {config.pairs} pairs at each noise: the share of nodes that are matched rightly, with the 95 % "
        f"interval of its mean. Chance is {1 / config.n:g}. The nodes of every copy are renumbered, and lost edges are made up for, so "
        "that the density stays.",
        ("method", *(f"noise {noise:g}" for noise in config.noises)),
        tuple(rows),
        ("Published: Nowak, Villar, Bandeira and Bruna (2018), read off their plots' code; SDP by 5 pairs, LowRankAlign by 100.", *took),
    )


def _plot(family: str, found: Mapping[float, Values]) -> LinePlot:
    names = next(iter(found.values()))
    lines = [mean_line(name, {noise: values[name] for noise, values in found.items()}, 0, 1) for name in names]
    for name, values in PUBLISHED[family].items():
        known = {noise: [value] for noise, value in zip(NOISES, values, strict=True) if noise in found}
        lines += [mean_line(name, known)] if known else []
    return LinePlot(f"Matching two noisy copies: {family}", tuple(lines), Axes("noise", "nodes matched rightly", percent=True))


# QAPLIB


def _on_instance(cache: ExperimentCache, config: Config, instance: Instance) -> Finding:
    """Every method on a problem of one's own, with ``seeds`` starts where draws matter."""
    starts = config.seeds or STARTS
    settings = {"version": VERSION, "starts": starts}
    measurements = [
        Measurement(f"{instance.name} {method}", {**settings, "method": method}, partial(_solved, instance, method, starts))
        for method in SOLVERS
    ]
    found = cache.measured("matching", measurements)
    rows = []
    for method, values in zip(SOLVERS, found, strict=True):
        improved = [(f"{method} + 2-opt", "improved")] if method != "2-opt" else []
        for name, key in ((method, "value"), *improved):
            gap = "" if instance.value is None else _gap(values[key], instance.value)
            rows.append((name, f"{values[key]:,.10g}", gap))
    if instance.value is not None:
        rows.append(("best known", f"{instance.value:,.10g}", ""))
    table = Table(
        f"Quadratic assignment: {instance.name}",
        f"n = {instance.problem.n}, {starts} starts where draws matter; smaller is better.",
        ("method", "value", "above the best known"),
        tuple(rows),
    )
    numbers = {method: values for method, values in zip(SOLVERS, found, strict=True)}
    return Finding((table,), {"instance": instance.name, "best": instance.value, "methods": numbers})


def _gap(value: float, best: float) -> str:
    return f"{100 * (value / best - 1):.1f} %" if best else f"{value - best:g}"


def _solved(instance: Instance, method: str, starts: int) -> Values:
    found = solve(instance.problem, method, starts=starts)
    improved = two_opt(instance.problem, found)
    told = {"value": instance.problem.value(found), "improved": instance.problem.value(improved)}
    return {**told, "permutation": improved.tolist()}
