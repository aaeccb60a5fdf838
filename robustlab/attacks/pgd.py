"""Projected gradient descent (Madry et al. 2018), and with one step and no random start FGSM (Goodfellow et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustlab import seeding
from robustlab.checks import check_images, check_labels, with_logit_checks
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.goals import Goal, Surrogate, Untargeted, cross_entropy
from robustlab.models.frozen import frozen
from robustlab.objectives import Objective, evaluate_objective, goal_objective
from robustlab.optimize import Solution, StepRule, minimize
from robustlab.steps import Momentum, Steepest, attack_directions


@dataclass(frozen=True)
class PGD:
    """Steepest descent in the threat's norm, projected, from one or more random starts.

    Values that already lie at a side of the pixel box and would leave it have no part in a step's direction, and in L1 a
    step goes along the 1 % of values with the largest gradients (see ``robustlab.steps.Sparse``).

    A call costs, per restart, ``steps`` forward and backward passes with respect to the input, and one forward pass
    more with ``keep_best``; a separate ``fast_model`` model with more than one restart adds a forward pass of the model.

    Attributes:
        threat: what the adversary may do.
        steps: gradient steps per restart.
        step_size: in pixel units; None is ``2.5 * eps / steps`` (Madry et al.), which can cross the ball.
        restarts: independent random starts; each example keeps its best. More than one needs ``random_start``.
        random_start: start uniformly in the ball rather than at the image.
        keep_best: return the best point met rather than the last: for evaluation. Training takes the last, for speed.
        momentum: decay of the gradient sum; 0 is plain steepest descent, 1 is MI-FGSM.
        surrogate: the loss for plain labels.
        training_mode: attack the model as it is in training mode (its batch statistics are put back afterwards).
    """

    threat: ThreatModel
    steps: int = 10
    step_size: float | None = None
    restarts: int = 1
    random_start: bool = True
    keep_best: bool = True
    momentum: float = 0.0
    surrogate: Surrogate = cross_entropy
    training_mode: bool = False

    def __post_init__(self) -> None:
        if self.steps < 0 or self.restarts < 1:
            raise UserError(f"PGD needs steps >= 0 and restarts >= 1, got {self.steps} and {self.restarts}")
        if self.step_size is not None and not self.step_size >= 0:
            raise UserError(f"step_size must be >= 0 in pixel units, got {self.step_size}")
        if self.restarts > 1 and not (self.random_start and self.keep_best):
            raise UserError("more than one restart needs random_start and keep_best: restarts from the same point are identical")

    def __str__(self) -> str:
        many = f"x{self.restarts}" if self.restarts > 1 else ""
        return f"PGD-{self.steps}{many} ({self.threat})"

    @property
    def rule(self) -> StepRule:
        """The step rule that the settings describe."""
        size = self.threat.default_step_size(self.steps) if self.step_size is None else self.step_size
        directions = attack_directions(self.threat.norm)
        return Momentum(directions, size, self.momentum) if self.momentum else Steepest(directions, size)

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor | Goal, *, keys: Tensor | None = None, fast_model: nn.Module | None = None
    ) -> Tensor:
        """Attack each image of a batch by itself.

        Args:
            model: maps images in [0, 1], shape ``(B, ...)``, to logits ``(B, K)``. Left exactly as it was.
            x: images in [0, 1], shape ``(B, ...)``.
            y: labels to leave, int64 ``(B,)``, or any goal.
            keys: one key per example from ``robustlab.seeding``; without them each image's own pixels give its key.
            fast_model: a faster stand-in for ``model`` to take the steps on, see ``robustlab.models.accelerate``.

        Returns:
            Images within the threat model, exactly: ``‖x_adv - x‖ <= eps`` and in [0, 1]; shape and dtype of ``x``.
        """
        check_images(x)
        x = x.detach()
        highest = check_labels(y, x) if isinstance(y, Tensor) else -1
        goal: Goal = Untargeted(y, self.surrogate) if isinstance(y, Tensor) else y
        keys = seeding.content_keys(x) if keys is None else keys
        stepped = fast_model or model
        with frozen(model, training=self.training_mode), frozen(stepped, training=self.training_mode):
            objective = goal_objective(with_logit_checks(stepped, highest), goal)
            best = self._run(objective, x, keys, 0)
            if self.restarts > 1:
                judge = goal_objective(with_logit_checks(model, highest), goal)
                best = self._judged(best, judge) if fast_model else best
                for restart in range(1, self.restarts):
                    found = self._run(objective, x, keys, restart)
                    best = best.or_better(self._judged(found, judge) if fast_model else found)
        return best.x

    def _run(self, objective: Objective, x: Tensor, keys: Tensor, restart: int) -> Solution:
        start = x
        if self.random_start:
            start = x + self.threat.norm.sample(seeding.fold(keys, "start", restart), x.shape[1:], self.threat.eps).to(x)
        return minimize(objective, start, self.threat.around(x), self.rule, steps=self.steps, keep_best=self.keep_best)

    @staticmethod
    def _judged(solution: Solution, judge: Objective) -> Solution:
        with torch.no_grad():
            return Solution(solution.x, *evaluate_objective(judge, solution.x))


def FGSM(threat: ThreatModel) -> PGD:
    """The fast gradient sign method, in any norm: one step of length eps from the image."""
    return PGD(threat, steps=1, step_size=threat.eps, random_start=False, keep_best=False)
