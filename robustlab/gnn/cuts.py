"""Large cuts: their value, and what finds them without learning. Labels are 0 and 1; an edge is cut where its ends differ.

graphs = random_regular(500, 3, graphs=10)
print(p_value(graphs, extremal_optimization(graphs)))
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.errors import UserError, unknown
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.operators import Adjacency
from robustlab.gnn.sdp import cut_relaxation, independent_sets, solved

P_STAR = 0.7632  # of the largest cut of a large random regular graph of large degree (Parisi; Dembo, Montanari and Sen 2017)


def cut_size(graphs: GraphBatch, labels: Tensor) -> Tensor:
    """How many edges of each graph are cut: int64 ``(B,)``, or ``(B, R)`` for labels ``(N, R)`` of several runs.

    Raises:
        UserError: labels of another number of nodes, or others than 0 and 1.
    """
    if len(labels) != graphs.n or not ((labels == 0) | (labels == 1)).all():
        raise UserError(f"a cut needs a label 0 or 1 for each of {graphs.n} nodes")
    differs = (labels[graphs.tail] != labels[graphs.head]).long()
    owner = graphs.graph[graphs.tail]
    return differs.new_zeros(len(graphs), *labels.shape[1:]).index_add(0, owner, differs) // 2


def p_value(graphs: GraphBatch, labels: Tensor) -> Tensor:
    """``(cut / n - d / 4) / sqrt(d / 4)`` of each graph, ``d`` its mean degree: 0 for labels at random, at most about ``P_STAR`` for a
    large random regular graph. float64, of ``cut_size``'s shape; 0 for a graph without edges."""
    return as_p_value(graphs, cut_size(graphs, labels).double())


def as_p_value(graphs: GraphBatch, sizes: Tensor) -> Tensor:
    """The same of sizes of cuts, ``(B,)`` or ``(B, R)``, such as bounds."""
    n, degrees = graphs.sizes.double(), graphs.degree.double()
    quarter = (graphs.summed(degrees) / n / 4).reshape(-1, *[1] * (sizes.ndim - 1))
    found = (sizes / n.reshape(quarter.shape) - quarter) / quarter.sqrt()
    return torch.where(quarter > 0, found, torch.zeros_like(found))


def random_cut(graphs: GraphBatch, runs: int = 1, seed: int = 0) -> Tensor:
    """Labels drawn by fair coins: int64 ``(N, runs)``."""
    return torch.cat([seeding.integers(key.reshape(1), 2, (n, runs))[0] for key, n in _keyed(graphs, seed, "coins")])


def greedy(graphs: GraphBatch, seed: int = 0) -> Tensor:
    """Node by node, in an order drawn for each graph, to the side where it cuts more edges to those before; a fair coin where both are
    equal. int64 ``(N,)``."""
    places, coins = _drawn(graphs, seed, "order"), _drawn(graphs, seed, "ties").tolist()
    sums, sides = [0] * graphs.n, [0] * graphs.n
    neighbours = _neighbours(graphs)
    for node in places.argsort().tolist():
        side = -1 if sums[node] > 0 or (sums[node] == 0 and coins[node] < 0.5) else 1
        sides[node] = side
        for other in neighbours[node]:
            sums[other] += side
    return (torch.tensor(sides) > 0).long()


def one_opt(graphs: GraphBatch, labels: Tensor, seed: int = 0) -> Tensor:
    """Move single nodes to the other side while that cuts more edges, many at once that are not neighbours: a local maximum.

    Args:
        graphs: one or many.
        labels: to begin with, ``(N,)`` or ``(N, R)``.
        seed: of the order.

    Returns:
        Labels of the same shape.
    """
    cut_size(graphs, labels)  # refuses what does not fit
    signs = (2.0 * labels - 1).double().reshape(graphs.n, -1)
    sets = independent_sets(graphs, seed)
    groups = [(sets == number)[:, None] for number in range(int(sets.max()) + 1)]
    moved = True
    while moved:
        moved = False
        for group in groups:
            better = group & (signs * Adjacency().apply(graphs, signs) > 0)
            if better.any():
                signs, moved = torch.where(better, -signs, signs), True
    return (signs > 0).long().reshape(labels.shape)


def extremal_optimization(graphs: GraphBatch, *, flips: int | None = None, tau: float = 1.4, seed: int = 0) -> Tensor:
    """Move the node that is worst off, or one not far from that: of nodes ranked by the edges that they would gain, the one of rank ``k``
    with probability in proportion to ``k^-tau``, whatever it costs; the best cut on the way is kept (Boettcher and Percus 2001).

    Args:
        graphs: one or many, each with draws of its own.
        flips: moves of each graph; None is 60 for each node.
        tau: the smaller, the more at random.
        seed: of all draws.

    Returns:
        Labels, int64 ``(N,)``.

    Raises:
        UserError: fewer than no move.
    """
    if flips is not None and flips < 0:
        raise UserError(f"`flips` must be at least 0, got {flips}")
    found = []
    for which, (key, n) in enumerate(_keyed(graphs, seed, "extremal")):
        source = random.Random(int(key))
        found.append(_extremal(graphs.one(which), 60 * n if flips is None else flips, tau, source))
    return torch.cat(found)


