"""Gradients against a linear model's closed forms; directions and regions against known ones."""

from __future__ import annotations

import math

import pytest
import torch
from laws import drawn, images, restless, untouched
from torch import nn

from robustlab.errors import UserError
from robustlab.goals import margin
from robustlab.seeding import example_keys
from robustlab.synthesis.gradients import alignment, energy_inside, loss_gradient, smooth_grad

X = images(4, 3, 8, 8)
Y = torch.tensor([0, 3, 9, 3])
KEYS = example_keys(0, torch.arange(4))


def linear(classes: int) -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, classes, dtype=torch.float64))
    with torch.no_grad():
        model[1].weight.copy_(drawn(classes, 192))
        model[1].bias.copy_(drawn(classes, seed=1))
    return model


def test_the_gradient_of_a_linear_model_is_the_expected_weight_less_the_own_one():
    model, x = linear(10), X.double()
    p = model(x).softmax(1).detach()
    w = model[1].weight.detach()
    torch.testing.assert_close(loss_gradient(model, x, Y), (p @ w - w[Y]).view(4, 3, 8, 8))


def test_the_gradient_of_a_margin_is_the_difference_of_two_weights():
    model, x, y = linear(2), X.double(), torch.tensor([0, 1, 1, 0])
    w = model[1].weight.detach()
    torch.testing.assert_close(loss_gradient(model, x, y, margin), (w[1 - y] - w[y]).view(4, 3, 8, 8))


def test_smoothing_changes_nothing_where_the_gradient_is_the_same_everywhere():
    model, x, y = linear(2), X.double(), torch.tensor([0, 1, 1, 0])
    for sigma in (0.0, 0.1, 3.0):
        torch.testing.assert_close(smooth_grad(model, x, y, KEYS, 5, sigma, margin), loss_gradient(model, x, y, margin))


def test_without_noise_smoothing_is_the_gradient(tiny_model):
    torch.testing.assert_close(smooth_grad(tiny_model, X, Y, KEYS, 3, 0.0), loss_gradient(tiny_model, X, Y))


def test_smoothing_is_the_mean_over_the_noise():
    """The square has the gradient ``2 x``, whose average over noise of either sign is the same; its deviation shrinks with samples."""

    class Square(nn.Module):
        def forward(self, x):
            return torch.stack([-x.square().flatten(1).sum(1), torch.zeros(len(x), dtype=x.dtype)], 1)

    x, y = X.double(), torch.zeros(4, dtype=torch.int64)
    for samples in (1, 25, 400):
        errors = smooth_grad(Square(), x, y, KEYS, samples, 0.5, margin) - 2 * x
        assert float(errors.std()) == pytest.approx(2 * 0.5 / math.sqrt(samples), rel=0.1)


def test_each_example_has_its_own_gradient_and_noise(tiny_model):
    plain, smooth = loss_gradient(tiny_model, X, Y), smooth_grad(tiny_model, X, Y, KEYS, 4)
    for i in range(4):
        one = slice(i, i + 1)
        torch.testing.assert_close(loss_gradient(tiny_model, X[one], Y[one])[0], plain[i])
        torch.testing.assert_close(smooth_grad(tiny_model, X[one], Y[one], KEYS[one], 4)[0], smooth[i])
    assert not torch.allclose(plain, smooth)


def test_the_model_is_borrowed(tiny_model):
    model = restless(tiny_model)
    with untouched(model, X, Y):
        loss_gradient(model, X, Y)
        smooth_grad(model, X, Y, KEYS, 2)
        with pytest.raises(UserError, match="labels go up to 10"):
            loss_gradient(model, X, Y + 1)
    with untouched(model), torch.inference_mode():
        loss_gradient(model, X.clone(), Y.clone())


def test_what_is_no_image_or_setting_is_refused(tiny_model):
    with pytest.raises(UserError, match="0-255 values"):
        loss_gradient(tiny_model, X * 255, Y)
    with pytest.raises(UserError, match="samples >= 1 and a finite sigma >= 0, got 0 and 0.1"):
        smooth_grad(tiny_model, X, Y, KEYS, 0)
    with pytest.raises(UserError, match="got 2 and nan"):
        smooth_grad(tiny_model, X, Y, KEYS, 2, math.nan)


def test_alignment_is_one_when_descent_goes_straight_there():
    x, there = images(3, 3, 4, 4), images(3, 3, 4, 4, seed=1)
    one = torch.ones(3).double()
    for scale in (1e-30, 1.0, 1e30):
        torch.testing.assert_close(alignment(scale * (x - there), x, there), one)
        torch.testing.assert_close(alignment(scale * (there - x), x, there), -one)


def test_alignment_of_known_angles():
    x, there, grad = torch.zeros(4, 1, 1, 2), torch.zeros(4, 1, 1, 2), torch.zeros(4, 1, 1, 2)
    there[:, 0, 0] = torch.tensor([1.0, 0.0])
    there[3] = 0
    grad[:, 0, 0] = torch.tensor([[0.0, 7.0], [-1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    torch.testing.assert_close(alignment(grad, x, there), torch.tensor([0, 0.5**0.5, 0, 0]).double())
    with pytest.raises(UserError, match="must have one shape"):
        alignment(grad, x, there[:1])


def test_alignment_of_a_loss_of_distance():
    """The gradient of half the squared distance to an image leads there."""

    class Distance(nn.Module):
        def forward(self, x):
            return torch.stack([-(x - X).square().flatten(1).sum(1) / 2, torch.zeros(len(x))], 1)

    start = images(4, 3, 8, 8, seed=7)
    grad = loss_gradient(Distance(), start, torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(alignment(grad, start, X), torch.ones(4).double())


def test_energy_inside_is_the_share_of_squares():
    grad = torch.ones(3, 2, 4, 4)
    grad[1] *= 1e-25  # squares below what float32 can hold
    grad[2] = 0
    mask = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    mask[:, :, :1] = True
    torch.testing.assert_close(energy_inside(grad, mask), torch.tensor([0.25, 0.25, 0]).double())
    grad[0, 0, 0, 0] = 3
    torch.testing.assert_close(energy_inside(grad, mask)[0], torch.tensor(16 / 40).double())
    torch.testing.assert_close(energy_inside(grad, ~mask)[:2], 1 - energy_inside(grad, mask)[:2])
    assert energy_inside(grad, torch.ones(4, 4, dtype=torch.bool))[:2].tolist() == pytest.approx([1, 1])
    with pytest.raises(UserError, match="a mask must be bool"):
        energy_inside(grad, mask.float())
