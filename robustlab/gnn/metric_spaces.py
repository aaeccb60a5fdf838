"""How far apart two finite metric spaces are: the Gromov-Hausdorff distance, exactly for tiny ones, between bounds for others; and the
Gromov-Wasserstein distance.

    X, Y = circle(5), circle(6)
    gromov_hausdorff(X, Y).value
    max(bound(X, Y) for bound in LOWER_BOUNDS.values())

A space is its matrix of distances, float64 ``(n, n)``. Both distances are assignment problems: the first of the bottleneck kind, the second
with masses that may be split.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.extras import cvxpy, scipy_module

MOST_STEPS = 2_000_000  # of the search for a correspondence
SOLVED = 1e-5  # what the SDP's forbidden mass may be where there should be none


def check_metric(distances: Tensor, name: str = "the space") -> None:
    """Refuse what is no matrix of distances; two points may be at distance 0.

    Raises:
        UserError: with what is wrong, and where.
    """
    d = distances
    if d.ndim != 2 or len(d) != d.shape[1] or not len(d):
        raise UserError(f"{name} must have distances (n, n) of at least one point, got {tuple(d.shape)}")
    if not (d.isfinite().all() and (d >= 0).all() and torch.equal(d, d.T) and not d.diagonal().any()):
        raise UserError(f"{name} must have distances that are finite, at least 0, the same both ways, and 0 from a point to itself")
    detour = (d[:, :, None] + d[None]).amin(1)
    if (d > detour * (1 + 1e-9) + 1e-12).any():
        i, j = (d > detour * (1 + 1e-9) + 1e-12).nonzero()[0].tolist()
        raise UserError(
            f"{name} is no metric space: a detour is shorter than the distance {float(d[i, j]):g} between the points {i} and {j}"
        )


def circle(n: int) -> Tensor:
    """``n`` points at equal distances on a circle of length 1, measured along it."""
    step = (torch.arange(n)[:, None] - torch.arange(n)).abs()
    return torch.minimum(step, n - step).double() / n


def distances(points: Tensor) -> Tensor:
    """The Euclidean distances of points ``(n, d)``: float64 ``(n, n)``."""
    return torch.linalg.vector_norm(points.double()[:, None] - points.double(), dim=-1)


# Gromov-Hausdorff


@dataclass(frozen=True)
class Correspondence:
    """Pairs of points of two spaces in which each point of both occurs.

    Attributes:
        value: half of its distortion; for the best one, the Gromov-Hausdorff distance.
        pairs: ``(i, j)``, point ``i`` of the first and ``j`` of the second.
    """

    value: float
    pairs: tuple[tuple[int, int], ...]


def differences(X: Tensor, Y: Tensor) -> Tensor:
    """``|X_ik - Y_jl|`` for the pairs ``(i, j)`` and ``(k, l)``: ``(n m, n m)``."""
    both = (X[:, None, :, None] - Y[None, :, None, :]).abs()
    return both.reshape(len(X) * len(Y), -1)


def distortion(X: Tensor, Y: Tensor, pairs: Sequence[tuple[int, int]]) -> float:
    """The largest ``|X_ik - Y_jl|`` over pairs ``(i, j)`` and ``(k, l)`` of a correspondence.

    Raises:
        UserError: a point of one space is in none of the pairs.
    """
    i, j = (torch.tensor([pair[side] for pair in pairs]) for side in (0, 1))
    if len(i.unique()) < len(X) or len(j.unique()) < len(Y):
        raise UserError("a correspondence has every point of both spaces in some pair")
    return float((X[i][:, i] - Y[j][:, j]).abs().max())


def gromov_hausdorff(X: Tensor, Y: Tensor) -> Correspondence:
    """The Gromov-Hausdorff distance: half of the smallest distortion of a correspondence, exactly, for spaces of about ten points.

    The distortion is one of the ``|X_ik - Y_jl|``; the smallest for which there is a correspondence is found by halving, and a
    correspondence by depth-first search over pairs that agree with all pairs so far, for the point with the fewest choices first.

    Raises:
        UserError: no metric spaces, or the search is too long.
    """
    check_metric(X, "the first space")
    check_metric(Y, "the second space")
    table = differences(X, Y)
    values = table.unique().tolist()
    low, high = 0, len(values) - 1  # all pairs together have the last one
    best = [(i, j) for i in range(len(X)) for j in range(len(Y))]
    # Nothing below a lower bound needs to be searched.
    least = 2 * max(bound(X, Y) for bound in LOWER_BOUNDS.values())
    while low < high and values[low] < least * (1 - 1e-9):
        low += 1
    while low < high:
        middle = (low + high) // 2
        found = _Search(len(X), len(Y), (table <= values[middle]).numpy()).run()
        if found is None:
            low = middle + 1
        else:
            high, best = middle, found
    return Correspondence(distortion(X, Y, best) / 2, tuple(best))


class _Search:
    """A set of pairs that agree with each other and cover both spaces; sets are whole numbers, bit by bit."""

    def __init__(self, n: int, m: int, agree: np.ndarray) -> None:
        self.n, self.m, self.steps = n, m, 0
        self.agree = [sum(1 << int(q) for q in np.flatnonzero(row)) for row in agree]
        by_first = [sum(1 << (i * m + j) for j in range(m)) for i in range(n)]
        by_second = [sum(1 << (i * m + j) for i in range(n)) for j in range(m)]
        self.points = by_first + by_second

    def run(self) -> list[tuple[int, int]] | None:
        """The pairs; None where there is no such set."""
        found = self._cover((1 << (self.n * self.m)) - 1, 0, list(range(len(self.points))))
        return None if found is None else [divmod(p, self.m) for p in range(self.n * self.m) if found >> p & 1]

    def _cover(self, allowed: int, chosen: int, open_: list[int]) -> int | None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise UserError(f"spaces of {self.n} and {self.m} points are too large for the exact distance: use the bounds")
        if not open_:
            return chosen
        choices = {point: allowed & self.points[point] for point in open_}
        point = min(open_, key=lambda point: choices[point].bit_count())
        left = choices[point]
        while left:
            p = (left & -left).bit_length() - 1
            left &= left - 1
            taken = chosen | 1 << p
            still = [other for other in open_ if not self.points[other] >> p & 1]
            found = self._cover(allowed & self.agree[p], taken, still)
            if found is not None:
                return found
        return None


# Lower bounds


def _apart(a: Tensor, b: Tensor) -> Tensor:
    """The Hausdorff distance of sets of numbers on the line, ``(..., n)`` and ``(..., m)``."""
    gaps = (a[..., :, None] - b[..., None, :]).abs()
    return torch.maximum(gaps.amin(-1).amax(-1), gaps.amin(-2).amax(-1))


def diameter_bound(X: Tensor, Y: Tensor) -> float:
    """Half the difference of the diameters."""
    return float((X.max() - Y.max()).abs()) / 2


def eccentricity_bound(X: Tensor, Y: Tensor) -> float:
    """Half the Hausdorff distance of the sets of eccentricities, each point's largest distance (Mémoli 2011)."""
    return float(_apart(X.amax(1), Y.amax(1))) / 2


