"""Layers of graph networks: values of nodes, ``(N, F)``, go in, and with the nodes renumbered the same come out renumbered.

A layer is ``x -> normalize(rho(concat_k(Op_k x) theta))``, with rho a ReLU on half of the channels (Chen, Li and Bruna 2019, equation 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from robustlab.errors import UserError, unknown
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.operators import (
    Adjacency,
    HopRing,
    Operator,
    Reached,
    at_heads,
    at_tails,
    cached,
    from_heads,
    from_tails,
    repeated,
    summed,
    turned,
)
from robustlab.gnn.relaxed import RelaxedGraphs

DENSE_FROM = 0.1  # share of a matrix's entries that are not zero, from which on a dense product is faster on a CPU
DENSE_TO = 2_000  # nodes of a graph up to which a dense matrix of it is made


@dataclass(frozen=True, eq=False)
class Groups:
    """Rows in groups that lie one after the other, such as the nodes of graphs; a row is ``x[i]`` of values ``(R, F)``.

    Attributes:
        starts: the first row of each group, and ``R`` at the end: int64 ``(B + 1,)``.
    """

    starts: Tensor

    @cached_property
    def rows(self) -> int:
        """How many rows there are in all, ``R``."""
        return int(self.starts[-1])

    @cached_property
    def equal(self) -> int:
        """The rows of a group where all groups have as many, else 0."""
        sizes = self.starts.diff()
        return int(sizes[0]) if bool((sizes == sizes[0]).all()) else 0

    @cached_property
    def owner(self) -> Tensor:
        """The group of each row, int64 ``(R,)``."""
        numbers = torch.arange(len(self.starts) - 1, device=self.starts.device)
        return torch.repeat_interleave(numbers, self.starts.diff(), output_size=self.rows)

    @cached_property
    def places(self) -> Tensor:
        """The rows' numbers, int64 ``(R,)``."""
        return torch.arange(self.rows, device=self.starts.device)

    def mean(self, x: Tensor) -> Tensor:
        """The mean of each group in float64: from ``(R, F)`` to ``(B, F)``; zero for a group without rows."""
        if self.equal:
            return x.reshape(-1, self.equal, x.shape[1]).mean(1, dtype=torch.float64)
        sums = summed(x.double(), self.starts, self.places, self.owner)
        return sums / self.starts.diff().clamp(min=1)[:, None]

    def repeated(self, values: Tensor) -> Tensor:
        """Each row gets its group's value: from ``(B, F)`` to ``(R, F)``."""
        if self.equal:
            return values[:, None].expand(-1, self.equal, -1).reshape(-1, values.shape[1])
        return repeated(values, self.starts, self.places, self.owner)


def node_groups(graphs: GraphBatch) -> Groups:
    """The nodes of each graph of a batch."""
    found: Groups = cached(graphs, "node groups", lambda graphs: Groups(graphs.starts))
    return found


def edge_groups(graphs: GraphBatch) -> Groups:
    """The directed edges of each graph of a batch."""
    found: Groups = cached(graphs, "edge groups", lambda graphs: Groups(graphs.row_starts[graphs.starts]))
    return found


def normalized(groups: Groups, x: Tensor, eps: float = 1e-5, relative: float = 1e-3) -> Tensor:
    """Every channel of every group with mean 0 and variance 1 over the group's own rows: from ``(R, F)`` to ``(R, F)``.

    A channel that is constant becomes 0, also where rounding makes it differ a little.

    Args:
        groups: of the rows.
        x: values.
        eps: added to the variance.
        relative: times the mean, counts as spread too.
    """
    mean = groups.mean(x)
    centred = x - groups.repeated(mean.to(x.dtype))
    scale = (groups.mean(centred.square()) + eps + (relative * mean).square()).rsqrt()
    return centred * groups.repeated(scale.to(x.dtype))


class GraphNorm(nn.Module):
    """``normalized``, then a learned scale and shift: BatchNorm in which no graph sees another, in training as afterwards.

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, groups: Groups, x: Tensor) -> Tensor:
        """From ``(R, F)`` to ``(R, F)``."""
        return normalized(groups, x) * self.weight + self.bias


class BatchNorm(nn.Module):
    """BatchNorm over all rows of a batch, so that graphs go on to differ in their means; afterwards with what it saw in training.

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.over = nn.BatchNorm1d(width)

    def forward(self, groups: Groups, x: Tensor) -> Tensor:
        """From ``(R, F)`` to ``(R, F)``.

        Raises:
            UserError: one row in training, which has no variance.
        """
        if self.training and len(x) < 2:
            raise UserError(f"BatchNorm has to see at least 2 nodes in each batch of a training, got {len(x)}")
        found: Tensor = self.over(x)
        return found


