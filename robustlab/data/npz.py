"""Images in an ``.npz`` file: arrays ``x`` (or ``images``) and ``y`` (or ``labels``), and optionally ``classes``."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustlab.data.imageset import ImageSet
from robustlab.errors import UserError

CHANNELS = (1, 3)


def open_npz(path: Path) -> ImageSet:
    """All the images of a file.

    ``x`` holds uint8, or floats in [0, 1]; as ``(N, C, H, W)``, ``(N, H, W, C)`` with 1 or 3 channels, or ``(N, H, W)``.
    Floats that are 8-bit values divided by 255 become uint8 again; others stay float16 or float32, and float64 becomes
    float32. ``y`` holds whole numbers, ``(N,)`` or ``(N, 1)``. ``classes`` holds names, else the classes are called 0, 1,
    ... up to the largest label. Pickled objects are never loaded.

    Raises:
        UserError: no such file or array, other shapes or types, values or labels out of range.
    """
    arrays = _read(path)
    pixels = _pixels(path, _first(path, arrays, "x", "images"))
    labels = _labels(path, _first(path, arrays, "y", "labels"))
    if "classes" in arrays:
        classes = tuple(str(name) for name in arrays["classes"])
    else:
        classes = tuple(str(label) for label in range(int(labels.max()) + 1 if len(labels) else 0))
    return ImageSet(pixels, labels, classes, path.stem)


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            return dict(file)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    # numpy reports what is not an archive, an array cut short, and a pickled object by these; a lone .npy has no keys.
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read {path} as an .npz file of plain arrays: {error}") from error


def _first(path: Path, arrays: dict[str, np.ndarray], *names: str) -> np.ndarray:
    for name in names:
        if name in arrays:
            return arrays[name]
    raise UserError(f"{path} has no array {' or '.join(map(repr, names))}; it has {', '.join(sorted(arrays)) or 'none'}")


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
    if not np.issubdtype(x.dtype, np.floating):
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
    return torch.from_numpy(y.astype(np.int64).reshape(len(y) if y.ndim == 2 and y.shape[1] == 1 else y.shape))