def distance_set_bound(X: Tensor, Y: Tensor) -> float:
    """Half the Hausdorff distance of the sets of all distances (Mémoli 2011)."""
    return float(_apart(X.flatten(), Y.flatten())) / 2


def local_bound(X: Tensor, Y: Tensor) -> float:
    """Each point needs a partner whose set of distances is near its own: at least as large as the bounds by eccentricities and by the set
    of all distances (Mémoli 2011)."""
    cost = _apart(X[:, None], Y[None])
    return float(torch.maximum(cost.amin(1).max(), cost.amin(0).max())) / 2


LOWER_BOUNDS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "diameters": diameter_bound,
    "eccentricities": eccentricity_bound,
    "sets of distances": distance_set_bound,
    "distances of each point": local_bound,
}


def sdp_bound(X: Tensor, Y: Tensor) -> float:
    """A lower bound by semidefinite programs (after Villar, Bandeira, Blumberg and Ward 2016): half of the smallest ``r`` for which the
    relaxed correspondences need no two pairs with ``|X_ik - Y_jl| > r``.

    Raises:
        UserError: no metric spaces, or cvxpy is not installed.
    """
    check_metric(X, "the first space")
    check_metric(Y, "the second space")
    table = differences(X, Y)
    values = table.unique().tolist()
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        forbidden, _ = _relaxed((table > values[middle]).double(), len(X), len(Y), bijective=False)
        low, high = (low, middle) if forbidden < SOLVED else (middle + 1, high)
    return values[low] / 2


