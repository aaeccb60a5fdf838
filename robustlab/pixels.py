"""Images as floats in [0, 1] and as 8-bit values, and the way from one to the other."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.norms import L0, L2, Norm, expanded

_L2 = L2()


def to_float(pixels: Tensor) -> Tensor:
    """Pixels, uint8 or floats in [0, 1], as float32 in [0, 1], same shape."""
    return pixels.float() if pixels.is_floating_point() else pixels.float().div_(255)


def to_uint8(x: Tensor) -> Tensor:
    """Images in [0, 1], any floating dtype and shape, rounded to the nearest of 256 values; uint8 stays what it is."""
    return (x.float() * 255).round().to(torch.uint8) if x.is_floating_point() else x


def rounding_error(x: Tensor, norm: Norm = _L2) -> Tensor:
    """How far rounding to 8 bits moves each image, in pixel units: ``(B, ...) -> (B,)``, float64; 0 for uint8."""
    if not x.is_floating_point():
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)
    return norm.measure(to_float(to_uint8(x)).double() - x.double())


def measured(levels: Tensor, norm: Norm) -> Tensor:
    """The norm, in pixel units of [0, 1] images, of differences that are given in grey levels: ``(B, ...) -> (B,)``. L0 does not scale."""
    return norm.measure(levels) / (1 if isinstance(norm, L0) else 255)


def to_uint8_within(x: Tensor, center: Tensor, eps: float | Tensor, norm: Norm = _L2) -> Tensor:
    """Images that lie within ``eps`` of 8-bit images, rounded to 8 bits so that they still do.

    The nearest values where these lie in the ball. Else values between two go to the one nearer the centre more often, all of
    them if need be; so no value gets farther from the centre than it was.

    Args:
        x: in [0, 1], shape ``(B, ...)``.
        center: uint8, shape ``(B, ...)``.
        eps: radius in pixel units of [0, 1] images, a number or ``(B,)``.

    Returns:
        uint8, shape of ``x``, with ``norm.measure(y / 255 - center / 255) <= eps`` as far as float64 tells.
    """
    middle = center.double()
    delta = x.double() * 255 - middle
    bound = torch.as_tensor(eps, dtype=torch.float64, device=x.device).expand(len(x))
    # The margin is wider than what float32 rounds off of a grey level: with the last of the shares no difference grows.
    size, sign = delta.abs() - 1e-4, delta.sign()
    found = middle + sign * size.add(0.5).floor().clamp_min(0)
    for share in (0.6, 0.7, 0.8, 0.9, 1.0):
        outside = measured(found - middle, norm) > bound
        if not outside.any():
            break
        found = torch.where(expanded(outside, x), middle + sign * (size + 1 - share).floor().clamp_min(0), found)
    return found.to(torch.uint8)
