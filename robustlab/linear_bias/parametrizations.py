"""Linear models written in other parameters: the same functions, other paths of descent.

Every parametrization keeps all parameters of a seed in one row, ``(S, P)``, so that one step rule moves them all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.errors import UserError


class Parametrization(ABC):
    """Parameters of linear models: from ``theta``, ``(S, P)``, to weights, ``(S, d)``."""

    @property
    @abstractmethod
    def size(self) -> int:
        """``P``, the number of parameters."""

    @property
    @abstractmethod
    def degree(self) -> int:
        """``L`` with ``w(c theta) = c^L w(theta)``."""

    @abstractmethod
    def weights(self, theta: Tensor) -> Tensor:
        """The linear model's weights, ``(S, d)``."""

    def outputs(self, theta: Tensor, X: Tensor) -> Tensor:
        """From parameters and examples ``(S, n, d)`` or ``(1, n, d)`` to outputs ``(S, n)``."""
        return torch.einsum("snd,sd->sn", X.expand(len(theta), -1, -1), self.weights(theta))

    def random(self, seeds: int, scale: float, first: int = 0) -> Tensor:
        """Normal parameters of standard deviation ``scale``, ``(seeds, P)``, float64; those of a seed are its own."""
        keys = seeding.example_keys(0, torch.arange(first, first + seeds))
        return scale * seeding.normal(seeding.fold(keys, "parameters"), (self.size,), torch.float64)


@dataclass(frozen=True)
class Direct(Parametrization):
    """The weights themselves."""

    d: int

    @property
    def size(self) -> int:
        return self.d

    @property
    def degree(self) -> int:
        return 1

    def weights(self, theta: Tensor) -> Tensor:
        return theta


@dataclass(frozen=True)
class Difference(Parametrization):
    """``w = u^k - v^k`` value by value: the diagonal network of depth k, which can take both signs (Woodworth et al. 2020)."""

    d: int
    depth: int = 2

    @property
    def size(self) -> int:
        return 2 * self.d

    @property
    def degree(self) -> int:
        return self.depth

    def weights(self, theta: Tensor) -> Tensor:
        u, v = theta.split(self.d, 1)
        return u**self.depth - v**self.depth

    def start(self, seeds: int, alpha: float) -> Tensor:
        """``u = v = alpha``, so that the weights begin at zero: ``(seeds, P)``, float64."""
        return torch.full((seeds, self.size), alpha, dtype=torch.float64)


@dataclass(frozen=True)
class Product(Parametrization):
    """``w = u_1 u_2 ... u_k`` value by value."""

    d: int
    depth: int = 2

    @property
    def size(self) -> int:
        return self.depth * self.d

    @property
    def degree(self) -> int:
        return self.depth

    def weights(self, theta: Tensor) -> Tensor:
        return theta.reshape(len(theta), self.depth, self.d).prod(1)

    def start(self, seeds: int, first: float, others: float) -> Tensor:
        """One factor at ``first`` and all others at ``others``: ``(seeds, P)``, float64. With both equal and above zero the weights
        never change their sign."""
        theta = torch.full((seeds, self.depth, self.d), others, dtype=torch.float64)
        theta[:, 0] = first
        return theta.flatten(1)


def check_depth(depth: int) -> None:
    """Refuse a depth below 1.

    Raises:
        UserError: with the value.
    """
    if depth < 1:
        raise UserError(f"the depth must be at least 1, got {depth}")
