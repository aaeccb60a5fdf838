"""Semidefinite relaxations of cuts and communities: a vector of unit length at each node in place of a sign, moved one after the other (the
mixing method: Wang, Chang and Kolter 2017; Burer and Monteiro 2003), with a bound that no other solution exceeds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.extras import scipy_module
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.operators import Adjacency
from robustlab.gnn.spectral import as_scipy, grouped

DENSE = 2000  # nodes up to which the bound takes all eigenvalues
LOOK = 10  # sweeps between two looks at the value


@dataclass(frozen=True)
class Relaxation:
    """Maximize ``<M, X>`` over positive semidefinite ``X`` with ones on the diagonal, for ``M = sign A + mean J``; ``J`` is all ones.

    Attributes:
        graph: one.
        sign: 1 or -1.
        mean: what is added to every entry.
    """

    graph: GraphBatch
    sign: float
    mean: float = 0.0

    def times(self, vectors: Tensor) -> Tensor:
        """``M V``, from ``(n, r)`` to ``(n, r)``."""
        return self.sign * Adjacency().apply(self.graph, vectors) + self.mean * vectors.sum(0)

    def value(self, vectors: Tensor) -> float:
        """``<M, V V^T>``."""
        return float((self.times(vectors) * vectors).sum())


@dataclass(frozen=True)
class Embedding:
    """A solution ``X = V V^T`` of a relaxation.

    Attributes:
        relaxation: what was solved.
        vectors: of unit length, float64 ``(n, r)``.
        value: ``<M, V V^T>``.
        sweeps: how often every vector was moved.
    """

    relaxation: Relaxation
    vectors: Tensor
    value: float
    sweeps: int

    def bound(self) -> float:
        """What no ``X`` exceeds: ``sum y + n max(eigenvalues of M - diag y)`` for ``y = diag(M V V^T)``, by duality. Above ``DENSE`` nodes
        the eigenvalue is Lanczos's, to 1e-6."""
        here = self.relaxation
        y = (here.times(self.vectors) * self.vectors).sum(1)
        n = here.graph.n
        if n <= DENSE:
            largest = float(torch.linalg.eigvalsh(here.sign * here.graph.adjacency() + here.mean - y.diag())[-1])
        else:
            linalg, rows, own = scipy_module("sparse.linalg"), as_scipy(Adjacency().sparse(here.graph)), y.numpy()
            shape = linalg.LinearOperator((n, n), matvec=lambda x: here.sign * (rows @ x) + here.mean * x.sum() - own * x, dtype=own.dtype)
            largest = float(linalg.eigsh(shape, k=1, which="LA", v0=own, tol=1e-6, return_eigenvectors=False)[0])
        return float(y.sum()) + n * largest


def cut_relaxation(graph: GraphBatch) -> Relaxation:
    """Of the largest cut (Goemans and Williamson 1995): with ``m`` edges, a value ``f`` is a cut of ``m / 2 + f / 4``."""
    return Relaxation(graph, -1.0)


def community_relaxation(graph: GraphBatch, *, assortative: bool = True) -> Relaxation:
    """Of two communities of equal size that like or avoid each other: ``A`` less the mean degree over ``n``, or minus that (Montanari and
    Sen 2016)."""
    sign = 1.0 if assortative else -1.0
    return Relaxation(graph, sign, -sign * graph.mean_degree / graph.n)


def solved(relaxation: Relaxation, *, rank: int | None = None, sweeps: int = 1000, tolerance: float = 1e-6, seed: int = 0) -> Embedding:
    """Move the vectors of nodes that are not neighbours at once, each to where the value is largest, until it stays.

    No move lowers the value. With ``rank`` above the root of ``2 n`` almost every relaxation has no other maximum than the right one
    (Boumal, Voroninski and Bandeira 2016); ``bound`` says how far away it is.

    Args:
        relaxation: what to solve.
        rank: length of the vectors; None is the root of ``2 n``, rounded up, and one more.
        sweeps: at most so many.
        tolerance: the smallest relative gain of ten sweeps that goes on.
        seed: of the start.

    Raises:
        UserError: a rank below 2, or more than one graph.
    """
    graph = relaxation.graph
    if len(graph) != 1:
        raise UserError(f"a relaxation is solved for one graph, got {len(graph)}: take each with `one`")
    rank = math.ceil((2 * graph.n) ** 0.5) + 1 if rank is None else rank
    if rank < 2:
        raise UserError(f"vectors of the relaxation need a `rank` of at least 2, got {rank}")
    vectors = normalize(seeding.normal(seeding.example_keys(seed, torch.tensor([0])), (graph.n, rank), torch.float64)[0])
    parts, value, number = _rows_of_sets(graph, seed), relaxation.value(vectors), 0
    while number < sweeps:
        for _ in range(min(LOOK, sweeps - number)):
            _sweep(relaxation, vectors, parts)
            number += 1
        value, before = relaxation.value(vectors), value
        if value - before <= tolerance * max(abs(value), 1.0):
            break
    return Embedding(relaxation, vectors, value, number)


