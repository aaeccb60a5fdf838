"""Colours of nodes, pairs and tuples, refined until they stay: the Weisfeiler-Leman tests (Weisfeiler and Leman 1968; Cai, Fürer and
Immerman 1992). They bound what graph networks can tell apart (Morris et al. 2019; Xu et al. 2019).

    found = refine(side_by_side([graph, other]))
    found.labels[0] == found.labels[1]      # 1-WL does not tell them apart

Graphs of a batch share their colours: two graphs with the same colours, as often each, have the same label. Features are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.operators import Adjacency, ZeroOne

BITS = 21  # of the random numbers whose products are summed: exact in float64 for up to 2 ** (53 - 2 * 21) nodes
PAIRS_TO = 1 << (53 - 2 * BITS)
ENTRIES = 50_000_000  # the largest number of colours that ``refine_tuples`` puts side by side


@dataclass(frozen=True, eq=False)
class Colouring:
    """What a refinement found.

    Attributes:
        colours: of the nodes ``(N,)`` at the end, or of the pairs or tuples, graph by graph, int64.
        owner: the graph of each colour, int64, as long as ``colours``.
        history: the graphs' labels before the first round and after each, int64 ``(B,)`` each: graphs with one label have the same colours,
            as often each.
        rounds: the colours of each round, in the same order as ``history``.
    """

    colours: Tensor
    owner: Tensor
    history: tuple[Tensor, ...]
    rounds: tuple[Tensor, ...]

    @property
    def labels(self) -> Tensor:
        """The graphs' labels at the end, int64 ``(B,)``."""
        return self.history[-1]


def refine(
    graphs: GraphBatch,
    operators: Sequence[ZeroOne] = (Adjacency(),),
    *,
    start: Tensor | None = None,
    rounds: int | None = None,
    seed: int = 0,
) -> Colouring:
    """Colour refinement: a node's new colour is its colour, and for each operator how often each colour is among the nodes that it sums
    over. With the adjacency matrix this is 1-WL; with a family M it bounds sGNN(M).

    Takes time in proportion to the operators' entries for each round. A multiset of colours is told by the sum of random 64-bit numbers,
    one for each colour: equal multisets have equal sums, so that no two graphs are told apart that are the same; two that differ have
    equal sums with a probability of at most ``n / 2^64``.

    Args:
        graphs: one or many, of any sizes.
        operators: matrices of zeros and ones, without the diagonal or with it.
        start: first colours, whole numbers ``(N,)``; all nodes have one if left out.
        rounds: at most so many; None goes on until no colour splits.
        seed: of the random numbers.

    Raises:
        UserError: no operator, other ``start`` colours, or a negative number of rounds.
    """
    if not operators:
        raise UserError("colours are refined by at least one operator")
    first = torch.zeros(graphs.n, dtype=torch.int64) if start is None else start
    if first.shape != (graphs.n,):
        raise UserError(f"first colours must have the shape ({graphs.n},), got {tuple(first.shape)}")
    patterns = [operator.pattern(graphs) for operator in operators]
    source = seeding.generator(seed, "colours")

    def step(colours: Tensor, count: int) -> Tensor:
        new = colours
        for starts, columns in patterns:
            sums = torch.cat([columns.new_zeros(1), _numbers(count, source)[colours][columns].cumsum(0)])  # modulo 2^64
            new = ranked(new, sums[starts[1:]] - sums[starts[:-1]])
        return new

    return _refined(ranked(first), graphs.graph, graphs.sizes, step, rounds)


def refine_pairs(graphs: GraphBatch, *, rounds: int | None = None, seed: int = 0) -> Colouring:
    """Folklore refinement of pairs, 2-FWL, which tells apart what 3-WL does: the new colour of ``(u, v)`` is its colour, and how often each
    pair of colours is at ``(u, w), (w, v)`` over all nodes ``w``.

    A round is one product of matrices, ``M = r(C) s(C)``, with whole numbers ``r, s`` below 2^21 drawn for each colour anew, which is exact
    in float64. Equal multisets give equal entries, so that no two graphs are told apart that are the same; multisets that differ give equal
    entries with a probability of at most ``2 / 2^21`` (Schwartz and Zippel), and get another chance with every round.

    Args:
        graphs: one or many of one size, of at most 2,048 nodes.
        rounds: at most so many; None goes on until no colour splits.
        seed: of the random numbers.

    Raises:
        UserError: graphs of several sizes, or too many nodes.
    """
    n = same_size(graphs, "pairs of nodes are coloured")
    if n > PAIRS_TO:
        raise UserError(f"2-FWL sums products of random numbers, exact up to {PAIRS_TO:,} nodes, got {n:,}")
    shape, source = (len(graphs), n, n), seeding.generator(seed, "pairs")

    def step(colours: Tensor, count: int) -> Tensor:
        left, right = torch.randint(1 << BITS, (2, count), generator=source).double()
        products = torch.bmm(left[colours].reshape(shape), right[colours].reshape(shape))
        return ranked(colours, products.flatten().long())

    return _refined(atomic(graphs, 2), *_owners(graphs, n * n), step, rounds)


