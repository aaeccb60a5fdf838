"""Images in a ``.safetensors`` file: tensors ``x`` ``(N, C, H, W)`` and ``y`` ``(N,)``, and class names in its metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from robustlab import files
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


def head(labels: Sequence[int], shape: Sequence[int], dtype: str, classes: Sequence[str], name: str) -> bytes:
    """The bytes of such a file that come before the pixels, for who writes them piece by piece, which the library does not offer.

    The format is that of https://huggingface.co/docs/safetensors.

    Args:
        labels: N class numbers.
        shape: ``(C, H, W)`` of each image.
        dtype: of the pixels, in the format's words: ``"U8"``, ``"F16"`` or ``"F32"``.
        classes: names of the classes.
        name: what the set is called.
    """
    n, size = len(labels), math.prod(shape) * int(dtype[1:]) // 8
    tensors = {
        "y": {"dtype": "I64", "shape": [n], "data_offsets": [0, 8 * n]},
        "x": {"dtype": dtype, "shape": [n, *shape], "data_offsets": [8 * n, (8 + size) * n]},
    }
    text = json.dumps({"__metadata__": {"classes": json.dumps(list(classes)), "name": name}, **tensors}).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers behind it are aligned
    return len(text).to_bytes(8, "little") + text + torch.tensor(labels, dtype=torch.int64).numpy().astype("<i8").tobytes()


def _names(path: Path, text: str) -> tuple[str, ...]:
    names = files.parse_json(text, path, "the classes in its metadata")
    if not isinstance(names, list):
        raise UserError(f"{path}: the classes in its metadata must be a JSON list of names")
    return tuple(map(str, names))
