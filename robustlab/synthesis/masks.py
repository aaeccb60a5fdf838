"""Masks by name or from a picture: which part of an image to work on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from robustlab.data.picturefiles import Unreadable, opened
from robustlab.errors import UserError
from robustlab.paths import place_of
from robustlab.seeding import fold, integers


def mask_of(name: str, keys: Tensor, height: int, width: int) -> Tensor:
    """A mask for each image, bool ``(n, 1, H, W)``, true where to work.

    Args:
        name: one of ``MASKS``, or the path of a picture of the images' size that is white where to work.
        keys: one per image, int64 ``(n,)``; see ``robustlab.seeding``.

    Raises:
        UserError: no such name or picture, or a picture of another size or without white.
    """
    mask = MASKS[name](keys, height, width) if name in MASKS else _from_picture(name, height, width)
    return mask.to(keys.device).expand(len(keys), 1, height, width)


def _square(keys: Tensor, height: int, width: int) -> Tensor:
    """A square anywhere, as wide compared with the image as that of Santurkar et al. (2019), 60 pixels of 224."""
    side = max(1, round(min(height, width) * 60 / 224))
    top, left = (integers(fold(keys, "hole", along), size - side + 1)[:, None] for along, size in (("y", height), ("x", width)))
    rows, columns = (torch.arange(size, device=keys.device) for size in (height, width))
    inside = ((rows >= top) & (rows < top + side))[:, :, None] & ((columns >= left) & (columns < left + side))[:, None]
    return inside[:, None]


def _part(top: float, bottom: float, left: float, right: float) -> Callable[[Tensor, int, int], Tensor]:
    """A rectangle, from and to these shares of the height and the width."""

    def make(keys: Tensor, height: int, width: int) -> Tensor:
        mask = torch.zeros(1, 1, height, width, dtype=torch.bool)
        mask[:, :, round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
        return mask

    return make


# By name: from keys (n,), height and width to a mask (n, 1, H, W), or (1, 1, H, W) where it is the same for all images.
MASKS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "square": _square,
    "centre": _part(0.25, 0.75, 0.25, 0.75),
    "left": _part(0, 1, 0, 0.5),
    "right": _part(0, 1, 0.5, 1),
    "top": _part(0, 0.5, 0, 1),
    "bottom": _part(0.5, 1, 0, 1),
}


def _from_picture(name: str, height: int, width: int) -> Tensor:
    """A mask from a picture, which is white where to work: bool ``(1, 1, H, W)``."""
    if not place_of(name).is_file():
        raise UserError(f"there is no mask {name!r}: `mask` takes a picture, or one of {', '.join(MASKS)}")
    try:
        with opened(place_of(name), f"the mask {name}") as image:
            size, mask = image.size, pil_to_tensor(image.convert("L"))[None] >= 128
    except Unreadable as error:
        raise UserError(f"the mask {name} cannot be read as a picture") from error
    if size != (width, height):
        raise UserError(f"the mask {name} must be as large as the images, {width}x{height}, got {size[0]}x{size[1]}")
    if not mask.any():
        raise UserError(f"the mask {name} is black everywhere; it must be white where to work")
    return mask
