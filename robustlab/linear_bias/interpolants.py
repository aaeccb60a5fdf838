"""Exact solutions of ``X w = y``, by solvers: what the theory says that an optimizer picks among all of them.

From a problem to weights ``(S, d)``, float64, each seed by itself. A system that no weights solve is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustlab.errors import UserError
from robustlab.linear_bias.potentials import PNorm, Potential
from robustlab.linear_bias.problems import Problem
from robustlab.linear_bias.solvers import cvxpy, scipy_integrate, scipy_optimize, solve_program
from robustlab.norms import L1, L2, Linf, Lp, Norm

INFEASIBLE = 1e-8  # the residual of the nearest solution, relative to the targets, above which there is none
STALLED = 1e-9  # the same of Newton's method and of flow
EVALUATIONS = 200_000  # of a flow's velocity, at most


def nearest_interpolant(problem: Problem, start: Tensor | None = None) -> Tensor:
    """The solution of ``X w = y`` that is nearest to ``start`` in L2, ``(S, d)``; the shortest one if there is no start.

    Raises:
        UserError: no weights solve the system.
    """
    origin = problem.X.new_zeros(len(problem.X), problem.d) if start is None else start
    missing = problem.y - problem.outputs(origin)
    found = origin + torch.linalg.lstsq(problem.X, missing[..., None], driver="gelsd").solution[..., 0]
    _refuse_infeasible(problem, found)
    return found


def bregman_interpolant(problem: Problem, potential: Potential, start: Tensor | None = None, *, steps: int = 300) -> Tensor:
    """The solution of ``X w = y`` that is nearest to ``start`` in the Bregman divergence of a potential, ``(S, d)``.

    Newton's method on the dual: ``w = inverse(dual(start) + X^T lam)``, with ``lam`` such that ``X w = y``.

    Args:
        start: ``(S, d)``; where the potential is smallest if left out.
        steps: at most.

    Raises:
        UserError: no weights solve the system, none in the potential's domain does, or the method stalls before they are found.
    """
    origin = problem.X.new_full((len(problem.X), problem.d), potential.origin) if start is None else start
    potential.check(origin)
    nearest_interpolant(problem)
    rows, targets, known = _orthogonal(problem, len(origin))
    origin_dual, size = potential.dual(origin), 1 + targets.abs().amax(1)

    def weights(lam: Tensor) -> Tensor:
        return potential.inverse(origin_dual + _times(rows.mT, lam))

    def residual(lam: Tensor) -> Tensor:
        return _times(rows, weights(lam)) - targets

    lam = _best_of(residual, torch.zeros_like(targets), 2.0**10 * (targets - _times(rows, origin)))
    for _ in range(steps):
        missing = residual(lam)
        if (missing.abs().amax(1) <= 1e-15 * size).all():
            break
        slope = potential.inverse_slope(origin_dual + _times(rows.mT, lam)).clamp(1e-280, 1e280)
        hessian = (rows * slope[:, None]) @ rows.mT + torch.diag_embed(1 - known)
        lam, before = _best_of(residual, lam, -_solved(hessian, missing)), lam
        if torch.equal(lam, before):
            break
    left = (residual(lam).abs().amax(1) / size).max().item()
    if not left <= STALLED:
        raise UserError(
            f"found no solution for {potential!r}: Newton's method ends at the relative residual {left:.1e}; there is none in its domain, "
            "or the weights are too many orders of magnitude away from its scale"
        )
    return weights(lam)


def norm_interpolant(problem: Problem, norm: Norm) -> Tensor:
    """The solution of ``X w = y`` with the smallest norm, ``(S, d)``: a vertex for L1 and Linf, where there may be others.

    Raises:
        UserError: no weights solve the system, or a norm other than ``L1``, ``L2``, ``Linf`` and ``Lp``.
    """
    shortest = nearest_interpolant(problem)
    if isinstance(norm, L2):
        return shortest
    if isinstance(norm, Lp):
        return bregman_interpolant(problem, PNorm(norm.p))
    if not isinstance(norm, L1 | Linf):
        raise UserError(f"an interpolant of smallest norm is known for L1, L2, Linf and Lp, not for {norm!r}")
    return _each(_smallest_l1 if isinstance(norm, L1) else _smallest_linf, problem)


def flow_interpolant(problem: Problem, potential: Potential, start: Tensor | None = None, *, horizon: float = 1e12) -> Tensor:
    """Where mirror flow, mirror descent of infinitely small steps, ends, ``(S, d)``: its ordinary differential equation in the dual,
    ``lam' = y - X inverse(dual(start) + X^T lam)``, solved by an implicit method (Radau) until the outputs are the targets.

    Args:
        start: ``(S, d)``; where the potential is smallest if left out.
        horizon: the longest time.

    Raises:
        UserError: no weights solve the system, or they are not reached before the horizon.
    """
    origin = problem.X.new_full((len(problem.X), problem.d), potential.origin) if start is None else start
    potential.check(origin)
    nearest_interpolant(problem)
    X, y = problem.X.expand(len(origin), -1, -1), problem.y.expand(len(origin), -1)
    return torch.stack([_flow(*each, potential, horizon) for each in zip(X, y, potential.dual(origin), strict=True)])


def nuclear_interpolant(problem: Problem, rows: int, *, positive: bool = False) -> Tensor:
    """The matrix ``W`` of smallest nuclear norm with ``<X_n, W> = y_n``, ``(S, rows, columns)``; examples are matrices, row by row.

    Args:
        rows: of the matrices; ``d`` is a multiple of it.
        positive: only among symmetric matrices without negative eigenvalues, where the norm is the trace.

    Raises:
        UserError: no matrix does that, or ``d`` is no multiple of ``rows``.
    """
    if problem.d % rows:
        raise UserError(f"examples of {problem.d} values are no matrices of {rows} rows")
    nearest_interpolant(problem)

    def one(X: Any, y: Any) -> Any:
        cp = cvxpy()
        shape = rows, problem.d // rows
        W = cp.Variable(shape, PSD=True) if positive else cp.Variable(shape)
        objective = cp.trace(W) if positive else cp.normNuc(W)
        solve_program(cp.Problem(cp.Minimize(objective), [X @ cp.vec(W, order="C") == y]))
        return W.value.reshape(-1)

    return _each(one, problem).reshape(len(problem.X), rows, -1)


@dataclass(frozen=True, eq=False)
class LassoPath:
    """All solutions of ``min ‖X w - y‖^2`` over ``‖w‖_1 <= radius``, which are linear between knots.

    Attributes:
        radii: of the knots, rising from 0, ``(K,)``.
        weights: at the knots, ``(K, d)``.
    """

    radii: Tensor
    weights: Tensor

    def at(self, radius: Tensor) -> Tensor:
        """The solutions at some radii, ``(R,)``, as ``(R, d)``; beyond the last knot that one."""
        if len(self.radii) == 1:
            return self.weights.expand(len(radius), -1)
        inside = radius.clamp(0, float(self.radii[-1]))
        right = torch.searchsorted(self.radii, inside).clamp(1, len(self.radii) - 1)
        left = right - 1
        width = (self.radii[right] - self.radii[left]).clamp(min=1e-300)
        share = ((inside - self.radii[left]) / width)[:, None]
        return self.weights[left] + share * (self.weights[right] - self.weights[left])

    @property
    def fall(self) -> float:
        """The largest fall of a weight's absolute value along the path, relative to the largest weight: zero for a monotone path."""
        size = self.weights.abs()
        return float((size.cummax(0).values - size).max() / size.max().clamp(min=1e-300))


