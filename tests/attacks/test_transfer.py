"""Laws of transfer attacks: each part against its recurrence by hand, nothing where it is off, each example by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from laws import ALL_NORMS, assert_within, drawn, every_norm, images, restless, untouched
from oracles import Counting, halfway
from torch import Tensor, nn

from robustlab import seeding
from robustlab.attacks import ATTACKS, DIFGSM, MIFGSM, NIFGSM, PGD, SINIFGSM, TIFGSM, VMIFGSM, VNIFGSM, Transfer, named_attack, with_eps
from robustlab.attacks.transfer_inputs import Diverse, Resized, over_scales
from robustlab.attacks.transfer_rules import Nesterov, Smoothed, Tuned, smooth
from robustlab.constraints import Everywhere, ThreatModel
from robustlab.errors import UserError
from robustlab.goals import Targeted
from robustlab.norms import L1, L2, Linf
from robustlab.objectives import at_step, evaluate_objective, value_and_gradient
from robustlab.optimize import minimize
from robustlab.seeding import example_keys
from robustlab.steps import Momentum, Steepest

LINF = ThreatModel(Linf(), 0.1)
THREATS = {norm: ThreatModel(norm, eps) for norm, eps in zip(ALL_NORMS, (6.0, 0.5, 0.1), strict=True)}
Y, KEYS = torch.arange(6) % 3, example_keys(0, torch.arange(6))
NAMES = [name for name in ATTACKS if name.endswith("-fgsm")]
PARTS: dict[str, dict[str, Any]] = {
    "NI": {"nesterov": True},
    "SI": {"scales": 3},
    "DI": {"diversity": 0.7, "resize_rate": 0.5},
    "TI": {"kernel": 5},
    "VMI": {"neighbours": 2},
    "VNI-CT": {"nesterov": True, "scales": 2, "diversity": 0.7, "resize_rate": 0.5, "kernel": 5, "neighbours": 2},
}
every_part = pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)


@pytest.fixture
def exact(tiny_model: nn.Module) -> nn.Module:
    return tiny_model.double()


def middling(n: int = 6) -> Tensor:
    """Images so far from black and white that no box is in the way."""
    return 0.3 + 0.4 * images(n, 3, 8, 8, dtype=torch.float64)


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    """Of the cross-entropy."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(nn.functional.cross_entropy(model(x), Y, reduction="sum"), x)[0]


def mean_size(g: Tensor) -> Tensor:
    return g.abs().mean((1, 2, 3), keepdim=True)


# Each part against its paper, in a loop of its own; at three steps and eps 0.1 no box is in the way.


@every_norm
@pytest.mark.parametrize("steps", [1, 10])
def test_without_any_part_it_is_mi_fgsm_bit_for_bit(norm, steps, tiny_model):
    x, threat = images(6, 3, 8, 8), THREATS[norm]
    assert torch.equal(Transfer(threat)(tiny_model, x, Y), MIFGSM(threat)(tiny_model, x, Y))
    plain = PGD(threat, steps, reach=1, random_start=False, keep_best=False)
    assert torch.equal(Transfer(threat, steps, momentum=0)(tiny_model, x, Y), plain(tiny_model, x, Y))


def test_ni_fgsm_as_in_the_public_code(exact):
    """Gradients of mean size 1, taken at ``x + alpha mu g``."""
    x = middling()
    moved, g = x, torch.zeros_like(x)
    for _ in range(10):
        grad = gradient(exact, moved + 0.01 * 0.9 * g)
        g = 0.9 * g + grad / mean_size(grad)
        moved = moved + 0.01 * g.sign()
    torch.testing.assert_close(replace(NIFGSM(LINF), momentum=0.9)(exact, x, Y), moved, rtol=0, atol=1e-12)
    assert not torch.allclose(moved, MIFGSM(LINF)(exact, x, Y), rtol=0, atol=1e-3)


@every_norm
def test_the_way_ahead_is_as_long_as_steps_of_the_velocity(norm):
    """After equal gradients the velocity is their number of steps: in L2 the way ahead is that of steps in its direction."""
    rule, grad, x = Momentum(norm, 0.1, 0.5), drawn(6, 3, 4, 4), drawn(6, 3, 4, 4, seed=1)
    velocity = Nesterov(rule).init(x, 3)
    assert torch.equal(Nesterov(rule).ahead(x, velocity), x)
    for _ in range(3):
        _, velocity = Nesterov(rule).step(x, x[:, 0, 0, 0], grad, Everywhere(), velocity)
    way = x - Nesterov(rule).ahead(x, velocity)
    length = 0.1 * 0.5 * (1 + 0.5 + 0.25)
    torch.testing.assert_close(L1().measure(way), length * L1().measure(norm.steepest(grad)))
    if isinstance(norm, L2):
        torch.testing.assert_close(way, length * norm.steepest(grad))


