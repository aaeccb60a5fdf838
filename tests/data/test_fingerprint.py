"""A fingerprint tells sets apart by their labels and pixels, not by how they are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from laws import images

from robustlab.data import ImageSet
from robustlab.data.fingerprint import fingerprint


@pytest.fixture
def source() -> ImageSet:
    pixels = (images(22, 3, 8, 8) * 256).to(torch.uint8)
    return ImageSet(pixels, torch.arange(22) * 7 // 3 % 4, ("c", "a", "j", "e"), "noise")


def test_fingerprints_tell_sets_apart_and_not_how_they_are_kept(source):
    again = replace(source, pixels=source.pixels.clone(memory_format=torch.channels_last))
    assert fingerprint(again) == fingerprint(source)
    assert len({fingerprint(images) for images in (source, source.subset(torch.arange(21)), source.subset(torch.arange(22).flip(0)))}) == 3


def test_names_do_not_count(source):
    assert fingerprint(replace(source, name="other", classes=("w", "x", "y", "z"))) == fingerprint(source)


def test_so_many_images_are_read_and_the_ends_among_them(source):
    ends = source.pixels.clone()
    ends[0] ^= 1
    middle = source.pixels.clone()
    middle[1] ^= 1
    assert fingerprint(replace(source, pixels=ends), 3) != fingerprint(source, 3)
    assert fingerprint(replace(source, pixels=middle), 3) == fingerprint(source, 3)
