"""Planted cliques: which nodes have the highest values, what the clean-up keeps, and cliques that every method finds."""

from __future__ import annotations

import pytest
import torch

from robustlab.errors import UserError
from robustlab.gnn.cliques import by_degree, by_second_eigenvector, cleaned, highest, recovered
from robustlab.gnn.generators import planted_clique
from robustlab.gnn.graphs import graph, side_by_side


def test_the_highest_are_of_each_graph():
    graphs = side_by_side([graph([[0], [1]], 3), graph([[0], [1]], 4)])
    values = torch.tensor([0.0, 9, 5, 1, 2, 3, 4])
    assert highest(graphs, values, 2).tolist() == [False, True, True, False, False, True, True]
    with pytest.raises(UserError, match="a graph of 3 nodes has no clique of 4"):
        highest(graphs, values, 4)


def test_the_clean_up_repairs_a_clique_of_which_some_are_wrong():
    one = planted_clique(200, 40)
    clique = one.y == 1
    spoiled = clique.clone()
    spoiled[clique.nonzero()[:6, 0]] = False
    spoiled[(~clique).nonzero()[:6, 0]] = True
    assert float(recovered(one, spoiled)) == pytest.approx(34 / 40)
    assert torch.equal(cleaned(one, spoiled, 40), clique) and torch.equal(cleaned(one, clique, 40), clique)


@pytest.mark.parametrize("score", [by_degree, by_second_eigenvector])
def test_large_cliques_are_found(score):
    graphs = planted_clique(300, 60, graphs=2)
    assert (recovered(graphs, cleaned(graphs, highest(graphs, score(graphs), 60), 60)) == 1).all()


def test_eigenvectors_go_below_degrees():
    graphs = planted_clique(400, 28, graphs=3)
    shares = [float(recovered(graphs, highest(graphs, score(graphs), 28)).mean()) for score in (by_degree, by_second_eigenvector)]
    assert shares[1] > shares[0] + 0.1


def test_without_labels_nothing_is_recovered():
    with pytest.raises(UserError, match="a label of each node in `y`"):
        recovered(graph([[0], [1]], 3), torch.ones(3).bool())
