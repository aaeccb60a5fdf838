"""Graph networks: from a ``GraphBatch`` to values of its nodes, ``(N, out)``.

    network = SGNN(out=5, operators=(Identity(), Degree(), Adjacency(), Reached(2), GraphMean()), width=8, depth=15)
    logits = network(graphs)

What goes in is ``graphs.x`` where the network is made for ``features``, else the degree of each node. Every network is equivariant: nodes
that are renumbered get the same values. ``describe`` and ``from_description`` write a network's shape down and make it again.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from robustlab import seeding
from robustlab.errors import UserError, unknown
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.layers import GraphLayer, LineGraphLayer, MessageLayer, drawn_linear, line_degree
from robustlab.gnn.operators import Adjacency, Degree, GraphMean, Identity, Operator, Power, Reached, ZeroOne

LARGEST = {"features": 10_000, "out": 10_000, "width": 10_000, "depth": 1_000}


def dyadic(count: int, *, clipped: bool = True) -> tuple[Operator, ...]:
    """The operators ``I, D, A, A^2, A^4, ...`` with ``count`` powers of A, from ``A^1`` on.

    Args:
        clipped: ``min(1, A^t)`` in place of ``A^t``, the power graphs of Chen, Li and Bruna 2019.

    Raises:
        UserError: fewer than one power.
    """
    if count < 1:
        raise UserError(f"a graph network needs at least one power of the adjacency matrix, got {count}")
    kind = Reached if clipped else Power
    return (Identity(), Degree(), Adjacency(), *(kind(2**j) for j in range(1, count)))


def clipped(count: int) -> tuple[Operator, ...]:
    """The operators ``I, D, min(1, A), min(1, A^2), min(1, A^3), ...`` with ``count`` powers.

    Raises:
        UserError: fewer than one power.
    """
    if count < 1:
        raise UserError(f"a graph network needs at least one power of the adjacency matrix, got {count}")
    return (Identity(), Degree(), *(Reached(t + 1) for t in range(count)))


class GraphNetwork(nn.Module):
    """What graph networks share; each is made by ``SGNN``, ``LGNN`` or ``MPNN``.

    Attributes:
        settings: what the network was made with, but for its seed.
        of_graphs: whether its values are of graphs, ``(B, out)``, and not of their nodes.
    """

    of_graphs = False
    layers: nn.ModuleList
    last: nn.Module

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        for name, most in LARGEST.items():
            least = 0 if name == "features" else 1
            if not least <= settings[name] <= most:
                raise UserError(f"`{name}` of a graph network must be {least} to {most:,}, got {settings[name]}")
        self.settings = dict(settings)

    @property
    def widths(self) -> list[int]:
        """The channels before the first layer and after each."""
        return [self.settings["features"] or 1, *[self.settings["width"]] * self.settings["depth"]]

    def stacked(self, layer: Callable[[int, int], nn.Module]) -> nn.ModuleList:
        """Layers one after the other, each made from the channels that go in and come out."""
        return nn.ModuleList(layer(a, b) for a, b in zip(self.widths, self.widths[1:], strict=False))

    def start(self, graphs: GraphBatch) -> Tensor:
        """The first values of the nodes, ``(N, features)``: the degree where ``features`` is 0.

        Raises:
            UserError: the graphs have no features, or others.
        """
        features, dtype = self.settings["features"], next(self.parameters()).dtype
        if not features:
            return graphs.degree.to(dtype)[:, None]
        if graphs.x is None or graphs.x.shape[1] != features:
            there = "none" if graphs.x is None else graphs.x.shape[1]
            raise UserError(f"the network wants {features} features of each node, the graphs have {there}")
        return graphs.x.to(dtype)

    def forward(self, graphs: GraphBatch) -> Tensor:
        """Values of the nodes, ``(N, out)``."""
        x = self.start(graphs)
        for layer in self.layers:
            x = layer(graphs, x)
        found: Tensor = self.last(x)
        return found


class SGNN(GraphNetwork):
    """Graph layers with a family of operators, and a linear map at the end: sGNN(M) (Chen, Li and Bruna 2019).

    Args:
        out: values of each node.
        operators: the family M.
        features: of each node; 0 for its degree.
        width: channels of each layer.
        depth: layers.
        linear: without ReLU.
        seed: of the first weights.

    Raises:
        UserError: a size below 1, or no operator.
    """

    def __init__(
        self,
        out: int,
        operators: Sequence[Operator] = (*dyadic(2), GraphMean()),
        *,
        features: int = 0,
        width: int = 8,
        depth: int = 15,
        linear: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__({"out": out, "features": features, "width": width, "depth": depth, "linear": linear})
        self.settings["operators"] = some(operators)
        source = seeding.generator(seed, "weights")
        self.layers = self.stacked(lambda a, b: GraphLayer(operators, a, b, linear=linear, source=source))
        self.last = drawn_linear(width, out, source)


class LGNN(GraphNetwork):
    """Layers on a graph and its line graph together (Chen, Li and Bruna 2019), in memory proportional to the edges.

    Args:
        reach: largest power of the non-backtracking operator, 1 or 2.
        out, operators, features, width, depth, linear, seed: as in ``SGNN``. Edges begin with their degree in the line graph, in
            ``features`` equal channels.

    Raises:
        UserError: a size below 1, no operator, or another ``reach``.
    """

    def __init__(
        self,
        out: int,
        operators: Sequence[Operator] = dyadic(2),
        *,
        reach: int = 2,
        features: int = 0,
        width: int = 8,
        depth: int = 15,
        linear: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__({"out": out, "features": features, "width": width, "depth": depth, "linear": linear, "reach": reach})
        self.settings["operators"] = some(operators)
        source = seeding.generator(seed, "weights")
        self.layers = self.stacked(lambda a, b: LineGraphLayer(operators, a, b, reach=reach, linear=linear, source=source))
        self.last = drawn_linear(width, out, source)

    def forward(self, graphs: GraphBatch) -> Tensor:
        """Values of the nodes, ``(N, out)``."""
        x = self.start(graphs)
        y = line_degree(graphs, x.dtype).expand(-1, x.shape[1])
        for layer in self.layers:
            x, y = layer(graphs, x, y)
        found: Tensor = self.last(x)
        return found


class MPNN(GraphNetwork):
    """Message passing with sums over the neighbours (GIN, Xu et al. 2019), and a linear map at the end.

    Args:
        out, features, width, depth, seed: as in ``SGNN``.

    Raises:
        UserError: a size below 1.
    """

    def __init__(self, out: int, *, features: int = 0, width: int = 16, depth: int = 10, seed: int = 0) -> None:
        super().__init__({"out": out, "features": features, "width": width, "depth": depth})
        source = seeding.generator(seed, "weights")
        self.layers = self.stacked(lambda a, b: MessageLayer(a, b, source=source))
        self.last = drawn_linear(width, out, source)


NETWORKS: dict[str, type[GraphNetwork]] = {"sgnn": SGNN, "lgnn": LGNN, "mpnn": MPNN}


def describe(network: GraphNetwork) -> dict[str, Any]:
    """What ``from_description`` needs to make the network again, in values that JSON holds."""
    name = next(name for name, kind in NETWORKS.items() if type(network) is kind)
    found = dict(network.settings)
    if "operators" in found:
        found["operators"] = [{"operator": type(one).__name__, **dataclasses.asdict(one)} for one in found["operators"]]
    return {"network": name, **found}


def from_description(description: Mapping[str, Any], source: str = "the description") -> GraphNetwork:
    """The network that ``describe`` wrote down, with first weights; other entries of the description are passed over.

    Args:
        source: the file it came from, for messages.

    Raises:
        UserError: no such network or operator, or settings that it does not have.
    """
    name = description.get("network")
    if name not in NETWORKS:
        raise unknown("graph network", str(name), NETWORKS)
    wanted = [key for key in inspect.signature(NETWORKS[name]).parameters if key != "seed"]
    if missing := [key for key in wanted if key not in description]:
        raise UserError(f"{source} does not say what graph network it holds: {', '.join(missing)} missing")
    settings = {key: description[key] for key in wanted}
    try:
        if "operators" in settings:
            settings["operators"] = tuple(_operator(one) for one in settings["operators"])
        return NETWORKS[name](**settings)
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise UserError(f"{source} does not say what graph network it holds: {error}") from None


def _operator(values: Mapping[str, Any]) -> Operator:
    known = {kind.__name__: kind for kind in (*Operator.__subclasses__(), *ZeroOne.__subclasses__()) if kind is not ZeroOne}
    settings = dict(values)
    name = settings.pop("operator")
    if name not in known:
        raise unknown("operator", str(name), known)
    return known[name](**settings)


def some(operators: Sequence[Operator]) -> tuple[Operator, ...]:
    """A family of operators.

    Raises:
        UserError: none in it.
    """
    if not operators:
        raise UserError("a graph network needs at least one operator")
    return tuple(operators)
