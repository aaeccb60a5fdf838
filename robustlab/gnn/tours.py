"""The travelling salesman: shortest tours through cities, exactly and by heuristics, from distances or from scores of edges.

cities = euclidean(points(20)[0])
best, short = optimal_tour(cities.distances), two_opt(cities.distances, nearest_neighbour(cities.distances))
length(cities.distances, short) / length(cities.distances, best)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.extras import scipy_module


@dataclass(frozen=True, eq=False)
class Cities:
    """Cities to visit.

    Attributes:
        distances: float64 ``(n, n)``, symmetric, at least 0, zero on the diagonal.
        points: where to draw them, float64 ``(n, 2)``, where that is known.
        name: of the problem.

    Raises:
        UserError: distances that are no such matrix, or fewer than three cities.
    """

    distances: Tensor
    points: Tensor | None = None
    name: str = ""

    def __post_init__(self) -> None:
        d = self.distances
        if d.ndim != 2 or len(d) != d.shape[1] or len(d) < 3:
            raise UserError(f"a tour needs the distances of at least three cities, (n, n), got {tuple(d.shape)}")
        if not (d.isfinite().all() and (d >= 0).all() and torch.equal(d, d.T) and not d.diagonal().any()):
            raise UserError("distances must be finite, at least 0, as long forth as back, and 0 from a city to itself")

    @property
    def n(self) -> int:
        """How many cities there are."""
        return len(self.distances)


def euclidean(points: Tensor) -> Cities:
    """Cities at points of the plane, ``(n, 2)``, with exact distances."""
    return Cities(torch.linalg.vector_norm(points[:, None] - points, dim=-1), points)


def check_tour(tour: Tensor, n: int) -> Tensor:
    """A tour, int64 ``(n,)``, unless it does not visit each of ``n`` cities once.

    Raises:
        UserError: with the city that is visited twice, or the count.
    """
    if tour.shape != (n,):
        raise UserError(f"a tour of {n} cities visits {n}, got {len(tour)}")
    outside = tour[(tour < 0) | (tour >= n)]
    if len(outside):
        raise UserError(f"a tour of {n} cities visits number 1 to {n}, got {int(outside[0]) + 1}")
    counts = torch.bincount(tour, minlength=n)
    if (counts != 1).any():
        raise UserError(f"a tour visits each city once, but number {int(counts.argmax()) + 1} {int(counts.max())} times")
    return tour


def length(distances: Tensor, tour: Tensor) -> Tensor:
    """Lengths of closed tours ``(..., n)``: float64 ``(...)``, for distances ``(n, n)`` or ``(B, n, n)`` and tours ``(B, n)``."""
    after = tour.roll(-1, -1)
    if distances.ndim == 3:
        return distances[torch.arange(len(tour))[:, None], tour, after].sum(-1)
    return distances[tour, after].sum(-1)


def optimal_tour(distances: Tensor, *, seconds: float = 600.0) -> Tensor:
    """The shortest tour, int64 ``(n,)``: an integer program in which each city has two edges, solved again with a constraint for every
    subtour that appears until there is one tour (Dantzig, Fulkerson and Johnson 1954; scipy's HiGHS).

    Args:
        distances: float64 ``(n, n)``.
        seconds: how long each of the programs may take.

    Raises:
        UserError: one of them takes longer.
    """
    optimize, sparse, n = scipy_module("optimize"), scipy_module("sparse"), len(distances)
    if n == 3:
        return torch.arange(3)
    i, j = np.triu_indices(n, 1)
    edges = np.arange(len(i))
    degree = sparse.csr_array((np.ones(2 * len(i)), (np.concatenate([i, j]), np.concatenate([edges, edges]))), shape=(n, len(i)))
    constraints = [optimize.LinearConstraint(degree, 2, 2)]
    while True:
        solved = optimize.milp(
            distances.numpy()[i, j],
            constraints=constraints,
            integrality=np.ones(len(i)),
            bounds=optimize.Bounds(0, 1),
            options={"time_limit": seconds, "mip_rel_gap": 0.0},
        )
        if solved.x is None or solved.status != 0:
            raise UserError(f"the shortest tour of {n} cities was not found within {seconds:g} seconds")
        chosen = np.flatnonzero(solved.x > 0.5)
        parts = _walks(n, i[chosen], j[chosen])
        if len(parts) == 1:
            return torch.tensor(parts[0])
        constraints += [_cut(optimize, sparse, np.isin(i, part) & np.isin(j, part), len(part) - 1) for part in parts]


def _cut(optimize: Any, sparse: Any, inside: np.ndarray, most: int) -> Any:
    """At most so many of the edges inside a set of cities."""
    return optimize.LinearConstraint(sparse.csr_array(inside[None].astype(float)), -np.inf, most)


def _walks(n: int, i: np.ndarray, j: np.ndarray) -> list[list[int]]:
    """The cycles of a graph in which each node has two neighbours."""
    near: list[list[int]] = [[] for _ in range(n)]
    for a, b in zip(i.tolist(), j.tolist(), strict=True):
        near[a].append(b)
        near[b].append(a)
    left, found = set(range(n)), []
    while left:
        walk = [min(left)]
        left.remove(walk[0])
        while following := [city for city in near[walk[-1]] if city in left]:
            walk.append(following[0])
            left.remove(following[0])
        found.append(walk)
    return found


def nearest_neighbour(distances: Tensor, start: Tensor | int = 0) -> Tensor:
    """Tours that always go on to the nearest city that is left.

    Args:
        distances: ``(n, n)``, or one matrix for each start, ``(S, n, n)``.
        start: one city, or many, ``(S,)``.

    Returns:
        int64 ``(n,)`` for one start, ``(S, n)`` for many.
    """
    starts, n = torch.as_tensor(start).reshape(-1), distances.shape[-1]
    rows = torch.arange(len(starts))
    own = distances if distances.ndim == 3 else distances.expand(len(starts), n, n)
    tours, here = [starts], starts
    open_ = torch.ones(len(starts), n, dtype=torch.bool)
    for _ in range(n - 1):
        open_[rows, here] = False
        here = torch.where(open_, own[rows, here], torch.inf).argmin(1)
        tours.append(here)
    found = torch.stack(tours, 1)
    return found if isinstance(start, Tensor) and start.ndim else found[0]


def random_tours(n: int, count: int, key: Tensor) -> Tensor:
    """Orders of ``n`` cities drawn at random from a graph's key: int64 ``(count, n)``."""
    keys = seeding.fold(seeding.example_keys(0, torch.arange(count)) ^ key.reshape(1), "tours")
    return seeding.uniform(keys, (n,), torch.float64).argsort(1)


def two_opt(distances: Tensor, tours: Tensor) -> Tensor:
    """Exchange two edges of a tour for two shorter ones, always those that gain most, until none gain (Croes 1958).

    Args:
        distances: ``(n, n)``, or one matrix for each tour, ``(B, n, n)``.
        tours: int64 ``(B, n)`` or ``(n,)``; not changed. All of them are improved side by side.

    Returns:
        Tours of the same shape.
    """
    if tours.ndim == 1:
        return two_opt(distances, tours[None])[0]
    found, n = tours.clone(), tours.shape[1]
    own = distances if distances.ndim == 3 else distances.expand(len(tours), n, n)
    active, i, j = torch.arange(len(tours)), *torch.triu_indices(n, n, 1)
    steps = torch.arange(n)
    while len(active):
        tour = found[active]
        near = own[active[:, None, None], tour[:, :, None], tour[:, None, :]]  # in the order of the tour
        edge = near.diagonal(1, 1, 2)
        edge = torch.cat([edge, near[:, -1, :1]], 1)  # from each city to the next
        change = near[:, i, j] + near[:, (i + 1) % n, (j + 1) % n] - edge[:, i] - edge[:, j]
        gain, which = change.min(1)
        better = gain < -1e-12 * edge.sum(1)  # less is rounding
        active, first, last = active[better], i[which[better]] + 1, j[which[better]]
        inside = (steps >= first[:, None]) & (steps <= last[:, None])
        places = torch.where(inside, (first + last)[:, None] - steps, steps)
        found[active] = found[active].gather(1, places)
    return found


def best_two_opt(distances: Tensor, key: Tensor, starts: int = 20) -> Tensor:
    """The shortest of ``two_opt`` from some random tours: int64 ``(n,)``."""
    tours = two_opt(distances, random_tours(len(distances), starts, key))
    return tours[length(distances, tours).argmin()]


def beam_search(scores: Tensor, distances: Tensor, width: int = 40) -> Tensor:
    """The shortest of the tours that a beam search over scores of edges ends with. Each step goes on to a city that was not visited, so
    that all of them are tours; the edge that closes a tour counts too.

    Args:
        scores: logarithms of probabilities, ``(n, n)``, from each city to each other.
        distances: by which the last choice is made, ``(n, n)``.
        width: how many beginnings are kept.

    Returns:
        int64 ``(n,)``, beginning with city 0.
    """
    n, scores = len(scores), scores.double()
    tours, totals = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, dtype=torch.float64)
    open_ = torch.ones(1, n, dtype=torch.bool)
    open_[0, 0] = False
    for step in range(1, n):
        ahead = totals[:, None] + torch.where(open_, scores[tours[:, -1]], -torch.inf)
        if step == n - 1:
            ahead = ahead + scores[:, 0]
        allowed = open_.flatten().nonzero()[:, 0]
        kept = allowed[ahead.flatten()[allowed].topk(min(width, len(allowed))).indices]
        rows, city = kept // n, kept % n
        totals, tours = ahead.flatten()[kept], torch.cat([tours[rows], city[:, None]], 1)
        open_ = open_[rows]
        open_[torch.arange(len(city)), city] = False
    return tours[length(distances, tours).argmin()]


HEURISTICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nearest neighbour": lambda distances, key: nearest_neighbour(distances),
    "nearest neighbour + 2-opt": lambda distances, key: two_opt(distances, nearest_neighbour(distances)),
    "2-opt, 1 start": lambda distances, key: best_two_opt(distances, key, 1),
    "2-opt, 20 starts": lambda distances, key: best_two_opt(distances, key, 20),
}
