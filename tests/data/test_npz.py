"""Arrays in .npz files: every layout that the docstring allows, and a sentence for everything else."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from robustlab.data.npz import open_npz
from robustlab.errors import UserError

NHWC = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
Y = np.array([0, 2, 1, 0])


@pytest.mark.parametrize(
    "arrays",
    [
        {"x": NHWC, "y": Y},
        {"images": NHWC.transpose(0, 3, 1, 2), "labels": Y[:, None].astype(np.uint8)},
        {"x": NHWC / 255, "y": Y},
        {"x": (NHWC / 255).astype(np.float32), "y": Y.astype(np.int32), "extra": Y},
    ],
    ids=["uint8 NHWC", "uint8 NCHW, keras labels", "float64", "float32"],
)
def test_every_layout_gives_the_same_images(tmp_path, arrays):
    np.savez(tmp_path / "set.npz", **arrays)
    images = open_npz(tmp_path / "set.npz")
    assert torch.equal(images.pixels, torch.from_numpy(NHWC).permute(0, 3, 1, 2))
    assert images.labels.tolist() == Y.tolist() and images.classes == ("0", "1", "2") and images.name == "set"


def test_images_without_a_channel_axis_are_grey(tmp_path):
    np.savez(tmp_path / "set.npz", x=NHWC[..., 0], y=Y, classes=["a", "b", "c", "d"])
    images = open_npz(tmp_path / "set.npz")
    assert images.shape == (1, 5, 6) and images.classes == ("a", "b", "c", "d")


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_that_are_no_8_bit_values_stay_floats(tmp_path, dtype):
    x = np.random.default_rng(0).random((4, 5, 6, 3)).astype(dtype)
    np.savez(tmp_path / "set.npz", x=x, y=Y)
    images = open_npz(tmp_path / "set.npz")
    assert images.pixels.dtype == (torch.float16 if dtype == np.float16 else torch.float32)
    assert torch.equal(images.pixels, torch.from_numpy(x).permute(0, 3, 1, 2).to(images.pixels.dtype))


def test_float16_stays_even_where_it_holds_8_bit_values(tmp_path):
    x = (NHWC / 255).astype(np.float16)
    np.savez(tmp_path / "set.npz", x=x, y=Y)
    assert torch.equal(open_npz(tmp_path / "set.npz").pixels, torch.from_numpy(x).permute(0, 3, 1, 2))


def test_zero_images_are_read(tmp_path):
    np.savez(tmp_path / "set.npz", x=NHWC[:0], y=Y[:0])
    assert len(open_npz(tmp_path / "set.npz")) == 0


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": NHWC.astype(np.float32), "y": Y}, "must be uint8 or floats in [0, 1], got floats from 0 to 255"),
        ({"x": NHWC / 255 - 0.5, "y": Y}, "got floats from -0.5 to 0.5"),
        ({"x": np.full_like(NHWC, np.nan, dtype=np.float32), "y": Y}, "got floats from nan to nan"),
        ({"x": NHWC.astype(np.int64), "y": Y}, "got int64"),
        ({"x": NHWC[..., :2], "y": Y}, "with 1 or 3 channels, got shape (4, 5, 6, 2)"),
        ({"x": NHWC[:, :3], "y": Y}, "got shape (4, 3, 6, 3)"),
        ({"x": NHWC, "y": Y[:3]}, "4 images but 3 labels"),
        ({"x": NHWC, "y": Y - 1}, "label -1 is out of range"),
        ({"x": NHWC, "y": Y, "classes": ["a", "b"]}, "label 2 is out of range, 2 classes allow 0 to 1"),
        ({"x": NHWC, "y": Y / 2}, "labels must be whole numbers, got float64"),
        ({"x": NHWC, "y": np.eye(4, dtype=np.int64)}, "labels must be int64 (N,)"),
        ({"x": NHWC, "target": Y}, "has no array 'y' or 'labels'; it has target, x"),
        ({"x": NHWC, "y": np.array([object()] * 4)}, "cannot read"),
    ],
)
def test_each_mistake_is_one_sentence(tmp_path, arrays, sentence):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(UserError, match=re.escape(sentence)) as caught:
        open_npz(tmp_path / "set.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04cut short"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(UserError, match="cannot read .*set.npz"):
        open_npz(tmp_path / "set.npz")


def test_an_archive_cut_short_and_a_lone_array_are_refused(tmp_path):
    np.savez(tmp_path / "set.npz", x=NHWC, y=Y)
    (tmp_path / "cut.npz").write_bytes((tmp_path / "set.npz").read_bytes()[:-100])
    with (tmp_path / "lone.npz").open("wb") as file:
        np.save(file, NHWC)
    for name in ("cut", "lone"):
        with pytest.raises(UserError, match=f"cannot read .*{name}.npz"):
            open_npz(tmp_path / f"{name}.npz")
    with pytest.raises(UserError, match="there is no file"):
        open_npz(tmp_path / "none.npz")
