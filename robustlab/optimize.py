"""The one loop: minimize a per-example objective over a constraint set.

minimize  f_i(x_i)   over  x_i in C_i            x  <-  project_C( x - step(grad f) )
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from robustlab.constraints import ConstraintSet
from robustlab.errors import UserError
from robustlab.norms import expanded
from robustlab.objectives import Objective, PerStep, at_step, evaluate_objective, value_and_gradient
from robustlab.subsets import Indivisible, restricted

OnStep = Callable[[int, Tensor, Tensor], object]


class StepRule(Protocol):
    """How to move. The state is a value passed in and out, so a rule can serve many runs at once.

    Where examples may leave the batch, rule and state are restricted to the others by ``robustlab.subsets.restricted``: a rule
    needs a method ``at(index)`` for that, and a state of tensors, numbers and tuples of them needs nothing.

    A rule may have a method ``over(state)``, bool ``(B,)``: the examples that it is done with. They leave the batch as well.

    A rule may have a method ``look``, if it takes gradients elsewhere than at the point itself: see the function ``look``.
    """

    def init(self, x: Tensor, steps: int) -> Any: ...

    def step(self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: Any) -> tuple[Tensor, Any]:
        """The next point, inside the constraint, and the next state."""
        ...


@dataclass(frozen=True)
class Solution:
    """Points with what is known of them.

    Attributes:
        x: in the constraint set, shape ``(B, ...)``.
        value: the objective at ``x``, shape ``(B,)``; None where the point was not evaluated.
        achieved: the objective's verdict at ``x``, bool ``(B,)``, where it gives one.
        finite: bool ``(B,)``: whether value and gradient were numbers at all points met. A value of infinity is one.
        passes: int64 ``(B,)``: at how many points the objective was evaluated for each example, where that was counted.
    """

    x: Tensor
    value: Tensor | None = None
    achieved: Tensor | None = None
    finite: Tensor | None = None
    passes: Tensor | None = None

    def or_better(self, other: Solution) -> Solution:
        """For each example the better of two evaluated points: one that achieves its goal before one that does not,
        then the lower value; ``other`` where they are equal. Its passes are those of both."""
        assert self.value is not None and other.value is not None
        better, achieved, finite, passes = other.value <= self.value, None, None, None
        if self.achieved is not None and other.achieved is not None:
            better = torch.where(self.achieved == other.achieved, better, other.achieved)
            achieved = self.achieved | other.achieved
        if self.finite is not None and other.finite is not None:
            finite = self.finite & other.finite
        if self.passes is not None and other.passes is not None:
            passes = self.passes + other.passes
        x = torch.where(expanded(better, self.x), other.x, self.x)
        return Solution(x, torch.where(better, other.value, self.value), achieved, finite, passes)

    def at(self, index: Tensor) -> Solution:
        """The examples at the positions ``index``, int64 ``(b,)``."""
        return Solution(self.x[index], *restricted((self.value, self.achieved, self.finite, self.passes), index))

    def put(self, index: Tensor, part: Solution) -> Solution:
        """All the examples, those at ``index`` as they are in ``part``; None stays None."""
        known = ((getattr(self, name), getattr(part, name)) for name in ("value", "achieved", "finite", "passes"))
        parts = (None if a is None or b is None else a.index_copy(0, index, b) for a, b in known)
        return Solution(self.x.index_copy(0, index, part.x), *parts)


def look(rule: StepRule, objective: Objective, x: Tensor, state: Any) -> tuple[Tensor, Tensor | None, Tensor, Any]:
    """What a rule is to be handed for a step: by its own method of this name, else the gradient at the point.

    So a rule may take its gradient ahead of the point, or several of them around it. Rules that wrap another one ask it by this function.

    Args:
        rule: whose step it is.
        objective: of this step.
        x: the points, shape ``(B, ...)``.
        state: the rule's.

    Returns:
        Value and verdict where the rule looked, the gradient, shape of ``x``, and the rule's state, all as ``step`` takes them.
    """
    own = getattr(rule, "look", None)
    found: tuple[Tensor, Tensor | None, Tensor, Any] = (
        (*value_and_gradient(objective, x), state) if own is None else own(objective, x, state)
    )
    return found


def when_achieved(solution: Solution) -> Tensor:
    """For ``done``: the examples whose goal is achieved, bool ``(B,)``."""
    if solution.achieved is None:
        raise ValueError("the objective must give a verdict beside its value")
    return solution.achieved


def minimize(
    objective: Objective | PerStep,
    x0: Tensor,
    constraint: ConstraintSet,
    rule: StepRule,
    *,
    steps: int,
    keep_best: bool = True,
    rank: Objective | None = None,
    evaluate_last: bool = False,
    stop: Callable[[], bool] = lambda: False,
    done: Callable[[Solution], Tensor] | None = None,
    allow_nonfinite: bool = False,
    on_step: OnStep | None = None,
) -> Solution:
    """Minimize ``objective`` over ``constraint``, for each example by itself.

    Costs ``steps`` forward and backward passes with respect to the input; ``keep_best``, ``evaluate_last`` and ``done`` add one
    forward pass, for the last point. Asks the device for one number, at the end; with ``allow_nonfinite`` for none, and with ``done``
    for one in each step.

    Args:
        objective: ``(B, ...) -> (B,)``, lower is better, optionally with a verdict; or one such function for each step. See
            ``robustlab.objectives``.
        x0: where to start, shape ``(B, ...)``; projected first, not changed.
        steps: number of steps, at least 0.
        keep_best: return the best point met (see ``Solution.or_better``) rather than the last.
        rank: what points are compared by in place of the objective's value, from points to ``(B,)``, lower is better: the distance from
            an image where the nearest point is looked for that achieves the goal. It is the value that ``done`` sees and that is returned.
        evaluate_last: know the value of the last point also without ``keep_best``.
        stop: asked before each step; a true answer ends the loop with what is known by then.
        done: from the best points so far (without ``keep_best`` the current ones) to bool ``(B,)``, asked before each step:
            ``when_achieved``, say. Examples that are done stay as they are. They leave the batch, so that the others cost less, where
            objective, constraint, rule and its state can be restricted to some of the examples (see ``robustlab.subsets``); values
            may then differ by rounding from those in a whole batch, but not between two runs.
        allow_nonfinite: instead of refusing a batch where some value or gradient is not a number, return those examples at the best
            point before that, or where there is none, and without ``keep_best``, at their start; ``Solution.finite`` tells which they are.
        on_step: called with (step, x, value) of all the examples before each step, and after the last where it is evaluated.

    Returns:
        Points in the constraint set; ``finite`` is always known.

    Raises:
        UserError: the objective or its gradient is not a number for some example.
        ValueError: ``keep_best`` or ``done`` with a rule that looks elsewhere than at the points: their values are not known.
    """
    if steps < 0:
        raise UserError(f"steps must be >= 0, got {steps}")
    if hasattr(rule, "look") and (keep_best or done):
        raise ValueError(f"{type(rule).__name__} looks elsewhere than at the points, so it needs keep_best=False and no done")
    batch = _Batch.started(objective, x0, constraint, rule, steps, keep_best, rank)
    batch.watched = keep_best or done is not None or on_step is not None
    evaluated = keep_best or evaluate_last or done is not None
    if not batch.size:
        return batch.nothing if evaluated else batch.found
    t = _take_steps(batch, steps, stop, done, on_step)
    if evaluated and batch.size:
        with torch.no_grad():
            value, achieved = evaluate_objective(at_step(batch.objective, t), batch.x)
        here = batch.record(value, achieved, ~value.isnan())
        if on_step:
            on_step(t, *batch.shown(here))
    solution = batch.whole(batch.settled() if allow_nonfinite else replace(batch.found, passes=batch.count))
    if not allow_nonfinite:
        refuse_nonfinite(solution)
    return solution


def _take_steps(
    batch: _Batch, steps: int, stop: Callable[[], bool], done: Callable[[Solution], Tensor] | None, on_step: OnStep | None
) -> int:
    """The loop: evaluate and move, until all steps are taken, every example is done, or ``stop`` says so; returns the steps taken."""
    t = 0
    while t < steps and batch.size and not stop():
        value, achieved, grad, batch.state = look(batch.rule, at_step(batch.objective, t), batch.x, batch.state)
        # A sum that is not finite reveals an entry that is not; looked at once, at the end, to keep the device busy.
        fine = (value == value) & grad.flatten(1).sum(1).isfinite()  # NaN is not equal to itself
        here = batch.record(value, achieved, fine) if batch.watched else batch.pass_by(fine)
        if on_step:
            on_step(t, *batch.shown(here))
        if done:
            value, grad = batch.let_go(done(batch.found) | batch.ruled_out(), value, grad)
        if batch.size:
            batch.move(value, grad)
            t += 1
    return t


@dataclass
class _Batch:
    """The examples under way with what belongs to them, and what became of those that are done.

    Attributes:
        found: what is known of each example under way: its best point, or its current one.
        start: where each example under way began.
        rows: where they stand in ``x``; None where they are all of it.
        index: their positions among all the examples; None where they are all.
        ended: all the examples, those that are done as they ended; None where none is.
        passes: how often the objective was evaluated.
        watched: whether values and verdicts at points before the last one matter to anyone.
    """

    objective: Objective | PerStep
    rank: Objective | None
    constraint: ConstraintSet
    rule: StepRule
    x: Tensor
    state: Any
    finite: Tensor
    keep_best: bool
    found: Solution
    start: Tensor
    rows: Tensor | None = None
    index: Tensor | None = None
    ended: Solution | None = None
    passes: int = 0
    watched: bool = True

    @classmethod
    def started(
        cls,
        objective: Objective | PerStep,
        x0: Tensor,
        constraint: ConstraintSet,
        rule: StepRule,
        steps: int,
        keep_best: bool,
        rank: Objective | None,
    ) -> _Batch:
        x = constraint.project(x0.detach())
        finite = torch.ones(len(x), dtype=torch.bool, device=x.device)
        state = rule.init(x, steps) if len(x) else None
        return cls(objective, rank, constraint, rule, x, state, finite, keep_best, Solution(x, finite=finite), x)

    @property
    def size(self) -> int:
        """How many examples are under way."""
        return self.found.x.shape[0]

    @property
    def nothing(self) -> Solution:
        """The evaluated solution of no examples."""
        return Solution(self.x, self.x.new_zeros(0), self.finite, self.finite, self.count)

    def record(self, value: Tensor, achieved: Tensor | None, fine: Tensor) -> Solution:
        """Keep what is known of the current points, and return it for the examples under way."""
        self.passes += 1
        if self.rank is not None:
            with torch.no_grad():
                value = torch.where(value.isnan(), torch.nan, evaluate_objective(self.rank, self.x)[0])
        # Where the last step led nowhere, values mean nothing, and where a value is NaN, its verdict does not.
        value = torch.where(self.finite, value, torch.nan)
        achieved = None if achieved is None else achieved & ~value.isnan()
        self.finite = self.finite & fine
        here = self._under_way(Solution(self.x, value, achieved, self.finite))
        self.found = self.found.or_better(here) if self.keep_best and self.found.value is not None else here
        return here

    def pass_by(self, fine: Tensor) -> Solution:
        """Keep of the current points only whether they are finite, which is what is known of a point on the way."""
        self.passes += 1
        self.finite = self.finite & fine
        return self.found

    def let_go(self, over: Tensor, value: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Let examples that are over or not finite end here; returns value and gradient at the points that are left."""
        assert self.found.finite is not None
        stay = (self.found.finite & ~over).nonzero()[:, 0]
        if len(stay) == self.size:
            return value, grad
        self.ended = self.whole(self.settled())
        self.index = stay if self.index is None else self.index[stay]
        self.rows = stay if self.rows is None else self.rows[stay]
        self.found, self.start = self.found.at(stay), self.start[stay]
        try:
            constraint = restricted(self.constraint, self.rows, self.x)
            belongings = self.objective, self.rank, self.rule, self.state, self.x, self.finite, value, grad
            self.objective, self.rank, self.rule, self.state, self.x, self.finite, value, grad = restricted(belongings, self.rows)
        except Indivisible:
            return value, grad  # all are computed on, and what becomes of those that have ended is not looked at
        self.constraint, self.rows = constraint, None
        return value, grad

    def ruled_out(self) -> Tensor | bool:
        """The examples under way that the rule is done with."""
        over = getattr(self.rule, "over", None)
        if over is None:
            return False
        found: Tensor = over(self.state)
        return found if self.rows is None else found[self.rows]

    def move(self, value: Tensor, grad: Tensor) -> None:
        """Take a step. Examples that are not finite take it too, wherever it leads: to hold them back would cost each step."""
        self.x, self.state = self.rule.step(self.x, value, grad, self.constraint, self.state)
        if not self.keep_best:
            self.found = self._under_way(Solution(self.x, finite=self.finite))

    def settled(self) -> Solution:
        """What is known; without ``keep_best`` examples that are not finite are back at their start."""
        finite, value = self.found.finite, self.found.value
        if self.keep_best or finite is None:
            return replace(self.found, passes=self.count)
        x = torch.where(expanded(finite, self.start), self.found.x, self.start)
        return replace(self.found, x=x, value=None if value is None else torch.where(finite, value, torch.nan), passes=self.count)

    @property
    def count(self) -> Tensor:
        """The passes of each example under way."""
        return torch.full((self.size,), self.passes, dtype=torch.int64, device=self.x.device)

    def shown(self, here: Solution) -> tuple[Tensor, Tensor]:
        """Points and values of all the examples, those under way as they are in ``here``."""
        everyone = self.whole(here)
        assert everyone.value is not None
        return everyone.x, everyone.value

    def whole(self, part: Solution) -> Solution:
        """All the examples, those under way as they are in ``part``."""
        return part if self.ended is None or self.index is None else self.ended.put(self.index, part)

    def _under_way(self, solution: Solution) -> Solution:
        return solution if self.rows is None else solution.at(self.rows)


def refuse_nonfinite(solution: Solution) -> None:
    """Refuse a solution with examples that are not ``finite``; asks the device for one number.

    Raises:
        UserError: with their positions.
    """
    if solution.finite is None or solution.finite.all():
        return
    which = (~solution.finite).nonzero().flatten().tolist()
    shown = ", ".join(map(str, which[:5])) + (", ..." if len(which) > 5 else "")
    raise UserError(
        f"the objective or its gradient is NaN or infinite for {len(which)} of {len(solution.finite)} examples (positions {shown}): "
        "look at the model's logits on these inputs"
    )
