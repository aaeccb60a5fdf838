"""Communities of graphs by every method that needs no training: spectral ones, belief propagation, a semidefinite relaxation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustlab.errors import UserError, unknown
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.propagation import by_propagation
from robustlab.gnn.sdp import by_semidefinite
from robustlab.gnn.spectral import by_adjacency, by_bethe_hessian, by_laplacian, by_non_backtracking, by_zeta

METHODS: dict[str, Callable[..., Tensor]] = {
    "adjacency": by_adjacency,
    "laplacian": by_laplacian,
    "regularized laplacian": lambda graph, k, **how: by_laplacian(graph, k, tau=None, **how),
    "bethe hessian": by_bethe_hessian,
    "bethe hessian at zeta": by_zeta,
    "non-backtracking": by_non_backtracking,
    "belief propagation": by_propagation,
    "semidefinite": by_semidefinite,
}


def communities(graphs: GraphBatch, k: int, method: str = "bethe hessian", *, assortative: bool = True, seed: int = 0) -> Tensor:
    """Labels of communities, 0 to ``k - 1``, for every node of every graph: int64 ``(N,)``.

    Args:
        graphs: one or many.
        k: how many communities each has.
        method: one of ``METHODS``.
        assortative: communities like each other; False where they avoid each other.
        seed: of all draws.

    Raises:
        UserError: an unknown method, or other than 1 to n communities.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    least = int(graphs.sizes.min())
    if not 1 <= k <= least:
        raise UserError(f"a graph of {least} nodes has 1 to {least} communities, got {k}")
    return one_by_one(lambda graph: METHODS[method](graph, k, assortative=assortative, seed=seed), graphs)


def one_by_one(find: Callable[[GraphBatch], Tensor], graphs: GraphBatch) -> Tensor:
    """Labels of every graph of a batch, each found alone: int64 ``(N,)``."""
    return torch.cat([find(graphs.one(which)) for which in range(len(graphs))])
