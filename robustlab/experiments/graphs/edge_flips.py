"""Communities of graphs whose edges are flipped: how far a few flips against a network take it, how far they take other methods, and what
training against them is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from robustlab.experiments.cache import ExperimentCache, Measurement, Values
from robustlab.experiments.finding import Finding, LinePlot
from robustlab.experiments.graphs import mean_line, shown
from robustlab.gnn.communities import communities as without_training
from robustlab.gnn.flips import guided_flips, random_flips
from robustlab.gnn.generators import signal_to_noise
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.networks import SGNN, GraphNetwork
from robustlab.gnn.overlap import chance, overlap
from robustlab.gnn.propagation import Blocks, by_propagation
from robustlab.gnn.sources import BlockModels
from robustlab.reports.plots import Axes
from robustlab.reports.tables import Table
from robustlab.training.graphs import CommunitiesUnderFlips, GraphTraining, communities
from robustlab.training.losses import TrainingLoss

VERSION = 1  # of the measurements: another one measures again
GRAPHS = 10
TEST_SEED = 1  # of the graphs to test on; those to train on have another
STANDARD, ROBUST = "GNN", "GNN trained against flips"
AGAINST = {"random": None, "against the GNN": STANDARD, "against the other GNN": ROBUST}


@dataclass(frozen=True)
class Config:
    """Attributes:
    seeds: graphs to test on, ``GRAPHS`` where left out.
    n, a, b: nodes, and ``n`` times the probabilities of an edge within a community and between the two.
    shares: of a graph's edges that may be flipped.
    graphs: to train on.
    trained_at, trained_steps: share of the edges that may be flipped in training, and gradient steps of these attacks.
    steps: gradient steps of an attack.
    """

    seeds: int | None = None
    n: int = 300
    a: float = 9.0
    b: float = 1.0
    shares: tuple[float, ...] = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
    graphs: int = 1200
    trained_at: float = 0.05
    trained_steps: int = 10
    steps: int = 50
    depth: int = 10
    width: int = 8

    @property
    def count(self) -> int:
        """Graphs to test on."""
        return self.seeds or GRAPHS

    def source(self, seed: int) -> BlockModels:
        """Of the graphs."""
        return BlockModels(self.n, 2, self.a / self.n, self.b / self.n, seed)


FULL = Config(seeds=50, n=1000, graphs=6000, depth=20)


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Train both networks, measure what is missing, and put the numbers into a table and plots."""
    networks, seconds = {}, {}
    losses: dict[str, TrainingLoss] = {STANDARD: communities, ROBUST: CommunitiesUnderFlips(config.trained_at, config.trained_steps)}
    for name, loss in losses.items():
        training = GraphTraining(config.graphs, 4, 4, schedule="one-cycle")
        start = SGNN(2, depth=config.depth, width=config.width)
        network, seconds[name] = cache.trained_on_graphs(start, config.source(0), loss, training, name)
        networks[name] = network.cpu()
    found: dict[str, dict[float, Values]] = {attack: {} for attack in AGAINST}
    for attack, target in AGAINST.items():
        for share in config.shares:
            found[attack][share] = _measured(cache, config, networks, attack, target, share)
    guess = chance(config.source(TEST_SEED)(0, config.count), 2)
    plots = {f"edge-flips-{number}": _plot(config, attack, found[attack], guess) for number, attack in enumerate(found, 1)}
    numbers = {attack: {str(share): values for share, values in each.items()} for attack, each in found.items()}
    return Finding((_table(config, found, guess, seconds),), {**numbers, "chance": guess, "seconds": seconds}, lines=plots)


def _measured(
    cache: ExperimentCache, config: Config, networks: dict[str, GraphNetwork], attack: str, target: str | None, share: float
) -> Values:
    trained = {
        "graphs": config.graphs,
        "trained_at": config.trained_at,
        "trained_steps": config.trained_steps,
        "depth": config.depth,
        "width": config.width,
    }
    settings = {"version": VERSION, "n": config.n, "a": config.a, "b": config.b, "count": config.count, "share": share, **trained}
    measure = partial(_overlaps, config, networks, target, share)
    told = {"attack": attack, "steps": config.steps}
    (found,) = cache.measured("edge-flips", [Measurement(f"{attack} {share:g}", settings | told, measure)])
    return found


def _overlaps(config: Config, networks: dict[str, GraphNetwork], target: str | None, share: float) -> Values:
    """The overlap of every method on each graph, after the flips."""
    graphs = config.source(TEST_SEED)(0, config.count)
    if target is None:
        graphs = random_flips(graphs, share)
    elif share:
        graphs = guided_flips(networks[target], graphs, share, steps=config.steps)
    blocks = Blocks.planted(2, config.a, config.b)
    methods: dict[str, Callable[[GraphBatch], Tensor]] = {name: partial(_labels, network) for name, network in networks.items()}
    methods["belief propagation"] = lambda graphs: torch.cat([by_propagation(graphs.one(b), 2, blocks=blocks) for b in range(len(graphs))])
    methods["Bethe Hessian"] = lambda graphs: without_training(graphs, 2, "bethe hessian")
    return {name: overlap(graphs, find(graphs), 2).tolist() for name, find in methods.items()}


def _labels(network: GraphNetwork, graphs: GraphBatch) -> Tensor:
    with torch.no_grad():
        found: Tensor = network(graphs).argmax(1)
    return found


def _table(config: Config, found: dict[str, dict[float, Values]], guess: float, seconds: dict[str, float]) -> Table:
    rows = []
    for attack, by_share in found.items():
        for method in next(iter(by_share.values())):
            rows.append((attack, method, *(shown(values[method], 2) for values in by_share.values())))
    ratio = signal_to_noise(config.a, config.b)
    return Table(
        "Edge flips: which method holds on longest?",
        f"Block models with two communities, n = {config.n}, a = {config.a:g}, b = {config.b:g} (signal-to-noise ratio {ratio:.2g}), "
        f"{config.count} graphs: the overlap after flipping a share of each graph's edges, with the 95 % interval of its mean; chance "
        f"{guess:.2f}. At random as many edges go as come. Against a network: {config.steps} gradient steps on relaxed edges, rounded. "
        "Belief propagation knows a and b.",
        ("flips", "method", *(f"{100 * share:g} %" for share in config.shares)),
        tuple(rows),
        (
            f"Both networks were trained on {config.graphs:,} graphs, in {seconds[STANDARD]:.0f} s and {seconds[ROBUST]:.0f} s here; the "
            f"other one against flips of {100 * config.trained_at:g} % of the edges, {config.trained_steps} gradient steps each.",
        ),
    )


def _plot(config: Config, attack: str, by_share: dict[float, Values], guess: float) -> LinePlot:
    names = list(next(iter(by_share.values())))
    lines = [mean_line(name, {share: values[name] for share, values in by_share.items()}, -1, 1) for name in names]
    title = "Random flips" if attack == "random" else f"Flips {attack.replace('the other GNN', 'the GNN trained against flips')}"
    return LinePlot(title, tuple(lines), Axes("share of the edges flipped", "overlap"), {"chance": guess})
