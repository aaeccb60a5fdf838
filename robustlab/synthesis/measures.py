"""What to measure of made images: likeness to a reference, recognizability, and distance between distributions."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.errors import UserError
from robustlab.pixels import to_uint8
from robustlab.synthesis.natural import variation

WINDOW = 11  # pixels, of the Gaussian window of SSIM


def psnr(x: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in decibels, ``-10 log10(mean squared error)`` for pixels in [0, 1].

    Args:
        x: images, shape ``(B, C, H, W)``.
        reference: what they should be, same shape.

    Returns:
        float64 ``(B,)``; infinite where the images are equal.
    """
    _alike(x, reference)
    return -10 * (x.double() - reference.double()).square().flatten(1).mean(1).log10()


def ssim(x: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), for pixels in [0, 1]: 1 for equal images.

    Their Gaussian window of 11 x 11 pixels and deviation 1.5, at every place where it fits; averaged over places and channels.

    Args:
        x: images, shape ``(B, C, H, W)``, at least 11 pixels high and wide.
        reference: what they should be, same shape.

    Returns:
        float64 ``(B,)``, at most 1.

    Raises:
        UserError: images smaller than the window, or of other shapes than the reference.
    """
    _alike(x, reference)
    if min(x.shape[2:]) < WINDOW:
        raise UserError(f"SSIM looks through a window of {WINDOW} pixels, but the images are {x.shape[2]} x {x.shape[3]}")
    a, b = x.double(), reference.double()
    c1, c2 = 0.01**2, 0.03**2
    mean_a, mean_b = _windowed(a), _windowed(b)
    var_a, var_b = _windowed(a * a) - mean_a * mean_a, _windowed(b * b) - mean_b * mean_b
    shared = _windowed(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    structure = (2 * shared + c2) / (var_a + var_b + c2)
    return (luminance * structure).flatten(1).mean(1)


def likeness(x: Tensor, made: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean PSNR and, where the images are large enough for its window, SSIM of some images to their originals.

    Args:
        x: the originals, shape ``(B, C, H, W)``.
        made: images of the same shape, by what to write behind the measure's name: ``{"": found, ", start": start}``.

    Returns:
        By name, ``"PSNR, start"`` and so on.
    """
    found = {f"PSNR{name}": float(psnr(images, x).mean()) for name, images in made.items()}
    if min(x.shape[2:]) >= WINDOW:
        found |= {f"SSIM{name}": float(ssim(images, x).mean()) for name, images in made.items()}
    return found


def saturated(x: Tensor) -> Tensor:
    """The share of an image's values that are black or white in 8 bits, ``(B,)``: many in a picture that is burnt.

    Args:
        x: images in [0, 1], shape ``(B, C, H, W)``.
    """
    levels = to_uint8(x)
    return ((levels == 0) | (levels == 255)).double().flatten(1).mean(1)


def calmness(made: Mapping[str, Tensor]) -> dict[str, float]:
    """The mean variation of some images, see ``natural.variation``, and the share of their values that are black or white.

    Args:
        made: images, by what to write behind the measure's name, as for ``likeness``.
    """
    found = {f"variation{name}": float(variation(x).mean()) for name, x in made.items()}
    return found | {f"black or white{name}": float(saturated(x).mean()) for name, x in made.items()}


def _windowed(x: Tensor) -> Tensor:
    """Averages under the Gaussian window, ``(B, C, H, W)`` to ``(B, C, H - 10, W - 10)``."""
    place = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weight = (-place.square() / (2 * 1.5**2)).exp()
    weight = weight / weight.sum()
    flat = x.flatten(0, 1)[:, None]
    return F.conv2d(F.conv2d(flat, weight.view(1, 1, -1, 1)), weight.view(1, 1, 1, -1)).unflatten(0, x.shape[:2])[:, :, 0]


def _alike(x: Tensor, reference: Tensor) -> None:
    if x.ndim != 4 or x.shape != reference.shape:
        raise UserError(f"images and references must have one shape (B, C, H, W), got {tuple(x.shape)} and {tuple(reference.shape)}")
    if not (x.is_floating_point() and reference.is_floating_point()):
        raise UserError(f"images must be floating point in [0, 1], got {x.dtype} and {reference.dtype}: divide 8-bit values by 255")


def inception_score(probabilities: Tensor, splits: int = 10) -> tuple[float, float]:
    """``exp(mean KL(p(y|x) || p(y)))`` (Salimans et al. 2016), the average and the deviation over parts of the images.

    From 1, where all predictions are alike, to the number of classes. A classifier that images were optimized against
    scores them too well; judge with another.

    Args:
        probabilities: predictions, shape ``(N, K)``, in an order that says nothing.
        splits: parts of the images, of nearly equal size; ``p(y)`` is the average of a part.

    Raises:
        UserError: predictions that are no probabilities, or fewer than there are splits.
    """
    if probabilities.ndim != 2 or not 1 <= splits <= len(probabilities):
        raise UserError(f"an Inception Score over {splits} splits needs as many predictions (N, K), got {tuple(probabilities.shape)}")
    p = probabilities.double()
    if not ((p >= 0).all() and ((p.sum(1) - 1).abs() < 1e-3).all()):
        raise UserError("an Inception Score needs probabilities, which are >= 0 and add up to 1: apply softmax to logits")
    scores = torch.stack([_score(part) for part in p.tensor_split(splits)])
    return float(scores.mean()), float(scores.std(correction=0))


def _score(p: Tensor) -> Tensor:
    marginal = p.mean(0)
    return (torch.xlogy(p, p) - torch.xlogy(p, marginal)).sum(1).mean().exp()


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Squared Wasserstein distance between the Gaussians of two sets of features (Dowson and Landau 1982; Heusel et al. 2017).

    ``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2)`` with unbiased covariances, in float64. With Inception's
    features this is FID. It is too large for small sets, the more the more features there are.

    Args:
        features_a: shape ``(N, D)``, at least two rows.
        features_b: shape ``(M, D)``, at least two rows.

    Raises:
        UserError: features that are not finite, fewer than two rows, or sets with different features.
    """
    a, b = _features(features_a), _features(features_b)
    if a.shape[1] != b.shape[1]:
        raise UserError(f"both sets must have the same features, got {a.shape[1]} and {b.shape[1]}")
    spread_a, spread_b = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(b.shape[1], -1)
    # The trace of that root is the sum of these singular values, which are exact also where a covariance is singular.
    shared = torch.linalg.svdvals(_root(spread_a) @ _root(spread_b)).sum()
    apart = (a.mean(0) - b.mean(0)).square().sum()
    return max(float(apart + spread_a.trace() + spread_b.trace() - 2 * shared), 0.0)


def _root(c: Tensor) -> Tensor:
    """The symmetric square root of a covariance."""
    values, vectors = torch.linalg.eigh(c)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def diversity(features: Tensor) -> float:
    """How far apart images are: the root mean square distance between two of them, in units of the features.

    ``sqrt(2 tr C)`` with the unbiased covariance ``C``. Zero where all are the same; compare with that of real images.

    Args:
        features: shape ``(N, D)``, at least two rows.
    """
    return float((2 * _features(features).var(0).sum()).sqrt())


def _features(features: Tensor) -> Tensor:
    if features.ndim != 2 or len(features) < 2 or features.shape[1] < 1:
        raise UserError(f"features must come as (N, D) with at least two rows, got {tuple(features.shape)}")
    if not features.isfinite().all():
        raise UserError("features must be finite numbers")
    return features.double()
