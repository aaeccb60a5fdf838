"""Matching by a siamese network: one graph network looks at two graphs, and nodes with like embeddings are matched (Nowak, Villar, Bandeira
and Bruna 2018).

    pairs = NoisyPairs("erdos-renyi", noise=0.05)(0, 16)      # 16 graphs, then their 16 copies
    decoded(similarities(network, pairs)[0])
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab import seeding
from robustlab.errors import UserError, unknown
from robustlab.gnn.generators import erdos_renyi, noisy_copies, random_regular
from robustlab.gnn.graphs import GraphBatch, side_by_side
from robustlab.gnn.networks import SGNN
from robustlab.gnn.operators import Adjacency, Degree, GraphMean, Identity, Reached

SHARPNESS = 10.0  # of the softmax over cosines, which differ by 2 at most
FEATURES = 3

FAMILIES: dict[str, Callable[..., GraphBatch]] = {"erdos-renyi": erdos_renyi, "regular": random_regular}


def with_local_counts(graphs: GraphBatch) -> GraphBatch:
    """The graphs with features of each node, ``(N, 3)``: its degree, how many nodes walks of two steps reach, and how many are at distance
    two. The degree alone says nothing in a regular graph."""
    starts, columns = Reached(2).pattern(graphs)
    rows = torch.repeat_interleave(torch.arange(graphs.n), starts.diff())
    far = rows != columns
    near = torch.isin(rows * graphs.n + columns, graphs.tail * graphs.n + graphs.head)
    counts = [graphs.degree, *(torch.bincount(rows[which], minlength=graphs.n) for which in (far, far & ~near))]
    return replace(graphs, x=torch.stack(counts, 1).float(), y=None)


@dataclass(frozen=True)
class NoisyPairs:
    """Graphs and noisy copies of them, with the same numbers of the nodes; see ``noisy_copies``. A call gives ``2 count`` graphs with
    features: first the graphs, then the copies.

    Attributes:
        family: ``erdos-renyi`` or ``regular``.
        n: nodes.
        p: density of Erdős-Rényi graphs.
        degree: of regular ones.
        noise: of the copies, or the largest where each pair's is
        mixed: drawn uniformly from 0 to ``noise``.
        seed: of all graphs.

    Raises:
        UserError: another family.
    """

    family: str = "erdos-renyi"
    n: int = 50
    p: float = 0.2
    degree: int = 10
    noise: float = 0.05
    mixed: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise unknown("family of graphs", self.family, FAMILIES)

    def __call__(self, first: int, count: int) -> GraphBatch:
        """Pairs number ``first`` to ``first + count - 1``."""
        shape = self.p if self.family == "erdos-renyi" else self.degree
        graphs = FAMILIES[self.family](self.n, shape, graphs=count, seed=self.seed, first=first)
        assert graphs.keys is not None
        share = seeding.uniform(seeding.fold(graphs.keys, "noise"), (), torch.float64) if self.mixed else 1.0
        return with_local_counts(side_by_side([graphs, noisy_copies(graphs, self.noise * share)]))


def matching_network(depth: int = 12, width: int = 20, seed: int = 0) -> SGNN:
    """The graph network for ``similarities``, with the operators I, D, A, min(1, A^2) and the mean over the graph."""
    operators = (Identity(), Degree(), Adjacency(), Reached(2), GraphMean())
    return SGNN(width, operators, features=FEATURES, width=width, depth=depth, seed=seed)


def similarities(network: nn.Module, pairs: GraphBatch) -> Tensor:
    """``SHARPNESS`` times the cosine of every two nodes' embeddings, ``(B, n, n)``: nodes of the first graph by nodes of the second.

    Args:
        network: from graphs to embeddings of their nodes, ``(N, F)``.
        pairs: ``2 B`` graphs of ``n`` nodes, the second half matched with the first.

    Raises:
        UserError: an odd number of graphs, or graphs of several sizes.
    """
    if len(pairs) % 2 or (pairs.sizes != pairs.sizes[0]).any():
        raise UserError(
            f"pairs of graphs of one size are matched, got {len(pairs)} graphs of {sorted(set(pairs.sizes.tolist()))[:5]} nodes"
        )
    first, second = F.normalize(network(pairs), dim=1).reshape(2, len(pairs) // 2, int(pairs.sizes[0]), -1)
    return SHARPNESS * first @ second.mT


def matching_cross_entropy(scores: Tensor) -> Tensor:
    """The cross-entropy of rows and of columns to the node of the same number, from ``(B, n, n)``: the mean of each pair, ``(B,)``."""
    true = torch.arange(scores.shape[1], device=scores.device).expand(len(scores), -1)
    return sum(F.cross_entropy(one, true, reduction="none").mean(1) for one in (scores, scores.mT)) / 2  # type: ignore[return-value]
