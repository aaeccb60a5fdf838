"""The loss on communities: the best of all ways to name them, by enumeration."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F

from robustlab import gnn
from robustlab.errors import UserError
from robustlab.gnn import losses


def graphs(k: int) -> gnn.GraphBatch:
    parts = [gnn.stochastic_block_model(n, k, inside=0.3, between=0.1, seed=n) for n in (4 * k, 30, 4 * k + 1)]
    return gnn.side_by_side(parts)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_the_loss_is_the_smallest_over_all_names(k: int) -> None:
    batch = graphs(k)
    logits = torch.randn(batch.n, k, dtype=torch.float64, generator=torch.Generator().manual_seed(k)).requires_grad_()
    found = losses.invariant_cross_entropy(batch, logits)
    bounds = batch.starts.tolist()
    for graph, (low, high) in enumerate(zip(bounds, bounds[1:], strict=False)):
        y, own = batch.y[low:high], logits[low:high]
        every = [F.cross_entropy(own, torch.tensor(names)[y]) for names in permutations(range(k))]
        best = every[int(torch.stack(every).argmin())]
        torch.testing.assert_close(found[graph], best)
        ours, theirs = (torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (found[graph], best))
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("k", [2, 5, 7])
def test_the_overlap_is_that_of_the_labels(k: int) -> None:
    batch = graphs(k)
    logits = torch.randn(batch.n, k, generator=torch.Generator().manual_seed(k))
    torch.testing.assert_close(losses.invariant_overlap(batch, logits), gnn.overlap(batch, logits.argmax(1), k))


def test_enumeration_and_assignment_agree() -> None:
    for k in (2, 5, 6, 7):
        costs = torch.rand(20, k, k, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        every = torch.tensor(list(permutations(range(k))))
        best = every[costs[:, torch.arange(k), every].sum(2).argmin(1)]
        assert torch.equal(losses.best_names(costs), best)


def test_names_do_not_matter() -> None:
    batch = graphs(4)
    logits = torch.randn(batch.n, 4, generator=torch.Generator().manual_seed(0))
    renamed = batch.labelled(torch.tensor([2, 0, 3, 1])[batch.y])
    torch.testing.assert_close(losses.invariant_cross_entropy(renamed, logits), losses.invariant_cross_entropy(batch, logits))


def test_labels_that_do_not_fit_are_refused() -> None:
    batch = graphs(3)
    with pytest.raises(UserError, match="labels of 2 communities are 0 to 1, got 0 to 2"):
        losses.invariant_cross_entropy(batch, torch.zeros(batch.n, 2))
    with pytest.raises(UserError, match="needs the true label of each node"):
        losses.invariant_cross_entropy(gnn.erdos_renyi(9, 0.5), torch.zeros(9, 2))
