"""Auto-PGD (Croce and Hein 2020): PGD that finds its own step size, with the losses and targets of AutoAttack."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.attacks.protocols import Model
from robustlab.attacks.starts import Starts, believed, first_else_best
from robustlab.checks import attack_inputs, with_logit_checks
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.goals import Goal, LeftFor, Surrogate, Untargeted, cross_entropy, dlr, likeliest_others
from robustlab.models.frozen import frozen
from robustlab.norms import per_example
from robustlab.objectives import goal_objective
from robustlab.optimize import Solution, minimize, refuse_nonfinite, when_achieved
from robustlab.steps import AutoStep, attack_directions


@dataclass(frozen=True)
class APGD:
    """Auto-PGD from one or more random starts at distance eps, with the loss for plain labels or aimed at one class after another.

    The settings are those of AutoAttack's ``apgd-ce``; with ``surrogate=dlr`` its ``apgd-dlr``, with ``targets=9`` its ``apgd-t``. With
    three classes the targeted DLR is in units of the first logit minus the mean of the others, and with two both DLR are the margin.
    In L1 the directions are the sparse ones of ``PGD``, not yet those of APGD-L1 (Croce and Hein 2021).

    An example is done when it is fooled: it leaves the batch, and no further start or target is run for it. What it costs an example
    that withstands is, for each start, ``steps`` forward and backward passes and one forward pass more; targets take one forward
    pass at the images. The device is asked in each step who is done.

    Attributes:
        threat: what the adversary may do.
        steps: gradient steps per start, the paper's N_iter.
        restarts: independent random starts, for each target.
        surrogate: the loss for plain labels; not with ``targets``.
        targets: leave the label by the targeted DLR for that many of the other classes, the likeliest at the image first; 0 is no target.
        alpha: share of the new step beside the last move.
        rho: share of the steps between two checkpoints that must improve the loss, else the step is halved.
    """

    threat: ThreatModel
    steps: int = 100
    restarts: int = 1
    surrogate: Surrogate = cross_entropy
    targets: int = 0
    alpha: float = field(default=0.75, kw_only=True)
    rho: float = field(default=0.75, kw_only=True)

    def __post_init__(self) -> None:
        if self.steps < 0 or self.restarts < 1 or self.targets < 0:
            found = f"{self.steps}, {self.restarts} and {self.targets}"
            raise UserError(f"Auto-PGD needs steps >= 0, restarts >= 1 and targets >= 0, got {found}")
        if not (0 <= self.alpha <= 1 and 0 <= self.rho <= 1):
            raise UserError(f"alpha and rho are shares from 0 to 1, got {self.alpha} and {self.rho}")
        if self.targets and self.surrogate is not cross_entropy:
            raise UserError("Auto-PGD aims at targets by the targeted DLR: give `surrogate` or `targets`, not both")

    def __str__(self) -> str:
        known: dict[Surrogate, str] = {cross_entropy: "CE", dlr: "DLR"}
        kind = "T" if self.targets else known.get(self.surrogate) or getattr(self.surrogate, "__name__", "custom")
        many = f"x{self.restarts}" if self.restarts > 1 else ""
        numbers = f"-{self.steps}{many}" if (self.steps, self.restarts) != (100, 1) else ""
        aims = f"{self.targets} targets, " if self.targets not in (0, 9) else ""
        return f"APGD-{kind}{numbers} ({aims}{self.threat})"

    def __call__(self, model: Model, x: Tensor, y: Tensor | Goal, *, keys: Tensor | None = None, fast_model: Model | None = None) -> Tensor:
        """Attack each image of a batch by itself.

        Args:
            model: maps images in [0, 1], shape ``(B, ...)``, to logits ``(B, K)``. Left exactly as it was.
            x: images in [0, 1], shape ``(B, ...)``; a numpy array will do.
            y: labels to leave, int64 ``(B,)``, a numpy array or a list of them, or any goal; with ``targets`` labels only.
            keys: one key per example from ``robustlab.seeding``; without them each image's own pixels give its key.
            fast_model: a faster stand-in for ``model`` to search on, see ``robustlab.models.accelerate``. Who is fooled, ``model`` says.

        Returns:
            Images within the threat model, exactly: ``‖x_adv - x‖ <= eps`` and in [0, 1]; shape and dtype of ``x``. For each the first
            point that fools, else the one of the best loss.

        Raises:
            UserError: images, labels or logits that are none; radii for another number of images; a goal where there are ``targets``.
        """
        x, y, highest = attack_inputs(model, x, y)
        if self.targets and not isinstance(y, Tensor):
            raise UserError(f"with `targets` Auto-PGD chooses its goals by itself: give labels, not {type(y).__name__}")
        keys = seeding.content_keys(x) if keys is None else keys
        with frozen(model), frozen(fast_model or model):
            goals = self._goals(with_logit_checks(model, highest), x, y)
            objectives = tuple(goal_objective(with_logit_checks(fast_model or model, highest), goal) for goal in goals)
            judges = tuple(goal_objective(with_logit_checks(model, highest), goal) for goal in goals if fast_model)
            eps = self.threat.radius(x)
            rule = AutoStep(attack_directions(self.threat.norm), 2 * eps, self.alpha, self.rho)
            run = Starts(objectives, judges, self.threat.around(x), rule, x, eps, keys)
            found = first_else_best(run, len(goals) * self.restarts, self._start)
        refuse_nonfinite(found)
        return found.x

    def _goals(self, model: Model, x: Tensor, y: Tensor | Goal) -> tuple[Goal, ...]:
        if not isinstance(y, Tensor):
            return (y,)
        if not self.targets:
            return (Untargeted(y, self.surrogate),)
        with torch.no_grad():
            targets = likeliest_others(model(x.clone()), y, self.targets)
        return tuple(LeftFor(y, target) for target in targets.unbind(1))

    def _start(self, run: Starts, number: int) -> Solution:
        aim = number // self.restarts
        noise = self.threat.norm.sample(seeding.fold(run.keys, "auto", number), run.x.shape[1:], 1.0)
        length = self.threat.norm.measure(noise)
        start = run.x + (noise * per_example(run.eps / torch.where(length > 0, length, 1), noise)).to(run.x)
        found = minimize(run.objectives[aim], start, run.allowed, run.rule, steps=self.steps, done=when_achieved, allow_nonfinite=True)
        return believed(run, found, aim, self._start, number)