def test_nesterov_on_a_quadratic():
    """f = a x² / 2 in L2 and one dimension: steps of fixed length along a sum of signs, which a hand can follow."""
    x, velocity, place = torch.tensor([[0.25]], dtype=torch.float64), 0.0, 0.25
    for _ in range(6):
        slope = place - 0.1 * velocity
        velocity += (slope > 0) - (slope < 0)
        place -= 0.1 * ((velocity > 0) - (velocity < 0))
    rule = Nesterov(Momentum(L2(), 0.1, 1.0))
    found = minimize(lambda x: 1.5 * x[:, 0] ** 2, x, Everywhere(), rule, steps=6, keep_best=False).x
    assert found.item() == pytest.approx(place, abs=1e-12)
    plain = minimize(lambda x: 1.5 * x[:, 0] ** 2, x, Everywhere(), rule.rule, steps=6, keep_best=False).x
    assert plain.item() != pytest.approx(place, abs=1e-3), "looking ahead turns earlier"


def test_si_is_the_mean_over_scales(exact):
    x = middling()
    scales = [x / 2**i for i in range(4)]

    def loss(x: Tensor) -> Tensor:
        return nn.functional.cross_entropy(exact(x), Y, reduction="none")

    value, _, grad = value_and_gradient(over_scales(loss, 4), x)
    torch.testing.assert_close(value, torch.stack([loss(z) for z in scales]).mean(0).detach())
    torch.testing.assert_close(grad, sum(gradient(exact, z) / 2**i for i, z in enumerate(scales)) / 4)
    assert over_scales(loss, 1) is loss


