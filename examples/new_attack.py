"""A new gradient attack is one dataclass: say where it starts, how it moves, and let minimize() do the rest.

This one ascends the logit margin with Adam, from the image itself. With a threat model, a name and this call it is an ``Attack``, which
the evaluation takes as it takes PGD. Images that are fooled leave the batch, so the others cost less.
"""

from dataclasses import dataclass

import torch

from robustlab import L2, ThreatModel, Untargeted, minimize
from robustlab.attacks import Attack
from robustlab.checks import attack_inputs, with_logit_checks
from robustlab.goals import margin
from robustlab.models.frozen import frozen
from robustlab.models.zoo import build
from robustlab.objectives import goal_objective
from robustlab.optimize import when_achieved
from robustlab.steps import Adam


@dataclass(frozen=True)
class AdamAttack:
    threat: ThreatModel
    steps: int = 20
    step_size: float = 0.01  # pixel units

    def __str__(self):
        return f"Adam-{self.steps} ({self.threat})"

    def __call__(self, model, x, y, *, keys=None, fast_model=None):
        x, y, highest = attack_inputs(model, x, y)
        goal = Untargeted(y, margin) if isinstance(y, torch.Tensor) else y
        with frozen(fast_model or model) as stepped:
            objective = goal_objective(with_logit_checks(stepped, highest), goal)
            return minimize(objective, x, self.threat.around(x), Adam(self.step_size), steps=self.steps, done=when_achieved).x


attack: Attack = AdamAttack(ThreatModel(L2(), 0.5))
model = build("mlp", num_classes=10)
x = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
y = model(x).argmax(1)
x_adv = attack(model, x, y)
print(f"{attack}: {int((model(x_adv).argmax(1) != y).sum())} of {len(x)} fooled, gradients left behind: {model.head.weight.grad}")
