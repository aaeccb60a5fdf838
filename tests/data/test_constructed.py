"""Constructed sets read back: the pixels that were written, like any other data set, and nothing of a set that is damaged or unfinished."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from laws import images
from safetensors.torch import load_file, save_file
from torch import nn

from robustlab.constraints import ThreatModel
from robustlab.construction import Building, Plan, Relabelled, build_set, next_class
from robustlab.data import ImageSet, open_dataset
from robustlab.data.constructed import ShardStream, damaged, facts, is_constructed, open_constructed, read_manifest
from robustlab.errors import UserError
from robustlab.models.classifier import Classifier
from robustlab.norms import L2

N = 10
SHUFFLED = torch.tensor([9, 0, 4, 4, 3, 7])


def plan(dtype: str = "float16") -> Plan:
    """Ten images of three classes in shards of four, four and two."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Classifier(nn.Flatten(), nn.Linear(75, 3), mean=[0.5] * 3, std=[0.25] * 3, classes=["red", "green", "blue"])
    source = ImageSet(images(N, 3, 5, 5), torch.arange(N) % 3, ("red", "green", "blue"), "noise")
    return Plan(Relabelled(next_class, ThreatModel(L2(), 0.5), 2, 0.25), source, model, dtype=dtype, shard_size=4)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    build_set(tmp_path / "d_det", plan())
    return tmp_path / "d_det"


def as_written(folder: Path, name: str) -> torch.Tensor:
    return torch.cat([load_file(shard)[name] for shard in sorted(folder.glob("shards/*.safetensors"))])


@pytest.mark.parametrize("memory_limit", [1 << 30, 0], ids=["in memory", "on demand"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_a_finished_set_comes_back_byte_for_byte(tmp_path, dtype, memory_limit):
    build_set(tmp_path / "d_det", plan(dtype))
    found = open_constructed(tmp_path / "d_det", memory_limit=memory_limit)
    assert isinstance(found, ShardStream if memory_limit == 0 else ImageSet)
    assert (found.name, found.classes, found.shape, len(found)) == ("d_det", ("red", "green", "blue"), (3, 5, 5), N)
    pixels = found.fetch(torch.arange(N))
    assert pixels.dtype == getattr(torch, dtype) and torch.equal(pixels, as_written(tmp_path / "d_det", "x"))
    assert torch.equal(found.labels, (torch.arange(N) + 1) % 3)


def test_a_folder_is_known_as_a_constructed_set_by_itself(finished):
    found = open_dataset(None, finished)
    assert torch.equal(found.fetch(torch.arange(N)), as_written(finished, "x"))
    assert is_constructed(finished) and not is_constructed(finished.parent)


def test_read_on_demand_it_is_the_set_in_memory(finished):
    stream, memory = open_constructed(finished, memory_limit=0), open_constructed(finished)
    for of in (
        lambda found: found,
        lambda found: found.subset(SHUFFLED),
        lambda found: found.only_classes(["blue", "red"]),
        lambda found: found.subset(SHUFFLED).only_classes(["green"]),
    ):
        read, kept = of(stream), of(memory)
        assert len(read) == len(kept) and read.classes == kept.classes and read.name == kept.name
        order = torch.arange(len(kept)).flip(0)
        assert torch.equal(read.labels, kept.labels) and torch.equal(read.fetch(order), kept.fetch(order))
        assert all(map(torch.equal, read.mean_std(), kept.mean_std()))
    assert stream.fetch(SHUFFLED[:0]).shape == (0, 3, 5, 5)


def test_a_stream_travels_to_other_processes_without_its_pixels(finished):
    stream = open_constructed(finished, memory_limit=0)
    before = stream.fetch(SHUFFLED)
    travelled = pickle.dumps(stream)
    assert "_mapped" in vars(stream) and "_mapped" not in vars(pickle.loads(travelled))
    assert torch.equal(pickle.loads(travelled).fetch(SHUFFLED), before)


def test_a_set_may_be_moved_and_takes_the_name_of_its_folder(finished):
    pixels = as_written(finished, "x")
    moved = finished.rename(finished.with_name("moved"))
    found = open_constructed(moved)
    assert found.name == "moved" and torch.equal(found.pixels, pixels)


def test_what_is_known_of_each_image_lies_beside_it(finished):
    known = facts(finished)
    assert set(known) == {"y", "index", "label", "predicted_before_storing", "predicted", "added_by_storing", "moved"}
    assert all(torch.equal(column, as_written(finished, name)) for name, column in known.items())
    assert torch.equal(known["index"], torch.arange(N)) and torch.equal(known["label"], torch.arange(N) % 3)


def test_progress_is_told_after_each_shard(finished):
    told = []
    assert not damaged(finished, read_manifest(finished), lambda done, total: told.append((done, total)))
    assert told == [(4, N), (8, N), (10, N)]


# Refusals


def one_bit(shard: Path) -> None:
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)


def cut_short(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:-10])


def another_label(shard: Path) -> None:
    tensors = load_file(shard)
    save_file(tensors | {"y": tensors["y"].flip(0)}, shard)


DAMAGES = [one_bit, cut_short, another_label, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_shard_is_refused_in_one_sentence(finished, damage):
    damage(finished / "shards" / "00001.safetensors")
    assert damaged(finished, read_manifest(finished)) == ["00001.safetensors"]
    with pytest.raises(UserError, match=r"set in .*d_det is damaged \(00001.safetensors\): run its `robustlab construct` again") as caught:
        open_constructed(finished)
    assert "\n" not in str(caught.value)


def test_every_damaged_shard_is_named(finished):
    for shard in finished.glob("shards/*.safetensors"):
        one_bit(shard)
    with pytest.raises(UserError, match=r"\(00000.safetensors, 00001.safetensors, 00002.safetensors\)"):
        open_constructed(finished)


@pytest.mark.parametrize("shards", [0, 1, 3])
def test_an_unfinished_set_is_refused_in_one_sentence(tmp_path, shards):
    questions = iter([False] * shards)
    building = Building(tmp_path / "set", plan())
    building.run(stop=lambda: next(questions, True))
    assert len(list(tmp_path.glob("set/shards/*.json"))) == shards
    (tmp_path / "set" / "shards").mkdir(exist_ok=True)
    assert is_constructed(tmp_path / "set")
    for read in (open_constructed, facts, read_manifest, lambda path: open_dataset(None, path)):
        with pytest.raises(UserError, match="set in .*set is not finished: run the same `robustlab construct` again") as caught:
            read(tmp_path / "set")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", json.dumps({"format": "robustlab-constructed-9"})], ids=repr)
def test_a_manifest_of_something_else_is_refused(finished, content):
    (finished / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest.json .*manifest of a constructed set") as caught:
        open_constructed(finished)
    assert "\n" not in str(caught.value)


def test_what_is_no_shard_is_refused_by_name(finished):
    """A stream opens its shards late; what became of them in the meantime is told then."""
    stream = open_constructed(finished, memory_limit=0)
    (finished / "shards" / "00002.safetensors").write_bytes(b"no shard")
    with pytest.raises(UserError, match="cannot read the shard .*00002.safetensors"):
        stream.fetch(torch.arange(N))
