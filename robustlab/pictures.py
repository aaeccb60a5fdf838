"""Pictures of what happened: grids of images, and perturbations made visible."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from robustlab import files
from robustlab.norms import Linf, expanded


def amplified(delta: Tensor) -> Tensor:
    """A perturbation around mid-grey, each example scaled so that its largest value spans the range: ``(B, C, H, W)``."""
    size = Linf().measure(delta)
    return 0.5 + 0.5 * delta / expanded(torch.where(size > 0, size, 1), delta)


def gradient_picture(grad: Tensor) -> Tensor:
    """An input gradient around mid-grey, clipped at three standard deviations of each example (Tsipras et al. 2019)."""
    spread = grad.flatten(1).std(1)
    return (0.5 + grad / (6 * expanded(torch.where(spread > 0, spread, 1), grad))).clamp(0, 1)


def sheet(rows: Sequence[Tensor], scale: int = 1, pad: int = 2) -> Tensor:
    """A grid with one row per batch of images: float ``(3, H, W)`` in [0, 1] on white, each pixel ``scale`` wide."""
    rows = [row.detach().cpu().float().clamp(0, 1).repeat_interleave(scale, 2).repeat_interleave(scale, 3) for row in rows]
    return make_grid(torch.cat(list(rows)), nrow=len(rows[0]), padding=pad, pad_value=1.0)


def to_image(picture: Tensor) -> Image.Image:
    """A picture ``(3, H, W)`` in [0, 1] as an 8-bit image."""
    return Image.fromarray((picture * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def save(path: str | os.PathLike[str], picture: Tensor) -> None:
    """Write a picture ``(3, H, W)`` in [0, 1] as PNG, atomically."""
    files.write_with(path, lambda temporary: to_image(picture).save(temporary, format="PNG"))
