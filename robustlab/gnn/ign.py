"""Networks on tensors of graphs: the adjacency matrix, with the nodes' features on diagonals, goes through equivariant layers.

    network = IGN(out=2)                     # invariant, order 2: values of graphs, (B, out)
    network = EquivariantIGN(out=5)          # values of nodes, (N, out)

Graphs of one size lie in one tensor ``(B, C, n, n)``. A batch of several sizes is taken size by size, so no graph sees another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.gnn.equivariant import EquivariantLinear
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.layers import drawn_linear
from robustlab.gnn.networks import NETWORKS, GraphNetwork
from robustlab.gnn.operators import cached
from robustlab.gnn.relaxed import RelaxedGraphs

AT_ONCE = 1 << 21  # entries of a tensor of all channels, from which on graphs are taken in turn


class OneSize(NamedTuple):
    """The graphs of a batch that have as many nodes.

    Attributes:
        which: their places in the batch, ``(b,)``.
        nodes: their nodes, ``(b, n)``.
        entries: where their adjacency matrices ``(b, n, n)`` are one, ``(3, E)``.
    """

    which: Tensor
    nodes: Tensor
    entries: Tensor


def by_size(graphs: GraphBatch) -> list[OneSize]:
    """The graphs of a batch in groups of one size, the smallest first.

    Raises:
        UserError: a graph without nodes.
    """
    found: list[OneSize] = cached(graphs, "by size", _by_size)
    return found


def _by_size(graphs: GraphBatch) -> list[OneSize]:
    if len(graphs) and int(graphs.sizes.min()) < 1:
        raise UserError(f"graph {int(graphs.sizes.argmin())} of the batch has no nodes")
    owner = graphs.graph[graphs.tail]
    place, found = torch.empty_like(graphs.sizes), []
    for n in graphs.sizes.unique().tolist():
        which = (graphs.sizes == n).nonzero()[:, 0]
        place[which] = torch.arange(len(which), device=which.device)
        here = graphs.sizes[owner] == n
        entries = torch.stack([place[owner], graphs.tail - graphs.starts[owner], graphs.head - graphs.starts[owner]])[:, here]
        found.append(OneSize(which, graphs.starts[which][:, None] + torch.arange(n, device=which.device), entries))
    return found


def tensor_of(graphs: GraphBatch, group: OneSize, features: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Adjacency matrices of graphs of one size, and beside them each feature on a diagonal.

    Args:
        graphs: the batch.
        group: which of its graphs.
        features: of all nodes ``(N, F)``, or None.
        dtype: of the result.

    Returns:
        ``(b, 1 + F, n, n)``.
    """
    count, n = group.nodes.shape
    if isinstance(graphs, RelaxedGraphs):
        adjacency = graphs.weights[group.which].to(dtype)
    else:
        adjacency = torch.zeros(count, n, n, dtype=dtype, device=group.nodes.device)
        adjacency[tuple(group.entries)] = 1
    if features is None:
        return adjacency[:, None]
    return torch.cat([adjacency[:, None], features[group.nodes].transpose(1, 2).diag_embed()], 1)


class TensorNetwork(GraphNetwork, ABC):
    """What networks on tensors share: ``on_tensors`` is given graphs of one size, and few enough."""

    def forward(self, graphs: GraphBatch) -> Tensor:
        """Values of the graphs, ``(B, out)``, or of the nodes, ``(N, out)``.

        Raises:
            UserError: a graph without nodes, or other features than the network is made for.
        """
        dtype, groups = next(self.parameters()).dtype, by_size(graphs)
        features = self.start(graphs) if self.settings["features"] else None
        found = [
            self.on_tensors(x)
            for group in groups
            for x in tensor_of(graphs, group, features, dtype).split(max(1, AT_ONCE // self.entries(group.nodes.shape[1])))
        ]
        if not found:
            return torch.zeros(0, self.settings["out"], dtype=dtype, device=graphs.sizes.device)
        if self.of_graphs:
            return self.answers(torch.cat(found)[torch.cat([group.which for group in groups]).argsort()])
        order = torch.cat([group.nodes.flatten() for group in groups]).argsort()
        return torch.cat([values.flatten(0, 1) for values in found])[order]

    @abstractmethod
    def entries(self, n: int) -> int:
        """Of the largest tensor that is made of a graph of ``n`` nodes."""

    def answers(self, read: Tensor) -> Tensor:
        """From what ``on_tensors`` reads from all graphs of a batch, ``(B, F)``, to their values, ``(B, out)``."""
        return read

    @abstractmethod
    def on_tensors(self, x: Tensor) -> Tensor:
        """From ``(b, 1 + features, n, n)`` to values of the graphs, ``(b, out)``, or of the nodes, ``(b, n, out)``."""


class _IGN(TensorNetwork):
    """Equivariant layers with ReLU from order 2 to ``order``, on to ``last_order``, and two linear maps with ReLU between."""

    last_order: int

    def __init__(self, out: int, order: int = 2, *, features: int = 0, width: int = 32, depth: int = 3, seed: int = 0) -> None:
        super().__init__({"out": out, "features": features, "width": width, "depth": depth})
        if not 1 <= order <= 5:
            raise UserError(f"`order` of a network on tensors must be 1 to 5, got {order}")
        self.settings["order"] = order
        source, widths = seeding.generator(seed, "weights"), [1 + features, *[width] * depth]
        self.layers = nn.ModuleList(
            EquivariantLinear(order if i else 2, order, widths[i], widths[i + 1], source=source) for i in range(depth)
        )
        self.down = EquivariantLinear(order, self.last_order, width, width, source=source)
        self.inner, self.last = drawn_linear(width, width, source), drawn_linear(width, out, source)

    def entries(self, n: int) -> int:
        return self.settings["width"] * n ** max(2, self.settings["order"])

    def on_tensors(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x).relu()
        x = self.down(x).relu()
        found: Tensor = self.last(self.inner(x.movedim(1, -1)).relu())
        return found


class IGN(_IGN):
    """Invariant network on tensors with an index for each of ``order`` nodes (Maron et al. 2019), whose values are of graphs, ``(B, out)``:
    equivariant layers with ReLU, an invariant one, and two linear maps. Of order 2 it separates no more than 1-WL does on regular graphs;
    of order 3 it takes memory of n^3 for each channel.

    Args:
        out: values of each graph.
        order: indices of the tensors between the layers.
        features: of each node; with 0 the adjacency matrix alone goes in, which shows each node its degree.
        width: channels.
        depth: equivariant layers.
        seed: of the first weights.

    Raises:
        UserError: a size below 1, an order that is not 1 to 5, or weights that do not fit memory.
    """

    of_graphs, last_order = True, 0


class EquivariantIGN(_IGN):
    """As ``IGN``, with values of nodes, ``(N, out)``: an equivariant layer to order 1 stands in place of the invariant one.

    Args:
        out: values of each node.
        order, features, width, depth, seed: as in ``IGN``.

    Raises:
        UserError: as in ``IGN``.
    """

    of_graphs, last_order = False, 1


NETWORKS["ign"], NETWORKS["equivariant ign"] = IGN, EquivariantIGN
