"""Borrow a model and give it back as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=Callable[..., object])


@contextmanager
def frozen(model: Model, *, training: bool = False) -> Iterator[Model]:
    """Inside, the model is in evaluation mode and builds no parameter gradients; afterwards all is as before.

    Restored, also after an exception: every submodule's own mode, ``requires_grad`` of every parameter, all buffers
    (BatchNorm statistics, say), and the global random state of the CPU and of the model's devices. ``.grad`` is never touched.

    Args:
        model: a module; of any other callable nothing but the random state is known, so it is called as it is.
        training: run the model in training mode instead; the statistics that it updates are still put back.
    """
    module = model if isinstance(model, nn.Module) else nn.Module()
    # A frozen TorchScript module has no mode: it was made for evaluation.
    modes = [(part, part.training) for part in module.modules() if hasattr(part, "training")]
    wanted = [parameter for parameter in module.parameters() if parameter.requires_grad]
    buffers = [(part, name, b, b.detach().clone()) for part in module.modules() for name, b in part.named_buffers(recurse=False)]
    with _random_states(module):
        try:
            if modes:
                module.train(training)
            for parameter in wanted:
                parameter.requires_grad_(False)
            yield model
        finally:
            for part, mode in modes:
                part.training = mode
            for parameter in wanted:
                parameter.requires_grad_(True)
            # Past the version counter, which BatchNorm's updates do not move either: graphs that were built before stay valid.
            for part, name, buffer, before in buffers:
                buffer.data.copy_(before)
                setattr(part, name, buffer)


@contextmanager
def _random_states(module: nn.Module) -> Iterator[None]:
    """Put the random states of the CPU and of a module's accelerators back."""
    devices = {p.device for p in module.parameters() if p.device.type in ("cuda", "xpu")}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([], device_type="cuda"))
        for kind in sorted({device.type for device in devices}):
            numbers = sorted(device.index for device in devices if device.type == kind)
            stack.enter_context(torch.random.fork_rng(numbers, device_type=kind))
        yield
