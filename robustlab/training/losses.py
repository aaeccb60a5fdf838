"""Training losses: standard, adversarial (Madry et al. 2018) and TRADES (Zhang et al. 2019).

A loss is called with the network as it is trained (a DistributedDataParallel wrapper, perhaps), but attacks the module
inside, so an attack never synchronizes processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from robustlab.attacks.protocols import Attack, Unchecked
from robustlab.errors import UserError
from robustlab.goals import Away, Goal, divergence
from robustlab.models.frozen import frozen


@dataclass(frozen=True)
class Outcome:
    """What a loss found on a batch.

    Attributes:
        loss: per example, shape ``(B,)``, to be averaged and differentiated.
        logits: on the images that were trained on, shape ``(B, K)``, for the accuracy.
        x: those images, shape ``(B, C, H, W)``.
    """

    loss: Tensor
    logits: Tensor
    x: Tensor


class TrainingLoss(Protocol):
    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, keys: Tensor) -> Outcome: ...


def adversarial_images(attack: Attack, model: nn.Module, x: Tensor, y: Tensor | Goal, keys: Tensor) -> Tensor:
    """Attacked images, without the checks of the attack's call where it has a door for that, so that no step waits for the device.

    Images and labels are for whoever reads the training set to check, and a loss that is no number ends the training anyway.
    """
    return attack.solve(model, x, y, keys=keys).x if isinstance(attack, Unchecked) else attack(model, x, y, keys=keys)


def inner(model: nn.Module) -> nn.Module:
    """The module inside a DistributedDataParallel wrapper."""
    return model.module if isinstance(model, DistributedDataParallel) else model


@dataclass(frozen=True)
class Standard:
    """Cross-entropy on the images as they are."""

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check(self.label_smoothing)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, keys: Tensor) -> Outcome:
        logits = model(x)
        return Outcome(F.cross_entropy(logits, y, reduction="none", label_smoothing=self.label_smoothing), logits, x)


@dataclass(frozen=True)
class Adversarial:
    """Cross-entropy on attacked images. With ``NFGSM`` as the attack: fast adversarial training."""

    attack: Attack
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check(self.label_smoothing)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, keys: Tensor) -> Outcome:
        x_adv = adversarial_images(self.attack, inner(model), x, y, keys)
        return Standard(self.label_smoothing)(model, x_adv, y, keys)


@dataclass(frozen=True)
class TRADES:
    """Cross-entropy on clean images plus ``beta`` times the divergence from the clean to the attacked prediction.

    The attack starts from its random point in the ball, not from the original code's Gaussian of width 0.001: at the
    image itself the divergence is stationary, and either start leaves it.
    """

    attack: Attack
    beta: float = 6.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check(self.label_smoothing)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, keys: Tensor) -> Outcome:
        with frozen(inner(model)) as still, torch.no_grad():
            goal: Goal = Away(still(x).float())
        x_adv = adversarial_images(self.attack, inner(model), x, goal, keys)
        # One pass over both halves: BatchNorm then sees clean and attacked images together, and DDP one backward pass.
        clean, attacked = model(torch.cat([x, x_adv])).float().chunk(2)
        natural = F.cross_entropy(clean, y, reduction="none", label_smoothing=self.label_smoothing)
        return Outcome(natural + self.beta * divergence(clean, attacked), attacked, x_adv)


def _check(label_smoothing: float) -> None:
    if not 0 <= label_smoothing <= 1:
        raise UserError(f"label smoothing must lie in [0, 1], got {label_smoothing}")