def _extremal(graph: GraphBatch, flips: int, tau: float, source: random.Random) -> Tensor:
    """Nodes lie in one list for each gain, so a move costs as much as its neighbours."""
    neighbours, n = _neighbours(graph), graph.n
    most = int(graph.degree.max())
    sides = [source.random() < 0.5 for _ in range(n)]
    gains = [sum(1 if sides[j] == sides[i] else -1 for j in neighbours[i]) for i in range(n)]
    lists: list[list[int]] = [[] for _ in range(2 * most + 1)]
    place = [0] * n
    for i in range(n):
        place[i] = len(lists[gains[i] + most])
        lists[gains[i] + most].append(i)
    ranks = _ranks(n, flips, tau, source)
    cut = best = 0
    moved: list[int] = []
    until = 0
    for rank in ranks:
        gain = 2 * most
        while rank >= len(lists[gain]):
            rank -= len(lists[gain])
            gain -= 1
        node = lists[gain][int(source.random() * len(lists[gain]))]
        cut += gain - most
        moved.append(node)
        sides[node] = not sides[node]
        _move(node, -gains[node], gains, lists, place, most)
        for other in neighbours[node]:
            _move(other, gains[other] + (2 if sides[other] == sides[node] else -2), gains, lists, place, most)
        if cut > best:
            best, until = cut, len(moved)
    for node in moved[until:]:  # back to the best
        sides[node] = not sides[node]
    return torch.tensor(sides).long()


def _move(node: int, gain: int, gains: list[int], lists: list[list[int]], place: list[int], most: int) -> None:
    """Put a node into the list of its new gain."""
    old = lists[gains[node] + most]
    last = old.pop()
    if last != node:
        old[place[node]] = last
        place[last] = place[node]
    gains[node] = gain
    new = lists[gain + most]
    place[node] = len(new)
    new.append(node)


def _ranks(n: int, count: int, tau: float, source: random.Random) -> list[int]:
    """Ranks from 0, each ``k`` drawn with probability in proportion to ``(k + 1)^-tau``."""
    sums = (torch.arange(1, n + 1, dtype=torch.float64) ** -tau).cumsum(0)
    draws = torch.tensor([source.random() for _ in range(count)], dtype=torch.float64) * sums[-1]
    return torch.searchsorted(sums, draws).clamp(max=n - 1).tolist()


def by_relaxation(graphs: GraphBatch, *, rounds: int = 100, seed: int = 0) -> Tensor:
    """The semidefinite relaxation cut by ``rounds`` random planes (Goemans and Williamson 1995): int64 ``(N, rounds)``; see ``best_of``."""
    found = []
    for which, (key, _) in enumerate(_keyed(graphs, seed, "planes")):
        vectors = solved(cut_relaxation(graphs.one(which)), seed=seed).vectors
        planes = seeding.normal(key.reshape(1), (vectors.shape[1], rounds), torch.float64)[0]
        found.append((vectors @ planes > 0).long())
    return torch.cat(found)


def best_of(graphs: GraphBatch, labels: Tensor) -> Tensor:
    """Of several runs ``(N, R)`` the one with the largest cut, for each graph: ``(N,)``."""
    best = cut_size(graphs, labels).argmax(1)
    return labels.gather(1, best[graphs.graph][:, None])[:, 0]


CUTS: dict[str, Callable[[GraphBatch, int], Tensor]] = {
    "random": lambda graphs, seed: random_cut(graphs, 1, seed)[:, 0],
    "greedy": greedy,
    "1-opt": lambda graphs, seed: one_opt(graphs, random_cut(graphs, 1, seed)[:, 0], seed),
    "1-opt, best of 100": lambda graphs, seed: best_of(graphs, one_opt(graphs, random_cut(graphs, 100, seed), seed)),
    "semidefinite": lambda graphs, seed: best_of(graphs, by_relaxation(graphs, seed=seed)),
    "semidefinite + 1-opt": lambda graphs, seed: best_of(graphs, one_opt(graphs, by_relaxation(graphs, seed=seed), seed)),
    "extremal optimization": lambda graphs, seed: extremal_optimization(graphs, seed=seed),
}


def max_cut(graphs: GraphBatch, method: str = "extremal optimization", *, seed: int = 0) -> Tensor:
    """Labels 0 and 1 of a large cut of every graph: int64 ``(N,)``.

    Args:
        graphs: one or many.
        method: one of ``CUTS``.
        seed: of all draws.

    Raises:
        UserError: an unknown method.
    """
    if method not in CUTS:
        raise unknown("method", method, CUTS)
    return CUTS[method](graphs, seed)


def _keyed(graphs: GraphBatch, seed: int, purpose: str) -> list[tuple[Tensor, int]]:
    """Each graph's key for a purpose, and its size."""
    keys = torch.zeros(len(graphs), dtype=torch.int64) if graphs.keys is None else graphs.keys
    return list(zip(seeding.fold(keys, seed, purpose), graphs.sizes.tolist(), strict=True))


def _drawn(graphs: GraphBatch, seed: int, purpose: str) -> Tensor:
    """A number in [0, 1) for each node, float64 ``(N,)``."""
    return torch.cat([seeding.uniform(key.reshape(1), (n,), torch.float64)[0] for key, n in _keyed(graphs, seed, purpose)])


def _neighbours(graphs: GraphBatch) -> list[list[int]]:
    heads, starts = graphs.head.tolist(), graphs.row_starts.tolist()
    return [heads[low:high] for low, high in zip(starts, starts[1:], strict=False)]
