"""Communities: what each method finds above the threshold, and none below it; graphs that are small, empty, in pieces or unequal."""

from __future__ import annotations

import pytest
import torch

from robustlab.errors import UserError
from robustlab.gnn.communities import METHODS, communities
from robustlab.gnn.generators import degree_corrected_block_model, erdos_renyi, stochastic_block_model
from robustlab.gnn.graphs import graph, side_by_side
from robustlab.gnn.overlap import chance, overlap

every_method = pytest.mark.parametrize("method", METHODS)


@every_method
@pytest.mark.parametrize("k, assortative", [(2, True), (3, True), (2, False)])
def test_plain_communities_are_found_by_every_method(method, k, assortative):
    near, far = 0.25, 0.02
    graphs = stochastic_block_model(240, k, inside=near if assortative else far, between=far if assortative else near, graphs=2)
    assert (overlap(graphs, communities(graphs, k, method, assortative=assortative), k) > 0.9).all()


@every_method
def test_labels_go_along_when_nodes_are_renumbered(method):
    one = stochastic_block_model(200, 2, inside=0.2, between=0.03)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(3))
    moved = communities(one.permuted(order), 2, method)
    same = (moved[order] == communities(one, 2, method)).double().mean()
    assert max(same, 1 - same) > 0.97


def test_a_sparse_graph_needs_the_right_operator():
    """Mean degree 3, signal to noise 2.08: the plain Laplacian finds small trees, the regularized one as much as the Bethe Hessian."""
    graphs = stochastic_block_model(1000, 2, inside=0.0055, between=0.0005, graphs=2)
    found = {name: float(overlap(graphs, communities(graphs, 2, name), 2).mean()) for name in METHODS}
    assert found["laplacian"] < found["regularized laplacian"] - 0.1
    assert all(value > 0.65 for name, value in found.items() if name not in ("adjacency", "laplacian")), found


def test_nothing_is_found_where_there_is_nothing():
    graphs = stochastic_block_model(400, 2, inside=0.01, between=0.01, graphs=6)
    found = overlap(graphs, communities(graphs, 2), 2)
    assert float(found.mean()) < chance(graphs, 2) + 0.1


def test_two_graphs_that_are_not_joined_are_told_apart():
    """All edges inside: the operators have degenerate eigenvectors, of which every mixture is one."""
    graphs = stochastic_block_model(600, 2, inside=0.02, between=0, graphs=2)
    for method in ("bethe hessian", "regularized laplacian"):
        assert (overlap(graphs, communities(graphs, 2, method), 2) > 0.9).all()


def test_isolated_nodes_and_small_graphs_have_labels_too():
    graphs = side_by_side([graph([[0, 1], [1, 2]], 5), graph([[0, 1, 2], [1, 2, 0]], 9)])
    for method in METHODS:
        found = communities(graphs, 2, method)
        assert found.shape == (14,) and set(found.tolist()) <= {0, 1}


def test_what_cannot_be_found_is_refused():
    one = erdos_renyi(9, 0.4)
    with pytest.raises(UserError, match="unknown method 'bethe'. Did you mean 'bethe hessian'"):
        communities(one, 2, "bethe")
    with pytest.raises(UserError, match="a graph of 9 nodes has 1 to 9 communities, got 10"):
        communities(one, 10)


@every_method
def test_communities_of_a_graph_without_edges_have_labels(method):
    found = communities(graph(torch.empty(2, 0, dtype=torch.int64), 12), 3, method)
    assert found.shape == (12,) and set(found.tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("method", ["bethe hessian", "belief propagation"])
def test_communities_of_unequal_size_are_found(method):
    one = stochastic_block_model(203, 5, inside=0.5, between=0.02)
    assert float(overlap(one, communities(one, 5, method), 5)) > 0.9


def test_hubs_do_not_hide_communities():
    """Degree-corrected: the adjacency matrix's eigenvectors sit on hubs more than the regularized Laplacian's."""
    graphs = degree_corrected_block_model(1000, 2, inside=0.012, between=0.002, exponent=2.3, graphs=3)
    found = {name: float(overlap(graphs, communities(graphs, 2, name), 2).mean()) for name in ("adjacency", "regularized laplacian")}
    assert found["regularized laplacian"] > 0.4, found
