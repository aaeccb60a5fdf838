"""Minimum-norm attacks on ReLU networks whose distances are known exactly."""

from __future__ import annotations

import pytest
import torch
from exact import TwoLayers, distance
from laws import images
from torch import Tensor

from robustlab.attacks import DDN, FAB, FMN
from robustlab.attacks.nearest import Nearest
from robustlab.norms import L1, L2, Linf


def shares(attack: Nearest, model: TwoLayers, x: Tensor, exact: Tensor) -> Tensor:
    """How far the attack goes, in units of the distance; infinite where it finds nothing."""
    with torch.no_grad():
        found = attack.solve(model, x, model(x).argmax(1))
    assert found.achieved is not None and found.value is not None
    return torch.where(found.achieved, found.value, torch.inf) / exact


def two_units() -> TwoLayers:
    """``relu(x_0 - .5) + relu(x_1 - .5) = .1``, and a pixel of no use: the boundary has a straight side, a slope, and a straight side."""
    model = TwoLayers(3, 2)
    with torch.no_grad():
        model.w.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0]]))
        model.b.fill_(-0.5)
        model.v.fill_(1.0)
        model.c.fill_(-0.1)
    return model


@pytest.mark.parametrize(
    "norm, far", [(Linf(), [0.035, 0.08, 0.035]), (L1(), [0.07, 0.08, 0.05]), (L2(), [0.07 / 2**0.5, 0.08, 0.035 * 2**0.5])]
)
def test_with_two_units_the_distance_is_known_by_hand(norm, far):
    """Both units on; one of them, and the other far; and one, with the other so near that it is worth while, which no gradient says."""
    model, x = two_units(), torch.tensor([[0.52, 0.51, 0.3], [0.52, 0.3, 0.3], [0.55, 0.48, 0.3]], dtype=torch.float64)
    exact = torch.tensor([distance(model, point, norm) for point in x], dtype=torch.float64)
    torch.testing.assert_close(exact, torch.tensor(far, dtype=torch.float64), rtol=1e-6, atol=1e-6)
    for attack in (FAB(norm), FMN(norm, steps=300)):
        share = shares(attack, model, x, exact)
        assert (share >= 1 - 1e-6).all() and (share[:2] <= 1.02).all(), (attack, share)


COUNTS = [*((norm, 5) for norm in (Linf(), L1(), L2())), *(pytest.param(norm, 50, marks=pytest.mark.long) for norm in (Linf(), L1(), L2()))]


@pytest.mark.parametrize("norm, count", COUNTS, ids=str)
def test_with_twelve_units_they_are_within_two_percent_in_the_median_and_never_nearer(norm, count):
    model, x = TwoLayers(6, 12), images(count, 6, seed=1, dtype=torch.float64)
    exact = torch.tensor([distance(model, point, norm) for point in x], dtype=torch.float64)
    attacks: list[Nearest] = [FAB(norm), FMN(norm, steps=300), *([DDN(steps=300)] if isinstance(norm, L2) else [])]
    for attack in attacks:
        share = shares(attack, model, x, exact)
        print(f"{attack}: median {share.median():.5f}, worst {share.max():.4f}")
        assert (share >= 1 - 1e-6).all() and share.median() <= 1.02, (attack, share)
