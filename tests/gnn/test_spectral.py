"""Spectral methods: eigenvectors by an oracle, groups, the number of communities, zeta."""

from __future__ import annotations

import pytest
import torch

from robustlab.errors import UserError
from robustlab.gnn.generators import erdos_renyi, stochastic_block_model
from robustlab.gnn.operators import BetheHessian, Laplacian
from robustlab.gnn.spectral import eigenvectors, estimated_k, grouped, informative_r


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
