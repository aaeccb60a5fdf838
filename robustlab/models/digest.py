"""A model's identity: the SHA-256 of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from safetensors.torch import save as tensor_bytes
from torch import Tensor, nn

from robustlab.models.classifier import Classifier


def digest(model: nn.Module, *, normalization: bool = True) -> str:
    """Hexadecimal SHA-256 of a model's weights, under whatever name and on whatever device they are.

    Args:
        model: any network.
        normalization: count a classifier's mean and deviation among the weights, so that models differ that differ in these alone.
    """
    tensors = dict(model.state_dict())
    if normalization and isinstance(model, Classifier):
        tensors |= {"mean": model.mean, "std": model.std}
    return hashlib.sha256(tensor_bytes(on_cpu(tensors))).hexdigest()


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as contiguous ones on the CPU; those of one device come over in one piece, since each copy makes a device wait."""
    found = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    for device in {tensor.device for tensor in found.values()} - {torch.device("cpu")}:
        here = [name for name, tensor in found.items() if tensor.device == device]
        raw = torch.cat([found[name].reshape(-1).view(torch.uint8) for name in here]).cpu()
        for name, part in zip(here, raw.split([found[name].nbytes for name in here]), strict=True):
            found[name] = part.clone().view(found[name].dtype).reshape(found[name].shape)
    return found
