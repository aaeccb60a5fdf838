"""Borrow a model and give it back as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


@contextmanager
def frozen(model: nn.Module, *, training: bool = False) -> Iterator[nn.Module]:
    """Inside, the model is in evaluation mode and builds no parameter gradients; afterwards all is as before.

    Restored, also after an exception: every submodule's own mode, ``requires_grad`` of every parameter, all buffers
    (BatchNorm statistics, say), and the global random state of the CPU and of the model's CUDA devices. ``.grad`` is
    never touched.

    Args:
        training: run the model in training mode instead; the statistics that it updates are still put back.
    """
    modes = [(module, module.training) for module in model.modules()]
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    buffers = [(module, name, b, b.detach().clone()) for module in model.modules() for name, b in module.named_buffers(recurse=False)]
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices, device_type="cuda"):
        try:
            model.train(training)
            for parameter in wanted:
                parameter.requires_grad_(False)
            yield model
        finally:
            for module, mode in modes:
                module.training = mode
            for parameter in wanted:
                parameter.requires_grad_(True)
            # Past the version counter, which BatchNorm's updates do not move either: graphs that were built before stay valid.
            for module, name, buffer, before in buffers:
                buffer.data.copy_(before)
                setattr(module, name, buffer)


def on_device(model: Network, device: torch.device | str) -> Network:
    """The model itself where it is on the device already, else a copy there: a borrowed model stays where it is."""
    one = next(chain(model.parameters(), model.buffers()), None)
    # "cuda" means the current GPU, and only a tensor that is there says which one that is.
    if one is None or one.device == torch.empty(0, device=device).device:
        return model
    return copy.deepcopy(model).to(device)
