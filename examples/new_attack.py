"""A new gradient attack is one dataclass: say where it starts, how it moves, and let minimize() do the rest.

This one ascends the logit margin with Adam, from the image itself.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustlab import L2, ThreatModel, Untargeted, minimize
from robustlab.goals import margin
from robustlab.models.frozen import frozen
from robustlab.models.zoo import build
from robustlab.objectives import goal_objective
from robustlab.steps import Adam


@dataclass(frozen=True)
class AdamAttack:
    threat: ThreatModel
    steps: int = 20
    step_size: float = 0.01  # pixel units

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with frozen(model):
            objective = goal_objective(model, Untargeted(y, margin))
            return minimize(objective, x, self.threat.around(x), Adam(self.step_size), steps=self.steps).x


model = build("mlp", num_classes=10)
x = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
y = model(x).argmax(1)
x_adv = AdamAttack(ThreatModel(L2(), 0.5))(model, x, y)
print(f"{int((model(x_adv).argmax(1) != y).sum())} of {len(x)} fooled, gradients left behind: {model.head.weight.grad}")
