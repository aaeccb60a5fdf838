"""Where a solution may lie: boxes, balls, masks, and the threat model that puts a ball around every image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from robustlab.errors import UserError
from robustlab.norms import L0, L1, AttackNorm, Linf, as_norm, expanded, per_example
from robustlab.subsets import restricted

Value = TypeVar("Value", bound=float | Tensor)


class ConstraintSet(Protocol):
    """A set with a way into it.

    A method ``at(index, like)`` gives the set of some of the examples only, see ``robustlab.subsets``; ``like`` is the whole batch of
    points, shape ``(B, ...)``.
    """

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

    def at(self, index: Tensor, like: Tensor) -> Everywhere:
        return self


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

    @property
    def is_pixels(self) -> bool:
        """Whether it is the box of [0, 1] images."""
        return not isinstance(self.lo, Tensor) and not isinstance(self.hi, Tensor) and (self.lo, self.hi) == (0, 1)

    def at(self, index: Tensor, like: Tensor) -> Box:
        return Box(_rows(self.lo, index, like), _rows(self.hi, index, like))


def _rows(value: Value, index: Tensor, like: Tensor) -> Value:
    """Of something that broadcasts against ``like`` what belongs to the examples at ``index``."""
    own = isinstance(value, Tensor) and value.ndim == like.ndim and len(value) == len(like)
    return restricted(value, index) if own else value


PIXELS = Box(0.0, 1.0)


@dataclass(frozen=True)
class Ball:
    """All points of ``box`` within ``eps`` of ``center``.

    ``project`` finds the nearest point for L1 and L0 (see their ``project_in_box``). For L2 it goes to the ball first and to the box
    second, as PGD does in the literature: a point of the intersection, not always its nearest one. Clipping moves every value towards
    the centre, which lies in the box, so it cannot leave the ball again.

    What ``project`` returns is feasible without any tolerance: ``‖x - center‖``, measured in float64, is at most
    ``eps``. Values are computed in float64 and rounded towards the centre; a point that is inside stays as it is.

    Attributes:
        center: shape ``(B, ...)``, inside ``box``.
        eps: radius in pixel units, a number or ``(B,)``.
    """

    center: Tensor
    norm: AttackNorm
    eps: float | Tensor
    box: Box = PIXELS

    def project(self, x: Tensor) -> Tensor:
        center = self.center.double()
        delta = x.double() - center
        # A number stays one: as a tensor it would be copied to the device at each step.
        eps = self.eps.to(delta) if isinstance(self.eps, Tensor) else self.eps
        # A float64 norm rounds too: the margins keep a sum taken in another order from finding a point outside, and
        # the wider one for the way in makes a second projection change nothing.
        slack = 0 if self.norm.exact else 5e-13
        inside = self.norm.measure(delta) <= eps * (1 - slack)
        moved = round_towards(self.center, self._shortened(delta, eps * (1 - 2 * slack)), x.dtype)
        return self.box.project(torch.where(expanded(inside, x), x, moved))

    def _shortened(self, delta: Tensor, eps: float | Tensor) -> Tensor:
        if isinstance(self.norm, L1 | L0):
            return self.norm.project_in_box(delta, eps, *(side - self.center.double() for side in (self.box.lo, self.box.hi)))
        return self.norm.project(delta, eps)

    def tangent(self, x: Tensor, g: Tensor) -> Tensor:
        return self.box.tangent(x, g)

    def at(self, index: Tensor, like: Tensor) -> Ball:
        return Ball(self.center[index], self.norm, restricted(self.eps, index), self.box.at(index, like))


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

    def at(self, index: Tensor, like: Tensor) -> Masked:
        return Masked(restricted(self.inner, index, like), self.center[index], _rows(self.mask, index, like))


@dataclass(frozen=True, init=False)
class ThreatModel:
    """What an adversary may do to an image: move it by at most ``eps`` in ``norm`` and stay in ``box``.

    Attributes:
        norm: with a projection and draws.
        eps: radius in pixel units of a [0, 1] image: ``8 / 255``, not ``8``; in L0 a number of pixels. A number, or float64 ``(B,)``: one
            for each image.
        box: what images may be at all.
    """

    norm: AttackNorm
    eps: float | Tensor
    box: Box = field(default=PIXELS, repr=False)

    def __init__(self, norm: AttackNorm | type[AttackNorm] | str, eps: float | Sequence[float] | Tensor, box: Box = PIXELS) -> None:
        """Also takes a norm's class or name and a list of radii.

        Raises:
            UserError: a norm that is not known; a radius that is negative, not finite, wider than the box, or in L0 no whole number.
        """
        for name, value in (("norm", as_norm(norm)), ("eps", _radii(eps)), ("box", box)):
            object.__setattr__(self, name, value)
        for radius in self._listed:
            if not (math.isfinite(radius) and radius >= 0):
                raise UserError(f"eps must be a finite number >= 0 in pixel units of [0, 1] images, got {radius}")
            if radius > 1 and isinstance(self.norm, Linf) and box.is_pixels:
                mend = f": write {radius:g}/255, not {radius:g}" if radius <= 255 else ""
                raise UserError(f"Linf eps must be at most 1 in pixel units of [0, 1] images, got {radius:g}{mend}")
            if isinstance(self.norm, L0) and radius != int(radius):
                raise UserError(f"L0 eps is a whole number of {self.norm.unit}, got {radius:g}")

    def __repr__(self) -> str:
        low, high = min(self._listed, default=0.0), max(self._listed, default=0.0)
        shown = f"{type(self.norm).__name__} eps={low:.4g}" + (f" to {high:.4g}" if isinstance(self.eps, Tensor) else "")
        return f"{shown} {self.norm.unit}" if isinstance(self.norm, L0) else shown

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ThreatModel) and (self.norm, self._listed, self.box) == (other.norm, other._listed, other.box)

    def __hash__(self) -> int:
        return hash((self.norm, self._listed, self.box))

    @property
    def _listed(self) -> tuple[float, ...]:
        return tuple(self.eps.tolist()) if isinstance(self.eps, Tensor) else (self.eps,)

    def radius(self, x: Tensor) -> float | Tensor:
        """``eps`` for a batch of images, shape ``(B, ...)``: a number, or float64 ``(B,)`` on their device.

        Raises:
            UserError: there are radii for another number of images.
        """
        if isinstance(self.eps, Tensor) and len(self.eps) != len(x):
            raise UserError(f"eps has {len(self.eps)} radii for {len(x)} images: give one number, or one for each image")
        return self.eps.to(x.device) if isinstance(self.eps, Tensor) else self.eps

    def default_step_size(self, steps: int, reach: float = 2.5) -> float | Tensor:
        """The step of PGD where none is given: ``reach * eps / steps`` in pixel units; 2.5 (Madry et al. 2018) can cross the ball.

        In L0 it is 0.15, the mean change of a value before the projection: 120000 / 255 for all of CIFAR-10's 3,072 values together, as in
        the public code of Croce and Hein (2019).
        """
        return 0.15 if isinstance(self.norm, L0) else reach * self.eps / max(steps, 1)

    def around(self, x: Tensor) -> Ball | Box:
        """The set of allowed images around each example of ``x``, shape ``(B, ...)``."""
        if isinstance(self.norm, Linf):
            return linf_box(x, self.radius(x), self.box)
        return Ball(x, self.norm, self.radius(x), self.box)


def _radii(eps: float | Sequence[float] | Tensor) -> float | Tensor:
    """A number as it came, or a float64 tensor ``(B,)``."""
    if isinstance(eps, (int, float)):
        return eps
    try:
        radii = torch.as_tensor(eps, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(f"eps must be a number or one for each image, got {eps!r}") from None
    if radii.ndim > 1:
        raise UserError(f"eps must be a number or one for each image, got a tensor of shape {tuple(radii.shape)}")
    return radii if radii.ndim else float(radii)


def linf_box(center: Tensor, eps: float | Tensor, box: Box = PIXELS) -> Box:
    """The Linf ball in a box is itself a box: worked out once, with bounds rounded towards the centre.

    Args:
        center: shape ``(B, ...)``, inside ``box``.
        eps: radius in pixel units, a number or ``(B,)``.
    """
    radius = torch.ones_like(center, dtype=torch.float64)
    radius = radius * per_example(eps, radius)
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
