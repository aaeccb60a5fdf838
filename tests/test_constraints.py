"""Laws of constraint sets: what comes out lies inside, exactly; what lay inside comes out as it was."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import anything, assert_within, batches, drawn, every_norm, images, pixels, radii, seeded, threat_of

from robustlab.constraints import Ball, Box, Everywhere, Masked, ThreatModel, linf_box, round_towards
from robustlab.errors import UserError
from robustlab.norms import L1, L2, Linf, Norm, expanded
from robustlab.subsets import Indivisible, restricted

every_dtype = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])
EIGHT = 8 / 255  # rounds to a float32 that is larger than the number itself, as does 1 - 8/255


@every_norm
@seeded
@given(pair=batches(pixels, anything), eps=radii, dtype=every_dtype)
def test_what_the_threat_model_allows_is_exact(norm, pair, eps, dtype):
    x, wanted = pair[0].to(dtype), pair[1].to(dtype)
    threat = threat_of(norm, eps)
    assert_within(threat, x, threat.around(x).project(wanted))


@every_norm
@seeded
@given(pair=batches(pixels, anything), eps=radii, dtype=every_dtype)
def test_projecting_twice_changes_nothing(norm, pair, eps, dtype):
    allowed = threat_of(norm, eps).around(pair[0].to(dtype))
    once = allowed.project(pair[1].to(dtype))
    assert torch.equal(allowed.project(once), once)


@every_norm
@seeded
@given(pair=batches(pixels, pixels), eps=radii, dtype=every_dtype)
def test_what_is_inside_stays_as_it_is(norm, pair, eps, dtype):
    x, other = (v.to(dtype) for v in pair)
    threat = threat_of(norm, eps)
    inside = norm.measure(other.double() - x.double()) <= threat.eps * (1 - 1e-12)
    assert torch.equal(threat.around(x).project(other)[inside], other[inside])
    assert torch.equal(threat.around(x).project(x), x)


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
    threat = threat_of(norm, eps)
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
    box = linf_box(x, eps)
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
    threat = threat_of(norm, eps)
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


# L1 ball and box together.


@seeded
@given(pair=batches(pixels, anything), eps=radii)
def test_in_l1_no_point_of_ball_and_box_is_nearer(pair, eps):
    """``p`` is nearest to ``w`` in a convex set exactly when ``<w - p, u - p> <= 0`` for all its ``u``; over an L1 ball in a box the
    largest ``<w - p, u - x>`` spends eps on the largest entries first, each as far as the box lets it."""
    x, wanted = pair
    moved = ThreatModel(L1(), eps).around(x).project(wanted)
    pull, path = (wanted - moved).flatten(1), (moved - x).flatten(1)
    room = torch.where(pull > 0, 1 - x.flatten(1), x.flatten(1))
    order = pull.abs().argsort(1, descending=True)
    room, size = room.gather(1, order), pull.abs().gather(1, order)
    spent = torch.minimum(room, (eps - (room.cumsum(1) - room)).clamp_min(0))
    scale = L2().measure(wanted - x) ** 2 + 1e-300
    assert ((spent * size).sum(1) - (pull * path).sum(1) <= 1e-9 * scale).all()


@seeded
@given(
    pair=batches(pixels, pixels, size=12), eps=st.floats(1e-6, 3), sides=st.sampled_from([(0.0, 1.0), (-1.0, 2.0), (-math.inf, math.inf)])
)
def test_in_l1_the_nearest_point_is_the_one_that_bisection_finds(pair, eps, sides):
    """One level for all values, found by halving: each is drawn towards the centre by it and stops at the box."""
    x, wanted = pair[0], 3 * pair[1] - 1
    low, high = sides[0] - x, sides[1] - x

    def shortened(level):
        delta = wanted - x
        return torch.minimum(torch.maximum(delta.sign() * (delta.abs() - level).clamp_min(0), low), high)

    below, above = torch.zeros(len(x), 1, 1, dtype=torch.float64), torch.full((len(x), 1, 1), 9.0, dtype=torch.float64)
    for _ in range(100):
        level = (below + above) / 2
        too_long = expanded(L1().measure(shortened(level)) > eps, x)
        below, above = torch.where(too_long, level, below), torch.where(too_long, above, level)
    nearest = torch.where(expanded(L1().measure(shortened(0.0)) <= eps, x), shortened(0.0), shortened(above))
    torch.testing.assert_close(L1().project_in_box(wanted - x, eps, low, high), nearest, rtol=0, atol=1e-12)
    torch.testing.assert_close(Ball(x, L1(), eps, Box(*sides)).project(wanted), x + nearest, rtol=0, atol=1e-9)


def test_in_l1_a_value_that_meets_the_box_leaves_its_share_to_the_others():
    """By hand: 1 to spend, the first value can take 0.25 of it. Ball first and box second would spend 0.25 + 0.25."""
    centre = torch.tensor([[0.75, 0.5, 0.5]]).double()
    moved = Ball(centre, L1(), 1.0, Box(0, 2)).project(centre + torch.tensor([[1.0, 0.5, 0.0]]).double())
    torch.testing.assert_close(moved, torch.tensor([[1.5, 0.75, 0.5]]).double(), rtol=1e-11, atol=0)
    moved = Ball(centre, L1(), 0.5).project(centre + torch.tensor([[1.0, 0.5, 0.0]]).double())
    torch.testing.assert_close(moved, torch.tensor([[1.0, 0.75, 0.5]]).double(), rtol=1e-11, atol=0)


@seeded
@given(pair=batches(pixels, anything), eps=radii)
def test_in_l1_the_nearest_point_is_found_for_each_example_by_itself(pair, eps):
    x, wanted = (v.float() for v in pair)
    threat = ThreatModel(L1(), eps)
    alone = [threat.around(x[i : i + 1]).project(wanted[i : i + 1]) for i in range(len(x))]
    assert torch.equal(threat.around(x).project(wanted), torch.cat(alone))


def test_in_l1_the_box_may_differ_from_value_to_value():
    x, wanted = torch.full((2, 3), 0.5).double(), torch.tensor([[2.0, 2.0, 2.0], [-2.0, 0.5, 0.75]]).double()
    moved = Ball(x, L1(), 0.5, Box(torch.zeros(3).double(), torch.tensor([0.5, 0.625, 2.0]).double())).project(wanted)
    torch.testing.assert_close(moved, torch.tensor([[0.5, 0.625, 0.875], [0.0, 0.5, 0.5]]).double(), rtol=0, atol=1e-11)


# Some of the examples.

CENTRE, CORNER = images(4, 1, 6, seed=3).double(), images(4, 1, 6, seed=4).double() > 0.5
SETS = {
    "everywhere": Everywhere(),
    "numbers": Box(0.2, 0.8),
    "bounds of one example": Box(torch.zeros(6), torch.linspace(0.1, 1, 6)),
    "bounds of all, in one row": Box(torch.zeros(1, 1, 6), torch.ones(1, 1, 6) / 2),
    "bounds of each example": Box(CENTRE - 0.1, CENTRE + 0.1),
    "Linf": ThreatModel(Linf(), 0.1).around(CENTRE),
    "L2": Ball(CENTRE, L2(), 0.3),
    "L1, a radius for each": Ball(CENTRE, L1(), torch.tensor([0.1, 0.2, 0.3, 0.0])),
    "one mask": Masked(Ball(CENTRE, L2(), 0.3), CENTRE, CORNER[0]),
    "a mask for each": Masked(ThreatModel(Linf(), 0.1).around(CENTRE), CENTRE, CORNER),
}


@pytest.mark.parametrize("whole", SETS.values(), ids=SETS)
@pytest.mark.parametrize("rows", [[2], [3, 0, 1], [], [0, 1, 2, 3]], ids=str)
def test_the_set_of_some_examples_does_to_them_what_the_whole_one_does(whole, rows):
    index = torch.tensor(rows, dtype=torch.int64)
    x, g = CENTRE + drawn(4, 1, 6), drawn(4, 1, 6, seed=1)
    some = restricted(whole, index, x)
    assert torch.equal(some.project(x[index]), whole.project(x)[index])
    assert torch.equal(some.tangent(x[index], g[index]), whole.tangent(x, g)[index])


def test_a_mask_in_a_set_that_cannot_be_divided_cannot_be_divided():
    class Own:
        def project(self, x):
            return x

    with pytest.raises(Indivisible, match=r"Own has no method at\(index\)"):
        restricted(Masked(Own(), CENTRE, CORNER), torch.tensor([0]), CENTRE)


# Threat models.


def test_a_threat_model_prints_its_norm_and_eps():
    assert repr(ThreatModel(Linf(), EIGHT)) == "Linf eps=0.03137"
    assert str(ThreatModel(L2(), 0.5)) == "L2 eps=0.5"
    assert str(ThreatModel(L2(), [0.5, 0.25, 1.0])) == "L2 eps=0.25 to 1"


def test_equal_settings_are_equal():
    assert ThreatModel(L1(), 2.0) == ThreatModel(L1(), 2.0) != ThreatModel(L2(), 2.0)
    assert len({ThreatModel(L1(), 2.0), ThreatModel(L1(), 2.0), ThreatModel(L1(), 3.0)}) == 2
    assert ThreatModel(L1(), [1, 2]) == ThreatModel(L1(), torch.tensor([1.0, 2.0])) != ThreatModel(L1(), [1, 3])
    assert hash(ThreatModel(L1(), [1, 2])) == hash(ThreatModel(L1(), (1.0, 2.0))) and ThreatModel(L1(), 1.0) != "L1"


@pytest.mark.parametrize("eps", [-1e-9, -8 / 255, math.nan, math.inf])
def test_a_radius_must_be_a_number_from_zero(eps):
    with pytest.raises(UserError, match=rf"eps must be a finite number >= 0 .*{eps}"):
        ThreatModel(Linf(), eps)


@pytest.mark.parametrize("norm", ["linf", "Linf", "LINF", Linf, Linf()], ids=repr)
def test_a_norm_may_be_named_or_given_as_a_class(norm):
    assert ThreatModel(norm, EIGHT) == ThreatModel(Linf(), EIGHT)


class OnlyMeasured(Norm):
    """What an optimizer needs, and nothing for attacks."""

    dual = measure = steepest = None


BAD_NORMS = {
    "l3": (r"^unknown norm 'l3'. Did you mean 'l\d'\? Known: l0, l1, l2, linf$"),
    0.5: r"^an attack needs a norm with a projection and draws, such as Linf\(\), L2\(\) or L1\(\), got 0.5$",
    OnlyMeasured: r"needs a norm with a projection and draws, .* got <class .*OnlyMeasured'>$",
}


@pytest.mark.parametrize("norm, sentence", BAD_NORMS.items())
def test_what_is_no_norm_of_attacks_is_refused(norm, sentence):
    with pytest.raises(UserError, match=sentence):
        ThreatModel(norm, 0.1)


@pytest.mark.parametrize(
    "eps, sentence",
    [
        (8, r"^Linf eps must be at most 1 in pixel units of \[0, 1\] images, got 8: write 8/255, not 8$"),
        (1.5, "got 1.5: write 1.5/255, not 1.5$"),
        (1000, r"\[0, 1\] images, got 1000$"),
        ([0.1, 4], "got 4: write 4/255, not 4$"),
        ([0.1, -1.0], "finite number >= 0 .* got -1.0$"),
        ("8/255", "^eps must be a number or one for each image, got '8/255'$"),
        (None, "^eps must be a number or one for each image, got None$"),
        (torch.ones(2, 2), r"a tensor of shape \(2, 2\)$"),
    ],
    ids=repr,
)
def test_a_radius_that_means_nothing_is_refused(eps, sentence):
    with pytest.raises(UserError, match=sentence):
        ThreatModel(Linf(), eps)


def test_a_radius_of_the_whole_range_and_a_wide_one_in_another_box_are_fine():
    assert ThreatModel(Linf(), 1).eps == 1 and ThreatModel(L2(), 8).eps == 8
    assert ThreatModel(Linf(), 8, Box(0, 255)).eps == 8


@every_norm
def test_a_radius_for_each_image(norm):
    x, eps = images(4, 3, 4, 4), [0.0, EIGHT, 0.5, 1.0]
    threat = ThreatModel(norm, eps)
    moved = threat.around(x).project(x + drawn(4, 3, 4, 4, dtype=torch.float32))
    for i, radius in enumerate(eps):
        assert_within(ThreatModel(norm, radius), x[i : i + 1], moved[i : i + 1])
    assert_within(threat, x, moved)
    assert threat.default_step_size(10).tolist() == [2.5 * radius / 10 for radius in eps]
    with pytest.raises(UserError, match="^eps has 4 radii for 3 images: give one number, or one for each image$"):
        threat.around(x[:3])


@every_norm
def test_equal_radii_for_each_image_are_one_radius(norm):
    x = images(4, 3, 4, 4)
    wanted = x + drawn(4, 3, 4, 4, dtype=torch.float32)
    assert torch.equal(ThreatModel(norm, [EIGHT] * 4).around(x).project(wanted), ThreatModel(norm, EIGHT).around(x).project(wanted))


def test_a_tensor_of_one_radius_is_a_number():
    assert ThreatModel(L2(), torch.tensor(0.5)).eps == 0.5 and isinstance(ThreatModel(L2(), np.float64(0.5)).eps, float)
    assert replace(ThreatModel(L2(), [0.5, 1.0]), eps=2.0) == ThreatModel(L2(), 2.0)


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
