"""Images in a ``.safetensors`` file: tensors ``x`` ``(N, C, H, W)`` and ``y`` ``(N,)``, and class names in its metadata."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from robustlab.data.imageset import ImageSet
from robustlab.errors import UserError


def open_safetensors(path: Path) -> ImageSet:
    """All the images of a file: uint8, or float16 or float32 in [0, 1], and int64 labels.

    The metadata may hold ``classes``, a JSON list of names; without it the classes are called 0, 1, ... up to the
    largest label.

    Raises:
        UserError: no such file or tensor, other shapes or types, values or labels out of range.
    """
    try:
        with safe_open(path, framework="pt") as file:
            missing = sorted({"x", "y"} - set(file.keys()))
            if missing:
                raise UserError(f"{path} has no tensor {missing[0]!r}; it has {', '.join(sorted(file.keys())) or 'none'}")
            pixels, labels, about = file.get_tensor("x"), file.get_tensor("y"), file.metadata() or {}
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {path} as a .safetensors file: {error}") from error
    if "classes" in about:
        classes = _names(path, about["classes"])
    else:
        highest = int(labels.max()) if labels.numel() and labels.dtype == torch.int64 else -1
        classes = tuple(str(label) for label in range(highest + 1))
    return ImageSet(pixels, labels, classes, path.stem)


def _names(path: Path, text: str) -> tuple[str, ...]:
    try:
        names = json.loads(text)
    except json.JSONDecodeError:
        names = None
    if not isinstance(names, list):
        raise UserError(f"{path}: the classes in its metadata must be a JSON list of names")
    return tuple(map(str, names))
