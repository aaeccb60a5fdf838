"""Certificates: no margin exceeds a bound, and scaled steepest descent proves its own margin in every norm."""

from __future__ import annotations

import math

import pytest
import torch
from laws import drawn, every_norm

from robustlab.errors import UserError
from robustlab.linear_bias import (
    FourierL1,
    LinearObjective,
    LogExponential,
    Lp,
    MeanMixture,
    Path,
    Steepest,
    certified_gap,
    descend,
    largest,
    log_slope,
    margins,
    path_length,
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


@pytest.mark.parametrize("norm", [L1(), Linf()], ids=repr)
def test_the_mean_of_the_mixtures_met_proves_more_where_the_weight_moves(norm):
    data = separable(3, 10, 20)
    objective = MeanMixture(data, LogExponential())
    with pytest.raises(UserError, match="no step was taken yet"):
        objective.mean  # noqa: B018
    rule = Steepest(norm, 1 / largest(data, norm) ** 2, scaled=True)
    path = descend(objective, zeros(data), rule, 3000)
    assert torch.equal(path.last, descend(LinearObjective(data, LogExponential()), zeros(data), rule, 3000).last)
    torch.testing.assert_close(objective.mean.sum(1), torch.ones(3).double())
    alone, both = certified_gap(data, path.last, norm), certified_gap(data, path.last, norm, objective.mean)
    assert (both >= 0).all() and (both <= alone).all() and (both < 0.05).all()


def test_slope_and_length_of_a_path_that_grows_like_a_logarithm():
    direction, keep = drawn(2, 3), (1, 10, 100, 1000)
    points = torch.stack([direction * math.log(t) for t in keep])
    path = Path(keep, points, torch.zeros(4, 2), torch.ones(2, dtype=torch.bool))
    torch.testing.assert_close(log_slope(path, 10), direction)
    torch.testing.assert_close(log_slope(path, 1, 100), direction)
    torch.testing.assert_close(path_length(path)[-1], math.log(1000) * torch.linalg.vector_norm(direction, dim=1))
    assert not path_length(path)[0].any()
    for first, last, said in ((7, 100, "was not kept after 7 steps"), (100, 10, "a larger last one, got 100 and 10")):
        with pytest.raises(UserError, match=said):
            log_slope(path, first, last)
