"""FMN, the fast minimum-norm attack (Pintor et al. 2021): a ball that shrinks around what fools and grows around what does not."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from robustlab.attacks.nearest import Nearest
from robustlab.constraints import ConstraintSet
from robustlab.errors import UserError
from robustlab.norms import L0, L1, L2, AttackNorm, Linf, Norm
from robustlab.optimize import StepRule

CAREFUL = 5  # steps in which the radius goes only a little beyond the boundary that linearization tells


def falling(first: float, last: float, t: int, steps: int) -> float:
    """From ``first`` to ``last`` along a cosine, after ``t`` of ``steps`` steps."""
    return last + (first - last) * (1 + math.cos(math.pi * t / max(steps, 1))) / 2


@dataclass(frozen=True)
class FMN(Nearest):
    """Gradient steps on the margin inside a ball whose radius each example finds by itself.

    Until a point fools, the radius is the distance to the boundary by linearization; then it shrinks by a share gamma where the point
    fools, to the nearest such point at most, and grows by it elsewhere. In L0 it changes by one at least; the paper counts values, as
    ``L0(pixels=False)`` does, and ``L0()`` counts pixels. Steps have a length in L2 in every norm.

    Unlike the paper's, the radius is a little longer than that before a point fools, by the last gamma and after 5 steps by gamma, and
    values that cannot go on, at a side of the pixel box, have no part in steps and linearization: else a linear boundary is reached but not
    crossed, and at the sides not even that. The last point is evaluated, which public code leaves out.

    Costs an example ``steps`` forward and backward passes and one forward pass.

    Attributes:
        norm: ``Linf()``, ``L2()``, ``L1()`` or ``L0()``.
        steps: gradient steps.
        alpha_init, alpha_final: length of the first step and, along a cosine, of the last; None is a hundredth of the first.
        gamma_init, gamma_final: share by which the radius changes, first and last.
        enough: see ``Nearest``.
    """

    steps: int = 100
    alpha_init: float = field(default=1.0, kw_only=True)
    alpha_final: float | None = field(default=None, kw_only=True)
    gamma_init: float = field(default=0.05, kw_only=True)
    gamma_final: float = field(default=0.001, kw_only=True)
    norms: ClassVar[tuple[type[Norm], ...]] = (Linf, L2, L1, L0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0 or not (self.alpha_init >= 0 and 0 <= self.gamma_init <= 1 and 0 <= self.gamma_final <= 1):
            found = f"{self.steps}, {self.alpha_init}, {self.gamma_init} and {self.gamma_final}"
            raise UserError(f"FMN needs steps >= 0, alpha_init >= 0, gamma_init and gamma_final from 0 to 1, got {found}")

    @property
    def label(self) -> str:
        return f"FMN-{self.steps}"

    def _rule(self, x: Tensor) -> StepRule:
        last = self.alpha_init / 100 if self.alpha_final is None else self.alpha_final
        return FMNStep(x, self.norm, (self.alpha_init, last), (self.gamma_init, self.gamma_final))


@dataclass(frozen=True, eq=False)
class FMNStep:
    """The step of FMN. The objective's value tells where a point fools, by being at most 0.

    Attributes:
        image: shape ``(B, ...)``.
        norm: of the ball.
        alpha: length of the first step and the last, in L2.
        gamma: share by which the radius changes, first and last.
    """

    image: Tensor
    norm: Norm
    alpha: tuple[float, float] = (1.0, 0.01)
    gamma: tuple[float, float] = (0.05, 0.001)

    def init(self, x: Tensor, steps: int) -> tuple[int, int, Tensor, Tensor]:
        """Steps taken and steps in all, the radius, and the distance of the nearest point that fools, float64 ``(B,)``."""
        rows = torch.ones(len(x), dtype=torch.float64, device=x.device)
        return 0, steps, rows if isinstance(self.norm, L0) else rows * 0, rows * torch.inf

    def step(
        self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: tuple[int, int, Tensor, Tensor]
    ) -> tuple[Tensor, tuple[int, int, Tensor, Tensor]]:
        t, steps, radius, best = state
        grad = constraint.tangent(x, grad)
        fools, delta = value <= 0, x.double() - self.image.double()
        length = self.norm.measure(delta)
        best = torch.where(fools, torch.minimum(best, length), best)
        gamma = falling(*self.gamma, t, steps)
        if isinstance(self.norm, L0):
            radius = _next_count(radius, best, fools, gamma)
        else:
            ahead = length + value.double() / self.norm.dual.measure(grad.double()).clamp_min(1e-12)
            ahead = ahead * (1 + (self.gamma[1] if t < CAREFUL else gamma))
            outside = torch.where(best < torch.inf, radius * (1 + gamma), ahead)
            radius = torch.where(fools, torch.minimum(radius * (1 - gamma), best), outside)
        radius = torch.minimum(radius, self.norm.measure(torch.maximum(self.image, 1 - self.image).double()))
        moved = delta - falling(*self.alpha, t, steps) * L2().steepest(grad.double())
        assert isinstance(self.norm, AttackNorm)
        moved = self.norm.project(moved, radius)
        return constraint.project((self.image.double() + moved).to(x.dtype)), (t + 1, steps, radius, best)

    def at(self, index: Tensor) -> FMNStep:
        return replace(self, image=self.image[index])


def _next_count(radius: Tensor, best: Tensor, fools: Tensor, gamma: float) -> Tensor:
    """The next radius in L0."""
    less = torch.minimum(torch.minimum(radius - 1, (radius * (1 - gamma)).floor()), best).clamp_min(0)
    return torch.where(fools, less, torch.maximum(radius + 1, (radius * (1 + gamma)).floor()))
