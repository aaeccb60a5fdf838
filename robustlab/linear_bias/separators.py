"""The largest margins, by solvers: what the theory says that an optimizer picks where two classes can be separated.

One problem at a time, in float64. Every solution comes with the mixture of examples that proves it, see ``certificates``; one that is not
proven is not returned.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from robustlab.errors import UserError
from robustlab.linear_bias import solvers
from robustlab.linear_bias.potentials import PNorm, Potential, Quadratic
from robustlab.linear_bias.problems import Problem
from robustlab.norms import L1, L2, FourierL1, FourierLinf, Linf, Lp, Norm, Nuclear, Shaped, Spectral

PROVEN = 1e-5  # how far, as a share, a solver's margin may be from the bound that its own mixture proves
PATH_ERROR = 1e-7  # of the margins of a point of a path, as a share; rounding allows no less where weights are very large
SEPARABLE = 1e-9  # a margin below this share of the longest example counts as none


@dataclass(frozen=True)
class Separator:
    """The separators of largest margin.

    Attributes:
        w: the shortest weights with ``y_n <w, x_n> >= 1`` for all examples, ``(S, d)``: their smallest product is 1.
        margin: ``1 / ‖w‖``, the smallest distance of an example to the boundary in the dual norm, ``(S,)``.
        mixture: weights of the examples, at least 0 and of sum 1, ``(S, n)``: the mixed row ``sum_n q_n y_n x_n`` has the dual norm
            ``margin``, so no margin is larger. Those above 0 are support vectors.
    """

    w: Tensor
    margin: Tensor
    mixture: Tensor


def max_margin(problem: Problem, norm: Norm) -> tuple[Tensor, Tensor]:
    """The separator of largest margin in a norm, and that margin.

    Linear programs for L1 and Linf, nonnegative least squares for L2, cone programs for ``Lp``, ``FourierL1``, ``FourierLinf``, and for
    ``Shaped(Spectral(), shape)`` and ``Shaped(Nuclear(), shape)`` on examples that are flat matrices. In L1 and Linf there may be
    several solutions; one of them is returned.

    Returns:
        ``w``, ``(S, d)``, the shortest weights with ``y_n <w, x_n> >= 1`` for all examples; and the margin ``1 / ‖w‖``, ``(S,)``.

    Raises:
        UserError: data that cannot be separated, with the mixture that proves it; labels that are not of two classes; a norm without a
            solver; a solver that fails.
    """
    found = separator(problem, norm)
    return found.w, found.margin


def separator(problem: Problem, norm: Norm) -> Separator:
    """``max_margin`` with the mixture of examples that proves it.

    Raises:
        UserError: as ``max_margin``.
    """
    return _separators(problem.signed, norm)


def multiclass_max_margin(X: Tensor, y: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """The weights of largest margin between classes: ``min ‖W‖`` over ``<W_y - W_k, x> >= 1`` for all examples and other classes ``k``.

    Args:
        X: examples, ``(S, n, d)``.
        y: class numbers from 0, ``(S, n)``; there are as many classes as the largest says.
        norm: of ``W``, ``(K, d)``, as a matrix, such as ``Spectral()``, or flat, such as ``Linf()``.

    Returns:
        ``W``, ``(S, K, d)``, and the margin ``1 / ‖W‖``, ``(S,)``.

    Raises:
        UserError: as ``max_margin``; class numbers that are none, or one class only.
    """
    rows, shape = multiclass_rows(X, y)
    found = _separators(rows, Shaped(norm, shape) if isinstance(norm, (Spectral, Nuclear)) else norm)
    return found.w.reshape(-1, *shape), found.margin


def multiclass_rows(X: Tensor, y: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """A row for each example and each class that is not its own: ``(e_y - e_k) x^T``, flat, so that its product with ``W`` is a margin.

    Returns:
        Rows, ``(S, n (K - 1), K d)``, and the shape of ``W``, ``(K, d)``.

    Raises:
        UserError: class numbers that are none, or one class only.
    """
    Problem(X, y.to(X))  # shapes, and numbers that are finite
    classes = y.long()
    if not (classes == y).all() or classes.min() < 0:
        raise UserError("classes must be whole numbers from 0")
    count = int(classes.max()) + 1
    if count < 2:
        raise UserError("a margin needs examples of two classes at least, and there is one class only")
    unit = torch.eye(count, dtype=X.dtype)
    others = torch.stack([torch.tensor([k for k in range(count) if k != own]) for own in range(count)])[classes]  # (S, n, K - 1)
    apart = unit[classes][:, :, None] - unit[others]
    rows = apart[..., None] * X[:, :, None, None]
    return rows.reshape(len(X), -1, count * X.shape[2]), (count, X.shape[2])


def _separators(signed: Tensor, norm: Norm) -> Separator:
    solve = _solver(norm)
    found = []
    for seed, rows in enumerate(signed):
        scale = L2().measure(rows).max()
        weights, duals = solve((rows / scale).numpy(), norm)
        found.append(_proven(rows, norm, weights, duals, f"problem {seed}" if len(signed) > 1 else "the problem"))
    w, margin, mixture = zip(*found, strict=True)
    return Separator(torch.stack(w), torch.stack(margin), torch.stack(mixture))


def _proven(rows: Tensor, norm: Norm, weights: Any, duals: Any, name: str) -> tuple[Tensor, Tensor, Tensor]:
    """A solver's answer, scaled so that the smallest product is 1, with its margin and its mixture."""
    if weights is None or duals is None:
        raise _inseparable(rows, norm, name)
    w, raised = torch.from_numpy(np.asarray(weights, float)), torch.from_numpy(np.asarray(duals, float)).clamp(min=0)
    smallest, mixture = (rows @ w).min(), raised / raised.sum()
    reached, most = smallest / norm.measure(w[None])[0], norm.dual.measure((mixture @ rows)[None])[0]
    if not most > SEPARABLE * norm.dual.measure(rows).max():
        raise _inseparable(rows, norm, name)
    if not reached >= (1 - PROVEN) * most:
        raise UserError(
            f"{name}: the solver stopped at a margin of {float(reached):.6g}, and all that is proven is that none exceeds {float(most):.6g}"
        )
    return w / smallest, reached, mixture


