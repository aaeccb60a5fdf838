"""Laws of parameters: there and back is where it was, gradients pass, and every picture lies in [0, 1]."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from laws import anything, batches, drawn, images, pixels, seeded

from robustlab.constraints import Everywhere
from robustlab.errors import UserError
from robustlab.synthesis.budget import Search
from robustlab.synthesis.parameters import Fourier, Pixels

ALL = [Pixels(), Fourier(), Fourier(0.0), Fourier(2.0, 0.5)]
every_kind = pytest.mark.parametrize("parameters", ALL, ids=repr)
every_size = pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 4), (5, 8), (7, 3)], ids=str)


@every_kind
@every_size
def test_there_and_back_is_where_it_was_also_for_black_and_white(parameters, size):
    x = images(3, 2, *size, dtype=torch.float64)
    x[0], x[1] = 0, 1
    back = parameters.decode(parameters.encode(x))
    assert back.dtype == x.dtype
    torch.testing.assert_close(back, x, rtol=0, atol=1e-10)
    torch.testing.assert_close(parameters.decode(parameters.encode(x.float())), x.float(), rtol=0, atol=1e-5)


@seeded
@given(batch=batches(pixels))
def test_there_and_back_for_awkward_pixels(batch):
    x = batch[0][:, None]
    torch.testing.assert_close(Fourier().decode(Fourier().encode(x)), x, rtol=0, atol=1e-10)


@seeded
@given(batch=batches(anything, anything))
def test_whatever_the_coefficients_the_picture_lies_in_the_range(batch):
    z = torch.stack(batch, -1)[:, None]
    for x in (Fourier().decode(z), Fourier(0.0, 0.5).decode(z), Fourier(0.0, 0.3).decode(z.float())):
        assert ((x >= 0) & (x <= 1)).all()


@every_kind
def test_the_gradient_of_every_pixel_flows(parameters):
    """Also where a pixel is black or white, each coefficient included: the Jacobian has full rank."""
    x = images(1, 1, 3, 4, dtype=torch.float64)
    x[0, 0, 0], x[0, 0, 1] = 0, 1
    jacobian = torch.autograd.functional.jacobian(parameters.decode, parameters.encode(x)).reshape(12, -1)
    assert torch.linalg.matrix_rank(jacobian) == 12
    assert torch.autograd.gradcheck(parameters.decode, parameters.encode(images(1, 1, 3, 4, dtype=torch.float64)).requires_grad_())


@every_size
def test_without_decay_the_transform_keeps_lengths(size):
    x, z = images(2, 3, *size, dtype=torch.float64), images(2, 3, *size, dtype=torch.float64, seed=1)
    parameters, waves = Fourier(0.0), [torch.logit((t + 0.01) / 1.02) for t in (x, z)]
    apart = (parameters.encode(x) - parameters.encode(z)).flatten(1).norm(dim=1)
    torch.testing.assert_close(apart, (waves[0] - waves[1]).flatten(1).norm(dim=1))


def test_a_coefficient_is_one_wave_and_counts_by_its_frequency():
    """The response to one coefficient, in logits, against the cosine that it stands for."""
    height, width, margin = 6, 8, 0.01
    column, row = torch.arange(width).double(), torch.arange(height).double()[:, None]
    for u, v in [(0, 0), (0, 1), (2, 0), (3, 4), (5, 7)]:
        z = torch.zeros(1, 1, height, width, 2, dtype=torch.float64)
        z[0, 0, u, v, 0] = 0.1
        waves = torch.logit((Fourier().decode(z)[0, 0] + margin) / (1 + 2 * margin))
        f = math.hypot(min(u, height - u) / height, min(v, width - v) / width)
        expected = 0.1 / max(f, 1 / width) * torch.cos(2 * math.pi * (u * row / height + v * column / width)) / math.sqrt(height * width)
        torch.testing.assert_close(waves, expected)


def test_steps_move_coarse_structure_most():
    """With the same gradient everywhere but for noise, decay leaves less noise in the picture."""
    noise = drawn(1, 1, 16, 16)
    slope = torch.linspace(-1, 1, 16, dtype=torch.float64).expand(1, 1, 16, 16)
    start = torch.full((1, 1, 16, 16), 0.5, dtype=torch.float64)
    rough = []
    for decay in (0.0, 1.0):
        found = Search(None, 1.0, 1)(lambda x: -(x * (slope + noise)).flatten(1).sum(1), start, parameters=Fourier(decay)).x - start
        wanted = slope.flatten() / slope.norm()
        along = found.flatten() @ wanted
        rough.append(float((found.flatten() - along * wanted).norm() / along))
    assert rough[1] < 0.8 * rough[0]


def test_coefficients_lie_anywhere_and_pixels_where_the_search_says():
    assert isinstance(Fourier().constraint, Everywhere) and Pixels().constraint is None


@pytest.mark.parametrize(
    "settings", [{"decay": -1.0}, {"decay": math.nan}, {"margin": 0.0}, {"margin": 0.6}, {"margin": math.nan}], ids=repr
)
def test_settings_without_meaning_are_refused(settings):
    with pytest.raises(UserError, match="Fourier needs a finite decay >= 0 and a margin in"):
        Fourier(**settings)
