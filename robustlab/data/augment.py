"""Random changes of training images, drawn per example and applied to a whole batch of pixels, uint8 or floats, on their device."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from robustlab.errors import UserError
from robustlab.seeding import fold, integers

Augment = Callable[[Tensor, Tensor], Tensor]  # pixels (B, C, H, W) and keys (B,) -> pixels (B, C, H, W) of the same type


def crop_flip(pad: int = 4, flip: bool = True) -> Augment:
    """Shift each image by up to ``pad`` pixels either way, its border mirrored, and flip every second one left to right.

    Args:
        pad: largest shift in pixels; 4 is the custom for 32x32 images.
        flip: also flip; not for images where left and right differ in meaning, such as digits.

    Raises:
        UserError: a negative ``pad``; when images come, one that is not smaller than they are.
    """
    if pad < 0:
        raise UserError(f"pad must not be negative, got {pad}")
    return partial(_crop_flip, pad=pad, flip=flip)


def _crop_flip(pixels: Tensor, keys: Tensor, *, pad: int, flip: bool) -> Tensor:
    """Every row of the result is a run of pixels in a row of the mirrored images, so one gather of rows does it all."""
    batch, channels, height, width = pixels.shape
    if pad >= min(height, width):
        raise UserError(f"cannot mirror {pad} pixels around a {width}x{height} image; use a smaller pad")
    draws = integers(fold(keys, "crop"), 2 * pad + 1, (2,))
    side = integers(fold(keys, "flip"), 2) if flip else torch.zeros_like(keys)
    top, left = draws[:, 0, None], draws[:, 1, None]

    mirrored = torch.cat([pixels[..., 1 : pad + 1].flip(-1), pixels, pixels[..., width - 1 - pad : width - 1].flip(-1)], -1)
    both = torch.stack([mirrored, mirrored.flip(-1)]).flatten()  # (2 * B * C * H * (W + 2 pad),)
    rows = _reflect(torch.arange(height, device=pixels.device) - pad + top, height)  # (B, H)
    image = (side * batch + torch.arange(batch, device=pixels.device))[:, None, None]
    channel = torch.arange(channels, device=pixels.device)[:, None]
    start = ((image * channels + channel) * height + rows[:, None]) * (width + 2 * pad) + left[:, None]  # (B, C, H)
    runs = both.as_strided((max(0, both.numel() - width + 1), width), (1, 1))
    return runs.index_select(0, start.flatten()).view_as(pixels)


def _reflect(position: Tensor, size: int) -> Tensor:
    """Positions outside ``range(size)`` mirrored back into it, the border pixel not repeated."""
    return (size - 1) - ((size - 1) - position.abs()).abs()
