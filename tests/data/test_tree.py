"""Layouts of image folders: those that the field has open, and what is not read is told."""

from __future__ import annotations

import os
import re
import unicodedata
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import seeded
from PIL import Image
from torchvision.datasets import ImageFolder

from robustlab.data import open_dataset
from robustlab.data.imageset import files_of
from robustlab.data.picturefiles import SUFFIXES
from robustlab.data.tree import NOTES, PARTS, SPELLED
from robustlab.errors import UserError


def put(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    format = {"jfif": "JPEG", "JPEG": "JPEG"}.get(path.suffix[1:])
    Image.fromarray(np.full((4, 4, 3), value, dtype=np.uint8)).save(path, format)


def classes(root: Path, *names: str, n: int = 3, inside: str = "") -> None:
    for name in names:
        for i in range(n):
            put(root / name / inside / f"{i}.png", i)


def told(caught: list[warnings.WarningMessage]) -> list[str]:
    return [str(one.message) for one in caught]


def opened(root: Path, split: str = "train") -> tuple[object, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        images = open_dataset(None, root, split)
    return images, told(caught)


# Names of parts


@pytest.mark.parametrize("name", ["train", "Train", "TRAIN"])
@pytest.mark.parametrize("second", ["test", "Test", "val", "Val", "valid", "validation", "Validation"])
def test_parts_are_known_by_any_usual_name_in_any_case(tmp_path, name, second):
    classes(tmp_path / name, "cat", "dog")
    classes(tmp_path / second, "cat", "dog", n=1)
    for split, n in (("train", 6), ("test", 2), ("val", 2)):
        images, notes = opened(tmp_path, split)
        assert len(images) == n and images.classes == ("cat", "dog") and not notes


@pytest.mark.parametrize("spelled", [name for names in SPELLED.values() for name in names])
def test_arrays_are_found_by_the_same_names(tmp_path, spelled):
    part = next(part for part, names in SPELLED.items() if spelled in names)
    np.savez(tmp_path / f"{spelled.title()}.npz", x=np.zeros((2, 4, 4, 3), np.uint8), y=[0, 1])
    assert len(open_dataset(None, tmp_path, next(split for split, parts in PARTS.items() if part in parts))) == 2


def test_a_second_folder_for_one_part_is_told(tmp_path):
    classes(tmp_path / "train", "cat", "dog")
    classes(tmp_path / "val", "cat", "dog", n=1)
    classes(tmp_path / "validation", "cat", "dog", n=2)
    images, notes = opened(tmp_path, "val")
    assert len(images) == 2 and len(notes) == 1 and "validation" in notes[0]


# Test pictures without labels


def flat(root: Path) -> None:
    for i in range(3):
        put(root / f"{i}.png")


def in_one_folder(root: Path) -> None:
    for i in range(3):
        put(root / "images" / f"{i}.png")


def empty(root: Path) -> None:
    root.mkdir()


@pytest.mark.parametrize("unlabelled", [flat, in_one_folder, empty])
def test_a_test_part_without_labels_gives_way_to_val(tmp_path, unlabelled: Callable[[Path], None]):
    for part in ("train", "val"):
        classes(tmp_path / part, "cat", "dog")
    unlabelled(tmp_path / "test")
    assert opened(tmp_path, "train")[1] == [] == opened(tmp_path, "val")[1]
    images, notes = opened(tmp_path, "test")
    assert len(images) == 6 and len(notes) == 1 and f"{tmp_path / 'val'} is read in its place" in notes[0]


@pytest.mark.parametrize("unlabelled", [flat, in_one_folder, empty])
def test_without_val_the_sentence_names_the_part(tmp_path, unlabelled):
    classes(tmp_path / "train", "cat", "dog")
    unlabelled(tmp_path / "test")
    assert len(opened(tmp_path)[0]) == 6
    with pytest.raises(UserError, match=re.escape(f"{tmp_path / 'test'} holds no class folders")):
        open_dataset(None, tmp_path, "test")


def test_tiny_imagenet_opens(tmp_path):
    names = ("n01443537", "n01629819", "n01641577")
    classes(tmp_path / "train", *names, inside="images")
    for name in names:
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("0\t0\t62\t62\n")
    lines = []
    for i in range(6):
        put(tmp_path / "val" / "images" / f"val_{i}.JPEG", 40 * i)
        lines.append(f"val_{i}.JPEG\t{names[(i + 1) % 3]}\t0\t32\t44\t62")
    (tmp_path / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    in_one_folder(tmp_path / "test")
    train, notes = opened(tmp_path)
    assert train.classes == names and len(train) == 9 and not notes
    for split in ("val", "test"):
        images, notes = opened(tmp_path, split)
        assert images.classes == names and len(notes) == (split == "test")
        for file, label in zip(files_of(images), images.labels.tolist(), strict=True):
            assert label == (int(re.search(r"val_(\d)", file)[1]) + 1) % 3


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "should hold lines of a file's name, a tab and its class"),
        ("val_0.JPEG n1\n", "should hold lines of"),
        ("val_0.JPEG\twolf\n", "is of the class 'wolf', which the training images do not have"),
        ("val_0.JPEG\tcat\nval_1.JPEG\tcat\n", "names 1 pictures that are not in"),
    ],
)
def test_damaged_annotations_are_a_sentence(tmp_path, text, sentence):
    classes(tmp_path / "train", "cat", "dog")
    put(tmp_path / "val" / "images" / "val_0.JPEG")
    (tmp_path / "val" / "val_annotations.txt").write_text(text)
    with pytest.raises(UserError, match=sentence):
        open_dataset(None, tmp_path, "val")


