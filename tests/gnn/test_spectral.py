"""Spectral methods: eigenvectors by an oracle, groups, the number of communities, zeta."""

from __future__ import annotations

import pytest
import torch

from robustlab.errors import UserError
from robustlab.gnn.generators import erdos_renyi, stochastic_block_model
from robustlab.gnn.graphs import graph
from robustlab.gnn.operators import BetheHessian, CompactNonBacktracking, Laplacian
from robustlab.gnn.spectral import (
    LEAST_R,
    _compact,
    by_non_backtracking,
    eigenvectors,
    estimated_k,
    grouped,
    informative_r,
    labelled,
    without_trees,
)


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


def test_what_cannot_be_found_is_refused():
    one = erdos_renyi(9, 0.4)
    with pytest.raises(UserError, match="a matrix of 9 rows has 1 to 9 eigenvectors, got 0"):
        eigenvectors(Laplacian().sparse(one), 0)


def test_zeta_of_a_graph_in_many_pieces():
    """All edges inside: two large pieces and many small trees, whose eigenvalues crowd at r = 1."""
    one = stochastic_block_model(1000, 2, inside=0.006, between=0)
    assert informative_r(one) == pytest.approx(LEAST_R, abs=1e-3)


def test_without_trees_the_bethe_hessian_has_as_many_negative_eigenvalues():
    one = stochastic_block_model(300, 2, inside=0.018, between=0.004)
    core = without_trees(one)
    assert core.n < 300 and int(core.degree.min()) >= 2 and not without_trees(graph([[0, 1], [1, 2]], 5)).n
    for r in (1.2, 1.5, -1.4):
        counts = [int((torch.linalg.eigvalsh(BetheHessian(r).dense(each)) < 0).sum()) for each in (one, core)]
        assert counts[0] == counts[1]


def test_the_non_backtracking_matrix_far_below_the_threshold():
    graphs = stochastic_block_model(300, 2, inside=0.009, between=0.0101, graphs=4)
    for which in range(4):
        assert set(by_non_backtracking(graphs.one(which), 2, assortative=False).tolist()) == {0, 1}


def test_the_sparse_non_backtracking_matrix_is_the_operator():
    one = erdos_renyi(20, 0.2)
    assert (torch.from_numpy(_compact(one).toarray()) == CompactNonBacktracking().dense(one)).all()


def test_groups_of_one_number_at_each_node():
    """As where the non-backtracking matrix has one real eigenvector only: its rows cannot be scaled, and equal points make no groups."""
    values = torch.tensor([0.0, 0.1, 5.0, 5.1, 9.0, 9.1]).double()[:, None]
    found = labelled(values, 3)
    assert found[0::2].tolist() == found[1::2].tolist() and len(found.unique()) == 3
    assert set(labelled(torch.ones(6, 1).double(), 4).tolist()) <= {0, 1, 2, 3}
