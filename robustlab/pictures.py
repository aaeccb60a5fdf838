"""Pictures of what happened: grids of images, and perturbations made visible."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import to_tensor
from torchvision.utils import make_grid

from robustlab import files
from robustlab.norms import Linf, expanded
from robustlab.pixels import to_uint8


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


def titled(rows: Sequence[tuple[str, Tensor]], heads: Sequence[str], feet: Sequence[str] = (), scale: int = 1) -> Tensor:
    """``sheet`` with words: the title of each row to its left, and those of each column above and below.

    Args:
        rows: title and images, as many in each row as there are ``heads``.
        feet: below the columns; none where left out.
    """
    pad, left, line = 4, 150, 18
    grid = to_image(sheet([images for _, images in rows], scale, pad))
    height, width = rows[0][1].shape[-2] * scale + pad, rows[0][1].shape[-1] * scale + pad
    image = Image.new("RGB", (left + grid.width, 2 * line + grid.height), "white")
    image.paste(grid, (left, line))
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    for i, (title, _) in enumerate(rows):
        draw.text((left - 8, line + pad + height * i + (height - pad) / 2), title, fill="#111827", font=font, anchor="rm")
    for words, y in ((heads, line / 2 + 2), (feet, line * 1.5 + grid.height)):
        for j, word in enumerate(words):
            draw.text((left + pad + width * j + (width - pad) / 2, y), _fitting(word, font, width), fill="#111827", font=font, anchor="mm")
    return to_tensor(image)


def _fitting(word: str, font: Any, width: float) -> str:
    """The word, shortened to the width."""
    while len(word) > 1 and font.getlength(word) > width:
        word = word.removesuffix("\N{HORIZONTAL ELLIPSIS}")[:-1] + "\N{HORIZONTAL ELLIPSIS}"
    return word


def to_image(picture: Tensor) -> Image.Image:
    """A picture ``(3, H, W)`` in [0, 1] as an 8-bit image."""
    return Image.fromarray(to_uint8(picture).permute(1, 2, 0).cpu().numpy())


def save(path: str | os.PathLike[str], picture: Tensor) -> None:
    """Write a picture ``(3, H, W)`` in [0, 1] as PNG, atomically."""
    files.write_with(path, lambda temporary: to_image(picture).save(temporary, format="PNG"))
