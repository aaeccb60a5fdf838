"""Whether a classifier fits some images: their channels, their classes, their size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from robustlab.errors import UserError
from robustlab.models.classifier import Classifier


class Described(Protocol):
    """What a set of images says about itself."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of each image."""


def check_fits(model: Classifier, images: Described, name: str, *, chosen: bool = False) -> None:
    """Refuse images of classes or channels that a model does not know.

    Args:
        model: the classifier.
        images: the set.
        name: what to call the model in a message.
        chosen: whether the set was cut down to some classes: then the model must name its outputs, to say which of them are meant.

    Raises:
        UserError: what does not fit.
    """
    if images.shape[0] != model.channels:
        raise UserError(f"{name} wants {model.channels} channels, but the images of {images.name} have {images.shape[0]}")
    model.outputs_for(images.classes, images.name)
    if chosen and not set(images.classes) <= set(model.classes):
        raise UserError(f"{name} does not name its classes, so that `classes` cannot say which of its outputs are meant")


def check_reads(network: Callable[..., Any], shape: Sequence[int], name: str, device: torch.device) -> None:
    """Refuse images of a size that a network cannot read, before anything is made of them.

    Args:
        network: from images ``(B, C, H, W)`` to anything; its mode is the caller's.
        shape: ``(C, H, W)`` of an image.
        name: what to call the network in a message.
        device: where the network is.

    Raises:
        UserError: the forward pass of one black image fails.
    """
    try:
        with torch.no_grad():
            network(torch.zeros(1, *shape, device=device))
    except RuntimeError as error:
        raise UserError(f"{name} cannot read images of {shape[2]}x{shape[1]} pixels; other images, or `image_size`, may help") from error