def lasso_path(problem: Problem, *, knots: int = 10_000) -> list[LassoPath]:
    """The whole path of the lasso for each seed, by homotopy (Osborne et al. 2000; the lasso variant of LARS, Efron et al. 2004).

    Raises:
        UserError: the path has more ``knots`` than that.
    """
    X, y = problem.X.numpy(), problem.y.numpy()
    return [_homotopy(X[s], y[s], knots) for s in range(len(X))]


def lasso_at(problem: Problem, radius: float) -> Tensor:
    """The solution of ``min ‖X w - y‖^2`` over ``‖w‖_1 <= radius``, ``(S, d)``."""
    return torch.cat([path.at(torch.tensor([radius], dtype=problem.X.dtype)) for path in lasso_path(problem)])


def null_space_constant(problem: Problem, w: Tensor) -> Tensor:
    """How nearly another solution is as short in L1 as ``w`` is, ``(S,)``: the largest ``<sign w, h>`` over ``X h = 0`` with L1 norm 1
    outside the support of ``w``. Below 1 exactly where ``w`` is the only solution of smallest L1 norm; one linear program each.

    By duality it is also the smallest bound on ``|X^T nu|`` outside the support among all ``nu`` that give ``sign w`` on it.

    Args:
        w: solutions of smallest L1 norm, ``(S, d)``.
    """
    optimize, found = scipy_optimize(), []
    for X, each in zip(problem.X.numpy(), w.numpy(), strict=True):
        on = np.abs(each) > 1e-9 * np.abs(each).max()
        off = ~on
        if not off.any():
            found.append(0.0)
            continue
        # h on the support, then its positive and its negative part off it
        cost = np.concatenate([-np.sign(each[on]), np.zeros(2 * off.sum())])
        equal = np.concatenate([X[:, on], X[:, off], -X[:, off]], 1)
        sum_of = np.concatenate([np.zeros(on.sum()), np.ones(2 * off.sum())])[None]
        bounds = [(None, None)] * int(on.sum()) + [(0, None)] * int(2 * off.sum())
        answer = optimize.linprog(cost, A_ub=sum_of, b_ub=[1.0], A_eq=equal, b_eq=np.zeros(len(X)), bounds=bounds, method="highs")
        found.append(-answer.fun if answer.status == 0 else float("inf"))
    return torch.tensor(found, dtype=w.dtype)


