"""Floats to 8 bits: the nearest value, and within a ball one that stays there."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import every_norm, images, seeded

from robustlab.constraints import ThreatModel
from robustlab.norms import L2, Linf
from robustlab.pixels import rounding_error, to_float, to_uint8, to_uint8_within

LEVELS = torch.arange(256, dtype=torch.uint8)


def test_each_8_bit_value_is_stored_as_itself():
    assert torch.equal(to_uint8(to_float(LEVELS)), LEVELS)
    assert to_uint8(LEVELS) is LEVELS
    assert torch.equal(to_uint8(to_float(LEVELS).double()), LEVELS)


def test_between_two_values_the_nearer_one_is_taken():
    middle = (torch.arange(255) + 0.5) / 255
    assert ((to_uint8(middle * (1 - 1e-5)) == LEVELS[:-1]) & (to_uint8(middle * (1 + 1e-5)) == LEVELS[1:])).all()


def test_the_error_of_rounding_is_that_of_the_images():
    x = images(4, 3, 5, 5)
    assert torch.allclose(rounding_error(x), L2().measure(to_uint8(x).double() / 255 - x.double()), atol=1e-6)
    assert rounding_error(x, Linf()).max() <= 0.5 / 255 + 1e-7
    assert rounding_error(to_uint8(x)).tolist() == [0.0] * 4


@every_norm
@seeded
@given(seed=st.integers(0, 2**32), eps=st.floats(0.001, 8), over=st.floats(0, 3))
def test_rounding_never_leaves_the_ball(norm, seed, eps, over):
    eps = min(eps, 1.0) if isinstance(norm, Linf) else eps  # wider than that, Linf has no ball
    random = torch.Generator().manual_seed(seed)
    center = torch.randint(0, 256, (2, 3, 6, 6), generator=random, dtype=torch.uint8)
    x = (to_float(center) + over * torch.randn(center.shape, generator=random)).clamp(0, 1)
    inside = ThreatModel(norm, eps).around(to_float(center)).project(x)
    found = to_uint8_within(inside, center, eps, norm)
    assert found.dtype == torch.uint8
    assert (norm.measure(found.double() - center.double()) / 255 <= eps).all()
    assert (found.double() - 255 * inside.double()).abs().max() <= 1 + 1e-3
    alone = torch.cat([to_uint8_within(inside[i : i + 1], center[i : i + 1], eps, norm) for i in range(2)])
    assert torch.equal(found, alone)


@every_norm
def test_what_lies_well_inside_is_rounded_to_the_nearest(norm):
    x = images(3, 3, 4, 4)
    center = torch.full(x.shape, 102, dtype=torch.uint8)
    assert torch.equal(to_uint8_within(x, center, 100.0, norm), to_uint8(x))


def test_radii_may_differ_between_images():
    center = torch.full((2, 1, 4, 4), 100, dtype=torch.uint8)
    x = to_float(center) + 0.0059  # a level and a half
    found = to_uint8_within(x, center, torch.tensor([1 / 255, 2 / 255], dtype=torch.float64), Linf())
    assert found[0].unique().tolist() == [101] and found[1].unique().tolist() == [102]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_to_float_gives_float32(dtype):
    assert to_float(images(2, 3).to(dtype)).dtype == torch.float32
