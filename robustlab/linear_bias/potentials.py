"""Potentials of mirror descent: strictly convex functions whose gradient maps weights to dual variables, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.errors import UserError
from robustlab.norms import check_p

FARTHEST = 600.0  # of a dual variable: exp and sinh of more overflow


class Potential(ABC):
    """A strictly convex ``psi(w)``, a sum over the values of ``w``, of shape ``(S, d)``.

    With ``dual`` and ``inverse`` mirror descent is defined; ``inverse_slope`` is for Newton's method on exact solutions.
    """

    @abstractmethod
    def value(self, w: Tensor) -> Tensor:
        """``psi(w)``, shape ``(S,)``."""

    @abstractmethod
    def dual(self, w: Tensor) -> Tensor:
        """``z = grad psi(w)``, shape of ``w``."""

    @abstractmethod
    def inverse(self, z: Tensor) -> Tensor:
        """``w`` with ``grad psi(w) = z``, shape of ``z``."""

    @abstractmethod
    def inverse_slope(self, z: Tensor) -> Tensor:
        """The derivative of ``inverse``, value by value: ``1 / psi''(w)``."""

    @property
    def origin(self) -> float:
        """The value at which ``psi`` is smallest, where ``z`` is zero."""
        return float(self.inverse(torch.zeros(1, 1, dtype=torch.float64)))

    def check(self, w: Tensor) -> None:
        """Refuse weights outside the domain.

        Raises:
            UserError: naming the smallest.
        """
        return None

    def divergence(self, w: Tensor, start: Tensor) -> Tensor:
        """The Bregman divergence ``psi(w) - psi(start) - <grad psi(start), w - start>``, shape ``(S,)``."""
        return self.value(w) - self.value(start) - (self.dual(start) * (w - start)).sum(1)


@dataclass(frozen=True)
class Quadratic(Potential):
    """``w^2 / 2``: mirror descent is gradient descent."""

    def value(self, w: Tensor) -> Tensor:
        return w.square().sum(1) / 2

    def dual(self, w: Tensor) -> Tensor:
        return w

    def inverse(self, z: Tensor) -> Tensor:
        return z

    def inverse_slope(self, z: Tensor) -> Tensor:
        return torch.ones_like(z)


@dataclass(frozen=True)
class Entropy(Potential):
    """``w log w - w`` for positive weights: mirror descent is exponentiated gradient (Kivinen and Warmuth 1997)."""

    def check(self, w: Tensor) -> None:
        if not (w > 0).all():
            raise UserError(f"the entropy is a potential of positive weights only, got {w.min().item():.4g}")

    def value(self, w: Tensor) -> Tensor:
        return (torch.xlogy(w, w) - w).sum(1)

    def dual(self, w: Tensor) -> Tensor:
        return w.log()

    def inverse(self, z: Tensor) -> Tensor:
        return z.clamp(max=FARTHEST).exp()

    def inverse_slope(self, z: Tensor) -> Tensor:
        return self.inverse(z)


@dataclass(frozen=True)
class HypEntropy(Potential):
    """``w asinh(w / beta) - sqrt(w^2 + beta^2)`` (Ghai et al. 2020): between the entropy of ``|w|`` for small ``beta`` and a square for
    a large one. It is the potential of ``u^2 - v^2`` started at ``u = v = alpha``, with ``beta = 2 alpha^2`` (Woodworth et al. 2020)."""

    beta: float = 1.0

    def __post_init__(self) -> None:
        if not self.beta > 0:
            raise UserError(f"beta must be above 0, got {self.beta}")

    def value(self, w: Tensor) -> Tensor:
        return (w * (w / self.beta).asinh() - (w.square() + self.beta**2).sqrt()).sum(1)

    def dual(self, w: Tensor) -> Tensor:
        return (w / self.beta).asinh()

    def inverse(self, z: Tensor) -> Tensor:
        return self.beta * z.clamp(-FARTHEST, FARTHEST).sinh()

    def inverse_slope(self, z: Tensor) -> Tensor:
        return self.beta * z.clamp(-FARTHEST, FARTHEST).cosh()


@dataclass(frozen=True)
class PNorm(Potential):
    """``|w|^p / p`` for ``p`` from 1.01 to 101."""

    p: float

    def __post_init__(self) -> None:
        check_p(self.p)

    def value(self, w: Tensor) -> Tensor:
        return (w.abs() ** self.p).sum(1) / self.p

    def dual(self, w: Tensor) -> Tensor:
        return w.sign() * w.abs() ** (self.p - 1)

    def inverse(self, z: Tensor) -> Tensor:
        return z.sign() * z.abs() ** (1 / (self.p - 1))

    def inverse_slope(self, z: Tensor) -> Tensor:
        return z.abs() ** (1 / (self.p - 1) - 1) / (self.p - 1)


@dataclass(frozen=True)
class Cosh(Potential):
    """``cosh(w)``, which grows faster than any power: its largest margins are those of the largest value."""

    def value(self, w: Tensor) -> Tensor:
        return w.clamp(-FARTHEST, FARTHEST).cosh().sum(1)

    def dual(self, w: Tensor) -> Tensor:
        return w.clamp(-FARTHEST, FARTHEST).sinh()

    def inverse(self, z: Tensor) -> Tensor:
        return z.asinh()

    def inverse_slope(self, z: Tensor) -> Tensor:
        return (1 + z.square()).rsqrt()


@dataclass(frozen=True)
class DiagonalFlow(Potential):
    """The potential of which gradient flow on ``w = u^k - v^k``, started at ``u = v = alpha``, is mirror flow, for depths k above 2
    (Woodworth et al. 2020, theorem 3): ``inverse(z) = alpha^k ((1 - z)^-r - (1 + z)^-r)`` with ``r = k / (k - 2)`` and ``|z| < 1``.

    Depth 2 is ``HypEntropy(2 * alpha**2)``; ``diagonal_flow`` knows both.
    """

    alpha: float
    depth: int = 3

    def __post_init__(self) -> None:
        if not self.alpha > 0:
            raise UserError(f"alpha must be above 0, got {self.alpha}")
        if self.depth < 3:
            raise UserError(f"the depth must be at least 3, got {self.depth}; for depth 2 there is HypEntropy(2 * alpha**2)")

    @property
    def _power(self) -> float:
        return self.depth / (self.depth - 2)

    def value(self, w: Tensor) -> Tensor:
        z = self.dual(w)
        r = self._power - 1
        conjugate = ((1 - z) ** -r + (1 + z) ** -r - 2) * self.alpha**self.depth / r
        return (z * w - conjugate).sum(1)

    def dual(self, w: Tensor) -> Tensor:
        """By bisection, to the last digit of ``z``."""
        low, high = torch.zeros_like(w), torch.ones_like(w)
        for _ in range(60):
            middle = (low + high) / 2
            above = self.inverse(middle) > w.abs()
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return w.sign() * (low + high) / 2

    def inverse(self, z: Tensor) -> Tensor:
        z = z.clamp(-_BELOW_ONE, _BELOW_ONE)
        return self.alpha**self.depth * ((1 - z) ** -self._power - (1 + z) ** -self._power)

    def inverse_slope(self, z: Tensor) -> Tensor:
        z = z.clamp(-_BELOW_ONE, _BELOW_ONE)
        up, down = (1 - z) ** (-self._power - 1), (1 + z) ** (-self._power - 1)
        return self.alpha**self.depth * self._power * (up + down)


_BELOW_ONE = 1 - 2.0**-50


def diagonal_flow(alpha: float, depth: int = 2) -> Potential:
    """The potential of gradient flow on ``u^depth - v^depth`` from ``u = v = alpha``; for depth 2 ``HypEntropy(2 * alpha**2)``.

    Raises:
        UserError: an ``alpha`` that is not above 0, or a depth below 2.
    """
    return HypEntropy(2 * alpha**2) if depth == 2 else DiagonalFlow(alpha, depth)
