"""What each method tells apart, its certificates, and isomorphisms: on graphs where the answer is known."""

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
from robustlab.gnn.isomorphisms import Undecided, compare, fractional_isomorphism, isomorphism  # noqa: E402
from robustlab.gnn.networks import SGNN  # noqa: E402
from robustlab.gnn.separation import METHODS, Numbers, bare, clipped_powers, closed_walks, grouped, separates  # noqa: E402

HEXAGON = graph([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]])
TRIANGLES = graph([[0, 1, 2, 3, 4, 5], [1, 2, 0, 4, 5, 3]])
every_method = pytest.mark.parametrize("method", METHODS)


@every_method
def test_a_graph_is_never_told_from_its_copy(method):
    small = 8 if method == "3-FWL" else 20
    graphs = [erdos_renyi(small, 0.3, seed=1), random_regular(small, 3, seed=2), replace(strongly_regular()[0], keys=torch.tensor([1]))]
    for one in graphs:
        found = separates(method, one, renumbered(one, seed=5)[0])
        assert not found and ("agree" in found.reason or "none splits" in found.reason)


# How many of the ten skip-link graphs, and of the 156 graphs of 6 nodes and the 1,044 of 7, get labels of their own.
CLASSES = {
    "1-WL": (1, 152, 1022),
    "dyadic powers": (6, 155, 1036),
    "hop rings": (9, 154, 1030),
    "clipped powers": (10, 155, 1036),
    "closed walks": (10, 151, 988),
    "spectrum": (10, 151, 988),
    "laplacian spectrum": (10, 154, 976),
    "1-WL and spectrum": (10, 156, 1044),
    "2-FWL": (10, 156, 1044),
}


@pytest.mark.parametrize("method", CLASSES)
def test_as_many_classes_as_known(method):
    """Spectra: Haemers and Spence 2004 list 156 - 151 and 1,044 - 988 graphs without one of their own in excess."""
    for graphs, expected in zip((skip_links(), all_graphs(6), all_graphs(7)), CLASSES[method], strict=True):
        assert len(METHODS[method](graphs).labels.unique()) == expected


@every_method
def test_a_batch_gets_the_answers_of_its_pairs(method):
    graphs = side_by_side([all_graphs(4), all_graphs(3), bare(skip_links(9, (2, 3)))])
    labels = METHODS[method](graphs).labels
    for i, j in itertools.combinations(range(len(graphs)), 2):
        assert bool(separates(method, graphs.one(i), graphs.one(j))) == bool(labels[i] != labels[j])


def test_certificates_can_be_checked():
    """What the sentence counts is counted here again."""
    found = separates("2-FWL", HEXAGON, TRIANGLES)
    # Pairs without an edge and without a common neighbour: opposite nodes of the hexagon; nodes of two triangles, 2 * 3 * 3.
    assert found and found.reason == "after round 1 a colour is at 6 2-tuples of one and at 18 of the other"
    star, path = graph([[0, 0, 0], [1, 2, 3]]), graph([[0, 1, 2], [1, 2, 3]])
    assert separates("1-WL", star, path).reason == "after round 1 a colour is at 0 nodes of one and at 2 of the other"
    assert separates("closed walks", HEXAGON, TRIANGLES).reason == "the number of closed walks of length 3 is 0 in one and 12 in the other"
    cycle = [2 * torch.pi * torch.arange(6).double() / 6]
    values = sorted((2 * cycle[0].cos()).tolist()), [-1.0] * 4 + [2.0] * 2
    worst = max(range(6), key=lambda i: abs(values[0][i] - values[1][i]))
    reason = separates("spectrum", HEXAGON, TRIANGLES).reason
    assert reason == f"eigenvalue {worst + 1} is {values[0][worst]:.10g} in one and {values[1][worst]:.10g} in the other"
    assert separates("1-WL", HEXAGON, star).reason == "they have 6 and 4 nodes"
    both = separates("1-WL and spectrum", HEXAGON, TRIANGLES)
    assert both and both.reason == reason


def test_closed_walks_of_all_lengths_are_the_spectrum():
    graphs = all_graphs(7)
    walks, values = closed_walks(7)(graphs).labels, METHODS["spectrum"](graphs).labels
    assert bool(((walks[:, None] == walks) == (values[:, None] == values)).all())
    exact = torch.stack([torch.linalg.matrix_power(graphs.one(900).adjacency(), t + 1).trace() for t in range(7)])
    assert torch.equal(closed_walks(7)(graphs.one(900)).values[0], exact)


