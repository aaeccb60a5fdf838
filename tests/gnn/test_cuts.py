"""Cuts: their value by hand, what each method guarantees, and the optimum of small graphs by trying every cut."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from robustlab.errors import UserError
from robustlab.gnn.cuts import (
    CUTS,
    as_p_value,
    best_of,
    by_relaxation,
    cut_size,
    extremal_optimization,
    greedy,
    max_cut,
    one_opt,
    p_value,
    random_cut,
)
from robustlab.gnn.generators import erdos_renyi, random_regular
from robustlab.gnn.graphs import GraphBatch, graph, side_by_side
from robustlab.gnn.operators import Adjacency
from robustlab.gnn.sdp import cut_relaxation, solved

every_method = pytest.mark.parametrize("method", CUTS)


def cycle(n: int) -> GraphBatch:
    nodes = torch.arange(n)
    return graph(torch.stack([nodes, (nodes + 1) % n]))


def test_sizes_and_p_values_by_hand():
    graphs = side_by_side([cycle(4), cycle(3)])
    labels = torch.tensor([0, 1, 0, 1, 0, 0, 1])
    assert cut_size(graphs, labels).tolist() == [4, 2]
    expected = [(4 / 4 - 0.5) / 0.5**0.5, (2 / 3 - 0.5) / 0.5**0.5]
    torch.testing.assert_close(p_value(graphs, labels), torch.tensor(expected).double())
    both = torch.stack([labels, 1 - labels, torch.zeros(7).long()], 1)
    assert cut_size(graphs, both).tolist() == [[4, 4, 0], [2, 2, 0]] and p_value(graphs, both).shape == (2, 3)
    assert best_of(graphs, both.flip(1)).tolist() in (labels.tolist(), (1 - labels).tolist())


def test_labels_at_random_have_a_p_value_of_zero():
    graphs = random_regular(1000, 6, graphs=3)
    found = p_value(graphs, random_cut(graphs, 50))
    assert abs(float(found.mean())) < 0.01 and float(found.std()) == pytest.approx((3000 / 4) ** 0.5 / 1000 / 1.5**0.5, rel=0.2)


@every_method
def test_a_graph_has_the_same_cut_alone_and_beside_others(method):
    graphs = random_regular(40, 3, graphs=3)
    together = max_cut(graphs, method, seed=5)
    assert torch.equal(max_cut(graphs, method, seed=5), together) and set(together.tolist()) == {0, 1}
    if "1-opt" not in method:  # its order is of the batch
        assert torch.equal(torch.cat([max_cut(graphs.one(which), method, seed=5) for which in range(3)]), together)


@pytest.mark.parametrize("seed", range(3))
def test_small_graphs_are_cut_as_well_as_can_be(seed):
    one = erdos_renyi(12, 0.4, seed=seed)
    every = torch.tensor(list(product((0, 1), repeat=12))).T
    optimum = int(cut_size(one, every).max())
    for method in ("extremal optimization", "semidefinite + 1-opt", "1-opt, best of 100"):
        assert int(cut_size(one, max_cut(one, method))) == optimum
    assert optimum <= one.edge_index.shape[1] / 4 + solved(cut_relaxation(one)).bound() / 4 + 1e-6


def test_after_one_opt_no_node_gains_and_nothing_is_lost():
    graphs = random_regular(200, 5, graphs=2)
    start = random_cut(graphs, 6)
    found = one_opt(graphs, start)
    signs = (2 * found - 1).double()
    assert (signs * Adjacency().apply(graphs, signs) <= 0).all()
    assert (cut_size(graphs, found) >= cut_size(graphs, start)).all()
    assert torch.equal(one_opt(graphs, found), found) and one_opt(graphs, start[:, 0]).shape == (400,)


def test_methods_are_as_good_as_they_are_known_to_be():
    graphs = random_regular(500, 3, graphs=2)
    found = {method: float(p_value(graphs, max_cut(graphs, method)).mean()) for method in CUTS}
    order = ["random", "greedy", "1-opt", "1-opt, best of 100", "semidefinite", "semidefinite + 1-opt"]
    assert all(found[a] < found[b] for a, b in zip(order, order[1:], strict=False)), found
    assert found["semidefinite"] == pytest.approx(0.70, abs=0.02) and found["extremal optimization"] == pytest.approx(0.72, abs=0.02)


def test_random_planes_cut_as_goemans_and_williamson_say():
    """On average the sum over edges of the angle between their ends, over pi."""
    one = random_regular(200, 4)
    vectors = solved(cut_relaxation(one), seed=0).vectors
    once = one.tail < one.head
    angles = (vectors[one.tail[once]] * vectors[one.head[once]]).sum(1).clamp(-1, 1).arccos()
    sizes = cut_size(one, by_relaxation(one, rounds=2000)).double()
    assert float(sizes.mean()) == pytest.approx(float(angles.sum()) / torch.pi, rel=0.01)
    assert float(sizes.mean()) > 0.878 * (one.edge_index.shape[1] / 4 + solved(cut_relaxation(one)).value / 4)


def test_extremal_optimization_keeps_the_best_on_its_way():
    one = random_regular(60, 3)
    sizes = [int(cut_size(one, extremal_optimization(one, flips=flips))) for flips in (0, 10, 100, 1000)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]


@every_method
def test_nodes_without_edges_have_a_side_too(method):
    graphs = side_by_side([graph([[0, 1], [1, 2]], 5), graph(torch.empty(2, 0).long(), 3)])
    found = max_cut(graphs, method)
    assert found.shape == (8,) and set(found.tolist()) <= {0, 1}
    assert float(p_value(graphs, found)[1]) == 0 and method == "random" or int(cut_size(graphs, found)[0]) >= 1


def test_bounds_are_p_values_too():
    graphs = random_regular(100, 4, graphs=2)
    assert as_p_value(graphs, torch.tensor([100.0, 150.0])).tolist() == [0.0, 0.5]


def test_what_is_no_cut_is_refused():
    one = cycle(4)
    with pytest.raises(UserError, match="a cut needs a label 0 or 1 for each of 4 nodes"):
        cut_size(one, torch.tensor([0, 1, 2, 0]))
    with pytest.raises(UserError, match="each of 4 nodes"):
        one_opt(one, torch.tensor([0, 1]))
    with pytest.raises(UserError, match="unknown method 'gredy'. Did you mean 'greedy'"):
        max_cut(one, "gredy")
    with pytest.raises(UserError, match="`flips` must be at least 0, got -1"):
        extremal_optimization(one, flips=-1)
    assert greedy(one).shape == (4,)
