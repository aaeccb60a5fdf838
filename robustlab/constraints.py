"""Where a solution may lie: boxes, balls, masks, and the threat model that puts a ball around every image."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from robustlab.errors import UserError
from robustlab.norms import Linf, Norm, expanded


class ConstraintSet(Protocol):
    """A set with a way into it."""

    def project(self, x: Tensor) -> Tensor:
        """A point of the set, exactly, in the dtype of ``x``; ``x`` itself where that is inside."""
        ...

    def tangent(self, x: Tensor, g: Tensor) -> Tensor:
        """The gradient at ``x`` without the values that cannot go against it: held by a mask, or at a side of the box."""
        ...


@dataclass(frozen=True)
class Everywhere:
    """No constraint."""

    def project(self, x: Tensor) -> Tensor:
        return x

    def tangent(self, x: Tensor, g: Tensor) -> Tensor:
        return g


@dataclass(frozen=True)
class Box:
    """All points between ``lo`` and ``hi``: two numbers, or two tensors that broadcast against ``x``."""

    lo: float | Tensor = 0.0
    hi: float | Tensor = 1.0

    def project(self, x: Tensor) -> Tensor:
        return torch.clamp(x, self.lo, self.hi)  # type: ignore[arg-type]

    def tangent(self, x: Tensor, g: Tensor) -> Tensor:
        # A product, since torch.where and masked_fill take the CPU three times as long on a mask without a pattern.
        return g * ~((g > 0) & (x <= self.lo) | (g < 0) & (x >= self.hi))


PIXELS = Box(0.0, 1.0)


@dataclass(frozen=True)
class Ball:
    """All points of ``box`` within ``eps`` of ``center``.

    ``project`` goes to the ball first and to the box second, as PGD does in the literature: for L2 and L1 that is a
    point of the intersection, not always its nearest one. Clipping moves every value towards the centre, which lies
    in the box, so it cannot leave the ball again.

    What ``project`` returns is feasible without any tolerance: ``‖x - center‖``, measured in float64, is at most
    ``eps``. Values are computed in float64 and rounded towards the centre; a point that is inside stays as it is.

    Attributes:
        center: shape ``(B, ...)``, inside ``box``.
        eps: radius in pixel units, a number or ``(B,)``.
    """

    center: Tensor
    norm: Norm
    eps: float | Tensor
    box: Box = PIXELS

    def project(self, x: Tensor) -> Tensor:
        center = self.center.double()
        delta = x.double() - center
        # A float64 norm rounds too: the margins keep a sum taken in another order from finding a point outside, and
        # the wider one for the way in makes a second projection change nothing.
        eps = torch.as_tensor(self.eps, dtype=torch.float64, device=x.device)
        inside = self.norm.measure(delta) <= eps * (1 - 5e-13)
        moved = round_towards(self.center, self.norm.project(delta, eps * (1 - 1e-12)), x.dtype)
        return self.box.project(torch.where(expanded(inside, x), x, moved))

    def tangent(self, x: Tensor, g: Tensor) -> Tensor:
        return self.box.tangent(x, g)


@dataclass(frozen=True)
class Masked:
    """The points of ``inner`` that equal ``center`` wherever ``mask`` is false.

    Attributes:
        inner: a set whose projection moves no value away from ``center``: a box or a ball around it.
        center: shape ``(B, ...)``.
        mask: bool, broadcasts against ``center``; true where values may change.
    """

    inner: ConstraintSet
    center: Tensor
    mask: Tensor

    def project(self, x: Tensor) -> Tensor:
        return self.inner.project(torch.where(self.mask, x, self.center))

    def tangent(self, x: Tensor, g: Tensor) -> Tensor:
        return torch.where(self.mask, self.inner.tangent(x, g), 0)


@dataclass(frozen=True)
class ThreatModel:
    """What an adversary may do to an image: move it by at most ``eps`` in ``norm`` and stay in ``box``.

    Attributes:
        eps: radius in pixel units of a [0, 1] image: ``8 / 255``, not ``8``.
    """

    norm: Norm
    eps: float
    box: Box = field(default=PIXELS, repr=False)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.eps) and self.eps >= 0):
            raise UserError(f"eps must be a finite number >= 0 in pixel units of [0, 1] images, got {self.eps}")

    def __repr__(self) -> str:
        return f"{type(self.norm).__name__} eps={self.eps:.4g}"

    def default_step_size(self, steps: int) -> float:
        """The step of PGD where none is given: ``2.5 * eps / steps`` in pixel units (Madry et al. 2018), which can cross the ball."""
        return 2.5 * self.eps / max(steps, 1)

    def around(self, x: Tensor) -> Ball | Box:
        """The set of allowed images around each example of ``x``, shape ``(B, ...)``."""
        if isinstance(self.norm, Linf):
            return linf_box(x, self.eps, self.box)
        return Ball(x, self.norm, self.eps, self.box)


def linf_box(center: Tensor, eps: float, box: Box = PIXELS) -> Box:
    """The Linf ball in a box is itself a box: worked out once, with bounds rounded towards the centre."""
    radius = torch.full_like(center, eps, dtype=torch.float64)
    lo, hi = (round_towards(center, side, center.dtype) for side in (-radius, radius))
    return Box(box.project(lo), box.project(hi))


def round_towards(center: Tensor, delta: Tensor, dtype: torch.dtype) -> Tensor:
    """``center + delta`` in ``dtype``, rounded so that no value is farther from ``center`` than ``delta`` says.

    Args:
        center: any floating dtype that ``dtype`` represents exactly.
        delta: float64, shape of ``center``.
    """
    exact = center.double()
    near = center.to(dtype)
    y = (exact + delta).to(dtype)
    too_far = (y.double() - exact).abs() > delta.abs()
    # Round to nearest is off by half a unit in the last place at most: one step towards the centre is enough.
    return torch.where(too_far, torch.nextafter(y, near), y)
