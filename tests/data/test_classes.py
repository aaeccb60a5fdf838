"""Names of classes: each means one class, wherever the images come from."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import seeded
from safetensors.torch import save_file
from torch.utils.data import Dataset

from robustlab.checks import MOST_CLASSES
from robustlab.data import ImageSet, as_batches, as_images, open_dataset
from robustlab.data.classes import check_names, told_apart, with_commas
from robustlab.errors import UserError
from robustlab.models.zoo import build

DOUBLE = ["crane", "dog", "crane"]
PIXELS = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 3, 8, 8).contiguous()
LABELS = torch.arange(6) % 3
APART = ("crane (0)", "dog", "crane (2)")


class Birds(Dataset):
    """A torch dataset whose classes have names, as torchvision's have."""

    classes = DOUBLE

    def __len__(self) -> int:
        return len(PIXELS)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return PIXELS[i], int(LABELS[i])


class Synonyms(Birds):
    classes = [("crane",), ("dog",), ("crane",)]  # noqa: RUF012, as ImageNet's are


def npz(folder: Path) -> ImageSet:
    np.savez(folder / "train.npz", x=PIXELS.numpy(), y=LABELS.numpy(), classes=np.array(DOUBLE))
    return open_dataset(None, folder)


def safetensors(folder: Path) -> ImageSet:
    save_file({"x": PIXELS, "y": LABELS}, folder / "train.safetensors", {"classes": json.dumps(DOUBLE)})
    return open_dataset(None, folder)


def released(folder: Path) -> ImageSet:
    torch.save([PIXELS.float() / 255], folder / "A_ims")
    torch.save([LABELS], folder / "A_lab")
    (folder / "export.json").write_text(json.dumps({"classes": DOUBLE}))
    return open_dataset(None, folder)


@pytest.mark.parametrize("make", [npz, safetensors, released, lambda _: as_images(Birds()), lambda _: as_images(Synonyms())])
def test_two_classes_of_one_name_are_told_apart_by_number(tmp_path, make):
    with pytest.warns(UserWarning, match="2 classes share their names with others, and are told apart by number: 'crane \\(0\\)'"):
        images = make(tmp_path)
    assert images.classes == APART and images.labels.tolist() == LABELS.tolist()


def test_batches_of_a_dataset_have_the_same_names():
    with pytest.warns(UserWarning, match="told apart"):
        assert as_batches(Birds()).classes == APART


@pytest.mark.parametrize(
    "make",
    [
        lambda: ImageSet(PIXELS, LABELS, tuple(DOUBLE), "mine"),
        lambda: as_images((PIXELS, LABELS), classes=DOUBLE, name="mine"),
        lambda: as_images(Birds(), classes=DOUBLE, name="mine"),
    ],
)
def test_names_that_a_person_gives_must_differ(make):
    with pytest.raises(UserError, match="mine has two classes called 'crane'"):
        make()


def test_a_class_is_chosen_once(tmp_path):
    images = ImageSet(PIXELS, LABELS, ("a", "b", "c"), "mine")
    with pytest.raises(UserError, match="a class is named twice in a, a"):
        images.only_classes(["a", "a"])


@seeded
@given(st.lists(st.sampled_from(["a", "b", "a (0)", "a (1)", "a (2)", "a (0)'", ""]), max_size=8))
def test_told_apart_names_differ_and_single_ones_stay(names):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = told_apart("mine", names)
    assert len(set(found)) == len(found) == len(names)
    assert all(new == old for new, old in zip(found, names, strict=True) if names.count(old) == 1)


@pytest.mark.parametrize(
    "names, sentence",
    [
        (["a", 3], "the name of class 1 must be text, got int"),
        (["a\udce9"], "the name of class 0, 'a\\udce9', is not UTF-8"),
        (["x" * 2000], "is longer than 1000 characters"),
        ([str(i) for i in range(MOST_CLASSES + 1)], "250,001 classes are too many: at most 250,000"),
    ],
)
def test_names_that_cannot_be(names, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        check_names("mine", names)


def test_what_a_set_says_of_itself_is_one_line():
    images = ImageSet(PIXELS, LABELS, ("a\nb", "\x1b[31mred", "<b>&|`"), "mine")
    assert repr(images).isprintable() and "\\n" in repr(images)
    assert "<b>&|" not in images._repr_html_() and "&lt;b&gt;" in images._repr_html_()


@pytest.mark.parametrize(
    "typed, expected",
    [
        (["crane", "heavy machinery", "dog"], ["crane, heavy machinery", "dog"]),
        (["dog", "a", "b"], ["dog", "a,b"]),
        (["wolf", "dog"], ["wolf", "dog"]),
        (["crane"], ["crane"]),
    ],
)
def test_names_with_commas_can_be_chosen(typed, expected):
    assert with_commas(typed, ("crane, heavy machinery", "dog", "a,b")) == expected


def test_a_model_with_two_classes_of_one_name_is_not_matched_by_names():
    model = build("small", num_classes=3)
    model.classes = tuple(DOUBLE)
    for asked in (["dog"], ["dog", "crane"]):
        with pytest.raises(UserError, match="the model has two classes called 'crane'"):
            model.outputs_for(asked, "mine")
