"""Exports: what is written opens again with the same pixels and labels, all of it or nothing lies there, any class has a folder."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from laws import seeded, small_files
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from robustlab.data import ImageSet, open_dataset, to_float
from robustlab.data.exports import CHUNK, LAYOUTS, export, folder_names
from robustlab.data.tensors import open_safetensors
from robustlab.errors import UserError
from robustlab.pixels import to_uint8

CLASSES = ("dog", "cat", "ant")
LOSSLESS = ("npz", "safetensors", "released")
DTYPES = (torch.uint8, torch.float16, torch.float32)


def images(dtype: torch.dtype, n: int = 12, channels: int = 3, classes: tuple[str, ...] = CLASSES) -> ImageSet:
    random = torch.Generator().manual_seed(n)
    levels = torch.randint(0, 256, (n, channels, 5, 4), generator=random, dtype=torch.uint8)
    pixels = levels if dtype == torch.uint8 else torch.rand(levels.shape, generator=random).to(dtype)
    return ImageSet(pixels, torch.randint(0, len(classes), (n,), generator=random), classes, "mine")


def named(opened: Any) -> list[str]:
    """The class of each image, in order, by name."""
    return [opened.classes[label] for label in opened.labels.tolist()]


# What is written opens again


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", LOSSLESS)
def test_files_of_tensors_give_the_same_set(tmp_path, layout, channels, dtype):
    before = images(dtype, channels=channels)
    facts, rounding = export(before, "train", tmp_path / "out", layout)
    after = open_dataset(None, tmp_path / "out")
    assert torch.equal(to_float(after.fetch(torch.arange(12))), to_float(before.pixels))
    assert torch.equal(after.labels, before.labels) and after.classes == before.classes
    assert rounding is None and facts["rounding"] is None
    if layout != "released":
        assert isinstance(after, ImageSet) and after.pixels.dtype == before.pixels.dtype
        assert (facts["source_dtype"], facts["dtype"]) == (str(dtype)[6:], str(dtype)[6:])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["folder", "huggingface"])
def test_pictures_give_the_set_rounded_to_8_bits(tmp_path, layout, dtype):
    before = images(dtype)
    facts, rounding = export(before, "train", tmp_path / "out", layout)
    after = open_dataset(None, tmp_path / "out")
    order = sorted(range(12), key=lambda i: (named(before)[i], i))
    assert torch.equal(after.fetch(torch.arange(12)), to_uint8(before.pixels[order]))
    assert named(after) == [named(before)[i] for i in order] and after.classes == ("ant", "cat", "dog")
    if dtype == torch.uint8:
        assert rounding is None and facts["rounding"] is None
    else:
        moved = (to_uint8(before.pixels).double() / 255 - before.pixels.double()).flatten(1).square().sum(1).sqrt()
        assert rounding is not None and 0 < float(moved.max()) <= (60**0.5) * 0.5 / 255 + 1e-7
        torch.testing.assert_close(torch.tensor([rounding.mean, rounding.largest]), torch.stack([moved.mean(), moved.max()]).float())
        assert facts["rounding"] == {"norm": "L2", "mean": rounding.mean, "largest": rounding.largest}


def test_a_picture_s_name_is_its_position(tmp_path):
    before = images(torch.uint8, channels=1)
    export(before, "val", tmp_path / "out", "folder")
    files = sorted((tmp_path / "out").rglob("*.png"), key=lambda path: path.name)
    assert [path.name for path in files] == [f"{i:05}.png" for i in range(12)]
    assert [path.parent.name for path in files] == named(before)
    assert {path.parent.parent.name for path in files} == {"val"}
    for path, pixels in zip(files, before.pixels, strict=True):
        with Image.open(path) as picture:
            assert picture.mode == "L" and np.array_equal(np.asarray(picture), pixels[0])


def test_the_export_says_what_it_is(tmp_path):
    facts, _ = export(images(torch.float16), "train", tmp_path / "out", "npz")
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == facts
    assert facts["source"] == "mine" and facts["layout"] == "npz" and facts["split"] == "train" and facts["n"] == 12
    assert facts["classes"] == list(CLASSES) and facts["shape"] == [3, 5, 4]


def test_others_read_the_files(tmp_path):
    """By nothing but the libraries whose formats they are."""
    before = images(torch.float16)
    for layout in LOSSLESS:
        export(before, "test", tmp_path / layout, layout)
    with np.load(tmp_path / "npz" / "test.npz", allow_pickle=False) as arrays:
        assert np.array_equal(arrays["x"], before.pixels.permute(0, 2, 3, 1).numpy()) and arrays["x"].dtype == np.float16
        assert np.array_equal(arrays["y"], before.labels.numpy()) and tuple(arrays["classes"]) == CLASSES
    tensors = load_file(tmp_path / "safetensors" / "test.safetensors")
    assert tensors.keys() == {"x", "y"} and torch.equal(tensors["x"], before.pixels) and torch.equal(tensors["y"], before.labels)
    parts = [torch.load(tmp_path / "released" / f"mine_{end}", weights_only=True) for end in ("ims", "lab")]
    assert torch.equal(torch.cat(parts[0]), before.pixels.float()) and torch.equal(torch.cat(parts[1]), before.labels)
    assert torch.cat(parts[0]).dtype == torch.float32


def test_hugging_face_s_layout(tmp_path):
    """``datasets`` wants file_name in a metadata file beside the images, and in README.md a YAML header with the split's files."""
    before = images(torch.float32, classes=("a/b", 'quo"te', "pipe|\u2028"))
    export(before, "val", tmp_path / "out", "huggingface", about="# How it was made\n")
    folder = tmp_path / "out" / "val"
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert [line["label"] for line in lines] == before.labels.tolist() and [line["label_name"] for line in lines] == named(before)
    for line, expected in zip(lines, to_uint8(before.pixels), strict=True):
        with Image.open(folder / line["file_name"]) as picture:
            assert np.array_equal(np.asarray(picture).transpose(2, 0, 1), expected)
    assert {line["file_name"] for line in lines} == {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    page = (tmp_path / "out" / "README.md").read_text()
    _, header, text = page.split("---\n", 2)
    assert "configs:\n- config_name: default\n  data_files:\n  - split: validation\n    path: val/**\n" in header
    assert "- n<1K\n" in header and "# How it was made" in text and "rounded from float32 to 8 bits" in text
    assert r"| 0 | a/b |" in text and r"| 2 | pipe\|  |" in text


# Memory and counting


@dataclass(frozen=True, eq=False)
class Counted:
    """Images that can only be read on demand; remembers how many were wanted at once."""

    held: ImageSet
    asked: list[int]

    def fetch(self, index: Tensor) -> Tensor:
        self.asked.append(len(index))
        return self.held.fetch(index)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.held, name)

    def __len__(self) -> int:
        return len(self.held)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_images_are_fetched_once_and_a_few_at_a_time(tmp_path, layout):
    n = 2 * CHUNK + 3
    source, told = Counted(images(torch.uint8, n), []), []
    export(source, "train", tmp_path / "out", layout, told.append)
    assert max(source.asked) == CHUNK and sum(source.asked) == sum(told) == n
    assert len(open_dataset(None, tmp_path / "out")) == n