def refine_tuples(graphs: GraphBatch, k: int, *, folklore: bool = True, rounds: int | None = None) -> Colouring:
    """k-FWL, or the oblivious k-WL, of small graphs, without random numbers: the new colour of a tuple is its colour, and how often each
    ``k`` colours are at the tuples in which one node ``w`` takes the place of the first, the second, ... over all ``w``; oblivious, how
    often each colour is there, for every place by itself. k-FWL tells apart what (k + 1)-WL does.

    Args:
        graphs: one or many of one size.
        k: nodes of a tuple.
        folklore: k-FWL; else k-WL.
        rounds: at most so many; None goes on until no colour splits.

    Raises:
        UserError: graphs of several sizes, ``k`` below 1, or too many tuples.
    """
    n = same_size(graphs, "tuples of nodes are coloured")
    if k < 1:
        raise UserError(f"tuples have at least 1 node, got k = {k}")
    if len(graphs) * n ** (k + 1) > ENTRIES:
        size = f"{len(graphs)} graphs of {n} nodes have {len(graphs) * n**k:,} tuples of {k} nodes with {n} neighbours at each place"
        raise UserError(f"{size}: more than {ENTRIES:,} colours do not fit")
    shape = (len(graphs), *[n] * k)

    def step(colours: Tensor, count: int) -> Tensor:
        places = [_replaced(colours.reshape(shape), place) for place in range(k)]
        if not folklore:
            new = colours
            for place in places:
                new = ranked(new, _multisets(place))
            return new
        together = places[0]
        for place in places[1:]:
            together = ranked(together.flatten(), place.flatten()).reshape(together.shape)
        return ranked(colours, _multisets(together))

    return _refined(atomic(graphs, k), *_owners(graphs, n**k), step, rounds)


def atomic(graphs: GraphBatch, k: int) -> Tensor:
    """The first colours of ``k``-tuples: which of their nodes are the same, and which have an edge; int64 ``(B n^k,)``."""
    n = same_size(graphs, "tuples of nodes are coloured")
    kind = torch.zeros(len(graphs), n, n, dtype=torch.int64)
    kind[graphs.graph[graphs.tail], graphs.tail % n, graphs.head % n] = 1
    kind += 2 * torch.eye(n, dtype=torch.int64)
    found = torch.zeros(len(graphs), *[n] * k, dtype=torch.int64)
    for i in range(k):
        for j in range(i + 1, k):
            shape = [len(graphs), *[n if place in (i, j) else 1 for place in range(k)]]
            found = ranked((3 * found + kind.reshape(shape)).flatten()).reshape(found.shape)
    return found.flatten()


def ranked(*columns: Tensor) -> Tensor:
    """Numbers from 0 for rows of whole numbers, equal rows the same: from tensors ``(R,)`` to one, int64 ``(R,)``."""
    _, found = columns[0].unique(return_inverse=True)
    for column in columns[1:]:
        values, other = column.unique(return_inverse=True)
        _, found = (found * len(values) + other).unique(return_inverse=True)
    return found


def same_size(graphs: GraphBatch, what: str) -> int:
    """The number of nodes of every graph of a batch.

    Args:
        what: needs it, for the message.

    Raises:
        UserError: they differ.
    """
    sizes = graphs.sizes.unique().tolist()
    if len(sizes) != 1:
        raise UserError(f"{what} for graphs of one size, got sizes from {sizes[0]} to {sizes[-1]}: take each size by itself")
    return int(sizes[0])


def _refined(first: Tensor, owner: Tensor, sizes: Tensor, step: Callable[[Tensor, int], Tensor], rounds: int | None) -> Colouring:
    """Steps until the number of colours stays."""
    if rounds is not None and rounds < 0:
        raise UserError(f"`rounds` must be at least 0, got {rounds}")
    colours, count = first, int(first.max()) + 1
    history, kept = [_labels(first, owner, sizes)], [first]
    while rounds is None or len(kept) <= rounds:
        new = step(colours, count)
        before, count, colours = count, int(new.max()) + 1, new
        if count == before:
            break
        history.append(_labels(colours, owner, sizes))
        kept.append(colours)
    return Colouring(kept[-1], owner, tuple(history), tuple(kept))


def _labels(colours: Tensor, owner: Tensor, sizes: Tensor) -> Tensor:
    """Numbers for the graphs: the same for those with the same colours, as often each."""
    number = _numbers(int(colours.max()) + 1, seeding.generator(0, "labels"))
    return ranked(sizes, torch.zeros(len(sizes), dtype=torch.int64).index_add(0, owner, number[colours]))


def _numbers(count: int, source: torch.Generator) -> Tensor:
    """Random whole numbers of 64 bits."""
    high, low = torch.randint(1 << 32, (2, count), generator=source)
    return (high << 32) | low


def _owners(graphs: GraphBatch, each: int) -> tuple[Tensor, Tensor]:
    """The graph of every tuple, and how many tuples each graph has."""
    return torch.arange(len(graphs)).repeat_interleave(each), torch.full((len(graphs),), each)


def _replaced(colours: Tensor, place: int) -> Tensor:
    """At each tuple the colours with any node in one place: from ``(B, n, ..., n)`` to the same and ``(..., n)`` more."""
    moved = colours.movedim(1 + place, -1).unsqueeze(1 + place)
    return moved.expand(*colours.shape, -1)


def _multisets(colours: Tensor) -> Tensor:
    """Numbers for the multisets along the last dimension, int64, flat."""
    rows = colours.sort(-1).values.reshape(-1, colours.shape[-1])
    found: Tensor = rows.unique(dim=0, return_inverse=True)[1]
    return found
