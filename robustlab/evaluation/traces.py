"""Four of the six indicators of attack failure (Pintor et al. 2022), from what one run of ``minimize`` went through.

The other two, predictions that are unstable near an image and an attack without a limit that fails, belong to the model: ``diagnose``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustlab.constraints import ConstraintSet
from robustlab.evaluation.findings import Finding, short
from robustlab.optimize import StepRule

ENOUGH_STEPS = 10  # fewer are no search that could have come to rest
STILL_FALLING = 0.1  # of all that was gained, by the last quarter of the steps
SOME = 0.1  # share of images from which on it is told


class Trace:
    """Notes values and vanishing gradients of one run; costs no passes and asks the device for nothing.

        trace = Trace()
        found = minimize(objective, x, allowed, trace.watching(rule), steps=40, on_step=trace)
        print(*attack_failures(trace, found.value), sep="\\n")

    The objective must be below 0 where the goal is achieved, and only there, as ``Untargeted(y, margin)`` and ``dlr`` are.
    """

    def __init__(self) -> None:
        self.values: list[Tensor] = []  # for each point met, (B,)
        self.flat: list[Tensor] = []  # for each step, bool (B,): whether the gradient was exactly zero

    def __call__(self, step: int, x: Tensor, value: Tensor) -> None:
        self.values.append(value)

    def watching(self, rule: StepRule) -> StepRule:
        """The rule, with a note on each gradient that it is given."""
        return _Watching(rule, self)


@dataclass(frozen=True)
class _Watching:
    """A step rule that is watched. It has no ``at``, so a batch stays whole and all notes are of all images."""

    rule: StepRule
    trace: Trace

    def init(self, x: Tensor, steps: int) -> Any:
        return self.rule.init(x, steps)

    def step(self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: Any) -> tuple[Tensor, Any]:
        self.trace.flat.append(~(grad != 0).flatten(1).any(1))
        return self.rule.step(x, value, grad, constraint, state)


def attack_failures(trace: Trace, returned: Tensor | None = None) -> tuple[Finding, ...]:
    """Why a run may have found nothing: silent success, incomplete optimization, unavailable and transient gradients.

    Args:
        trace: of the run.
        returned: the objective at the points that are returned, ``(B,)``; the last values where left out.
    """
    if not trace.values or not len(trace.values[0]):
        return ()
    values = torch.stack(trace.values).nan_to_num(torch.inf)  # (T + 1, B)
    end = values[-1] if returned is None else returned
    flat = torch.stack(trace.flat) if trace.flat else torch.zeros(0, values.shape[1], dtype=torch.bool, device=values.device)
    return tuple(f for found in (silent_success(values, end), incomplete(values), vanishing(values, flat)) for f in found)


def silent_success(values: Tensor, end: Tensor) -> Iterator[Finding]:
    """Images that were broken on the way and come back unbroken."""
    missed, n = int(((values < 0).any(0) & ~(end < 0)).sum()), values.shape[1]
    if missed:
        yield Finding(
            "silent-success",
            f"the attack met an adversarial image for {missed} of {n} images and did not return it: the accuracy under it is too high by "
            "as much; return the best point met, not the last (`keep_best`)",
            {"images": missed, "n": n},
        )


def incomplete(values: Tensor) -> Iterator[Finding]:
    """Images that hold, whose loss still falls in the last quarter of the steps."""
    steps, n = len(values) - 1, values.shape[1]
    if steps < ENOUGH_STEPS:
        return
    best = values.cummin(0).values
    gained, late = best[0] - best[-1], best[steps - steps // 4] - best[-1]
    falling = int(((best[-1] >= 0) & (late > STILL_FALLING * gained)).sum())
    if falling > SOME * n:
        yield Finding(
            "incomplete",
            f"for {falling} of {n} images, not broken, more than {STILL_FALLING:.0%} of what {steps} steps gained came in the last quarter "
            "of them: more steps would break more images; double `steps` until the accuracy under attack stays",
            {"images": falling, "n": n, "steps": steps},
        )


def vanishing(values: Tensor, flat: Tensor) -> Iterator[Finding]:
    """Images whose gradient is exactly zero at the start, or on the way to where they hold."""
    steps, n = flat.shape
    if not steps:
        return
    holding = (values >= 0).all(0)
    start = int((flat[0] & holding).sum())
    later = int((~flat[0] & flat[1:].any(0) & holding).sum()) if steps > 1 else 0
    if start:
        yield Finding(
            "unavailable-gradient",
            f"the gradient is exactly zero where the attack starts for {start} of {n} images, and it found nothing there: they count as "
            "robust and were not attacked; attack them by another loss, a random start, or without gradients",
            {"images": start, "n": n, "share": short(start / n)},
        )
    if later:
        yield Finding(
            "transient-gradient",
            f"the gradient becomes exactly zero on the way for {later} of {n} images, and the attack stopped there: they count as robust "
            "and were not attacked to the end; use several random starts, another loss, or an attack without gradients",
            {"images": later, "n": n, "share": short(later / n)},
        )
