"""Semidefinite relaxations: the optimum by an oracle, bounds, moves that lower nothing, sets of nodes that are not neighbours."""

from __future__ import annotations

import pytest
import torch

from robustlab.errors import UserError
from robustlab.gnn import sdp
from robustlab.gnn.generators import erdos_renyi, random_regular, stochastic_block_model
from robustlab.gnn.graphs import graph, side_by_side
from robustlab.gnn.sdp import Relaxation, community_relaxation, cut_relaxation, independent_sets, solved


def relaxations():
    one = erdos_renyi(14, 0.3, seed=2)
    return [cut_relaxation(one), community_relaxation(one), community_relaxation(one, assortative=False), Relaxation(one, 1.0, -1.0)]


@pytest.mark.parametrize("which", range(4))
def test_the_optimum_is_that_of_an_interior_point_method(which):
    cvxpy = pytest.importorskip("cvxpy")
    relaxation = relaxations()[which]
    matrix = relaxation.sign * relaxation.graph.adjacency() + relaxation.mean
    x = cvxpy.Variable((14, 14), PSD=True)
    best = cvxpy.Problem(cvxpy.Maximize(cvxpy.trace(matrix.numpy() @ x)), [cvxpy.diag(x) == 1]).solve(solver="CLARABEL")
    found = solved(relaxation, tolerance=1e-12, sweeps=5000)
    assert found.value == pytest.approx(best, rel=1e-5) and found.bound() == pytest.approx(best, rel=1e-4)
    assert found.value <= found.bound() + 1e-9


@pytest.mark.parametrize("degree", [3, 6])
def test_a_bound_is_close_and_of_unit_vectors(degree):
    one = random_regular(100, degree)
    found = solved(cut_relaxation(one))
    torch.testing.assert_close(found.vectors.norm(dim=1), torch.ones(100).double())
    assert 0 <= found.bound() - found.value < 0.002 * found.value


def test_a_bound_by_lanczos_is_that_of_all_eigenvalues(monkeypatch):
    found = solved(community_relaxation(stochastic_block_model(150, 2, inside=0.1, between=0.02)), sweeps=40)
    exact = found.bound()
    monkeypatch.setattr(sdp, "DENSE", 10)
    assert found.bound() == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("which", range(4))
def test_no_sweep_lowers_the_value(which):
    values = [solved(relaxations()[which], sweeps=sweeps, tolerance=0).value for sweeps in range(0, 12)]
    assert all(after >= before - 1e-9 for before, after in zip(values, values[1:], strict=False))


def test_an_even_cycle_is_cut_whole():
    nodes = torch.arange(12)
    found = solved(cut_relaxation(graph(torch.stack([nodes, (nodes + 1) % 12]))), tolerance=1e-12)
    assert 12 / 2 + found.value / 4 == pytest.approx(12, abs=1e-4)


def test_neighbours_are_in_different_sets():
    regular, dense = random_regular(60, 4), erdos_renyi(40, 0.5)
    graphs = side_by_side([graph(regular.edge_index), graph(dense.edge_index, 40), graph(torch.empty(2, 0).long(), 3)])
    sets = independent_sets(graphs)
    assert (sets[graphs.tail] != sets[graphs.head]).all() and int(sets.min()) == 0
    assert int(sets[:60].max()) <= 4 and not sets[100:].any()  # greedy: at most the degree and one
    assert torch.equal(independent_sets(graphs), sets)


def test_what_cannot_be_solved_is_refused():
    with pytest.raises(UserError, match="one graph, got 2"):
        solved(cut_relaxation(erdos_renyi(5, 0.5, graphs=2)))
    with pytest.raises(UserError, match="a `rank` of at least 2, got 1"):
        solved(cut_relaxation(erdos_renyi(5, 0.5)), rank=1)
