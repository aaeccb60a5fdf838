"""Random graphs, drawn for each graph from its own key: communities, regular graphs, noisy copies, cliques, points."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.gnn.graphs import GraphBatch, side_by_side

SMALL = 512  # nodes up to which a noisy copy draws a number for each pair of them


def block_sizes(n: int, k: int) -> Tensor:
    """Sizes of ``k`` blocks of ``n`` nodes, as equal as they can be, the larger ones first: int64 ``(k,)``."""
    return torch.tensor([n // k + (block < n % k) for block in range(k)])


def stochastic_block_model(
    n: int, k: int = 2, *, inside: float, between: float, graphs: int = 1, seed: int = 0, first: int = 0, shuffled: bool = True
) -> GraphBatch:
    """Graphs with ``k`` planted communities: an edge with probability ``inside`` within one and ``between`` from one to another.

    Takes time and memory in proportion to the edges, not to the pairs of nodes: for each pair of blocks the number of edges is drawn from
    its binomial distribution, and then that many pairs without repetition.

    Args:
        n: nodes.
        k: communities; where it does not divide ``n``, the first are larger by one node.
        inside, between: probabilities; ``a / n`` and ``b / n`` in the sparse regime.
        graphs: how many.
        seed: of all of them.
        first: number of the first graph, so that many graphs can be drawn in parts.
        shuffled: communities are spread over the nodes at random; else the first come first.

    Returns:
        The graphs, with labels ``y``, ``(N,)``, and keys.

    Raises:
        UserError: a probability outside [0, 1], or other than 1 to ``n`` communities.
    """
    _check_blocks(n, k, inside, between)
    keys = seeding.example_keys(seed, torch.arange(first, first + graphs))
    return side_by_side([_one_block_model(n, k, inside, between, key, shuffled) for key in keys])


def _check_blocks(n: int, k: int, inside: float, between: float) -> None:
    if not 1 <= k <= n:
        raise UserError(f"a graph of {n} nodes has 1 to {n} communities, got {k}")
    for name, value in (("inside", inside), ("between", between)):
        if not 0 <= value <= 1:
            raise UserError(f"`{name}` must be a probability, got {value:g}")


def _one_block_model(n: int, k: int, inside: float, between: float, key: Tensor, shuffled: bool) -> GraphBatch:
    source = generator(key, "edges")
    sizes = block_sizes(n, k)
    starts = torch.cat([sizes.new_zeros(1), sizes.cumsum(0)])
    parts = []
    for i in range(k):
        for j in range(i, k):
            a, b = int(sizes[i]), int(sizes[j])
            pairs = a * (a - 1) // 2 if i == j else a * b
            chosen = distinct(pairs, _binomial(pairs, inside if i == j else between, source), source)
            rows, columns = triangle(chosen) if i == j else (chosen // b, chosen % b)
            parts.append(torch.stack([rows + starts[i], columns + starts[j]]))
    return _mixed(torch.cat(parts, 1), torch.repeat_interleave(torch.arange(k), sizes), key, source if shuffled else None)


def _mixed(edges: Tensor, labels: Tensor, key: Tensor, source: torch.Generator | None) -> GraphBatch:
    """A graph whose nodes are numbered anew at random, where there is a ``source``."""
    n = len(labels)
    if source is not None:
        order = torch.randperm(n, generator=source)
        edges, labels = order[edges], labels[order.argsort()]
    return from_pairs(edges, n, y=labels, key=key)


def degree_corrected_block_model(
    n: int,
    k: int = 2,
    *,
    inside: float,
    between: float,
    exponent: float = 2.5,
    graphs: int = 1,
    seed: int = 0,
    first: int = 0,
    shuffled: bool = True,
) -> GraphBatch:
    """Planted communities whose nodes differ in degree (Karrer and Newman 2011): an edge between ``i`` and ``j`` is there with probability
    ``1 - exp(-w_i w_j p)``, where ``p`` is ``inside`` or ``between``. The weights ``w`` follow a power law and have the mean 1.

    Args:
        n, k, inside, between, graphs, seed, first, shuffled: as in ``stochastic_block_model``.
        exponent: of the power law, above 2; infinity gives all nodes one weight.

    Returns:
        The graphs, with labels ``y``, keys, and the weights as a feature ``x``, float64 ``(N, 1)``.

    Raises:
        UserError: a probability outside [0, 1], another number of communities, or an exponent of 2 or less.
    """
    _check_blocks(n, k, inside, between)
    if not exponent > 2:
        raise UserError(f"`exponent` of the weights must be above 2, or they have no mean; got {exponent:g}")
    keys = seeding.example_keys(seed, torch.arange(first, first + graphs))
    return side_by_side([_one_corrected(n, k, inside, between, exponent, key, shuffled) for key in keys])


def _one_corrected(n: int, k: int, inside: float, between: float, exponent: float, key: Tensor, shuffled: bool) -> GraphBatch:
    source = generator(key, "corrected")
    weights = (1 - torch.rand(n, generator=source, dtype=torch.float64)) ** (-1 / (exponent - 1))
    weights = weights / weights.mean()
    labels = torch.repeat_interleave(torch.arange(k), block_sizes(n, k))
    order = torch.randperm(n, generator=source) if shuffled else torch.arange(n)
    labels = labels[order]
    members = [(labels == block).nonzero()[:, 0] for block in range(k)]
    parts = []
    for i in range(k):
        for j in range(i, k):
            # As many pairs as a Poisson process of this rate has, each end drawn by weight: a pair without repetition is one edge.
            rate = (inside / 2 if i == j else between) * weights[members[i]].sum() * weights[members[j]].sum()
            count = int(torch.poisson(rate, generator=source))
            parts.append(torch.stack([_by_weight(members[block], weights, count, source) for block in (i, j)]))
    pairs = torch.cat(parts, 1)
    codes = (pairs.amin(0) * n + pairs.amax(0))[pairs[0] != pairs[1]].unique()
    found = from_pairs(torch.stack([codes // n, codes % n]), n, y=labels, key=key)
    return replace(found, x=weights[:, None])


def _by_weight(nodes: Tensor, weights: Tensor, count: int, source: torch.Generator) -> Tensor:
    """``count`` of the nodes, drawn with repetition by their weights: int64 ``(count,)``."""
    sums = weights[nodes].cumsum(0)
    drawn = torch.rand(count, generator=source, dtype=torch.float64) * sums[-1]
    return nodes[torch.searchsorted(sums, drawn).clamp(max=len(nodes) - 1)]


def erdos_renyi(n: int, p: float, *, graphs: int = 1, seed: int = 0, first: int = 0) -> GraphBatch:
    """Graphs in which every edge is there with probability ``p``; for the other arguments see ``stochastic_block_model``.

    Raises:
        UserError: a probability outside [0, 1].
    """
    found = stochastic_block_model(n, 1, inside=p, between=0, graphs=graphs, seed=seed, first=first, shuffled=False)
    return GraphBatch(found.edge_index, found.sizes, keys=found.keys)


def random_regular(n: int, degree: int, *, graphs: int = 1, seed: int = 0, first: int = 0) -> GraphBatch:
    """Graphs in which every node has ``degree`` neighbours, from the pairing model: ends of edges are paired at random, and pairs that
    are loops or double are exchanged with others until there are none (McKay and Wormald 1990); nearly uniform. For the other
    arguments see ``stochastic_block_model``.

    Raises:
        UserError: no such graph exists: ``degree`` is not below ``n``, or ``n * degree`` is odd.
    """
    if not 0 <= degree < n or n * degree % 2:
        raise UserError(f"no graph of {n} nodes has {degree} neighbours at each: the degree must be below {n}, and their product even")
    keys = seeding.example_keys(seed, torch.arange(first, first + graphs))
    return side_by_side([from_pairs(_paired(n, degree, generator(key, "pairs")), n, key=key) for key in keys])


def _paired(n: int, degree: int, source: torch.Generator) -> Tensor:
    """Edges ``(2, n * degree / 2)``, each once."""
    if 2 * degree > n - 1:  # few exchanges lead to a dense graph: draw what is missing
        missing = _paired(n, n - 1 - degree, source)
        every = torch.stack(triangle(torch.arange(n * (n - 1) // 2)))
        return every[:, ~torch.isin(every[0] * n + every[1], missing[0] * n + missing[1])]
    ends = torch.arange(n).repeat_interleave(degree)
    pairs = ends[torch.randperm(len(ends), generator=source)].reshape(2, -1)
    while True:
        low, high = torch.minimum(*pairs), torch.maximum(*pairs)
        _, inverse, counts = (low * n + high).unique(return_inverse=True, return_counts=True)
        bad = ((low == high) | (counts[inverse] > 1)).nonzero()[:, 0]
        if not len(bad):
            return torch.stack([low, high])
        second = pairs[1].numpy()
        for i, j in zip(bad.tolist(), torch.randint(pairs.shape[1], (len(bad),), generator=source).tolist(), strict=True):
            second[i], second[j] = second[j], second[i]  # exchange its second end with that of a pair drawn at random


def planted_clique(n: int, size: int, *, p: float = 0.5, graphs: int = 1, seed: int = 0, first: int = 0) -> GraphBatch:
    """Erdős-Rényi graphs in which ``size`` nodes, drawn at random, are all joined; ``y`` is 1 for them. For the other arguments see
    ``erdos_renyi``.

    Raises:
        UserError: more nodes in the clique than there are.
    """
    if not 0 <= size <= n:
        raise UserError(f"a clique in a graph of {n} nodes has 0 to {n} nodes, got {size}")
    base = erdos_renyi(n, p, graphs=graphs, seed=seed, first=first)
    assert base.keys is not None
    found = []
    for which, key in enumerate(base.keys):
        members = torch.randperm(n, generator=generator(key, "clique"))[:size]
        one = base.one(which)
        joined = torch.stack([members[part] for part in triangle(torch.arange(size * (size - 1) // 2))])
        half = one.edge_index[:, one.tail < one.head]
        codes = torch.cat([half[0] * n + half[1], joined.amin(0) * n + joined.amax(0)]).unique()
        labels = torch.zeros(n, dtype=torch.int64)
        labels[members] = 1
        found.append(from_pairs(torch.stack([codes // n, codes % n]), n, y=labels, key=key))
    return side_by_side(found)


def noisy_copies(graphs: GraphBatch, noise: float | Tensor, *, keep_density: bool = True, seed: int = 0) -> GraphBatch:
    """A copy of each graph with other edges here and there, and the same numbers of the nodes (Nowak, Villar, Bandeira and Bruna 2018).

    Args:
        graphs: with keys, as a generator gives them.
        noise: probability with which each edge is left out, of all graphs or of each, ``(B,)``.
        keep_density: a pair without an edge gets one with ``noise * p / (1 - p)``, where ``p`` is the density of its graph, so that there
            are as many edges in the mean; else with ``noise`` too, and a sparse graph becomes denser.
        seed: another one gives other copies.

    Returns:
        The copies; features, labels and keys are those of ``graphs``.

    Raises:
        UserError: a probability outside [0, 1], or graphs without keys.
    """
    share = torch.as_tensor(noise, dtype=torch.float64).expand(len(graphs))
    if not ((share >= 0) & (share <= 1)).all():
        raise UserError(f"`noise` must be a probability, got {share[~((share >= 0) & (share <= 1))][0]:g}")
    if graphs.keys is None:
        raise UserError("noisy copies need graphs with random keys, as a generator gives them")
    keys = seeding.fold(graphs.keys, "copy", seed)
    if (graphs.sizes == graphs.sizes[0]).all() and graphs.sizes[0] <= SMALL:
        return replace(graphs, edge_index=_small_copies(graphs, share, keep_density, keys))
    edges = []
    for which, key in enumerate(keys):
        one, its_noise = graphs.one(which), share[which]
        of_small = _small_copies(one, its_noise[None], keep_density, key[None]) if one.n <= SMALL else None
        found = _large_copy(one, float(its_noise), keep_density, generator(key, "noise")) if of_small is None else of_small
        edges.append(found + graphs.starts[which])
    return replace(graphs, edge_index=torch.cat(edges, 1))


def _small_copies(graphs: GraphBatch, noise: Tensor, keep_density: bool, keys: Tensor) -> Tensor:
    """Edges of the copies of graphs of one size, with a number drawn for every pair of nodes."""
    count, n = len(graphs), int(graphs.sizes[0])
    i, j = torch.triu_indices(n, n, 1)
    there = torch.zeros(count, n, n, dtype=torch.bool)
    there[graphs.graph[graphs.tail], graphs.tail % max(n, 1), graphs.head % max(n, 1)] = True
    pairs = there[:, i, j]
    edges = pairs.sum(1)
    added = noise * edges / (len(i) - edges).clamp(min=1) if keep_density else noise
    drawn = seeding.uniform(keys, (len(i),), torch.float64)
    made = torch.where(pairs, drawn >= noise[:, None], drawn < added[:, None])
    both = torch.zeros_like(there)
    both[:, i, j] = both[:, j, i] = made
    which, tail, head = both.nonzero().T
    return torch.stack([tail, head]) + n * which


def _large_copy(one: GraphBatch, noise: float, keep_density: bool, source: torch.Generator) -> Tensor:
    """Edges of the copy of one graph, in time and memory proportional to its edges."""
    half = one.edge_index[:, one.tail < one.head]
    pairs = one.n * (one.n - 1) // 2
    added = noise * half.shape[1] / max(pairs - half.shape[1], 1) if keep_density else noise
    stay = torch.rand(half.shape[1], generator=source, dtype=torch.float64) >= noise
    there = (half[1] * (half[1] - 1) // 2 + half[0]).sort().values
    others = pairs - len(there)
    drawn = distinct(others, _binomial(others, min(added, 1.0), source), source)
    fresh = drawn + torch.searchsorted(there - torch.arange(len(there)), drawn, right=True)  # the pair that is left at this place
    return from_pairs(torch.cat([half[:, stay], torch.stack(triangle(fresh))], 1), one.n).edge_index


def renumbered(graphs: GraphBatch, seed: int = 0) -> tuple[GraphBatch, Tensor]:
    """The same graphs with their nodes in an order drawn for each: node ``i`` is called ``order[i]`` now.

    Returns:
        The graphs, and the order, int64 ``(N,)``.

    Raises:
        UserError: graphs without keys.
    """
    if graphs.keys is None:
        raise UserError("an order is drawn from a graph's key, and these graphs have none")
    keys = seeding.fold(graphs.keys, "order", seed)
    parts = [torch.randperm(int(n), generator=generator(key, "order")) for n, key in zip(graphs.sizes, keys, strict=True)]
    order = torch.cat([part + start for part, start in zip(parts, graphs.starts, strict=False)])
    return graphs.permuted(order), order


def points(n: int, dimension: int = 2, *, graphs: int = 1, seed: int = 0, first: int = 0) -> Tensor:
    """Points drawn uniformly from the unit cube: float64 ``(graphs, n, dimension)``; for the other arguments see
    ``stochastic_block_model``."""
    keys = seeding.fold(seeding.example_keys(seed, torch.arange(first, first + graphs)), "points")
    return seeding.uniform(keys, (n, dimension), torch.float64)


def from_pairs(pairs: Tensor, n: int, *, y: Tensor | None = None, key: Tensor | None = None) -> GraphBatch:
    """A graph of ``n`` nodes from distinct edges, ``pairs`` ``(2, m)``, each given once in any direction, without a check; with labels
    ``y`` and a random ``key`` where there are some."""
    codes = (pairs * n).add_(pairs.flip(0)).flatten().numpy()
    codes.sort()  # in place, since a million nodes have many edges
    edges = torch.empty(2, len(codes), dtype=torch.int64)
    np.floor_divide(codes, n, out=edges[0].numpy())
    np.remainder(codes, n, out=edges[1].numpy())
    return GraphBatch(edges, torch.tensor([n]), y=y, keys=None if key is None else key.reshape(1))


def generator(key: Tensor, purpose: str) -> torch.Generator:
    """Random numbers of one graph for one purpose, on the CPU."""
    return torch.Generator().manual_seed(int(seeding.fold(key.reshape(1), purpose)) & ((1 << 63) - 1))


def distinct(high: int, count: int, source: torch.Generator) -> Tensor:
    """``count`` different whole numbers below ``high``, in no special order: int64 ``(count,)``."""
    if count > high // 2:
        return torch.randperm(high, generator=source)[:count]
    found = torch.empty(0, dtype=torch.int64)
    while len(found) < count:
        more = torch.randint(high, (count - len(found),), generator=source)
        found = torch.cat([found, more]).unique()
    return found


def triangle(index: Tensor) -> tuple[Tensor, Tensor]:
    """The pair ``i < j`` with the number ``j (j - 1) / 2 + i``, for each number: two int64 tensors."""
    j = ((1 + (1 + 8 * index.double()).sqrt()) / 2).long()
    j = torch.where(j * (j - 1) // 2 > index, j - 1, j)  # a root that was rounded up
    j = torch.where((j + 1) * j // 2 <= index, j + 1, j)
    return index - j * (j - 1) // 2, j


def _binomial(n: int, p: float, source: torch.Generator) -> int:
    if n == 0 or p in (0.0, 1.0):
        return int(n * p)
    return int(torch.binomial(torch.tensor(float(n), dtype=torch.float64), torch.tensor(p, dtype=torch.float64), generator=source))


def signal_to_noise(a: float, b: float, k: int = 2) -> float:
    """The signal-to-noise ratio of a sparse block model with ``inside = a / n`` and ``between = b / n``: communities can be found above 1
    (Kesten and Stigum; Decelle et al. 2011)."""
    total = a + (k - 1) * b
    return (a - b) ** 2 / (k * total) if total else math.nan
