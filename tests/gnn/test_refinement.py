"""Colour refinement against what is known of it: networkx's, the exact k-WL, the linear program, counts of small graphs, and invariance."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("networkx")
pytest.importorskip("scipy")

import networkx  # noqa: E402

from robustlab.errors import UserError  # noqa: E402
from robustlab.gnn.families import all_graphs, cai_furer_immerman, skip_links, strongly_regular  # noqa: E402
from robustlab.gnn.generators import erdos_renyi, random_regular, renumbered  # noqa: E402
from robustlab.gnn.graphs import as_graphs, graph, side_by_side  # noqa: E402
from robustlab.gnn.isomorphisms import fractional_isomorphism  # noqa: E402
from robustlab.gnn.operators import Adjacency, Reached  # noqa: E402
from robustlab.gnn.refinement import atomic, ranked, refine, refine_pairs, refine_tuples  # noqa: E402


def same_partition(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two labellings put the same things together."""
    return bool(((one[:, None] == one) == (other[:, None] == other)).all())


def finer(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether what the first puts together the second does too."""
    return bool(((one[:, None] != one) | (other[:, None] == other)).all())


@given(st.integers(2, 9), st.floats(0.1, 0.9), st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_colours_are_the_coarsest_stable_ones(n, p, seed):
    """Beside a refinement with tuples of sorted colours, step by step."""
    drawn = erdos_renyi(n, p, graphs=2, seed=seed)
    found = refine(drawn)
    colours = [0] * drawn.n
    for round_ in found.rounds:
        assert same_partition(round_, torch.tensor(colours))
        kinds = [(colours[v], tuple(sorted(colours[int(u)] for u in drawn.head[drawn.tail == v]))) for v in range(drawn.n)]
        colours = [sorted(set(kinds)).index(kind) for kind in kinds]
    assert same_partition(found.colours, torch.tensor(colours))
    histograms = [sorted(found.colours[found.owner == which].tolist()) for which in (0, 1)]
    assert (histograms[0] == histograms[1]) == bool(found.labels[0] == found.labels[1])


@pytest.mark.parametrize("refined", [refine, lambda g: refine(g, [Reached(2)]), refine_pairs, lambda g: refine_tuples(g, 3)])
def test_numbers_of_nodes_do_not_matter(refined):
    graphs = side_by_side([erdos_renyi(7, 0.4, graphs=3, seed=1), random_regular(7, 4, graphs=3, seed=2)])
    graphs = replace(graphs, keys=torch.arange(6))
    moved, order = renumbered(graphs)
    both = refined(side_by_side([graphs, moved]))
    assert torch.equal(both.labels[:6], both.labels[6:])
    if len(both.colours) == 2 * graphs.n:  # of nodes: they move along
        assert torch.equal(both.colours[graphs.n :][order], both.colours[: graphs.n])


def test_all_graphs_of_few_nodes():
    """How many of the isomorphism classes (OEIS A000088) each method tells apart; 1-WL and 2-FWL as in the literature."""
    for n, count, one, two in ((4, 11, 11, 11), (5, 34, 34, 34), (6, 156, 152, 156), (7, 1044, 1022, 1044)):
        graphs = all_graphs(n)
        assert len(graphs) == count and (graphs.sizes == n).all()
        assert len(refine(graphs).labels.unique()) == one
        assert len(refine_pairs(graphs).labels.unique()) == two


def test_pairs_by_products_are_2_fwl_and_more_is_never_less():
    """The random product against exact multisets of tuples; 2-WL sees what 1-WL sees, 3-WL what 2-FWL sees (Cai, Fürer and Immerman)."""
    graphs = all_graphs(6)
    one, pairs = refine(graphs).labels, refine_pairs(graphs)
    exact = refine_tuples(graphs, 2)
    assert same_partition(pairs.labels, exact.labels) and len(pairs.rounds) == len(exact.rounds)
    assert all(same_partition(a, b) for a, b in zip(pairs.history, exact.history, strict=True))
    assert same_partition(refine_tuples(graphs, 1, folklore=True).labels, graphs.sizes)  # one node at a time sees no edge
    assert same_partition(refine_tuples(graphs, 2, folklore=False).labels, one)
    few = all_graphs(5)
    assert same_partition(refine_tuples(few, 3, folklore=False).labels, refine_pairs(few).labels)
    assert finer(pairs.labels, one)


@pytest.mark.parametrize("alike, pairs", [("degrees", 90), pytest.param("edges", 1276, marks=pytest.mark.long)])
def test_1_wl_is_the_linear_program(alike, pairs):
    """On all pairs of graphs of 6 nodes with the same degrees, and of all with as many edges; others differ for both at once."""
    graphs = all_graphs(6)
    labels, degrees = refine(graphs).labels, graphs.degree.reshape(-1, 6).sort(1).values
    keys = degrees if alike == "degrees" else degrees.sum(1, keepdim=True)
    tried = [(i, j) for i, j in itertools.combinations(range(len(graphs)), 2) if torch.equal(keys[i], keys[j])]
    same = 0
    for i, j in tried:
        X, off = fractional_isomorphism(graphs.one(i), graphs.one(j))
        assert torch.allclose(X.sum(0), torch.ones(6).double()) and torch.allclose(X.sum(1), torch.ones(6).double()) and X.min() > -1e-9
        assert (off < 1e-9 and labels[i] == labels[j]) or (off > 1e-3 and labels[i] != labels[j])
        same += off < 1e-9
    assert (same, len(tried)) == (4, pairs)


def test_networkx_agrees_on_trees():
    """1-WL tells all trees apart."""
    trees = side_by_side([as_graphs(tree) for tree in networkx.nonisomorphic_trees(8)])
    assert len(refine(trees).labels.unique()) == len(trees) == 23


def test_what_folklore_of_each_order_sees():
    """Cai, Fürer and Immerman: with a base of treewidth k, k-FWL is needed; strongly regular graphs are the same to 2-FWL."""
    for base, needed in ((networkx.cycle_graph(4), 2), (networkx.complete_graph(4), 3)):
        pair = side_by_side(list(cai_furer_immerman(as_graphs(base))))
        for found, order in ((refine(pair), 1), (refine_pairs(pair), 2), (refine_tuples(pair, 3), 3)):
            assert (found.labels[0] != found.labels[1]) == (order >= needed)
    pair = side_by_side(list(strongly_regular()))
    assert refine_pairs(pair).labels.tolist() == [0, 0] and len(refine_tuples(pair, 3).labels.unique()) == 2


def test_rounds_and_first_colours():
    path = graph([[0, 1, 2, 3], [1, 2, 3, 4]])
    assert [len(colours.unique()) for colours in refine(path).rounds] == [1, 2, 3]
    assert len(refine(path, rounds=1).rounds) == 2 and len(refine(path, rounds=0).rounds) == 1
    marked = refine(path, start=torch.tensor([0, 0, 0, 0, 7]))
    assert len(marked.colours.unique()) == 5
    assert refine(skip_links()).labels.tolist() == [0] * 10


def test_ranks_and_first_colours_of_tuples():
    rows = torch.tensor([[3, 1], [2, 1], [3, 1], [3, 0]])
    assert same_partition(ranked(rows[:, 0], rows[:, 1]), torch.tensor([0, 1, 0, 2]))
    kinds = atomic(graph([[0], [1]], 3), 2).reshape(3, 3)
    assert kinds[0, 0] == kinds[2, 2] and kinds[0, 1] == kinds[1, 0] and kinds[0, 2] == kinds[1, 2]
    assert len(kinds.unique()) == 3


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: refine(erdos_renyi(4, 0.5), []), "at least one operator"),
        (lambda: refine(erdos_renyi(4, 0.5), rounds=-1), "`rounds` must be at least 0, got -1"),
        (lambda: refine(erdos_renyi(4, 0.5), start=torch.zeros(3, dtype=torch.int64)), r"shape \(4,\), got \(3,\)"),
        (lambda: refine_pairs(side_by_side([erdos_renyi(4, 0.5), erdos_renyi(5, 0.5)])), "of one size, got sizes from 4 to 5"),
        (lambda: refine_pairs(erdos_renyi(2049, 0.001)), "exact up to 2,048 nodes, got 2,049"),
        (lambda: refine_tuples(erdos_renyi(4, 0.5), 0), "at least 1 node, got k = 0"),
        (lambda: refine_tuples(erdos_renyi(100, 0.5), 4), "1 graphs of 100 nodes have 100,000,000 tuples"),
        (lambda: skip_links(10, [5]), "a skip in a circle of 10 nodes is 2 to 4, got 5"),
        (lambda: all_graphs(8), "listed for 1 to 7 nodes, got 8"),
        (lambda: cai_furer_immerman(graph([[0], [1]], 3)), "whose nodes all have an edge"),
    ],
)
def test_mistakes_get_one_sentence(call, said):
    with pytest.raises(UserError, match=said):
        call()


def test_operators_beside_the_adjacency_matrix_see_more():
    links = skip_links()
    classes = [len(refine(links, [Reached(t + 1, loops=False) for t in range(count)]).labels.unique()) for count in range(1, 7)]
    assert classes == [1, 2, 4, 6, 8, 10]
    assert len(refine(links, [Adjacency(), *(Reached(2**j) for j in range(1, 5))]).labels.unique()) == 6
