"""Newton-Schulz: the cubic converges to the polar factor, the quintic stays near it."""

from __future__ import annotations

import pytest
import torch
from laws import drawn

from robustlab.errors import UserError
from robustlab.linear_bias.polar import NewtonSchulz
from robustlab.norms import Spectral


@pytest.mark.parametrize("shape", [(3, 4, 6), (3, 6, 4), (2, 5, 5)])
def test_the_cubic_converges_to_the_polar_factor(shape):
    g = drawn(*shape)
    torch.testing.assert_close(NewtonSchulz(60, "cubic").steepest(g), Spectral().steepest(g))


def test_five_quintic_steps_leave_singular_values_around_one():
    values = torch.linalg.svdvals(NewtonSchulz().steepest(drawn(50, 4, 6)))
    assert (values > 0.5).all() and (values < 1.3).all() and ((values - 1).abs() > 0.05).any()


def test_singular_vectors_and_size_do_not_matter():
    g = drawn(2, 3, 4)
    for steps in (NewtonSchulz(), NewtonSchulz(3, "cubic")):
        torch.testing.assert_close(steps.steepest(1e-200 * g), steps.steepest(g))
        torch.testing.assert_close(steps.steepest(g.mT), steps.steepest(g).mT)
        assert not steps.steepest(torch.zeros(2, 3, 4).double()).any()


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: NewtonSchulz(5, "quartic"), "unknown set of coefficients 'quartic'"),
        (lambda: NewtonSchulz(-1), "`steps` must be at least 0, got -1"),
        (lambda: NewtonSchulz().steepest(torch.ones(2, 3)), "a polar factor needs one matrix for each example"),
    ],
)
def test_what_has_no_polar_factor_is_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()
