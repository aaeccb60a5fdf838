"""What users pass, checked once at the door."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustlab.errors import UserError

MOST_CLASSES = 250_000  # of data and of models; ImageNet-21k has 21,843


def attack_inputs(model: object, x: object, y: object) -> tuple[Tensor, Any, int]:
    """What is passed to an attack, checked and made into tensors; asks the device for one answer, on images and labels together.

    Args:
        model: must be callable.
        x: images in [0, 1], shape ``(B, ...)``: a tensor, or a numpy array, which becomes torch's default float on the model's device.
        y: labels ``(B,)``: a tensor or an array of integers, or a list; or a goal, which comes back as it is.

    Returns:
        Images without gradient; labels, int64 ``(B,)`` on their device, or what ``y`` is; and the highest label, -1 where there is
        none.

    Raises:
        UserError: what is wrong with them.
    """
    if not callable(model):
        load = f": robustlab.load({model!r}) gives a model by its name" if isinstance(model, str) else ""
        raise UserError(f"the model must be callable, from images to logits, got {type(model).__name__}{load}")
    images = _as_images(x, model)
    labels = _as_labels(y, images.device)
    if not isinstance(labels, Tensor) and not hasattr(labels, "loss"):
        raise UserError(f"labels must be class indices, int64 of shape (B,), or a goal, got {type(y).__name__}")
    if isinstance(labels, Tensor) and labels.numel() == 1 and images.ndim == 3 and len(images) != 1:
        raise UserError(f"images must come as a batch (B, ...), got one image of shape {tuple(images.shape)}: pass x[None]")
    _check_image_type(images)
    if not isinstance(labels, Tensor):
        _check_range(*_ends(images))
        return images, labels, -1
    _check_label_type(labels, images)
    range_of_images, range_of_labels = _ends(images, labels)
    _check_range(range_of_images)
    return images, labels, _highest(range_of_labels)


def check_images(x: Tensor) -> None:
    """Refuse what is not a batch of floating-point images in [0, 1]; an empty batch is fine.

    Args:
        x: shape ``(B, ...)``.

    Raises:
        UserError: with the range found, and the likely reason.
    """
    _check_image_type(x)
    _check_range(*_ends(x))


def check_labels(y: Tensor, x: Tensor) -> int:
    """Refuse what is not one class index per example; returns the highest label, -1 for an empty batch.

    Args:
        y: int64, shape ``(B,)``.
        x: the examples, shape ``(B, ...)``.

    Raises:
        UserError: with what was found.
    """
    _check_label_type(y, x)
    return _highest(*_ends(y))


def check_set_pixels(name: str, pixels: Tensor) -> None:
    """Refuse floating-point pixels that are not numbers in [0, 1].

    Raises:
        UserError: with the range found.
    """
    if not pixels.is_floating_point() or pixels.numel() == 0:
        return
    low, high = (float(value) for value in torch.aminmax(pixels))
    if not (low >= 0 and high <= 1):
        found = f"values from {low:.4g} to {high:.4g}" if low == low and high == high else "NaN"
        raise UserError(f"{name}: floating-point images must lie in [0, 1], found {found}")


def check_set_labels(name: str, labels: Tensor, n: int, num_classes: int) -> None:
    """Refuse labels that are not ``(n,)`` int64 in ``[0, num_classes)``.

    Args:
        name: what the images are called, for the message.
        labels: of any type and shape.
        n: how many images there are.
        num_classes: how many classes there are.

    Raises:
        UserError: with what was found.
    """
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise UserError(f"{name}: labels must be int64 (N,), got {labels.dtype} {tuple(labels.shape)}")
    if len(labels) != n:
        raise UserError(f"{name}: {n} images but {len(labels)} labels")
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise UserError(f"{name}: label {int(wrong[0])} is out of range, {num_classes} classes allow 0 to {num_classes - 1}")


def check_distinct(classes: Sequence[str], name: str) -> None:
    """Refuse two classes of one name, as ImageNet has two cranes: by its name a label could only be matched with the first.

    Args:
        classes: the names.
        name: what has these classes, for the message.

    Raises:
        UserError: with the first name that comes twice, and where.
    """
    first: dict[str, int] = {}
    for place, each in enumerate(classes):
        if first.setdefault(each, place) != place:
            raise UserError(f"{name} has two classes called {each!r}, numbers {first[each]} and {place}: give each a name of its own")


def with_logit_checks(model: Callable[[Tensor], Any], highest_label: int) -> Callable[[Tensor], Tensor]:
    """The model, with its output's shape checked at each call: ``(B, K)`` with ``K`` at least 2 and above every label.

    Args:
        highest_label: -1 where it is not known. Shapes are on the host, so the device is not asked.

    Raises:
        UserError: at a call, with the shape found.
    """

    def checked(x: Tensor) -> Tensor:
        logits = model(x)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(f"the model must return logits of shape ({len(x)}, classes), got {shape}")
        if logits.shape[1] == 1:
            raise UserError(
                "the model returned one number for each image, and the largest of one number never changes: "
                "it must return one logit for each class, as torch.cat([-z, z], 1) does for the logit z of a sigmoid"
            )
        if logits.shape[1] <= highest_label:
            raise UserError(f"labels go up to {highest_label}, but the model has {logits.shape[1]} classes (0 to {logits.shape[1] - 1})")
        return logits

    return checked


def _as_images(x: object, model: object) -> Tensor:
    if isinstance(x, np.ndarray):
        weight = next(model.parameters(), None) if isinstance(model, nn.Module) else None
        x = _copied(x, "images must be numbers in [0, 1]").to("cpu" if weight is None else weight.device)
        x = x.to(torch.get_default_dtype()) if x.is_floating_point() else x
    if not isinstance(x, Tensor):
        raise UserError(f"images must be a tensor or a numpy array of shape (B, ...), got {type(x).__name__}")
    return x.detach()


def _as_labels(y: object, device: torch.device) -> object:
    if isinstance(y, (list, tuple, np.ndarray, np.generic, int)):
        y = _copied(y, "labels must be one class index for each image")
        y = y.to(torch.int64) if y.numel() == 0 else y
    if not isinstance(y, Tensor):
        return y
    whole = not y.is_floating_point() and y.dtype != torch.bool
    return y.to(device, torch.int64) if whole else y


def _copied(values: Any, wanted: str) -> Tensor:
    """A tensor of its own: one that shares an array's memory may share memory that nobody may write to."""
    try:
        return torch.from_numpy(np.array(values, order="C"))
    except (TypeError, ValueError):
        raise UserError(f"{wanted}, got {type(values).__name__} {values!r:.60}") from None


