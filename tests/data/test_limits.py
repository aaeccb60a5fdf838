"""Files that ask for more than they hold: refused by what they declare, before any of it is made."""

from __future__ import annotations

import io
import json
import math
import os
import random
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import seeded
from safetensors.torch import save_file

from robustlab.data import constructed, limits, open_dataset
from robustlab.data.npz import open_npz
from robustlab.data.released import open_released
from robustlab.data.tensors import open_safetensors
from robustlab.errors import UserError
from robustlab.files import sha256

X = np.zeros((4, 5, 6, 3), np.uint8)
Y = np.array([0, 1, 2, 1])


@pytest.fixture
def frugal():
    """Fails where more than 64 MiB are taken; numpy's and Python's memory is counted."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20, f"{peak >> 20} MiB"


def npy(shape: tuple[int, ...], descr: str, content: bytes = b"") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue() + content


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("highest", [limits.HARMLESS, 10**7, 2**62, 300_000])
def test_one_large_label_makes_no_classes(tmp_path, frugal, highest):
    y = np.array([0, 1, 2, highest])
    np.savez(tmp_path / "a.npz", x=X, y=y)
    save_file({"x": torch.zeros(4, 3, 5, 6), "y": torch.from_numpy(y)}, tmp_path / "a.safetensors")
    (tmp_path / "released").mkdir()
    torch.save([torch.zeros(4, 3, 5, 6)], tmp_path / "released" / "A_ims")
    torch.save([torch.from_numpy(y)], tmp_path / "released" / "A_lab")
    for path in ("a.npz", "a.safetensors", "released"):
        with pytest.raises(UserError, match=f"label {highest} means .* classes, and at most 250,000 are read"):
            open_dataset(None, tmp_path / path)


@pytest.mark.parametrize("shape", [(10**9, 3, 8, 8), (1, 10**12), (2**40, 1, 2**20, 1)])
def test_a_head_that_declares_more_than_follows_is_refused(tmp_path, frugal, shape):
    path = archive(tmp_path / "a.npz", x=npy(shape, "|u1", b"\0" * 100), y=npy((4,), "<i8", Y.tobytes()))
    with pytest.raises(UserError, match=f"the array 'x' says that it has {math.prod(shape):,} bytes"):
        open_npz(path)


def test_an_archive_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path, frugal):
    size = limits.HARMLESS + 1
    stream = zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED)
    with stream, stream.open("x.npy", "w", force_zip64=True) as file:
        file.write(npy((size // 48, 3, 4, 4), "|u1"))
        for _ in range(257):
            file.write(bytes(1 << 20))
    with pytest.raises(
        UserError, match="the array 'x' would take .* MB, and the file holds .* kB of it: at most 100 times as much is read"
    ):
        open_npz(tmp_path / "a.npz")


def test_what_memory_cannot_hold_is_refused(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    monkeypatch.setattr(limits, "memory_bytes", lambda: 100)
    with pytest.raises(UserError, match="the array 'x' would take 488 bytes, and this machine has 100 bytes of memory"):
        open_npz(tmp_path / "a.npz")


def test_a_tensor_that_repeats_what_its_file_holds_is_refused(tmp_path, frugal):
    torch.save(torch.zeros(1).expand(10**6, 3, 32, 32), tmp_path / "A_ims")
    torch.save(torch.zeros(10**6, dtype=torch.int64), tmp_path / "A_lab")
    with pytest.raises(UserError, match="the images would take 12.3 GB"):
        open_released(tmp_path)


@pytest.mark.parametrize(
    "x, y, sentence",
    [
        (np.array(3, np.uint8), Y, "images must be"),
        (X, np.array(3), "labels must be int64"),
        (X[:, :0], Y, "images must have pixels"),
        (X.astype("M8[s]"), Y, "must be uint8 or floats"),
        (X.astype(np.longdouble), Y, "must be uint8 or floats"),
        (X, np.array([0, 1, 2, 2**64 - 1], np.uint64), "out of range"),
        (X, Y.astype("V8"), "labels must be whole numbers"),
        (np.full(X.shape, np.nan, np.float16), Y, "got floats from nan"),
    ],
)
def test_odd_arrays_are_a_sentence(tmp_path, x, y, sentence):
    np.savez(tmp_path / "a.npz", x=x, y=y)
    with pytest.raises(UserError, match=sentence) as caught:
        open_npz(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", [np.array(3), np.zeros((2, 2)), np.array([0.5, 1, 2]), np.array("abc"), np.zeros(3, "V2")])
def test_odd_names_are_a_sentence(tmp_path, names):
    np.savez(tmp_path / "a.npz", x=X, y=Y, classes=names)
    with pytest.raises(UserError, match="classes must be names"):
        open_npz(tmp_path / "a.npz")


def made(folder: Path) -> dict:
    """A small constructed set, and its manifest."""
    (folder / "shards").mkdir()
    save_file({"x": torch.zeros(4, 3, 5, 6), "y": torch.arange(4) % 2}, folder / "shards" / "0.safetensors")
    shard = {"file": "0.safetensors", "n": 4, "sha256": sha256(folder / "shards" / "0.safetensors")}
    return {"format": constructed.FORMAT, "n": 4, "shape": [3, 5, 6], "classes": ["a", "b"], "dtype": "float32", "shards": [shard]}


ODD = [None, -1, 0, 3, 2**70, 1e400, "x", "", [], [0], [3, 5, 6], [3, 5, 2**60], ["a", "a"], [None], {}, {"n": 1}, True, [[]], [3, 5, -6]]
SHARDS = [[{"file": file, "n": 4, "sha256": "0"}] for file in ("../0.safetensors", "/etc/passwd", "", "..", "a\0b", 3, "gone")]


@seeded
@given(st.sampled_from(["n", "shape", "classes", "dtype", "shards", "format"]), st.sampled_from([*ODD, *SHARDS]))
def test_odd_manifests_are_a_sentence(tmp_path_factory, name, value):
    folder = tmp_path_factory.mktemp("made")
    manifest = made(folder)
    if manifest[name] == value:
        return
    (folder / "manifest.json").write_text(json.dumps({**manifest, name: value}))
    with pytest.raises(UserError) as caught:
        open_dataset(None, folder)
    assert "\n" not in str(caught.value)


def test_the_set_itself_opens(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps(made(tmp_path)))
    assert len(open_dataset(None, tmp_path)) == 4


@pytest.mark.parametrize("kind", ["npz", "safetensors", "released", "manifest"])
def test_mutated_files_open_or_are_a_sentence(tmp_path, kind):
    if kind == "npz":
        np.savez_compressed(tmp_path / "a.npz", x=X, y=Y, classes=np.array(["a", "b", "c"]))
        path = opened = tmp_path / "a.npz"
    elif kind == "safetensors":
        path = opened = tmp_path / "a.safetensors"
        save_file({"x": torch.zeros(4, 3, 5, 6), "y": torch.from_numpy(Y)}, path, {"classes": '["a", "b", "c"]'})
    elif kind == "released":
        torch.save([torch.zeros(4, 3, 5, 6)], tmp_path / "A_ims")
        torch.save([torch.from_numpy(Y)], tmp_path / "A_lab")
        path, opened = tmp_path / "A_lab", tmp_path
    else:
        (tmp_path / "manifest.json").write_text(json.dumps(made(tmp_path)))
        path, opened = tmp_path / "manifest.json", tmp_path
    original, refused = path.read_bytes(), 0
    for seed in range(150):
        draw, content = random.Random(seed), bytearray(original)
        for _ in range(draw.choice((1, 2, 8))):
            content[draw.randrange(len(content))] = draw.randrange(256)
        path.write_bytes(content[: draw.choice((len(content), draw.randrange(len(content))))])
        try:
            open_dataset(None, opened)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused


def test_pipes_and_folders_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    (tmp_path / "folder.npz").mkdir()
    os.mkfifo(tmp_path / "pipe.safetensors")
    (tmp_path / "released").mkdir()
    for name in ("A_ims", "A_lab"):
        os.mkfifo(tmp_path / "released" / name)
    (tmp_path / "made" / "shards").mkdir(parents=True)
    (tmp_path / "made" / "settings.json").write_text("{}")
    os.mkfifo(tmp_path / "made" / "manifest.json")
    for name in ("pipe.npz", "folder.npz", "pipe.safetensors", "released", "made"):
        with pytest.raises(UserError):
            open_dataset(None, tmp_path / name)
    for read, name in ((open_npz, "pipe.npz"), (open_safetensors, "pipe.safetensors"), (open_npz, "folder.npz")):
        with pytest.raises(UserError, match="it is no file"):
            read(tmp_path / name)


@pytest.mark.parametrize("path", ["a\0b", "x" * 300, "x/" * 3000, "\udcff\0", "~nobody-of-that-name/\0"])
def test_paths_that_no_file_can_have_are_a_sentence(path):
    for arguments in ((path,), (None, path), ("folder", path), ("npz", path)):
        with pytest.raises(UserError) as caught:
            open_dataset(*arguments)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


def test_a_head_of_another_kind_is_refused(tmp_path):
    for head in (b"\x93NUMPY\x09\x00" + struct.pack("<H", 4) + b"{}  ", b"\x93NUMPY\x01\x00" + struct.pack("<H", 60000), b"", b"\x93NUM"):
        with pytest.raises(UserError, match="cannot read"):
            open_npz(archive(tmp_path / "a.npz", x=head, y=npy((4,), "<i8", Y.tobytes())))
