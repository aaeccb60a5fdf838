"""An attack from several starts: each further one runs only what no start before it has solved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robustlab.constraints import ConstraintSet
from robustlab.objectives import Objective, evaluate_objective
from robustlab.optimize import Solution, when_achieved
from robustlab.subsets import Indivisible, restricted


@dataclass(frozen=True, eq=False)
class Starts:
    """What the starts of one call share.

    Attributes:
        objectives: what they minimize: one for all, or one for each target.
        judges: the same of the model itself, where a stand-in searches and is not to be believed; else none.
        allowed: where solutions may lie.
        rule: how they move: a step rule of ``minimize``, or what else an attack moves by.
        x: the images, shape ``(B, ...)``.
        eps: their radius, a number or ``(B,)``.
        keys: int64 ``(B,)``.
    """

    objectives: tuple[Objective, ...]
    judges: tuple[Objective, ...]
    allowed: ConstraintSet
    rule: Any
    x: Tensor
    eps: float | Tensor
    keys: Tensor

    def at(self, index: Tensor) -> Starts:
        """The same for the examples at ``index``, int64 ``(b,)``.

        Raises:
            Indivisible: something belongs to the batch as a whole.
        """
        allowed = restricted(self.allowed, index, self.x)
        belongings = self.objectives, self.judges, self.rule, self.x, self.eps, self.keys
        objectives, judges, rule, x, eps, keys = restricted(belongings, index)
        return Starts(objectives, judges, allowed, rule, x, eps, keys)


def first_else_best(
    run: Starts,
    starts: int,
    solve: Callable[[Starts, int], Solution],
    *,
    whole: bool = False,
    solved: Callable[[Solution], Tensor] = when_achieved,
) -> Solution:
    """Of several starts, for each example the first that solves it, else the best; asks the device once for each but the first.

    Args:
        starts: how many, at least 1.
        solve: from a run and the number of a start to evaluated points.
        whole: run all the examples each time: batch statistics are those of a whole batch.
        solved: from the best points so far to bool ``(B,)``: for whom no further start is needed.
    """
    best = solve(run, 0)
    for number in range(1, starts):
        unsolved = (~solved(best)).nonzero()[:, 0]
        if not len(unsolved):
            break
        found = solve(run, number).at(unsolved) if whole else solve_some(run, unsolved, solve, number)
        best = best.put(unsolved, best.at(unsolved).or_better(found))
    return best


def solve_some(run: Starts, index: Tensor, solve: Callable[[Starts, int], Solution], number: int) -> Solution:
    """What a start finds for some of the examples; it runs no others, unless they belong together.

    Args:
        run: of all the examples.
        index: the positions of some, int64 ``(b,)``.
        solve: from a run and the number of a start to evaluated points.
        number: of the start.
    """
    try:
        some = run.at(index)
    except Indivisible:
        return solve(run, number).at(index)
    return solve(some, number)


def believed(
    run: Starts, found: Solution, aim: int, solve: Callable[[Starts, int], Solution], number: int, rank: Objective | None = None
) -> Solution:
    """What the model says of points that a stand-in found; where only the stand-in is fooled, the model is searched itself.

    Args:
        run: its judges say it; without any the points are returned as they are.
        found: by a start.
        aim: which of the judges.
        solve: from a run and the number of a start to evaluated points.
        number: of the start.
        rank: what points are compared by, where it is not the objective's value.
    """
    if not run.judges:
        return found
    true = judged(found, run.judges[aim], rank)
    assert found.achieved is not None and true.achieved is not None
    mistaken = (found.achieved & ~true.achieved).nonzero()[:, 0]
    if not len(mistaken):
        return true
    itself = solve_some(replace(run, objectives=run.judges, judges=()), mistaken, solve, number)
    if itself.passes is not None and true.passes is not None:
        itself = replace(itself, passes=itself.passes + true.passes[mistaken])
    return true.put(mistaken, itself)


@torch.no_grad()
def judged(found: Solution, judge: Objective, rank: Objective | None = None) -> Solution:
    """Points that a stand-in found, with the model's own verdicts, and its values, or where there is a ``rank``, that."""
    value, achieved = evaluate_objective(judge, found.x)
    assert found.finite is not None
    finite = found.finite & ~value.isnan()
    if rank is not None:
        value = torch.where(value.isnan(), torch.nan, evaluate_objective(rank, found.x)[0])
    return Solution(found.x, value, achieved, finite, None if found.passes is None else found.passes + 1)
