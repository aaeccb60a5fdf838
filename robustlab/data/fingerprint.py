"""A set's identity: a hash of its labels and of some of its images."""

from __future__ import annotations

import hashlib

import torch
from safetensors.torch import save as tensor_bytes

from robustlab.data.imageset import Images


def fingerprint(images: Images, sample: int = 64) -> str:
    """A hash of all the labels, and of some images spread over the set: enough to tell one data set from another.

    Args:
        images: the set.
        sample: how many of its images are read.

    Returns:
        Hexadecimal SHA-256.
    """
    index = torch.linspace(0, len(images) - 1, min(sample, len(images))).round().long()
    parts = {"labels": images.labels.cpu().contiguous(), "pixels": images.fetch(index).cpu().contiguous()}
    return hashlib.sha256(tensor_bytes(parts)).hexdigest()
