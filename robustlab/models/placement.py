"""Where a model is: on a device, without moving it for those who lent it; and tensors of a device on the CPU."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import chain
from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def device_of(model: nn.Module) -> torch.device:
    """Where a model is; the CPU where it has neither parameters nor buffers."""
    return next((one.device for one in chain(model.parameters(), model.buffers())), torch.device("cpu"))


def on_device(model: Model, device: torch.device | str) -> Model:
    """The model itself where it is on the device already, else a copy there: a borrowed model stays where it is."""
    one = next(chain(model.parameters(), model.buffers()), None)
    # "cuda" means the current GPU, and only a tensor that is there says which one that is.
    if one is None or one.device == torch.empty(0, device=device).device:
        return model
    return copy.deepcopy(model).to(device)


def likes_channels_last(model: nn.Module) -> bool:
    """Whether a model can be trained in the layout ``channels_last``, in which convolutions are fastest.

    Not with a 1x1 convolution that takes strides and fewer than 8 channels: on a CPU with AVX2 and without AVX-512 the gradient of its
    weights writes beyond their memory in that layout (oneDNN in torch 2.15), which ends the process, or worse.
    """
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    return not any(max(one.kernel_size) == 1 < max(one.stride) and one.in_channels < 8 for one in convolutions)


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as contiguous ones on the CPU; those of one device come over in one piece, since each copy makes a device wait."""
    found = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    for device in {tensor.device for tensor in found.values()} - {torch.device("cpu")}:
        here = [name for name, tensor in found.items() if tensor.device == device]
        raw = torch.cat([found[name].reshape(-1).view(torch.uint8) for name in here]).cpu()
        for name, part in zip(here, raw.split([found[name].nbytes for name in here]), strict=True):
            found[name] = part.clone().view(found[name].dtype).reshape(found[name].shape)
    return found


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory, as safetensors wants them: of tied weights, which have several names, each name gets a copy."""
    found, seen = dict(tensors), set()
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        if tensor.numel() and place in seen:
            found[name] = tensor.clone()
        seen.add(place)
    return found
