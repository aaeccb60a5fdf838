"""Measures against closed forms, and against their definitions written out."""

from __future__ import annotations

import math

import pytest
import torch
from laws import drawn, images

from robustlab.errors import UserError
from robustlab.synthesis.measures import diversity, frechet_distance, inception_score, psnr, ssim


def test_psnr_of_an_even_change():
    x = 0.5 * images(3, 3, 5, 4)
    change = torch.tensor([0.1, 0.01, 0.5]).view(3, 1, 1, 1)
    torch.testing.assert_close(psnr(x + change, x), torch.tensor([20.0, 40.0, 20 * math.log10(2)]).double(), rtol=1e-5, atol=0)
    black, white = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    assert psnr(black, white).tolist() == [0.0]


def test_equal_images_have_infinite_psnr_and_ssim_one():
    x = images(2, 3, 12, 11)
    x[1] = 0
    assert psnr(x, x).tolist() == [math.inf, math.inf]
    torch.testing.assert_close(ssim(x, x), torch.ones(2).double())


def test_ssim_of_flat_images_is_the_luminance_term():
    a, b = torch.tensor([0.2, 0.0, 1.0]), torch.tensor([0.7, 1.0, 0.9])
    flat = [v.double().view(3, 1, 1, 1).expand(3, 2, 11, 14) for v in (a, b)]
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    torch.testing.assert_close(ssim(*flat), expected.double(), rtol=1e-6, atol=1e-9)


def test_ssim_of_an_image_and_its_mirror_around_grey_is_negative_and_symmetric():
    x = images(4, 1, 16, 16, dtype=torch.float64)
    assert (ssim(x, 1 - x) < 0).all()
    torch.testing.assert_close(ssim(x, 1 - x), ssim(1 - x, x))


def test_ssim_falls_with_noise():
    x = 0.25 + 0.5 * images(1, 3, 20, 20)
    noise = images(1, 3, 20, 20, seed=1) - 0.5
    values = [float(ssim(x + s * noise, x)) for s in (0.0, 0.05, 0.1, 0.3, 0.5)]
    assert values == sorted(values, reverse=True) and len(set(values)) == 5


def test_ssim_is_its_definition_written_out():
    x, y = images(2, 2, 13, 12, dtype=torch.float64), images(2, 2, 13, 12, seed=1, dtype=torch.float64)
    weight = torch.tensor([[math.exp(-(i * i + j * j) / 4.5) for j in range(-5, 6)] for i in range(-5, 6)]).double()
    weight /= weight.sum()
    for n in range(2):
        values = []
        for c in range(2):
            for top in range(3):
                for left in range(2):
                    a, b = (t[n, c, top : top + 11, left : left + 11] for t in (x, y))
                    ma, mb = (weight * a).sum(), (weight * b).sum()
                    va, vb, ab = (weight * (a - ma) ** 2).sum(), (weight * (b - mb) ** 2).sum(), (weight * (a - ma) * (b - mb)).sum()
                    values.append((2 * ma * mb + 0.01**2) * (2 * ab + 0.03**2) / ((ma**2 + mb**2 + 0.01**2) * (va + vb + 0.03**2)))
        torch.testing.assert_close(ssim(x, y)[n], torch.stack(values).mean())


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_each_image_is_measured_by_itself(measure):
    x, y = images(4, 3, 12, 12), images(4, 3, 12, 12, seed=1)
    assert measure(x, y).shape == (4,) and measure(x, y).dtype == torch.float64
    for i in range(4):
        torch.testing.assert_close(measure(x[i : i + 1], y[i : i + 1])[0], measure(x, y)[i])
    assert measure(x[:0], y[:0]).shape == (0,)
    with pytest.raises(UserError, match=r"one shape \(B, C, H, W\)"):
        measure(x, y[:1])
    with pytest.raises(UserError, match="divide 8-bit values by 255"):
        measure(x, (y * 255).to(torch.uint8))


def test_ssim_wants_room_for_its_window():
    with pytest.raises(UserError, match="a window of 11 pixels, but the images are 10 x 32"):
        ssim(images(1, 3, 10, 32), images(1, 3, 10, 32))


