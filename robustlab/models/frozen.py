"""Borrow a model and give it back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


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