def test_si_ni_fgsm_as_in_the_public_code(exact):
    x = middling()
    moved, g = x, torch.zeros_like(x)
    for _ in range(10):
        ahead = moved + 0.01 * g
        grad = sum(gradient(exact, ahead / 2**i) / 2**i for i in range(5))
        g = g + grad / mean_size(grad)
        moved = moved + 0.01 * g.sign()
    torch.testing.assert_close(SINIFGSM(LINF)(exact, x, Y), moved, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", [3, 5])
def test_ti_convolves_as_by_hand(kernel):
    g, half = drawn(2, 3, 6, 5), kernel // 2
    row = torch.tensor([torch.exp(torch.tensor(-((3 * i / half) ** 2) / 2)).item() for i in range(-half, half + 1)], dtype=torch.float64)
    weights = row[:, None] * row / row.sum() ** 2
    expected = torch.zeros_like(g)
    for i in range(6):
        for j in range(5):
            for a in range(-half, half + 1):
                for b in range(-half, half + 1):
                    if 0 <= i + a < 6 and 0 <= j + b < 5:
                        expected[:, :, i, j] += weights[a + half, b + half] * g[:, :, i + a, j + b]
    torch.testing.assert_close(smooth(g, kernel), expected, rtol=1e-6, atol=1e-8)
    assert torch.equal(smooth(g, 1), g)


def test_ti_keeps_a_plane_and_commutes_with_shifts():
    g = torch.zeros(1, 1, 31, 31, dtype=torch.float64)
    g[0, 0, 15, 15] = 1
    torch.testing.assert_close(smooth(g, 7).sum(), g.sum())
    torch.testing.assert_close(smooth(g.roll((2, -3), (2, 3)), 7), smooth(g, 7).roll((2, -3), (2, 3)))
    torch.testing.assert_close(smooth(torch.ones_like(g), 7)[0, 0, 3:-3, 3:-3], g.new_ones(25, 25))


def test_ti_mi_fgsm_as_published(exact):
    x = middling()
    moved, g = x, torch.zeros_like(x)
    for _ in range(10):
        grad = smooth(gradient(exact, moved), 5)
        g = g + grad / mean_size(grad)
        moved = moved + 0.01 * g.sign()
    torch.testing.assert_close(Transfer(LINF, kernel=5)(exact, x, Y), moved, rtol=0, atol=1e-12)


def neighbour_noise(t: int, number: int, x: Tensor) -> Tensor:
    return Linf().sample(seeding.fold(KEYS, "neighbour", t, number), x.shape[1:], 0.15).to(x)


@pytest.mark.parametrize("nesterov", [False, True], ids=["VMI", "VNI"])
def test_variance_tuning_as_in_the_public_code(nesterov, exact):
    """The variance of VNI-FGSM is that of neighbours of the point against the gradient ahead of it."""
    x = middling()
    moved, g, variance = x, torch.zeros_like(x), torch.zeros_like(x)
    for t in range(10):
        grad = gradient(exact, moved + nesterov * 0.01 * g)
        tuned = grad + variance
        g = g + tuned / mean_size(tuned)
        around = sum(gradient(exact, moved + neighbour_noise(t, number, x)) for number in range(3))
        variance = around / 3 - grad
        moved = moved + 0.01 * g.sign()
    attack = Transfer(LINF, nesterov=nesterov, neighbours=3)
    torch.testing.assert_close(attack(exact, x, Y, keys=KEYS), moved, rtol=0, atol=1e-12)


@every_norm
def test_where_the_gradient_is_the_same_everywhere_no_part_but_smoothing_changes_anything(norm):
    """A linear function has no variance, and it looks the same ahead of the point."""
    w, x = drawn(3, 8, 8), middling()

    def linear(x: Tensor) -> Tensor:
        return (x * w).flatten(1).sum(1)

    plain = Momentum(norm, 0.01)
    expected = minimize(linear, x, Everywhere(), plain, steps=4, keep_best=False).x
    for rule in (Nesterov(plain), Tuned(plain, norm, 0.3, 2, KEYS), Tuned(Nesterov(plain), norm, 0.3, 2, KEYS), Smoothed(plain, 1)):
        found = minimize(linear, x, Everywhere(), rule, steps=4, keep_best=False).x
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_smoothing_and_variance_tuning_commute(exact):
    """Both are linear in the gradients, so it does not matter which wraps which."""
    x = middling()

    def loss(x: Tensor) -> Tensor:
        return -nn.functional.cross_entropy(exact(x), Y, reduction="none")

    inner = Tuned(Steepest(L2(), 0.1), L2(), 0.5, 2, KEYS)
    outer = Tuned(Smoothed(Steepest(L2(), 0.1), 3), L2(), 0.5, 2, KEYS)
    one, two = (minimize(loss, x, Everywhere(), rule, steps=1, keep_best=False).x for rule in (Smoothed(inner, 3), outer))
    torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


# Random sizes.


@pytest.mark.parametrize("shape", [(8, 8), (12, 7), (1, 5)])
def test_a_smaller_image_is_the_interpolated_one_between_zeros(shape):
    x, draws = (
        images(40, 2, *shape, dtype=torch.float64),
        torch.rand(40, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64),
    )
    change = Resized(draws, 0.6, 0.5)
    found = change(x)
    heights, widths = change.size(shape[0]).tolist(), change.size(shape[1]).tolist()
    for i in range(40):
        h, w = heights[i], widths[i]
        if draws[i, 0] >= 0.6:
            assert torch.equal(found[i], x[i])
            continue
        small = nn.functional.interpolate(x[i : i + 1], size=(h, w), mode="bilinear", align_corners=False)[0]
        top, left = int(draws[i, 2] * (shape[0] - h + 1)), int(draws[i, 3] * (shape[1] - w + 1))
        expected = nn.functional.pad(small, (left, shape[1] - w - left, top, shape[0] - h - top))
        torch.testing.assert_close(found[i], expected, rtol=0, atol=1e-12)


def test_every_size_and_every_place_is_met():
    draws = seeding.uniform(example_keys(0, torch.arange(2000)), (4,), torch.float64)
    change = Resized(draws, 1.0, 0.7)
    sizes = change.size(10)
    assert sizes.unique().tolist() == [7, 8, 9]
    rows = change(torch.ones(2000, 1, 10, 10))[:, 0].sum(2) > 0
    places = {(int(size), int(row.int().argmax())) for size, row in zip(sizes, rows, strict=True)}
    assert places == {(size, first) for size in (7, 8, 9) for first in range(11 - size)}


def test_di_without_probability_is_the_identity_and_with_certainty_a_change_that_gradients_pass():
    x = images(6, 3, 8, 8, dtype=torch.float64)

    def cubes(x: Tensor) -> Tensor:
        return (x**3).flatten(1).sum(1)

    never, always = (at_step(Diverse(cubes, KEYS, p, 0.5), 0) for p in (0.0, 1.0))
    assert torch.equal(evaluate_objective(never, x)[0], cubes(x)) and torch.equal(value_and_gradient(never, x)[2], 3 * x**2)
    value, _, grad = value_and_gradient(always, x)
    assert grad.shape == x.shape and (grad != 0).flatten(1).any(1).all() and (value < cubes(x)).all()
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(grad, torch.autograd.grad(evaluate_objective(always, leaf)[0].sum(), leaf)[0])


def test_di_changes_each_example_with_its_probability_and_other_ones_at_each_step():
    x, keys = torch.ones(1000, 1, 4, 4), example_keys(0, torch.arange(1000))
    objective = Diverse(lambda x: x.flatten(1).sum(1), keys, 0.3, 0.5)
    changed = [evaluate_objective(at_step(objective, step), x)[0] < 16 for step in range(2)]
    for which in changed:
        assert abs(float(which.float().mean()) - 0.3) < 4 * (0.3 * 0.7 / 1000) ** 0.5
    assert abs(float((changed[0] & changed[1]).float().mean()) - 0.09) < 0.04


def test_di_sees_no_other_sizes_in_the_same_step():
    """Neighbours and scales of one step are compared at the same sizes: their draws are the step's."""
    x, objective = images(6, 3, 8, 8), Diverse(lambda x: x.flatten(1).sum(1), KEYS, 1.0, 0.5)
    assert torch.equal(evaluate_objective(objective.at_step(3), x)[0], evaluate_objective(objective.at_step(3), x)[0])
    assert not torch.equal(evaluate_objective(objective.at_step(3), x)[0], evaluate_objective(objective.at_step(4), x)[0])


# Each example by itself, within the threat model, and nothing left behind.


@every_norm
@every_part
def test_an_example_is_attacked_alone_as_in_a_batch(norm, part, exact):
    x, attack = images(6, 3, 8, 8, dtype=torch.float64), Transfer(THREATS[norm], 4, **part)
    whole = attack(exact, x, Y, keys=KEYS)
    for rows in ([2], [5, 0, 3]):
        torch.testing.assert_close(attack(exact, x[rows], Y[rows], keys=KEYS[rows]), whole[rows], rtol=0, atol=1e-11)
    assert not torch.allclose(whole, Transfer(THREATS[norm], 4)(exact, x, Y), rtol=0, atol=1e-4)


@every_norm
@every_part
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_stays_within_the_threat_model_and_leaves_the_model_alone(norm, part, dtype, tiny_model):
    x = images(6, 3, 8, 8).round().to(dtype)
    model = restless(tiny_model.to(dtype))
    with untouched(model, x):
        x_adv = Transfer(THREATS[norm], 4, **part)(model, x, Y)
    assert_within(THREATS[norm], x, x_adv)
    assert not x_adv.requires_grad


@every_part
def test_radii_and_steps_may_differ_by_image(part, exact):
    x, eps = images(6, 3, 8, 8, dtype=torch.float64), [0.01, 0.02, 0.05, 0.1, 0.2, 0.3]
    attack = Transfer(ThreatModel(Linf(), eps), 3, **part)
    whole = attack(exact, x, Y, keys=KEYS)
    for i, one in enumerate(eps):
        alone = with_eps(attack, one)(exact, x[i : i + 1], Y[i : i + 1], keys=KEYS[i : i + 1])
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=0, atol=1e-11)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_caller_without_gradients_gets_the_same_attack(mode, tiny_model):
    attack = Transfer(LINF, 3, **PARTS["VNI-CT"])
    expected = attack(tiny_model, images(6, 3, 8, 8), Y)
    with mode():
        assert torch.equal(attack(tiny_model, images(6, 3, 8, 8), Y.clone()), expected)


