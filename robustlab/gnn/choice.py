"""Communities of one graph of one's own: by every method, and which of them to believe.

    answer = find_communities(gnn.read_graph("graph.npz"))
    print(answer.best, answer.labels[answer.best])

Without true labels methods are compared by what they say of the graph: the likelihood of its edges, given the labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.errors import UserError, unknown
from robustlab.gnn.communities import METHODS, communities
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.networks import GraphNetwork
from robustlab.gnn.spectral import estimated_k

LARGE = 20_000  # nodes, from which on only the fastest methods are tried unless others are asked for
FAST = ("bethe hessian",)
ONE = "one community"  # the method where there is nothing to find


@dataclass(frozen=True, eq=False)
class Answer:
    """What methods found in a graph.

    Attributes:
        graph: that was looked at.
        k: communities that were looked for.
        estimated: what the Bethe Hessian counts.
        assortative: whether communities like each other; else they avoid each other.
        labels: of each method, int64 ``(N,)``, 0 to ``k - 1``, the largest community first.
        likelihoods: of each method's labels, see ``likelihood``.
        seconds: that each took.
        failed: methods that found nothing, with the reason.
    """

    graph: GraphBatch
    k: int
    estimated: int
    assortative: bool
    labels: Mapping[str, Tensor]
    likelihoods: Mapping[str, float]
    seconds: Mapping[str, float]
    failed: Mapping[str, str]

    @property
    def best(self) -> str:
        """The method whose labels make the graph likeliest; of equal ones the first."""
        return max(self.likelihoods, key=lambda name: self.likelihoods[name])


def find_communities(
    graph: GraphBatch,
    k: int | None = None,
    *,
    assortative: bool | None = None,
    methods: Iterable[str] = (),
    networks: Mapping[str, GraphNetwork] | None = None,
    seed: int = 0,
) -> Answer:
    """Look for communities by many methods.

    Args:
        graph: one graph.
        k: how many communities; where left out, as many as the Bethe Hessian counts (``estimated_k``).
        assortative: whether communities like each other; where left out, what the Bethe Hessian says.
        methods: names of ``METHODS``; where left out all of them, on more than ``LARGE`` nodes the fastest.
        networks: trained ones by name, which look for as many communities as they have outputs.
        seed: of all draws.

    Raises:
        UserError: several graphs, no edge, an unknown method, a network for another number of communities, more communities than nodes, or
            no method that found any.
    """
    if len(graph) != 1:
        raise UserError(f"communities are looked for in one graph, got {len(graph)}")
    if not graph.edge_index.shape[1]:
        raise UserError("a graph without edges has no communities")
    asked = list(methods)
    for name in asked:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    estimated, likes = estimated_k(graph, seed=seed)
    k, assortative = estimated if k is None else k, likes if assortative is None else assortative
    if not 1 <= k <= graph.n:
        raise UserError(f"a graph of {graph.n} nodes has 1 to {graph.n} communities, got {k}")
    for name, network in (networks or {}).items():
        if network.settings["out"] != k:
            raise UserError(f"the network {name} finds {network.settings['out']} communities, and {k} are looked for")
    chosen = asked or [name for name in METHODS if graph.n <= LARGE or name in FAST]
    finders: dict[str, Callable[[], Tensor]] = {name: _method(graph, k, name, assortative, seed) for name in chosen}
    finders |= {name: _network(graph, network) for name, network in (networks or {}).items()}
    if k == 1:
        finders = {ONE: lambda: torch.zeros(graph.n, dtype=torch.int64)}
    labels, seconds, failed = {}, {}, {}
    for name, find in finders.items():
        began = time.monotonic()
        try:
            labels[name] = by_size(find(), k)
        except UserError as error:  # that one method finds nothing is no reason to tell nothing
            failed[name] = str(error)
        seconds[name] = time.monotonic() - began
    if not labels:
        raise UserError(f"no method found communities: {'; '.join(f'{name}: {why}' for name, why in failed.items())}")
    likelihoods = {name: likelihood(graph, found, k) for name, found in labels.items()}
    return Answer(graph, k, estimated, assortative, labels, likelihoods, seconds, failed)


def likelihood(graph: GraphBatch, labels: Tensor, k: int) -> float:
    """How likely labels make the edges of a graph, beyond its degrees: ``sum_rs m_rs / (2m) log(2m m_rs / (d_r d_s))`` with ``m_rs`` the
    ends of edges between two communities and ``d_r`` the ends in one, in nats for each edge's end (Karrer and Newman 2011, degree-corrected
    block model). It is 0 for one community, never below, and does not ask whether communities like or avoid each other.

    Args:
        graph: of ``N`` nodes.
        labels: int64 ``(N,)``, below ``k``.
        k: communities.
    """
    ends = torch.bincount(labels[graph.tail] * k + labels[graph.head], minlength=k * k).double().reshape(k, k)
    share = ends / ends.sum().clamp(min=1)
    expected = share.sum(1)[:, None] * share.sum(0)
    return float(torch.where(share > 0, share * (share / expected.clamp(min=1e-300)).log(), 0.0).sum())


def by_size(labels: Tensor, k: int) -> Tensor:
    """The same communities, called by their size: 0 is the largest, of equal ones that of the first node."""
    counts = torch.bincount(labels, minlength=k)
    first = torch.full((k,), len(labels)).scatter_reduce(0, labels, torch.arange(len(labels)), "amin")
    order = (-counts * (len(labels) + 1) + first).argsort()
    names = torch.empty_like(order)
    names[order] = torch.arange(k)
    return names[labels]


def _method(graph: GraphBatch, k: int, name: str, assortative: bool, seed: int) -> Callable[[], Tensor]:
    return lambda: communities(graph, k, name, assortative=assortative, seed=seed)


def _network(graph: GraphBatch, network: GraphNetwork) -> Callable[[], Tensor]:
    def find() -> Tensor:
        with torch.no_grad():
            found: Tensor = network(graph).argmax(1)
        return found

    return find