def _each(solver: Callable[[Any, Any], Any], problem: Problem) -> Tensor:
    """A solver of one problem in NumPy, on each."""
    return torch.stack([torch.as_tensor(solver(X, y)).double() for X, y in zip(problem.X.numpy(), problem.y.numpy(), strict=True)])


def _refuse_infeasible(problem: Problem, w: Tensor) -> None:
    off = (problem.outputs(w) - problem.y).norm(dim=1) / problem.y.norm(dim=1).clamp(min=1e-300)
    if off.max() > INFEASIBLE:
        raise UserError(
            f"no weights solve the system of problem {int(off.argmax())}: the best leave a share of {off.max().item():.2g} of the "
            "targets, and an interpolant needs at least as many values as independent examples"
        )


def _orthogonal(problem: Problem, seeds: int) -> tuple[Tensor, Tensor, Tensor]:
    """An equal system with orthonormal rows, their targets, and which rows there are: where examples depend on others, 0."""
    left, size, right = torch.linalg.svd(problem.X, full_matrices=False)
    known = (size > size[:, :1] * (max(problem.X.shape[1:]) * torch.finfo(size.dtype).eps)).to(size.dtype)
    targets = known * _times(left.mT, problem.y) / torch.where(known > 0, size, 1)
    rows = right * known[..., None]
    return rows.expand(seeds, -1, -1), targets.expand(seeds, -1), known.expand(seeds, -1)


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    return torch.bmm(matrices, vectors[..., None])[..., 0]


def _solved(matrices: Tensor, vectors: Tensor) -> Tensor:
    """The solution of symmetric systems whose rows may be of very different size."""
    scale = matrices.diagonal(dim1=1, dim2=2).clamp(min=1e-300).rsqrt()
    scaled = matrices * scale[:, None] * scale[..., None]
    solution, info = torch.linalg.solve_ex(scaled, scale * vectors)
    if info.any() or not solution.isfinite().all():
        ridge = 1e-12 * torch.eye(scaled.shape[-1], dtype=scaled.dtype)
        solution = torch.linalg.solve(scaled + ridge, scale * vectors)
    return scale * solution


def _best_of(residual: Callable[[Tensor], Tensor], lam: Tensor, direction: Tensor) -> Tensor:
    """The point along a direction, at one of many lengths, that leaves the smallest residual; ``lam`` itself where none is better."""
    best, least = lam, residual(lam).norm(dim=1)
    for length in 2.0 ** -torch.arange(0, 60, dtype=lam.dtype):
        there = lam + length * direction
        left = residual(there).norm(dim=1)
        better = left < least
        best, least = torch.where(better[:, None], there, best), torch.where(better, left, least)
    return best


def _smallest_l1(X: Any, y: Any) -> Any:
    d = X.shape[1]
    answer = scipy_optimize().linprog(np.ones(2 * d), A_eq=np.concatenate([X, -X], 1), b_eq=y, bounds=(0, None), method="highs-ds")
    _refuse_unsolved(answer)
    return answer.x[:d] - answer.x[d:]


