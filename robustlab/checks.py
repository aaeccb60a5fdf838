"""What users pass, checked once at the door."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustlab.errors import UserError


def check_images(x: Tensor) -> None:
    """Refuse what is not a batch of floating-point images in [0, 1]; an empty batch is fine.

    Raises:
        UserError: with the range found, and the likely reason.
    """
    if not x.is_floating_point():
        raise UserError(f"images must be floating point in [0, 1], got {x.dtype}: divide 8-bit values by 255")
    if x.ndim < 2:
        raise UserError(f"images must come as a batch (B, ...), got shape {tuple(x.shape)}")
    if x.numel() == 0:
        return
    low, high = (float(v) for v in torch.aminmax(x.detach()))
    if not (low >= 0 and high <= 1):
        if not (low == low and high == high):
            raise UserError("images must lie in [0, 1], found NaN")
        reason = "they look like 0-255 values, divide by 255" if low >= 0 and high > 2 else "normalize inside the model, not before it"
        raise UserError(f"images must lie in [0, 1], found values from {low:.4g} to {high:.4g}: {reason}")


def check_labels(y: Tensor, x: Tensor) -> int:
    """Refuse what is not one class index per example; returns the highest label, -1 for an empty batch."""
    if y.dtype != torch.int64 or y.shape != (len(x),):
        raise UserError(f"labels must be int64 of shape ({len(x)},), got {y.dtype} of shape {tuple(y.shape)}")
    if len(y) == 0:
        return -1
    low, high = (int(v) for v in torch.aminmax(y))
    if low < 0:
        raise UserError(f"labels must be class indices from 0, found {low}")
    return high


def with_logit_checks(model: Callable[[Tensor], Tensor], highest_label: int) -> Callable[[Tensor], Tensor]:
    """The model, with its output's shape checked at each call: ``(B, K)`` with ``K`` above every label."""

    def checked(x: Tensor) -> Tensor:
        logits = model(x)
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(f"the model must return logits of shape ({len(x)}, classes), got {shape}")
        if logits.shape[1] <= highest_label:
            raise UserError(f"labels go up to {highest_label}, but the model has {logits.shape[1]} classes (0 to {logits.shape[1] - 1})")
        return logits

    return checked
