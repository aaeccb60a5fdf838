"""The layout of the released sets: lists of tensors or one tensor, CIFAR's names where they fit, and nothing that runs code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from laws import images

from robustlab.data import ImageSet, open_dataset
from robustlab.data.exports import export
from robustlab.data.released import CIFAR10, open_released
from robustlab.errors import UserError

X, Y = images(30, 3, 32, 32), torch.arange(30) % 10


def save(folder: Path, x: Any = X, y: Any = Y, name: str = "CIFAR") -> Path:
    folder.mkdir(exist_ok=True)
    torch.save(x, folder / f"{name}_ims")
    torch.save(y, folder / f"{name}_lab")
    return folder


@pytest.mark.parametrize(
    "x, y",
    [
        (X, Y),
        (list(X.split(7)), list(Y.split(7))),
        (tuple(X.split(30)), Y.int()),
        (X.double(), [Y.clone().to(torch.uint8)]),
        (torch.nn.Parameter(X), Y),
    ],
    ids=["tensors", "lists", "tuple, int32", "float64, uint8", "parameter"],
)
def test_lists_and_tensors_give_the_same_set(tmp_path, x, y):
    found = open_dataset(None, save(tmp_path / "d_robust_CIFAR", x, y))
    assert isinstance(found, ImageSet) and torch.equal(found.pixels, X) and torch.equal(found.labels, Y)
    assert found.name == "d_robust_CIFAR" and not found.pixels.requires_grad


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16])
def test_other_pixels_stay_what_they_are(tmp_path, dtype):
    x = (X * (255 if dtype == torch.uint8 else 1)).to(dtype)
    assert torch.equal(open_released(save(tmp_path, x)).pixels, x)


def test_classes_have_cifar_s_names_where_they_fit(tmp_path):
    numbers = tuple(map(str, range(10)))
    assert open_released(save(tmp_path / "a")).classes == CIFAR10
    assert open_released(save(tmp_path / "b", X[:3], Y[:3])).classes == CIFAR10
    assert open_released(save(tmp_path / "c", name="dogs")).classes == numbers
    assert open_released(save(tmp_path / "d", X[..., :16])).classes == numbers
    assert open_released(save(tmp_path / "e", X, Y + 1)).classes == (*numbers, "10")


def test_cifar_is_exported_under_its_own_name(tmp_path):
    export(ImageSet(X, Y, CIFAR10, "some/folder"), "train", tmp_path / "out", "released")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"CIFAR_ims", "CIFAR_lab", "export.json"}
    (tmp_path / "out" / "export.json").unlink()
    found = open_released(tmp_path / "out")
    assert torch.equal(found.pixels, X) and found.classes == CIFAR10


def test_a_file_holds_its_own_labels_only(tmp_path):
    """A part of a tensor would be saved with all the rest of it."""
    before = ImageSet(X[:1, :, :1, :1].expand(5000, 3, 1, 1), torch.zeros(5000, dtype=torch.int64), ("a",), "b")
    export(before, "train", tmp_path / "out", "released")
    assert (tmp_path / "out" / "b_lab").stat().st_size < 2 * 8 * 5000


class Boom:
    """What runs code while it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("boom",)


@pytest.mark.parametrize(
    "x, y, sentence",
    [
        (Boom(), Y, "CIFAR_ims would run code when read (builtins.print)"),
        (X, Boom(), "CIFAR_lab would run code when read (builtins.print)"),
        ({"x": X}, Y, "should hold a tensor or a list of tensors, not a dict"),
        ([], Y, "should hold a tensor or a list of tensors, not a list"),
        ([X, 3], Y, "should hold a tensor or a list of tensors, not a list"),
        ([X, X[..., :8]], Y, "CIFAR_ims do not fit together"),
        (X[0], Y, "images must be (N, C, H, W) with 1 or 3 channels, got shape (3, 32, 32)"),
        (X.permute(0, 2, 3, 1), Y, "got shape (30, 32, 32, 3)"),
        (X * 255, Y, "must lie in [0, 1]"),
        (X, Y[:7], "30 images but 7 labels"),
        (X, Y - 1, "label -1 is out of range"),
        (X, Y.float(), "labels must be whole numbers, got torch.float32"),
    ],
)
def test_what_is_no_set_is_refused_and_never_run(tmp_path, capsys, x, y, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        open_dataset(None, save(tmp_path, x, y))
    assert "\n" not in str(caught.value) and "boom" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "content, sentence",
    [
        (b"", "the file of tensors .*CIFAR_lab is empty"),
        (b"hello", "CIFAR_lab is not a PyTorch file of tensors: it begins with b'he'"),
        (b"PK\x03\x04cut short", "CIFAR_lab is a damaged or incomplete file of tensors"),
        (b"\x80\x02", "CIFAR_lab is a damaged or incomplete file of tensors"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, content, sentence):
    (save(tmp_path) / "CIFAR_lab").write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        open_released(tmp_path)


def test_one_pair_is_wanted(tmp_path):
    (save(tmp_path) / "CIFAR_lab").unlink()
    with pytest.raises(UserError, match="there is no file of tensors .*CIFAR_lab"):
        open_dataset(None, tmp_path)
    save(tmp_path, name="other")
    with pytest.raises(UserError, match="holds several: CIFAR_ims, other_ims"):
        open_dataset(None, tmp_path)
    with pytest.raises(UserError, match="and holds none"):
        open_dataset("released", tmp_path.parent)


def test_there_are_no_test_images_in_it(tmp_path):
    with pytest.raises(UserError, match="the released set in .* has no test images"):
        open_dataset(None, save(tmp_path), "test")
