"""Residual networks with the activation before the convolution (He et al. 2016), narrow or wide (Zagoruyko and Komodakis 2016).

PreActResNet-18 and the wide WRN-d-k are one network with different depths and widths; names and habits as in ``resnet``.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from robustlab.models.resnet import conv1x1, conv3x3


class PreActBlock(nn.Module):
    """BatchNorm, ReLU, convolution, twice; where shapes change, the shortcut is a convolution of the first activation."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = conv3x3(inputs, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv2 = conv3x3(width, width)
        self.projects = inputs != width or stride != 1
        self.shortcut = nn.Sequential(conv1x1(inputs, width, stride)) if self.projects else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        active = self.relu1(self.bn1(x))
        out = self.conv2(self.relu2(self.bn2(self.conv1(active))))
        return out + self.shortcut(active if self.projects else x)


class PreActResNet(nn.Module):
    """Stages of pre-activation blocks; every stage but the first halves height and width.

    Args:
        depths: blocks per stage.
        widths: channels per stage.
        stem: channels after the first convolution.
        channels: channels of the images.
    """

    def __init__(self, depths: Sequence[int], widths: Sequence[int], stem: int, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, stem)
        inputs = stem
        self.stages = [f"layer{i}" for i in range(1, len(depths) + 1)]
        for name, depth, width in zip(self.stages, depths, widths, strict=True):
            first = 1 if name == "layer1" else 2
            blocks = [PreActBlock(inputs, width, first)] + [PreActBlock(width, width, 1) for _ in range(depth - 1)]
            self.add_module(name, nn.Sequential(*blocks))
            inputs = width
        self.bn = nn.BatchNorm2d(inputs)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.num_features = inputs

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to features ``(B, D)``, the average over positions after the last ReLU."""
        x = self.conv1(x)
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.pool(self.relu(self.bn(x))).flatten(1)
