"""Images in an ``.npz`` file: arrays ``x`` (or ``images``) and ``y`` (or ``labels``), and optionally ``classes``.

Files that hold a set in parts open too, by the names of MedMNIST (``train_images``, ``train_labels``, ``val_images``, ...) and of
Keras (``x_train``, ``y_train``, ``x_test``, ``y_test``). What an array's head declares is compared with the file before anything
is made of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from robustlab.data.archive import Archive
from robustlab.data.classes import numbers, told_apart
from robustlab.data.imageset import ImageSet, readable_name
from robustlab.data.tree import PARTS, SPELLED
from robustlab.errors import UserError

CHANNELS = (1, 3)
WHOLE: tuple[tuple[str, ...], tuple[str, ...]] = (("x", "images"), ("y", "labels"))


def open_npz(path: Path, split: str | None = None) -> ImageSet:
    """The images of a file.

    ``x`` holds uint8, or floats in [0, 1]; as ``(N, C, H, W)``, ``(N, H, W, C)`` with 1 or 3 channels, or ``(N, H, W)``.
    Floats that are 8-bit values divided by 255 become uint8 again; others stay float16 or float32, and float64 becomes
    float32. ``y`` holds whole numbers, ``(N,)`` or ``(N, 1)``. ``classes`` holds names, else the classes are called 0, 1,
    ... up to the largest label of any part. Pickled objects are never loaded.

    Args:
        path: the file.
        split: which part, of a file that holds the set in parts.

    Raises:
        UserError: no such file, array or part, other shapes or types, values or labels out of range, or arrays that are far larger
            than the file.
    """
    with _Images(path) as archive:
        images, labels = WHOLE
        if split is not None and archive.parts:
            part = next((part for part in PARTS[split] if part in archive.parts), None)
            if part is None:
                raise UserError(f"{path} has no images for the split {split}: it has arrays for {', '.join(archive.parts)}")
            images, labels = _names(part)
        pixels, y = _pixels(path, archive.first(images)), _labels(path, archive.first(labels))
        if "classes" in archive.names:
            classes = _classes(path, archive.read("classes"))
        else:
            others = [_labels(path, archive.first(_names(part)[1])) for part in archive.parts]
            classes = max((numbers(str(path), some) for some in (y, *others)), key=len)
    return ImageSet(pixels, y, classes, readable_name(path.stem))


def has_parts(path: Path) -> bool:
    """Whether a file holds a set in parts.

    Raises:
        UserError: no such file, or no archive.
    """
    with _Images(path) as archive:
        return bool(archive.parts)


def _names(part: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a part's images and its labels may be called."""
    words = SPELLED[part]
    images = [name for word in words for name in (f"{word}_images", f"x_{word}", f"{word}_x")]
    labels = [name for word in words for name in (f"{word}_labels", f"y_{word}", f"{word}_y")]
    return tuple(images), tuple(labels)


class _Images(Archive):
    """An archive with images.

    Attributes:
        parts: those that it holds; none where it holds a whole set.
    """

    def __enter__(self) -> Self:
        super().__enter__()
        whole = [self.called(names) for names in WHOLE]
        parts = [part for part in SPELLED if all(self.called(names) for names in _names(part))]
        self.parts = [] if all(whole) else parts
        return self


def _classes(path: Path, names: np.ndarray) -> tuple[str, ...]:
    if names.ndim != 1 or names.dtype.kind not in "USiu":
        raise UserError(f"{path}: classes must be names (K,), got {names.dtype} {names.shape}")
    texts = [name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name) for name in names.tolist()]
    return told_apart(str(path), texts)


def _pixels(path: Path, x: np.ndarray) -> Tensor:
    if x.ndim == 3:
        x = x[:, None]
    first, last = (x.ndim == 4 and x.shape[axis] in CHANNELS for axis in (1, 3))
    if first == last:
        raise UserError(f"{path}: images must be (N, C, H, W) or (N, H, W, C) with 1 or 3 channels, got shape {x.shape}")
    return torch.from_numpy(np.ascontiguousarray(_stored(path, x if first else x.transpose(0, 3, 1, 2))))


def _stored(path: Path, x: np.ndarray) -> np.ndarray:
    """Pixels as they are kept, from uint8 or floats in [0, 1]."""
    if x.dtype == np.uint8:
        return x
    if x.dtype not in (np.float16, np.float32, np.float64):
        raise UserError(f"{path}: images must be uint8 or floats in [0, 1], got {x.dtype}")
    low, high = (float(x.min()), float(x.max())) if x.size else (0.0, 0.0)
    if not (low >= 0 and high <= 1):  # also where one is NaN
        raise UserError(f"{path}: images must be uint8 or floats in [0, 1], got floats from {low:g} to {high:g}")
    if x.dtype == np.float16:  # too coarse to tell whether it came from 8-bit values
        return x
    exact = x.astype(np.float32)
    levels = np.round(exact * 255).astype(np.uint8)
    return levels if np.array_equal(levels.astype(np.float32) / 255, exact) else exact


def _labels(path: Path, y: np.ndarray) -> Tensor:
    if not np.issubdtype(y.dtype, np.integer):
        raise UserError(f"{path}: labels must be whole numbers, got {y.dtype}")
    if y.size and int(y.max()) > np.iinfo(np.int64).max:
        raise UserError(f"{path}: label {y.max()} is out of range")
    return torch.from_numpy(y.astype(np.int64).reshape(len(y) if y.ndim == 2 and y.shape[1] == 1 else y.shape))
