"""What the tests of constructions share: a few 8x8 images, and a network that has what borrowing can break."""

from __future__ import annotations

import pytest
import torch
from laws import images
from torch import nn

from robustlab.data import ImageSet
from robustlab.models.classifier import Classifier


@pytest.fixture
def source() -> ImageSet:
    """22 images of four of the classifier's ten classes, in an order of their own."""
    pixels = (images(22, 3, 8, 8) * 256).to(torch.uint8)
    return ImageSet(pixels, torch.arange(22) * 7 // 3 % 4, ("c", "a", "j", "e"), "noise")


@pytest.fixture
def classifier(tiny_model: nn.Sequential) -> Classifier:
    return Classifier(tiny_model[:-1], tiny_model[-1], mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3], classes="abcdefghij").eval()
