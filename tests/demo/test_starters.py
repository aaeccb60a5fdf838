"""Pictures to begin with."""

from __future__ import annotations

import pytest
import torch

from robustlab.data.imageset import ImageSet
from robustlab.data.shapes import CLASSES, shapes
from robustlab.demo.session import as_image
from robustlab.demo.starters import MOST, SKETCHES, examples, sketches
from robustlab.errors import UserError


@pytest.mark.parametrize("size", [8, 32, 33, 224])
def test_sketches_are_drawn_at_any_size(size):
    found = sketches(size)
    assert [one.name for one in found] == list(SKETCHES)
    assert all(len(one.picture) == 3 * size * size and len(set(one.picture)) > 3 for one in found)


def test_a_sketch_is_the_same_picture_at_twice_the_size():
    for small, large in zip(sketches(32), sketches(64), strict=True):
        shrunk = torch.nn.functional.avg_pool2d(as_image(large.picture), 2)
        assert (shrunk - as_image(small.picture)).abs().mean() < 0.03, small.name


def test_one_example_of_each_class_byte_for_byte():
    images = shapes(20, "test")
    found = examples(images)
    assert [one.name for one in found] == list(CLASSES)
    assert torch.equal((as_image(found[3].picture)[0] * 255).round().byte(), images.pixels[3])


def test_of_many_classes_some():
    images = ImageSet(torch.zeros(50, 3, 4, 4, dtype=torch.uint8), torch.arange(50) % 25, tuple(map(str, range(25))), "many")
    names = [one.name for one in examples(images)]
    assert len(names) == MOST and names[0] == "0" and names[-1] == "24"


def test_of_one_class_the_files_are_shown():
    names = tuple(f"{k}\x1b.png" for k in range(30))
    images = ImageSet(torch.zeros(30, 3, 4, 4, dtype=torch.uint8), torch.zeros(30).long(), ("picture",), "own", files=names)
    found = [one.name for one in examples(images)]
    assert len(found) == MOST and found[0] == "0\\x1b.png" and found[-1] == "29\\x1b.png"


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 9)])
def test_what_the_page_cannot_show_is_refused(shape):
    images = ImageSet(torch.zeros(2, *shape, dtype=torch.uint8), torch.arange(2), ("a", "b"), "odd")
    with pytest.raises(UserError, match="square pictures in colour"):
        examples(images)
