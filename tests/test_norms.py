"""Laws of the norms: duality for all, nearest points and uniform balls for those of attacks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import ALL_NORMS, anything, batches, drawn, every_norm, every_optimizer_norm, seeded
from torch import Tensor

from robustlab.errors import UserError
from robustlab.norms import L0, L1, L2, NORMS, FourierL1, FourierLinf, Linf, Lp, Nuclear, Spectral, expanded, per_example
from robustlab.seeding import example_keys

finite_radii = st.one_of(st.sampled_from([0.0, 1e-12, 8 / 255, 1e6]), st.floats(1e-9, 3))


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1)


@pytest.mark.parametrize("norm, value", [(L1(), 7.0), (L2(), 5.0), (Linf(), 4.0)], ids=repr)
def test_a_norm_by_hand(norm, value):
    v = torch.tensor([[[3.0, -4.0]], [[0.0, 0.0]]])
    assert torch.equal(norm.measure(v), torch.tensor([value, 0.0]))


def test_names():
    assert NORMS == {"linf": Linf(), "l2": L2(), "l1": L1(), "l0": L0()}


@every_optimizer_norm
def test_the_dual_of_the_dual_is_the_norm(norm):
    assert norm.dual.dual == norm


@every_optimizer_norm
@seeded
@given(pair=batches(anything, anything))
def test_no_inner_product_exceeds_norm_times_dual_norm(norm, pair):
    u, g = pair
    assert (dot(u, g).abs() <= norm.measure(u) * norm.dual.measure(g) * (1 + 1e-12)).all()


@every_optimizer_norm
@seeded
@given(one=batches(anything))
def test_steepest_direction_attains_the_dual_norm(norm, one):
    (g,) = one
    u = norm.steepest(g)
    torch.testing.assert_close(dot(u, g), norm.dual.measure(g), rtol=1e-12, atol=0)
    torch.testing.assert_close(norm.measure(u), (g.flatten(1) != 0).any(1).double(), rtol=1e-12, atol=0)


@every_optimizer_norm
@pytest.mark.parametrize("dtype, scale", [(torch.float32, 1e-38), (torch.float32, 1e30), (torch.float64, 1e-300)], ids=repr)
def test_gradients_too_small_or_large_to_square_still_give_unit_steps(norm, dtype, scale):
    u = norm.steepest(drawn(4, 3, 5, dtype=dtype) * scale)
    torch.testing.assert_close(norm.measure(u), torch.ones(4, dtype=dtype))


@every_optimizer_norm
def test_a_zero_gradient_moves_nothing(norm):
    assert not norm.steepest(torch.zeros(2, 3, 4)).any()


@every_norm
@seeded
@given(one=batches(anything), radius=finite_radii)
def test_projection_is_the_nearest_point(norm, one, radius):
    """``p`` is nearest to ``v`` in a convex set exactly when ``<v - p, u - p> <= 0`` for all its ``u``, and
    the largest ``<v - p, u>`` over the ball is the radius times the dual norm."""
    (v,) = one
    p = norm.project(v, radius)
    scale = L2().measure(v) ** 2 + radius**2 + 1e-300
    assert (norm.measure(p) <= radius * (1 + 1e-9)).all()
    assert (radius * norm.dual.measure(v - p) - dot(v - p, p) <= 1e-9 * scale).all()


@every_norm
@seeded
@given(one=batches(anything), radius=finite_radii)
def test_projection_leaves_what_is_inside_and_repeats_itself(norm, one, radius):
    (v,) = one
    inside = norm.measure(v) <= radius
    p = norm.project(v, radius)
    assert torch.equal(p[inside], v[inside])
    assert (norm.measure(p) <= radius * (1 + 1e-14)).all()
    torch.testing.assert_close(norm.project(p, radius), p, rtol=1e-14, atol=1e-14 * radius)


@every_norm
@seeded
@given(pair=batches(anything, anything), radius=finite_radii)
def test_projection_is_non_expansive(norm, pair, radius):
    a, b = pair
    before, after = L2().measure(a - b), L2().measure(norm.project(a, radius) - norm.project(b, radius))
    assert (after <= before + 1e-9 * (1 + L2().measure(a) + L2().measure(b))).all()


@seeded
@given(one=batches(anything, size=20), radius=st.floats(1e-6, 3))
def test_l1_projection_is_soft_thresholding_at_the_level_found_by_bisection(one, radius):
    (v,) = one
    low, high = torch.zeros(len(v), dtype=torch.float64), Linf().measure(v)
    for _ in range(200):
        level = (low + high) / 2
        too_long = (v.abs() - expanded(level, v)).clamp_min(0).flatten(1).sum(1) > radius
        low, high = torch.where(too_long, level, low), torch.where(too_long, high, level)
    nearest = torch.where(expanded(L1().measure(v) <= radius, v), v, v.sign() * (v.abs() - expanded(high, v)).clamp_min(0))
    torch.testing.assert_close(L1().project(v, radius), nearest, rtol=0, atol=1e-9)


@every_norm
def test_each_example_has_its_own_radius(norm):
    v, radius = drawn(4, 3, 4, 4), torch.tensor([0.0, 0.1, 2.0, 1e9])
    one_by_one = torch.cat([norm.project(v[i : i + 1], float(radius[i])) for i in range(4)])
    torch.testing.assert_close(norm.project(v, radius), one_by_one, rtol=1e-12, atol=0)


@every_norm
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=repr)
def test_a_radius_beyond_all_numbers_is_no_constraint(norm, dtype):
    v = drawn(3, 2, 2, dtype=dtype)
    assert torch.equal(norm.project(v, 1e300), v) and torch.equal(norm.project(v, math.inf), v)


@every_norm
def test_examples_do_not_see_each_other(norm):
    v = drawn(5, 2, 3)
    for whole, each in [
        (norm.measure(v), [norm.measure(row[None]) for row in v]),
        (norm.steepest(v), [norm.steepest(row[None]) for row in v]),
        (norm.project(v, 0.5), [norm.project(row[None], 0.5) for row in v]),
    ]:
        torch.testing.assert_close(whole, torch.cat(each), rtol=1e-15, atol=0)


@every_norm
@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 0), (0, 5)], ids=repr)
def test_nothing_in_nothing_out(norm, shape):
    v, keys = torch.zeros(shape), torch.zeros(shape[0], dtype=torch.int64)
    assert torch.equal(norm.measure(v), torch.zeros(shape[0]))
    assert norm.steepest(v).shape == norm.project(v, 1.0).shape == norm.sample(keys, shape[1:], 1.0).shape == shape


VOLUME = {L1(): lambda d: 2.0**d / math.factorial(d), L2(): lambda d: math.pi ** (d / 2) / math.gamma(d / 2 + 1), Linf(): lambda d: 2.0**d}
VARIANCE = {L1(): lambda d: 2 / ((d + 1) * (d + 2)), L2(): lambda d: 1 / (d + 2), Linf(): lambda d: 1 / 3}


def assert_share(hits: Tensor, probability: float) -> None:
    """The number of hits is within five standard deviations of its binomial mean."""
    n = hits.numel()
    assert abs(int(hits.sum()) - n * probability) <= 5 * math.sqrt(n * probability * (1 - probability))


@every_norm
@pytest.mark.parametrize("d", [1, 2, 3])
def test_samples_are_uniform_in_the_ball(norm, d):
    radius, n = 0.7, 20_000
    v = norm.sample(example_keys(d, torch.arange(n)), (d,), radius).double() / radius
    assert v.shape == (n, d)
    for s in (0.2, 0.5, 0.8):
        assert_share(norm.measure(v) <= s, s**d)
    # A cube that fits into the ball holds its share of the volume, and so does each of its corners.
    in_cube, side = (v.abs() <= 0.9 / d).all(1), 0.9 / d
    assert_share(in_cube, (2 * side) ** d / VOLUME[norm](d))
    assert_share(in_cube & (v > 0).all(1), side**d / VOLUME[norm](d))
    assert (v.mean(0).abs() <= 5 * math.sqrt(VARIANCE[norm](d) / n)).all()
    assert (v.square().mean(0) - VARIANCE[norm](d)).abs().max() <= 5 / math.sqrt(n)


@every_norm
@pytest.mark.parametrize("shape", [(1,), (3, 8, 8), (3, 32, 32)], ids=repr)
def test_samples_lie_in_the_ball_up_to_the_rounding_of_float32(norm, shape):
    v = norm.sample(example_keys(0, torch.arange(64)), shape, 8 / 255)
    assert v.dtype == torch.float32 and v.shape == (64, *shape)
    assert (norm.measure(v.double()) <= 8 / 255 * (1 + 1e-6)).all()


@every_norm
def test_samples_scale_with_each_examples_radius_and_belong_to_its_key(norm):
    keys, radius = example_keys(0, torch.arange(6)), torch.tensor([0.0, 0.1, 1.0, 2.0, 0.5, 3.0])
    v = norm.sample(keys, (2, 3), radius)
    torch.testing.assert_close(v, norm.sample(keys, (2, 3), 1.0) * expanded(radius, v))
    assert torch.equal(norm.sample(keys[3:4], (2, 3), radius[3:4])[0], v[3])
    assert not torch.equal(v[2], norm.sample(keys, (2, 3), 1.0)[3])


def test_per_example_values_broadcast_over_the_first_dimension_only():
    """Shapes (B,) and (B, C, H, B) would broadcast over the wrong one."""
    like = torch.ones(3, 1, 2, 3)
    assert torch.equal(like * per_example(torch.tensor([1.0, 2.0, 3.0]), like), torch.arange(1.0, 4).reshape(3, 1, 1, 1).expand(3, 1, 2, 3))
    assert per_example(2.5, like) == 2.5 and per_example(torch.tensor(2.5), like) == 2.5


def test_norms_of_one_kind_are_equal_and_print_their_name():
    assert len(set(ALL_NORMS)) == 3 and L1() == L1() and repr(Linf()) == "Linf()"


@pytest.mark.parametrize("p", [1, 0.5, 0, -2, 1.009, 102, math.inf, math.nan])
def test_a_p_without_two_norms_is_refused(p):
    with pytest.raises(UserError, match=r"p must lie from 1.01 to 101, got .*: for the ends there are L1\(\) and Linf\(\)"):
        Lp(p)


@pytest.mark.parametrize("p", [1.01, 4 / 3, 2.0, 7.0, 101.0])
def test_lp_is_the_librarys_norm_and_two_is_l2(p):
    v = drawn(5, 2, 3)
    torch.testing.assert_close(Lp(p).measure(v), torch.linalg.vector_norm(v.flatten(1), ord=p, dim=1))
    torch.testing.assert_close(Lp(2.0).steepest(v), L2().steepest(v))


def test_norms_of_matrices_see_nothing_but_singular_values():
    v, turned = drawn(3, 4, 4), torch.linalg.qr(drawn(3, 4, 4, seed=1)).Q
    for norm, kind in ((Spectral(), 2), (Nuclear(), "nuc")):
        torch.testing.assert_close(norm.measure(v), torch.linalg.matrix_norm(v, ord=kind))
        torch.testing.assert_close(norm.measure(turned @ v), norm.measure(v))
        torch.testing.assert_close(norm.steepest(turned @ v), turned @ norm.steepest(v))


def test_steepest_directions_of_matrices_are_the_polar_factor_and_one_of_rank_one():
    v = drawn(3, 4, 6)
    polar, single = Spectral().steepest(v), Nuclear().steepest(v)
    torch.testing.assert_close(polar @ polar.mT, torch.eye(4).double().expand(3, 4, 4))
    assert (torch.linalg.matrix_rank(single) == 1).all()


@pytest.mark.parametrize("shape", [(2, 3), (2, 2, 3, 4)])
def test_norms_of_matrices_refuse_what_is_no_matrix(shape):
    with pytest.raises(UserError, match=r"one matrix for each example, \(B, rows, columns\), got shape"):
        Spectral().measure(torch.zeros(shape))


@pytest.mark.parametrize("d", [1, 2, 7, 8])
def test_fourier_norms_do_not_change_when_a_signal_is_shifted(d):
    v = drawn(4, d)
    for norm in (FourierL1(), FourierLinf()):
        torch.testing.assert_close(norm.measure(v.roll(3, 1)), norm.measure(v))
        torch.testing.assert_close(norm.steepest(v.roll(3, 1)), norm.steepest(v).roll(3, 1))
    torch.testing.assert_close(FourierL1().measure(torch.ones(1, d).double()), torch.tensor([d**0.5]).double())


@every_norm
def test_a_scaled_direction_is_the_steepest_times_the_dual_norm(norm):
    g = drawn(4, 12, seed=3)
    torch.testing.assert_close(norm.scaled(g), norm.steepest(g) * norm.dual.measure(g)[:, None])
    assert not norm.scaled(torch.zeros_like(g)).any()


def test_l0_counts_values_and_keeps_the_largest():
    v = torch.tensor([[3.0, 0.0, -4.0, 1.0], [0.0, 0.0, 0.0, 2.0]])
    assert L0().measure(v).tolist() == [3.0, 1.0]
    assert L0().project(v, 2).tolist() == [[3.0, 0.0, -4.0, 0.0], [0.0, 0.0, 0.0, 2.0]]
    assert L0().project(v, torch.tensor([1.0, 0.0])).tolist() == [[0.0, 0.0, -4.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    with pytest.raises(UserError, match="^L0 has no dual norm: it counts and does not scale$"):
        _ = L0().dual
