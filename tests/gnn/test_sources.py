"""Sources: a graph is a function of the source and of its number."""

from __future__ import annotations

import pytest
import torch

from robustlab import gnn
from robustlab.errors import UserError
from robustlab.gnn.generators import signal_to_noise
from robustlab.gnn.sources import BlockModels, GivenGraphs, Mixture, described, dissociative_five, ratio_of


@pytest.mark.parametrize("source", [BlockModels(60, 3, 0.2, 0.05, seed=2), Mixture(60, seed=2)], ids=lambda source: type(source).__name__)
def test_graphs_do_not_depend_on_the_batch(source) -> None:
    together = source(5, 3)
    for which in range(3):
        alone, of_batch = source(5 + which, 1), together.one(which)
        assert torch.equal(alone.edge_index, of_batch.edge_index) and torch.equal(alone.y, of_batch.y)
    assert not torch.equal(source(0, 1).edge_index, source(1, 1).edge_index)
    assert described(source)["kind"] == type(source).__name__ and described(source)["seed"] == 2


def test_a_mixture_has_one_mean_degree_and_both_signs_above_its_ratio() -> None:
    pairs = Mixture(1000, degree=3, least=1.2).parameters(0, 400)
    assert all(abs(a + b - 6) < 1e-9 and a >= -1e-9 and b >= -1e-9 for a, b in pairs)
    ratios = [signal_to_noise(a, b) for a, b in pairs]
    assert 1.2 <= min(ratios) < 1.25 and 2.9 < max(ratios) <= 3 + 1e-9
    assert 0.4 < sum(a > b for a, b in pairs) / 400 < 0.6


def test_the_published_graphs_are_below_the_threshold() -> None:
    assert ratio_of(dissociative_five()) == pytest.approx(0.9)
    graphs = dissociative_five()(0, 2)
    assert not (graphs.y[graphs.tail] == graphs.y[graphs.head]).any() and 13 < graphs.mean_degree < 16


def test_a_ratio_that_the_degree_cannot_give_is_refused() -> None:
    with pytest.raises(UserError, match="a mean degree of 3 gives signal-to-noise ratios below it, so not 3"):
        Mixture(100, least=3)


def test_given_graphs_come_once_in_every_pass_and_batches_do_not_matter() -> None:
    sizes = [3, 4, 5, 6, 7]
    graphs = gnn.side_by_side([gnn.erdos_renyi(n, 0.5) for n in sizes]).labelled(torch.arange(5))
    source = GivenGraphs(graphs, seed=1)
    passes = [source(5 * number, 5).y.tolist() for number in range(8)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in passes) and len({tuple(one) for one in passes}) > 4
    in_batches = [label for first in range(0, 40, 4) for label in source(first, 4).y.tolist()]
    assert in_batches == sum(passes, [])
    batch = source(3, 7)
    for place, label in enumerate(batch.y.tolist()):
        assert torch.equal(batch.one(place).edge_index, graphs.one(label).edge_index)
    assert not torch.equal(source(0, 40).y, GivenGraphs(graphs, seed=2)(0, 40).y)


def test_given_graphs_are_told_by_what_they_hold() -> None:
    graphs = gnn.erdos_renyi(5, 0.5, graphs=3).labelled(torch.tensor([0, 1, 1]))
    told = described(GivenGraphs(graphs, seed=3))
    assert told == {"kind": "GivenGraphs", "graphs": told["graphs"], "count": 3, "seed": 3} and len(told["graphs"]) == 64
    others = (graphs.labelled(torch.tensor([1, 0, 1])), graphs.some(torch.tensor([1, 0, 2])), graphs.some(torch.tensor([0, 1])))
    assert len({described(GivenGraphs(one))["graphs"] for one in (graphs, *others)}) == 4
    assert described(GivenGraphs(graphs.some(torch.arange(3))))["graphs"] == told["graphs"]
