"""Certificates: no margin exceeds a bound, and scaled steepest descent proves its own margin in every norm."""

from __future__ import annotations

import pytest
import torch
from laws import drawn, every_norm

from robustlab.linear_bias import (
    FourierL1,
    LinearObjective,
    LogExponential,
    Lp,
    Steepest,
    certified_gap,
    descend,
    largest,
    margins,
    separable,
    zeros,
)
from robustlab.linear_bias.certificates import bound
from robustlab.norms import L1, L2, Linf


@every_norm
def test_no_margin_exceeds_a_bound(norm):
    data = separable(5, 8, 12)
    bounds = torch.stack([bound(data, drawn(5, 12, seed=s), norm) for s in range(5)]).amin(0)
    for s in range(200):
        assert (margins(data, drawn(5, 12, seed=s), norm) <= bounds).all()


@pytest.mark.parametrize("norm", [L2(), Linf(), Lp(1.5), Lp(4.0), FourierL1(), L1()], ids=repr)
def test_scaled_steepest_descent_certifies_its_own_margin(norm):
    data = separable(3, 10, 20)
    rule = Steepest(norm, 1 / largest(data, norm) ** 2, scaled=True)
    path = descend(LinearObjective(data, LogExponential()), zeros(data), rule, 4000)
    gaps = certified_gap(data, path.last, norm)
    assert (gaps >= -1e-9).all() and (gaps < 0.12).all()


def test_largest_is_the_largest_dual_norm():
    data = separable(2, 4, 5)
    torch.testing.assert_close(largest(data, L1()), data.X.abs().amax((1, 2)))
    torch.testing.assert_close(largest(data, L2()), torch.linalg.vector_norm(data.X, dim=2).amax(1))


def test_weights_of_zero_have_no_margin():
    data = separable(2, 4, 5)
    assert not margins(data, zeros(data), L2()).any()
