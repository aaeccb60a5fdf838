"""A model's identity: the SHA-256 of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from safetensors.torch import save as tensor_bytes
from torch import Tensor, nn

from robustlab.models.classifier import Classifier
from robustlab.models.placement import apart, on_cpu


def digest(model: nn.Module) -> str:
    """Hexadecimal SHA-256 of a model's weights, under whatever name and on whatever device they are.

    A classifier's mean and deviation count among the weights, so that models differ that differ in these alone.
    """
    return digest_of(weights_of(model))


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights on the CPU, and a classifier's ``mean`` and ``std`` among them; read from a device in one piece."""
    normalization = {"mean": model.mean, "std": model.std} if isinstance(model, Classifier) else {}
    return on_cpu({**model.state_dict(), **normalization})


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """Hexadecimal SHA-256 of weights on the CPU, by name."""
    return hashlib.sha256(tensor_bytes(apart(weights))).hexdigest()
