"""Exact interpolants: Newton, linear programs, flow and homotopy against cvxpy, against each other and against their optimality."""

from __future__ import annotations

import warnings

import pytest
import torch
from laws import drawn

from robustlab.errors import UserError
from robustlab.linear_bias import (
    L1,
    L2,
    DiagonalFlow,
    Entropy,
    HypEntropy,
    Linf,
    Lp,
    PNorm,
    Problem,
    Quadratic,
    Spectral,
    bregman_interpolant,
    flow_interpolant,
    lasso_at,
    lasso_path,
    nearest_interpolant,
    norm_interpolant,
    nuclear_interpolant,
    null_space_constant,
    problem,
    regression,
)
from robustlab.linear_bias.potentials import Cosh

pytest.importorskip("scipy")
POTENTIALS = [
    Quadratic(),
    HypEntropy(1e-6),
    HypEntropy(1.0),
    PNorm(1.1),
    PNorm(1.5),
    PNorm(3.0),
    Cosh(),
    DiagonalFlow(0.1, 3),
    DiagonalFlow(0.3, 4),
]


def left(data, w):
    return (data.outputs(w) - data.y).norm(dim=1) / data.y.norm(dim=1)


def positive(seeds=3, n=4, d=9):
    data = regression(seeds, n, d)
    return Problem(data.X, data.outputs(drawn(seeds, d).abs()))


