"""A plain stack of convolutions, without shortcuts (Simonyan and Zisserman 2015), with BatchNorm."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class VGG(nn.Module):
    """Blocks of two 3x3 convolutions, the resolution halved after each but the last, then the average over positions.

    Args:
        widths: channels of each block.
        channels: channels of the images.
    """

    def __init__(self, widths: Sequence[int], channels: int = 3) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        before = channels
        for width in widths:
            if blocks:
                blocks.append(nn.MaxPool2d(2))
            for inputs in (before, width):
                blocks += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        self.blocks = nn.Sequential(*blocks)
        self.num_features = before

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.blocks(x), 1).flatten(1)
