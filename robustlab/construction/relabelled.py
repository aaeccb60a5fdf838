"""Adversarial examples labelled as their targets: D_rand and D_det of Ilyas et al. (2019).

To a person every image shows its old class; what changed is what a small perturbation can change. A network that learns
its new label, and with it to classify ordinary images, has learned from features that people do not see.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.construction.protocols import Constructed
from robustlab.data.imageset import Images
from robustlab.errors import UserError
from robustlab.goals import Targeted
from robustlab.models.accelerate import accelerate
from robustlab.models.classifier import Classifier
from robustlab.norms import L2
from robustlab.pixels import to_float
from robustlab.seeding import fold, integers

Targets = Callable[[Tensor, Tensor, int], Tensor]  # labels (B,), keys (B,), number of classes -> target labels (B,)


def random_target(y: Tensor, keys: Tensor, num_classes: int) -> Tensor:
    """D_rand: any class, all equally likely, the own one among them."""
    return integers(fold(keys, "target"), num_classes)


def next_class(y: Tensor, keys: Tensor, num_classes: int) -> Tensor:
    """D_det: the class after the own one, ``(y + 1) mod C``."""
    return (y + 1) % num_classes


@dataclass(frozen=True)
class Relabelled:
    """Perturb each image towards a target class within a small ball, and label it as the target.

    The attack is PGD from the image itself. Published settings for CIFAR-10: L2, eps 0.5, 100 steps of 0.1.

    Attributes:
        targets: ``random_target``, ``next_class`` or a function like them, which must depend on its arguments alone.
        threat: the ball; its norm is also that of the steps.
        steps: gradient steps.
        step_size: length of a step in units of [0, 1] pixels; None is ``2.5 * eps / steps``.

    Raises:
        UserError: a negative setting.
    """

    targets: Targets
    threat: ThreatModel = ThreatModel(L2(), 0.5)
    steps: int = 100
    step_size: float | None = 0.1

    def __post_init__(self) -> None:
        if self.steps < 0 or (self.step_size is not None and not self.step_size >= 0):
            raise UserError(f"relabelling needs steps >= 0 and step_size >= 0, got {self.steps} and {self.step_size}")

    @property
    def attack(self) -> PGD:
        """The attack behind it."""
        return PGD(self.threat, self.steps, self.step_size, random_start=False)

    def fast_model(self, model: Classifier, dtype: torch.dtype | None) -> nn.Module:
        return accelerate(model, dtype=dtype)

    def __call__(self, source: Images, index: Tensor, keys: Tensor, model: Classifier, fast_model: nn.Module | None = None) -> Constructed:
        x = to_float(source.fetch(index.cpu()).to(keys.device))
        y = source.labels[index.to(source.labels.device)].to(keys.device)
        target = self.targets(y, keys, len(source.classes))
        outputs = model.outputs_for(source.classes, source.name).to(keys.device)
        x_adv = self.attack(model, x, Targeted(outputs[target]), keys=keys, fast_model=fast_model)
        return Constructed(x_adv, target, {"moved": self.threat.norm.measure(x_adv.double() - x.double()).float()})

    def described(self) -> dict[str, Any]:
        size = self.threat.default_step_size(self.steps) if self.step_size is None else self.step_size
        return {
            "kind": "relabelled",
            "targets": self.targets.__name__,
            "norm": type(self.threat.norm).__name__,
            "eps": self.threat.eps,
            "steps": self.steps,
            "step_size": size,
        }
