"""Spectral methods: eigenvectors by an oracle, what each finds above the threshold, and none below it."""

from __future__ import annotations

import pytest
import torch

from robustlab.errors import UserError
from robustlab.gnn.generators import erdos_renyi, stochastic_block_model
from robustlab.gnn.graphs import graph, side_by_side
from robustlab.gnn.operators import BetheHessian, Laplacian
from robustlab.gnn.overlap import chance, overlap
from robustlab.gnn.spectral import METHODS, communities, eigenvectors, estimated_k, grouped, informative_r

every_method = pytest.mark.parametrize("method", METHODS)


@pytest.mark.parametrize("n", [20, 300])
@pytest.mark.parametrize("smallest", [True, False])
@pytest.mark.parametrize("operator", [BetheHessian(1.5), Laplacian(normalized=True)], ids=repr)
def test_eigenvectors_are_those_of_the_dense_matrix(operator, smallest, n):
    one = erdos_renyi(n, 6 / n, seed=1)
    found = eigenvectors(operator.sparse(one), 3, smallest=smallest)
    values = torch.linalg.eigvalsh(operator.dense(one))
    torch.testing.assert_close(found.values, values[:3] if smallest else values[-3:].flip(0), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(operator.apply(one, found.vectors), found.vectors * found.values, rtol=0, atol=1e-5)
    again = eigenvectors(operator.sparse(one), 3, smallest=smallest)
    assert torch.equal(again.vectors, found.vectors)


def test_groups_that_are_far_apart_are_found():
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]).double()
    true = torch.arange(60) % 3
    points = centres[true] + torch.randn(60, 2, generator=torch.Generator().manual_seed(0)).double()
    found = grouped(points, 3)
    assert all(len(found[true == k].unique()) == 1 for k in range(3)) and len(found.unique()) == 3
    assert torch.equal(grouped(points, 3), found) and not grouped(points, 1).any()


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
    graphs = stochastic_block_model(1000, 2, inside=0.0055, between=0.0005, graphs=4)
    found = {name: float(overlap(graphs, communities(graphs, 2, name), 2).mean()) for name in METHODS}
    assert found["laplacian"] < found["regularized laplacian"] - 0.1
    for name in ("regularized laplacian", "bethe hessian", "bethe hessian at zeta", "non-backtracking"):
        assert found[name] > 0.65, found


def test_nothing_is_found_where_there_is_nothing():
    graphs = stochastic_block_model(400, 2, inside=0.01, between=0.01, graphs=6)
    found = overlap(graphs, communities(graphs, 2), 2)
    assert float(found.mean()) < chance(graphs, 2) + 0.1


def test_two_graphs_that_are_not_joined_are_told_apart():
    """All edges inside: the operators have degenerate eigenvectors, of which every mixture is one."""
    graphs = stochastic_block_model(600, 2, inside=0.02, between=0, graphs=2)
    for method in ("bethe hessian", "regularized laplacian"):
        assert (overlap(graphs, communities(graphs, 2, method), 2) > 0.9).all()


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("likes", [True, False])
def test_the_number_of_communities(k, likes):
    if k == 1 and not likes:
        pytest.skip("one community cannot avoid itself")
    one = stochastic_block_model(500, k, inside=0.12 if likes else 0.005, between=0.01 if likes else 0.12)
    assert estimated_k(one) == (k, likes)


def test_zeta_is_where_the_second_eigenvalue_is_zero():
    one = stochastic_block_model(500, 2, inside=0.02, between=0.004)
    r = informative_r(one)
    assert 1 < r < one.mean_degree**0.5
    assert abs(float(eigenvectors(BetheHessian(r).sparse(one), 2).values[1])) < 1e-3


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
    with pytest.raises(UserError, match="a matrix of 9 rows has 1 to 9 eigenvectors, got 0"):
        eigenvectors(Laplacian().sparse(one), 0)