def test_rows_are_grouped_by_what_is_close():
    rows = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1e-9, 1.0], [0.0, 1.1], [1.0, -1e-9]], dtype=torch.float64)
    labels = grouped(rows, 1e-8)
    assert labels[0] == labels[2] and labels[1] == labels[4] and len(labels.unique()) == 3
    assert len(grouped(rows).unique()) == 5
    assert Numbers(rows, "value", 1e-8).reason(0, 2) == "all 2 numbers agree to 1e-08"


@given(st.integers(1, 12), st.floats(0, 1), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_isomorphisms_are_found(n, p, seed):
    one = erdos_renyi(n, p, seed=seed)
    other, _ = renumbered(one, seed=seed)
    order = isomorphism(one, other)
    assert torch.equal(one.permuted(order).edge_index, other.edge_index)


def test_a_search_goes_deeper_than_calls_do():
    """Without an edge refinement splits nothing: every node is given its colour by the search."""
    nothing = graph(torch.zeros(2, 0, dtype=torch.int64), 1100)
    assert isomorphism(nothing, nothing) is not None


def test_isomorphisms_of_hard_graphs():
    for one in (strongly_regular()[1], skip_links().one(3), *cai_furer_immerman(as_graphs(networkx.complete_graph(4)))):
        other, _ = renumbered(replace(one, keys=torch.tensor([4])))
        assert torch.equal(one.permuted(isomorphism(one, other)).edge_index, other.edge_index)


def test_what_is_not_isomorphic_has_no_isomorphism():
    """All pairs of graphs of 5 nodes, and pairs that refinement alone does not tell apart."""
    graphs = all_graphs(5)
    for i, j in itertools.combinations(range(len(graphs)), 2):
        assert isomorphism(graphs.one(i), graphs.one(j)) is None
    for pair in ((HEXAGON, TRIANGLES), strongly_regular(), cai_furer_immerman(as_graphs(networkx.complete_graph(4)))):
        assert isomorphism(*pair) is None
    with pytest.raises(Undecided, match="1 refinements of colours neither found"):
        isomorphism(HEXAGON, TRIANGLES, tries=1)


def test_a_comparison_says_all_that_is_known():
    found = compare(*strongly_regular())
    assert {each.method: each.told_apart for each in found.separations} == {name: name == "3-FWL" for name in METHODS}
    assert found.isomorphic is False and found.order is None and not found.failed
    without = compare(*strongly_regular(), methods=["1-WL"])
    assert without.isomorphic is False and not any(each.told_apart for each in without.separations)  # by search
    assert compare(HEXAGON, TRIANGLES, methods=["1-WL"], tries=1).isomorphic is None
    same = compare(HEXAGON, HEXAGON)
    assert same.isomorphic and torch.equal(HEXAGON.permuted(same.order).edge_index, HEXAGON.edge_index)
    large = erdos_renyi(100, 0.05)
    assert "more than 50,000,000" in compare(large, large).failed["3-FWL"]


def test_more_powers_tell_more_apart():
    counts = [len(clipped_powers(count)(skip_links()).labels.unique()) for count in range(1, 7)]
    assert counts == [1, 2, 4, 6, 9, 10]  # with the diagonal, which says whether a node walks back to itself


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: separates("2-WL", HEXAGON, TRIANGLES), "unknown method '2-WL'. Did you mean"),
        (lambda: separates("1-WL", all_graphs(3), HEXAGON), "got 4 in one place, take each with `one`"),
        (lambda: separates(SGNN(2), HEXAGON, TRIANGLES), "SGNN has answers for nodes"),
        (lambda: compare(HEXAGON, TRIANGLES, methods=["wl"]), "unknown method 'wl'"),
        (lambda: compare(all_graphs(3), HEXAGON), "got 4 in one place"),
        (lambda: isomorphism(all_graphs(3), HEXAGON), "take each with `one`"),
        (lambda: fractional_isomorphism(HEXAGON, graph([[0], [1]])), "of as many nodes"),
    ],
)
def test_mistakes_get_one_sentence(call, said):
    with pytest.raises(UserError, match=said):
        call()