def _check_image_type(x: Tensor) -> None:
    if not x.is_floating_point():
        raise UserError(f"images must be floating point in [0, 1], got {x.dtype}: divide 8-bit values by 255")
    if x.ndim < 2:
        raise UserError(f"images must come as a batch (B, ...), got shape {tuple(x.shape)}")


def _check_label_type(y: Tensor, x: Tensor) -> None:
    if y.ndim == 2 and len(y) == len(x) and y.shape[1] > 1:
        raise UserError(f"labels must be class indices of shape ({len(x)},), got {tuple(y.shape)}: of one-hot rows pass y.argmax(1)")
    if y.dtype != torch.int64 or y.shape != (len(x),):
        raise UserError(f"labels must be int64 of shape ({len(x)},), got {y.dtype} of shape {tuple(y.shape)}")


def _ends(*tensors: Tensor) -> list[tuple[float, float] | None]:
    """Lowest and highest value of each tensor, None for an empty one; asks the device once."""
    ends = [torch.stack(torch.aminmax(t.detach())).double() for t in tensors if t.numel()]
    found = iter(torch.stack(ends).tolist() if ends else ())
    return [tuple(next(found)) if t.numel() else None for t in tensors]


def _check_range(ends: tuple[float, float] | None) -> None:
    if ends is None or (ends[0] >= 0 and ends[1] <= 1):
        return
    low, high = ends
    if not (low == low and high == high):
        raise UserError("images must lie in [0, 1], found NaN")
    reason = "they look like 0-255 values, divide by 255" if low >= 0 and high > 2 else "normalize inside the model, not before it"
    raise UserError(f"images must lie in [0, 1], found values from {low:.4g} to {high:.4g}: {reason}")


def _highest(ends: tuple[float, float] | None) -> int:
    if ends is None:
        return -1
    if ends[0] < 0:
        raise UserError(f"labels must be class indices from 0, found {int(ends[0])}")
    return int(ends[1])
