"""Sources: a graph is a function of the source and of its number."""

from __future__ import annotations

import pytest
import torch

from robustlab.errors import UserError
from robustlab.gnn.generators import signal_to_noise
from robustlab.gnn.sources import BlockModels, Mixture, described, dissociative_five, ratio_of


@pytest.mark.parametrize("source", [BlockModels(60, 3, 0.2, 0.05, seed=2), Mixture(60, seed=2)], ids=lambda source: type(source).__name__)
def test_graphs_do_not_depend_on_the_batch(source) -> None:
    together = source(5, 3)
    for which in range(3):
        alone, of_batch = source(5 + which, 1), together.one(which)
        assert torch.equal(alone.edge_index, of_batch.edge_index) and torch.equal(alone.y, of_batch.y)
    assert not torch.equal(source(0, 1).edge_index, source(1, 1).edge_index)
    assert described(source)["kind"] == type(source).__name__ and described(source)["seed"] == 2


def test_a_mixture_has_one_mean_degree_and_both_signs_above_its_ratio() -> None:
    pairs = Mixture(1000, degree=3, least=1.2).parameters(0, 400)
    assert all(abs(a + b - 6) < 1e-9 and a >= -1e-9 and b >= -1e-9 for a, b in pairs)
    ratios = [signal_to_noise(a, b) for a, b in pairs]
    assert 1.2 <= min(ratios) < 1.25 and 2.9 < max(ratios) <= 3 + 1e-9
    assert 0.4 < sum(a > b for a, b in pairs) / 400 < 0.6


def test_the_published_graphs_are_below_the_threshold() -> None:
    assert ratio_of(dissociative_five()) == pytest.approx(0.9)
    graphs = dissociative_five()(0, 2)
    assert not (graphs.y[graphs.tail] == graphs.y[graphs.head]).any() and 13 < graphs.mean_degree < 16


def test_a_ratio_that_the_degree_cannot_give_is_refused() -> None:
    with pytest.raises(UserError, match="a mean degree of 3 gives signal-to-noise ratios below it, so not 3"):
        Mixture(100, least=3)
