"""Residual networks for small images (He et al. 2015), without their last layer: images in, features out.

The stem is one 3x3 convolution and no pooling, as CIFAR wants. Submodules bear the names that the field's checkpoints
use (``conv1``, ``bn1``, ``layer1.0.shortcut.0``), every activation is a module of its own, and nothing works in place,
so that hooks, ``torch.fx`` and the folding of BatchNorm into the convolutions work.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps height and width, divided by ``stride``; without a bias, since BatchNorm follows."""
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution, which divides height and width by ``stride``; without a bias."""
    return nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)


def shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """The identity where shapes agree, else a 1x1 convolution and BatchNorm."""
    if inputs == outputs and stride == 1:
        return nn.Identity()
    return nn.Sequential(conv1x1(inputs, outputs, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around which the input is added."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = shortcut(inputs, width, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu2(out + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions; the output is four times as wide as the middle."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.conv1 = conv1x1(inputs, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = conv1x1(width, outputs)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.shortcut = shortcut(inputs, outputs, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu3(out + self.shortcut(x))


class ResNet(nn.Module):
    """Stages of residual blocks; every stage but the first halves height and width.

    Args:
        block: BasicBlock or Bottleneck.
        depths: blocks per stage.
        widths: channels per stage, before the block's expansion.
        channels: channels of the images.
    """

    def __init__(self, block: type[BasicBlock] | type[Bottleneck], depths: Sequence[int], widths: Sequence[int], channels: int = 3) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, widths[0])
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu1 = nn.ReLU()
        inputs = widths[0]
        self.stages = [f"layer{i}" for i in range(1, len(depths) + 1)]
        for name, depth, width in zip(self.stages, depths, widths, strict=True):
            outputs = block.expansion * width
            first = 1 if name == "layer1" else 2
            blocks = [block(inputs, width, first)] + [block(outputs, width, 1) for _ in range(depth - 1)]
            self.add_module(name, nn.Sequential(*blocks))
            inputs = outputs
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.num_features = inputs

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to features ``(B, D)``, the average over positions after the last ReLU."""
        x = self.relu1(self.bn1(self.conv1(x)))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.pool(x).flatten(1)