def _sweep(relaxation: Relaxation, vectors: Tensor, parts: list[tuple[Tensor, Tensor]]) -> None:
    """Move every vector once, in place."""
    total = vectors.sum(0)
    for nodes, rows in parts:
        here = vectors[nodes]
        pull = relaxation.sign * (rows @ vectors)
        if relaxation.mean:
            # Within a set M is the constant `mean`: with this much of itself the set's part is convex, so that no move lowers the value.
            pull += relaxation.mean * total + max(-relaxation.mean * len(nodes), 0.0) * here
        size = pull.norm(dim=1, keepdim=True)
        new = torch.where(size > 1e-12, pull / size.clamp(min=1e-12), here)
        total = total + (new - here).sum(0)
        vectors[nodes] = new


def _rows_of_sets(graph: GraphBatch, seed: int) -> list[tuple[Tensor, Tensor]]:
    """For each set of nodes that are not neighbours: the nodes, and their rows of the adjacency matrix."""
    colours, found = independent_sets(graph, seed), []
    of_edges = colours[graph.tail]
    for colour in range(int(colours.max()) + 1):
        nodes = (colours == colour).nonzero()[:, 0]
        starts = torch.cat([nodes.new_zeros(1), graph.degree[nodes].cumsum(0)])
        columns = graph.head[of_edges == colour]
        rows = torch.sparse_csr_tensor(starts, columns, torch.ones(len(columns), dtype=torch.float64), (len(nodes), graph.n))
        found.append((nodes, rows))
    return found


def independent_sets(graphs: GraphBatch, seed: int = 0) -> Tensor:
    """A number for each node, from 0, which no neighbour shares: int64 ``(N,)``. Nodes take the least free one in random order, those
    first whose place is before all their neighbours' (Jones and Plassmann 1993)."""
    place = seeding.permutation(seed, graphs.n, "independent sets")
    colours = torch.full((graphs.n,), -1)
    while (colours < 0).any():
        of_head = torch.where(colours[graphs.head] < 0, place[graphs.head], -1)
        highest = torch.full((graphs.n,), -1).scatter_reduce(0, graphs.tail, of_head, "amax")
        now = (colours < 0) & (place > highest)
        colours[now] = _least_free(graphs, colours, now)
    return colours


def _least_free(graphs: GraphBatch, colours: Tensor, now: Tensor) -> Tensor:
    """The least number from 0 that no neighbour has, for the nodes of a mask."""
    edges = now[graphs.tail] & (colours[graphs.head] >= 0)
    rows = (now.cumsum(0) - 1)[graphs.tail[edges]]
    taken = torch.zeros(int(now.sum()), int(colours.max()) + 2, dtype=torch.bool)
    taken[rows, colours[graphs.head[edges]]] = True
    return (~taken).long().argmax(1)


def by_semidefinite(graph: GraphBatch, k: int, *, assortative: bool = True, seed: int = 0) -> Tensor:
    """Communities from the directions in which the vectors of ``community_relaxation`` differ most. Other arguments see ``communities``."""
    if k == 1:
        return torch.zeros(graph.n, dtype=torch.int64)
    tolerance = 1e-5 if k == 2 else 1e-6  # the signs in one direction are there before the directions of many groups
    vectors = solved(community_relaxation(graph, assortative=assortative), tolerance=tolerance, seed=seed).vectors
    left, values, _ = torch.linalg.svd(vectors, full_matrices=False)
    if k == 2:
        return (left[:, 0] > 0).long()
    return grouped(normalize((left * values)[:, : k - 1]), k, seed)