def _inseparable(rows: Tensor, norm: Norm, name: str) -> UserError:
    """The refusal of data that no weights separate, with the mixture of rows that shows it: its dual norm is no more than rounding."""
    mixture = _short_mixture(rows)
    size, longest = norm.dual.measure((mixture @ rows)[None])[0], norm.dual.measure(rows).max()
    heaviest = [row for row in mixture.argsort(descending=True).tolist() if mixture[row] > 0]
    shown = ", ".join(f"{float(mixture[row]):.2g} of example {row}" for row in heaviest[:3])
    more = f" and {len(heaviest) - 3} more" if len(heaviest) > 3 else ""
    return UserError(
        f"{name} cannot be separated: the mixture {shown}{more} of the rows y x has the dual norm {float(size):.2g}, where the longest row "
        f"has {float(longest):.2g}, and no margin exceeds that of a mixture; `split_nonseparable` finds the part that can be separated"
    )


def _short_mixture(rows: Tensor) -> Tensor:
    """The mixture of rows of the smallest L2 norm, ``(n,)``."""
    return torch.from_numpy(_shortest(rows.numpy() / float(L2().measure(rows).max()))[0])


def _shortest(rows: Any) -> tuple[Any, Any]:
    """The mixture ``q`` with the smallest ``‖q^T rows‖``, and that mixed row: the least distance program as nonnegative least squares
    (Lawson and Hanson 1974, chapter 23)."""
    stacked = np.vstack([rows.T, np.ones(len(rows))])
    target = np.append(np.zeros(rows.shape[1]), 1.0)
    raw, _ = solvers.scipy_optimize().nnls(stacked, target, maxiter=30 * max(rows.shape))
    mixture = raw / raw.sum()
    return mixture, mixture @ rows


