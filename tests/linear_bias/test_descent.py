"""Descents: the points that are kept, seeds that diverge, and one seed as in many."""

from __future__ import annotations

import pytest
import torch

from robustlab.errors import UserError
from robustlab.linear_bias import (
    Exponential,
    LinearObjective,
    LogExponential,
    Logistic,
    Squared,
    Steepest,
    descend,
    moments,
    problem,
    regression,
    separable,
    zeros,
)
from robustlab.norms import L1, L2


@pytest.mark.parametrize("steps", [0, 1, 2, 10, 999, 1000])
def test_moments_begin_at_zero_rise_and_end_with_the_last(steps):
    found = moments(steps)
    assert found[0] == 0 and found[-1] == steps and list(found) == sorted(set(found))
    assert steps < 10 or 10 in found


def test_the_points_kept_are_those_on_the_way():
    data = regression(3, 4, 6)
    objective, rule = LinearObjective(data, Squared()), Steepest(L2(), 0.01, scaled=True)
    path = descend(objective, zeros(data), rule, 20, keep=(0, 3, 7))
    assert path.moments == (0, 3, 7, 20) and path.finite.all()
    torch.testing.assert_close(path.points[2], descend(objective, zeros(data), rule, 7).last)
    torch.testing.assert_close(path.values[1], objective(path.points[1]))
    assert not path.points[0].any()


def test_a_seed_goes_the_same_way_alone():
    def run(data):
        return descend(LinearObjective(data, LogExponential()), zeros(data), Steepest(L1(), 0.01, scaled=True), 100).last

    torch.testing.assert_close(run(separable(4, 6, 9))[2:3], run(separable(1, 6, 9, first=2)))


def test_a_step_that_is_too_large_is_told_and_may_be_allowed():
    data = problem([[0.1, 0.9], [0.1, -0.5]], [1.0, 1.0])  # one class is enough for a loss
    objective, rule = LinearObjective(data, Exponential()), Steepest(L2(), 1e4, scaled=True)
    with pytest.raises(UserError, match=r"1 of 1 runs diverged \(the first is run 0\): the step size is too large"):
        descend(objective, zeros(data), rule, 10)
    assert not descend(objective, zeros(data), rule, 10, allow_nonfinite=True).finite.any()


def test_stopping_is_an_interrupt():
    data, asked = regression(1, 2, 3), []

    def stop():
        asked.append(1)
        return len(asked) > 5

    with pytest.raises(KeyboardInterrupt):
        descend(LinearObjective(data, Squared()), zeros(data), Steepest(L2(), 0.01), 100, stop=stop)
    assert len(asked) < 20


def test_a_path_goes_on_as_if_it_had_not_stopped():
    problem = separable(2, 4, 6)
    objective, rule = LinearObjective(problem, Logistic()), Steepest(L2(), 0.1)
    whole = descend(objective, zeros(problem), rule, 20, keep=range(21))
    first = descend(objective, zeros(problem), rule, 8, keep=range(9))
    joined = first.then(descend(objective, first.last, rule, 12, keep=range(13)))
    assert joined.moments == whole.moments
    torch.testing.assert_close(joined.points, whole.points, rtol=0, atol=0)
    torch.testing.assert_close(joined.values, whole.values, rtol=0, atol=0)
    none = descend(objective, zeros(problem), rule, 0)
    assert torch.equal(none.then(whole).points, whole.points)
    with pytest.raises(UserError, match="begins at its last point"):
        first.then(whole)
