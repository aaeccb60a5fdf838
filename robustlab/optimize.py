"""The one loop: minimize a per-example objective over a constraint set.

minimize  f_i(x_i)   over  x_i in C_i            x  <-  project_C( x - step(grad f) )
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from robustlab.constraints import ConstraintSet
from robustlab.errors import UserError
from robustlab.norms import expanded
from robustlab.objectives import Objective, evaluate_objective, value_and_gradient

OnStep = Callable[[int, Tensor, Tensor], object]


class StepRule(Protocol):
    """How to move. The state is a value passed in and out, so a rule can serve many runs at once."""

    def init(self, x: Tensor, steps: int) -> Any: ...

    def step(self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: Any) -> tuple[Tensor, Any]:
        """The next point, inside the constraint, and the next state."""
        ...


@dataclass(frozen=True)
class Solution:
    """Points with what is known of them.

    Attributes:
        x: in the constraint set, shape ``(B, ...)``.
        value: the objective at ``x``, shape ``(B,)``; None with ``keep_best=False``, which does not evaluate the last point.
        achieved: the objective's verdict at ``x``, bool ``(B,)``, where it gives one.
    """

    x: Tensor
    value: Tensor | None = None
    achieved: Tensor | None = None

    def or_better(self, other: Solution) -> Solution:
        """For each example the better of two evaluated points: one that achieves its goal before one that does not,
        then the lower value; ``other`` where they are equal."""
        assert self.value is not None and other.value is not None
        better = other.value <= self.value
        if self.achieved is None or other.achieved is None:
            return Solution(torch.where(expanded(better, self.x), other.x, self.x), torch.where(better, other.value, self.value))
        better = torch.where(self.achieved == other.achieved, better, other.achieved)
        return Solution(
            torch.where(expanded(better, self.x), other.x, self.x),
            torch.where(better, other.value, self.value),
            self.achieved | other.achieved,
        )


def minimize(
    objective: Objective,
    x0: Tensor,
    constraint: ConstraintSet,
    rule: StepRule,
    *,
    steps: int,
    keep_best: bool = True,
    on_step: OnStep | None = None,
) -> Solution:
    """Minimize ``objective`` over ``constraint``, for each example by itself.

    Costs ``steps`` forward and backward passes with respect to the input; ``keep_best`` adds one forward pass.

    Args:
        objective: ``(B, ...) -> (B,)``, lower is better, optionally with a verdict; see ``robustlab.objectives``.
        x0: where to start, shape ``(B, ...)``; projected first, not changed.
        steps: number of steps, at least 0.
        keep_best: return the best point met (see ``Solution.or_better``) rather than the last.
        on_step: called with (step, x, value) before each step, and after the last where it is evaluated.

    Raises:
        UserError: the objective or its gradient is not a number for some example.
    """
    if steps < 0:
        raise UserError(f"steps must be >= 0, got {steps}")
    x = constraint.project(x0.detach())
    if len(x) == 0:
        return Solution(x, x.new_zeros(0), torch.zeros(0, dtype=torch.bool, device=x.device)) if keep_best else Solution(x)
    state = rule.init(x, steps)
    best: Solution | None = None
    broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for t in range(steps):
        value, achieved, grad = value_and_gradient(objective, x)
        # A sum that is not finite reveals an entry that is not; looked at once, at the end, to keep the device busy.
        broken |= value.isnan() | ~grad.flatten(1).sum(1).isfinite()
        if keep_best:
            here = Solution(x, value, achieved)
            best = best.or_better(here) if best else here
        if on_step:
            on_step(t, x, value)
        x, state = rule.step(x, value, grad, constraint, state)
    if keep_best:
        with torch.no_grad():
            value, achieved = evaluate_objective(objective, x)
        broken |= value.isnan()
        here = Solution(x, value, achieved)
        best = best.or_better(here) if best else here
        if on_step:
            on_step(steps, x, value)
    _refuse(broken)
    return best or Solution(x)


def _refuse(broken: Tensor) -> None:
    if broken.any():
        which = broken.nonzero().flatten().tolist()
        shown = ", ".join(map(str, which[:5])) + (", ..." if len(which) > 5 else "")
        raise UserError(
            f"the objective or its gradient is NaN or infinite for {len(which)} of {len(broken)} examples (positions {shown}): "
            "look at the model's logits on these inputs"
        )
