"""Pictures of what happened: grids of images with words beside them, and perturbations made visible.

A picture is a tensor ``(3, H, W)``, float32 in [0, 1]; ``to_image`` makes an 8-bit image of it, ``save`` a PNG file.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from robustlab import files
from robustlab.norms import Linf, expanded
from robustlab.pixels import to_uint8

INK, FAINT, ALARM = "#111827", "#6b7280", "#b91c1c"  # colours of words
PAD = 4  # white pixels between the images of a picture with words
LINE = 18  # height of a line of words
OWN_SIGNS = (
    "\N{COPYRIGHT SIGN}\N{DEGREE SIGN}\N{PLUS-MINUS SIGN}\N{MIDDLE DOT}\N{HORIZONTAL ELLIPSIS}"  # that Pillow's font has beyond ASCII
)
READABLE = 96  # pixels: images at least this wide have room for a word or two


def amplified(delta: Tensor) -> Tensor:
    """A perturbation around mid-grey, each example scaled so that its largest value spans the range: ``(B, C, H, W)``."""
    size = Linf().measure(delta)
    return 0.5 + 0.5 * delta / expanded(torch.where(size > 0, size, 1), delta)


def amplification(delta: Tensor) -> Tensor:
    """How many times larger ``amplified`` shows each perturbation, ``(B, C, H, W) -> (B,)``; 0.5 where nothing changed."""
    size = Linf().measure(delta)
    return 0.5 / torch.where(size > 0, size, 1)


def gradient_picture(grad: Tensor) -> Tensor:
    """An input gradient around mid-grey, clipped at three standard deviations of each example (Tsipras et al. 2019)."""
    spread = grad.flatten(1).std(1)
    return (0.5 + grad / (6 * expanded(torch.where(spread > 0, spread, 1), grad))).clamp(0, 1)


def sheet(rows: Sequence[Tensor], scale: int = 1, pad: int = 2) -> Tensor:
    """A grid on white with one row per batch of images, as many in each.

    Args:
        rows: images in [0, 1], shape ``(B, C, H, W)`` with 1 or 3 channels; values beyond are clipped.
        scale: width of each pixel.
        pad: white pixels between and around the images.

    Returns:
        Shape ``(3, rows * (H * scale + pad) + pad, B * (W * scale + pad) + pad)``, float32 in [0, 1].
    """
    shown = [row.detach().cpu().float().clamp(0, 1).repeat_interleave(scale, 2).repeat_interleave(scale, 3) for row in rows]
    (count, _, height, width), down, across = shown[0].shape, shown[0].shape[2] + pad, shown[0].shape[3] + pad
    grid = torch.ones(3, len(shown) * down + pad, count * across + pad)
    for i, row in enumerate(shown):
        for j, image in enumerate(row):
            grid[:, pad + i * down :, pad + j * across :][:, :height, :width] = image
    return grid


def titled(rows: Sequence[tuple[str, Tensor]], heads: Sequence[str], feet: Sequence[str] = (), scale: int = 1) -> Tensor:
    """``sheet`` with words: the title of each row to its left, and those of each column above and below.

    Args:
        rows: title and images, as many in each row as there are ``heads``.
        heads: above the columns.
        feet: below the columns; none where left out.
        scale: width of each pixel.
    """
    left = 150
    grid = to_image(sheet([images for _, images in rows], scale, PAD))
    height, width = rows[0][1].shape[-2] * scale + PAD, rows[0][1].shape[-1] * scale + PAD
    image = Image.new("RGB", (left + grid.width, 2 * LINE + grid.height), "white")
    image.paste(grid, (left, LINE))
    draw = ImageDraw.Draw(image)
    for i, (title, _) in enumerate(rows):
        draw.text((left - 8, LINE + PAD + height * i + (height - PAD) / 2), title, fill=INK, font=_font(title), anchor="rm")
    for words, y in ((heads, LINE / 2 + 2), (feet, LINE * 1.5 + grid.height)):
        for j, word in enumerate(words):
            font, middle = _font(word), (left + PAD + width * j + (width - PAD) / 2, y)
            draw.text(middle, _fitting(word, font, width), fill=INK, font=font, anchor="mm")
    return _to_picture(image)


@dataclass(frozen=True, eq=False)
class Row:
    """Images side by side, each with its own words.

    Attributes:
        title: left of them; empty for none.
        images: in [0, 1], shape ``(B, C, H, W)`` with 1 or 3 channels.
        captions: below each image, shortened to its width.
        colors: of the captions; all are dark where left out.
    """

    title: str
    images: Tensor
    captions: Sequence[str]
    colors: Sequence[str] = ()


def captioned(rows: Sequence[Row], scale: int = 1) -> Tensor:
    """Rows of images with words below every single one.

    Args:
        rows: all with as many images of one size.
        scale: width of each pixel, see ``fitting_scale``.
    """
    left = max((int(_font(row.title).getlength(row.title)) + 2 * PAD + 8 for row in rows if row.title), default=PAD)
    height, width = (side * scale for side in rows[0].images.shape[-2:])
    down, across = height + PAD + LINE, width + 2 * PAD
    image = Image.new("RGB", (left + across * len(rows[0].images) + PAD, down * len(rows) + 2 * PAD), "white")
    draw = ImageDraw.Draw(image)
    for i, row in enumerate(rows):
        top = PAD + down * i
        draw.text((left - PAD - 4, top + height / 2), row.title, fill=INK, font=_font(row.title), anchor="rm")
        colors = row.colors or [INK] * len(row.captions)
        for j, (one, words, color) in enumerate(zip(row.images, row.captions, colors, strict=True)):
            image.paste(to_image(sheet([one[None]], scale, pad=0)), (left + across * j + PAD, top))
            middle = (left + across * j + PAD + width / 2, top + height + LINE / 2)
            draw.text(middle, _fitting(words, _font(words), width + PAD), fill=color, font=_font(words), anchor="mm")
    return _to_picture(image)


def fitting_scale(width: int, at_least: int = READABLE) -> int:
    """How often to repeat each pixel so that images of this width become ``at_least`` so many pixels wide."""
    return max(1, -(-at_least // width))


def _font(words: str) -> Any:
    """Pillow's own font; for words with letters that it lacks, such as accents, DejaVu Sans, which matplotlib brings along."""
    if all(sign.isascii() or sign in OWN_SIGNS for sign in words):
        return ImageFont.load_default(12)
    return _wide_font() or ImageFont.load_default(12)


