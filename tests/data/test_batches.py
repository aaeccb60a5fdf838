"""Batches: the same examples and draws whatever the batch size, the processes, the place of the images or the resume point."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from robustlab.data.augment import crop_flip
from robustlab.data.batches import Batch, Batches
from robustlab.data.folder import open_folder
from robustlab.data.imageset import ImageSet
from robustlab.errors import UserError
from robustlab.pixels import to_float
from robustlab.seeding import generator


def noise(n: int) -> ImageSet:
    pixels = torch.randint(0, 256, (n, 3, 6, 5), generator=generator(0, "pixels"), dtype=torch.uint8)
    return ImageSet(pixels, torch.arange(n) % 3, ("a", "b", "c"), "noise")


def training(n: int, batch_size: int, **more) -> Batches:
    return Batches(noise(n), batch_size, seed=1, augment=crop_flip(2), shuffle=True, **more)


def same(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, field), getattr(b, field)) for field in ("x", "y", "index", "keys"))


def joined(batches: list[Batch]) -> Batch:
    return Batch(*(torch.cat([getattr(batch, field) for batch in batches]) for field in ("x", "y", "index", "keys")))


@settings(deadline=None, max_examples=30)
@given(n=st.integers(0, 40), batch_size=st.integers(1, 12), epoch=st.integers(0, 3))
def test_draws_do_not_depend_on_the_batch_size(n, batch_size, epoch):
    batches = training(n, batch_size)
    made = list(batches.epoch(epoch))
    assert len(made) == len(batches)
    if made:
        assert same(joined(made), next(training(n, n).epoch(epoch)))
        assert torch.equal(joined(made).index.sort().values, torch.arange(n))


@settings(deadline=None, max_examples=30)
@given(n=st.integers(0, 40), share=st.integers(1, 4), world_size=st.integers(1, 4), drop_last=st.booleans())
def test_processes_split_each_batch_into_consecutive_slices(n, share, world_size, drop_last):
    if drop_last and n < share * world_size:
        return
    whole = training(n, share * world_size, drop_last=drop_last)
    ranks = [list(replace(whole, rank=rank, world_size=world_size).epoch(2)) for rank in range(world_size)]
    for batch, slices in zip(whole.epoch(2), zip(*ranks, strict=True), strict=True):
        assert same(joined(list(slices)), batch)
        sizes = [len(part.y) for part in slices]
        assert max(sizes) - min(sizes) <= (0 if drop_last else 1)


@pytest.mark.parametrize("start", [0, 1, 3, 4])
def test_a_resumed_epoch_goes_on_where_it_was_left(start):
    batches = training(20, 6)
    rest = list(batches.epoch(5, start))
    assert len(rest) == len(batches) - start
    assert all(same(a, b) for a, b in zip(rest, list(batches.epoch(5))[start:], strict=True))


def test_epochs_differ_in_order_and_in_draws():
    first, second = (joined(list(training(30, 10).epoch(epoch))) for epoch in (0, 1))
    assert not torch.equal(first.index, second.index)
    assert not (first.keys[first.index.argsort()] == second.keys[second.index.argsort()]).any()
    assert not torch.equal(first.x[first.index.argsort()], second.x[second.index.argsort()])


def test_without_shuffling_and_augmenting_the_images_come_as_they_are():
    images = noise(7)
    batch = joined(list(Batches(images, 3).epoch(0)))
    assert torch.equal(batch.x, to_float(images.pixels)) and torch.equal(batch.y, images.labels)
    assert batch.index.tolist() == list(range(7))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_float_images_make_the_batches_of_their_bytes(dtype):
    images = noise(20)
    floats = replace(images, pixels=to_float(images.pixels).to(dtype))
    batches = Batches(images, 6, seed=1, augment=crop_flip(2), shuffle=True)
    for made, expected in zip(replace(batches, images=floats).epoch(3), batches.epoch(3), strict=True):
        assert made.x.dtype == torch.float32
        assert same(made, replace(expected, x=expected.x.to(dtype).float()))


def test_a_last_batch_that_is_not_full_is_left_out_on_request():
    batches = training(20, 6, drop_last=True)
    assert [len(batch.y) for batch in batches.epoch(0)] == [6, 6, 6] and len(batches) == 3


# Python 3.12 warns of every fork beside threads, and pytest-xdist has some.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_images_make_the_batches_of_images_in_memory(tmp_path, workers):
    for i, pixels in enumerate(noise(13).pixels):
        place = tmp_path / "train" / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(place / f"{i:02}.png")
    stored, streamed = (open_folder(tmp_path, "train", memory_limit=limit) for limit in (1 << 20, 0))
    assert isinstance(stored, ImageSet) and not isinstance(streamed, ImageSet)
    batches = Batches(stored, 4, seed=1, augment=crop_flip(2), shuffle=True)
    before = torch.get_rng_state()
    for start in (0, 2):
        made = list(replace(batches, images=streamed, workers=workers).epoch(1, start))
        assert all(same(a, b) for a, b in zip(made, batches.epoch(1, start), strict=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("settings_", "sentence"),
    [
        ({"batch_size": 0}, "positive multiple of the 1 processes, got 0"),
        ({"batch_size": 5, "world_size": 2}, "positive multiple of the 2 processes, got 5"),
        ({"batch_size": 8, "drop_last": True}, "7 images do not fill one batch of 8"),
    ],
)
def test_impossible_batches_are_refused(settings_, sentence):
    with pytest.raises(UserError, match=sentence):
        Batches(noise(7), **settings_)