@pytest.mark.parametrize("splits", [1, 3, 10])
def test_the_inception_score_of_certain_predictions_is_the_number_of_classes_and_of_uniform_ones_one(splits):
    certain = torch.eye(5).repeat(2 * splits, 1)
    mean, std = inception_score(certain, splits)
    assert mean == pytest.approx(5) and std == pytest.approx(0, abs=1e-9)
    assert inception_score(torch.full((30, 4), 0.25), splits) == pytest.approx((1, 0))
    assert inception_score(torch.eye(5)[:1].repeat(20, 1), splits) == pytest.approx((1, 0))


def test_the_inception_score_against_its_formula_over_uneven_splits():
    p = drawn(11, 4).softmax(1)
    scores = []
    for part in (p[:4], p[4:8], p[8:]):
        kl = [sum(float(v) * math.log(float(v) / float(m)) for v, m in zip(row, part.mean(0), strict=True)) for row in part]
        scores.append(math.exp(sum(kl) / len(kl)))
    mean = sum(scores) / 3
    assert inception_score(p, 3) == pytest.approx((mean, (sum((s - mean) ** 2 for s in scores) / 3) ** 0.5))
    assert inception_score(p.float(), 3) == pytest.approx(inception_score(p, 3), rel=1e-5)


def test_the_inception_score_refuses_what_are_no_predictions():
    with pytest.raises(UserError, match="apply softmax to logits"):
        inception_score(drawn(20, 4))
    with pytest.raises(UserError, match="over 10 splits needs as many predictions"):
        inception_score(torch.full((9, 4), 0.25))
    with pytest.raises(UserError, match="apply softmax"):
        inception_score(torch.full((10, 4), torch.nan))


def exactly(mean, covariance, n, seed):
    """``n`` points whose mean and unbiased covariance are these, up to rounding."""
    d = len(mean)
    white = drawn(n, d, seed=seed)
    white = torch.linalg.qr(white - white.mean(0)).Q * (n - 1) ** 0.5
    return mean + white @ torch.linalg.cholesky(covariance).T


def test_frechet_distance_of_gaussians_with_one_set_of_axes():
    d = 6
    turn = torch.linalg.qr(drawn(d, d)).Q
    sa, sb = torch.linspace(0.5, 2, d).double(), torch.linspace(3, 1, d).double()
    ma, mb = drawn(d, seed=1), drawn(d, seed=2)
    a = exactly(ma, turn @ torch.diag(sa**2) @ turn.T, 40, 3)
    b = exactly(mb, turn @ torch.diag(sb**2) @ turn.T, 55, 4)
    expected = float((ma - mb).square().sum() + (sa - sb).square().sum())
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_is_the_trace_formula():
    """``tr (C_a C_b)^1/2`` from the eigenvalues of the product, which is not symmetric."""
    a, b = drawn(30, 5) @ drawn(5, 5, seed=1), 1 + drawn(20, 5, seed=2) @ drawn(5, 5, seed=3)
    ca, cb = torch.cov(a.T), torch.cov(b.T)
    shared = torch.linalg.eigvals(ca @ cb).real.sqrt().sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + ca.trace() + cb.trace() - 2 * shared
    assert frechet_distance(a, b) == pytest.approx(float(expected))
    assert frechet_distance(a.float(), b.float()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("shape", [(50, 6), (4, 20), (2, 3), (7, 1)], ids=str)
def test_equal_sets_are_no_distance_apart_also_where_covariances_are_singular(shape):
    a = 5 * drawn(*shape)
    assert 0 <= frechet_distance(a, a) < 1e-9
    assert frechet_distance(a, a.flip(0)) < 1e-9
    apart = torch.ones(shape[1]).double()
    assert frechet_distance(a, a + apart) == pytest.approx(shape[1])


def test_diversity_is_the_root_mean_square_distance_between_two():
    x = drawn(9, 4)
    pairs = [(x[i] - x[j]).square().sum() for i in range(9) for j in range(9) if i != j]
    assert diversity(x) == pytest.approx(float(torch.stack(pairs).mean().sqrt()))
    assert diversity(3 * x + 5) == pytest.approx(3 * diversity(x))
    assert diversity(torch.ones(5, 3)) == 0


def test_features_that_cannot_be_compared_are_refused():
    with pytest.raises(UserError, match=r"at least two rows, got \(1, 4\)"):
        diversity(drawn(1, 4))
    with pytest.raises(UserError, match="the same features, got 4 and 5"):
        frechet_distance(drawn(3, 4), drawn(3, 5))
    with pytest.raises(UserError, match="finite"):
        frechet_distance(torch.full((3, 4), torch.nan), drawn(3, 4))
