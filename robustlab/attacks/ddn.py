"""DDN, decoupled direction and norm (Rony et al. 2019): steps on a sphere that shrinks where a point fools and else grows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from robustlab.attacks.fmn import falling
from robustlab.attacks.nearest import Nearest
from robustlab.attacks.protocols import Model
from robustlab.constraints import ConstraintSet
from robustlab.errors import UserError
from robustlab.goals import Goal, Untargeted
from robustlab.norms import L2, Norm, expanded
from robustlab.optimize import StepRule


@dataclass(frozen=True)
class DDN(Nearest):
    """Gradient steps on the cross-entropy, each followed by the way back to a sphere around the image; L2 only.

    The paper rounds points to 8 bits, which this does not. The last point is evaluated too, which public code leaves out.

    Costs an example ``steps`` forward and backward passes and one forward pass.

    Attributes:
        norm: ``L2()``.
        steps: gradient steps.
        gamma: share by which the sphere's radius changes in each step.
        init_norm: its first radius.
        alpha_init, alpha_final: length of the first step, and along a cosine of the last.
        enough: see ``Nearest``.
    """

    norm: Norm = L2()
    steps: int = 100
    gamma: float = field(default=0.05, kw_only=True)
    init_norm: float = field(default=1.0, kw_only=True)
    alpha_init: float = field(default=1.0, kw_only=True)
    alpha_final: float = field(default=0.01, kw_only=True)
    norms: ClassVar[tuple[type[Norm], ...]] = (L2,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0 or not (0 <= self.gamma <= 1 and self.init_norm > 0):
            found = f"{self.steps}, {self.gamma} and {self.init_norm}"
            raise UserError(f"DDN needs steps >= 0, gamma from 0 to 1 and init_norm > 0, got {found}")

    @property
    def label(self) -> str:
        return f"DDN-{self.steps}"

    def _goals(self, model: Model, x: Tensor, y: Tensor | Goal) -> tuple[Goal, ...]:
        return (Untargeted(y) if isinstance(y, Tensor) else y,)

    def _rule(self, x: Tensor) -> StepRule:
        return DDNStep(x, self.gamma, self.init_norm, (self.alpha_init, self.alpha_final))


@dataclass(frozen=True, eq=False)
class DDNStep:
    """The step of DDN. The objective's value tells where a point fools, by being at most 0.

    Attributes:
        image: shape ``(B, ...)``.
        gamma, init_norm: see ``DDN``.
        alpha: length of the first step and the last.
    """

    image: Tensor
    gamma: float = 0.05
    init_norm: float = 1.0
    alpha: tuple[float, float] = (1.0, 0.01)

    def init(self, x: Tensor, steps: int) -> tuple[int, int, Tensor]:
        """Steps taken and steps in all, and the radius, float64 ``(B,)``."""
        return 0, steps, torch.full((len(x),), self.init_norm, dtype=torch.float64, device=x.device)

    def step(
        self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: tuple[int, int, Tensor]
    ) -> tuple[Tensor, tuple[int, int, Tensor]]:
        t, steps, radius = state
        radius = radius * torch.where(value <= 0, 1 - self.gamma, 1 + self.gamma)
        radius = torch.minimum(radius, L2().measure(torch.maximum(self.image, 1 - self.image).double()))
        moved = x.double() - self.image.double() - falling(*self.alpha, t, steps) * L2().steepest(grad.double())
        moved = L2().steepest(moved) * expanded(radius, moved)
        return constraint.project((self.image.double() + moved).to(x.dtype)), (t + 1, steps, radius)

    def at(self, index: Tensor) -> DDNStep:
        return replace(self, image=self.image[index])
