"""What a construction is: from some images of a set to new images with labels, through a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from robustlab.data.imageset import Images
from robustlab.models.classifier import Classifier


@dataclass(frozen=True)
class Constructed:
    """New images.

    Attributes:
        x: float32 in [0, 1], shape ``(B, C, H, W)``.
        y: their labels, classes of the source images, int64 ``(B,)``.
        facts: what is known of each image, int64 or float32 ``(B,)`` by name.
    """

    x: Tensor
    y: Tensor
    facts: dict[str, Tensor] = field(default_factory=dict)


class Construction(Protocol):
    """Settings that can be called. Each image depends on the model, its own position and the seed in ``keys`` alone."""

    def fast_model(self, model: Classifier, dtype: torch.dtype | None) -> nn.Module:
        """A faster stand-in for the part of the model that the steps are taken on.

        Args:
            dtype: to compute in, such as ``torch.bfloat16``; None is the model's own.
        """
        ...

    def __call__(self, source: Images, index: Tensor, keys: Tensor, model: Classifier, fast_model: nn.Module | None = None) -> Constructed:
        """The new images for some of the source images, on the device of ``keys``.

        Args:
            source: the images to start from.
            index: positions in them, int64 ``(B,)``.
            keys: random keys of these images, int64 ``(B,)``, see ``robustlab.seeding``.
            model: what judges the images; it is left as it was.
            fast_model: takes the steps in place of the model.
        """
        ...

    def described(self) -> dict[str, Any]:
        """The settings in values that JSON holds."""
        ...
