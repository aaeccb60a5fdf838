"""Operators: all forms agree, matrices by hand, equivariance, gradients, and the identities of the non-backtracking matrix."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from laws import drawn

from robustlab.errors import UserError
from robustlab.gnn.generators import erdos_renyi, random_regular, stochastic_block_model
from robustlab.gnn.graphs import graph, side_by_side
from robustlab.gnn.operators import (
    Adjacency,
    BetheHessian,
    CompactNonBacktracking,
    Degree,
    GraphMean,
    HopRing,
    Identity,
    Laplacian,
    NonBacktracking,
    Power,
    Reached,
    to_edges,
    to_nodes,
)

OPERATORS = [
    Identity(),
    Degree(),
    GraphMean(),
    Adjacency(),
    Power(3),
    *(Reached(t, loops) for t in (1, 2, 3) for loops in (True, False)),
    *(HopRing(t) for t in (1, 2, 3)),
    *(Laplacian(normalized, tau) for normalized in (False, True) for tau in (0.0, 1.5, None)),
    BetheHessian(),
    BetheHessian(-1.3),
]
every_operator = pytest.mark.parametrize("operator", OPERATORS, ids=repr)
GRAPHS = side_by_side([erdos_renyi(17, 0.2), erdos_renyi(4, 0.1, seed=1), erdos_renyi(9, 0.5, seed=2)])


@every_operator
def test_all_forms_of_an_operator_agree(operator):
    x = drawn(GRAPHS.n, 3)
    torch.testing.assert_close(operator.dense(GRAPHS) @ x, operator.apply(GRAPHS, x))
    torch.testing.assert_close(operator.sparse(GRAPHS) @ x, operator.apply(GRAPHS, x))
    torch.testing.assert_close(operator.sparse(GRAPHS).to_dense(), operator.dense(GRAPHS))


@every_operator
def test_an_operator_is_symmetric_and_stays_within_its_graph(operator):
    dense = operator.dense(GRAPHS)
    torch.testing.assert_close(dense, dense.T)
    assert not dense[GRAPHS.graph[:, None] != GRAPHS.graph].any()


@every_operator
def test_an_operator_goes_along_when_nodes_are_renumbered(operator):
    one = erdos_renyi(15, 0.25, seed=3)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(1))
    x = drawn(15, 2)
    moved = torch.empty_like(x)
    moved[order] = operator.apply(one, x)
    there = torch.empty_like(x)
    there[order] = x
    torch.testing.assert_close(operator.apply(one.permuted(order), there), moved)


@every_operator
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_an_operator_keeps_the_dtype_and_is_its_own_gradient(operator, dtype):
    x = drawn(GRAPHS.n, 2, dtype=dtype).requires_grad_()
    weight = drawn(GRAPHS.n, 2, seed=1, dtype=dtype)
    out = operator.apply(GRAPHS, x)
    (grad,) = torch.autograd.grad((out * weight).sum(), x)
    assert out.dtype == dtype
    torch.testing.assert_close(grad, operator.apply(GRAPHS, weight))


def test_matrices_by_hand():
    A = GRAPHS.adjacency()
    D, one = torch.diag(A.sum(1)), torch.eye(GRAPHS.n, dtype=torch.float64)
    walks = (A @ A @ A > 0).double()
    nearer = ((one + A + A @ A) > 0).double()
    root = torch.diag(torch.where(A.sum(1) > 0, A.sum(1), torch.inf).rsqrt())
    for operator, matrix in (
        (Adjacency(), A),
        (Power(3), A @ A @ A),
        (Reached(3), walks),
        (Reached(3, loops=False), walks * (1 - one)),
        (HopRing(3), ((nearer + A @ A @ A > 0).double() - nearer)),
        (Laplacian(), D - A),
        (Laplacian(normalized=True), one - root @ A @ root),
        (BetheHessian(1.7), (1.7**2 - 1) * one - 1.7 * A + D),
    ):
        torch.testing.assert_close(operator.dense(GRAPHS), matrix)


def test_the_regularized_laplacian_of_a_regular_graph():
    one = random_regular(12, 3)
    A = one.adjacency()
    torch.testing.assert_close(Laplacian(normalized=True, tau=None).dense(one), torch.eye(12).double() - A / 6)


def test_the_non_backtracking_matrix_by_its_definition():
    one = erdos_renyi(10, 0.4)
    follows = (one.head[:, None] == one.tail) & (one.tail[:, None] != one.head)
    B = NonBacktracking().dense(one)
    torch.testing.assert_close(B, follows.double())
    y = drawn(len(one.tail), 2)
    torch.testing.assert_close(NonBacktracking().transposed(one, y), B.T @ y)


def test_the_square_of_the_non_backtracking_matrix_holds_zeros_and_ones():
    """The middle edge of a walk of two steps is known from its ends on a simple graph."""
    B = NonBacktracking().dense(erdos_renyi(14, 0.5))
    assert set((B @ B).unique().tolist()) == {0.0, 1.0} and (B @ B @ B).max() > 1


def test_ihara_bass():
    """The compact matrix has all the eigenvalues of the large one but 1 and -1, |E|/2 - N times each (E counts directions)."""
    one = erdos_renyi(12, 0.5)
    large = torch.linalg.eigvals(NonBacktracking().dense(one))
    compact = torch.linalg.eigvals(CompactNonBacktracking().dense(one))
    for point in (0.3, 1.7, -2.1):
        trivial = (1 - point**2) ** (len(one.tail) // 2 - one.n)
        torch.testing.assert_close((point - large).prod(), (point - compact).prod() * trivial, rtol=1e-6, atol=0)
    for value in compact[compact.imag.abs() < 1e-9].real:
        bethe = BetheHessian(float(value)).dense(one)
        smallest = torch.linalg.eigvalsh(bethe).abs().amin()
        assert smallest < 1e-6 * (1 + value**2)


def test_incidences_of_nodes_and_edges():
    one = erdos_renyi(10, 0.4)
    x, y = drawn(10, 2), drawn(len(one.tail), 2)
    for signed in (False, True):
        torch.testing.assert_close((to_nodes(one, y, signed=signed) * x).sum(), (y * to_edges(one, x, signed=signed)).sum())
    torch.testing.assert_close(to_nodes(one, to_edges(one, x, signed=True), signed=True), 2 * Laplacian().apply(one, x))


def test_what_is_worked_out_once_for_a_batch_is_kept():
    one = erdos_renyi(20, 0.2)
    assert Reached(2).pattern(one)[1] is Reached(2).pattern(one)[1]


@pytest.mark.parametrize("make", [Power, Reached, HopRing])
def test_a_walk_has_a_length(make):
    with pytest.raises(UserError, match="a walk has a length of at least 1, got 0"):
        make(0)


def test_graphs_without_edges():
    empty = graph([[], []], 3)
    for operator in OPERATORS:
        assert operator.apply(empty, drawn(3, 2)).isfinite().all()


def test_patterns_give_their_memory_back():
    """Torch's product of two sparse matrices does not: 0.8 MB for each of these graphs."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        pytest.skip("memory is read from /proc")

    def held(first: int, count: int) -> int:
        for number in range(first, first + count):
            Reached(2).pattern(stochastic_block_model(400, 5, inside=0, between=18 / 400, first=number))
        return int(pages.read_text().split()[1]) * 4096

    before = held(0, 20)
    assert held(20, 150) - before < 40e6