@pytest.mark.parametrize(
    "part, gradients",
    [({}, 4), ({"scales": 3}, 12), ({"neighbours": 2}, 10), ({"scales": 3, "neighbours": 2, "nesterov": True}, 30)],
    ids=str,
)
def test_it_counts_what_it_costs(part, gradients):
    model = Counting(27)
    found = Transfer(LINF, 4, **part).solve(model, images(6, 27), Y)
    assert model.counts == {"forward": gradients + 1, "input": gradients, "weights": 0}
    assert found.passes.tolist() == [gradients + 1] * 6
    with torch.no_grad():
        assert torch.equal(found.achieved, model(found.x).argmax(1) != Y)


def test_the_verdict_is_the_models_own_with_a_stand_in(tiny_model):
    x, y = images(6, 27), Y
    model, _ = halfway(images(6, 27))
    stand_in = Counting(27, 2)
    found = Transfer(LINF).solve(model, x, y % 2, fast_model=stand_in)
    with torch.no_grad():
        assert torch.equal(found.achieved, model(found.x).argmax(1) != y % 2)
    assert stand_in.counts["forward"] == 10


def test_a_goal_is_reached_by_descent(exact):
    x = images(6, 3, 8, 8, dtype=torch.float64)
    target = (exact(x).argmax(1) + 1) % 3
    with torch.no_grad():
        before, after = (
            nn.functional.cross_entropy(exact(z), target) for z in (x, Transfer(LINF, **PARTS["VNI-CT"])(exact, x, Targeted(target)))
        )
    assert after < before


