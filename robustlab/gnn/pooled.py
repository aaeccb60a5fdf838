"""Graph networks with one answer for each graph, ``(B, out)``: values of nodes are summed over each graph, after every layer.

    network = GIN(2, features=7)
    logits = network(graphs)

Values of a graph's own nodes are not normalized as in the networks of nodes: that would take away what regular graphs differ by.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from robustlab import seeding
from robustlab.errors import unknown
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.layers import GraphLayer, MessageLayer, drawn_linear
from robustlab.gnn.networks import NETWORKS, GraphNetwork, dyadic, some
from robustlab.gnn.operators import Operator

POOLS = {"sum": GraphBatch.summed, "mean": GraphBatch.mean}


class Pooled(GraphNetwork):
    """What ``GIN`` and ``PooledSGNN`` share: the sum over layers, the input too, of a linear map of the nodes' sum (Xu et al. 2019,
    equation 4.2, where each layer has a map of its own)."""

    of_graphs = True

    def __init__(self, settings: dict[str, Any], layer: Callable[[int, int, torch.Generator], nn.Module], seed: int) -> None:
        super().__init__(settings)
        if settings["pool"] not in POOLS:
            raise unknown("pool of a graph network", settings["pool"], POOLS)
        source = seeding.generator(seed, "weights")
        self.layers = self.stacked(lambda a, b: layer(a, b, source))
        self.readouts = nn.ModuleList(drawn_linear(width, settings["out"], source) for width in self.widths)

    def forward(self, graphs: GraphBatch) -> Tensor:
        """Values of the graphs, ``(B, out)``."""
        x, pool = self.start(graphs), POOLS[self.settings["pool"]]
        found: Tensor = self.readouts[0](pool(graphs, x))
        for layer, readout in zip(self.layers, self.readouts[1:], strict=True):
            x = layer(graphs, x)
            found = found + readout(pool(graphs, x))
        return found


class GIN(Pooled):
    """The graph isomorphism network (Xu et al. 2019): ``h_v = MLP((1 + eps) h_v + sum of the neighbours' h_u)`` with two linear maps, and
    after every layer a sum over the nodes. Without a norm and wide enough it sees what 1-WL sees, and never more.

    Args:
        out: values of each graph.
        features: of each node; 0 for its degree.
        width: channels of each layer.
        depth: layers; the paper counts the input as one more.
        norm: before each ReLU: ``batch`` is BatchNorm over the batch's nodes, ``none``, or ``graph``, which does not tell regular graphs of
            different degree apart.
        pool: ``sum`` or ``mean`` over the nodes.
        seed: of the first weights.

    Raises:
        UserError: a size below 1, another norm or pool.
    """

    def __init__(
        self, out: int, *, features: int = 0, width: int = 64, depth: int = 5, norm: str = "batch", pool: str = "sum", seed: int = 0
    ) -> None:
        settings = {"out": out, "features": features, "width": width, "depth": depth, "norm": norm, "pool": pool}
        super().__init__(settings, lambda a, b, source: MessageLayer(a, b, norm=norm, source=source), seed)


class PooledSGNN(Pooled):
    """sGNN(M) (Chen, Li and Bruna 2019) with sums over the nodes, the input's too, as in ``GIN``.

    Args:
        operators: the family M.
        out, features, width, depth, norm, pool, seed: as in ``GIN``.

    Raises:
        UserError: a size below 1, no operator, another norm or pool.
    """

    def __init__(
        self,
        out: int,
        operators: Sequence[Operator] = dyadic(3),
        *,
        features: int = 0,
        width: int = 64,
        depth: int = 5,
        norm: str = "batch",
        pool: str = "sum",
        seed: int = 0,
    ) -> None:
        family, settings = some(operators), {"out": out, "features": features, "width": width, "depth": depth, "norm": norm, "pool": pool}
        super().__init__(settings, lambda a, b, source: GraphLayer(family, a, b, norm=norm, source=source), seed)
        self.settings["operators"] = family


NETWORKS.update(gin=GIN, pooled_sgnn=PooledSGNN)
