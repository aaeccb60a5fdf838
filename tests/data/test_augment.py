"""Crop and flip: a window of the mirrored image, drawn for each example by itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.data.augment import crop_flip
from robustlab.errors import UserError
from robustlab.pixels import to_float
from robustlab.seeding import example_keys, generator


def noise(batch: int, channels: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (batch, channels, height, width), generator=generator(0, "pixels"), dtype=torch.uint8)


def windows(image: torch.Tensor, pad: int) -> torch.Tensor:
    """Every crop of the mirrored image and of its flip: (2 * (2 pad + 1)^2, C, H, W)."""
    height, width = image.shape[-2:]
    padded = F.pad(image[None].float(), (pad,) * 4, mode="reflect")[0].to(torch.uint8)
    both = torch.stack([padded, padded.flip(-1)])
    crops = both.unfold(2, height, 1).unfold(3, width, 1)  # (2, C, 2 pad + 1, 2 pad + 1, H, W)
    return crops.permute(0, 2, 3, 1, 4, 5).flatten(0, 2)


@settings(deadline=None, max_examples=30)
@given(batch=st.integers(0, 5), channels=st.sampled_from([1, 3]), height=st.integers(4, 9), width=st.integers(4, 9), pad=st.integers(0, 3))
def test_the_result_is_a_window_of_the_mirrored_image(batch, channels, height, width, pad):
    pixels = noise(batch, channels, height, width)
    for image, changed in zip(pixels, crop_flip(pad)(pixels, example_keys(0, torch.arange(batch))), strict=True):
        assert (windows(image, pad) == changed).flatten(1).all(1).any()


def test_every_window_is_equally_likely():
    n, pad = 20_000, 1
    image = noise(1, 1, 4, 4)
    changed = crop_flip(pad)(image.expand(n, -1, -1, -1).contiguous(), example_keys(0, torch.arange(n)))
    counts = torch.stack([(changed == window).flatten(1).all(1).sum() for window in windows(image[0], pad)])
    assert counts.sum() == n
    expected = n / len(counts)
    assert ((counts - expected) ** 2 / expected).sum() < 40.8  # chi-squared, 17 degrees of freedom: p = 0.001


def test_an_example_is_changed_alike_in_any_company():
    pixels, keys = noise(7, 3, 8, 6), example_keys(3, torch.arange(7))
    together, order = crop_flip(2)(pixels, keys), torch.tensor([5, 1, 6])
    assert torch.equal(crop_flip(2)(pixels[order], keys[order]), together[order])


@settings(deadline=None, max_examples=30)
@given(batch=st.integers(0, 5), height=st.integers(4, 9), width=st.integers(4, 9), pad=st.integers(0, 3), flip=st.booleans())
def test_floats_are_changed_as_the_bytes_are(batch, height, width, pad, flip):
    pixels, keys, augment = noise(batch, 3, height, width), example_keys(5, torch.arange(batch)), crop_flip(pad, flip)
    assert torch.equal(augment(to_float(pixels), keys), to_float(augment(pixels, keys)))


def test_without_flips_a_row_is_never_reversed():
    ramp = torch.arange(8, dtype=torch.uint8).expand(50, 1, 8, 8).contiguous()
    changed = crop_flip(2, flip=False)(ramp, example_keys(0, torch.arange(50)))
    assert (changed[..., 2:6].diff().float().median(-1).values >= 0).all()


def test_the_images_given_stay_as_they_are():
    pixels = noise(4, 3, 8, 8)
    before = pixels.clone()
    crop_flip(2)(pixels, example_keys(0, torch.arange(4)))
    assert torch.equal(pixels, before)


def test_more_padding_than_image_is_refused():
    with pytest.raises(UserError, match="cannot mirror 4 pixels around a 9x4 image"):
        crop_flip(4)(noise(1, 1, 4, 9), example_keys(0, torch.arange(1)))
    with pytest.raises(UserError, match="pad must not be negative"):
        crop_flip(-1)
