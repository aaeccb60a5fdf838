"""Run an optimizer on weights, many seeds at once, and keep the path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustlab.constraints import Everywhere
from robustlab.errors import UserError
from robustlab.linear_bias.optimizers import as_rule
from robustlab.objectives import Objective, PerStep
from robustlab.optimize import minimize


@dataclass(frozen=True, eq=False)
class Path:
    """Where a descent went.

    Attributes:
        moments: numbers of steps after which a point was kept, rising; the last is the end.
        points: the points, ``(T, S, ...)``.
        values: the objective there, ``(T, S)``.
        finite: bool ``(S,)``: whether value and gradient were numbers all the way.
    """

    moments: tuple[int, ...]
    points: Tensor
    values: Tensor
    finite: Tensor

    @property
    def last(self) -> Tensor:
        """The last point of each seed, ``(S, ...)``."""
        return self.points[-1]

    def then(self, next: Path) -> Path:
        """This path and the ``next``, which begins at its last point, as one; their moments are counted on.

        Raises:
            UserError: the next path does not begin there.
        """
        if next.moments[0] or not torch.equal(next.points[0], self.last):
            raise UserError("a path can be followed by one that was kept from step 0 on, and begins at its last point")
        moments = (*self.moments, *(self.moments[-1] + moment for moment in next.moments[1:]))
        points, values = torch.cat([self.points, next.points[1:]]), torch.cat([self.values, next.values[1:]])
        return Path(moments, points, values, self.finite & next.finite)


def moments(steps: int, per_decade: int = 8) -> tuple[int, ...]:
    """Numbers of steps for a logarithmic axis: 0, 1, ..., ``steps``, about ``per_decade`` between a number and ten times it."""
    last = max(steps, 1)
    exponents = range(int(per_decade * torch.tensor(float(last)).log10().item()) + 1)
    return tuple(sorted({0, steps, *(min(round(10 ** (k / per_decade)), steps) for k in exponents)}))


def descend(
    objective: Objective | PerStep,
    start: Tensor,
    optimizer: Any,
    steps: int,
    *,
    keep: Sequence[int] | None = None,
    allow_nonfinite: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Take all steps, without constraint, and keep some points on the way; the last is the result, whatever its value.

    Args:
        objective: from points ``(S, ...)`` to values ``(S,)``: a ``LinearObjective``, a ``ModelObjective``, or any function.
        start: where to start, ``(S, ...)``; float64 for anything that takes many steps.
        optimizer: a step rule, or a function from parameters to a torch optimizer.
        steps: number of steps.
        keep: after how many steps a point is kept; ``moments(steps)`` if left out. The last always is.
        allow_nonfinite: return seeds that diverged too, marked in ``Path.finite``, instead of refusing them.
        stop: asked before each step; a true answer ends with KeyboardInterrupt.

    Raises:
        UserError: for some seed the objective or its gradient was not a number: the step is too large, or the data are.
    """
    kept: list[tuple[int, Tensor, Tensor]] = []
    wanted = {*(moments(steps) if keep is None else keep), steps}

    def on_step(t: int, x: Tensor, value: Tensor) -> None:
        if t in wanted:
            kept.append((t, x, value))

    rule = as_rule(optimizer)
    found = minimize(
        objective,
        start,
        Everywhere(),
        rule,
        steps=steps,
        keep_best=False,
        evaluate_last=True,
        allow_nonfinite=True,
        stop=stop,
        on_step=on_step,
    )
    if stop():
        raise KeyboardInterrupt
    assert found.finite is not None
    if not allow_nonfinite and not found.finite.all():
        which = (~found.finite).nonzero().flatten().tolist()
        raise UserError(f"{len(which)} of {len(found.finite)} runs diverged (the first is run {which[0]}): the step size is too large")
    times, points, values = zip(*kept, strict=True)
    return Path(times, torch.stack(points), torch.stack(values), found.finite)