def sdp_distance(X: Tensor, Y: Tensor, p: float = 2.0) -> tuple[float, Tensor]:
    """The relaxed distance of Villar et al. (2016) of two spaces of ``n`` points: half of the smallest mean of ``|X_ik - Y_jl|^p`` over
    relaxed bijections, to the power of ``1 / p``; it is 0 for isometric spaces.

    Returns:
        The distance, and how much of each point goes to each other, ``(n, n)``.

    Raises:
        UserError: spaces of two sizes, no metric spaces, or cvxpy is not installed.
    """
    check_metric(X, "the first space")
    check_metric(Y, "the second space")
    if len(X) != len(Y):
        raise UserError(f"the relaxed distance compares spaces of one size, got {len(X)} and {len(Y)} points")
    value, shares = _relaxed(differences(X, Y) ** p, len(X), len(Y), bijective=True)
    return (max(value, 0.0) / len(X) ** 2) ** (1 / p) / 2, shares


def _relaxed(cost: Tensor, n: int, m: int, *, bijective: bool) -> tuple[float, Tensor]:
    """The smallest ``sum cost * Z`` over a relaxation of the products ``Z_pq = z_p z_q``, where ``z_ij`` is 1 for the pairs taken.

    The matrix ``[[1, z], [z, Z]]`` is positive semidefinite, ``Z >= 0``, and its diagonal is ``z``. Each point is in one pair, or in one at
    least; these sums stay so when multiplied by ``z_q``.
    """
    cp = cvxpy()
    whole = cp.Variable((n * m + 1, n * m + 1), PSD=True)
    Z, z = whole[1:, 1:], whole[0, 1:]
    rows = np.kron(np.eye(n), np.ones((1, m)))  # the pairs of each point of the first space
    columns = np.kron(np.ones((1, n)), np.eye(m))
    constraints: list[Any] = [whole[0, 0] == 1, cp.diag(Z) == z, Z >= 0]
    for choice in (rows, columns):
        once = np.ones((len(choice), 1)) @ cp.reshape(z, (1, n * m), order="C")
        if bijective:
            constraints += [choice @ z == 1, choice @ Z == once]
        else:
            constraints += [choice @ z >= 1, choice @ Z >= once]
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(cost.numpy(), Z))), constraints)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about the last digits: ``SOLVED`` leaves room for them
        problem.solve(solver=cp.CLARABEL)
    if problem.status not in ("optimal", "optimal_inaccurate"):
        raise UserError(f"the semidefinite program for spaces of {n} and {m} points was not solved: {problem.status}")
    return float(problem.value), torch.from_numpy(z.value.reshape(n, m).copy())


# Gromov-Wasserstein


@dataclass(frozen=True, eq=False)
class Coupling:
    """A plan that moves one space's mass to the other's.

    Attributes:
        value: its mean of ``(X_ik - Y_jl)^2``, the square of the Gromov-Wasserstein distance (up to Mémoli's factor of one half).
        plan: float64 ``(n, m)``.
    """

    value: float
    plan: Tensor

    @property
    def correspondence(self) -> list[tuple[int, int]]:
        """Each point with the one that gets most of its mass, from both sides."""
        return sorted({*enumerate(self.plan.argmax(1).tolist()), *((i, j) for j, i in enumerate(self.plan.argmax(0).tolist()))})


def gw_value(X: Tensor, Y: Tensor, plan: Tensor) -> float:
    """``sum_ijkl (X_ik - Y_jl)^2 T_ij T_kl``; what rounding leaves below 0 is 0."""
    return max(float((_squares(X, Y, plan) * plan).sum()), 0.0)


def _squares(X: Tensor, Y: Tensor, plan: Tensor) -> Tensor:
    """``sum_kl (X_ik - Y_jl)^2 T_kl``, ``(n, m)``, by products of matrices (Peyré, Cuturi and Solomon 2016)."""
    p, q = plan.sum(1), plan.sum(0)
    return (X**2 @ p)[:, None] + (Y**2 @ q)[None] - 2 * X @ plan @ Y


