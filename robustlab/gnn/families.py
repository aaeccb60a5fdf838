"""Graphs that are hard to tell apart, and all small graphs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch

from robustlab.errors import UserError
from robustlab.gnn.extras import networkx
from robustlab.gnn.generators import from_pairs
from robustlab.gnn.graphs import GraphBatch, as_graphs, side_by_side

SKIPS = (2, 3, 4, 5, 6, 9, 11, 12, 13, 16)  # with 41 nodes: the ten classes of Murphy et al. 2019
ATLAS = 7  # nodes up to which all graphs are listed


def skip_links(n: int = 41, skips: Sequence[int] = SKIPS) -> GraphBatch:
    """Circular skip links (Murphy et al. 2019): a circle of ``n`` nodes, and an edge from each node to the one ``skip`` further; 1-WL does
    not tell them apart. One graph for each of ``skips``, with its number as label ``y``.

    Raises:
        UserError: a skip that is not from 2 to below half of ``n``.
    """
    for skip in skips:
        if not 2 <= skip < n / 2:
            raise UserError(f"a skip in a circle of {n} nodes is 2 to {(n - 1) // 2}, got {skip}")
    nodes = torch.arange(n)
    both = [torch.cat([torch.stack([nodes, (nodes + step) % n]) for step in (1, skip)], 1) for skip in skips]
    return side_by_side([from_pairs(pairs, n) for pairs in both]).labelled(torch.arange(len(skips)))


def cai_furer_immerman(base: GraphBatch) -> tuple[GraphBatch, GraphBatch]:
    """Two graphs that are not isomorphic, and that k-FWL tells apart only where ``k`` is at least the treewidth of ``base`` (Cai, Fürer and
    Immerman 1992, without nodes for edges): a node for every set of an even number of edges at each node of ``base``; two of neighbours are
    joined if both sets have the edge between them or neither has. In the second graph the first edge is twisted: if one has it.

    Args:
        base: one connected graph without isolated nodes.

    Raises:
        UserError: several graphs, or a node of degree 0.
    """
    if len(base) != 1 or not bool((base.degree > 0).all()):
        raise UserError("graphs of Cai, Fürer and Immerman are made from one graph whose nodes all have an edge")
    places: list[tuple[int, frozenset[int]]] = []
    for node in range(base.n):
        around = base.head[base.row_starts[node] : base.row_starts[node + 1]].tolist()
        for size in range(0, len(around) + 1, 2):
            for chosen in itertools.combinations(around, size):
                places.append((node, frozenset(chosen)))
    edges = base.edge_index[:, base.tail < base.head].T.tolist()
    of_node: dict[int, list[int]] = {}
    for number, (node, _) in enumerate(places):
        of_node.setdefault(node, []).append(number)
    made = []
    for twisted in (None, edges[0]):
        pairs = [
            (i, j)
            for u, v in edges
            for i in of_node[u]
            for j in of_node[v]
            if ((v in places[i][1]) == (u in places[j][1])) != ([u, v] == twisted)
        ]
        made.append(from_pairs(torch.tensor(pairs).T, len(places)))
    return made[0], made[1]


def strongly_regular() -> tuple[GraphBatch, GraphBatch]:
    """The rook's graph on a board of 4 by 4 squares, and Shrikhande's graph (1959): both strongly regular with parameters (16, 6, 2, 2),
    not isomorphic, and the same to 2-FWL."""
    squares = list(itertools.product(range(4), repeat=2))
    rook = [(i, j) for i, a in enumerate(squares) for j, b in enumerate(squares) if i < j and (a[0] == b[0]) != (a[1] == b[1])]
    steps = ((1, 0), (0, 1), (1, 1))
    shrikhande = [(i, squares.index(((a + c) % 4, (b + d) % 4))) for i, (a, b) in enumerate(squares) for c, d in steps]
    return from_pairs(torch.tensor(rook).T, 16), from_pairs(torch.tensor(shrikhande).T, 16)


def all_graphs(n: int) -> GraphBatch:
    """All graphs of ``n`` nodes, one of each isomorphism class, from the atlas of Read and Wilson (1998) in networkx: 1, 2, 4, 11, 34, 156
    and 1,044 graphs of 1 to 7 nodes.

    Raises:
        UserError: another number of nodes.
    """
    if not 1 <= n <= ATLAS:
        raise UserError(f"all graphs are listed for 1 to {ATLAS} nodes, got {n}")
    return side_by_side([as_graphs(one) for one in networkx().graph_atlas_g() if one.number_of_nodes() == n])
