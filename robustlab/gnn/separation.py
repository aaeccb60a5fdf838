"""Which graphs a method tells apart, with a certificate.

    found = gnn.separates("1-WL", graph, other)
    print(found.told_apart, found.reason)

No method tells apart two graphs that are the same up to the numbers of their nodes. What each cannot tell apart is a bound for the graph
networks that it stands for: 1-WL for message passing and 2-IGN, clipped powers for sGNN(M), 2-FWL for Ring-GNN. Features of nodes are
not looked at.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.errors import UserError, unknown
from robustlab.gnn.generators import renumbered
from robustlab.gnn.graphs import GraphBatch, side_by_side
from robustlab.gnn.networks import GraphNetwork
from robustlab.gnn.operators import Adjacency, HopRing, Laplacian, Reached, ZeroOne
from robustlab.gnn.refinement import Colouring, ranked, refine, refine_pairs, refine_tuples

PRIME = (1 << 40) - 87  # traces are counted modulo this: products are exact in float64 for up to 8,192 nodes
POWERS = 6  # clipped powers of the method of that name: as many as tell the ten skip-link graphs apart
WALKS = 8  # the longest closed walks that are counted, which tell them apart too
CLOSE = 1e-10  # times the number of nodes: eigenvalues that differ by less count as equal
COPIES = 3  # renumbered copies of each graph that a network must answer alike
ALIKE = 1e-6  # times the largest answer: how far answers to copies may be apart at most
DIFFER = 1e-10  # times the largest answer, and
NOISE = 100  # times what answers to copies are apart: answers that differ by more tell graphs apart


class Answers(ABC):
    """What a method says of the graphs of a batch."""

    @property
    @abstractmethod
    def labels(self) -> Tensor:
        """int64 ``(B,)``, the same for graphs that the method does not tell apart."""

    @abstractmethod
    def reason(self, one: int, other: int) -> str:
        """Why two of the graphs are told apart, by number; or what shows that they are not."""


Method = Callable[[GraphBatch], Answers]


@dataclass(frozen=True, eq=False)
class Colours(Answers):
    """Colours that were refined.

    Attributes:
        found: see ``refinement``.
        what: has a colour: ``nodes``, ``pairs``.
    """

    found: Colouring
    what: str = "nodes"

    @property
    def labels(self) -> Tensor:
        return self.found.labels

    def counts(self, one: int, other: int) -> tuple[int, int, int] | None:
        """The first round after which two graphs have other colours, and how often the colour is there, in one and in the other, whose
        counts differ most; None where all rounds agree."""
        number = next((number for number, labels in enumerate(self.found.history) if labels[one] != labels[other]), None)
        if number is None:
            return None
        colours = self.found.rounds[number]
        size = int(colours.max()) + 1
        first, second = (torch.bincount(colours[self.found.owner == which], minlength=size) for which in (one, other))
        colour = int((first - second).abs().argmax())
        return number, int(first[colour]), int(second[colour])

    def reason(self, one: int, other: int) -> str:
        found = self.counts(one, other)
        if found is None:
            return f"the same colours, as often each; none splits after round {len(self.found.history) - 1}"
        number, first, second = found
        return f"after round {number} a colour is at {first:,} {self.what} of one and at {second:,} of the other"


@dataclass(frozen=True, eq=False)
class Numbers(Answers):
    """Numbers of each graph.

    Attributes:
        values: float64 ``(B, d)``.
        names: of the columns, or one name of all, which are counted then.
        close: numbers that differ by no more count as equal; 0 for whole numbers.
    """

    values: Tensor
    names: str | Sequence[str]
    close: float = 0.0

    @property
    def labels(self) -> Tensor:
        return grouped(self.values, self.close)

    def reason(self, one: int, other: int) -> str:
        apart = (self.values[one] - self.values[other]).abs()
        column = int(apart.argmax() if self.close else (apart > 0).int().argmax())
        if float(apart[column]) <= self.close:
            return f"all {len(apart)} numbers agree" + (f" to {self.close:.0e}" if self.close else "")
        name = f"{self.names} {column + 1}" if isinstance(self.names, str) else self.names[column]
        first, second = (f"{float(self.values[which, column]):.10g}" for which in (one, other))
        return f"{name} is {first} in one and {second} in the other"


@dataclass(frozen=True, eq=False)
class Several(Answers):
    """What several methods say together."""

    parts: tuple[Answers, ...]

    @property
    def labels(self) -> Tensor:
        return ranked(*(part.labels for part in self.parts))

    def reason(self, one: int, other: int) -> str:
        apart = [part for part in self.parts if part.labels[one] != part.labels[other]]
        return "; ".join(part.reason(one, other) for part in (apart[:1] or self.parts))


def grouped(values: Tensor, close: float = 0.0) -> Tensor:
    """Labels for rows of numbers, ``(B, d)`` to int64 ``(B,)``: a row gets the label of the first one that differs from it by at most
    ``close`` in every column."""
    if not close:
        found: Tensor = values.unique(dim=0, return_inverse=True)[1]
        return found
    # Rows that are close are close along any direction: only those must be compared.
    direction = torch.randn(values.shape[1], dtype=values.dtype, generator=seeding.generator(0, "direction"))
    along, reach = values @ direction, 2 * close * float(direction.abs().sum())
    labels, firsts = torch.full((len(values),), -1), [0][:0]
    for row in along.argsort().tolist():
        for label in range(len(firsts) - 1, -1, -1):
            if float(along[row] - along[firsts[label]]) > reach:
                break
            if float((values[row] - values[firsts[label]]).abs().max()) <= close:
                labels[row] = label
                break
        if labels[row] < 0:
            labels[row] = len(firsts)
            firsts.append(row)
    return labels


# Methods


def refinement_by(operators: Sequence[ZeroOne] = (Adjacency(),)) -> Method:
    """Colour refinement with some operators; see ``refinement.refine``."""
    return lambda graphs: Colours(refine(graphs, operators))


def clipped_powers(count: int = POWERS, *, dyadic: bool = False) -> Method:
    """Colour refinement with ``min(1, A^t)`` for ``t`` from 1 to ``count``; dyadic, for the first ``count`` powers of 2."""
    return refinement_by([Reached(2**t if dyadic else t + 1) for t in range(count)])


def hop_rings(graphs: GraphBatch) -> Answers:
    """Colour refinement with the nodes at each distance, as far as there are any."""
    rings = []
    for t in range(1, int(graphs.sizes.max())):
        if t > 1 and not len(HopRing(t).pattern(graphs)[1]):
            break
        rings.append(HopRing(t))
    return Colours(refine(graphs, rings or [Adjacency()]))


def folklore(k: int) -> Method:
    """k-FWL: pairs by products of matrices for ``k = 2``, else small graphs by all tuples; graphs of several sizes each by themselves."""
    return lambda graphs: _each_size(graphs, lambda part: Colours(refine_pairs(part) if k == 2 else refine_tuples(part, k), f"{k}-tuples"))


def spectrum(graphs: GraphBatch) -> Answers:
    """All eigenvalues of the adjacency matrix."""
    return _each_size(graphs, lambda part: _eigenvalues(_stacked(part, Adjacency()), "eigenvalue"))


def laplacian_spectrum(graphs: GraphBatch) -> Answers:
    """All eigenvalues of ``D - A``."""
    return _each_size(graphs, lambda part: _eigenvalues(_stacked(part, Laplacian()), "eigenvalue of the Laplacian"))


def closed_walks(count: int = WALKS) -> Method:
    """How many closed walks there are of each length up to ``count``, ``tr A^t`` modulo ``PRIME``: all of them together say what the
    spectrum does."""

    def answers(graphs: GraphBatch) -> Answers:
        step = _stacked(graphs, Adjacency())
        walks, traces = step, []
        for _ in range(count):
            traces.append(walks.diagonal(dim1=1, dim2=2).sum(1) % PRIME)
            walks = torch.bmm(step, walks) % PRIME
        return Numbers(torch.stack(traces, 1), [f"the number of closed walks of length {t + 1}" for t in range(count)])

    return lambda graphs: _each_size(graphs, answers)


def together(*methods: Method) -> Method:
    """What several methods tell apart together."""
    return lambda graphs: Several(tuple(method(graphs) for method in methods))


METHODS: dict[str, Method] = {
    "1-WL": refinement_by(),
    "dyadic powers": clipped_powers(4, dyadic=True),
    "hop rings": hop_rings,
    "clipped powers": clipped_powers(),
    "closed walks": closed_walks(),
    "spectrum": spectrum,
    "laplacian spectrum": laplacian_spectrum,
    "1-WL and spectrum": together(refinement_by(), spectrum),
    "2-FWL": folklore(2),
    "3-FWL": folklore(3),
}


@dataclass(frozen=True)
class Separation:
    """Whether a method tells two graphs apart, and why; true where it does.

    Attributes:
        method: its name.
        told_apart: the graphs are not isomorphic. Where it is false nothing is proved.
        reason: what differs, with its numbers in both graphs; or what agrees.
    """

    method: str
    told_apart: bool
    reason: str

    def __bool__(self) -> bool:
        return self.told_apart


def separates(method: str | Method | GraphNetwork, graph: GraphBatch, other: GraphBatch) -> Separation:
    """Whether a method tells two graphs apart.

    Args:
        method: a name of ``separation.METHODS``, a function like those, or a network with one answer for a graph: see ``by_network``.
        graph, other: one graph each.

    Raises:
        UserError: an unknown method, several graphs, or graphs that are too large for the method.
    """
    for one in (graph, other):
        if len(one) != 1:
            raise UserError(f"two graphs are compared, each by itself: got {len(one)} in one place, take each with `one`")
    if isinstance(method, str):
        if method not in METHODS:
            raise unknown("method", method, METHODS)
        name, ask = method, METHODS[method]
    elif isinstance(method, GraphNetwork):
        name, ask = type(method).__name__, by_network(method)
    else:
        name, ask = getattr(method, "__name__", "method"), method
    if graph.n != other.n and isinstance(method, str):
        return Separation(name, True, f"they have {graph.n:,} and {other.n:,} nodes")
    answers = ask(side_by_side([bare(graph), bare(other)]))
    labels = answers.labels
    return Separation(name, bool(labels[0] != labels[1]), answers.reason(0, 1))


def by_network(network: GraphNetwork, *, copies: int = COPIES, seed: int = 0) -> Method:
    """A network with one answer for a graph as a method, in float64: it tells apart two graphs whose answers differ by more than
    ``DIFFER`` times the largest answer, and by more than ``NOISE`` times what answers to renumbered copies of each graph differ by.

    Args:
        network: in evaluation mode afterwards as before; nothing of it is changed.
        copies: of each graph.
        seed: of their numbers.

    Raises:
        UserError: a network with answers for nodes; or, when it is asked, one whose answers to copies differ by more than ``ALIKE`` times
            the largest.
    """
    if not network.of_graphs:
        raise UserError(f"{type(network).__name__} has answers for nodes: a network with one answer for a graph tells graphs apart")
    own = deepcopy(network).cpu().double().eval()

    def answers(graphs: GraphBatch) -> Answers:
        keyed = replace(graphs, keys=seeding.example_keys(seed, torch.arange(len(graphs))))
        with torch.no_grad():
            found = torch.stack([own(keyed)] + [own(renumbered(keyed, copy)[0]) for copy in range(copies)])
        largest, off = max(float(found.abs().max()), 1e-300), float((found - found[0]).abs().max())
        if not off <= ALIKE * largest:
            raise UserError(
                f"the network answers otherwise for renumbered copies: off by {off:.1e}, where {ALIKE * largest:.1e} is rounding"
            )
        close = max(DIFFER * largest, NOISE * off)
        return Numbers(found[0], "answer", close)

    return answers


def bare(graph: GraphBatch) -> GraphBatch:
    """Graphs without features, labels and keys."""
    return GraphBatch(graph.edge_index, graph.sizes)


def _each_size(graphs: GraphBatch, method: Method) -> Answers:
    """A method for graphs of one size, on graphs of any sizes."""
    if len(graphs.sizes.unique()) == 1:
        return method(graphs)
    return _BySize(graphs, method)


class _BySize(Answers):
    """Answers of graphs of several sizes, worked out size by size."""

    def __init__(self, graphs: GraphBatch, method: Method) -> None:
        self.sizes, self.parts = graphs.sizes, {}
        found = torch.zeros(len(graphs), dtype=torch.int64)
        for size in graphs.sizes.unique().tolist():
            which = (graphs.sizes == size).nonzero()[:, 0]
            self.parts[size] = which, method(bare(graphs.some(which)))
            found[which] = self.parts[size][1].labels
        self._labels = ranked(graphs.sizes, found)

    @property
    def labels(self) -> Tensor:
        return self._labels

    def reason(self, one: int, other: int) -> str:
        first, second = int(self.sizes[one]), int(self.sizes[other])
        if first != second:
            return f"they have {first:,} and {second:,} nodes"
        which, answers = self.parts[first]
        return answers.reason(*(int((which == place).nonzero()) for place in (one, other)))


def _stacked(graphs: GraphBatch, operator: Any) -> Tensor:
    """The matrices of graphs of one size, float64 ``(B, n, n)``."""
    n = int(graphs.sizes[0])
    found = torch.zeros(graphs.n, n, dtype=torch.float64)
    matrix = operator.sparse(graphs)
    rows = torch.repeat_interleave(torch.arange(graphs.n), matrix.crow_indices().diff())
    found[rows, matrix.col_indices() % n] = matrix.values()
    return found.reshape(len(graphs), n, n)


def _eigenvalues(matrices: Tensor, name: str) -> Numbers:
    values = torch.linalg.eigvalsh(matrices)
    return Numbers(values, name, CLOSE * matrices.shape[1])