# All of it or nothing


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("there", [False, True], ids=["new folder", "empty folder"])
def test_a_disk_full_midway_leaves_nothing(tmp_path, layout, there):
    if there:
        (tmp_path / "out").mkdir()
    with small_files(50), pytest.raises(UserError, match="cannot write .*out: File too large"):
        export(images(torch.float32), "train", tmp_path / "out", layout)
    assert [path.name for path in tmp_path.rglob("*")] == ["out"] * there


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_interruption_leaves_nothing(tmp_path, layout):
    def stop(n: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(images(torch.float32), "train", tmp_path / "out", layout, stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch, layout):
    before, free = images(torch.float16, 100), []
    export(before, "train", tmp_path / "out", layout)
    written = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != "export.json")
    usage = type("Usage", (), {"free": written - 1})
    monkeypatch.setattr("shutil.disk_usage", lambda place: free.append(place) or usage)
    with pytest.raises(UserError, match="needs .* GB more, but its disk has only"):
        export(before, "train", tmp_path / "other", layout)
    assert free == [tmp_path] and [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_place_in_use_is_left_alone(tmp_path, kind):
    place = tmp_path / "out"
    kept = place if kind == "file" else place / "mine.txt"
    kept.parent.mkdir(exist_ok=True)
    kept.write_text("mine")
    with pytest.raises(UserError, match="out is not an empty folder"):
        export(images(torch.uint8), "train", place, "npz")
    assert kept.read_text() == "mine" and len(list(tmp_path.rglob("*"))) == 1 + (kind == "folder")


def test_what_comes_into_the_folder_in_the_meantime_stays(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="cannot write .*not empty"):
        export(images(torch.uint8), "train", tmp_path / "out", "npz", lambda n: (tmp_path / "out" / "theirs").write_text("theirs"))
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "theirs"]


