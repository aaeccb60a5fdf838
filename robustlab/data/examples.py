"""One example or one batch, in whatever form it comes, as tensors: pixels as they are stored, and class numbers.

Images are uint8 or floats, as tensors, arrays or PIL images; class numbers are whole numbers in any form. A pair may also be a
dictionary; what follows the first two parts of a longer tuple is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustlab.errors import UserError

IMAGE_NAMES = ("image", "images", "img", "x", "pixel_values")
LABEL_NAMES = ("label", "labels", "y", "target", "targets")
CHANNELS = (1, 3)


def pair(raw: Any) -> tuple[Any, Any]:
    """Images and labels, of one example or of a batch, as they come.

    Raises:
        UserError: neither a pair nor a dictionary with both.
    """
    if isinstance(raw, Mapping):
        found = [next((raw[name] for name in names if name in raw), None) for names in (IMAGE_NAMES, LABEL_NAMES)]
        if found[0] is None or found[1] is None:
            raise UserError(f"examples need an image and a label, called 'image' and 'label' say, and have {', '.join(map(repr, raw))}")
        return found[0], found[1]
    if isinstance(raw, tuple | list) and len(raw) >= 2:
        return raw[0], raw[1]
    raise UserError(f"data must give pairs (x, y) of images and labels, got {type(raw).__name__}")


def is_single(x: Any, y: Any) -> bool:
    """Whether a pair is one example rather than a batch."""
    return isinstance(x, Image.Image) or isinstance(y, int | np.integer | str) or (isinstance(y, Tensor | np.ndarray) and y.ndim == 0)


def stacked(items: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Single examples as a batch: ``(B, C, H, W)`` and int64 ``(B,)``.

    Raises:
        UserError: no images or class numbers, or images of different sizes or types.
    """
    pairs = [pair(item) for item in items]
    return joined([image(x)[None] for x, _ in pairs]), torch.tensor([label(y) for _, y in pairs], dtype=torch.int64)


def joined(batches: Sequence[Tensor]) -> Tensor:
    """Batches of images one after another.

    Raises:
        UserError: different sizes or types.
    """
    shapes = sorted({tuple(x.shape[1:]) for x in batches})
    if len(shapes) > 1:
        raise UserError(f"images must be of one size, got {shapes[0]} and {shapes[1]}: resize and crop them where they are read")
    dtypes = sorted({str(x.dtype) for x in batches})
    if len(dtypes) > 1:
        raise UserError(f"images must be of one type, got {dtypes[0]} and {dtypes[1]}")
    return batches[0] if len(batches) == 1 else torch.cat(list(batches))


def images(x: Any) -> Tensor:
    """A batch as it is stored: uint8, float16 or float32, ``(B, C, H, W)``; tensors may have any other shape ``(B, ...)``.

    Raises:
        UserError: no images, or lists of images of different sizes.
    """
    if isinstance(x, list | tuple):
        return joined([image(one)[None] for one in x])
    return _stored(_channels_first(x, 4) if isinstance(x, np.ndarray) else x)


def image(x: Any) -> Tensor:
    """One image as it is stored: uint8, float16 or float32, ``(C, H, W)``.

    Raises:
        UserError: no image, or a PIL image of more than 8 bits.
    """
    if isinstance(x, Image.Image):
        if x.mode[0] in "IF":
            raise UserError(f"a PIL image has more than 8 bits per channel (mode {x.mode}): convert it to 8 bits first")
        x = np.array(x if x.mode in ("L", "RGB") else x.convert("L" if x.mode == "1" else "RGB"))
    return _stored(_channels_first(x, 3) if isinstance(x, np.ndarray) else x)


def _channels_first(x: np.ndarray, ndim: int) -> Tensor:
    """An array with its channels before its rows; one channel where it has none."""
    if x.ndim == ndim - 1:
        x = x[..., None, :, :]
    elif x.ndim == ndim and x.shape[-3] not in CHANNELS and x.shape[-1] in CHANNELS:
        x = np.moveaxis(x, -1, -3)
    return torch.from_numpy(np.ascontiguousarray(x))


def _stored(x: Any) -> Tensor:
    if not isinstance(x, Tensor):
        raise UserError(f"images must be tensors, arrays or PIL images, got {type(x).__name__}")
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise UserError(f"images must be uint8 or floating point in [0, 1], got {x.dtype}")
    return x.float() if x.dtype in (torch.float64, torch.bfloat16) else x


def in_range(x: Tensor) -> Tensor:
    """The images themselves.

    Raises:
        UserError: floats outside [0, 1].
    """
    if not x.is_floating_point() or x.numel() == 0:
        return x
    low, high = (float(value) for value in torch.aminmax(x))
    if low >= 0 and high <= 1:
        return x
    if not (low == low and high == high):
        raise UserError("images must lie in [0, 1], found NaN")
    if low >= 0 and high > 2:
        mend = "they look like 0-255 values, so give them as uint8 or divide them by 255"
    else:
        mend = "take Normalize out of the data's transform and put it into the model, as nn.Sequential(Normalize(mean, std), model)"
    raise UserError(f"images must lie in [0, 1], found values from {low:.4g} to {high:.4g}: {mend}")


def labels(y: Any, n: int) -> Tensor:
    """Class numbers, int64, shape ``(n,)``.

    Raises:
        UserError: other than ``n`` of them, or no whole numbers.
    """
    if isinstance(y, list | tuple) and y and isinstance(y[0], Tensor):
        y = torch.stack(list(y))
    try:
        found = y if isinstance(y, Tensor) else torch.as_tensor(np.asarray(y))
    except (TypeError, ValueError) as error:  # text, or rows of different lengths
        raise UserError(f"labels must be class numbers, got {y[0] if len(y) else y!r}") from error
    if found.ndim == 2 and found.shape[1] == 1:
        found = found[:, 0]
    if found.ndim == 2 and len(found) == n:
        raise UserError(f"labels must be class numbers of shape ({n},), got shape {tuple(found.shape)}: of one-hot rows take y.argmax(1)")
    if found.shape != (n,):
        raise UserError(f"there are {n} images, but labels of shape {tuple(found.shape)}")
    if n and (found.is_floating_point() or found.is_complex()):
        raise UserError(f"labels must be whole numbers, got {found.dtype}")
    return found.long()


def label(y: Any) -> int:
    """The class number of one example.

    Raises:
        UserError: it is none.
    """
    if isinstance(y, int):
        return y
    if isinstance(y, str) or y is None:
        raise UserError(f"a label must be a class number, got {y!r}")
    return int(labels(y if isinstance(y, Tensor) and y.ndim else np.atleast_1d(y), 1))
