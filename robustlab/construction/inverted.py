"""Images with the features of another: D_R from a robust model, D_NR from a standard one (Ilyas et al. 2019).

Starting from some other image, match the model's representation of ``x``, and keep the label of ``x``. What comes out holds
the features that the model looks at, and of the rest only what the start had, which has nothing to do with the label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.constraints import PIXELS
from robustlab.construction.protocols import Constructed
from robustlab.data.imageset import Images
from robustlab.errors import UserError
from robustlab.models.accelerate import accelerate
from robustlab.models.classifier import Classifier, Features
from robustlab.models.frozen import frozen
from robustlab.norms import L2
from robustlab.objectives import evaluate_objective, feature_distance
from robustlab.optimize import minimize
from robustlab.pixels import to_float
from robustlab.seeding import fold, integers
from robustlab.steps import Steepest


@dataclass(frozen=True)
class Inverted:
    """Minimize ``‖g(z) - g(x)‖ / ‖g(x)‖`` over images ``z``, from another image of the set, drawn whatever its class.

    Steps have one length and go along the normalized gradient; the best point met is kept. Published settings for CIFAR-10:
    1,000 steps of 0.1.

    Attributes:
        steps: gradient steps, at least 0.
        step_size: length of a step, L2 norm in units of [0, 1] pixels.

    Raises:
        UserError: a negative setting.
    """

    steps: int = 1000
    step_size: float = 0.1

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.step_size >= 0:
            raise UserError(f"inversion needs steps >= 0 and step_size >= 0, got {self.steps} and {self.step_size}")

    def fast_model(self, model: Classifier, dtype: torch.dtype | None) -> nn.Module:
        return accelerate(Features(model), dtype=dtype)

    def __call__(self, source: Images, index: Tensor, keys: Tensor, model: Classifier, fast_model: nn.Module | None = None) -> Constructed:
        index = index.cpu()
        n = len(source)
        start = (index + 1 + integers(fold(keys.cpu(), "start"), max(n - 1, 1))) % n  # any image but the own one
        x, z = (to_float(source.fetch(i).to(keys.device)) for i in (index, start))
        y = source.labels[index.to(source.labels.device)].to(keys.device)
        features = fast_model or Features(model)
        with frozen(model), frozen(features):
            with torch.no_grad():
                judge = feature_distance(model.features, model.features(x))
                before = evaluate_objective(judge, z)[0]
                objective = feature_distance(features, features(x))
            found = minimize(objective, z, PIXELS, Steepest(L2(), self.step_size), steps=self.steps).x
            with torch.no_grad():
                after = evaluate_objective(judge, found)[0]
        return Constructed(found, y, {"start": start.to(keys.device), "distance_before": before, "distance": after})

    def described(self) -> dict[str, Any]:
        return {"kind": "inverted", "steps": self.steps, "step_size": self.step_size}
