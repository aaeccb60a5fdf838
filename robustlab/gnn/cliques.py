"""Planted cliques: the nodes that belong to one, from a value at each node."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.errors import UserError
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.operators import Adjacency
from robustlab.gnn.spectral import eigenvectors

ENOUGH = 0.75  # of the nodes with the highest values a node must know, to be kept by the clean-up


def highest(graphs: GraphBatch, values: Tensor, size: int) -> Tensor:
    """The ``size`` nodes of each graph with the highest values: a mask ``(N,)``.

    Raises:
        UserError: more nodes than the smallest graph has.
    """
    if not 0 <= size <= int(graphs.sizes.min()):
        raise UserError(f"a graph of {int(graphs.sizes.min())} nodes has no clique of {size}")
    mask = torch.zeros(graphs.n, dtype=torch.bool)
    bounds = graphs.starts.tolist()
    for low, high in zip(bounds, bounds[1:], strict=False):
        mask[low + values[low:high].topk(size).indices] = True
    return mask


def cleaned(graphs: GraphBatch, mask: Tensor, size: int) -> Tensor:
    """Nodes that know at least ``ENOUGH`` of ``size`` nodes of a mask (Alon, Krivelevich and Sudakov 1998), of more than ``size`` the ones
    that know most: a mask ``(N,)``."""
    known = Adjacency().apply(graphs, mask.double()[:, None])[:, 0] + mask.double()  # a member does not count as its own neighbour
    return highest(graphs, known + 0.5 * mask.double(), size) & (known >= ENOUGH * size)


def by_degree(graphs: GraphBatch) -> Tensor:
    """Neighbours of each node, float64 ``(N,)``: enough for cliques of a constant times the root of ``n log n`` (Kučera 1995)."""
    return graphs.degree.double()


def by_second_eigenvector(graphs: GraphBatch) -> Tensor:
    """Absolute values of the adjacency matrix's second eigenvector of each graph (Alon, Krivelevich and Sudakov 1998), float64 ``(N,)``."""
    alone = [graphs.one(which) for which in range(len(graphs))]
    return torch.cat([eigenvectors(Adjacency().sparse(one), 2, smallest=False).vectors[:, 1].abs() for one in alone])


def recovered(graphs: GraphBatch, mask: Tensor) -> Tensor:
    """The share of each graph's clique, where ``y`` is 1, that a mask has: float64 ``(B,)``.

    Raises:
        UserError: no ``y`` for each node.
    """
    if graphs.y is None or len(graphs.y) != graphs.n:
        raise UserError("what is recovered needs a label of each node in `y`, 1 in the clique")
    inside = graphs.y == 1
    return graphs.summed((inside & mask).double()) / graphs.summed(inside.double()).clamp(min=1)
