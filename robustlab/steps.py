"""How to move: step rules for ``minimize``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from robustlab.constraints import ConstraintSet
from robustlab.norms import L1, Norm, per_example
from robustlab.subsets import restricted


class Directions(Protocol):
    """Where to go: a norm, for its steepest descent, or ``Sparse``."""

    def steepest(self, g: Tensor) -> Tensor:
        """From a gradient, shape ``(B, ...)``, to directions of unit length and the same shape."""
        ...


@dataclass(frozen=True)
class Sparse:
    """Directions of unit L1 norm along the ``share`` of values with the largest gradients (Tramèr and Boneh 2019, SLIDE).

    The steepest direction of L1 itself moves one value, and that is soon at the end of its pixel range. Measured with
    PGD-10 and eps 12 on a standard CIFAR-10 network: of 60 examples 32 withstood it along one value, none along these.
    """

    share: float = 0.01

    def steepest(self, g: Tensor) -> Tensor:
        flat = g.flatten(1)
        count = min(max(int(self.share * flat.shape[1]), 1), flat.shape[1])
        top = flat.abs().topk(count, 1).indices
        return torch.zeros_like(flat).scatter_(1, top, flat.gather(1, top).sign() / max(count, 1)).reshape(g.shape)


def attack_directions(norm: Norm) -> Directions:
    """The directions of attacks in a norm: its steepest ones, but sparse ones for L1."""
    return Sparse() if isinstance(norm, L1) else norm


@dataclass(frozen=True)
class Steepest:
    """Projected steepest descent in a norm: every step has length ``step_size`` in it. The step of PGD.

    ``step_size`` is in pixel units, a number or one per example ``(B,)``. A zero gradient moves nothing.
    """

    norm: Directions
    step_size: float | Tensor

    def init(self, x: Tensor, steps: int) -> None:
        """There is no state."""
        return None

    def step(self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: None) -> tuple[Tensor, None]:
        return constraint.project(x - per_example(self.step_size, x) * self.norm.steepest(constraint.tangent(x, grad))), None

    def at(self, index: Tensor) -> Steepest:
        return replace(self, step_size=restricted(self.step_size, index))


@dataclass(frozen=True)
class Momentum:
    """Steepest descent along a decaying sum of gradients, each scaled to unit L1 norm (MI-FGSM, Dong et al. 2018).

    ``step_size`` is in pixel units, a number or one per example ``(B,)``; ``decay`` multiplies the sum before each step.
    """

    norm: Directions
    step_size: float | Tensor
    decay: float = 1.0

    def init(self, x: Tensor, steps: int) -> Tensor:
        """The velocity, which is zero at first."""
        return torch.zeros_like(x)

    def step(self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: Tensor) -> tuple[Tensor, Tensor]:
        size = L1().measure(grad)
        velocity = self.decay * state + grad / per_example(torch.where(size > 0, size, 1), grad)
        return constraint.project(x - per_example(self.step_size, x) * self.norm.steepest(constraint.tangent(x, velocity))), velocity

    def at(self, index: Tensor) -> Momentum:
        return replace(self, step_size=restricted(self.step_size, index))


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015) on the input, value by value, followed by the projection.

    ``step_size`` is in pixel units, a number or one per example ``(B,)``.
    """

    step_size: float | Tensor
    beta1: float = 0.9
    beta2: float = 0.999
    tiny: float = 1e-8

    def init(self, x: Tensor, steps: int) -> tuple[Tensor, Tensor, int]:
        """The running means of the gradient and of its square, and the number of steps."""
        return torch.zeros_like(x), torch.zeros_like(x), 0

    def step(
        self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: tuple[Tensor, Tensor, int]
    ) -> tuple[Tensor, tuple[Tensor, Tensor, int]]:
        mean, square, t = state[0].lerp(grad, 1 - self.beta1), state[1].lerp(grad * grad, 1 - self.beta2), state[2] + 1
        direction = (mean / (1 - self.beta1**t)) / ((square / (1 - self.beta2**t)).sqrt() + self.tiny)
        return constraint.project(x - per_example(self.step_size, x) * direction), (mean, square, t)

    def at(self, index: Tensor) -> Adam:
        return replace(self, step_size=restricted(self.step_size, index))
