"""``robustlab export``: any set that opens by ``--data`` is written, opens again, and what rounding changed is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from laws import images, small_files
from safetensors.torch import save_file

from robustlab import files
from robustlab.commands.settings import Export
from robustlab.data import open_dataset, to_float
from robustlab.data.exports import LAYOUTS
from robustlab.options import leaves


@pytest.fixture
def floats(tmp_path: Path) -> Path:
    """A folder with float16 images, as a constructed set may have them."""
    (tmp_path / "floats").mkdir()
    tensors = {"x": images(20, 3, 8, 8).half(), "y": torch.arange(20) % 2}
    save_file(tensors, tmp_path / "floats" / "train.safetensors", {"classes": '["left", "right"]'})
    return tmp_path / "floats"


def test_the_flag_names_every_layout() -> None:
    assert leaves(Export)["format"].option.choices == tuple(LAYOUTS)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_are_kept_in_every_layout(call, data, tmp_path, layout: str) -> None:
    told = call("export", "--data", data, "--format", layout, "--out", tmp_path / "out")
    assert told.code == 0 and told.err == ""
    assert told.out.splitlines()[0] == f"60 images of train (train) in {tmp_path / 'out'}, layout {layout}"
    assert "without loss" in told.out and "rounded" not in told.out
    before, after = open_dataset(None, data), open_dataset(None, tmp_path / "out")
    assert len(after) == 60 and {path.name for path in tmp_path.iterdir()} == {"out"}
    for name in before.classes:
        some = [to_float(every.only_classes([name]).fetch(torch.arange(20))) for every in (before, after)]
        assert torch.equal(*some)


def test_what_rounding_adds_is_told_and_written(call, floats, tmp_path) -> None:
    told = call("export", "--data", floats, "--format", "huggingface", "--out", tmp_path / "out")
    lost = json.loads((tmp_path / "out" / "export.json").read_text())["rounding"]
    assert told.code == 0 and f"added {lost['mean']:.4g} on average, at most {lost['largest']:.4g}, to an image (L2 norm" in told.out
    assert f"{lost['mean']:.4g}" in (tmp_path / "out" / "README.md").read_text()
    before, after = open_dataset(None, floats), open_dataset(None, tmp_path / "out")
    order = before.labels.argsort(stable=True)
    moved = (to_float(after.fetch(torch.arange(20))).double() - before.fetch(order).double()).flatten(1).norm(dim=1)
    torch.testing.assert_close(torch.stack([moved.mean(), moved.max()]), torch.tensor([lost["mean"], lost["largest"]]).double())


def test_floats_keep_their_type_where_the_layout_has_it(call, floats, tmp_path) -> None:
    everything = torch.arange(20)
    before = open_dataset(None, floats).fetch(everything)
    for layout, told in (("npz", "float16"), ("safetensors", "float16"), ("released", "float16 as float32")):
        assert f"without loss: {told}\n" in call("export", "--data", floats, "--format", layout, "--out", tmp_path / layout).out
        after = open_dataset(None, tmp_path / layout).fetch(everything)
        assert torch.equal(after, before.float() if layout == "released" else before) and after.dtype == getattr(torch, told.split()[-1])


def test_a_constructed_set_brings_its_card(call, tmp_path) -> None:
    source = tmp_path / "made"
    (source / "shards").mkdir(parents=True)
    save_file({"x": images(6, 3, 4, 4), "y": torch.arange(6) % 2}, source / "shards" / "00000.safetensors")
    shard = {"file": "00000.safetensors", "n": 6, "sha256": files.sha256(source / "shards" / "00000.safetensors")}
    about = {"format": "robustlab-constructed-1", "n": 6, "shape": [3, 4, 4], "classes": ["a", "b"], "dtype": "float32", "shards": [shard]}
    files.write_json(source / "manifest.json", about)
    (source / "card.md").write_text("# D_det: six images\n")
    assert call("export", "--data", source, "--format", "huggingface", "--out", tmp_path / "out").code == 0
    assert "# D_det: six images" in (tmp_path / "out" / "README.md").read_text()
    assert call("export", "--data", source, "--format", "npz", "--out", tmp_path / "npz").code == 0
    assert torch.equal(open_dataset(None, tmp_path / "npz").fetch(torch.arange(6)), images(6, 3, 4, 4))


def test_some_of_the_images(call, data, tmp_path) -> None:
    words = ["--classes", "blue,red", "--limit", "10", "--split", "test"]
    assert call("export", "--data", data, *words, "--format", "folder", "--out", tmp_path / "out").code == 0
    found = sorted(path.parent.name for path in (tmp_path / "out" / "test").rglob("*.png"))
    assert len(found) == 10 and set(found) == {"blue", "red"}


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--out", "out"], "in which layout? --format takes one of: folder, huggingface, npz, safetensors, released"),
        (["--format", "png", "--out", "out"], "invalid choice: 'png'"),
        (["--format", "npz"], "where to? --out takes a folder that is new or empty"),
        (["--format", "npz", "--out", "{data}"], "is not an empty folder: name another one with --out"),
        (["--format", "npz", "--out", "{data}/train.npz"], "is not an empty folder: name another one with --out"),
        (["--format", "npz", "--out", "{data}/train.npz/new"], "cannot write"),
        (["--format", "npz", "--out", "out", "--classes", "rde"], "unknown class 'rde'. Did you mean 'red'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_sentence(refused, data, tmp_path, monkeypatch, words: list[str], sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in refused("export", "--data", data, *(word.format(data=data) for word in words))
    assert not list(tmp_path.iterdir()) and {path.name for path in data.iterdir()} == {"train.npz", "test.npz"}


def test_a_full_disk_is_told_and_leaves_nothing(refused, data, tmp_path) -> None:
    with small_files(3000):
        said = refused("export", "--data", data, "--format", "huggingface", "--out", tmp_path / "out")
    assert "cannot write" in said and not list(tmp_path.iterdir())