class NoNorm(nn.Module):
    """Values as they are.

    Args:
        width: channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, groups: Groups, x: Tensor) -> Tensor:
        """From ``(R, F)`` to the same."""
        return x


NORMS: dict[str, Callable[[int], nn.Module]] = {"graph": GraphNorm, "batch": BatchNorm, "none": NoNorm}


def norm_called(name: str, width: int) -> nn.Module:
    """One of ``NORMS`` for ``width`` channels.

    Raises:
        UserError: no norm of that name.
    """
    if name not in NORMS:
        raise unknown("norm of a graph network", name, NORMS)
    return NORMS[name](width)


def propagate(operators: Sequence[Operator], graphs: GraphBatch, x: Tensor) -> list[Tensor]:
    """What each operator makes of values ``(N, F)``.

    A matrix of zeros and ones that has many ones is applied as a dense one of each graph, where all graphs of the batch are small and have
    as many nodes; the result is the same up to rounding.
    """
    return [_applied(operator, graphs, x) for operator in operators]


def _applied(operator: Operator, graphs: GraphBatch, x: Tensor) -> Tensor:
    if isinstance(graphs, RelaxedGraphs):
        return graphs.applied(operator, x)
    if isinstance(operator, Adjacency | Reached | HopRing):
        blocks = cached(graphs, ("blocks", operator, x.dtype), lambda graphs: _blocks(operator, graphs, x.dtype))
        if blocks is not None:
            return torch.bmm(blocks, x.reshape(len(graphs), -1, x.shape[1])).reshape(-1, x.shape[1])
    return operator.apply(graphs, x)


def _blocks(operator: Operator, graphs: GraphBatch, dtype: torch.dtype) -> Tensor | None:
    """The matrices of all graphs, ``(B, n, n)``; None where sparse ones are faster."""
    n = node_groups(graphs).equal
    if not n or n > DENSE_TO:
        return None
    matrix = operator.sparse(graphs)
    rows, columns = _rows_of(matrix), matrix.col_indices().long()
    if len(columns) < DENSE_FROM * len(graphs) * n * n:
        return None
    dense = torch.zeros(len(graphs) * n, n, dtype=dtype, device=graphs.tail.device)
    dense[rows, columns % n] = 1
    return dense.reshape(len(graphs), n, n)


def _rows_of(matrix: Tensor) -> Tensor:
    counts = matrix.crow_indices().long().diff()
    return torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)


def half_relu(x: Tensor) -> Tensor:
    """ReLU on the first half of the channels, the larger one, and the others as they are."""
    bent, straight = x.split([(x.shape[1] + 1) // 2, x.shape[1] // 2], 1)
    return torch.cat([bent.relu(), straight], 1)


class GraphLayer(nn.Module):
    """``normalize(rho(concat_k(Op_k x) theta + bias))``.

    Args:
        operators: the ``Op_k``.
        fan_in, fan_out: channels.
        linear: leave rho out.
        norm: one of ``NORMS``.
        source: random numbers of the first weights.
    """

    def __init__(
        self,
        operators: Sequence[Operator],
        fan_in: int,
        fan_out: int,
        *,
        linear: bool = False,
        norm: str = "graph",
        source: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.operators, self.is_linear = tuple(operators), linear
        self.theta = drawn_linear(len(self.operators) * fan_in, fan_out, source)
        self.norm = norm_called(norm, fan_out)

    def forward(self, graphs: GraphBatch, x: Tensor) -> Tensor:
        """From ``(N, fan_in)`` to ``(N, fan_out)``."""
        values = self.theta(torch.cat(propagate(self.operators, graphs, x), 1))
        found: Tensor = self.norm(node_groups(graphs), values if self.is_linear else half_relu(values))
        return found


class MessageLayer(nn.Module):
    """``h_v = MLP((1 + eps) h_v + sum of the neighbours' h_u)``, with a learned eps (Xu et al. 2019, GIN).

    Args:
        fan_in, fan_out: channels.
        norm: one of ``NORMS``, before each ReLU.
        source: random numbers of the first weights.
    """

    def __init__(self, fan_in: int, fan_out: int, *, norm: str = "graph", source: torch.Generator | None = None) -> None:
        super().__init__()
        self.eps = nn.Parameter(torch.zeros(()))
        self.first, self.second = drawn_linear(fan_in, fan_out, source), drawn_linear(fan_out, fan_out, source)
        self.inner, self.outer = norm_called(norm, fan_out), norm_called(norm, fan_out)

    def forward(self, graphs: GraphBatch, x: Tensor) -> Tensor:
        """From ``(N, fan_in)`` to ``(N, fan_out)``."""
        groups, (heard,) = node_groups(graphs), propagate([Adjacency()], graphs, x)
        hidden = self.inner(groups, self.first((1 + self.eps) * x + heard)).relu()
        found: Tensor = self.outer(groups, self.second(hidden)).relu()
        return found


class LineGraphLayer(nn.Module):
    """One step on a graph and on its line graph together (Chen, Li and Bruna 2019, equation 2), in memory proportional to the edges:

        x' = normalize(rho(concat(Op_k x, Pm y, Pd y) theta + bias))
        y' = normalize(rho(concat(y, D_B y, B y, ..., Pm^T x', Pd^T x') gamma + bias))

    Nodes have values ``x``, directed edges ``y``. B is the non-backtracking operator, D_B the degree in the line graph, Pm and Pd are the
    incidences without and with signs. No matrix of edges by edges is made: with S and R the sums of ``y`` over the edges that begin and end
    at a node, ``B y = S[head] - y[reverse]`` and ``B^2 y = (A S - R)[head] - S[tail] + y``, and products with ``gamma`` are taken at the
    nodes, before they are spread to the edges.

    Args:
        operators: the ``Op_k``.
        fan_in, fan_out: channels of nodes and of edges.
        reach: largest power of B, 1 or 2. ``B^2`` has zeros and ones only, so it is ``min(1, B^2)`` too.
        linear: leave rho out.
        source: random numbers of the first weights.

    Raises:
        UserError: another ``reach``.
    """

    def __init__(
        self,
        operators: Sequence[Operator],
        fan_in: int,
        fan_out: int,
        *,
        reach: int = 2,
        linear: bool = False,
        source: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if reach not in (1, 2):
            raise UserError(f"`reach` must be 1 or 2, got {reach}")
        self.operators, self.reach, self.is_linear = tuple(operators), reach, linear
        self.theta = drawn_linear((len(self.operators) + 2) * fan_in, fan_out, source)
        self.gamma = drawn_linear((2 + reach) * fan_in + 2 * fan_out, fan_out, source)
        self.node_norm, self.edge_norm = GraphNorm(fan_out), GraphNorm(fan_out)

    def forward(self, graphs: GraphBatch, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """From ``x`` ``(N, fan_in)`` and ``y`` ``(E, fan_in)`` to both with ``fan_out`` channels."""
        begin, end = from_tails(graphs, y), from_heads(graphs, y)
        x = self.theta(torch.cat([*propagate(self.operators, graphs, x), begin + end, begin - end], 1))
        x = self.node_norm(node_groups(graphs), x if self.is_linear else half_relu(x))
        y = self._edges(graphs, x, y, begin, end)
        return x, self.edge_norm(edge_groups(graphs), y if self.is_linear else half_relu(y))

    def _edges(self, graphs: GraphBatch, x: Tensor, y: Tensor, begin: Tensor, end: Tensor) -> Tensor:
        """``concat(y, D_B y, B y, ..., Pm^T x, Pd^T x) gamma + bias``, ``(E, fan_out)``."""
        fan_in, fan_out = y.shape[1], x.shape[1]
        own, degree, *powers, plus, minus = self.gamma.weight.T.split([*[fan_in] * (2 + self.reach), fan_out, fan_out])
        tail, head = x @ (plus + minus), x @ (plus - minus) + begin @ powers[0] + self.gamma.bias
        if self.reach == 2:
            (further,) = propagate([Adjacency()], graphs, begin)
            own, tail, head = own + powers[1], tail - begin @ powers[1], head + (further - end) @ powers[1]
        at_edge = torch.cat([y, line_degree(graphs, y.dtype) * y, turned(graphs, y)], 1) @ torch.cat([own, degree, -powers[0]])
        return at_edge + at_tails(graphs, tail) + at_heads(graphs, head)


def line_degree(graphs: GraphBatch, dtype: torch.dtype = torch.float32) -> Tensor:
    """Degrees in the line graph: how many edges go on from each directed edge without turning back, ``(E, 1)``."""
    found: Tensor = cached(graphs, ("line degree", dtype), lambda graphs: (graphs.degree[graphs.head] - 1).to(dtype)[:, None])
    return found


def drawn_linear(fan_in: int, fan_out: int, source: torch.Generator | None = None) -> nn.Linear:
    """A linear map with first weights and biases uniform within ``1 / sqrt(fan_in)``, torch's own rule, from a generator. On the meta
    device, within ``torch.device("meta")``, it has shapes only."""
    layer, bound = nn.Linear(fan_in, fan_out, device="meta"), 1 / math.sqrt(max(fan_in, 1))
    if torch.get_default_device().type == "meta":
        return layer
    layer = layer.to_empty(device="cpu")
    for parameter in layer.parameters():
        nn.init.uniform_(parameter, -bound, bound, generator=source)
    return layer
