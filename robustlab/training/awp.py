"""Adversarial weight perturbation (Wu, Xia and Wang 2020): a step is taken with the gradient at weights that make the loss larger.

The source perturbs by the difference to a proxy network that took one step of SGD up the loss, scaled to ``gamma`` times the norm of each
layer's weights. The scale takes the proxy's learning rate out again, so the gradient itself serves. The source lets the optimizer move
the perturbed weights and then subtracts; here the weights are put back first, bit by bit, so weight decay acts on them as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

TINY = 1e-20  # in place of a gradient's norm that is 0, as in the source


@contextmanager
def perturbed(model: nn.Module, gamma: float) -> Iterator[None]:
    """Inside, the weights are moved along their gradients; afterwards they are as before, bit by bit, also after an exception.

    Args:
        model: with gradients of the loss to make larger; they are gone inside.
        gamma: length of a layer's move, as a share of the norm of its weights. Parameters with fewer than two dimensions do not move.

    The device need not wait. Gradients that are equal in several processes give equal moves.
    """
    layers = [parameter for parameter in model.parameters() if parameter.ndim >= 2 and parameter.grad is not None]
    before = [weights.detach().clone() for weights in layers]
    try:
        with torch.no_grad():
            for weights in layers:
                assert weights.grad is not None
                weights.add_(weights.grad * (gamma * weights.norm() / (weights.grad.norm() + TINY)))
        model.zero_grad(set_to_none=True)
        yield
    finally:
        with torch.no_grad():
            for weights, old in zip(layers, before, strict=True):
                weights.copy_(old)


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Inside, statistics of BatchNorm may move; afterwards all buffers are as before."""
    buffers = list(model.buffers())
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, old in zip(buffers, before, strict=True):
                buffer.copy_(old)
