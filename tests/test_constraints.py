"""Laws of constraint sets: what comes out lies inside, exactly; what lay inside comes out as it was."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import anything, assert_within, batches, drawn, every_norm, images, pixels, radii, seeded

from robustlab.constraints import Ball, Box, Everywhere, Masked, ThreatModel, round_towards
from robustlab.errors import UserError
from robustlab.norms import L1, L2, Linf

every_dtype = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])
EIGHT = 8 / 255  # rounds to a float32 that is larger than the number itself, as does 1 - 8/255


@every_norm
@seeded
@given(pair=batches(pixels, anything), eps=radii, dtype=every_dtype)
def test_what_the_threat_model_allows_is_exact(norm, pair, eps, dtype):
    x, wanted = pair[0].to(dtype), pair[1].to(dtype)
    threat = ThreatModel(norm, eps)
    assert_within(threat, x, threat.around(x).project(wanted))


@every_norm
@seeded
@given(pair=batches(pixels, anything), eps=radii, dtype=every_dtype)
def test_projecting_twice_changes_nothing(norm, pair, eps, dtype):
    allowed = ThreatModel(norm, eps).around(pair[0].to(dtype))
    once = allowed.project(pair[1].to(dtype))
    assert torch.equal(allowed.project(once), once)


@every_norm
@seeded
@given(pair=batches(pixels, pixels), eps=radii, dtype=every_dtype)
def test_what_is_inside_stays_as_it_is(norm, pair, eps, dtype):
    x, other = (v.to(dtype) for v in pair)
    inside = norm.measure(other.double() - x.double()) <= eps * (1 - 1e-12)
    assert torch.equal(ThreatModel(norm, eps).around(x).project(other)[inside], other[inside])
    assert torch.equal(ThreatModel(norm, eps).around(x).project(x), x)


@every_norm
@seeded
@given(pair=batches(pixels, anything), eps=st.lists(radii, min_size=3, max_size=3))
def test_each_example_has_its_own_radius(norm, pair, eps):
    x, wanted = (v.float() for v in pair)
    radius = torch.tensor(eps[: len(x)], dtype=torch.float64)
    moved = Ball(x, norm, radius).project(wanted)
    assert (norm.measure(moved.double() - x.double()) <= radius).all()
    for i in range(len(x)):
        assert torch.equal(Ball(x[i : i + 1], norm, float(radius[i])).project(wanted[i : i + 1])[0], moved[i])


@every_norm
@pytest.mark.parametrize("eps", [EIGHT, 0.5, 12.0])
def test_feasibility_is_exact_for_images_of_real_size(norm, eps):
    x = images(2, 3, 224, 224)
    threat = ThreatModel(norm, eps)
    assert_within(threat, x, threat.around(x).project(x + drawn(2, 3, 224, 224, dtype=torch.float32)))
    assert_within(threat, x, threat.around(x).project(torch.full_like(x, 0.7)))


@every_norm
@pytest.mark.parametrize("nearness", [1e-12, 1e-15])
def test_points_within_a_rounding_error_of_the_boundary(norm, nearness):
    """Where a sum in another order says that a point is outside, and where projecting again could find something left to do.
    Around zero in float64 nothing is rounded but the norm itself, so there is no slack to hide in."""
    eps, ball = 0.3, Ball(torch.zeros(400, 999, dtype=torch.float64), norm, 0.3, Box(-1, 1))
    direction = drawn(400, 999)
    share = 1 + torch.linspace(-nearness, nearness, 400, dtype=torch.float64)
    for wanted in (direction * (eps * share / norm.measure(direction))[:, None], direction):
        moved = ball.project(wanted)
        for order in (moved, moved.flip(1), moved[:, drawn(999).argsort()]):
            assert (norm.measure(order) <= eps).all()
        assert torch.equal(ball.project(moved), moved)


@every_norm
def test_rounding_inward_costs_next_to_nothing(norm):
    """Exactness is not bought by staying away from the boundary: every value is within a unit in the last place of the best."""
    x = 0.25 + images(8, 3, 32, 32) / 2
    wanted = x + drawn(8, 3, 32, 32, dtype=torch.float32)
    nearest = x.double() + norm.project(wanted.double() - x.double(), EIGHT)
    assert ((ThreatModel(norm, EIGHT).around(x).project(wanted).double() - nearest).abs() <= 2.0**-24 + 1e-12).all()


@seeded
@given(one=batches(pixels), eps=radii)
def test_the_linf_ball_is_the_largest_box_of_float32_numbers_within_eps(one, eps):
    """The bounds are the farthest float32 numbers from the centre that are no farther than eps: the next ones are too far."""
    x = one[0].float()
    box = ThreatModel(Linf(), eps).around(x)
    for side, away in ((box.hi, math.inf), (box.lo, -math.inf)):
        farther = torch.nextafter(side, torch.full_like(side, away))
        outside = ((farther.double() - x.double()).abs() > eps) | (farther < 0) | (farther > 1)
        assert outside.all()


def test_eps_zero_allows_the_image_alone():
    x = torch.tensor([[0.0, 1.0, 0.3, 8 / 255, 1e-45]])
    for norm in (L1(), L2(), Linf()):
        assert torch.equal(ThreatModel(norm, 0.0).around(x).project(x + drawn(1, 5, dtype=torch.float32)), x)


def test_a_point_off_centre_goes_to_the_ball_and_then_to_the_box():
    """By hand, in numbers without rounding: 0.5 from a centre of 0.75, along one coordinate, meets the box at 1."""
    centre, far = torch.tensor([[0.75, 0.5]]).double(), torch.tensor([[9.0, 0.5]]).double()
    torch.testing.assert_close(Ball(centre, L2(), 0.125).project(far), torch.tensor([[0.875, 0.5]]).double(), rtol=1e-11, atol=0)
    assert torch.equal(Ball(centre, L2(), 0.5).project(far), torch.tensor([[1.0, 0.5]]).double())


def test_boxes_of_numbers_and_of_tensors():
    x = torch.tensor([[-1.0, 0.5, 2.0], [0.2, 0.2, 0.2]])
    assert torch.equal(Box().project(x), torch.tensor([[0.0, 0.5, 1.0], [0.2, 0.2, 0.2]]))
    assert torch.equal(Box(-0.5, 1.5).project(x)[0], torch.tensor([-0.5, 0.5, 1.5]))
    lo, hi = torch.tensor([0.3, 0.0, 0.0]), torch.tensor([1.0, 0.1, 0.2])
    assert torch.equal(Box(lo, hi).project(x), torch.tensor([[0.3, 0.1, 0.2], [0.3, 0.1, 0.2]]))


def test_everywhere_is_no_constraint():
    x = drawn(2, 3) * 1e9
    assert torch.equal(Everywhere().project(x), x)


@every_norm
@seeded
@given(pair=batches(pixels, anything), eps=radii, chosen=st.lists(st.booleans(), min_size=8, max_size=8))
def test_a_mask_keeps_the_rest_of_the_image(norm, pair, eps, chosen):
    x, wanted = (v.float() for v in pair)
    mask = torch.tensor(chosen[: x.shape[2]])
    threat = ThreatModel(norm, eps)
    masked = Masked(threat.around(x), x, mask)
    moved = masked.project(wanted)
    assert_within(threat, x, moved)
    assert torch.equal(moved[:, :, ~mask], x[:, :, ~mask])
    assert torch.equal(masked.project(moved), moved)


@seeded
@given(one=batches(pixels, st.floats(-2, 2)), dtype=every_dtype)
def test_rounding_never_goes_farther_than_it_was_told(one, dtype):
    centre, delta = one[0].to(dtype), one[1]
    moved = round_towards(centre, delta, dtype)
    travelled = moved.double() - centre.double()
    assert moved.dtype == dtype and (travelled.abs() <= delta.abs()).all()
    assert (travelled * delta >= 0).all()


def test_a_threat_model_prints_its_norm_and_eps():
    assert repr(ThreatModel(Linf(), EIGHT)) == "Linf eps=0.03137"
    assert str(ThreatModel(L2(), 0.5)) == "L2 eps=0.5"


def test_equal_settings_are_equal():
    assert ThreatModel(L1(), 2.0) == ThreatModel(L1(), 2.0) != ThreatModel(L2(), 2.0)
    assert len({ThreatModel(L1(), 2.0), ThreatModel(L1(), 2.0), ThreatModel(L1(), 3.0)}) == 2


@pytest.mark.parametrize("eps", [-1e-9, -8 / 255, math.nan, math.inf])
def test_a_radius_must_be_a_number_from_zero(eps):
    with pytest.raises(UserError, match=rf"eps must be a finite number >= 0 .*{eps}"):
        ThreatModel(Linf(), eps)


def test_only_values_that_can_go_against_the_gradient_are_left_in_it():
    x = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.5]])
    g = torch.tensor([[1.0, -1.0, 1.0, -1.0, 2.0]])
    free = torch.tensor([[0.0, -1.0, 1.0, 0.0, 2.0]])
    mask = torch.tensor([True, True, True, True, False])
    assert torch.equal(Everywhere().tangent(x, g), g)
    assert torch.equal(Box().tangent(x, g), free)
    assert torch.equal(Ball(x, L2(), 0.1).tangent(x, g), free)
    assert torch.equal(Masked(Box(), x, mask).tangent(x, g), free * mask)
    assert not Box(x, x).tangent(x, g).any()
