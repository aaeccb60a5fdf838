"""Edges flipped under a budget, at random or against a network: what does its answer hang on?

    attacked = guided_flips(network, graphs, 0.05)             # 5 % of each graph's edges
    print(gnn.overlap(attacked, network(attacked).argmax(1), 2))

A flip removes an edge that is there, or adds one that is not. Labels, features and keys stay.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from robustlab import seeding
from robustlab.constraints import Ball, Box
from robustlab.errors import UserError
from robustlab.gnn.generators import distinct, generator, triangle
from robustlab.gnn.graphs import GraphBatch, side_by_side
from robustlab.gnn.losses import invariant_cross_entropy
from robustlab.gnn.networks import LGNN
from robustlab.gnn.relaxed import RelaxedGraphs, relaxed
from robustlab.models.frozen import frozen
from robustlab.norms import L1, L2
from robustlab.optimize import minimize
from robustlab.steps import Decaying, Steepest

GraphLoss = Callable[[GraphBatch, Tensor], Tensor]


def budgets(graphs: GraphBatch, share: float) -> Tensor:
    """How many pairs of nodes may be flipped in each graph: ``share`` of its edges, rounded down, int64 ``(B,)``.

    Raises:
        UserError: a share below 0, or so large that there are not as many pairs.
    """
    if not share >= 0:
        raise UserError(f"the share of edges to flip must be at least 0, got {share}")
    edges = torch.bincount(graphs.graph[graphs.tail], minlength=len(graphs)) // 2
    found = (share * edges.double() + 1e-9).floor().long()
    pairs = graphs.sizes * (graphs.sizes - 1) // 2
    if bool((found > pairs).any()):
        which = int((found > pairs).nonzero()[0])
        raise UserError(f"{int(found[which])} flips are more than the {int(pairs[which])} pairs of nodes of graph {which}")
    return found


def flipped(graph: GraphBatch, pairs: Tensor) -> GraphBatch:
    """One graph with some pairs of nodes flipped: ``pairs``, int64 ``(2, m)``, each at most once.

    Raises:
        UserError: several graphs, a node that is not there, a pair of a node with itself, or a pair that comes twice.
    """
    _check_one(graph)
    low, high = pairs.amin(0), pairs.amax(0)
    if pairs.numel() and (int(low.min()) < 0 or int(high.max()) >= graph.n or bool((low == high).any())):
        raise UserError(f"pairs to flip must be two different nodes from 0 to {graph.n - 1}")
    turned = low * graph.n + high
    if len(turned.unique()) != len(turned):
        raise UserError("a pair to flip comes twice")
    half = graph.edge_index[:, graph.tail < graph.head]
    codes, counts = torch.cat([half[0] * graph.n + half[1], turned]).unique(return_counts=True)
    codes = codes[counts == 1]  # there before or flipped, not both
    once = torch.stack([codes // graph.n, codes % graph.n])
    both = torch.cat([once, once.flip(0)], 1)
    return replace(graph, edge_index=both[:, (both[0] * graph.n + both[1]).argsort()])


def random_flips(graphs: GraphBatch, share: float, *, balanced: bool = True, seed: int = 0) -> GraphBatch:
    """Flips drawn at random from each graph's key.

    Args:
        graphs: to change.
        share: of each graph's edges, see ``budgets``.
        balanced: as many edges go as come, so that the mean degree stays; else pairs are drawn uniformly, and in a sparse graph nearly
            all of them are edges that come.
        seed: of the draws.

    Raises:
        UserError: see ``budgets``.
    """
    most = budgets(graphs, share).tolist()
    keys = graphs.keys if graphs.keys is not None else seeding.example_keys(0, torch.arange(len(graphs)))
    keys = seeding.fold(keys, "flips", seed)
    return side_by_side([_one_random(graphs.one(b), most[b], keys[b], balanced) for b in range(len(graphs))])


def _one_random(graph: GraphBatch, budget: int, key: Tensor, balanced: bool) -> GraphBatch:
    source, n = generator(key, "pairs"), graph.n
    pairs = n * (n - 1) // 2
    if not balanced:
        return flipped(graph, torch.stack(triangle(distinct(pairs, budget, source))))
    half = graph.edge_index[:, graph.tail < graph.head]
    there = half[1] * (half[1] - 1) // 2 + half[0]  # as ``triangle`` numbers them
    goes = min(budget // 2, half.shape[1])
    comes = min(budget - goes, pairs - half.shape[1])
    removed = there[distinct(half.shape[1], goes, source)]
    added = distinct(pairs - half.shape[1], comes, source)
    # The k-th pair that is not there: each edge with a smaller or equal place moves it on by one.
    gaps = there.sort().values - torch.arange(half.shape[1])
    added = added + torch.searchsorted(gaps, added, right=True)
    return flipped(graph, torch.stack(triangle(torch.cat([removed, added]))))


def guided_flips(
    network: nn.Module,
    graphs: GraphBatch,
    share: float,
    *,
    loss: GraphLoss = invariant_cross_entropy,
    steps: int = 50,
    reach: float = 3.0,
    draws: int = 20,
    seed: int = 0,
) -> GraphBatch:
    """The flips within the budget that raise a network's loss most: projected gradient steps on relaxed edges, then rounding (PGD of Xu et
    al. 2019, *Topology attack and defense for graph neural networks*).

    Every pair of nodes has a share between 0 and 1 by which it is flipped, and the shares sum to the budget at most. In the end the
    largest ones are taken, and ``draws`` samples of them too; what raises the loss most on the real graph is kept, the graph itself
    among it, so the loss never falls.

    Args:
        network: from graphs to logits of their nodes, ``(N, k)``, made of operators that ``RelaxedGraphs`` knows.
        graphs: with what the loss needs; each is attacked by itself.
        share: of each graph's edges, see ``budgets``.
        loss: from graphs and logits to a loss of each graph, ``(B,)``, to be raised.
        steps: gradient steps.
        reach: how far they could go together, in units of the root of the budget, which is the length of flipping it whole.
        draws: samples at the end.
        seed: of the samples.

    Raises:
        UserError: see ``budgets``; a network on line graphs, or with other operators.
    """
    if any(isinstance(part, LGNN) for part in network.modules()):
        raise UserError("a network on line graphs cannot be differentiated by edges: its values live on the edges that are there")
    if steps < 1 or draws < 0 or not reach > 0:
        raise UserError(f"flips need steps >= 1, draws >= 0 and reach > 0, got {steps}, {draws} and {reach}")
    most = budgets(graphs, share).tolist()
    keys = graphs.keys if graphs.keys is not None else seeding.example_keys(0, torch.arange(len(graphs)))
    keys = seeding.fold(keys, "guided flips", seed)
    attack = _Attack(network, loss, steps, reach, draws)
    with frozen(network):
        return side_by_side([attack(graphs.one(b), most[b], keys[b]) for b in range(len(graphs))])


@dataclass(frozen=True, eq=False)
class _Attack:
    network: nn.Module
    loss: GraphLoss
    steps: int
    reach: float
    draws: int

    def __call__(self, graph: GraphBatch, budget: int, key: Tensor) -> GraphBatch:
        if not budget:
            return graph
        pairs = torch.stack(triangle(torch.arange(graph.n * (graph.n - 1) // 2, device=graph.edge_index.device)))
        start = torch.zeros(1, pairs.shape[1], device=pairs.device)
        within = Ball(start, L1(), float(budget), Box(0.0, 1.0))
        rule = Decaying(Steepest(L2(), self.reach * budget**0.5 / self.steps**0.5), 0.5)
        objective = _RelaxedLoss(self.network, self.loss, relaxed(graph), pairs)
        shares = minimize(objective, start, within, rule, steps=self.steps).x[0]
        candidates = [graph, *(flipped(graph, pairs[:, chosen]) for chosen in self._rounded(shares, budget, key))]
        with torch.no_grad():
            losses = torch.cat([self.loss(each, self.network(each)) for each in candidates])
        return candidates[int(losses.argmax())]

    def _rounded(self, shares: Tensor, budget: int, key: Tensor) -> list[Tensor]:
        """Positions of pairs: those with the largest shares, and samples that take each with its share, down to the budget."""
        top = shares.topk(budget)
        found = [top.indices[top.values > 0]]
        for number in range(self.draws):
            u = seeding.uniform(seeding.fold(key.reshape(1), number), (len(shares),))[0].to(shares.device)
            chosen = (u < shares).nonzero()[:, 0]
            found.append(chosen[(u[chosen] / shares[chosen]).argsort()[:budget]])
        return found


@dataclass(frozen=True, eq=False)
class _RelaxedLoss:
    """Minus the loss of one graph whose pairs are flipped by shares ``(1, P)``."""

    network: nn.Module
    loss: GraphLoss
    graph: RelaxedGraphs
    pairs: Tensor

    def __call__(self, shares: Tensor) -> Tensor:
        rows, columns = self.pairs
        before = self.graph.weights[0]
        change = shares[0] * (1 - 2 * before[rows, columns])
        half = torch.zeros_like(before).index_put((rows, columns), change)
        edges = replace(self.graph, weights=(before + half + half.T)[None], _walks={})
        return -self.loss(edges, self.network(edges))


def _check_one(graph: GraphBatch) -> None:
    if len(graph) != 1:
        raise UserError(f"pairs are flipped in one graph at a time, got {len(graph)}")
