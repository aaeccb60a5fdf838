"""Communities by belief propagation: the marginals of the block model's posterior, as they would be on a tree (Decelle, Krzakala, Moore and
Zdeborová 2011)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.gnn.graphs import GraphBatch, side_by_side

PARTS = 12  # of the nodes, updated one after the other; all at once collapse into one community
LEAST = 1e-3  # an affinity that takes the place of smaller ones: no message may be impossible
LEARNING = 60  # sweeps while a model is learned
LEAVE = 5  # sweeps between two looks at what has converged, or at what the model should be
SPREADS = (0.1, 1.0)  # of the first messages around those that know nothing, one start after the other: where that is a fixed point
# of its own beside better ones, only a start away from it finds them


@dataclass(frozen=True)
class Blocks:
    """A sparse block model: what belief propagation takes for true.

    Attributes:
        shares: of the nodes in each community, float64 ``(k,)``; they sum to 1.
        affinity: ``n`` times the probability of an edge for each pair of communities, float64 ``(k, k)``, symmetric.
    """

    shares: Tensor
    affinity: Tensor

    def __post_init__(self) -> None:
        k = len(self.shares)
        if self.affinity.shape != (k, k) or not torch.equal(self.affinity, self.affinity.T):
            raise UserError(f"{k} communities need a symmetric `affinity` of shape ({k}, {k}), got {tuple(self.affinity.shape)}")
        if not (self.affinity >= 0).all() or not self.affinity.isfinite().all():
            raise UserError("every `affinity` must be finite and at least 0")
        if not (self.shares > 0).all() or abs(float(self.shares.sum()) - 1) > 1e-6:
            raise UserError("`shares` of communities must be above 0 and sum to 1")

    @staticmethod
    def planted(k: int, a: float, b: float) -> Blocks:
        """``k`` equal communities with an edge with probability ``a / n`` inside and ``b / n`` between them."""
        affinity = torch.full((k, k), float(b), dtype=torch.float64).fill_diagonal_(float(a))
        return Blocks(torch.full((k,), 1 / k, dtype=torch.float64), affinity)


@dataclass(frozen=True)
class Beliefs:
    """What belief propagation found, of each graph the fixed point with the lowest free energy.

    Attributes:
        marginals: the probability of each community at each node, float64 ``(N, k)``.
        energy: Bethe free energy for each node on average, float64 ``(B,)``; the lower, the more likely.
        converged: whether the last sweep changed no marginal by more than the tolerance, ``(B,)``.
        inside: the expected share of edges within a community, ``(B,)``; 0 without edges.
        blocks: the model that was taken for true.
    """

    marginals: Tensor
    energy: Tensor
    inside: Tensor
    converged: Tensor
    blocks: Blocks

    @property
    def labels(self) -> Tensor:
        """The most likely community of each node, int64 ``(N,)``."""
        return self.marginals.argmax(1)


def belief_propagation(
    graphs: GraphBatch, blocks: Blocks, *, restarts: int = 5, sweeps: int = 200, tolerance: float = 1e-3, seed: int = 0
) -> Beliefs:
    """Marginals of a block model's posterior.

    Messages go along the edges; all other pairs of nodes act through a mean field, which is worked out anew after each of a few random
    parts of the nodes. Starts have messages drawn at random, in turn near those that know nothing and further away.

    Args:
        graphs: one or many; starts of all of them run side by side, and leave when they have converged.
        blocks: the model. An affinity below ``LEAST`` counts as that.
        restarts: starts of each graph.
        sweeps: at most so many updates of every message.
        tolerance: the largest change of a marginal in a sweep that ends it.
        seed: of the starts and the parts.

    Raises:
        UserError: no start.
    """
    if restarts < 1 or sweeps < 1:
        raise UserError(f"belief propagation needs at least one of `restarts` and `sweeps`, got {restarts} and {sweeps}")
    copies = side_by_side([_bare(graphs.one(which)) for which in range(len(graphs)) for _ in range(restarts)])
    keys = torch.stack([seeding.fold(_keys(graphs, seed), "propagation", start) for start in range(restarts)], 1).flatten()
    spreads = torch.tensor([SPREADS[start % len(SPREADS)] for start in range(restarts)], dtype=torch.float64).repeat(len(graphs))
    marginals, energy, inside, converged = _settled(_State(copies, blocks, keys, spreads), sweeps, tolerance)
    best = energy.reshape(len(graphs), restarts).argmin(1) + torch.arange(len(graphs)) * restarts
    starts = copies.starts.tolist()
    chosen = torch.cat([marginals[starts[one] : starts[one + 1]] for one in best.tolist()])
    return Beliefs(chosen, energy[best], inside[best], converged[best], blocks)


def learned_blocks(graph: GraphBatch, k: int, *, assortative: bool = True, seed: int = 0) -> Beliefs:
    """Belief propagation on one graph with a planted model whose two affinities are learned on the way, by expectation maximization every
    few sweeps; communities count as equal in size.

    Learning begins with communities as strong as can be, all edges inside or all between: with a weaker model, messages that know nothing
    may be a stable fixed point, at which nothing is learned. Where that ends above the free energy of no communities at all, as it does
    where everything fell into one community, a weaker model is tried too, and the lower free energy is taken.

    Args:
        graph: one.
        k: communities.
        assortative: whether they like each other at the beginning.
        seed: of all draws.
    """
    found = belief_propagation(graph, _learned(graph, k, _strong(graph, k, assortative, 0.0), seed), seed=seed)
    mean = max(graph.mean_degree, LEAST)
    if float(found.energy) <= mean * (1 - math.log(mean)) / 2:  # of a model with one affinity
        return found
    other = belief_propagation(graph, _learned(graph, k, _strong(graph, k, assortative, 0.2), seed), seed=seed)
    return min(found, other, key=lambda beliefs: float(beliefs.energy))


def _strong(graph: GraphBatch, k: int, assortative: bool, ratio: float) -> tuple[float, float]:
    """Affinities inside and between communities that fit the mean degree; ``ratio`` is the smaller over the larger."""
    a, b = (1.0, ratio) if assortative or k == 1 else (ratio, 1.0)
    scale = max(graph.mean_degree, LEAST) * k / (a + (k - 1) * b)
    return a * scale, b * scale


def _learned(graph: GraphBatch, k: int, begin: tuple[float, float], seed: int) -> Blocks:
    """The planted model that makes one graph most likely, or what ``LEARNING`` sweeps reach of it."""
    (a, b), blocks = begin, Blocks.planted(k, *begin)
    spread = torch.tensor(SPREADS[-1:], dtype=torch.float64)
    state = _State(_bare(graph), blocks, seeding.fold(_keys(graph, seed), "learning"), spread)
    for number in range(1, LEARNING + 1):
        change = float(state.sweep(number))
        if number % LEAVE == 0:
            before, (a, b) = (a, b), _maximized(state)
            blocks = Blocks.planted(k, a, b)
            state.assume(blocks)
            if change < 1e-3 and max(abs(a - before[0]), abs(b - before[1])) < 0.01 * graph.mean_degree:
                break
    return blocks


def by_propagation(graph: GraphBatch, k: int, *, blocks: Blocks | None = None, assortative: bool = True, seed: int = 0) -> Tensor:
    """Communities from belief propagation, with the ``blocks`` of the model, or learned ones. Other arguments see ``communities``."""
    if k == 1 or not graph.edge_index.shape[1]:
        return torch.zeros(graph.n, dtype=torch.int64)
    if blocks is None:
        return learned_blocks(graph, k, assortative=assortative, seed=seed).labels
    return belief_propagation(graph, blocks, seed=seed).labels


def _maximized(state: _State) -> tuple[float, float]:
    """The affinities inside and between communities that make the beliefs about one graph most likely."""
    edges, n = state.graphs.edge_index.shape[1], state.graphs.n
    inside, same = float(state.energies()[0, 1]) * edges, float((state.marginals.mean(1) ** 2).sum())
    return max(inside / (n * same), LEAST), max((edges - inside) / (n * max(1 - same, 1 / n)), LEAST)


def _keys(graphs: GraphBatch, seed: int) -> Tensor:
    keys = torch.zeros(len(graphs), dtype=torch.int64) if graphs.keys is None else graphs.keys
    return seeding.fold(keys, seed)


def _bare(graph: GraphBatch) -> GraphBatch:
    return GraphBatch(graph.edge_index, graph.sizes)


class _State:
    """Starts side by side, and where they are. Communities come first in its arrays: rows of a few numbers are slow to go through.

    Attributes:
        factor: for each directed edge the logarithm of what its message brings to its head, ``(k, E)``.
        marginals: of the nodes, ``(k, N)``.
        total: their sum over each graph, ``(k, P)``.
    """

    def __init__(self, graphs: GraphBatch, blocks: Blocks, keys: Tensor, spreads: Tensor) -> None:
        self.graphs, k = graphs, len(blocks.shares)
        self.assume(blocks)
        edges = torch.bincount(graphs.graph[graphs.tail], minlength=len(graphs))
        noise, wide = _drawn(keys, "messages", edges.tolist(), k), spreads[graphs.graph]
        self.factor = (self.affinity @ (self.bias + wide[graphs.tail] * noise.T).softmax(0)).log_()
        self.marginals = (self.bias + wide * _drawn(keys, "nodes", graphs.sizes.tolist(), k).T).softmax(0)
        self.part = (_drawn(keys, "parts", graphs.sizes.tolist(), 1, normal=False)[:, 0] * PARTS).long()
        self._prepare()

    def assume(self, blocks: Blocks) -> None:
        """Take another model for true; messages stay as they are until the next sweep."""
        self.affinity, self.bias = blocks.affinity.clamp(min=LEAST), blocks.shares.log()[:, None]

    def _prepare(self) -> None:
        """What depends on which starts are left."""
        graphs = self.graphs
        self.total = graphs.summed(self.marginals.T).T.contiguous()
        self.weight = 1 / graphs.sizes.double()
        reverse, self.parts = graphs.reverse, []
        of_edges = self.part[graphs.tail]
        for part in range(PARTS):
            nodes, out = (self.part == part).nonzero()[:, 0], (of_edges == part).nonzero()[:, 0]
            if len(nodes):
                place = torch.repeat_interleave(torch.arange(len(nodes)), graphs.degree[nodes])
                self.parts.append((nodes, out, reverse[out], place, graphs.graph[nodes]))

    def sweep(self, number: int) -> Tensor:
        """Every message once, in a random order of parts; the largest change of a marginal in each graph, ``(P,)``."""
        before = self.marginals.clone()
        for index in seeding.permutation(0, len(self.parts), "sweep", number).tolist():
            nodes, out, back, place, owner = self.parts[index]
            brought = self.factor.index_select(1, back)
            sums = self._field().index_select(1, owner).index_add_(1, place, brought)
            messages = sums.index_select(1, place).sub_(brought).softmax(0)
            self.factor.index_copy_(1, out, (self.affinity @ messages).log_())
            new = sums.softmax(0)
            self.total.index_add_(1, owner, new - self.marginals.index_select(1, nodes))
            self.marginals.index_copy_(1, nodes, new)
        change = before.sub_(self.marginals).abs_().amax(0)
        return change.new_zeros(len(self.graphs)).scatter_reduce(0, self.graphs.graph, change, "amax")

    def _field(self) -> Tensor:
        """What a node is brought by the nodes that are not its neighbours, and by the shares of communities: ``(k, P)``."""
        return self.bias - self.affinity @ self.total * self.weight

    def energies(self) -> Tensor:
        """Bethe free energy for each node on average, and the expected share of edges within a community: ``(P, 2)``."""
        graphs, mean = self.graphs, self.total * self.weight
        sums = self._field()[:, graphs.graph].index_add(1, graphs.head, self.factor)
        nodes = graphs.summed(sums.logsumexp(0))
        # The message of an edge, from what comes into its tail but through the edge itself.
        back = graphs.reverse
        messages = (sums[:, graphs.tail] - self.factor[:, back]).softmax(0)
        pairs, owner = (self.affinity @ messages * messages[:, back]).sum(0), graphs.graph[graphs.tail]
        inside = (messages * self.affinity.diagonal()[:, None] * messages[:, back]).sum(0) / pairs
        edges = torch.zeros_like(nodes).index_add(0, owner, pairs.log()) / 2
        energy = (edges - nodes) * self.weight - (self.affinity @ mean * mean).sum(0) / 2
        counts = torch.bincount(owner, minlength=len(graphs)).clamp(min=1)
        return torch.stack([energy, torch.zeros_like(nodes).index_add(0, owner, inside) / counts], 1)

    def keep(self, left: Tensor) -> None:
        """Go on with some of the graphs, given by a mask ``(P,)``."""
        nodes = left[self.graphs.graph]
        edges = nodes[self.graphs.tail]
        new = nodes.cumsum(0) - 1
        self.graphs = GraphBatch(new[self.graphs.edge_index[:, edges]], self.graphs.sizes[left])
        self.factor, self.marginals, self.part = self.factor[:, edges], self.marginals[:, nodes], self.part[nodes]
        self._prepare()


def _settled(state: _State, sweeps: int, tolerance: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Marginals, energy, share of edges inside and convergence of every start."""
    count = len(state.graphs)
    marginals, owner = torch.empty_like(state.marginals.T), state.graphs.graph
    told, converged = torch.empty(count, 2, dtype=torch.float64), torch.zeros(count, dtype=torch.bool)
    left = torch.arange(count)
    for number in range(1, sweeps + 1):
        change = state.sweep(number)
        if number % LEAVE and number < sweeps:
            continue
        done = change < tolerance
        leaving = done if number < sweeps else torch.ones_like(done)
        if leaving.any():
            gone = torch.zeros(count, dtype=torch.bool)
            gone[left[leaving]] = True
            marginals[gone[owner]] = state.marginals.T[leaving[state.graphs.graph]]
            told[left[leaving]], converged[left] = state.energies()[leaving], done
            left = left[~leaving]
            if not len(left):
                break
            state.keep(~leaving)
    return marginals, told[:, 0], told[:, 1], converged


def _drawn(keys: Tensor, purpose: str, counts: Sequence[int], k: int, *, normal: bool = True) -> Tensor:
    """Numbers for each of ``counts`` rows of every key: float64 ``(sum of counts, k)``."""
    draw = seeding.normal if normal else seeding.uniform
    keys = seeding.fold(keys, purpose)
    if len(set(counts)) == 1:
        return draw(keys, (counts[0], k), torch.float64).flatten(0, 1)
    return torch.cat([draw(key.reshape(1), (count, k), torch.float64)[0] for key, count in zip(keys, counts, strict=True)])