def _by_least_squares(rows: Any, norm: Norm) -> tuple[Any, Any]:
    mixture, mixed = _shortest(rows)
    return (mixed, mixture) if np.linalg.norm(mixed) > SEPARABLE else (None, None)


def _by_linear_program(rows: Any, norm: Norm) -> tuple[Any, Any]:
    """L1: ``w = p - q``, ``min sum (p + q)``; Linf: ``min t`` over ``-t <= w <= t``; each over ``rows w >= 1``."""
    n, d = rows.shape
    if isinstance(norm, L1):
        cost, unequal, right, lowest = np.ones(2 * d), np.hstack([-rows, rows]), -np.ones(n), 0.0
    else:
        unit, ones = np.eye(d), np.ones((d, 1))
        cost = np.append(np.zeros(d), 1.0)
        unequal = np.vstack([np.hstack([-rows, np.zeros((n, 1))]), np.hstack([unit, -ones]), np.hstack([-unit, -ones])])
        right, lowest = np.append(-np.ones(n), np.zeros(2 * d)), -np.inf
    found = solvers.scipy_optimize().linprog(cost, A_ub=unequal, b_ub=right, bounds=(lowest, None), method="highs")
    if found.x is None:
        return None, None
    weights = found.x[:d] - found.x[d:] if isinstance(norm, L1) else found.x[:d]
    return weights, -found.ineqlin.marginals[:n]


def _by_cone_program(rows: Any, norm: Norm) -> tuple[Any, Any]:
    cp = solvers.cvxpy()
    w = cp.Variable(rows.shape[1])
    separates = rows @ w >= 1
    task = cp.Problem(cp.Minimize(_expression(cp, norm, w)), [separates])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a solution may be inaccurate: it is measured
        try:
            task.solve(solver=cp.CLARABEL)
        except cp.SolverError as error:
            raise UserError(f"the cone solver failed on {norm!r}: {error}") from None
    return w.value, separates.dual_value


def _expression(cp: Any, norm: Norm, w: Any) -> Any:
    """The norm of a variable, in cvxpy's words."""
    if isinstance(norm, Shaped):
        matrix = cp.reshape(w, norm.shape, order="C")
        return cp.sigma_max(matrix) if isinstance(norm.norm, Spectral) else cp.normNuc(matrix)
    if isinstance(norm, (FourierL1, FourierLinf)):
        alone, paired = _moduli(cp, w)
        return cp.sum(alone) + 2 * cp.sum(paired) if isinstance(norm, FourierL1) else cp.max(cp.hstack([alone, paired]))
    assert isinstance(norm, Lp)
    return cp.pnorm(w, norm.p)


