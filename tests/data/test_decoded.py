"""Decoded images that are kept: the same pixels, only while the files are the same, and never in the way."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustlab.data import decoded, folder, open_dataset
from robustlab.data.folder import open_folder


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for part, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                save(tmp_path / "data" / part / name / f"{i}.png", 100 * label + i)
    return tmp_path / "data"


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are decoded into memory."""
    seen: list[str] = []

    def noted(slot, path, image_size, original=folder.decode_into):
        seen.append(path)
        original(slot, path, image_size)

    monkeypatch.setattr(folder, "decode_into", noted)
    return seen


def pixels(images) -> torch.Tensor:
    return images.fetch(torch.arange(len(images)))


def kept(place: Path) -> list[Path]:
    return sorted(place.rglob("*.safetensors"))


def test_the_second_opening_decodes_nothing_and_gives_the_same(root, tmp_path, decodings):
    cache = tmp_path / "cache"
    first = open_dataset(root, cache=cache)
    assert len(decodings) == 8
    second = open_dataset(root, cache=cache)
    assert len(decodings) == 8 and len(kept(cache)) == 1
    assert torch.equal(pixels(first), pixels(second)) and torch.equal(first.labels, second.labels)
    assert (first.classes, first.name, first.shape) == (second.classes, second.name, second.shape)
    open_dataset(root, split="test", cache=cache), open_dataset(root, image_size=4, cache=cache)
    assert len(kept(cache)) == 3, "other files, and another size, are kept beside"


def test_some_of_the_images_are_taken_from_all_that_are_kept(root, tmp_path, decodings):
    cache = tmp_path / "cache"
    few = open_dataset(root, classes=["dog"], limit=3, cache=cache)
    assert len(decodings) == 3 and not kept(cache), "only what was asked for is decoded, and not kept"
    open_dataset(root, cache=cache)
    again = open_dataset(root, classes=["dog"], limit=3, cache=cache)
    assert len(decodings) == 3 + 8 and torch.equal(pixels(few), pixels(again)) and torch.equal(few.labels, again.labels)


def changed_bytes(root: Path) -> None:
    save(root / "train" / "cat" / "1.png", 9)


def changed_time(root: Path) -> None:
    os.utime(root / "train" / "cat" / "1.png", (1, 1))


def another_file(root: Path) -> None:
    save(root / "train" / "dog" / "9.png", 9)


def one_less(root: Path) -> None:
    (root / "train" / "dog" / "3.png").unlink()


def another_name(root: Path) -> None:
    (root / "train" / "dog" / "3.png").rename(root / "train" / "dog" / "4.png")


@pytest.mark.parametrize("change", [changed_bytes, changed_time, another_file, one_less, another_name])
def test_other_files_are_decoded_anew(root, tmp_path, decodings, change):
    open_dataset(root, cache=tmp_path / "cache")
    change(root)
    decodings.clear()
    found = open_dataset(root, cache=tmp_path / "cache")
    assert len(decodings) == len(found)
    assert torch.equal(pixels(found), pixels(open_folder(root, "train", memory_limit=0)))
    assert len(kept(tmp_path / "cache")) == 1, "what is old is written over"


def cut_short(place: Path) -> None:
    place.write_bytes(place.read_bytes()[:-5])


def one_bit(place: Path) -> None:
    content = bytearray(place.read_bytes())
    content[-5] ^= 1
    place.write_bytes(content)


def something_else(place: Path) -> None:
    place.write_bytes(b"hello")


@pytest.mark.parametrize("damage", [cut_short, one_bit, something_else])
def test_what_is_damaged_is_decoded_anew(root, tmp_path, decodings, damage):
    first = open_dataset(root, cache=tmp_path / "cache")
    expected = pixels(first).clone()
    (place,) = kept(tmp_path / "cache")
    damage(place)
    assert torch.equal(pixels(open_dataset(root, cache=tmp_path / "cache")), expected)
    decodings.clear()
    open_dataset(root, cache=tmp_path / "cache")
    assert not decodings, "and is whole again"


def test_few_pixels_are_kept_only_where_asked(root, monkeypatch):
    open_dataset(root)
    assert not kept(root.parent)
    monkeypatch.setattr(decoded, "WORTH_KEEPING", 8 * 108)
    open_dataset(root, cache=False)
    assert not kept(root.parent)
    open_dataset(root)
    assert kept(root.parent) == [root / ".robustlab" / "train.safetensors"]
    assert open_dataset(root).classes == ("cat", "dog"), "no class"


def test_beside_class_folders_without_splits_other_programs_see_no_new_class(root, decodings, monkeypatch):
    monkeypatch.setattr(decoded, "WORTH_KEEPING", 0)
    for _ in range(2):
        open_folder(root / "train", "train")
    assert len(decodings) == 8 and sorted(os.listdir(root / "train")) == ["cat", "dog"]
    assert kept(root) == [root / ".robustlab" / "train.safetensors"]


def test_a_folder_that_moves_takes_what_is_kept_along(root, decodings, monkeypatch):
    monkeypatch.setattr(decoded, "WORTH_KEEPING", 0)
    open_dataset(root)
    shutil.move(root, root.parent / "moved")
    decodings.clear()
    assert len(open_dataset(root.parent / "moved")) == 8 and not decodings


def test_where_nothing_can_be_written_nothing_is_said(root, tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    assert len(open_dataset(root, cache=tmp_path / "file")) == 8
    assert capsys.readouterr().err == ""


def test_two_folders_of_one_name_share_a_cache(root, tmp_path):
    shutil.copytree(root, tmp_path / "other" / "data")
    changed_bytes(tmp_path / "other" / "data")
    sets = [open_dataset(place, cache=tmp_path / "cache") for place in (root, tmp_path / "other" / "data") for _ in range(2)]
    assert torch.equal(pixels(sets[0]), pixels(sets[1])) and torch.equal(pixels(sets[2]), pixels(sets[3]))
    assert not torch.equal(pixels(sets[0]), pixels(sets[2])) and len(kept(tmp_path / "cache")) == 2


def test_what_is_read_may_be_written_over(root, tmp_path):
    """The pixels may be mapped from the file: changing them must not change it."""
    expected = pixels(open_dataset(root, cache=tmp_path / "cache")).clone()
    open_dataset(root, cache=tmp_path / "cache").pixels.zero_()
    assert torch.equal(pixels(open_dataset(root, cache=tmp_path / "cache")), expected)
