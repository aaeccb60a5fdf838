"""Potentials: dual and inverse undo each other, divergences are never negative, slopes are derivatives."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import drawn, seeded

from robustlab.errors import UserError
from robustlab.linear_bias import Cosh, DiagonalFlow, Entropy, HypEntropy, PNorm, Quadratic, diagonal_flow, regression, zeros
from robustlab.linear_bias.descent import descend
from robustlab.linear_bias.losses import ModelObjective, Squared
from robustlab.linear_bias.parametrizations import Difference
from robustlab.norms import L2
from robustlab.steps import Steepest

POTENTIALS = [
    Quadratic(),
    Entropy(),
    HypEntropy(0.01),
    HypEntropy(3.0),
    PNorm(1.2),
    PNorm(3.0),
    Cosh(),
    DiagonalFlow(0.5, 3),
    DiagonalFlow(1.0, 4),
    DiagonalFlow(0.3, 6),
]
every_potential = pytest.mark.parametrize("potential", POTENTIALS, ids=repr)
values = st.lists(st.floats(0.01, 5), min_size=6, max_size=6)
signs = st.lists(st.sampled_from([-1.0, 1.0]), min_size=6, max_size=6)


def point(size, sign, potential):
    w = torch.tensor(size, dtype=torch.float64) * torch.tensor(sign, dtype=torch.float64)
    return (w.abs() if isinstance(potential, Entropy) else w).reshape(2, 3)


@every_potential
@seeded
@given(values, signs)
def test_inverse_undoes_dual(potential, size, sign):
    w = point(size, sign, potential)
    torch.testing.assert_close(potential.inverse(potential.dual(w)), w, rtol=1e-9, atol=1e-12)


@every_potential
@seeded
@given(values, signs, values, signs)
def test_divergences_are_never_negative_and_zero_at_the_start(potential, size, sign, other, turned):
    w, start = point(size, sign, potential), point(other, turned, potential)
    assert (potential.divergence(w, start) >= -1e-9).all()
    torch.testing.assert_close(potential.divergence(w, w), torch.zeros(2).double(), rtol=0, atol=1e-12)


@every_potential
@seeded
@given(values, signs)
def test_dual_and_slope_are_derivatives(potential, size, sign):
    w = point(size, sign, potential)
    z, h = potential.dual(w), 1e-6
    each = torch.eye(3, dtype=torch.float64)
    numeric = torch.stack([(potential.value(w + h * e) - potential.value(w - h * e)) / (2 * h) for e in each], 1)
    torch.testing.assert_close(z, numeric, rtol=1e-4, atol=1e-6)
    step = 1e-6 * (1 - z.abs()).clamp(min=1e-3) if isinstance(potential, DiagonalFlow) else 1e-6 * z.abs()
    slope = (potential.inverse(z + step) - potential.inverse(z - step)) / (2 * step)
    torch.testing.assert_close(potential.inverse_slope(z), slope, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_descent_with_small_steps_follows_the_flow_of_its_potential(depth):
    """Duals of the weights move in the span of the examples."""
    data, alpha = regression(2, 3, 6), 0.4
    model, potential = Difference(6, depth), diagonal_flow(alpha, depth)
    path = descend(ModelObjective(data, Squared(), model), model.start(2, alpha), Steepest(L2(), 1e-5, scaled=True), 3000)
    z = potential.dual(model.weights(path.last))
    basis = torch.linalg.svd(data.X, full_matrices=False)[2]
    outside = z - torch.einsum("snd,sne,se->sd", basis, basis, z)
    assert (outside.norm(dim=1) < 2e-3 * z.norm(dim=1)).all()


def test_a_flow_of_two_factors_is_the_hypentropy():
    assert diagonal_flow(0.1) == HypEntropy(2 * 0.1**2) and diagonal_flow(0.1, 3) == DiagonalFlow(0.1, 3)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: HypEntropy(0.0), "beta must be above 0"),
        (lambda: PNorm(1.0), "p must lie from 1.01 to 101"),
        (lambda: DiagonalFlow(0.0), "alpha must be above 0"),
        (lambda: DiagonalFlow(0.1, 2), "the depth must be at least 3"),
        (lambda: Entropy().check(zeros(regression(1, 2, 3))), "positive weights only"),
    ],
)
def test_what_is_no_potential_is_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()


def test_weights_far_away_are_finite_duals():
    for potential in (HypEntropy(1e-8), DiagonalFlow(1e-2, 3)):
        assert potential.inverse(1e6 * drawn(2, 3)).isfinite().all()