@pytest.mark.parametrize(
    "change, layout, sentence",
    [
        ({}, "foldr", "unknown layout 'foldr'. Did you mean 'folder'?"),
        ({"n": 0}, "npz", "mine has no images to export"),
        ({"channels": 2}, "folder", "images of 2 channels, and other programs read those with 1 or 3"),
        ({"classes": ("cat", "dog", "cat")}, "folder", "mine has two classes called 'cat'"),
    ],
)
def test_what_cannot_be_exported_is_refused(tmp_path, change, layout, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        export(images(torch.uint8, **change), "train", tmp_path / "out", layout)
    assert not list(tmp_path.iterdir())


# Names of classes

ODD = ["a/b", "a_b-0", "..", ".", "", " ", ".hidden", "__pycache__", "__", "__.x", "x" * 300, "\N{OX}" * 200, "CON", "con.txt", "nul"]
ODD += ["a\\b", "C:", "cat", "Cat", "CAT", "café", "cafe\u0301", "a\nb", "猫", "ß", "ss", "train", "tail.", "a b ", "*?[x]"]


@seeded
@given(st.lists(st.one_of(st.sampled_from(ODD), st.text(max_size=8)), unique=True, max_size=12))
@example(ODD)
@example(["a/b", "a_b-0", "a_b-0-0"])
@example(["A/b", "a_b-0"])
def test_any_class_has_a_folder_of_its_own(classes):
    names = folder_names(classes)
    assert len({name.casefold() for name in names}) == len(classes) == len(names)
    for name, true in zip(names, classes, strict=True):
        assert name and name == os.path.basename(name) and 0 < len(name.encode()) < 200
        assert not name.startswith((".", "__", " ")) and not name.endswith((".", " "))
        assert not set(name) & set('/\\:*?"<>|') and not any(ord(c) < 32 for c in name)
        assert name.partition(".")[0].lower() not in ("con", "nul")
        if true in ("cat", "train", "a_b-0", "猫"):
            assert name == true


@pytest.mark.parametrize("layout", LAYOUTS)
def test_odd_names_keep_their_labels(tmp_path, layout):
    before = ImageSet(torch.zeros(len(ODD), 3, 4, 4, dtype=torch.uint8), torch.arange(len(ODD)), tuple(ODD), "a/../b")
    before.pixels[:, 0, 0, 0] = torch.arange(len(ODD))
    facts, _ = export(before, "train", tmp_path / "out", layout)
    assert {path.name for path in tmp_path.iterdir()} == {"out"} and facts["classes"] == ODD
    after = open_dataset(None, tmp_path / "out")
    marks = (to_float(after.fetch(torch.arange(len(ODD))))[:, 0, 0, 0] * 255).round().long()
    assert named(after) == [facts.get("folders", ODD)[mark] for mark in marks.tolist()]


# Files of tensors


@pytest.mark.parametrize(
    "tensors, about, sentence",
    [
        ({"x": torch.zeros(2, 3, 4, 4)}, {}, "has no tensor 'y'; it has x"),
        ({"x": torch.zeros(2, 3, 4, 4), "y": torch.zeros(3, dtype=torch.int64)}, {}, "2 images but 3 labels"),
        ({"x": torch.zeros(2, 3, 4, 4), "y": torch.zeros(2)}, {}, "labels must be int64"),
        ({"x": torch.full((2, 3, 4, 4), 2.0), "y": torch.zeros(2, dtype=torch.int64)}, {}, "must lie in [0, 1]"),
        ({"x": torch.zeros(2, 3, 4, 4), "y": torch.ones(2, dtype=torch.int64)}, {"classes": '["a"]'}, "label 1 is out of range"),
        ({"x": torch.zeros(2, 3, 4, 4), "y": torch.ones(2, dtype=torch.int64)}, {"classes": "a,b"}, "its metadata: it is not JSON"),
        ({"x": torch.zeros(2, 3, 4, 4), "y": torch.ones(2, dtype=torch.int64)}, {"classes": "[1.5]"}, "must be a JSON list of names"),
    ],
)
def test_a_file_of_tensors_that_is_no_set_is_refused(tmp_path, tensors, about, sentence):
    save_file(tensors, tmp_path / "set.safetensors", about)
    with pytest.raises(UserError, match=re.escape(sentence)):
        open_safetensors(tmp_path / "set.safetensors")


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 100])
def test_what_is_no_file_of_tensors_is_refused(tmp_path, content):
    (tmp_path / "set.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="cannot read .*set.safetensors"):
        open_dataset(None, tmp_path / "set.safetensors")
    with pytest.raises(UserError, match="there is no file"):
        open_safetensors(tmp_path / "none.safetensors")


def test_a_file_of_tensors_without_splits_is_cut_as_others_are(tmp_path):
    save_file({"x": torch.zeros(40, 3, 4, 4), "y": torch.arange(40) % 2}, tmp_path / "set.safetensors")
    train, test = (open_dataset(root=tmp_path / "set.safetensors", split=split) for split in ("train", "test"))
    assert (len(train), len(test)) == (36, 4) and train.classes == ("0", "1") and train.name == "set"


def test_a_folder_with_a_test_part_alone_opens(tmp_path: Path):
    export(images(torch.uint8), "test", tmp_path / "out", "npz")
    assert len(open_dataset(None, tmp_path / "out", "test")) == 12
    with pytest.raises(UserError, match="has no train.npz"):
        open_dataset(None, tmp_path / "out", "train")