def test_logits_that_are_no_numbers_are_told(tiny_model):
    spoil = torch.tensor([1.0, torch.nan, 1, 1, 1, 1])[:, None]
    found = Transfer(LINF, 2, neighbours=1).solve(lambda x: tiny_model(x) * spoil, images(6, 3, 8, 8), Y, keys=KEYS)
    assert found.finite.tolist() == [True, False, True, True, True, True] and found.x.isfinite().all()


# Names and settings.


def test_constructors_are_what_their_names_say():
    assert {NIFGSM: "NI-FGSM", SINIFGSM: "SI-NI-FGSM", DIFGSM: "DI-FGSM", TIFGSM: "TI-FGSM", VMIFGSM: "VMI-FGSM", VNIFGSM: "VNI-FGSM"} == {
        make: str(make(LINF)).partition(" (")[0] for make in (NIFGSM, SINIFGSM, DIFGSM, TIFGSM, VMIFGSM, VNIFGSM)
    }
    assert str(Transfer(LINF)) == str(MIFGSM(LINF)) == "MI-FGSM (Linf eps=0.1)"


@pytest.mark.parametrize("name", NAMES)
def test_an_attack_shows_the_name_that_it_was_asked_by(name):
    assert str(named_attack(name, LINF)) == f"{name.upper()} (Linf eps=0.1)"


def test_what_is_not_as_published_is_shown():
    attack = Transfer(LINF, 20, kernel=3, diversity=1.0, neighbours=5, momentum=0.5, step_size=0.02, beta=2.0)
    assert str(attack) == "DI-TI-VMI-FGSM-20 (step 0.02, p 1, kernel 3, N 5, beta 2, mu 0.5, Linf eps=0.1)"
    assert str(Transfer(LINF, momentum=0, step_size=torch.ones(2))) == "I-FGSM (own steps, Linf eps=0.1)"


@pytest.mark.parametrize("size, kernel", [(299, 15), (224, 11), (96, 5), (32, 3), (8, 3)])
def test_the_published_kernel_is_a_share_of_the_image(size, kernel):
    x, y = images(1, 1, size, size), Y[:1]
    model, _ = halfway(x)
    with torch.no_grad():
        expected = Transfer(LINF, 1, momentum=0, kernel=kernel)(model, x, y)
        assert torch.equal(Transfer(LINF, 1, momentum=0, kernel=None)(model, x, y), expected)


@pytest.mark.parametrize(
    "setting, sentence",
    [
        ({"steps": -1}, "steps >= 0, .* got -1, 1 and 0"),
        ({"scales": 0}, "scales >= 1 .* got 10, 0 and 0"),
        ({"neighbours": -1}, "neighbours >= 0, got 10, 1 and -1"),
        ({"step_size": -0.1}, "step_size must be >= 0 in pixel units, got -0.1"),
        ({"momentum": -1.0}, "momentum and beta must be >= 0, got -1.0 and 1.5"),
        ({"diversity": 1.5}, "diversity is a probability, .* got 1.5 and 0.9"),
        ({"resize_rate": 1.0}, "resize_rate a share above 0 and below 1, got 0.0 and 1.0"),
        ({"kernel": 4}, "kernel is a width in pixels, odd and at least 1, got 4"),
        ({"nesterov": True, "momentum": 0}, "nesterov looks ahead along the momentum, which is 0"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused_when_they_are_made(setting, sentence):
    with pytest.raises(UserError, match=sentence):
        Transfer(LINF, **setting)


@pytest.mark.parametrize("attack", [DIFGSM(LINF), TIFGSM(LINF)], ids=str)
def test_what_needs_images_says_so_before_the_first_step(attack):
    model = Counting(27)
    with pytest.raises(UserError, match=r"^`diversity` and `kernel` need images of shape \(B, C, H, W\), got shape \(6, 27\)$"):
        attack(model, images(6, 27), Y)
    assert model.counts["forward"] == 0


def test_it_takes_part_in_a_line_up(tiny_model):
    x = images(6, 3, 8, 8)
    y = tiny_model(x).argmax(1)
    x_adv = named_attack("di-fgsm+mi-fgsm+fgsm", ThreatModel(Linf(), 0.3))(tiny_model, x, y)
    with torch.no_grad():
        moved = (x_adv != x).flatten(1).any(1)
        assert moved.any() and torch.equal(tiny_model(x_adv).argmax(1) != y, moved)
