"""N-FGSM, the single-step attack for training (de Jorge et al. 2022): noise first, one step, no clipping of the noise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustlab import seeding
from robustlab.attacks.protocols import Checked, Model
from robustlab.checks import with_logit_checks
from robustlab.constraints import ThreatModel
from robustlab.goals import Goal, Untargeted
from robustlab.models.frozen import frozen
from robustlab.objectives import goal_objective
from robustlab.optimize import Solution, minimize
from robustlab.steps import Steepest, attack_directions


@dataclass(frozen=True)
class NFGSM(Checked):
    """One steepest step of length ``step * eps`` from a point ``noise * eps`` around the image.

    For training only: leaving the noise unclipped is what keeps single-step training from overfitting to its own
    attack, and it lets images leave the eps ball, so this must not measure robustness. It stays in the pixel box.

    Attributes:
        threat: what eps and norm are, and the pixel box.
        noise: radius of the uniform noise in units of eps; the paper's 2.
        step: length of the step in units of eps; the paper's 1.
        training_mode: take the gradient of the model in training mode.
    """

    threat: ThreatModel
    noise: float = 2.0
    step: float = 1.0
    training_mode: bool = False

    def __str__(self) -> str:
        return f"N-FGSM ({self.threat})"

    def solve(
        self,
        model: Model,
        x: Tensor,
        y: Tensor | Goal,
        *,
        keys: Tensor | None = None,
        fast_model: Model | None = None,
        highest_label: int = -1,
    ) -> Solution:
        """The attack without its checks: the device is asked for nothing, as training wants it. See ``PGD.solve``."""
        keys = seeding.content_keys(x) if keys is None else keys
        x, eps, norm = x.detach(), self.threat.radius(x), self.threat.norm
        goal: Goal = Untargeted(y) if isinstance(y, Tensor) else y
        start = x + norm.sample(seeding.fold(keys, "noise"), x.shape[1:], self.noise * eps).to(x)
        rule = Steepest(attack_directions(norm), self.step * eps)
        stepped = fast_model or model
        with frozen(stepped, training=self.training_mode):
            objective = goal_objective(with_logit_checks(stepped, highest_label), goal)
            return minimize(objective, start, self.threat.box, rule, steps=1, keep_best=False, allow_nonfinite=True)
