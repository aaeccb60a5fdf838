"""What minimum-norm attacks share: they look for the nearest adversarial image, however far."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import ClassVar, cast

import torch
from torch import Tensor

from robustlab.attacks.protocols import Asked, Checked, Model
from robustlab.attacks.starts import Starts, believed, first_else_best
from robustlab.constraints import PIXELS, ThreatModel
from robustlab.errors import UserError
from robustlab.goals import Goal, Signed, Untargeted, margin
from robustlab.norms import L0, L1, L2, AttackNorm, Linf, Norm, as_norm, expanded
from robustlab.objectives import Objective, goal_objective
from robustlab.optimize import Solution, StepRule, minimize
from robustlab.subsets import restricted


@dataclass(frozen=True)
class Nearest(Checked):
    """A minimum-norm attack: an objective, a step rule and a start; of all points met that achieve the goal the nearest is kept.

    Where none does, the image itself is returned.

    Attributes:
        norm: what distances are measured in, in pixel units: a norm, its class or its name.
        steps: of one start.
        enough: an example is done as soon as a point within this distance is found: a number, or one for each image ``(B,)``. None looks
            for the nearest to the end; images that are adversarial as they are, are done in any case.
    """

    norm: Norm
    steps: int
    enough: float | Tensor | None = field(default=None, kw_only=True)
    norms: ClassVar[tuple[type[Norm], ...]] = (Linf, L2, L1)

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", as_norm(cast(AttackNorm, self.norm)))
        if not isinstance(self.norm, self.norms):
            known = ", ".join(f"{norm.__name__}()" for norm in self.norms)
            raise UserError(f"{self.label} is known in {known}, got {self.norm!r}")
        if self.enough is not None and not torch.all(torch.as_tensor(self.enough) >= 0):
            raise UserError(f"enough must be a distance >= 0 in pixel units, or None, got {self.enough}")

    @property
    @abstractmethod
    def label(self) -> str:
        """Its name without the norm."""

    def __str__(self) -> str:
        return f"{self.label} ({type(self.norm).__name__}{f' in {self.norm.unit}' if isinstance(self.norm, L0) else ''})"

    def _solve(self, asked: Asked) -> Solution:
        """Images with their distance as ``value``, float64 ``(B,)``; ``passes`` counts the points at which a model was evaluated."""
        x, enough = asked.x, self.enough.to(asked.x.device) if isinstance(self.enough, Tensor) else self.enough or 0.0
        goals = self._goals(asked.model, x, asked.y)
        objectives, judges = asked.objectives(goals, lambda model, goal: self._objective(model, goal, x))
        run = Starts(objectives, judges, PIXELS, self._rule(x), x, enough, asked.keys)
        found = first_else_best(run, len(goals) * self._repeats, self._search, solved=near_enough)
        return with_distance(found, x, self.norm)

    def _goals(self, model: Model, x: Tensor, y: Tensor | Goal) -> tuple[Goal, ...]:
        """What to reach, one after another; the nearest of all counts. Labels are left by the margin."""
        return (Untargeted(y, margin) if isinstance(y, Tensor) else y,)

    def _objective(self, model: Model, goal: Goal, x: Tensor) -> Objective:
        """What leads there. Its value is at most 0 exactly where the goal is achieved."""
        return goal_objective(model, Signed(goal))

    @abstractmethod
    def _rule(self, x: Tensor) -> StepRule:
        """How to move around the images ``x``."""

    @property
    def _repeats(self) -> int:
        """Starts for each goal."""
        return 1

    def _begin(self, run: Starts, number: int) -> Tensor:
        """Where a start begins: at the images."""
        return run.x

    def _done(self, found: Solution) -> Tensor:
        """Who may leave, from the nearest points so far, bool ``(B,)``."""
        return near_enough(found)

    def _search(self, run: Starts, number: int) -> Solution:
        """What one start finds, ranked by how much farther it is than what is enough."""
        aim, rank = number // self._repeats, Beyond(run.x, self.norm, run.eps)
        found = minimize(
            run.objectives[aim],
            self._begin(run, number),
            run.allowed,
            run.rule,
            steps=self.steps,
            rank=rank,
            done=self._done,
            allow_nonfinite=True,
        )
        return believed(run, found, aim, self._search, number, rank)


@dataclass(frozen=True, eq=False)
class Beyond:
    """For ``rank`` of ``minimize``: how much farther than ``enough`` a point is from its image, float64 ``(B,)``; at most 0 within it.

    Attributes:
        center: the images, shape ``(B, ...)``.
        norm: what is measured.
        enough: a number or ``(B,)``.
    """

    center: Tensor
    norm: Norm
    enough: float | Tensor = 0.0

    def __call__(self, x: Tensor) -> Tensor:
        return self.norm.measure(x.double() - self.center.double()) - self.enough

    def at(self, index: Tensor) -> Beyond:
        return Beyond(self.center[index], self.norm, restricted(self.enough, index))


def near_enough(found: Solution) -> Tensor:
    """For ``done`` with a rank of ``Beyond``: who has achieved its goal within the distance that is enough, bool ``(B,)``."""
    assert found.achieved is not None and found.value is not None
    return found.achieved & (found.value <= 0)


def with_distance(found: Solution, x: Tensor, norm: Norm, within: float | Tensor = torch.inf) -> Solution:
    """Points that were ``found``, with their distance from the images ``x`` in ``norm`` as their value; the images themselves where the
    goal is not achieved, or not ``within`` a distance, a number or ``(B,)``."""
    distance = norm.measure(found.x.double() - x.double())
    assert found.achieved is not None
    achieved = found.achieved & (distance <= within)
    return replace(found, x=torch.where(expanded(achieved, x), found.x, x), value=torch.where(achieved, distance, 0), achieved=achieved)


@dataclass(frozen=True)
class Within(Checked):
    """A minimum-norm attack as an attack within a threat model: what it finds counts where it lies within eps, exactly.

    An example is done as soon as the attack has found a point within eps. An image that does not fool within eps comes back as it is.

    Attributes:
        attack: the minimum-norm attack, in the norm of the threat model.
        threat: what the adversary may do.
    """

    attack: Nearest
    threat: ThreatModel

    def __post_init__(self) -> None:
        if self.attack.norm != self.threat.norm:
            raise UserError(f"{self.attack} measures in another norm than the threat model, {self.threat}")
        if not self.threat.box.is_pixels:
            raise UserError("a minimum-norm attack moves images in [0, 1], the threat model has another box")

    def __str__(self) -> str:
        return f"{self.attack.label} ({self.threat})"

    @property
    def passes_in_a_row(self) -> int:
        return self.attack.passes_in_a_row

    def _solve(self, asked: Asked) -> Solution:
        eps = self.threat.radius(asked.x)
        return with_distance(replace(self.attack, enough=eps)._solve(asked), asked.x, self.threat.norm, eps)
