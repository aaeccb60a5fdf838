"""N-FGSM, the single-step attack for training (de Jorge et al. 2022): noise first, one step, no clipping of the noise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from robustlab import seeding
from robustlab.checks import with_logit_checks
from robustlab.constraints import ThreatModel
from robustlab.goals import Untargeted
from robustlab.models.frozen import frozen
from robustlab.objectives import goal_objective
from robustlab.optimize import minimize
from robustlab.steps import Steepest, attack_directions


@dataclass(frozen=True)
class NFGSM:
    """One steepest step of length ``step * eps`` from a point ``noise * eps`` around the image.

    For training only: leaving the noise unclipped is what keeps single-step training from overfitting to its own
    attack, and it lets images leave the eps ball, so this must not measure robustness. It stays in the pixel box.

    Attributes:
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

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, *, keys: Tensor | None = None) -> Tensor:
        """Noisy images, one step away from their labels; see the class about where they may lie."""
        keys = seeding.content_keys(x) if keys is None else keys
        x = x.detach()
        start = x + self.threat.norm.sample(seeding.fold(keys, "noise"), x.shape[1:], self.noise * self.threat.eps).to(x)
        rule = Steepest(attack_directions(self.threat.norm), self.step * self.threat.eps)
        with frozen(model, training=self.training_mode):
            objective = goal_objective(with_logit_checks(model, -1), Untargeted(y))
            return minimize(objective, start, self.threat.box, rule, steps=1, keep_best=False).x
