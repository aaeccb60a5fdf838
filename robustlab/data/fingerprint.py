"""A set's identity: a hash of its labels and of some of its images."""

from __future__ import annotations

import hashlib
from typing import Any

from safetensors.torch import save as tensor_bytes

from robustlab.data.imageset import Images, spread


def identity(images: Images) -> dict[str, Any]:
    """What a set of images is, wherever it lies, in values that JSON holds. Its name is for people."""
    known = {"name": images.name, "n": len(images), "shape": list(images.shape), "classes": list(images.classes)}
    return {**known, "fingerprint": fingerprint(images)}


def fingerprint(images: Images, sample: int = 64) -> str:
    """A hash of all the labels, and of some images spread over the set: enough to tell one data set from another.

    Args:
        images: the set.
        sample: how many of its images are read.

    Returns:
        Hexadecimal SHA-256.
    """
    pixels = images.fetch(spread(len(images), sample))
    parts = {"labels": images.labels.cpu().contiguous(), "pixels": pixels.cpu().contiguous()}
    return hashlib.sha256(tensor_bytes(parts)).hexdigest()
