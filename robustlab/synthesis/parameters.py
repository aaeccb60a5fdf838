"""Ways to write an image down: a search moves the parameters, the objective sees the image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from robustlab.constraints import ConstraintSet, Everywhere
from robustlab.errors import UserError


class Parameters(Protocol):
    """Images as numbers to descend on. ``decode(encode(x))`` is ``x``, up to rounding, and ``decode`` is differentiable."""

    @property
    def constraint(self) -> ConstraintSet | None:
        """Where the numbers may lie; None where they are pixels, and the search's own set around an image holds."""
        ...

    def encode(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] as parameters ``(B, ...)``."""
        ...

    def decode(self, z: Tensor) -> Tensor:
        """Parameters ``(B, ...)`` as images ``(B, C, H, W)`` in [0, 1]."""
        ...


@dataclass(frozen=True)
class Pixels:
    """The pixels themselves."""

    @property
    def constraint(self) -> None:
        return None

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor) -> Tensor:
        return z


@dataclass(frozen=True)
class Fourier:
    """Fourier coefficients, with the high frequencies held down (Olah et al. 2017, "Feature Visualization").

    A step of the search changes coarse structure more than fine, which keeps noise out of the picture. Coefficients may be
    anything: a sigmoid brings what they add up to into [0, 1]. It is stretched by ``margin`` beyond both ends, and clamped,
    so that black and white have finite parameters. The gradient passes through the clamp: no pixel is ever stuck there.

    Attributes:
        decay: a coefficient of frequency ``f``, in cycles per pixel, counts ``1 / f**decay``: 1 as in Olah et al., 0 for the
            plain transform of the robustness library (Engstrom et al. 2019). The average counts as one cycle per image.
        margin: stretch of the sigmoid, in pixel units, at most 0.5.
    """

    decay: float = 1.0
    margin: float = 0.01

    def __post_init__(self) -> None:
        if not (math.isfinite(self.decay) and self.decay >= 0 and 0 < self.margin <= 0.5):
            raise UserError(f"Fourier needs a finite decay >= 0 and a margin in (0, 0.5], got {self.decay} and {self.margin}")

    @property
    def constraint(self) -> ConstraintSet:
        return Everywhere()

    def encode(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] as real and imaginary parts ``(B, C, H, W, 2)``."""
        waves = torch.logit((x + self.margin) / (1 + 2 * self.margin))
        return torch.view_as_real(torch.fft.fft2(waves, norm="ortho") / self._scale(waves))

    def decode(self, z: Tensor) -> Tensor:
        """Any real and imaginary parts ``(B, C, H, W, 2)`` as images ``(B, C, H, W)`` in [0, 1]."""
        spectrum = torch.view_as_complex(z.contiguous())
        # The part of the coefficients that is no transform of a real image drops out here.
        waves = torch.fft.ifft2(spectrum * self._scale(z[..., 0]), norm="ortho").real
        wide = (1 + 2 * self.margin) * torch.sigmoid(waves) - self.margin
        return wide + (wide.clamp(0, 1) - wide).detach()  # exact, as both differences of nearby numbers are

    def _scale(self, like: Tensor) -> Tensor:
        """What each coefficient counts, shape ``(H, W)``."""
        height, width = like.shape[-2:]
        vertical = torch.fft.fftfreq(height, dtype=like.dtype, device=like.device)[:, None]
        horizontal = torch.fft.fftfreq(width, dtype=like.dtype, device=like.device)
        return torch.hypot(vertical, horizontal).clamp_min(1 / max(height, width)) ** -self.decay
