"""Which communities to believe: the likelihood of labels, names by size, and what a method that finds nothing leaves of the others."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("scipy")
networkx = pytest.importorskip("networkx")

from robustlab.errors import UserError  # noqa: E402
from robustlab.gnn import SGNN, as_graphs, graph, overlap, side_by_side, stochastic_block_model  # noqa: E402
from robustlab.gnn.choice import ONE, by_size, find_communities, likelihood  # noqa: E402

PLANTED = stochastic_block_model(300, 3, inside=0.15, between=0.01)


def test_the_likelihood_is_the_mutual_information_of_the_ends_of_an_edge():
    torch.manual_seed(0)
    labels = torch.randint(4, (300,))
    joint = torch.zeros(4, 4).double()
    for i, j in PLANTED.edge_index.T.tolist():
        joint[labels[i], labels[j]] += 1 / PLANTED.edge_index.shape[1]
    by_hand = sum(
        float(joint[a, b]) * math.log(float(joint[a, b] / (joint[a].sum() * joint[:, b].sum()))) for a in range(4) for b in range(4)
    )
    assert likelihood(PLANTED, labels, 4) == pytest.approx(by_hand, abs=1e-12)
    assert likelihood(PLANTED, labels[torch.randperm(300)] * 0, 1) == 0
    assert likelihood(PLANTED, PLANTED.y, 3) > 10 * likelihood(PLANTED, labels, 4)


def test_two_cliques_and_a_bipartite_graph_have_the_most_that_is_possible():
    apart = as_graphs(networkx.disjoint_union(networkx.complete_graph(5), networkx.complete_graph(5)))
    between = as_graphs(networkx.complete_bipartite_graph(5, 5))
    halves = (torch.arange(10) >= 5).long()
    assert likelihood(apart, halves, 2) == pytest.approx(math.log(2)) == likelihood(between, halves, 2)
    answer = find_communities(between, 2)
    assert not answer.assortative and answer.likelihoods[answer.best] == pytest.approx(math.log(2))


def test_names_go_by_size_and_then_by_the_first_node():
    assert by_size(torch.tensor([2, 0, 0, 1, 1, 1]), 4).tolist() == [2, 1, 1, 0, 0, 0]
    assert by_size(torch.tensor([3, 1, 3, 1]), 4).tolist() == [0, 1, 0, 1]


def test_planted_communities_are_counted_found_and_the_best_method_is_as_good_as_any():
    answer = find_communities(PLANTED)
    assert (answer.k, answer.estimated, answer.assortative) == (3, 3, True) and not answer.failed
    scores = {name: float(overlap(PLANTED, labels, 3)) for name, labels in answer.labels.items()}
    assert scores[answer.best] > max(scores.values()) - 0.02 > 0.9
    assert answer.likelihoods[answer.best] == max(answer.likelihoods.values())
    again = find_communities(PLANTED, methods=[answer.best])
    assert torch.equal(again.labels[answer.best], answer.labels[answer.best])


def test_a_network_joins_and_a_method_that_fails_is_told():
    star = as_graphs(networkx.star_graph(5))
    answer = find_communities(star, 2, networks={"mine": SGNN(2, depth=2)})
    assert "mine" in answer.labels and set(answer.labels) | set(answer.failed) > {"bethe hessian", "mine"}
    with pytest.raises(UserError, match="the network mine finds 2 communities, and 3 are looked for"):
        find_communities(star, 3, networks={"mine": SGNN(2, depth=2)})


def test_where_nothing_can_be_told_from_chance_there_is_one_community():
    answer = find_communities(as_graphs(networkx.complete_graph(8)))
    assert answer.k == 1 and answer.best == ONE and not answer.labels[ONE].any()


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: find_communities(side_by_side([PLANTED, PLANTED])), "in one graph, got 2"),
        (lambda: find_communities(graph(torch.zeros(2, 0, dtype=torch.int64), 4)), "without edges has no communities"),
        (lambda: find_communities(PLANTED, methods=["louvain"]), "unknown method 'louvain'"),
        (lambda: find_communities(PLANTED, 301), "1 to 300 communities, got 301"),
        (lambda: find_communities(PLANTED, 0), "1 to 300 communities, got 0"),
    ],
)
def test_what_has_no_communities_is_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()
