"""Images in a ``.safetensors`` file: tensors ``x`` ``(N, C, H, W)`` and ``y`` ``(N,)``, and class names in its metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from robustlab import files
from robustlab.data.classes import numbers, told_apart
from robustlab.data.imageset import ImageSet, readable_name
from robustlab.errors import UserError
from robustlab.paths import shown

WORDS = {torch.uint8: "U8", torch.float16: "F16", torch.float32: "F32"}  # of the format, for types of pixels


def open_safetensors(path: Path) -> ImageSet:
    """All the images of a file: uint8, or float16 or float32 in [0, 1], and int64 labels.

    The metadata may hold ``classes``, a JSON list of names; without it the classes are called 0, 1, ... up to the
    largest label.

    Raises:
        UserError: no such file or tensor, other shapes or types, values or labels out of range.
    """
    with files.reading(path, "a .safetensors file"):
        files.open_regular(path).close()
        with safe_open(path, framework="pt") as file:
            missing = sorted({"x", "y"} - set(file.keys()))
            if missing:
                raise UserError(f"{path} has no tensor {missing[0]!r}; it has {', '.join(map(shown, file.keys())) or 'none'}")
            pixels, labels, about = file.get_tensor("x"), file.get_tensor("y"), file.metadata() or {}
    if "classes" in about:
        classes = told_apart(str(path), _names(path, about["classes"]))
    else:
        classes = numbers(str(path), labels if labels.dtype == torch.int64 else labels[:0])
    return ImageSet(pixels, labels, classes, readable_name(path.stem))


def head(labels: Sequence[int] | Tensor, shape: Sequence[int], dtype: torch.dtype, classes: Sequence[str], **about: str) -> bytes:
    """The bytes of such a file that come before the pixels, for who writes them piece by piece, which the library does not offer.

    The format is that of https://huggingface.co/docs/safetensors.

    Args:
        labels: N class numbers.
        shape: ``(C, H, W)`` of each image.
        dtype: of the pixels: uint8, float16 or float32.
        classes: names of the classes.
        about: what else the metadata say, such as the set's ``name``.
    """
    n, size = len(labels), math.prod(shape) * dtype.itemsize
    tensors = {
        "y": {"dtype": "I64", "shape": [n], "data_offsets": [0, 8 * n]},
        "x": {"dtype": WORDS[dtype], "shape": [n, *shape], "data_offsets": [8 * n, (8 + size) * n]},
    }
    text = json.dumps({"__metadata__": {"classes": json.dumps(list(classes)), **about}, **tensors}).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers behind it are aligned
    return len(text).to_bytes(8, "little") + text + torch.as_tensor(labels, dtype=torch.int64).cpu().numpy().astype("<i8").tobytes()


def _names(path: Path, text: str) -> list[object]:
    names = files.parse_json(text, path, "the classes in its metadata")
    if not isinstance(names, list) or not all(isinstance(name, str | int) for name in names):
        raise UserError(f"{path}: the classes in its metadata must be a JSON list of names")
    return names