@cache
def _wide_font() -> Any:
    """DejaVu Sans, as large as Pillow's own font; None where matplotlib lies elsewhere."""
    found = find_spec("matplotlib")  # without an import of it, which takes a second
    path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf" if found and found.origin else None
    return ImageFont.truetype(path, 11) if path and path.is_file() else None


def _fitting(word: str, font: Any, width: float) -> str:
    """The word, shortened to the width."""
    while len(word) > 1 and font.getlength(word) > width:
        word = word.removesuffix("\N{HORIZONTAL ELLIPSIS}")[:-1] + "\N{HORIZONTAL ELLIPSIS}"
    return word


def _to_picture(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255)


def to_image(picture: Tensor) -> Image.Image:
    """A picture ``(3, H, W)`` in [0, 1] as an 8-bit image."""
    return Image.fromarray(to_uint8(picture).permute(1, 2, 0).cpu().numpy())


def as_html(picture: Tensor, caption: str = "") -> str:
    """A picture as a piece of HTML that holds its bytes.

    Args:
        picture: ``(3, H, W)`` in [0, 1].
        caption: HTML that stands below it; what a person wrote must be escaped.
    """
    content = io.BytesIO()
    to_image(picture).save(content, format="PNG")
    source = "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()
    return f'<figure style="margin:0"><img src="{source}" alt=""><figcaption>{caption}</figcaption></figure>'


def save(path: str | os.PathLike[str], picture: Tensor) -> None:
    """Write a picture ``(3, H, W)`` in [0, 1] as PNG, atomically.

    Raises:
        UserError: the disk is full or the place cannot be written.
    """
    files.write_with(path, lambda temporary: to_image(picture).save(temporary, format="PNG"))
