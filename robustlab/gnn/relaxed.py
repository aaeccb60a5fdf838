"""Graphs whose edges are numbers between 0 and 1, so that networks can be differentiated by them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from robustlab.errors import UserError
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.operators import Adjacency, Degree, GraphMean, Identity, Operator, Power, Reached


@dataclass(frozen=True, eq=False)
class RelaxedGraphs(GraphBatch):
    """Graphs of as many nodes each, with weighted edges; a network of operators takes them as it takes others, see ``relaxed``.

    Attributes:
        weights: symmetric matrices of edges from 0 to 1, with zeros on the diagonal: ``(B, n, n)``. ``edge_index`` is empty.
    """

    weights: Tensor = field(kw_only=True)
    _walks: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @cached_property
    def degree(self) -> Tensor:
        """The sum of each node's edges, ``(N,)``."""
        return self.weights.sum(2).flatten()

    def applied(self, operator: Operator, x: Tensor) -> Tensor:
        """What an operator makes of values ``(N, F)``.

        Raises:
            UserError: an operator that has no meaning for weighted edges, such as ``HopRing``.
        """
        if isinstance(operator, Identity | GraphMean | Degree):
            return operator.apply(self, x)
        if isinstance(operator, Adjacency | Power):
            for _ in range(operator.t if isinstance(operator, Power) else 1):
                x = self._times(self.weights, x)
            return x
        if isinstance(operator, Reached):
            return self._times(self._reached(operator), x)
        raise UserError(
            f"{type(operator).__name__} is not known on weighted edges; Identity, Degree, Adjacency, Power, Reached, GraphMean are"
        )

    def _times(self, matrices: Tensor, x: Tensor) -> Tensor:
        return torch.bmm(matrices.to(x), x.reshape(len(self), -1, x.shape[1])).reshape(-1, x.shape[1])

    def _reached(self, operator: Reached) -> Tensor:
        """``min(1, A^t)``, which is right for edges of 0 and 1, and between them the sum over walks of the products of their edges."""
        if operator.t not in self._walks:
            self._walks[operator.t] = torch.linalg.matrix_power(self.weights, operator.t)
        found = self._walks[operator.t].clamp(max=1)
        return found if operator.loops else found * (1 - torch.eye(found.shape[1], dtype=found.dtype, device=found.device))


def relaxed(graphs: GraphBatch, dtype: torch.dtype = torch.float32) -> RelaxedGraphs:
    """The same graphs with edges of 0.0 and 1.0, on which every network of these operators gives the same values.

    Args:
        graphs: all with as many nodes.
        dtype: of the edges.

    Raises:
        UserError: graphs of different sizes.
    """
    if len(graphs.sizes.unique()) > 1:
        raise UserError(f"relaxed graphs must have as many nodes each, got {sorted(set(graphs.sizes.tolist()))}")
    n = int(graphs.sizes[0]) if len(graphs) else 0
    weights = torch.zeros(graphs.n, n, dtype=dtype, device=graphs.edge_index.device)
    weights[graphs.tail, graphs.head - graphs.starts[graphs.graph[graphs.tail]]] = 1
    return RelaxedGraphs(
        graphs.edge_index[:, :0], graphs.sizes, graphs.x, graphs.y, graphs.keys, weights=weights.reshape(len(graphs), n, n)
    )
