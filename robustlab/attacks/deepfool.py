"""DeepFool (Moosavi-Dezfooli et al. 2016): onto the nearest boundary, taken as a plane, until it is crossed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor

from robustlab.attacks.boundaries import NearestBoundary
from robustlab.attacks.nearest import Nearest
from robustlab.attacks.protocols import Model
from robustlab.constraints import ConstraintSet
from robustlab.errors import UserError
from robustlab.goals import Goal, Untargeted, margin
from robustlab.hyperplanes import shortest_move
from robustlab.norms import L2, Linf, Norm
from robustlab.objectives import Objective
from robustlab.optimize import Solution, StepRule, when_achieved


@dataclass(frozen=True)
class DeepFool(Nearest):
    """The shortest moves onto the linearized boundaries, summed up; the sum is carried a little too far.

    The moves are the shortest in the pixel box, where the paper knows no box, and public code cuts them off at its sides. Each move after
    the first goes a thousandth of their sum too far, lest an example comes to rest on the boundary; in public code that is 1e-4.

    Quick, and farther from the image than the other minimum-norm attacks: an example is done with the first point that fools.

    Costs an example one forward pass and a backward pass for each class, for each step until it is done.

    Attributes:
        norm: ``L2()`` or ``Linf()``.
        steps: at most so many.
        overshoot: by how much the sum is lengthened.
        classes: boundaries between so many classes are looked at, the label and the likeliest others.
        enough: of no use here.
    """

    steps: int = 50
    overshoot: float = field(default=0.02, kw_only=True)
    classes: int = field(default=10, kw_only=True)
    norms: ClassVar[tuple[type[Norm], ...]] = (L2, Linf)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0 or self.classes < 2 or not self.overshoot >= 0:
            found = f"{self.steps}, {self.classes} and {self.overshoot}"
            raise UserError(f"DeepFool needs steps >= 0, classes >= 2 and overshoot >= 0, got {found}")

    @property
    def label(self) -> str:
        return "DeepFool" if self.steps == 50 else f"DeepFool-{self.steps}"

    def _goals(self, model: Model, x: Tensor, y: Tensor | Goal) -> tuple[Goal, ...]:
        if not isinstance(y, Tensor):
            raise UserError(f"DeepFool leaves labels for the nearest class: give labels, not {type(y).__name__}")
        return (Untargeted(y, margin),)

    def _objective(self, model: Model, goal: Goal, x: Tensor) -> Objective:
        assert isinstance(goal, Untargeted)
        return NearestBoundary(model, goal.y, self.norm, self.classes - 1)

    def _rule(self, x: Tensor) -> StepRule:
        return DeepFoolStep(x, self.norm, self.overshoot)

    def _done(self, found: Solution) -> Tensor:
        return when_achieved(found)


_BEYOND = 1e-3  # in units of the sum of the moves


@dataclass(frozen=True, eq=False)
class DeepFoolStep:
    """The step of DeepFool.

    Attributes:
        image: shape ``(B, ...)``.
        norm: of the moves.
        overshoot: by how much their sum is lengthened.
    """

    image: Tensor
    norm: Norm
    overshoot: float = 0.02

    def init(self, x: Tensor, steps: int) -> Tensor:
        """The sum of the moves, which is zero at first."""
        return torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))

    def step(self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: Tensor) -> tuple[Tensor, Tensor]:
        fine = torch.promote_types(x.dtype, torch.float32)
        base = self.image.to(fine) + state
        grad = grad.to(fine)
        beyond = _BEYOND * self.norm.measure(state) * self.norm.dual.measure(grad)
        moved = state + shortest_move(grad, -(value.to(fine) + beyond), self.norm, -base, 1 - base)
        return constraint.project((self.image.to(fine) + (1 + self.overshoot) * moved).to(x.dtype)), moved

    def at(self, index: Tensor) -> DeepFoolStep:
        return replace(self, image=self.image[index])
