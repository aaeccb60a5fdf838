"""Linear operators of a graph, in three forms that agree: applied without a matrix, as a sparse matrix, as a dense one.

Every operator of nodes is block-diagonal over the graphs of a batch. Its settings are a frozen dataclass, its values come from a batch:

    y = Adjacency().apply(graphs, x)          # (N, F) -> (N, F), differentiable by x
    M = BetheHessian(r=1.7).sparse(graphs)    # (N, N)
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustlab.errors import UserError
from robustlab.gnn.graphs import GraphBatch

FLAGS = 16  # places of all blocks for each entry that is found, up to which marks are made

with warnings.catch_warnings():
    # Torch says once in each process that its CSR tensors are new.
    warnings.simplefilter("ignore", UserWarning)
    torch.sparse_csr_tensor([0, 0], [], [], (1, 1))


class Operator(ABC):
    """A linear operator on values of nodes; symmetric unless it says otherwise."""

    @abstractmethod
    def apply(self, graphs: GraphBatch, x: Tensor) -> Tensor:
        """From values ``(N, F)`` to values ``(N, F)``."""

    def sparse(self, graphs: GraphBatch) -> Tensor:
        """The matrix, as a sparse CSR tensor of float64, ``(N, N)``."""
        return self.dense(graphs).to_sparse_csr()

    def dense(self, graphs: GraphBatch) -> Tensor:
        """The matrix, float64 ``(N, N)``."""
        return self.apply(graphs, torch.eye(graphs.n, dtype=torch.float64, device=graphs.edge_index.device))


class ZeroOne(Operator):
    """An operator whose matrix is symmetric and has zeros and ones only: a sum over some nodes for each."""

    @abstractmethod
    def pattern(self, graphs: GraphBatch) -> tuple[Tensor, Tensor]:
        """Row pointers, ``(N + 1,)``, and columns of the matrix; worked out once for a batch."""

    def apply(self, graphs: GraphBatch, x: Tensor) -> Tensor:
        return spread(*self.pattern(graphs), x)

    def sparse(self, graphs: GraphBatch) -> Tensor:
        starts, columns = self.pattern(graphs)
        return csr(starts, columns, torch.ones(len(columns), dtype=torch.float64, device=columns.device), graphs.n)


@dataclass(frozen=True)
class Identity(Operator):
    """Every node's own value."""

    def apply(self, graphs: GraphBatch, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Degree(Operator):
    """Every node's own value times its number of neighbours."""

    def apply(self, graphs: GraphBatch, x: Tensor) -> Tensor:
        return x * graphs.degree.to(x)[:, None]


@dataclass(frozen=True)
class GraphMean(Operator):
    """The mean over the graph, at every node of it: ``1 1^T / n``."""

    def apply(self, graphs: GraphBatch, x: Tensor) -> Tensor:
        return graphs.mean(x)[graphs.graph]


@dataclass(frozen=True)
class Adjacency(ZeroOne):
    """The sum over the neighbours."""

    def pattern(self, graphs: GraphBatch) -> tuple[Tensor, Tensor]:
        return graphs.row_starts, graphs.head


@dataclass(frozen=True)
class Power(Operator):
    """``A^t``: the sum over walks of ``t`` steps, taken one after the other; no power of the matrix is made. Its numbers grow like the
    mean degree to the power of ``t``, which float32 holds up to about ``t = 64`` for sparse graphs."""

    t: int

    def __post_init__(self) -> None:
        _check_length(self.t)

    def apply(self, graphs: GraphBatch, x: Tensor) -> Tensor:
        for _ in range(self.t):
            x = Adjacency().apply(graphs, x)
        return x


@dataclass(frozen=True)
class Reached(ZeroOne):
    """``min(1, A^t)``: the sum over the nodes that some walk of exactly ``t`` steps reaches (the power graph of Chen, Li and Bruna 2019).

    Attributes:
        t: length of the walks.
        loops: whether a node counts that reaches itself.
    """

    t: int
    loops: bool = True

    def __post_init__(self) -> None:
        _check_length(self.t)

    def pattern(self, graphs: GraphBatch) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = cached(graphs, self, self._pattern)
        return found

    def _pattern(self, graphs: GraphBatch) -> tuple[Tensor, Tensor]:
        rows, columns = graphs.edge_index
        for _ in range(self.t - 1):
            rows, columns = _further(graphs, rows, columns)
        if not self.loops:
            rows, columns = rows[rows != columns], columns[rows != columns]
        return _starts(rows, graphs.n), columns


@dataclass(frozen=True)
class HopRing(ZeroOne):
    """The sum over the nodes at distance exactly ``t``."""

    t: int

    def __post_init__(self) -> None:
        _check_length(self.t)

    def pattern(self, graphs: GraphBatch) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = cached(graphs, self, self._pattern)
        return found

    def _pattern(self, graphs: GraphBatch) -> tuple[Tensor, Tensor]:
        n = graphs.n
        nodes = torch.arange(n, device=graphs.tail.device)
        (rows, columns), nearer = graphs.edge_index, nodes * n + nodes
        for _ in range(self.t - 1):
            nearer = torch.cat([nearer, rows * n + columns])
            rows, columns = _further(graphs, rows, columns)
            new = ~torch.isin(rows * n + columns, nearer)
            rows, columns = rows[new], columns[new]
        return _starts(rows, n), columns


@dataclass(frozen=True)
class Laplacian(Operator):
    """``D - A``; normalized ``I - D^-1/2 A D^-1/2``, and with ``tau`` regularized, with ``D + tau I`` in place of ``D`` (Amini et al. 2013;
    Le, Levina and Vershynin 2017). Where a node has no neighbour, its row of ``D^-1/2`` is zero.

    Attributes:
        normalized: scale by the degrees.
        tau: what is added to every degree; None adds the mean degree of the batch.
    """

    normalized: bool = False
    tau: float | None = 0.0

    def apply(self, graphs: GraphBatch, x: Tensor) -> Tensor:
        tau = graphs.mean_degree if self.tau is None else self.tau
        degree = graphs.degree.to(x)[:, None] + tau
        if not self.normalized:
            return degree * x - Adjacency().apply(graphs, x)
        scale = torch.where(degree > 0, degree, torch.inf).rsqrt()
        return x - scale * Adjacency().apply(graphs, scale * x)

    def sparse(self, graphs: GraphBatch) -> Tensor:
        tau = graphs.mean_degree if self.tau is None else self.tau
        degree = graphs.degree.double() + tau
        scale = torch.where(degree > 0, degree, torch.inf).rsqrt() if self.normalized else torch.ones_like(degree)
        return with_diagonal(graphs, -scale[graphs.tail] * scale[graphs.head], torch.ones_like(degree) if self.normalized else degree)


@dataclass(frozen=True)
class BetheHessian(Operator):
    """``(r^2 - 1) I - r A + D`` (Saade, Krzakala and Zdeborová 2014): its negative eigenvalues belong to communities, which like each other
    for ``r > 0`` and avoid each other for ``r < 0``.

    Attributes:
        r: None is the root of the mean degree of the batch.
    """

    r: float | None = None

    def apply(self, graphs: GraphBatch, x: Tensor) -> Tensor:
        r = self.value(graphs)
        return (r * r - 1 + graphs.degree.to(x))[:, None] * x - r * Adjacency().apply(graphs, x)

    def sparse(self, graphs: GraphBatch) -> Tensor:
        r = self.value(graphs)
        return with_diagonal(graphs, torch.full_like(graphs.tail, -r, dtype=torch.float64), r * r - 1 + graphs.degree.double())

    def value(self, graphs: GraphBatch) -> float:
        """``r`` for a batch."""
        return graphs.mean_degree**0.5 if self.r is None else self.r


@dataclass(frozen=True)
class NonBacktracking:
    """On values of *directed edges*, ``(E, F)``: the sum over the edges that begin where this one ends, but the way back
    (Krzakala et al. 2013). Not symmetric. Takes memory in proportion to the edges."""

    def apply(self, graphs: GraphBatch, y: Tensor) -> Tensor:
        return at_heads(graphs, from_tails(graphs, y)) - turned(graphs, y)

    def transposed(self, graphs: GraphBatch, y: Tensor) -> Tensor:
        """The sum over the edges that end where this one begins, but the way back."""
        return at_tails(graphs, from_heads(graphs, y)) - turned(graphs, y)

    def dense(self, graphs: GraphBatch) -> Tensor:
        """The matrix, float64 ``(E, E)``."""
        return self.apply(graphs, torch.eye(len(graphs.tail), dtype=torch.float64, device=graphs.tail.device))


@dataclass(frozen=True)
class CompactNonBacktracking:
    """The matrix ``[[0, D - I], [-I, A]]`` of size ``2 N``, which has all eigenvalues of the non-backtracking one but its trivial ones,
    1 and -1 (Ihara and Bass). Not symmetric."""

    def apply(self, graphs: GraphBatch, x: Tensor) -> Tensor:
        """From ``(2 N, F)`` to ``(2 N, F)``."""
        above, below = x.split(graphs.n)
        return torch.cat([Degree().apply(graphs, below) - below, Adjacency().apply(graphs, below) - above])

    def dense(self, graphs: GraphBatch) -> Tensor:
        """The matrix, float64 ``(2 N, 2 N)``."""
        return self.apply(graphs, torch.eye(2 * graphs.n, dtype=torch.float64, device=graphs.tail.device))


def to_nodes(graphs: GraphBatch, y: Tensor, *, signed: bool = False) -> Tensor:
    """The incidence of nodes and directed edges, from values of edges ``(E, F)`` to values of nodes ``(N, F)``: the sum over the edges that
    begin at a node, and of those that end there; signed, minus the second (Chen, Li and Bruna 2019)."""
    begin, end = from_tails(graphs, y), from_heads(graphs, y)
    return begin - end if signed else begin + end


def to_edges(graphs: GraphBatch, x: Tensor, *, signed: bool = False) -> Tensor:
    """The transpose of ``to_nodes``: from values of nodes ``(N, F)`` to values of directed edges ``(E, F)``."""
    begin, end = at_tails(graphs, x), at_heads(graphs, x)
    return begin - end if signed else begin + end


def from_tails(graphs: GraphBatch, y: Tensor) -> Tensor:
    """The sum over the edges that begin at a node: from values of directed edges ``(E, F)`` to values of nodes ``(N, F)``."""
    return summed(y, graphs.row_starts, cached(graphs, "places", _places), graphs.tail)


def from_heads(graphs: GraphBatch, y: Tensor) -> Tensor:
    """The sum over the edges that end at a node: from ``(E, F)`` to ``(N, F)``."""
    return summed(y, graphs.row_starts, graphs.reverse, graphs.head)


def at_tails(graphs: GraphBatch, x: Tensor) -> Tensor:
    """The value of the node where each directed edge begins: from ``(N, F)`` to ``(E, F)``."""
    return repeated(x, graphs.row_starts, cached(graphs, "places", _places), graphs.tail)


def at_heads(graphs: GraphBatch, x: Tensor) -> Tensor:
    """The value of the node where each directed edge ends: from ``(N, F)`` to ``(E, F)``."""
    return repeated(x, graphs.row_starts, graphs.reverse, graphs.head)


def turned(graphs: GraphBatch, y: Tensor) -> Tensor:
    """At each directed edge the value of its other direction, ``(E, F)``."""
    found: Tensor = _Turned.apply(y, graphs.reverse)
    return found


def csr(starts: Tensor, columns: Tensor, values: Tensor, n: int) -> Tensor:
    """A sparse matrix of ``n`` rows from row pointers ``starts``, ``(n + 1,)``, and the ``columns`` and ``values`` of its entries,
    ``(m,)``, without a check."""
    return torch.sparse_csr_tensor(starts, columns, values, (n, n), check_invariants=False)


def spread(starts: Tensor, columns: Tensor, x: Tensor) -> Tensor:
    """A symmetric matrix of zeros and ones, given by its rows, times values ``(N, F)``; differentiable by them."""
    found: Tensor = _Spread.apply(x, starts, columns)
    return found


class _Spread(torch.autograd.Function):
    """The matrix is symmetric, so the gradient takes the same way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, starts: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(starts, columns)
        return _times(starts, columns, x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        starts, columns = ctx.saved_tensors
        return spread(starts, columns, grad.contiguous()), None, None


def _times(starts: Tensor, columns: Tensor, x: Tensor) -> Tensor:
    ones = torch.ones(len(columns), dtype=x.dtype, device=x.device)
    return csr(starts, columns, ones, len(starts) - 1) @ x


def summed(y: Tensor, starts: Tensor, places: Tensor, owner: Tensor) -> Tensor:
    """Sums of groups of the rows of ``y``, ``(R, F)``: from ``starts``, ``(G + 1,)``, and ``places``, ``(R,)``, group ``i`` has the rows
    ``places[starts[i]:starts[i + 1]]``; ``owner``, ``(R,)``, is the group of each row."""
    found: Tensor = _Summed.apply(y, starts, places, owner)
    return found


def repeated(x: Tensor, starts: Tensor, places: Tensor, owner: Tensor) -> Tensor:
    """The transpose of ``summed``: each row of a group gets the group's value, a row of ``x``. Other arguments see ``summed``."""
    found: Tensor = _Repeated.apply(x, starts, places, owner)
    return found


class _Summed(torch.autograd.Function):
    """A sparse matrix times the rows, several times as fast as ``index_add``; the gradient is repeated, which has no sum in it."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, starts: Tensor, places: Tensor, owner: Tensor) -> Tensor:
        ctx.save_for_backward(starts, places, owner)
        ones, shape = torch.ones(len(places), dtype=y.dtype, device=y.device), (len(starts) - 1, len(y))
        return torch.sparse_csr_tensor(starts, places, ones, shape, check_invariants=False) @ y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return repeated(grad, *ctx.saved_tensors), None, None, None


class _Repeated(torch.autograd.Function):
    """Its gradient is ``summed``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, starts: Tensor, places: Tensor, owner: Tensor) -> Tensor:
        ctx.save_for_backward(starts, places, owner)
        return x.index_select(0, owner)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return summed(grad.contiguous(), *ctx.saved_tensors), None, None, None


