"""A network that scores edges, from a table of distances: for tours through cities.

cities = RandomCities(20)(0, 16)                # complete graphs with points x and, for each node, its place y in a short tour
scores = edge_scores(network, cities)           # (16, 20, 20)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.gnn.generators import points
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.layers import drawn_linear
from robustlab.gnn.networks import NETWORKS, GraphNetwork
from robustlab.gnn.operators import at_heads, at_tails, from_tails, turned
from robustlab.gnn.tours import length, nearest_neighbour, two_opt

EDGE_FEATURES = 4


def complete(places: Tensor, y: Tensor | None = None, keys: Tensor | None = None) -> GraphBatch:
    """Complete graphs on points ``(B, n, 2)``, which become the features of the nodes; labels ``y``, ``(B, n)``, and ``keys``, ``(B,)``."""
    count, n, _ = places.shape
    apart = (~torch.eye(n, dtype=torch.bool)).nonzero().T
    edges = (apart[:, None] + n * torch.arange(count)[:, None]).reshape(2, -1)
    labels = None if y is None else y.flatten()
    return GraphBatch(edges, torch.full((count,), n), x=places.flatten(0, 1).float(), y=labels, keys=keys)


@dataclass(frozen=True)
class RandomCities:
    """Cities uniform in the unit square, with a short tour through each: the best of ``starts`` runs of 2-opt from nearest neighbours,
    which at 20 cities and 10 starts is the shortest in five of six, and 0.1 % longer in the mean.

    Attributes:
        n: cities.
        starts: of 2-opt.
        seed: of all.
    """

    n: int = 20
    starts: int = 10
    seed: int = 0

    def __call__(self, first: int, count: int) -> GraphBatch:
        """Complete graphs number ``first`` to ``first + count - 1``; ``y`` is each city's place in the tour."""
        places = points(self.n, graphs=count, seed=self.seed, first=first)
        keys = seeding.example_keys(self.seed, torch.arange(first, first + count))
        distances = torch.linalg.vector_norm(places[:, :, None] - places[:, None], dim=-1).repeat_interleave(self.starts, 0)
        begin = (torch.arange(self.starts) * self.n // self.starts).repeat(count)
        tours = two_opt(distances, nearest_neighbour(distances, begin))
        best = length(distances, tours).reshape(count, -1).argmin(1)
        chosen = tours.reshape(count, self.starts, -1)[torch.arange(count), best]
        return complete(places, chosen.argsort(1), keys)


def edge_features(graphs: GraphBatch) -> Tensor:
    """Of each directed edge, float32 ``(E, 4)``: its length over the mean distance to a nearest neighbour, the exponential of minus that,
    and ``1 / (1 + rank)`` among the edges that begin where it does, from the shortest with rank 0, and among those that end where it does.
    They do not change where the points are moved, turned, mirrored or scaled."""
    assert graphs.x is not None
    spread = torch.linalg.vector_norm(graphs.x[graphs.tail] - graphs.x[graphs.head], dim=1)
    nearest = torch.full((graphs.n,), torch.inf).scatter_reduce(0, graphs.tail, spread, "amin")
    unit = graphs.mean(torch.where(nearest.isfinite(), nearest, 0.0)).clamp(min=1e-12)[graphs.graph[graphs.tail]]
    order = spread.argsort(stable=True)
    order = order[graphs.tail[order].argsort(stable=True)]
    rank = torch.empty_like(spread)
    rank[order] = (torch.arange(len(order)) - graphs.row_starts[graphs.tail]).float()
    share = 1 / (1 + rank)
    return torch.stack([spread / unit, (-spread / unit).exp(), share, share[graphs.reverse]], 1)


class GatedLayer(nn.Module):
    """A step on nodes ``x`` and directed edges ``y`` (Bresson and Laurent 2017, as in Joshi, Laurent and Bresson 2019):

        y' = y + relu(norm(y C + x_tail A + x_head B)),   x' = x + relu(norm(x U + sum_edges sigmoid(y') x_head V / sum_edges sigmoid(y')))

    Args:
        width: channels of both.
        source: random numbers of the first weights.
    """

    def __init__(self, width: int, source: torch.Generator | None = None) -> None:
        super().__init__()
        self.tail, self.head, self.edge, self.own, self.heard = (drawn_linear(width, width, source) for _ in range(5))
        self.edge_norm, self.node_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, graphs: GraphBatch, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """From ``x`` ``(N, width)`` and ``y`` ``(E, width)`` to both."""
        y = y + self.edge_norm(self.edge(y) + at_tails(graphs, self.tail(x)) + at_heads(graphs, self.head(x))).relu()
        gate = y.sigmoid()
        heard = from_tails(graphs, gate * at_heads(graphs, self.heard(x))) / (from_tails(graphs, gate) + 1e-6)
        return x + self.node_norm(self.own(x) + heard).relu(), y


class GatedGNN(GraphNetwork):
    """Gated layers on points and the edges between them; its values are of *directed edges*, ``(E, out)``, the same in both directions.

    Args:
        out: values of each edge.
        features: coordinates of each node; where all are moved or scaled alike, nothing changes.
        width: channels.
        depth: layers.
        seed: of the first weights.

    Raises:
        UserError: a size below 1.
    """

    def __init__(self, out: int = 1, *, features: int = 2, width: int = 32, depth: int = 4, seed: int = 0) -> None:
        super().__init__({"out": out, "features": features, "width": width, "depth": depth})
        source = seeding.generator(seed, "weights")
        self.first_edge = drawn_linear(EDGE_FEATURES, width, source)
        self.first_node = drawn_linear(EDGE_FEATURES + features, width, source)
        self.layers = nn.ModuleList(GatedLayer(width, source) for _ in range(depth))
        self.inner, self.last = drawn_linear(width, width, source), drawn_linear(width, out, source)

    def forward(self, graphs: GraphBatch) -> Tensor:
        """Values of the directed edges, ``(E, out)``."""
        places, seen = self.start(graphs), edge_features(graphs)
        centred = places - graphs.mean(places)[graphs.graph]
        size = graphs.mean(centred.square().sum(1, keepdim=True)).sqrt().clamp(min=1e-12)[graphs.graph]
        mean = from_tails(graphs, seen) / graphs.degree.clamp(min=1)[:, None]
        x, y = self.first_node(torch.cat([mean, centred / size], 1)), self.first_edge(seen)
        for layer in self.layers:
            x, y = layer(graphs, x, y)
        found: Tensor = self.last((self.inner(y) + turned(graphs, self.inner(y))).relu())
        return found


NETWORKS["gated"] = GatedGNN


def edge_scores(network: nn.Module, graphs: GraphBatch) -> Tensor:
    """What the network says of each edge of complete graphs of one size, ``(B, n, n)``; minus infinity on the diagonal.

    Raises:
        UserError: other graphs.
    """
    n, count = int(graphs.sizes[0]), len(graphs)
    if graphs.edge_index.shape[1] != count * n * (n - 1) or (graphs.sizes != n).any():
        raise UserError("scores of edges are a table where all graphs are complete and of one size")
    table = torch.full((count, n, n), -torch.inf)
    apart = (~torch.eye(n, dtype=torch.bool)).expand(count, n, n)
    return table.masked_scatter(apart, network(graphs)[:, 0])


def tour_cross_entropy(scores: Tensor, places: Tensor) -> Tensor:
    """The cross-entropy of each city's edges to the two that the tour takes, the mean over cities, ``(B,)``.

    Args:
        scores: ``(B, n, n)``.
        places: each city's place in the tour, int64 ``(B, n)``.
    """
    n = places.shape[1]
    step = (places[:, :, None] - places[:, None]) % n
    taken = (step == 1) | (step == n - 1)
    said = torch.where(taken, scores.log_softmax(2), 0.0)
    return -said.sum(2).mean(1) / 2
