"""Auto-PGD (Croce and Hein 2020): PGD that finds its own step size, with the losses and targets of AutoAttack."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.attacks.protocols import Asked, Checked, Model
from robustlab.attacks.starts import Starts, believed, first_else_best
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.goals import Goal, LeftFor, Surrogate, Untargeted, cross_entropy, dlr, likeliest_others
from robustlab.norms import L0, L1, per_example
from robustlab.objectives import Objective, expected, goal_objective, value_only
from robustlab.optimize import Solution, StepRule, minimize, when_achieved
from robustlab.steps import AutoStep, SparseAutoStep


@dataclass(frozen=True)
class APGD(Checked):
    """Auto-PGD from one or more random starts at distance eps, with the loss for plain labels or aimed at one class after another.

    The settings are those of AutoAttack's ``apgd-ce``; with ``surrogate=dlr`` its ``apgd-dlr``, with ``targets=9`` its ``apgd-t``. With
    three classes the targeted DLR is in units of the first logit minus the mean of the others, and with two both DLR are the margin.
    In L1 it is APGD-L1 (Croce and Hein 2021): sparse steps without momentum, exact projections, and a start that goes through balls of
    three times and twice the radius, with 30 % of the steps in each. In each of these phases the public code looks back at every step,
    as here, where the paper does so after 4 % of all steps.

    Of each image the first point is returned that fools, else the one of the best loss.

    An example is done when it is fooled: it leaves the batch, and no further start or target is run for it. What it costs an example
    that withstands is, for each start, ``steps`` forward and backward passes and one forward pass more, all of it ``eot`` times; targets
    take one forward pass at the images. The device is asked in each step who is done.

    Attributes:
        threat: what the adversary may do.
        steps: gradient steps per start, the paper's N_iter.
        restarts: independent random starts, for each target.
        surrogate: the loss for plain labels; not with ``targets``.
        targets: leave the label by the targeted DLR for that many of the other classes, the likeliest at the image first; 0 is no target.
        eot: how often the model is asked at each point, for a model with random answers; its mean loss and gradient are followed.
        large_eps_first: in L1, go through wider balls first.
        alpha: share of the new step beside the last move; not in L1.
        rho: not in L1; share of the steps between two checkpoints that must improve the loss, else the step is halved.
    """

    threat: ThreatModel
    steps: int = 100
    restarts: int = 1
    surrogate: Surrogate = cross_entropy
    targets: int = 0
    eot: int = field(default=1, kw_only=True)
    large_eps_first: bool = field(default=True, kw_only=True)
    alpha: float = field(default=0.75, kw_only=True)
    rho: float = field(default=0.75, kw_only=True)

    def __post_init__(self) -> None:
        if self.steps < 0 or self.restarts < 1 or self.targets < 0 or self.eot < 1:
            found = f"{self.steps}, {self.restarts}, {self.targets} and {self.eot}"
            raise UserError(f"Auto-PGD needs steps >= 0, restarts >= 1, targets >= 0 and eot >= 1, got {found}")
        if not (0 <= self.alpha <= 1 and 0 <= self.rho <= 1):
            raise UserError(f"alpha and rho are shares from 0 to 1, got {self.alpha} and {self.rho}")
        if isinstance(self.threat.norm, L0):
            raise UserError("Auto-PGD attacks in Linf, L2 and L1, not in L0")
        if self.targets and self.surrogate is not cross_entropy:
            raise UserError("Auto-PGD aims at targets by the targeted DLR: give `surrogate` or `targets`, not both")

    def __str__(self) -> str:
        known: dict[Surrogate, str] = {cross_entropy: "CE", dlr: "DLR"}
        kind = "T" if self.targets else known.get(self.surrogate) or getattr(self.surrogate, "__name__", "custom")
        many = f"x{self.restarts}" if self.restarts > 1 else ""
        numbers = f"-{self.steps}{many}" if (self.steps, self.restarts) != (100, 1) else ""
        aims = f"{self.targets} targets, " if self.targets not in (0, 9) else ""
        draws = f"EOT {self.eot}, " if self.eot > 1 else ""
        return f"APGD-{kind}{numbers} ({aims}{draws}{self.threat})"

    def _solve(self, asked: Asked) -> Solution:
        x, y = asked.x, asked.y
        if self.targets and not isinstance(y, Tensor):
            raise UserError(f"with `targets` Auto-PGD chooses its goals by itself: give labels, not {type(y).__name__}")
        goals = self._goals(asked.model, x, y)
        objectives, judges = asked.objectives(goals, lambda model, goal: expected(goal_objective(model, goal), self.eot))
        run = Starts(objectives, judges, self.threat.around(x), self._rule(x), x, self.threat.radius(x), asked.keys)
        found = first_else_best(run, len(goals) * self.restarts, self._start)
        assert found.passes is not None
        return replace(found, passes=found.passes * self.eot + (self.targets > 0))

    @property
    def _sparse(self) -> bool:
        return isinstance(self.threat.norm, L1)

    def _rule(self, x: Tensor) -> AutoStep | SparseAutoStep:
        eps = self.threat.radius(x)
        if self._sparse:
            return SparseAutoStep(x, eps)
        return AutoStep(self.threat.norm, 2 * eps, self.alpha, self.rho)

    def _goals(self, model: Model, x: Tensor, y: Tensor | Goal) -> tuple[Goal, ...]:
        if not isinstance(y, Tensor):
            return (y,)
        if not self.targets:
            return (Untargeted(y, self.surrogate),)
        with torch.no_grad():
            targets = likeliest_others(model(x.clone()), y, self.targets)
        return tuple(LeftFor(y, target) for target in targets.unbind(1))

    def _start(self, run: Starts, number: int) -> Solution:
        objective = run.objectives[number // self.restarts]
        keys, shape = seeding.fold(run.keys, "auto", number), run.x.shape[1:]
        if self._sparse:
            start = run.x + seeding.normal(keys, shape).to(run.x)
            return self._after_wider_balls(run, objective, start, number)
        noise = self.threat.norm.sample(keys, shape, 1.0)
        length = self.threat.norm.measure(noise)
        start = run.x + (noise * per_example(run.eps / torch.where(length > 0, length, 1), noise)).to(run.x)
        return self._solved(run, objective, start, run.rule, self.steps, number)

    def _after_wider_balls(self, run: Starts, objective: Objective, start: Tensor, number: int) -> Solution:
        """From the best point of a wider ball to the next: what is fooled there need not be fooled nearer, so only the loss counts."""
        rule, left, spent = run.rule, self.steps, 0
        for factor in (3, 2) if self.large_eps_first else ():
            steps = min(math.ceil(0.3 * self.steps), left)
            wider = replace(self.threat, eps=factor * run.eps)
            step = SparseAutoStep(run.x, wider.radius(run.x), 0.2 if left == self.steps else None)
            found = minimize(value_only(objective), start, wider.around(run.x), step, steps=steps, allow_nonfinite=True)
            start, left, spent = found.x, left - steps, spent + steps + 1
            rule = SparseAutoStep(run.x, run.eps, None)
        found = self._solved(run, objective, start, rule, left, number)
        assert found.passes is not None
        return replace(found, passes=found.passes + spent)

    def _solved(self, run: Starts, objective: Objective, start: Tensor, rule: StepRule, steps: int, number: int) -> Solution:
        found = minimize(objective, start, run.allowed, rule, steps=steps, done=when_achieved, allow_nonfinite=True)
        return believed(run, found, number // self.restarts, self._start, number)