def gromov_wasserstein(
    X: Tensor, Y: Tensor, p: Tensor | None = None, q: Tensor | None = None, *, starts: int = 1, seed: int = 0, steps: int = 200
) -> Coupling:
    """The best plan of conditional gradients with exact steps (Frank and Wolfe; Vayer et al. 2019), from the independent coupling and, for
    more ``starts``, from its mean with random plans. The problem is not convex: more starts may find a better one.

    Args:
        X, Y: distances, ``(n, n)`` and ``(m, m)``.
        p, q: masses of the points, each of sum 1; equal ones where left out.
        starts: how many.
        seed: of the starts.
        steps: of each, at most.

    Raises:
        UserError: no metric spaces, or masses that do not fit.
    """
    p, q = _masses(X, p, "first"), _masses(Y, q, "second")
    best: Coupling | None = None
    for key in seeding.fold(seeding.example_keys(seed, torch.arange(starts)), "plan"):
        plan = p[:, None] * q
        if best is not None:
            costs = seeding.uniform(key.reshape(1), (len(p), len(q)), torch.float64)[0]
            plan = (plan + _transport(costs, p, q)) / 2
        found = _descend(X, Y, plan, steps)
        best = found if best is None or found.value < best.value else best
    assert best is not None
    return best


def _descend(X: Tensor, Y: Tensor, plan: Tensor, steps: int) -> Coupling:
    p, q = plan.sum(1), plan.sum(0)
    for _ in range(steps):
        slope = 2 * _squares(X, Y, plan)
        move = _transport(slope, p, q) - plan
        linear = float((slope * move).sum())
        if linear > -1e-12 * float((slope * plan).sum().abs() + 1e-300):
            break
        square = -2 * float((X @ move @ Y * move).sum())
        step = min(1.0, -linear / (2 * square)) if square > 0 else 1.0
        plan = plan + step * move
    return Coupling(gw_value(X, Y, plan), plan)


def _transport(costs: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """The cheapest plan between masses: an assignment where all are equal, else a linear program."""
    n, m = costs.shape
    if n == m and (p == p[0]).all() and (q == q[0]).all():
        rows, columns = scipy_module("optimize").linear_sum_assignment(costs.numpy())
        plan = torch.zeros(n, m, dtype=torch.float64)
        plan[rows, columns] = p
        return plan
    sparse = scipy_module("sparse")
    sums = sparse.vstack([sparse.kron(sparse.eye(n), np.ones((1, m))), sparse.kron(np.ones((1, n)), sparse.eye(m))], format="csr")
    solved = scipy_module("optimize").linprog(costs.numpy().ravel(), A_eq=sums, b_eq=torch.cat([p, q]).numpy(), bounds=(0, None))
    if solved.x is None:
        raise UserError(f"the transport between {n} and {m} points was not solved: {solved.message}")
    return torch.from_numpy(solved.x.reshape(n, m).copy())


def entropic_gromov_wasserstein(
    X: Tensor, Y: Tensor, epsilon: float, p: Tensor | None = None, q: Tensor | None = None, *, steps: int = 200, tolerance: float = 1e-9
) -> Coupling:
    """A plan that also has much entropy: Sinkhorn's method on the slope at the plan before, again and again (Peyré, Cuturi and Solomon
    2016), in logarithms.

    Args:
        epsilon: weight of the entropy, in units of squared distances.
        steps: of the outer loop, at most; it ends where the plan changes by less than ``tolerance``.
        X, Y, p, q: as in ``gromov_wasserstein``.

    Raises:
        UserError: as for ``gromov_wasserstein``, or an ``epsilon`` that is not above 0.
    """
    if not epsilon > 0:
        raise UserError(f"`epsilon` must be above 0, got {epsilon:g}")
    p, q = _masses(X, p, "first"), _masses(Y, q, "second")
    plan = p[:, None] * q
    for _ in range(steps):
        after = _sinkhorn(2 * _squares(X, Y, plan) / epsilon, p, q)
        change, plan = float((after - plan).abs().max()), after
        if change < tolerance:
            break
    return Coupling(gw_value(X, Y, plan), plan)


def _sinkhorn(costs: Tensor, p: Tensor, q: Tensor, steps: int = 2000) -> Tensor:
    f, g = torch.zeros_like(p), torch.zeros_like(q)
    for _ in range(steps):
        f = p.log() - (g - costs).logsumexp(1)
        g = q.log() - (f[:, None] - costs).logsumexp(0)
        plan = (f[:, None] + g - costs).exp()
        if float((plan.sum(1) - p).abs().max()) < 1e-12:
            break
    return plan


def _masses(space: Tensor, masses: Tensor | None, name: str) -> Tensor:
    check_metric(space, f"the {name} space")
    n = len(space)
    if masses is None:
        return torch.full((n,), 1 / n, dtype=torch.float64)
    if masses.shape != (n,) or not (masses > 0).all() or abs(float(masses.sum()) - 1) > 1e-9:
        raise UserError(f"the masses of the {name} space must be {n} numbers above 0 with the sum 1")
    return masses.double()
