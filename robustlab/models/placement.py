"""A model on a device, without moving it for those who lent it."""

from __future__ import annotations

import copy
from itertools import chain
from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


def on_device(model: Model, device: torch.device | str) -> Model:
    """The model itself where it is on the device already, else a copy there: a borrowed model stays where it is."""
    one = next(chain(model.parameters(), model.buffers()), None)
    # "cuda" means the current GPU, and only a tensor that is there says which one that is.
    if one is None or one.device == torch.empty(0, device=device).device:
        return model
    return copy.deepcopy(model).to(device)