def minimized(data, seed, objective, **variable):
    cp = pytest.importorskip("cvxpy")
    w = cp.Variable(data.d, **variable)
    program = cp.Problem(cp.Minimize(objective(cp, w)), [data.X[seed].numpy() @ w == data.y[seed].numpy()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would not promise the last digits
        program.solve(solver="CLARABEL", tol_gap_abs=1e-13, tol_gap_rel=1e-13, tol_feas=1e-13)
    return torch.as_tensor(w.value)


@pytest.mark.parametrize("potential", POTENTIALS, ids=repr)
def test_newton_solves_the_system_and_its_duals_lie_in_the_span(potential):
    data = regression(3, 4, 9)
    w = bregman_interpolant(data, potential)
    assert (left(data, w) < 1e-11).all()
    z, basis = potential.dual(w), torch.linalg.svd(data.X, full_matrices=False)[2]
    outside = z - torch.einsum("snd,sne,se->sd", basis, basis, z)
    assert (outside.norm(dim=1) < 1e-7 * z.norm(dim=1)).all()


@pytest.mark.parametrize("potential", [HypEntropy(0.1), PNorm(1.5), DiagonalFlow(0.2, 3)], ids=repr)
def test_flow_ends_where_newton_does(potential):
    data = regression(2, 3, 6)
    torch.testing.assert_close(flow_interpolant(data, potential), bregman_interpolant(data, potential), rtol=0, atol=1e-8)


def test_newton_against_cvxpy():
    data = positive()
    start = drawn(3, 9, seed=2).exp()
    found = bregman_interpolant(data, Entropy(), start)
    entropy = minimized(data, 0, lambda cp, w: cp.sum(cp.kl_div(w, start[0].numpy())))
    torch.testing.assert_close(found[0], entropy, rtol=0, atol=1e-6)
    powers = minimized(data, 1, lambda cp, w: cp.sum(cp.power(cp.abs(w), 1.5)))
    torch.testing.assert_close(bregman_interpolant(data, PNorm(1.5))[1], powers, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm, cvx", [(L1(), 1), (L2(), 2), (Linf(), "inf"), (Lp(3.0), 3)], ids=repr)
def test_smallest_norms_against_cvxpy(norm, cvx):
    data = regression(2, 4, 9)
    w = norm_interpolant(data, norm)
    assert (left(data, w) < 1e-11).all()
    for seed in range(2):
        other = minimized(data, seed, lambda cp, w: cp.norm(w, cvx) if cvx != 3 else cp.pnorm(w, 3))
        torch.testing.assert_close(norm.measure(w)[seed], norm.measure(other[None])[0], rtol=1e-6, atol=0)


def test_many_seeds_are_solved_as_one_by_one_and_examples_that_repeat_change_nothing():
    data, potential = regression(3, 4, 9), HypEntropy(0.01)
    whole = bregman_interpolant(data, potential)
    for seed in range(3):
        alone = Problem(data.X[seed : seed + 1], data.y[seed : seed + 1])
        torch.testing.assert_close(bregman_interpolant(alone, potential), whole[seed : seed + 1])
    twice = Problem(torch.cat([data.X, 2 * data.X[:, :2]], 1), torch.cat([data.y, 2 * data.y[:, :2]], 1))
    torch.testing.assert_close(bregman_interpolant(twice, potential), whole, rtol=0, atol=1e-9)


def test_a_large_and_a_small_start_are_the_smallest_l2_and_l1_norms():
    data = regression(3, 6, 20, nonzero=2)
    torch.testing.assert_close(bregman_interpolant(data, HypEntropy(1e6)), nearest_interpolant(data), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        L1().measure(bregman_interpolant(data, HypEntropy(1e-16))), L1().measure(norm_interpolant(data, L1())), rtol=2e-2, atol=0
    )


def test_the_lasso_path_against_cvxpy_and_its_ends():
    cp = pytest.importorskip("cvxpy")
    data = regression(2, 8, 6, noise=1.0)
    paths = lasso_path(data)
    for seed, path in enumerate(paths):
        assert path.radii[0] == 0 and (path.radii.diff() >= -1e-12).all()
        least = torch.linalg.lstsq(data.X[seed], data.y[seed, :, None]).solution[:, 0]
        torch.testing.assert_close(path.weights[-1], least, rtol=0, atol=1e-8)
        for share in (0.2, 0.5, 0.8):
            radius = share * float(path.radii[-1])
            w = cp.Variable(6)
            residual = data.X[seed].numpy() @ w - data.y[seed].numpy()
            cp.Problem(cp.Minimize(cp.sum_squares(residual)), [cp.norm1(w) <= radius]).solve(solver="CLARABEL")
            torch.testing.assert_close(lasso_at(data, radius)[seed], torch.as_tensor(w.value), rtol=0, atol=1e-4)


def test_the_null_space_constant_against_its_dual():
    """The smallest bound on ``|X^T nu|`` off the support, among all that give the signs on it."""
    cp = pytest.importorskip("cvxpy")
    data = regression(3, 10, 20, nonzero=2)
    w = norm_interpolant(data, L1())
    rho = null_space_constant(data, w)
    assert (rho < 1).all()
    for seed in range(3):
        on = (w[seed].abs() > 1e-9).numpy()
        nu, X = cp.Variable(10), data.X[seed].numpy()
        program = cp.Problem(cp.Minimize(cp.norm_inf(X[:, ~on].T @ nu)), [X[:, on].T @ nu == w[seed].sign().numpy()[on]])
        program.solve(solver="CLARABEL")
        assert abs(program.value - float(rho[seed])) < 1e-6


def test_the_nuclear_norm_of_diagonal_examples_is_the_l1_norm():
    pytest.importorskip("cvxpy")
    data = regression(2, 2, 4)
    matrices = Problem(torch.diag_embed(data.X).flatten(2), data.y)
    found = nuclear_interpolant(matrices, 4)
    small = L1().measure(norm_interpolant(data, L1()))
    torch.testing.assert_close(torch.linalg.svdvals(found).sum(1), small, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "ask, said",
    [
        (nearest_interpolant, "no weights solve the system of problem [01]: the best leave a share of 0[.]"),
        (lambda data: bregman_interpolant(data, Quadratic()), "no weights solve the system"),
        (lambda data: norm_interpolant(data, L1()), "no weights solve the system"),
        (lambda data: flow_interpolant(data, Quadratic()), "no weights solve the system"),
        (lambda data: nuclear_interpolant(data, 1), "no weights solve the system"),
    ],
)
def test_a_system_without_solution_is_refused(ask, said):
    with pytest.raises(UserError, match=said):
        ask(regression(2, 5, 3, noise=1.0))


def test_other_wrong_questions_are_refused():
    negative = problem([[1.0, 1.0]], [-1.0])
    with pytest.raises(UserError, match="found no solution for Entropy"):
        bregman_interpolant(negative, Entropy())
    with pytest.raises(UserError, match="positive weights only"):
        bregman_interpolant(negative, Entropy(), torch.zeros(1, 2).double())
    with pytest.raises(UserError, match="L1, L2, Linf and Lp, not for Spectral"):
        norm_interpolant(negative, Spectral())
    with pytest.raises(UserError, match="no matrices of 3 rows"):
        nuclear_interpolant(negative, 3)
