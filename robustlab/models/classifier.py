"""A classifier of images: pixels in [0, 1] in, logits out, with its normalization inside so that eps always means pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.fx
from torch import Tensor, nn

from robustlab.checks import check_distinct
from robustlab.errors import UserError, unknown


@torch.fx.wrap
def normalized(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``(x - mean) / std`` per channel, never clamped: a clamp has no gradient outside [0, 1] and hides bad input.

    Raises:
        UserError: ``x`` is no batch of images with as many channels as ``mean``; broadcasting would hide it.
    """
    if x.dim() != 4 or x.shape[1] != mean.shape[1]:
        raise UserError(f"the model wants images of shape (B, {mean.shape[1]}, H, W), got {tuple(x.shape)}")
    return (x - mean) / std


class Classifier(nn.Module):
    """``head(features(x))``, where ``features`` normalizes the pixels and runs the body.

    Args:
        body: maps normalized images ``(B, C, H, W)`` to features ``(B, D)``.
        head: the last linear layer, ``(B, D)`` to logits ``(B, K)``.
        mean: average of each channel in [0, 1] units, C numbers.
        std: deviation of each channel, C positive numbers.
        arch: the name under which ``zoo.build`` makes this network; empty for a network of one's own.
        classes: K names; ``"0", "1", ...`` where left out.

    Attributes:
        image_size: height and width of the images that it was trained on, in pixels, where a library says so; else None.
    """

    mean: Tensor
    std: Tensor
    image_size: int | None = None

    def __init__(
        self,
        body: nn.Module,
        head: nn.Linear,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        arch: str = "",
        classes: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        names = tuple(classes) if classes is not None else tuple(str(k) for k in range(head.out_features))
        if len(names) != head.out_features:
            raise UserError(f"the model has {head.out_features} outputs, but {len(names)} class names came")
        if len(mean) != len(std) or not all(0 < s < math.inf for s in std) or not all(map(math.isfinite, mean)):
            raise UserError(f"mean and std must have one number per channel and std must be positive, got {list(mean)} and {list(std)}")
        check_distinct(names, "the model")
        self.body = body
        self.head = head
        self.arch = arch
        self.classes = names
        # Not persistent: a state_dict holds weights; the normalization travels in the description beside it.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1), persistent=False)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def unnamed(self) -> bool:
        """Whether the outputs have numbers for names, as those of another project's checkpoint do."""
        return self.classes == tuple(str(k) for k in range(self.num_classes))

    @property
    def channels(self) -> int:
        return self.mean.shape[1]

    def features(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] to the features ``(B, D)`` that the last layer reads."""
        return self.body(normalized(x, self.mean, self.std))

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` in [0, 1] to logits ``(B, K)``."""
        return self.head(self.features(x))

    def outputs_for(self, classes: Sequence[str], name: str) -> Tensor:
        """Which output stands for each of the named classes, int64, shape ``(len(classes),)``.

        By name where the outputs have names, or the classes are called by the outputs' numbers; else the classes must be
        as many as the outputs.

        Args:
            classes: class names of some images.
            name: what to call those images in a message.

        Raises:
            UserError: a class that this model does not know, or two of one name.
        """
        if self.unnamed and not set(classes) <= set(self.classes):
            if len(classes) != self.num_classes:
                raise UserError(f"the model has {self.num_classes} unnamed classes, but {name} has {len(classes)}")
            return torch.arange(len(classes))
        check_distinct(classes, name)
        check_distinct(self.classes, "the model")
        for wanted in classes:
            if wanted not in self.classes:
                raise UserError(f"the model does not know all classes of {name}: {unknown('class', wanted, self.classes)}")
        return torch.tensor([self.classes.index(wanted) for wanted in classes], dtype=torch.int64)


class Features(nn.Module):
    """A classifier's features as a network of their own: ``(B, C, H, W)`` to ``(B, D)``."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier.features(x)
