"""The experiment on classes of graphs: folds that hold nothing back and let nothing through, two ways to judge, and no second work."""

from __future__ import annotations

import statistics
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from robustlab import gnn
from robustlab.errors import UserError
from robustlab.experiments import reproduce
from robustlab.experiments.cache import ExperimentCache
from robustlab.experiments.graphs import graph_classification as experiment
from robustlab.experiments.graphs import half_width
from robustlab.experiments.graphs.graph_classification import (
    BASELINES,
    NETWORKS,
    Config,
    Learned,
    Split,
    by_counts,
    by_majority,
    circulants,
    folds,
    judge,
    over_folds,
)

TINY = {"GIN": Learned(partial(gnn.GIN, width=4, depth=1), 0.01), "Ring-GNN": Learned(partial(gnn.RingGNN, width=(2,)), 0.01, 0.5)}
SMALL: dict[str, Any] = {"device": "cpu", "threads": 1, "folds": 3, "inner": 2, "epochs": 2, "steps": 2, "batch_size": 4}


@pytest.fixture
def tu_set(tmp_path: Path) -> Path:
    """A folder with 12 graphs: paths of three nodes, and triangles."""
    edges, indicator, nodes = [], [], 0
    for number in range(12):
        for i, j in ((1, 2), (2, 3), (1, 3))[: 2 + number % 2]:
            edges += [f"{nodes + i}, {nodes + j}", f"{nodes + j}, {nodes + i}"]
        indicator += [str(number + 1)] * 3
        nodes += 3
    folder = tmp_path / "TINY"
    folder.mkdir()
    texts = {"A": edges, "graph_indicator": indicator, "graph_labels": ["-1", "1"] * 6, "node_labels": ["0", "0", "5"] * 12}
    for ending, lines in texts.items():
        (folder / f"TINY_{ending}.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_folds_are_a_partition_with_equal_shares_of_every_class() -> None:
    y = torch.tensor([0] * 33 + [2] * 18 + [1] * 50)[torch.randperm(101, generator=torch.Generator().manual_seed(0))]
    parts = folds(y, 10, seed=4)
    assert torch.cat(parts).sort().values.tolist() == list(range(101)) and {len(part) for part in parts} <= {10, 11}
    for label, count in enumerate((33, 50, 18)):
        assert {int((y[part] == label).sum()) for part in parts} <= {count // 10, count // 10 + 1}
    assert [part.tolist() for part in folds(y, 10, seed=4)] == [part.tolist() for part in parts]
    assert parts[0].tolist() != folds(y, 10, seed=5)[0].tolist()


def test_inner_folds_are_a_partition_of_what_is_trained_on() -> None:
    y, config = torch.arange(60) % 2, Config(folds=5, inner=3)
    splits = [Split.of(y, config, 1, fold) for fold in range(5)]
    assert torch.cat([split.test for split in splits]).sort().values.tolist() == list(range(60))
    for split in splits:
        assert torch.cat([split.test, split.train]).sort().values.tolist() == list(range(60))
        assert torch.cat(split.inner).sort().values.tolist() == split.train.tolist() and len(split.inner) == 3


def test_no_graph_of_a_test_fold_is_trained_on_or_chosen_by(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graphs = circulants(28)
    graphs = replace(graphs, x=graphs.graph[:, None].float())  # every node knows its graph's number
    config, seen = Config(folds=4, inner=3, epochs=2), []

    def ids(batch: gnn.GraphBatch) -> set[int]:
        assert batch.x is not None
        return set(batch.x[:, 0].int().tolist())

    def train(network: Any, source: Any, loss: Any, how: Any, *, judge: Any, **more: Any) -> Any:
        judged: list[set[int]] = []

        def model(batch: gnn.GraphBatch) -> torch.Tensor:
            judged.append(ids(batch))
            return torch.zeros(len(batch), 2)

        judge(model)
        seen.append((set.union(*(ids(source(first, 5)) for first in range(0, 100, 5))), judged[0]))
        return SimpleNamespace(history=[{"val/accuracy": 0.5}] * how.epochs)

    monkeypatch.setattr(experiment, "train_graphs", train)
    for fold in range(4):
        seen.clear()
        assert graphs.y is not None
        test = set(Split.of(graphs.y, config, 0, fold).test.tolist())
        experiment._fold(ExperimentCache(tmp_path), config, graphs, TINY["GIN"], 0, fold)
        *inner, (trained, judged) = seen
        assert judged == test and trained == set(range(28)) - test
        assert set.union(*(part for _, part in inner)) == trained and len(inner) == 3
        for fitted, validated in inner:
            assert not (fitted | validated) & test and not fitted & validated and fitted | validated == trained


def test_the_epoch_is_chosen_inside_and_the_papers_number_on_the_test_folds() -> None:
    first = {"inner": [[0.5, 0.75, 0.25], [0.5, 0.5, 0.0]], "validated": [4, 2], "test": [0.1, 0.2, 0.9]}
    second = {"inner": [[0.0, 0.5, 0.5], [0.5, 0.5, 0.5]], "validated": [4, 2], "test": [0.4, 0.8, 0.3]}
    found = judge([[first, second]])
    assert found.epochs == [[2, 2]] and found.nested == [[0.2, 0.8]]  # of equal epochs the first
    assert found.best == [3] and found.papers == [[0.9, 0.3]] == found.last
    other = judge([[{**first, "test": [0.9, 0.0, 0.0]}, {**second, "test": [0.9, 0.0, 0.0]}]])
    assert other.epochs == found.epochs and other.best == [1]


def test_other_splits_of_the_same_graphs_do_not_narrow_the_interval() -> None:
    values = [0.5, 0.75, 1.0, 0.75]
    mean, half, deviation = over_folds([values])
    assert (mean, half, deviation) == pytest.approx((0.75, half_width(values), statistics.stdev(values)))
    assert over_folds([values] * 3) == pytest.approx((mean, half, deviation))


def test_circulants_show_colours_nothing_and_walks_of_two_steps_all() -> None:
    graphs = circulants(28)
    assert (graphs.degree == 4).all() and graphs.sizes[::2].tolist() == graphs.sizes[1::2].tolist()
    for network, differs in ((gnn.GIN(3, norm="none"), False), (gnn.IGN(3), False), (gnn.PooledSGNN(3, norm="none"), True)):
        with torch.no_grad():
            found = network.double()(graphs)
        apart = (found[::2] - found[1::2]).abs().amax(1) / found.abs().max()
        assert bool((apart > 1e-9).all()) is differs and bool((apart > 1e-9).any()) is differs


def test_baselines() -> None:
    sizes = torch.arange(24) % 2 + 5
    graphs = gnn.side_by_side([gnn.erdos_renyi(int(n), 0.5, seed=i) for i, n in enumerate(sizes)]).labelled(sizes - 5)
    train, test = torch.arange(15), torch.arange(15, 24)
    assert by_counts(graphs, train, test) == 1.0  # the number of nodes tells the class
    assert by_majority(graphs, train, test) == pytest.approx(4 / 9)  # 8 of the 15 are of class 0, 4 of the 9


def numbers_of(found: Any) -> Any:
    """All but the times."""
    kept = {
        name: {**one, "folds": [[{**f, "seconds": 0} for f in s] for s in one["folds"]]} for name, one in found.numbers["networks"].items()
    }
    return {**found.numbers, "networks": kept}


def test_a_set_is_measured_once_also_after_a_stop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tu_set: Path) -> None:
    monkeypatch.setattr(experiment, "NETWORKS", TINY)
    said: list[str] = []
    found = reproduce("graph-classification", tu_set, out=tmp_path / "whole", seeds=2, say=said.append, **SMALL)
    assert [row[0] for row in found.tables[0].rows] == [*BASELINES, *TINY] and len(said) == 2 * 2 * 3
    assert all(len(one["nested"]) == 2 and len(one["nested"][0]) == 3 for one in found.numbers["networks"].values())
    assert (tmp_path / "whole" / "graph-classification-TINY.png").exists()
    left = [15]

    def stop() -> bool:
        left[0] -= 1
        return left[0] <= 0

    with pytest.raises(KeyboardInterrupt):
        reproduce("graph-classification", tu_set, out=tmp_path / "parts", seeds=2, stop=stop, **SMALL)
    before = len(list((tmp_path / "parts" / "measurements").glob("*.json")))
    again: list[str] = []
    resumed = reproduce("graph-classification", tu_set, out=tmp_path / "parts", seeds=2, say=again.append, **SMALL)
    assert numbers_of(resumed) == numbers_of(found) and 0 < before < 12 and len(again) == 12 - before


def test_what_does_not_make_folds_is_refused(tmp_path: Path, tu_set: Path) -> None:
    for changes, said in (
        ({"networks": ("GNI",)}, "unknown network 'GNI'"),
        ({"folds": 7}, r"7 folds need at least 2 classes with a graph for each fold, but the classes have \[6, 6\] graphs"),
        ({"inner": 1}, "`folds` and `inner` must be at least 2"),
    ):
        with pytest.raises(UserError, match=said):
            reproduce("graph-classification", tu_set, out=tmp_path / "out", **{**SMALL, **changes})
    with pytest.raises(UserError, match="must be a folder of one TU set"):
        reproduce("graph-classification", tmp_path, out=tmp_path / "out", **SMALL)


def test_on_circulants_sgnn_learns_and_gin_cannot(tmp_path: Path) -> None:
    how = {**SMALL, "folds": 2, "epochs": 3, "steps": 12, "batch_size": 16}
    found = reproduce("graph-classification", out=tmp_path, networks=("GIN", "sGNN"), **how)
    last = {name: statistics.mean(one["last"][0]) for name, one in found.numbers["networks"].items()}
    assert last["sGNN"] > 0.9 and last["GIN"] < 0.6 and set(last) < set(NETWORKS)
