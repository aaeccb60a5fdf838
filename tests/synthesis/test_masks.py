"""Masks by name and from a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustlab.errors import UserError
from robustlab.seeding import example_keys
from robustlab.synthesis.masks import MASKS, mask_of

KEYS = example_keys(0, torch.arange(6))


@pytest.mark.parametrize("name", MASKS)
def test_masks_leave_something_and_take_something(name: str) -> None:
    mask = mask_of(name, KEYS, 8, 12)
    assert mask.dtype == torch.bool and mask.shape == (6, 1, 8, 12)
    assert mask.flatten(1).any(1).all() and not mask.flatten(1).all(1).any()


def test_a_square_lies_elsewhere_in_each_image_and_always_inside() -> None:
    masks = mask_of("square", example_keys(0, torch.arange(200)), 32, 32)
    assert (masks.flatten(1).sum(1) == 9 * 9).all(), "as wide compared with the image as 60 pixels of 224"
    assert len(masks.flatten(1).unique(dim=0)) > 100
    assert torch.equal(masks[17:18], mask_of("square", example_keys(0, torch.tensor([17])), 32, 32)), "whatever the other images are"


def test_a_picture_is_white_where_to_work(tmp_path: Path) -> None:
    pixels = np.zeros((8, 12), np.uint8)
    pixels[2:5, 1:4] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    mask = mask_of(str(tmp_path / "mask.png"), KEYS, 8, 12)
    assert mask.shape == (6, 1, 8, 12) and all(np.array_equal(one.numpy(), pixels > 0) for one in mask[:, 0])
    with pytest.raises(UserError, match="must be as large as the images, 8x12, got 12x8"):
        mask_of(str(tmp_path / "mask.png"), KEYS, 12, 8)
