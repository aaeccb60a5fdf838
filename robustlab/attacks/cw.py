"""The L2 attack of Carlini and Wagner (2017): distance and margin weighed against each other, the weight found by bisection."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustlab.attacks.nearest import Beyond, Nearest, near_enough
from robustlab.attacks.starts import Starts, believed
from robustlab.constraints import ConstraintSet, Everywhere
from robustlab.errors import UserError
from robustlab.norms import L2, Norm
from robustlab.objectives import Objective, evaluate_objective
from robustlab.optimize import Solution, StepRule, minimize
from robustlab.steps import Adam
from robustlab.subsets import Indivisible, restricted

BEYOND = 0.005  # how far the range of the tanh reaches beyond the pixels'
PATIENCE = 10  # steps that an example has for a lower value; the public code looks at the whole batch, which hardly ever gives up


@dataclass(frozen=True)
class CW(Nearest):
    """Adam on ``‖x_adv - x‖² + c max(margin + confidence, 0)`` in tanh space, for one ``c`` after another; L2 only.

    ``c`` grows tenfold until a point fools, and is then halved in. The range of the tanh is wider than the pixels' by .005 on each side and
    held at the sides: the paper's begins near, not at, the image, and pixels that are exactly 0 or 1 hardly move in it.

    Costs an example, for each of the ``searches``, at most ``steps`` forward and backward passes and one forward pass.

    Attributes:
        norm: ``L2()``.
        steps: of Adam, for each ``c``; a search ends when a tenth of them, and no fewer than ten, have found no value lower by .01 %.
        searches: values of ``c``.
        step_size: of Adam, in tanh space.
        c: the first.
        confidence: margin that is asked for, the paper's kappa.
        enough: see ``Nearest``.
    """

    norm: Norm = L2()
    steps: int = 10_000
    searches: int = 9
    step_size: float = field(default=0.01, kw_only=True)
    c: float = field(default=1e-3, kw_only=True)
    confidence: float = field(default=0.0, kw_only=True)
    norms: ClassVar[tuple[type[Norm], ...]] = (L2,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0 or self.searches < 1 or not (self.c > 0 and self.step_size >= 0 and self.confidence >= 0):
            found = f"{self.steps}, {self.searches}, {self.c}, {self.step_size} and {self.confidence}"
            raise UserError(f"C&W needs steps >= 0, searches >= 1, c > 0, step_size >= 0 and confidence >= 0, got {found}")

    @property
    def label(self) -> str:
        return f"C&W-{self.searches}x{self.steps}"

    def _rule(self, x: Tensor) -> StepRule:
        return TanhAdam(self.step_size)

    def _search(self, run: Starts, number: int) -> Solution:
        one = torch.ones(len(run.x), dtype=torch.float64, device=run.x.device)
        c, low, high = self.c * one, 0 * one, torch.inf * one
        best, fooled = self._weighed(run, c)
        for _ in range(self.searches - 1):
            high = torch.where(fooled, torch.minimum(high, c), high)
            low = torch.where(fooled, low, torch.maximum(low, c))
            c = torch.where(high < torch.inf, (low + high) / 2, 10 * c)
            left = (~near_enough(best)).nonzero()[:, 0]
            if not len(left):
                break
            found, fools = self._some_weighed(run, left, c)
            best, fooled = best.put(left, best.at(left).or_better(found)), fooled.index_copy(0, left, fools)
        return believed(run, best, 0, self._search, number, Beyond(run.x, self.norm, run.eps))

    def _some_weighed(self, run: Starts, index: Tensor, c: Tensor) -> tuple[Solution, Tensor]:
        """The same for some of the examples; it runs no others, unless they belong together."""
        try:
            some = run.at(index)
        except Indivisible:
            found, fools = self._weighed(run, c)
            return found.at(index), fools[index]
        return self._weighed(some, c[index])

    def _weighed(self, run: Starts, c: Tensor) -> tuple[Solution, Tensor]:
        """What Adam finds with this ``c``, and whether it fools."""
        objective = _Weighed(run.objectives[0], run.x, c, self.confidence)
        rank = Beyond(run.x, self.norm, run.eps)
        found = minimize(objective, run.x, run.allowed, run.rule, steps=self.steps, rank=rank, done=near_enough, allow_nonfinite=True)
        assert found.achieved is not None
        return found, found.achieved


@dataclass(frozen=True, eq=False)
class _Weighed:
    """The objective for one ``c``, ``(B,)``."""

    margin: Objective
    image: Tensor
    c: Tensor
    confidence: float

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        ahead, achieved = evaluate_objective(self.margin, x)
        assert achieved is not None
        distance = (x - self.image).flatten(1).square().sum(1)
        return distance + self.c.to(ahead) * (ahead + self.confidence).clamp_min(0), achieved

    def at(self, index: Tensor) -> _Weighed:
        margin, image, c = restricted((self.margin, self.image, self.c), index)
        return _Weighed(margin, image, c, self.confidence)


@dataclass(frozen=True)
class TanhAdam:
    """Adam on ``w`` with ``x = .5 + (.5 + .005) tanh(w)``, held where ``x`` is 0 and 1.

    Attributes:
        step_size: in tanh space.
    """

    step_size: float

    def init(self, x: Tensor, steps: int) -> tuple[Any, ...]:
        """``w`` in float64, what Adam remembers, steps taken, steps between two looks, the lowest value, that at the last look, and who
        is over."""
        w = torch.atanh((x.double() - 0.5) / (0.5 + BEYOND))
        high = torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device)
        return w, Adam(self.step_size).init(w, steps), 0, max(steps // 10, PATIENCE), high, high, high < 0

    def step(
        self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: tuple[Any, ...]
    ) -> tuple[Tensor, tuple[Any, ...]]:
        w, memory, t, between, lowest, last, over = state
        lowest = torch.minimum(lowest, value.double())
        if t % between == 0:
            over, last = over | (lowest > 0.9999 * last), lowest
        slope = constraint.tangent(x, grad).double() * (0.5 + BEYOND) * (1 - w.tanh().square())
        w, memory = Adam(self.step_size).step(w, value, slope, Everywhere(), memory)
        end = torch.full_like(w[:1], 0.5 / (0.5 + BEYOND)).atanh()
        w = torch.maximum(torch.minimum(w, end), -end)
        return constraint.project((0.5 + (0.5 + BEYOND) * w.tanh()).to(x.dtype)), (w, memory, t + 1, between, lowest, last, over)

    def over(self, state: tuple[Any, ...]) -> Tensor:
        """Whose value has stopped falling, bool ``(B,)``."""
        over: Tensor = state[-1]
        return over

    def at(self, index: Tensor) -> TanhAdam:
        return self
