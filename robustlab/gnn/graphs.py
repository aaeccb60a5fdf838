"""Undirected graphs, one or many side by side: what everything in this package works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustlab.errors import UserError


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Undirected graphs side by side: one graph of several parts, whose adjacency matrix is block-diagonal.

    Made by ``graph``, ``as_graphs`` and ``side_by_side``, which check what comes in; a generator makes it directly.

    Attributes:
        edge_index: both directions of every edge, int64 ``(2, E)``, sorted by the first row and then by the second, without self-loops
            or double edges. Nodes of the second graph are numbered after those of the first.
        sizes: how many nodes each graph has, int64 ``(B,)``.
        x: features of the nodes, ``(N, F)``, where there are some.
        y: labels of the nodes ``(N,)`` or of the graphs ``(B,)``, where there are some.
        keys: random keys of the graphs, int64 ``(B,)``, see ``robustlab.seeding``.
    """

    edge_index: Tensor
    sizes: Tensor
    x: Tensor | None = None
    y: Tensor | None = None
    keys: Tensor | None = None

    def __len__(self) -> int:
        return len(self.sizes)

    def __repr__(self) -> str:
        edges = self.edge_index.shape[1] // 2
        return f"GraphBatch({len(self)} graph{'s' * (len(self) != 1)}, {self.n:,} nodes, {edges:,} edges)"

    @cached_property
    def n(self) -> int:
        """How many nodes there are in all, ``N``."""
        return int(self.sizes.sum())

    @property
    def tail(self) -> Tensor:
        """Where each directed edge begins, ``(E,)``."""
        return self.edge_index[0]

    @property
    def head(self) -> Tensor:
        """Where each directed edge ends, ``(E,)``."""
        return self.edge_index[1]

    @cached_property
    def degree(self) -> Tensor:
        """Neighbours of each node, int64 ``(N,)``."""
        return torch.bincount(self.tail, minlength=self.n)

    @cached_property
    def starts(self) -> Tensor:
        """The first node of each graph, and ``N`` at the end: int64 ``(B + 1,)``."""
        return torch.cat([self.sizes.new_zeros(1), self.sizes.cumsum(0)])

    @cached_property
    def graph(self) -> Tensor:
        """The graph to which each node belongs, int64 ``(N,)``."""
        return torch.repeat_interleave(torch.arange(len(self), device=self.sizes.device), self.sizes, output_size=self.n)

    @cached_property
    def row_starts(self) -> Tensor:
        """The first edge of each node, and ``E`` at the end: int64 ``(N + 1,)``, the row pointers of a sparse matrix."""
        return torch.cat([self.degree.new_zeros(1), self.degree.cumsum(0)])

    @cached_property
    def reverse(self) -> Tensor:
        """The position of each directed edge's other direction, int64 ``(E,)``."""
        # Sorted by head and then by tail, the edges are the other directions in their own order.
        return (self.head * self.n + self.tail).argsort()

    @cached_property
    def mean_degree(self) -> float:
        """Neighbours of a node on average."""
        return self.edge_index.shape[1] / max(self.n, 1)

    def adjacency(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The dense adjacency matrix of all the graphs, ``(N, N)``."""
        dense = torch.zeros(self.n, self.n, dtype=dtype, device=self.edge_index.device)
        dense[self.tail, self.head] = 1
        return dense

    def summed(self, values: Tensor) -> Tensor:
        """The sum of each graph's nodes: from ``(N, ...)`` to ``(B, ...)``."""
        return values.new_zeros(len(self), *values.shape[1:]).index_add(0, self.graph, values)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over each graph's nodes: from ``(N, ...)`` to ``(B, ...)``; zero for a graph without nodes."""
        return self.summed(values) / self.sizes.clamp(min=1).to(values).reshape(-1, *[1] * (values.ndim - 1))

    def to(self, device: torch.device | str) -> GraphBatch:
        """The same on another device."""
        known = {name: value.to(device) for name, value in self._tensors().items()}
        return replace(self, **known)

    def labelled(self, y: Tensor) -> GraphBatch:
        """The same graphs with labels."""
        return replace(self, y=y)

    def one(self, which: int) -> GraphBatch:
        """One of the graphs; of one graph that itself, not a copy."""
        if len(self) == 1 and which in (0, -1):
            return self
        return self.some(torch.tensor([which % len(self)]))

    def some(self, which: Tensor) -> GraphBatch:
        """Some of the graphs, in the order and as often as their numbers are there.

        Args:
            which: int64 ``(C,)``, from 0 to ``B - 1``.
        """
        which = which.to(self.sizes.device)
        begin, sizes = self.starts[which], self.sizes[which]
        nodes, _ = _ranges(begin, sizes)
        first = self.row_starts[begin]
        edges, owner = _ranges(first, self.row_starts[begin + sizes] - first)
        parts = {}
        for name, value in self._tensors().items():
            if name not in ("edge_index", "sizes"):
                of_graphs = name == "keys" or (name == "y" and len(value) == len(self))
                parts[name] = value[which if of_graphs else nodes]
        moved = (sizes.cumsum(0) - sizes - begin)[owner]
        return GraphBatch(self.edge_index[:, edges] + moved, sizes, **parts)

    def permuted(self, order: Tensor) -> GraphBatch:
        """The same graph with other numbers: node ``i`` is called ``order[i]``; features and labels of nodes move along.

        Args:
            order: a permutation, int64 ``(N,)``, which keeps every node in its graph.
        """
        back = torch.empty_like(order)
        back[order] = torch.arange(self.n, device=order.device)
        moved = {name: value[back] for name, value in self._tensors().items() if name in ("x", "y") and len(value) == self.n}
        return replace(self, edge_index=_sorted(order[self.edge_index], self.n), **moved)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name in ("edge_index", "sizes", "x", "y", "keys") if (value := getattr(self, name)) is not None}


