"""Quadratic assignment: one problem whose cases are matching two graphs and tours; and the methods that do not learn.

problem = matching(first, second)
found = solve(problem, "faq", starts=5)          # node i of the first is node found[i] of the second
problem.value(found), accuracy(found, true)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.errors import UserError, unknown
from robustlab.gnn.extras import scipy_module
from robustlab.gnn.graphs import GraphBatch


@dataclass(frozen=True, eq=False)
class QuadraticAssignment:
    """Find the permutation ``p`` with the smallest ``sum_ij A_ij B_{p_i p_j} = tr(A^T X B X^T)``, where ``X_{i p_i} = 1``: for a symmetric
    A the ``tr(A X B X^T)`` of Koopmans and Beckmann (1957).

    Attributes:
        A, B: any finite numbers, float64 ``(n, n)``.
        maximize: find the largest instead.

    Raises:
        UserError: other shapes, or a number that is not finite.
    """

    A: Tensor
    B: Tensor
    maximize: bool = False

    def __post_init__(self) -> None:
        if self.A.ndim != 2 or self.A.shape != self.B.shape or self.A.shape[0] != self.A.shape[1] or not len(self.A):
            raise UserError(f"A and B must both have the shape (n, n), got {tuple(self.A.shape)} and {tuple(self.B.shape)}")
        for name, matrix in (("A", self.A), ("B", self.B)):
            if not matrix.isfinite().all():
                raise UserError(f"{name} must be finite, but {(~matrix.isfinite()).nonzero()[0].tolist()} is not")

    @property
    def n(self) -> int:
        """How many things are assigned."""
        return len(self.A)

    def value(self, p: Tensor) -> float:
        """The sum at a permutation, int64 ``(n,)``.

        Raises:
            UserError: no permutation of ``n``.
        """
        check_permutation(p, self.n)
        return float((self.A * self.B[p][:, p]).sum())

    def better(self, p: Tensor, q: Tensor) -> Tensor:
        """The better one of two permutations; the first where they are equal."""
        return q if (self.value(q) > self.value(p) if self.maximize else self.value(q) < self.value(p)) else p

    def to_maximize(self) -> QuadraticAssignment:
        """The same problem as one of finding the largest value."""
        return self if self.maximize else QuadraticAssignment(self.A, -self.B, True)

    def renamed(self, order: Tensor) -> QuadraticAssignment:
        """The problem in which the rows and columns of B have other numbers: its solution ``q`` stands for ``p = order[q]``."""
        return replace(self, B=self.B[order][:, order])


def check_permutation(p: Tensor, n: int) -> None:
    """Refuse what is no permutation of ``n`` numbers.

    Raises:
        UserError: with what is wrong.
    """
    if p.shape != (n,) or p.dtype != torch.int64:
        raise UserError(f"a permutation of {n} must be int64 of shape ({n},), got {str(p.dtype).removeprefix('torch.')} {tuple(p.shape)}")
    if not torch.equal(p.sort().values, torch.arange(n)):
        raise UserError(f"a permutation has each of the numbers 0 to {n - 1} once")


def inverse(p: Tensor) -> Tensor:
    """The permutation that undoes another."""
    return p.argsort()


def accuracy(found: Tensor, true: Tensor) -> float:
    """The share of nodes that are assigned as they should be."""
    return float((found == true).double().mean())


# Cases


def matching(first: GraphBatch, second: GraphBatch) -> QuadraticAssignment:
    """Match the nodes of two graphs so that as many edges as possible come together; the value counts each twice.

    Raises:
        UserError: more than one graph in a batch, or other sizes.
    """
    for one in (first, second):
        if len(one) != 1:
            raise UserError(f"one graph is matched with one other, got a batch of {len(one)}")
    if first.n != second.n:
        raise UserError(f"two graphs to match must be of one size, got {first.n} and {second.n} nodes")
    return QuadraticAssignment(first.adjacency(), second.adjacency(), True)


def touring(distances: Tensor) -> QuadraticAssignment:
    """The shortest tour: A is half a cycle's adjacency matrix, so that the value is the length of the tour ``p_0, p_1, ...``."""
    n = len(distances)
    step = torch.eye(n, dtype=torch.float64).roll(1, 1)
    return QuadraticAssignment((step + step.T) / 2, distances)


# Methods


def decoded(scores: Tensor) -> Tensor:
    """The permutation with the largest sum of scores, from ``(n, n)``: a linear assignment, int64 ``(n,)``."""
    _, columns = scipy_module("optimize").linear_sum_assignment(scores.detach().double().numpy(), maximize=True)
    return torch.from_numpy(columns).long()


def spectral(problem: QuadraticAssignment, seed: int = 0) -> Tensor:
    """From the sizes of the eigenvectors' entries (Umeyama 1988), of the symmetric parts of the matrices."""
    problem = problem.to_maximize()
    first, second = (torch.linalg.eigh((matrix + matrix.T) / 2).eigenvectors.abs() for matrix in (problem.A, problem.B))
    return decoded(first @ second.T)


def grampa(problem: QuadraticAssignment, seed: int = 0, eta: float = 0.2) -> Tensor:
    """From all pairs of eigenvectors, weighted by ``1 / ((lambda_i - mu_j)^2 + eta^2)`` (Fan, Mao, Wu and Xu 2019), of the symmetric parts
    of the matrices, scaled to mean 0 and variance ``1 / n``."""
    problem = problem.to_maximize()
    (a, U), (b, V) = (torch.linalg.eigh(_standardized(matrix)) for matrix in (problem.A, problem.B))
    weights = (U.sum(0)[:, None] * V.sum(0)) / ((a[:, None] - b) ** 2 + eta**2)
    return decoded(U @ weights @ V.T)