# A class that is called like a part


@pytest.mark.parametrize("name", ["train", "test", "val", "Train", "validation"])
def test_a_class_may_be_called_like_a_part(tmp_path, name):
    classes(tmp_path, "bus", "car", name, n=20)
    for split, n in (("train", 54), ("test", 6)):
        images, notes = opened(tmp_path, split)
        assert set(images.classes) == {"bus", "car", name} and len(images) == n and not notes


def test_a_part_beside_what_looks_like_classes_is_told(tmp_path):
    classes(tmp_path, "bus", "car")
    classes(tmp_path / "train", "steam", "tram")
    images, notes = opened(tmp_path)
    assert images.classes == ("steam", "tram")
    assert len(notes) == 1 and "read as a folder of parts" in notes[0] and "bus, car" in notes[0]


def test_a_folder_around_the_data_is_named(tmp_path):
    for part in ("train", "test"):
        classes(tmp_path / "a" / "pets" / part, "cat", "dog")
    classes(tmp_path / "b" / "images", "cat", "dog")
    for place, inner in (("a", "pets"), ("b", "images")):
        with pytest.raises(UserError, match=re.escape(f"name {tmp_path / place / inner} instead")):
            open_dataset(None, tmp_path / place)


# Files within classes


@seeded
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["cat", "dog"]),
            st.lists(st.sampled_from(["a", "b", "sub", "Z", "a.d"]), max_size=3).map(tuple),
            st.sampled_from(["0", "1", "x y", "é"]),
            st.sampled_from([".png", ".PNG", ".tif", ".ppm", ".bmp"]),
        ),
        min_size=1,
        max_size=12,
        unique=True,
    )
)
def test_nested_files_come_as_imagefolder_has_them(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("tree") / "train"
    for value, (label, folders, stem, suffix) in enumerate([("cat", [], "0", ".png"), ("dog", [], "0", ".png"), *names]):
        put(root.joinpath(label, *folders, stem + suffix), value)
    images, notes = opened(root.parent)
    expected = ImageFolder(root)
    assert files_of(images) == tuple(os.path.relpath(path, root.parent) for path, _ in expected.samples)
    assert images.labels.tolist() == expected.targets and list(images.classes) == expected.classes and not notes
    pixels = np.stack([np.asarray(picture) for picture, _ in expected])
    assert torch.equal(images.fetch(torch.arange(len(images))), torch.from_numpy(pixels).permute(0, 3, 1, 2))


@pytest.mark.parametrize("suffix", [".heic", ".svg", ".eps", ".npy", "", ".psd", ".jpg~"])
def test_what_is_left_out_is_counted_and_named(tmp_path, suffix):
    classes(tmp_path / "train", "cat", "dog")
    for i in range(5):
        (tmp_path / "train" / "cat" / f"odd{i}{suffix}").write_bytes(b"x")
    put(tmp_path / "train" / "stray.png")
    images, notes = opened(tmp_path)
    assert len(images) == 6 and len(notes) == 1
    assert "6 files left out" in notes[0] and f"cat/odd0{suffix}" in notes[0] and notes[0].endswith(", ...")


def test_every_file_is_read_told_or_text(tmp_path):
    """No picture vanishes: whatever its ending, it is among the images or among what the note counts."""
    endings = [".txt", ".json", ".PNG", ".jpeg", ".tiff", ".pgm", ".gif", ".webp", ".raw", ".pdf", ".jpg.part", ".xml", ".ico"]
    classes(tmp_path, "cat", n=2)
    classes(tmp_path, "dog", n=18)
    for ending in endings:
        if ending.lower() in SUFFIXES:
            put(tmp_path / "cat" / "deep" / f"a{ending}")
        else:
            (tmp_path / "cat" / f"a{ending}").write_bytes(b"x")
    images, notes = opened(tmp_path)
    test, _ = opened(tmp_path, "test")
    read = sum(ending.lower() in SUFFIXES for ending in endings)
    silent = sum(ending.lower().endswith(NOTES) for ending in endings)
    assert len(images) + len(test) == 20 + read
    assert f"{len(endings) - read - silent} files left out" in notes[0]


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    classes(tmp_path / "train", "cat", "dog")
    for place in (".hidden/0.png", "cat/.0.png", "cat/.thumbs/0.png", "cat/__MACOSX/0.png", "cat/._0.png"):
        put(tmp_path / "train" / place)
    images, notes = opened(tmp_path)
    assert len(images) == 6 and images.classes == ("cat", "dog") and not notes


def test_a_link_to_a_folder_that_it_lies_in_ends(tmp_path):
    classes(tmp_path / "train", "cat", "dog")
    (tmp_path / "train" / "cat" / "again").symlink_to(tmp_path / "train" / "cat")
    classes(tmp_path / "elsewhere", "x")
    (tmp_path / "train" / "cat" / "more").symlink_to(tmp_path / "elsewhere" / "x")
    assert len(opened(tmp_path)[0]) == 9


# Names of classes


def test_class_folders_that_differ_only_in_the_form_of_their_letters_are_refused(tmp_path):
    forms = [unicodedata.normalize(form, "café") for form in ("NFC", "NFD")]
    classes(tmp_path / "train", *forms)
    if len(os.listdir(tmp_path / "train")) == 1:
        pytest.skip("this file system takes both forms for one name")
    with pytest.raises(UserError, match="has two classes called 'café'"):
        open_dataset(None, tmp_path)


def test_the_form_of_letters_makes_no_other_class(tmp_path):
    for part, form in (("train", "NFC"), ("test", "NFD")):
        classes(tmp_path / part, unicodedata.normalize(form, "café"), "tea")
    assert opened(tmp_path)[0].classes == opened(tmp_path, "test")[0].classes == ("café", "tea")


@pytest.mark.parametrize("name", [b"caf\xe9", b"a\nb", b"a\x1b[31mb", b"\xff"])
def test_names_that_cannot_be_shown_are_refused_before_any_work(tmp_path, name):
    for part in (b"train", b"test"):
        for label in (name, b"dog"):
            folder = os.path.join(os.fsencode(tmp_path), part, label)
            os.makedirs(folder)
            put(Path(os.fsdecode(os.path.join(folder, b"0.png"))))
    for split in ("train", "test"):
        with pytest.raises(UserError, match="the name of class [01]") as caught:
            open_dataset(None, tmp_path, split)
        assert str(caught.value).isprintable()
