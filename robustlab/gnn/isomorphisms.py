"""Whether two graphs are the same up to the numbers of their nodes: by every method, with an isomorphism where one is found.

found = gnn.compare(graph, other)
found.isomorphic, found.order
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.errors import UserError, unknown
from robustlab.extras import scipy_module
from robustlab.gnn.graphs import GraphBatch, side_by_side
from robustlab.gnn.networks import GraphNetwork
from robustlab.gnn.refinement import refine
from robustlab.gnn.separation import METHODS, Method, Separation, bare, by_network, separates

TRIES = 10_000  # refinements of a search for an isomorphism


@dataclass(frozen=True, eq=False)
class Comparison:
    """What is known of two graphs.

    Attributes:
        graph, other: the graphs.
        separations: of each method that answered.
        failed: why the others did not, by name.
        order: an isomorphism, node ``i`` of ``graph`` is node ``order[i]`` of ``other``, int64 ``(n,)``; None where none was found.
        isomorphic: whether there is one; None where the search came to no end and no method told the graphs apart.
        tries: refinements at most of the search.
    """

    graph: GraphBatch
    other: GraphBatch
    separations: tuple[Separation, ...]
    failed: dict[str, str]
    order: Tensor | None
    isomorphic: bool | None
    tries: int


def compare(
    graph: GraphBatch,
    other: GraphBatch,
    *,
    methods: Sequence[str] = (),
    networks: dict[str, GraphNetwork] | None = None,
    tries: int = TRIES,
) -> Comparison:
    """Ask every method, and look for an isomorphism.

    Args:
        graph, other: one graph each.
        methods: names of ``separation.METHODS``; all if empty.
        networks: by name, with one answer for a graph.
        tries: refinements at most of the search.

    Raises:
        UserError: an unknown method, or several graphs.
    """
    for name in methods:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    asked: dict[str, str | Method] = {name: name for name in methods or METHODS}
    asked |= {name: by_network(network) for name, network in (networks or {}).items()}
    found, failed = [], {}
    for name, method in asked.items():
        try:
            answer = separates(method, graph, other)
        except UserError as error:
            failed[name] = str(error)
        else:
            found.append(Separation(name, answer.told_apart, answer.reason))
    if not found:
        raise UserError(next(iter(failed.values())))
    apart = any(answer.told_apart for answer in found)
    order: Tensor | None = None
    isomorphic: bool | None = False
    if not apart:
        try:
            order = isomorphism(graph, other, tries=tries)
            isomorphic = order is not None
        except Undecided:
            isomorphic = None
    return Comparison(graph, other, tuple(found), failed, order, isomorphic, tries)


class Undecided(UserError):
    """A search came to no end."""


def isomorphism(graph: GraphBatch, other: GraphBatch, *, tries: int = TRIES) -> Tensor | None:
    """A permutation that makes one graph the other: colours are refined, and where some are left with several nodes one node is given a
    colour of its own, in turn with each node of the other graph (individualization and refinement, McKay 1981).

    Args:
        graph, other: one graph each.
        tries: refinements at most.

    Returns:
        Node ``i`` of ``graph`` is this node of ``other``, int64 ``(n,)``; None if there is no isomorphism, which is proved then.

    Raises:
        UserError: several graphs.
        Undecided: neither found nor excluded within ``tries``.
    """
    if len(graph) != 1 or len(other) != 1:
        raise UserError("an isomorphism is between two graphs, each by itself: take each with `one`")
    if graph.n != other.n or graph.edge_index.shape != other.edge_index.shape:
        return None
    pair, n = side_by_side([bare(graph), bare(other)]), graph.n
    waiting = [iter([torch.zeros(pair.n, dtype=torch.int64)])]  # first colours to try, of each node that was marked
    left = tries
    while waiting:
        start = next(waiting[-1], None)
        if start is None:
            waiting.pop()
            continue
        if not left:
            raise Undecided(f"{tries:,} refinements of colours neither found an isomorphism nor excluded one; `tries` allows more")
        left -= 1
        found = refine(pair, start=start)
        if found.labels[0] != found.labels[1]:
            continue
        first, second = found.colours[:n], found.colours[n:]
        counts = torch.bincount(first)
        if int(counts.max()) > 1:
            waiting.append(_marked(found.colours, n, counts))
            continue
        order = torch.empty_like(first)
        order[first.argsort()] = second.argsort()
        if torch.equal(pair.one(0).permuted(order).edge_index, pair.one(1).edge_index):
            return order
    return None


def _marked(colours: Tensor, n: int, counts: Tensor) -> Iterator[Tensor]:
    """Of the rarest colour that several nodes have, one node and in turn each of the other graph with a colour of their own."""
    colour = int(torch.where(counts > 1, counts, n + 1).argmin())
    node = int((colours[:n] == colour).nonzero()[0])
    for image in (colours[n:] == colour).nonzero()[:, 0].tolist():
        marked = colours.clone()
        marked[[node, n + image]] = len(counts)
        yield marked


def fractional_isomorphism(graph: GraphBatch, other: GraphBatch) -> tuple[Tensor, float]:
    """The doubly stochastic ``X`` that makes ``sum |A X - X B|`` smallest, by a linear program. It is 0 exactly where 1-WL does not tell
    the graphs apart (Tinhofer 1986; Ramana, Scheinerman and Ullman 1994).

    Args:
        graph, other: one graph each, of as many nodes; the program has ``3 n^2`` variables.

    Returns:
        ``X``, float64 ``(n, n)``, and the smallest sum.

    Raises:
        UserError: several graphs, or of other sizes; or the program was not solved.
    """
    if len(graph) != 1 or len(other) != 1 or graph.n != other.n:
        raise UserError("a fractional isomorphism is between two graphs of as many nodes, each by itself")
    n, sparse = graph.n, scipy_module("sparse")
    A, B = graph.adjacency().numpy(), other.adjacency().numpy()
    one, ones = sparse.identity(n), torch.ones(1, n).double().numpy()
    differs = sparse.kron(sparse.csr_matrix(A), one) - sparse.kron(one, sparse.csr_matrix(B.T))  # of A X - X B, row by row
    slack = sparse.identity(n * n)
    sums = sparse.vstack([sparse.kron(one, ones), sparse.kron(ones, one)])
    nothing = sparse.csr_matrix((2 * n, 2 * n * n))
    equal = sparse.vstack([sparse.hstack([differs, -slack, slack]), sparse.hstack([sums, nothing])]).tocsr()
    right = torch.cat([torch.zeros(n * n), torch.ones(2 * n)]).double().numpy()
    cost = torch.cat([torch.zeros(n * n), torch.ones(2 * n * n)]).double().numpy()
    solved = scipy_module("optimize").linprog(cost, A_eq=equal, b_eq=right, method="highs")
    if solved.status != 0:
        raise UserError(f"the linear program of a fractional isomorphism was not solved: {solved.message}")
    return torch.from_numpy(solved.x[: n * n]).reshape(n, n), float(solved.fun)
