"""Image sets: exact statistics, selections that keep labels with their images, stratified cuts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.data.augment import crop_flip
from robustlab.data.imageset import ImageSet, hold_out
from robustlab.errors import UserError
from robustlab.pixels import to_float
from robustlab.seeding import example_keys, generator


def numbered(labels: list[int], num_classes: int = 3) -> ImageSet:
    """Images whose every pixel is their position."""
    n = len(labels)
    pixels = torch.arange(n, dtype=torch.uint8)[:, None, None, None].expand(n, 3, 4, 5).contiguous()
    return ImageSet(pixels, torch.tensor(labels, dtype=torch.int64), tuple("abcdefghij"[:num_classes]), "numbered")


def test_floats_are_the_bytes_over_255():
    every_byte = torch.arange(256, dtype=torch.uint8)
    x = to_float(every_byte)
    assert x.dtype == torch.float32 and x[0] == 0 and x[255] == 1
    assert torch.equal((x * 255).round().to(torch.uint8), every_byte)


@pytest.mark.parametrize("channels", [1, 3])
def test_mean_and_deviation_are_those_of_the_float_images(channels):
    pixels = torch.randint(0, 256, (1500, channels, 5, 7), generator=generator(0, "pixels"), dtype=torch.uint8)
    images = ImageSet(pixels, torch.zeros(1500, dtype=torch.int64), ("a",), "noise")
    values = (pixels.double() / 255).transpose(0, 1).flatten(1)
    mean, std = images.mean_std()
    torch.testing.assert_close(mean, values.mean(1).float())
    torch.testing.assert_close(std, values.std(1, correction=0).float())


def test_the_deviation_of_a_constant_channel_can_divide():
    _, std = numbered([0]).mean_std()
    assert (std > 0).all()


def test_a_selection_keeps_labels_with_their_images():
    images = numbered([0, 1, 2, 0, 1, 2])
    part = images.subset(torch.tensor([4, 0, 4]))
    assert part.labels.tolist() == [1, 0, 1]
    assert part.fetch(torch.arange(3))[:, 0, 0, 0].tolist() == [4, 0, 4]


def test_only_some_classes_are_numbered_in_the_order_named():
    images = numbered([0, 1, 2, 0, 1, 2]).only_classes(["c", "a"])
    assert images.classes == ("c", "a")
    assert images.labels.tolist() == [1, 0, 1, 0]
    assert images.pixels[:, 0, 0, 0].tolist() == [0, 2, 3, 5]


def test_zero_images_are_a_set():
    images = numbered([0, 1]).subset(torch.tensor([], dtype=torch.int64))
    assert len(images) == 0 and images.shape == (3, 4, 5)
    assert [len(part) for part in hold_out(images, 0.5, 0)] == [0, 0]


def test_statistics_of_floats_are_summed_in_float64():
    """In float32 the squares of values this close to each other lose their deviation's fifth digit."""
    pixels = torch.full((1500, 1, 8, 8), 0.9)
    pixels[::2] = 0.911
    mean, std = ImageSet(pixels, torch.zeros(1500, dtype=torch.int64), ("a",), "two levels").mean_std()
    exact = pixels.double()
    torch.testing.assert_close(mean.double(), exact.mean()[None], atol=0, rtol=1e-7)
    torch.testing.assert_close(std.double(), exact.std(correction=0)[None], atol=0, rtol=1e-6)


def test_the_deviation_of_constant_floats_is_one_grey_level():
    images = ImageSet(torch.full((5, 3, 4, 4), 0.7), torch.zeros(5, dtype=torch.int64), ("a",), "constant")
    assert torch.equal(images.mean_std()[1], torch.full((3,), 1 / 255))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.01, 1.01])
def test_one_value_outside_the_pixel_box_is_refused(dtype, value):
    pixels = torch.full((3, 3, 4, 4), 0.5, dtype=dtype)
    pixels[2, 1, 3, 0] = value
    with pytest.raises(UserError, match=r"set: floating-point images must lie in \[0, 1\], found") as caught:
        ImageSet(pixels, torch.zeros(3, dtype=torch.int64), ("a",), "set")
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=50)
@given(labels=st.lists(st.integers(0, 2), min_size=1, max_size=60), share=st.floats(0, 1), seed=st.integers(0, 5))
def test_a_cut_is_stratified_and_loses_nothing(labels, share, seed):
    images = numbered(labels)
    train, held = hold_out(images, share, seed)
    assert torch.equal(torch.cat([train, held]).sort().values, torch.arange(len(labels)))
    assert len(held) == round(share * len(labels))
    expected = images.labels.bincount(minlength=3) * len(held) / len(labels)
    assert ((images.labels[held].bincount(minlength=3) - expected).abs() < 1).all()
    assert all(torch.equal(a, b) for a, b in zip((train, held), hold_out(images, len(held), seed), strict=True))


def test_a_cut_depends_on_the_seed():
    images = numbered([0, 1, 2] * 20)
    assert not torch.equal(hold_out(images, 20, 0)[1], hold_out(images, 20, 1)[1])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ImageSet(torch.rand(2, 3, 4, 4).double(), torch.zeros(2, dtype=torch.int64), ("a",), "set"), "must be uint8"),
        (lambda: ImageSet(torch.rand(2, 3, 4, 4) + 0.5, torch.zeros(2, dtype=torch.int64), ("a",), "set"), "must lie in"),
        (lambda: ImageSet(torch.full((2, 3, 4, 4), torch.nan), torch.zeros(2, dtype=torch.int64), ("a",), "set"), "found NaN"),
        (lambda: ImageSet(torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), ("a",), "set"), "must be uint8"),
        (lambda: numbered([0, 3]), "label 3 is out of range, 3 classes allow 0 to 2"),
        (lambda: numbered([0, -1]), "label -1 is out of range"),
        (lambda: ImageSet(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64), ("a",), "set"), "2 images but 3"),
        (lambda: ImageSet(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2), ("a",), "set"), "labels must be int64"),
        (lambda: numbered([0]).only_classes(["dog"]), "unknown class 'dog'"),
        (lambda: numbered([0]).only_classes(["a", "a"]), "named twice"),
        (lambda: hold_out(numbered([0, 1]), 3, 0), "cannot hold out 3 of 2 images"),
        (lambda: numbered([0]).subset(torch.tensor([], dtype=torch.int64)).mean_std(), "no images"),
    ],
)
def test_mistakes_are_one_sentence(make, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_float_pixels_are_the_same_images(dtype):
    """8-bit levels written as floats: the same values, mean and deviation, and the same after cropping and flipping."""
    levels = torch.randint(0, 256, (7, 3, 6, 5), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    labels = torch.zeros(7, dtype=torch.int64)
    whole, fine = ImageSet(levels, labels, ("a",), "set"), ImageSet(to_float(levels).to(dtype), labels, ("a",), "set")
    assert to_float(fine.fetch(torch.arange(7))).dtype == torch.float32
    rounding = 0 if dtype == torch.float32 else 2**-11
    assert (to_float(fine.pixels) - to_float(levels)).abs().max() <= rounding
    for ours, theirs in zip(fine.mean_std(), whole.mean_std(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-3 if rounding else 1e-6, rtol=0)
    keys = example_keys(0, torch.arange(7))
    assert torch.equal(crop_flip(2)(fine.pixels, keys), to_float(crop_flip(2)(levels, keys)).to(dtype))
