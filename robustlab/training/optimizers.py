"""Optimizers by name, and parameters in groups for those who make their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from robustlab.errors import unknown

OptimizerFactory = Callable[[nn.Module], Optimizer]  # from the network that is trained


def _sgd(parameters: Any, lr: float, momentum: float, weight_decay: float) -> Optimizer:
    return torch.optim.SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=momentum > 0)


def _adam(parameters: Any, lr: float, momentum: float, weight_decay: float) -> Optimizer:
    return torch.optim.Adam(parameters, lr=lr, betas=(momentum, 0.999), weight_decay=weight_decay)


def _adamw(parameters: Any, lr: float, momentum: float, weight_decay: float) -> Optimizer:
    return torch.optim.AdamW(parameters, lr=lr, betas=(momentum, 0.999), weight_decay=weight_decay)


def _adamax(parameters: Any, lr: float, momentum: float, weight_decay: float) -> Optimizer:
    return torch.optim.Adamax(parameters, lr=lr, betas=(momentum, 0.999), weight_decay=weight_decay)


OPTIMIZERS: dict[str, Callable[[Any, float, float, float], Optimizer]] = {
    "sgd": _sgd,  # with Nesterov momentum
    "adam": _adam,  # Kingma and Ba 2015; the decay is added to the gradient
    "adamw": _adamw,  # Loshchilov and Hutter 2019; the weights themselves decay
    "adamax": _adamax,  # Kingma and Ba 2015, section 7.1
}


def named_optimizer(name: str, parameters: Any, *, lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> Optimizer:
    """The optimizer of that name.

    Args:
        name: ``sgd``, ``adam``, ``adamw`` or ``adamax``.
        parameters: tensors, or groups of them, see ``decay_groups``.
        momentum: of SGD; of the others the decay of the mean gradient, beta1.
        weight_decay: of all groups that do not say their own.

    Raises:
        UserError: no such optimizer; names the nearest.
    """
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name](parameters, lr, momentum, weight_decay)


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of parameters: weights decay; biases, and the scales of normalization layers, do not.

        Optimization(optimizer=lambda model: torch.optim.AdamW(decay_groups(model, 0.05), lr=1e-3))

    A parameter with two dimensions or more counts as a weight; one that needs no gradient is left out.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [parameter for parameter in trained if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
    ]
