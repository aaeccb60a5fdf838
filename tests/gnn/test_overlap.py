"""Overlap: best renaming by brute force, chance by its own definition, and labels that do not fit."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch

from robustlab.errors import UserError
from robustlab.gnn.generators import stochastic_block_model
from robustlab.gnn.overlap import agreement, chance, overlap

SOURCE = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_best_renaming_is_that_of_brute_force(k):
    for _ in range(10):
        found, true = torch.randint(k, (2, 40), generator=SOURCE)
        best = max((torch.tensor(names)[found] == true).double().mean().item() for names in permutations(range(k)))
        assert agreement(found, true, k) == pytest.approx(best)


def test_the_truth_under_other_names_overlaps_fully_and_one_community_not_at_all():
    graphs = stochastic_block_model(30, 3, inside=0.5, between=0.1, graphs=4)
    assert overlap(graphs, (graphs.y + 1) % 3, 3).tolist() == pytest.approx([1.0] * 4)
    assert overlap(graphs, torch.zeros(graphs.n).long(), 3).abs().max() < 1e-12


def test_chance_is_what_random_labels_reach():
    graphs = stochastic_block_model(400, 5, inside=0, between=0.045, graphs=5)
    assert chance(graphs, 5) == pytest.approx(0.06, abs=0.006)
    two = stochastic_block_model(1000, 2, inside=0.005, between=0.001, graphs=5)
    # The mean distance from one half of a binomial share: sqrt(2 / (pi n)) in units of the overlap.
    assert chance(two, 2, draws=60) == pytest.approx((2 / (torch.pi * 1000)) ** 0.5, rel=0.15)


def test_labels_that_do_not_fit_are_refused():
    graphs = stochastic_block_model(10, 2, inside=0.5, between=0.1)
    with pytest.raises(UserError, match="labels of 2 communities are 0 to 1, got 0 to 2"):
        overlap(graphs, torch.arange(10) % 3, 2)
    with pytest.raises(UserError, match="found and true labels must be as many, got 9 and 10"):
        agreement(graphs.y[1:], graphs.y, 2)
    with pytest.raises(UserError, match="the overlap needs at least two communities, got 1"):
        overlap(graphs, graphs.y, 1)
    with pytest.raises(UserError, match="the overlap needs the true label of each node in `y`"):
        overlap(graphs.labelled(torch.zeros(1).long()), graphs.y, 2)
