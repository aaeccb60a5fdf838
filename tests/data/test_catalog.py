"""Opening data by name or by place."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustlab.data import open_dataset
from robustlab.data.imageset import hold_out
from robustlab.data.shapes import shapes
from robustlab.errors import UserError


def save_images(folder: Path, count: int) -> None:
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((4, 4, 3), i, dtype=np.uint8)).save(folder / name / f"{i:02}.png")


def save_arrays(path: Path, n: int) -> None:
    np.savez(path, x=np.arange(n, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8), y=np.arange(n) % 2)


def test_shapes_is_what_comes_without_a_word():
    images = open_dataset(limit=20)
    assert images.name == "shapes" and len(images) == 20
    assert torch.equal(images.fetch(torch.arange(20)), open_dataset("shapes", limit=20, seed=0).fetch(torch.arange(20)))
    assert not torch.equal(images.fetch(torch.arange(20)), open_dataset("shapes", limit=20, seed=1).fetch(torch.arange(20)))


def test_some_shapes_are_those_that_are_chosen_from_all_of_them():
    names = ["star", "ring"]
    some, every = open_dataset("shapes", split="test", classes=names, limit=7, seed=3), shapes(2000, "test", 3).only_classes(names)
    expected = every.subset(hold_out(every, 7, 3)[1])
    assert some.classes == expected.classes == ("star", "ring") and torch.equal(some.labels, expected.labels)
    assert torch.equal(some.positions, expected.positions) and torch.equal(some.pixels, expected.pixels)


def test_the_kind_of_data_is_seen_from_the_place(tmp_path):
    save_images(tmp_path / "folder" / "train", 2)
    save_arrays(tmp_path / "some.npz", 20)
    (tmp_path / "pair").mkdir()
    for split, n in (("train", 6), ("test", 4)):
        save_arrays(tmp_path / "pair" / f"{split}.npz", n)
    assert len(open_dataset(root=tmp_path / "folder")) == 4
    assert len(open_dataset(root=str(tmp_path / "some.npz"))) == 18
    assert [len(open_dataset(root=tmp_path / "pair", split=split)) for split in ("train", "test", "val")] == [6, 4, 4]


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_images_without_splits_are_cut_into_two_that_share_nothing(tmp_path, kind):
    place = tmp_path if kind == "folder" else tmp_path / "set.npz"
    if kind == "folder":
        save_images(place, 20)
    else:
        save_arrays(place, 40)
    train, test = (open_dataset(root=place, split=split) for split in ("train", "test"))
    assert [images.labels.bincount().tolist() for images in (train, test)] == [[18, 18], [2, 2]]
    seen = [
        {(int(y), int(x)) for y, x in zip(images.labels, images.fetch(torch.arange(len(images)))[:, 0, 0, 0], strict=True)}
        for images in (train, test)
    ]
    assert not seen[0] & seen[1] and len(seen[0] | seen[1]) == 40


def test_a_limit_keeps_the_classes_balanced(tmp_path):
    save_images(tmp_path / "train", 10)
    images = open_dataset(root=tmp_path, limit=6)
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert len(open_dataset(root=tmp_path, limit=100)) == 20


def test_only_some_classes_in_the_order_named(tmp_path):
    save_images(tmp_path / "train", 10)
    images = open_dataset(root=tmp_path, classes=["dog", "cat"])
    assert images.classes == ("dog", "cat") and images.labels.tolist() == [1] * 10 + [0] * 10


@pytest.mark.parametrize("name", ["shapes", "folder"])
def test_a_limit_counts_among_the_chosen_classes(tmp_path, name):
    save_images(tmp_path / "train", 10)
    chosen = ["dog", "cat"] if name == "folder" else ["star", "ring"]
    images = open_dataset(name, tmp_path, classes=chosen, limit=8)
    assert images.labels.bincount().tolist() == [4, 4]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"name": "cifar"}, "unknown dataset 'cifar'. Did you mean 'cifar10'?"),
        ({"name": "shapes", "split": "trian"}, "unknown split 'trian'. Did you mean 'train'?"),
        ({"name": "folder"}, "the dataset 'folder' needs the place of its images, `root=PATH`"),
        ({"root": "nowhere"}, "there is nothing at nowhere; expected ROOT/train/CLASS/*.jpg"),
        ({"name": "folder", "root": "nowhere"}, "there is no folder nowhere"),
        ({"name": "npz", "root": "empty"}, "empty has no train.npz"),
        ({"root": "empty"}, "empty holds no class folders; expected ROOT/train/CLASS/*.jpg"),
        ({"root": "notes.txt"}, "notes.txt is neither a folder nor an .npz file"),
        ({"name": "cifar10"}, "expected the folder datasets/cifar-10-batches-py; add `download=True`"),
        ({"limit": 10, "image_size": 64}, "shapes has images of 32x32 pixels, and `image_size` changes only image folders"),
        ({"classes": ["strr", "ring"]}, "unknown class 'strr'. Did you mean 'star'?"),
        ({"limit": -1}, "must not be negative, got -1"),
    ],
)
def test_each_mistake_is_one_sentence(tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("notes.txt").write_text("hello")
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        open_dataset(**arguments)
    assert "\n" not in str(caught.value)