def graph(edge_index: Any, n: int | None = None, *, x: Any = None, y: Any = None) -> GraphBatch:
    """One graph from its edges.

    Args:
        edge_index: whole numbers ``(2, E)``, nodes counted from 0: every edge in both directions, or every edge once.
        n: number of nodes; one more than the largest in ``edge_index`` if left out, so it must be said where the last have no edge.
        x: features of the nodes, ``(n, F)``.
        y: labels of the nodes, whole numbers ``(n,)``.

    Raises:
        UserError: other shapes or types, a node that does not exist, a self-loop, a double edge, edges of which some have their other
            direction and some not, features that are not finite.
    """
    edges = _whole(edge_index, "edge_index")
    if edges.ndim != 2 or len(edges) != 2:
        raise UserError(f"edge_index must have the shape (2, E), got {tuple(edges.shape)}")
    count = _count(edges, n)
    loops = edges[0] == edges[1]
    if loops.any():
        raise UserError(f"node {edges[0][loops][0]} has an edge to itself ({int(loops.sum())} self-loops): leave them out")
    found = GraphBatch(_both_directions(edges, count), torch.tensor([count]))
    return replace(found, x=_features(x, count), y=_labels(y, count))


def from_adjacency(matrix: Any, *, x: Any = None, y: Any = None) -> GraphBatch:
    """One graph from its adjacency matrix.

    Args:
        matrix: ``(n, n)`` of zeros and ones, symmetric, zero on the diagonal.
        x, y: as in ``graph``.

    Raises:
        UserError: another shape, weights, a direction, or a self-loop.
    """
    dense = torch.as_tensor(matrix)
    if dense.ndim != 2 or dense.shape[0] != dense.shape[1]:
        raise UserError(f"an adjacency matrix must have the shape (n, n), got {tuple(dense.shape)}")
    if not ((dense == 0) | (dense == 1)).all():
        raise UserError("an adjacency matrix must hold zeros and ones: graphs with weights are not meant here")
    if not (dense == dense.T).all():
        i, j = (dense != dense.T).nonzero()[0].tolist()
        raise UserError(f"an adjacency matrix must be symmetric, but the edge {i} -> {j} has one direction only")
    return graph(dense.nonzero().T, len(dense), x=x, y=y)


def as_graphs(data: Any) -> GraphBatch:
    """Graphs from what others call one: a ``GraphBatch``, torch_geometric's ``Data``, a networkx graph, an adjacency matrix, or a list.

    Raises:
        UserError: none of these, or one that is directed, has weights, self-loops or double edges.
    """
    if isinstance(data, GraphBatch):
        return data
    if isinstance(data, list | tuple):
        return side_by_side([as_graphs(one) for one in data])
    if hasattr(data, "edge_index"):
        return _from_pyg(data)
    if hasattr(data, "adjacency") and hasattr(data, "is_directed"):
        return _from_networkx(data)
    if isinstance(data, Tensor | np.ndarray):
        return from_adjacency(data)
    kinds = "a GraphBatch, torch_geometric's Data, a networkx graph or an adjacency matrix"
    raise UserError(f"graphs must be {kinds}, got {type(data).__name__}")


