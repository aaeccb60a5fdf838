"""Norms and their geometry: the ground floor of attacks, certificates and theorems.

The PGD step in a norm is steepest descent in that norm; the dual norm gives a linear model's worst case under attack
and defines its max margin. One object serves all three.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab import seeding


def expanded(values: Tensor, like: Tensor) -> Tensor:
    """One value per example, ``(B,)``, shaped to broadcast against ``like``, shape ``(B, ...)``."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def per_example(value: float | Tensor, like: Tensor) -> float | Tensor:
    """A number, or one number per example ``(B,)``, ready to multiply ``like``, shape ``(B, ...)``, in its dtype."""
    return expanded(value.to(like), like) if isinstance(value, Tensor) and value.ndim else value


class Norm(ABC):
    """A norm on the values of one example. Every method treats the first dimension as the batch."""

    @property
    @abstractmethod
    def dual(self) -> Norm:
        """The norm ``‖g‖* = max <u, g> over ‖u‖ <= 1``."""

    @abstractmethod
    def measure(self, v: Tensor) -> Tensor:
        """The norm of each example: ``(B, ...) -> (B,)``, in the dtype of ``v``."""

    @abstractmethod
    def steepest(self, g: Tensor) -> Tensor:
        """A ``u`` of unit norm that maximizes ``<u, g>``, shape of ``g``; zero where the whole gradient is zero."""

    @abstractmethod
    def project(self, v: Tensor, radius: float | Tensor) -> Tensor:
        """The Euclidean projection of ``v`` onto the ball of ``radius`` (a number or ``(B,)``), up to rounding."""

    @abstractmethod
    def sample(self, keys: Tensor, shape: Sequence[int], radius: float | Tensor) -> Tensor:
        """A point drawn uniformly from the ball, one for each key of ``robustlab.seeding``: float32, ``(B, *shape)``."""


@dataclass(frozen=True)
class Linf(Norm):
    """The largest absolute value."""

    @property
    def dual(self) -> Norm:
        return L1()

    def measure(self, v: Tensor) -> Tensor:
        if v[0:1].numel() == 0:
            return v.new_zeros(len(v))
        return v.flatten(1).abs().amax(1)

    def steepest(self, g: Tensor) -> Tensor:
        return g.sign()

    def project(self, v: Tensor, radius: float | Tensor) -> Tensor:
        bound = torch.as_tensor(per_example(radius, v), dtype=v.dtype, device=v.device)
        return v.clamp(-bound, bound)

    def sample(self, keys: Tensor, shape: Sequence[int], radius: float | Tensor) -> Tensor:
        u = seeding.uniform(keys, shape).mul_(2).sub_(1)
        return u * per_example(radius, u)


@dataclass(frozen=True)
class L2(Norm):
    """The Euclidean norm."""

    @property
    def dual(self) -> Norm:
        return self

    def measure(self, v: Tensor) -> Tensor:
        return torch.linalg.vector_norm(v.flatten(1), dim=1)

    def steepest(self, g: Tensor) -> Tensor:
        # Dividing by the largest entry first keeps the squares of tiny gradients from underflowing.
        scale = expanded(Linf().measure(g), g)
        unit = g / torch.where(scale > 0, scale, 1)
        length = expanded(self.measure(unit), g)
        return unit / torch.where(length > 0, length, 1)

    def project(self, v: Tensor, radius: float | Tensor) -> Tensor:
        length = self.measure(v)
        return v * per_example((radius / length.clamp_min(torch.finfo(v.dtype).tiny)).clamp(max=1), v)

    def sample(self, keys: Tensor, shape: Sequence[int], radius: float | Tensor) -> Tensor:
        v = seeding.normal(seeding.fold(keys, "direction"), shape)
        share = seeding.uniform(seeding.fold(keys, "radius"), ()) ** (1 / max(math.prod(shape), 1))
        return self.steepest(v) * per_example(share * radius, v)


@dataclass(frozen=True)
class L1(Norm):
    """The sum of absolute values. Its steepest direction moves one coordinate."""

    @property
    def dual(self) -> Norm:
        return Linf()

    def measure(self, v: Tensor) -> Tensor:
        return v.flatten(1).abs().sum(1)

    def steepest(self, g: Tensor) -> Tensor:
        flat = g.flatten(1)
        if flat.numel() == 0:
            return g.clone()
        top = flat.abs().argmax(1, keepdim=True)
        return torch.zeros_like(flat).scatter_(1, top, flat.gather(1, top).sign()).reshape(g.shape)

    def project(self, v: Tensor, radius: float | Tensor) -> Tensor:
        """Soft thresholding at the level that spends the radius (Duchi et al. 2008, figure 1); sorts, O(D log D)."""
        flat = v.flatten(1)
        if flat.numel() == 0:
            return v.clone()
        size = flat.abs()
        radius = torch.as_tensor(radius, dtype=v.dtype, device=v.device).expand(len(v))
        falling = size.sort(1, descending=True).values
        excess = falling.cumsum(1) - radius[:, None]
        rank = torch.arange(1, flat.shape[1] + 1, device=v.device)
        kept = (falling * rank > excess).sum(1, keepdim=True).clamp_min(1)
        level = excess.gather(1, kept - 1) / kept
        level = torch.where((size.sum(1) > radius)[:, None], level, 0)
        size = (size - level).clamp_min(0)
        # The level is rounded in units of the largest value, which may be far above the radius: put the sum right.
        scale = (radius / size.sum(1).clamp_min(torch.finfo(v.dtype).tiny)).clamp(max=1)
        return (flat.sign() * size * scale[:, None]).reshape(v.shape)

    def sample(self, keys: Tensor, shape: Sequence[int], radius: float | Tensor) -> Tensor:
        # D + 1 exponentials over their sum are uniform on the simplex; the last one is the distance to the boundary.
        size = math.prod(shape)
        u = seeding.uniform(seeding.fold(keys, "size"), (size + 1,), torch.float64)
        spacings = -torch.log1p(-u)
        share = (spacings[:, :size] / spacings.sum(1, keepdim=True)).float().reshape(len(keys), *shape)
        sign = (seeding.uniform(seeding.fold(keys, "sign"), shape) < 0.5).float().mul_(2).sub_(1)
        return share * sign * per_example(radius, share)


NORMS: dict[str, Norm] = {"linf": Linf(), "l2": L2(), "l1": L1()}