def _standardized(matrix: Tensor) -> Tensor:
    apart = ~torch.eye(len(matrix), dtype=torch.bool)
    inside = matrix[apart] if len(matrix) > 1 else matrix.flatten()
    scale = inside.std(correction=0) * len(matrix) ** 0.5
    centred = torch.where(apart, matrix - inside.mean(), 0.0) / (scale if scale > 0 else 1.0)
    return (centred + centred.T) / 2


def faq(problem: QuadraticAssignment, seed: int = 0, starts: int = 1) -> Tensor:
    """Frank and Wolfe's method on doubly stochastic matrices (Vogelstein et al. 2015; scipy's), the best of some starts: the barycentre
    first, and then its mean with a random matrix."""
    keys = seeding.fold(seeding.example_keys(seed, torch.arange(starts)), "faq")
    best: Tensor | None = None
    for start, key in enumerate(keys):
        options = {"maximize": problem.maximize, "P0": _start(problem.n, key, random=start > 0).numpy()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of how it will draw: with a start of its own it draws nothing
            solved = scipy_module("optimize").quadratic_assignment(problem.A.numpy(), problem.B.numpy(), method="faq", options=options)
        found = torch.from_numpy(solved.col_ind).long()
        best = found if best is None else problem.better(best, found)
    assert best is not None
    return best


def _start(n: int, key: Tensor, *, random: bool) -> Tensor:
    flat = torch.full((n, n), 1 / n, dtype=torch.float64)
    if not random:
        return flat
    drawn = seeding.uniform(key.reshape(1), (n, n), torch.float64)[0] + 2.0**-25
    for _ in range(200):  # Sinkhorn and Knopp 1967
        drawn = drawn / drawn.sum(1, keepdim=True)
        drawn = drawn / drawn.sum(0, keepdim=True)
    return (flat + drawn) / 2


def two_opt(problem: QuadraticAssignment, start: Tensor) -> Tensor:
    """Exchange two values of a permutation, always those that gain most, until no exchange gains; ``O(n^3)`` for each."""
    p, sign = start.clone(), -1.0 if problem.maximize else 1.0
    A, value = problem.A, problem.value(start)
    while problem.n > 1:
        changes = sign * exchange(A, problem.B[p][:, p])
        r, s = divmod(int(changes.argmin()), problem.n)
        p[[r, s]] = p[[s, r]]
        after = problem.value(p)
        if not sign * after < sign * value:  # judged by the value itself: what is left of rounding would go round in circles
            p[[r, s]] = p[[s, r]]
            break
        value = after
    return p


def exchange(A: Tensor, B: Tensor) -> Tensor:
    """What ``sum_ij A_ij B_ij`` changes by where the rows and columns ``r`` and ``s`` of B are exchanged: ``(n, n)``, zero at ``r = s``."""
    both = A.T @ B + A @ B.T
    a, b = A.diagonal(), B.diagonal()
    own = both.diagonal()
    gain = both + both.T - own[:, None] - own  # over all k, as if r and s were apart from them
    # The terms with k = r or k = s were counted as if their own place did not move.
    a_r, a_s, b_r, b_s, At, Bt = a[:, None], a[None], b[:, None], b[None], A.T, B.T
    at_r = a_r * (B - b_r) + A * (b_r - B) + a_r * (Bt - b_r) + At * (b_r - Bt)
    at_s = At * (b_s - Bt) + a_s * (Bt - b_s) + A * (b_s - B) + a_s * (B - b_s)
    moved = (a_r - a_s) * (b_s - b_r) + (A - At) * (Bt - B)
    return (gain - at_r - at_s + moved).fill_diagonal_(0)


def random_two_opt(problem: QuadraticAssignment, seed: int = 0) -> Tensor:
    """``two_opt`` from a random permutation."""
    return two_opt(problem, seeding.permutation(seed, problem.n, "2-opt"))


SOLVERS: dict[str, Callable[..., Tensor]] = {"spectral": spectral, "grampa": grampa, "faq": faq, "2-opt": random_two_opt}
RANDOM = ("faq", "2-opt")  # another seed may find something else


def solve(problem: QuadraticAssignment, method: str = "faq", *, seed: int = 0, starts: int = 1) -> Tensor:
    """A permutation by one of the methods.

    The numbers of B are shuffled first and named back in the end: no method can gain from an order in which the solution is written down,
    as those do that break ties by the smallest number.

    Args:
        problem: what to solve.
        method: one of ``SOLVERS``.
        seed: of all draws.
        starts: the best of so many tries, where draws matter.

    Returns:
        int64 ``(n,)``.

    Raises:
        UserError: an unknown method, or no start.
    """
    if method not in SOLVERS:
        raise unknown("method", method, SOLVERS)
    if starts < 1:
        raise UserError(f"`starts` must be at least 1, got {starts}")
    order = seeding.permutation(seed, problem.n, "hidden order")
    hidden = problem.renamed(order)
    if method == "faq":
        return order[faq(hidden, seed, starts)]
    best = SOLVERS[method](hidden, seed)
    for start in range(1, starts if method in RANDOM else 1):
        best = hidden.better(best, SOLVERS[method](hidden, seed + start))
    return order[best]
