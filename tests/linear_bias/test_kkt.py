"""KKT residuals: zero at known stationary points, in several norms and at kinks, and the smoothed margin below the margin."""

from __future__ import annotations

import pytest
import torch
from laws import drawn

from robustlab.errors import UserError
from robustlab.linear_bias import (
    L1,
    L2,
    CircularConvolution,
    Direct,
    FourierL1,
    LinearNetwork,
    Linf,
    Product,
    ReLUNetwork,
    problem,
    separable,
)
from robustlab.linear_bias.kkt import (
    kkt_residual,
    normalized_margin,
    rank_one_defect,
    smoothed_margin,
    tangent,
    tangent_gap,
)

pytest.importorskip("scipy")
from robustlab.linear_bias import max_margin  # noqa: E402

DATA = separable(3, 8, 12)


def test_the_largest_margin_is_the_stationary_point_of_a_linear_model():
    w, margin = max_margin(DATA, L2())
    model = Direct(12)
    assert (kkt_residual(model, w, DATA) < 1e-6).all() and (tangent_gap(model, w, DATA, L2()) < 1e-9).all()
    torch.testing.assert_close(normalized_margin(model, 3 * w, DATA), margin)
    other, _ = max_margin(DATA, L1())
    assert (kkt_residual(model, other, DATA) > 0.1).all()
    assert (tangent_gap(model, other, DATA, L1()) < 1e-6).all() and (tangent_gap(model, other, DATA, L2()) > 0.01).all()


def test_a_balanced_product_of_the_l1_separator_is_stationary():
    w, _ = max_margin(DATA, L1())
    root = w.abs().sqrt()
    theta = torch.cat([root, w.sign() * root], 1)
    assert (kkt_residual(Product(12), theta, DATA, band=1e-6) < 1e-6).all()
    assert (tangent_gap(Product(12), theta, DATA, L2()) < 1e-6).all()


def test_a_balanced_circular_network_of_the_sparsest_spectrum_is_stationary():
    w, _ = max_margin(DATA, FourierL1())
    spectrum = torch.fft.rfft(w, norm="ortho")
    root = spectrum.abs().sqrt()
    layers = torch.stack([torch.polar(root, spectrum.angle()), root.to(spectrum)], 1)
    theta = torch.fft.irfft(layers, 12, norm="ortho").flatten(1)
    model = CircularConvolution(12)
    torch.testing.assert_close(model.weights(theta), w)
    assert (tangent_gap(model, theta, DATA, L2()) < 1e-4).all()


def test_outputs_of_the_tangent_are_the_degree_times_those_of_the_model():
    for model in (Product(12, 3), LinearNetwork((12, 4)), ReLUNetwork(12, 5)):
        theta = model.random(3, 0.5)
        torch.testing.assert_close(tangent(model, theta, DATA).outputs(theta), model.degree * model.outputs(theta, DATA.X))


def test_a_network_at_rest_on_a_kink_needs_more_than_one_gradient():
    """One unit for each class, and the examples ``(1, 1)`` and ``(1, -1)`` of one label beside it: the unit ``(1, 0)`` is on no kink; an
    example at a right angle to it is."""
    data = problem([[1.0, 0.0], [-1.0, 0.0]], [1.0, -1.0])
    model = ReLUNetwork(2, 2)
    theta = torch.tensor([[1.0, 0.0, -1.0, 0.0, 1.0, -1.0]]).double()
    assert (kkt_residual(model, theta, data) < 1e-9).all()
    moved = theta + 0.01 * drawn(1, 6)
    assert (kkt_residual(model, moved, data, band=0.5, radius=0.05) <= kkt_residual(model, moved, data, band=0.5) + 1e-9).all()


@pytest.mark.parametrize("norm", [L1(), L2(), Linf()], ids=repr)
def test_the_smoothed_margin_is_below_the_margin_and_nears_it(norm):
    w, _ = max_margin(DATA, L2())
    model = Direct(12)
    for far in (1.0, 10.0, 1e4):
        assert (smoothed_margin(model, far * w, DATA, norm) <= normalized_margin(model, far * w, DATA, norm)).all()
    torch.testing.assert_close(smoothed_margin(model, 1e6 * w, DATA, norm), normalized_margin(model, w, DATA, norm), rtol=1e-4, atol=0)


def test_rank_one():
    a, b = drawn(3, 4, 1), drawn(3, 1, 5, seed=1)
    assert (rank_one_defect(a @ b) < 1e-12).all()
    torch.testing.assert_close(rank_one_defect(torch.eye(4).double().expand(2, 4, 4)), torch.full((2,), 0.75).double())


def test_a_model_that_does_not_separate_is_told():
    with pytest.raises(UserError, match="3 of 3 models do not separate their classes yet"):
        kkt_residual(Direct(12), -max_margin(DATA, L2())[0], DATA)