def _moduli(cp: Any, w: Any) -> tuple[Any, Any]:
    """The moduli of a real variable's spectrum: at the frequencies that stand alone, and at one of each pair below and above zero."""
    waves = np.fft.fft(np.eye(w.size), norm="ortho")
    alone = [k for k in range(w.size) if 2 * k % w.size == 0]
    pairs = waves[1 : (w.size + 1) // 2]
    paired = cp.norm(cp.vstack([pairs.real @ w, pairs.imag @ w]), 2, axis=0) if len(pairs) else np.zeros(1)
    return cp.abs(waves[alone].real @ w), paired


def _solver(norm: Norm) -> Callable[[Any, Norm], tuple[Any, Any]]:
    if isinstance(norm, L2):
        return _by_least_squares
    if isinstance(norm, (L1, Linf)):
        return _by_linear_program
    matrices = isinstance(norm, Shaped) and isinstance(norm.norm, (Spectral, Nuclear)) and len(norm.shape) == 2
    if matrices or isinstance(norm, (Lp, FourierL1, FourierLinf)):
        return _by_cone_program
    if isinstance(norm, (Spectral, Nuclear)):
        raise UserError(f"examples are flat here: write Shaped({norm!r}, (rows, columns)) for a norm of matrices")
    raise UserError(f"no solver for margins in {norm!r}; there is one for L1, L2, Linf, Lp, FourierL1, FourierLinf, Spectral and Nuclear")


def margin_path(problem: Problem, potential: Potential, gammas: Sequence[float] | Tensor) -> Tensor:
    """``argmin psi(w)`` over ``y_n <w, x_n> >= gamma`` for every ``gamma``: where mirror descent is, as far as its margin has come.

    Divided by ``gamma``, which then goes to infinity, it goes to a separator that ``psi`` alone decides.

    Args:
        gammas: margins above 0: ``(G,)`` for all problems, or ``(G, S)``.

    Returns:
        Weights, ``(G, S, d)``.

    Raises:
        UserError: a ``gamma`` that is not above 0, data that no weights of the potential's domain separate, or a solver that fails.
    """
    signed = problem.signed
    wanted = torch.as_tensor(gammas, dtype=signed.dtype)
    wanted = wanted[:, None].expand(-1, len(signed)) if wanted.ndim == 1 else wanted
    if not (wanted > 0).all() or not wanted.isfinite().all():
        raise UserError(f"gammas must be finite and above 0, got {wanted.min().item():g}")
    if isinstance(potential, (PNorm, Quadratic)):  # a power of a norm: the path is a ray
        return wanted[..., None] * max_margin(problem, Lp(potential.p) if isinstance(potential, PNorm) else L2())[0]
    max_margin(problem, L2())  # refuses what cannot be separated
    paths = [_path_of_one(rows, potential, wanted[:, seed], f"problem {seed}") for seed, rows in enumerate(signed)]
    return torch.stack(paths, 1)


def _path_of_one(rows: Tensor, potential: Potential, gammas: Tensor, name: str) -> Tensor:
    weights = [torch.zeros(0)] * len(gammas)
    gamma = min(1e-3 * float(L2().measure(rows).max()), float(gammas.min()))
    duals = _path_point(rows, potential, gamma, 1e-3 * gamma * _short_mixture(rows))
    for place in gammas.argsort().tolist():
        if duals is not None:
            duals = _along(rows, potential, gamma, float(gammas[place]), duals)
        if duals is None:
            raise UserError(
                f"{name}: no weights with margin {float(gammas[place]):g} on the path of {potential!r} were found: none in its domain "
                "separate the data, or the numbers are too large"
            )
        gamma, weights[place] = float(gammas[place]), potential.inverse((duals @ rows)[None])[0]
    return torch.stack(weights)


def _along(rows: Tensor, potential: Potential, gamma: float, to: float, duals: Tensor, halvings: int = 12) -> Tensor | None:
    """From the dual solution at one gamma to that at a larger one, in as many parts as Newton's method needs."""
    if to <= gamma:
        return duals
    found = _path_point(rows, potential, to, duals) if to < 100 * gamma else None
    if found is not None or halvings == 0:
        return found
    middle = math.sqrt(gamma) * math.sqrt(to)
    halfway = _along(rows, potential, gamma, middle, duals, halvings - 1)
    return None if halfway is None else _along(rows, potential, middle, to, halfway, halvings - 1)


def _path_point(rows: Tensor, potential: Potential, gamma: float, duals: Tensor) -> Tensor | None:
    """Newton steps on the dual, ``min psi*(rows^T a) - gamma sum a`` over ``a >= 0``, divided by gamma; each solves its quadratic model."""
    for _ in range(60):
        slack, missing = _slack(rows, potential, gamma, duals)
        if missing < PATH_ERROR:
            return duals
        root = rows * (potential.inverse_slope((duals @ rows)[None])[0] / gamma).sqrt()
        if not root.isfinite().all() or not slack.isfinite().all():
            return None
        moved = _model_solution(root, slack, duals)
        # Close to the solution the dual changes by less than rounding, and what is missing tells more.
        if not _slack(rows, potential, gamma, moved)[1] < missing / 2:
            moved = _shorter(rows, potential, gamma, duals, moved - duals, slack)
        if torch.equal(moved, duals):
            return None
        duals = moved
    return None


def _slack(rows: Tensor, potential: Potential, gamma: float, duals: Tensor) -> tuple[Tensor, float]:
    """Margins over gamma, less 1, ``(n,)``; and by how much they miss what they should be: 0 on support vectors, above it elsewhere,
    where the dual is 0."""
    slack = rows @ potential.inverse((duals @ rows)[None])[0] / gamma - 1
    return slack, float(torch.maximum(-slack, torch.minimum(slack, duals / duals.max().clamp(min=1e-300))).max())


def _model_solution(root: Tensor, slope: Tensor, duals: Tensor) -> Tensor:
    """``argmin ‖root^T (a - duals)‖^2 / 2 + slope (a - duals)`` over ``a >= 0``, ``(n,)``, as nonnegative least squares."""
    curvature = root @ root.T
    tiny = 1e-14 * curvature.diagonal().max()
    unit = torch.eye(len(duals), dtype=root.dtype)
    whole = torch.cat([root.T, tiny.sqrt() * unit])
    target = whole @ (duals - torch.linalg.lstsq(curvature + tiny * unit, slope[:, None], driver="gelsd").solution[:, 0])
    size = whole.abs().max()
    if not target.isfinite().all() or not size > 0:
        return duals
    try:
        found, _ = solvers.scipy_optimize().nnls((whole / size).numpy(), (target / size).numpy(), maxiter=30 * len(duals))
    except RuntimeError:  # too many iterations
        return duals
    moved = torch.from_numpy(found)
    held = moved > 0
    if torch.equal(held, duals > 0):  # the same support vectors: their step by itself loses fewer digits
        step = torch.linalg.lstsq(root[held] @ root[held].T, slope[held, None], driver="gelsd").solution[:, 0]
        exact = duals.clone()
        exact[held] -= step
        return exact if (exact >= 0).all() else moved
    return moved


def _shorter(rows: Tensor, potential: Potential, gamma: float, duals: Tensor, direction: Tensor, slack: Tensor) -> Tensor:
    """The step along the direction, projected, halved until the dual falls enough (Armijo)."""

    def dual(a: Tensor) -> float:
        z = (a @ rows)[None]
        w = potential.inverse(z)
        return float((z * w).sum() - potential.value(w)) / gamma - float(a.sum())

    here, share = dual(duals), 1.0
    while share > 1e-12:
        moved = (duals + share * direction).clamp(min=0)
        if dual(moved) <= here + 1e-4 * float(slack @ (moved - duals)):
            return moved
        share /= 2
    return duals


@dataclass(frozen=True)
class Split:
    """A problem in two parts (Ji and Telgarsky 2019).

    Attributes:
        separable: bool ``(S, n)``: the largest part of which all margins can be above zero while those of the rest are zero.
        direction: the separator of largest L2 margin of that part among those orthogonal to the rest, of unit length; zero where there
            is no such part, ``(S, d)``.
        basis: for each problem an orthonormal basis of the span of the rest, ``(rank, d)``.
    """

    separable: Tensor
    direction: Tensor
    basis: tuple[Tensor, ...]

    def within(self, w: Tensor) -> Tensor:
        """The part of weights ``(S, d)`` in the span of the rest, in which the loss has a minimizer."""
        return torch.stack([one @ basis.T @ basis for one, basis in zip(w, self.basis, strict=True)])


def split_nonseparable(problem: Problem) -> Split:
    """The largest part of a problem that can be separated beside the rest, by one linear program for each problem.

    Descent on an exponential tail goes along ``direction`` for ever, and within the span of the rest to the minimizer of the rest's loss.

    Raises:
        UserError: labels that are not of two classes, or scipy is missing.
    """
    parts = [_split(rows) for rows in problem.signed]
    separable, direction, basis = zip(*parts, strict=True)
    return Split(torch.stack(separable), torch.stack(direction), basis)


def _split(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    separable = _separable_part(rows)
    basis = rows.new_zeros(0, rows.shape[1]) if separable.all() else _row_space(_unit(rows)[~separable])
    if not separable.any():
        return separable, rows.new_zeros(rows.shape[1]), basis
    outside = rows[separable] - rows[separable] @ basis.T @ basis
    w = _separators(outside[None], L2()).w[0]
    return separable, w / w.norm(), basis


def _separable_part(rows: Tensor) -> Tensor:
    """The rows whose products can be above zero while those of the rest are zero, bool ``(n,)``: ``max sum s`` over
    ``unit rows w >= s``, ``0 <= s <= 1``, in which every row that can be above zero reaches 1."""
    n, d = rows.shape
    unequal = np.hstack([-_unit(rows).numpy(), np.eye(n)])
    bounds: list[tuple[Any, Any]] = [(None, None)] * d + [(0, 1)] * n
    cost = np.append(np.zeros(d), -np.ones(n))
    found = solvers.scipy_optimize().linprog(cost, A_ub=unequal, b_ub=np.zeros(n), bounds=bounds, method="highs")
    if found.x is None:
        raise UserError(f"the linear program of the separable part failed: {found.message}")
    return torch.from_numpy(found.x[d:]) > 0.5


def _unit(rows: Tensor) -> Tensor:
    return rows / L2().measure(rows)[:, None]


def _row_space(rows: Tensor) -> Tensor:
    _, values, right = torch.linalg.svd(rows, full_matrices=False)
    return right[values > values[0] * max(rows.shape) * math.sqrt(torch.finfo(rows.dtype).eps)]


def tail_direction(problem: Problem, power: float = 1.0) -> Tensor:
    """The direction of least ``sum_n m_n^-power``, ``m_n = y_n <w, x_n>``, on the unit sphere, ``(S, d)``: where descent on a loss with
    that tail goes, along the regularization path (Ji et al. 2020).

    Raises:
        UserError: data that cannot be separated, with the proof, or a power that is not above 0.
    """
    if not power > 0:
        raise UserError(f"the power of a tail must be above 0, got {power}")
    start, _ = max_margin(problem, L2())

    def value_slope_bend(rows: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m = rows @ w
        value = torch.where((m > 0).all(), (m.clamp(min=1e-300) ** -power).sum() + w @ w / 2, torch.inf)
        return value, w - power * m ** (-power - 1) @ rows, (rows.T * (power * (power + 1) * m ** (-power - 2))) @ rows

    found = [_newton(partial(value_slope_bend, rows), w, ridge=1.0) for rows, w in zip(problem.signed, start, strict=True)]
    w = torch.stack(found)
    return w / L2().measure(w)[:, None]


def logistic_minimizer(rows: Tensor) -> Tensor:
    """The shortest minimizer of ``sum_n log(1 + exp(-<w, z_n>))`` for rows ``z_n = y_n x_n`` of which no part can be separated, ``(d,)``.

    Args:
        rows: ``(n, d)``.

    Raises:
        UserError: there is none, since a part can be separated.
    """
    apart = int(_separable_part(rows).sum())
    if apart:
        raise UserError(f"the logistic loss has no minimizer: {apart} of {len(rows)} examples can be separated beside the rest")

    def value_slope_bend(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        m = rows @ w
        chance = torch.sigmoid(-m)
        return softplus(-m).sum(), -chance @ rows, (rows.T * (chance * (1 - chance))) @ rows

    return _newton(value_slope_bend, rows.new_zeros(rows.shape[1]))


def _newton(value_slope_bend: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]], w: Tensor, ridge: float = 0.0) -> Tensor:
    """The minimizer of a convex function, by Newton steps that are halved until the value falls; ``ridge`` is added to its curvature."""
    for _ in range(200):
        value, slope, bend = value_slope_bend(w)
        step = torch.linalg.lstsq(bend + ridge * torch.eye(len(w), dtype=w.dtype), slope[:, None], driver="gelsd").solution[:, 0]
        if slope @ step <= 1e-26 * (1 + value.abs()):
            return w - step
        share = 1.0
        while share > 1e-10 and not value_slope_bend(w - share * step)[0] <= value - 1e-4 * share * (slope @ step) + 1e-15 * value.abs():
            share /= 2
        w = w - share * step
    raise UserError("Newton's method found no minimizer in 200 steps")