class _Turned(torch.autograd.Function):
    """Turned twice, an edge is itself, so the gradient is turned too."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, reverse: Tensor) -> Tensor:
        ctx.save_for_backward(reverse)
        return y.index_select(0, reverse)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (reverse,) = ctx.saved_tensors
        found: Tensor = _Turned.apply(grad, reverse)
        return found, None


def _places(graphs: GraphBatch) -> Tensor:
    return torch.arange(len(graphs.tail), device=graphs.tail.device)


def with_diagonal(graphs: GraphBatch, values: Tensor, diagonal: Tensor) -> Tensor:
    """A sparse matrix with values at the edges, ``(E,)``, and on the diagonal, ``(N,)``."""
    # Edges are sorted, so the place of each entry is known: an edge moves on by the diagonal entries before it.
    nodes = torch.arange(graphs.n, device=graphs.tail.device)
    starts = graphs.row_starts + torch.arange(graphs.n + 1, device=nodes.device)
    below = torch.bincount(graphs.tail[graphs.head < graphs.tail], minlength=graphs.n)
    columns = torch.empty(len(graphs.head) + graphs.n, dtype=torch.int64, device=nodes.device)
    entries = torch.empty_like(columns, dtype=values.dtype)
    columns[starts[:-1] + below], entries[starts[:-1] + below] = nodes, diagonal
    places = torch.arange(len(graphs.head), device=nodes.device).add_(graphs.tail).add_(graphs.head > graphs.tail)
    columns[places], entries[places] = graphs.head, values
    return csr(starts, columns, entries, graphs.n)


def _check_length(t: int) -> None:
    if t < 1:
        raise UserError(f"a walk has a length of at least 1, got {t}")


def _further(graphs: GraphBatch, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """One step further: from the entries of a matrix to those of its product with the adjacency matrix, each once, sorted by row and
    column. Torch's own product of two sparse matrices takes memory on the CPU that it never gives back."""
    n, counts = graphs.n, graphs.degree[columns]
    total = int(counts.sum())
    shift = graphs.row_starts[columns] - (counts.cumsum(0) - counts)  # of a column's first edge, less its place among all
    heads = graphs.head[torch.repeat_interleave(shift, counts, output_size=total).add_(torch.arange(total, device=rows.device))]
    width = int(graphs.sizes.max()) if len(graphs) else 0
    if n * width > FLAGS * total:
        reached = heads.add_(torch.repeat_interleave(rows * n, counts, output_size=total)).unique()
        return reached // n, reached % n
    # A mark at each place of the blocks is faster than sorting where many are reached.
    begin = graphs.starts[graphs.graph]  # the first node of each node's graph
    there = torch.zeros(n * width, dtype=torch.bool, device=rows.device)
    there[heads.add_(torch.repeat_interleave(rows * width - begin[rows], counts, output_size=total))] = True
    rows, places = there.reshape(n, width).nonzero().unbind(1)
    return rows, places + begin[rows]


def _starts(rows: Tensor, n: int) -> Tensor:
    """Row pointers of entries that are sorted, ``(n + 1,)``."""
    counts = torch.bincount(rows, minlength=n)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def cached(graphs: GraphBatch, key: Any, make: Any) -> Any:
    """What belongs to a batch and is worked out once."""
    kept = graphs.__dict__.setdefault("_operators", {})
    if key not in kept:
        kept[key] = make(graphs)
    return kept[key]
