"""Networks that are trained to classify circular skip links, each class of which they see in some copies (Murphy et al. 2019)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch.optim.swa_utils import update_bn

from robustlab import seeding
from robustlab.experiments.cache import ExperimentCache, Measurement, Values
from robustlab.experiments.finding import Finding
from robustlab.experiments.graphs import shown
from robustlab.gnn.families import skip_links
from robustlab.gnn.generators import renumbered
from robustlab.gnn.graphs import GraphBatch, side_by_side
from robustlab.gnn.ign import IGN
from robustlab.gnn.networks import GraphNetwork, clipped
from robustlab.gnn.pooled import GIN, PooledSGNN
from robustlab.gnn.ring import RingGNN
from robustlab.gnn.sources import GivenGraphs
from robustlab.gnn.spectral_network import SpectralNetwork
from robustlab.reports.tables import Table
from robustlab.training.graphs import GraphTraining, classes_of_graphs

VERSION = 2  # of the measurements: another one measures again
COPIES, FOLDS = 15, 5
LENGTH = 120  # graphs of an epoch: those that are not held out
# Chen, Villar, Chen and Bruna 2019: per cent of the ten skip-link classes, the largest of ten runs.
PUBLISHED_LINKS = {
    "GIN": "10",
    "2-IGN": "10",
    "LGNN": "30",
    "sGNN-1": "10",
    "sGNN-2": "30",
    "sGNN-5": "80",
    "Ring-GNN": "80",
    "RP-GIN": "53.3",
}
TRAINED: dict[str, Callable[[], GraphNetwork]] = {
    "GIN": lambda: GIN(10, width=32, depth=4),
    "2-IGN": lambda: IGN(10, width=16, depth=2),
    "sGNN, A and A^2 clipped": lambda: PooledSGNN(10, clipped(2), width=32, depth=2),
    "sGNN, clipped powers to 5": lambda: PooledSGNN(10, clipped(5), width=32, depth=2),
    "sGNN, clipped powers to 6": lambda: PooledSGNN(10, clipped(6), width=32, depth=2),
    "Ring-GNN": lambda: RingGNN(10, width=(16, 16), powers=8, norm="batch"),
    "spectrum": lambda: SpectralNetwork(10, norm="batch"),
}


def trained(cache: ExperimentCache, names: Sequence[str], seeds: int, epochs: int) -> Finding:
    """Train networks on copies of the ten graphs, or what is missing of it, and judge them on others.

    Args:
        names: of ``TRAINED``.
        seeds: splits.
        epochs: of each training, of ``LENGTH`` graphs.
    """
    measurements = [
        Measurement(
            f"trained {name} seed {seed}",
            {"network": name, "seed": seed, "epochs": epochs, "version": VERSION},
            partial(_accuracies, cache, name, seed, epochs),
        )
        for name in names
        for seed in range(seeds)
    ]
    values = cache.measured("expressive-power", measurements)
    found = {name: [share for each in values[i * seeds : (i + 1) * seeds] for share in each["accuracies"]] for i, name in enumerate(names)}
    rows = [
        (name, shown([100 * share for share in shares], 1), f"{100 * min(shares):.0f}", f"{100 * max(shares):.0f}")
        for name, shares in found.items()
    ]
    rows += [(name, value, "", "published, the largest of ten runs") for name, value in PUBLISHED_LINKS.items()]
    table = Table(
        "Circular skip links, trained: accuracy on graphs not trained on, in per cent",
        f"Ten classes, {COPIES} renumbered copies of each, {FOLDS} folds, {seeds} split{'s' * (seeds != 1)}; "
        "mean with its 95 % interval over folds. Chance is 10.",
        ("network", "accuracy", "smallest fold", "largest fold"),
        tuple(rows),
    )
    return Finding((table,), {"trained": found})


def link_copies(seed: int) -> GraphBatch:
    """The ten skip-link graphs, ``COPIES`` renumbered copies of each, with their class as ``y``."""
    links = skip_links()
    many = side_by_side([replace(links.one(int(which)), keys=None) for which in torch.arange(10).repeat(COPIES)])
    return renumbered(replace(many, keys=seeding.example_keys(seed, torch.arange(len(many)))))[0]


def _accuracies(cache: ExperimentCache, name: str, seed: int, epochs: int) -> Values:
    graphs = link_copies(seed)
    fold = torch.arange(COPIES).repeat_interleave(10) % FOLDS  # every class as often in every fold
    found = []
    for held in range(FOLDS):
        training = GraphTraining(epochs * LENGTH, epochs, 30, lr=0.01, optimizer="adam", schedule="one-cycle")
        source = GivenGraphs(graphs.some((fold != held).nonzero()[:, 0]), seed)
        network, _ = cache.trained_on_graphs(TRAINED[name](), source, classes_of_graphs, training, f"skip links {name} {seed} {held}")
        test, network = graphs.some((fold == held).nonzero()[:, 0]), network.cpu()
        update_bn([source.graphs], network)  # what BatchNorm knows lags behind weights that moved, by more than the classes differ
        with torch.no_grad():
            found.append(float((network.eval()(test).argmax(1) == test.y).double().mean()))
    return {"accuracies": found}
