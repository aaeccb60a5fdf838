"""A multilayer perceptron on pixels: the smallest network here, and the one whose attacks are easiest to reason about."""

from __future__ import annotations

from torch import Tensor, nn


class MLP(nn.Module):
    """Two hidden layers on images averaged down to ``size`` x ``size``, so that any height and width will do.

    Args:
        channels: channels of the images.
        size: height and width of the pixels that the first layer reads; larger images are averaged down to it.
        width: units per hidden layer.
    """

    def __init__(self, channels: int = 3, size: int = 32, width: int = 256) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(size)
        self.fc1 = nn.Linear(channels * size * size, width)
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Linear(width, width)
        self.relu2 = nn.ReLU()
        self.num_features = width

    def forward(self, x: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` to features ``(B, D)``."""
        x = self.relu1(self.fc1(self.pool(x).flatten(1)))
        return self.relu2(self.fc2(x))