def side_by_side(graphs: Sequence[GraphBatch]) -> GraphBatch:
    """Many graphs as one batch.

    Raises:
        UserError: none at all, or some with features, labels or keys and some without.
    """
    if not graphs:
        raise UserError("a batch needs at least one graph")
    if len(graphs) == 1 and type(graphs[0]) is GraphBatch:
        return graphs[0]
    shifts = torch.tensor([0, *[one.n for one in graphs]]).cumsum(0).tolist()
    edges = torch.cat([one.edge_index + shift for one, shift in zip(graphs, shifts, strict=False)], 1)
    joined = {}
    for name in ("x", "y", "keys"):
        values = [getattr(one, name) for one in graphs]
        if any(value is not None for value in values):
            if any(value is None for value in values):
                raise UserError(f"either all graphs of a batch have `{name}` or none")
            joined[name] = torch.cat(values)
    return GraphBatch(edges, torch.cat([one.sizes for one in graphs]), **joined)


def _whole(values: Any, name: str) -> Tensor:
    try:
        found = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"{name} must be an array of whole numbers") from None
    if found.is_floating_point() or found.is_complex() or found.dtype == torch.bool:
        if found.numel():
            raise UserError(f"{name} must hold whole numbers, got {str(found.dtype).removeprefix('torch.')}")
        found = found.reshape(found.shape or (0,))
    return found.to(torch.int64)


def _count(edges: Tensor, n: int | None) -> int:
    if edges.numel() and int(edges.min()) < 0:
        raise UserError(f"nodes are counted from 0, got {int(edges.min())}")
    least = int(edges.max()) + 1 if edges.numel() else 0
    if n is not None and n < least:
        raise UserError(f"the graph has n = {n} nodes, but an edge names node {least - 1}")
    if not (least if n is None else n):
        raise UserError("the graph has no nodes")
    return least if n is None else int(n)


def _both_directions(edges: Tensor, n: int) -> Tensor:
    """Sorted edges in both directions, from edges given once or twice."""
    forward, backward = edges[0] * n + edges[1], edges[1] * n + edges[0]
    if len(forward.unique()) != len(forward):
        values, counts = forward.unique(return_counts=True)
        double = int(values[counts > 1][0])
        raise UserError(f"the edge {double // n} -> {double % n} is there more than once")
    has_other = torch.isin(forward, backward)
    if has_other.all():
        return _sorted(edges, n)
    if has_other.any():
        i, j = edges[:, ~has_other][:, 0].tolist()
        raise UserError(f"the edge {i} -> {j} has one direction only, others have both: graphs must be undirected")
    return _sorted(torch.cat([edges, edges.flip(0)], 1), n)


def _ranges(begin: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The numbers ``begin[i], ..., begin[i] + counts[i] - 1``, one ``i`` after the other, and the ``i`` of each."""
    owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    return torch.arange(len(owner), device=counts.device) + (begin - counts.cumsum(0) + counts)[owner], owner


def _sorted(edges: Tensor, n: int) -> Tensor:
    return edges[:, (edges[0] * n + edges[1]).argsort()]


def _features(x: Any, n: int) -> Tensor | None:
    if x is None:
        return None
    found = torch.as_tensor(x)
    if found.ndim != 2 or len(found) != n:
        raise UserError(f"features must have the shape ({n}, F), got {tuple(found.shape)}")
    found = found if found.is_floating_point() else found.float()
    if not found.isfinite().all():
        raise UserError(f"features must be finite, but node {int((~found.isfinite()).nonzero()[0, 0])} has one that is not")
    return found


def _labels(y: Any, n: int) -> Tensor | None:
    if y is None:
        return None
    found = _whole(y, "labels")
    if found.shape != (n,):
        raise UserError(f"labels of nodes must have the shape ({n},), got {tuple(found.shape)}")
    if len(found) and int(found.min()) < 0:
        raise UserError(f"labels are counted from 0, got {int(found.min())}")
    return found


def _from_pyg(data: Any) -> GraphBatch:
    if getattr(data, "edge_weight", None) is not None:
        raise UserError("graphs with weights are not meant here: leave out edge_weight")
    n = getattr(data, "num_nodes", None)
    x, y = getattr(data, "x", None), getattr(data, "y", None)
    nodes = y if y is not None and len(torch.as_tensor(y)) == n else None
    found = graph(data.edge_index, n, x=x, y=nodes)
    return found if y is None or nodes is not None else found.labelled(torch.as_tensor(y).reshape(-1)[:1])


def _from_networkx(data: Any) -> GraphBatch:
    if data.is_directed() or data.is_multigraph():
        raise UserError("graphs must be undirected, without double edges: use networkx's Graph")
    place = {node: i for i, node in enumerate(data.nodes)}
    pairs = [(place[a], place[b]) for a, b in data.edges]
    return graph(torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T, len(place))