def _smallest_linf(X: Any, y: Any) -> Any:
    d = X.shape[1]
    cost, eye, ones = np.append(np.zeros(d), 1.0), np.eye(d), np.ones((d, 1))
    within = np.block([[eye, -ones], [-eye, -ones]])
    equal = np.concatenate([X, np.zeros((len(X), 1))], 1)
    bounds = [(None, None)] * d + [(0, None)]
    answer = scipy_optimize().linprog(cost, A_ub=within, b_ub=np.zeros(2 * d), A_eq=equal, b_eq=y, bounds=bounds, method="highs-ds")
    _refuse_unsolved(answer)
    return answer.x[:d]


def _refuse_unsolved(answer: Any) -> None:
    if answer.status != 0:
        raise UserError(f"the linear program has no solution: {answer.message}")


def _flow(X: Tensor, y: Tensor, origin: Tensor, potential: Potential, horizon: float) -> Tensor:
    """Mirror flow of one problem; ``origin`` is the dual of its start."""
    evaluations, size = 0, y.norm().clamp(min=1e-300)

    def dual(lam: Any) -> Tensor:
        return (origin + X.mT @ torch.as_tensor(lam))[None]

    def missing(lam: Any) -> Tensor:
        return y - X @ potential.inverse(dual(lam))[0]

    def velocity(t: float, lam: Any) -> Any:
        nonlocal evaluations
        evaluations += 1
        if evaluations > EVALUATIONS:
            raise UserError(f"the flow of {potential!r} is too stiff: at time {t:.3g} it is not at its end after {EVALUATIONS} evaluations")
        return missing(lam).numpy()

    def slope(t: float, lam: Any) -> Any:
        return -((X * potential.inverse_slope(dual(lam)).clamp(max=1e12)) @ X.mT).numpy()

    def left(t: float, lam: Any) -> float:
        return float((missing(lam).norm() / size / 1e-11).clamp(min=1e-300).log())

    left.terminal = True  # type: ignore[attr-defined]
    for rtol, atol in ((1e-6, 1e-9), (1e-10, 1e-13)):  # where the weights hang steeply on the dual, the first leaves too much
        settings = {"method": "Radau", "jac": slope, "events": left, "rtol": rtol, "atol": atol}
        with np.errstate(over="ignore"):  # of steps that are too long, which the method takes back
            path = scipy_integrate().solve_ivp(velocity, (0.0, horizon), np.zeros(len(y)), **settings)
        end = path.y[:, -1]
        share = float(missing(end).norm() / size)
        if share <= STALLED:
            break
    else:
        raise UserError(f"the flow has not reached the targets at time {path.t[-1]:.3g}: relative residual {share:.1e}")
    return potential.inverse(dual(end))[0]


def _homotopy(X: Any, y: Any, knots: int) -> LassoPath:
    """The path of one problem, from the largest penalty, at which all weights are zero, to none."""
    w, correlation = np.zeros(X.shape[1]), X.T @ y
    penalty = first = np.abs(correlation).max(initial=0.0)
    active: list[int] = [int(np.abs(correlation).argmax())]
    found = [w.copy()]
    while penalty > 1e-12 * first and len(found) <= knots:
        signs = np.sign(correlation[active])
        along = np.zeros_like(w)
        along[active] = np.linalg.lstsq(X[:, active].T @ X[:, active], signs, rcond=None)[0]
        step, event = _next_event(w, along, correlation, X.T @ (X @ along), penalty, active)
        w, penalty = w + step * along, penalty - step
        if event is not None and event in active:
            w[event] = 0.0
            active.remove(event)
        elif event is not None:
            active.append(event)
        correlation = X.T @ (y - X @ w)
        if step > 0:
            found.append(w.copy())
        if event is None or not active:
            break
    if len(found) > knots:
        raise UserError(f"the lasso path has more than {knots} knots")
    weights = torch.as_tensor(np.array(found))
    return LassoPath(weights.abs().sum(1), weights)


def _next_event(w: Any, along: Any, correlation: Any, falling: Any, penalty: float, active: list[int]) -> tuple[float, int | None]:
    """How far the penalty falls until a weight joins or leaves, and which; None where it falls to zero before."""
    best, which = penalty, None
    for j in range(len(w)):
        if j in active:
            if along[j] * w[j] < 0 and -w[j] / along[j] < best:
                best, which = -w[j] / along[j], j
            continue
        for sign in (1, -1):
            # sign * (correlation - t * falling) = penalty - t
            rate, room = 1 - sign * falling[j], penalty - sign * correlation[j]
            # One that has just left stands at the border and goes inwards; rounding must not take it in again.
            if rate > 1e-12 and 1e-11 * penalty < room and room / rate < best:
                best, which = room / rate, j
    return best, which
