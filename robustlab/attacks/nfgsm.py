"""N-FGSM, the single-step attack for training (de Jorge et al. 2022): noise first, one step, no clipping of the noise."""

from __future__ import annotations

from dataclasses import dataclass

from robustlab import seeding
from robustlab.attacks.protocols import Asked, Checked
from robustlab.constraints import ThreatModel
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

    def _solve(self, asked: Asked) -> Solution:
        x, eps, norm = asked.x, self.threat.radius(asked.x), self.threat.norm
        start = x + norm.sample(seeding.fold(asked.keys, "noise"), x.shape[1:], self.noise * eps).to(x)
        rule, (objective, *_) = Steepest(attack_directions(norm), self.step * eps), asked.objectives((asked.goal(),))[0]
        return minimize(objective, start, self.threat.box, rule, steps=1, keep_best=False, allow_nonfinite=True)
