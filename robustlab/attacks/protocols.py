"""What an attack is: settings that are called with a model, images and labels, and give back images."""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

from torch import Tensor

from robustlab.constraints import ThreatModel
from robustlab.goals import Goal
from robustlab.norms import Norm

Model: TypeAlias = Any  # images (B, ...) in [0, 1] to logits (B, K): an nn.Module or any other function


class Attack(Protocol):
    """An attack within a threat model; its ``str`` is the name that its numbers carry."""

    @property
    def threat(self) -> ThreatModel: ...

    def __call__(self, model: Model, x: Tensor, y: Tensor | Goal, *, keys: Tensor | None = None, fast_model: Model | None = None) -> Tensor:
        """Images within the threat model around ``x``, shape and dtype of ``x``."""
        ...


class MinimumNormAttack(Protocol):
    """An attack that looks for the nearest adversarial image, however far that is; its ``str`` is its name."""

    @property
    def norm(self) -> Norm: ...

    def __call__(self, model: Model, x: Tensor, y: Tensor | Goal, *, keys: Tensor | None = None, fast_model: Model | None = None) -> Tensor:
        """For each image the nearest that achieves the goal, or what it was where none was found; shape and dtype of ``x``."""
        ...
