"""A running average of the weights, which is smoother and, after adversarial training, more robust than the last ones.

As in the public code of fast adversarial training (``EMA`` with ``buffer_ema``): the decay warms up, and statistics of BatchNorm are
averaged with the weights. Rebuffi et al. 2021 average the weights by the same rule, and take the last statistics.

torch's ``swa_utils.AveragedModel`` was weighed: it asks the device at each step whether its counter is 0, where a training step here never
waits for the device, and it names the weights otherwise than the checkpoints of runs that are under way.
"""

from __future__ import annotations

import copy

import torch
from torch import nn


def averaged_copy(model: nn.Module) -> nn.Module:
    """A copy to average into, in evaluation mode and without gradients."""
    average = copy.deepcopy(model).eval()
    for parameter in average.parameters():
        parameter.requires_grad_(False)
    return average


@torch.no_grad()
def average_in(average: nn.Module, model: nn.Module, decay: float, updates: int) -> None:
    """Move ``average`` towards ``model`` by ``1 - decay``, faster at first: the decay is at most ``(1 + n) / (10 + n)`` after n updates.

    Args:
        average: changed in place.
        model: the network under training.
        decay: share of the average that stays, in [0, 1).
        updates: how many steps were taken before this one.

    Statistics of BatchNorm are averaged as the weights are; counters are copied.
    """
    decay = min(decay, (1 + updates) / (10 + updates))
    ours, theirs = list(average.state_dict().values()), list(model.state_dict().values())
    floats = [(a, b) for a, b in zip(ours, theirs, strict=True) if a.is_floating_point()]
    torch._foreach_lerp_([a for a, _ in floats], [b for _, b in floats], 1 - decay)
    for a, b in zip(ours, theirs, strict=True):
        if not a.is_floating_point():
            a.copy_(b)
