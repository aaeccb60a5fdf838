"""An image's place in the whole split is its identity: whatever is chosen of a set, it keeps its number, its draws and its file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import seeded
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.data import Batches, ImageSet, as_batches, as_images, open_dataset
from robustlab.data.constructed import ShardStream
from robustlab.data.imageset import files_of, hold_out, positions_of
from robustlab.evaluation import evaluate
from robustlab.evaluation.accuracy import Record
from robustlab.norms import L2

N = 24
PIXELS = torch.randint(0, 256, (N, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N) % 3
NAMES = ("ant", "bee", "cat")


def folder(root: Path) -> Path:
    for split in ("train", "test"):
        for i in range(N):
            path = root / split / NAMES[int(LABELS[i])] / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(PIXELS[i].permute(1, 2, 0).numpy()).save(path)
    return root


def shards(root: Path) -> ShardStream:
    from safetensors.torch import save_file

    save_file({"x": PIXELS, "y": LABELS}, root / "0.safetensors")
    return ShardStream((str(root / "0.safetensors"),), torch.tensor([N]), torch.arange(N), LABELS, NAMES, "made", (3, 8, 8), torch.uint8)


SETS: dict[str, Callable[[Path], Any]] = {
    "memory": lambda _: ImageSet(PIXELS, LABELS, NAMES, "mine"),
    "folder": lambda root: open_dataset(None, folder(root), "test"),
    "stream": lambda root: open_dataset(None, folder(root), "test", memory_limit=0),
    "shards": shards,
    "dataset": lambda _: as_images(Subset(TensorDataset(PIXELS, LABELS), range(N)), classes=NAMES),
}
every_set = pytest.mark.parametrize("make", SETS.values(), ids=SETS.keys())


@every_set
def test_places_follow_every_choice(tmp_path, make):
    images = make(tmp_path)
    pixels = {int(place): images.fetch(torch.tensor([i])) for i, place in enumerate(positions_of(images))}
    assert positions_of(images).tolist() == list(range(N))
    chosen = images
    for choose in (
        lambda some: some.subset(torch.tensor([20, 3, 3, 11, 17, 8, 2, 14])),
        lambda some: some.only_classes(["cat", "bee"]),
        lambda some: some.subset(torch.arange(len(some)).flip(0)),
        lambda some: some.subset(hold_out(some, 3, 0)[1]),
    ):
        chosen = choose(chosen)
        places = positions_of(chosen)
        assert len(places) == len(chosen) > 1 and places.dtype == torch.int64
        for i, place in enumerate(places.tolist()):
            assert torch.equal(chosen.fetch(torch.tensor([i])), pixels[place])
            assert chosen.classes[int(chosen.labels[i])] == images.classes[int(images.labels[place])]
        if files_of(images) is not None:
            assert files_of(chosen) == tuple(files_of(images)[place] for place in places.tolist())


def test_a_part_that_is_cut_off_is_a_split_of_its_own(tmp_path):
    """Data without parts: the tenth for testing is counted from 0, as a folder ``test/`` would be."""
    np.savez(tmp_path / "a.npz", x=np.zeros((60, 4, 4, 3), np.uint8), y=np.arange(60) % 3)
    for split, n in (("train", 54), ("test", 6)):
        assert positions_of(open_dataset(None, tmp_path / "a.npz", split)).tolist() == list(range(n))
    few = open_dataset(None, tmp_path / "a.npz", "train", limit=6)
    whole = open_dataset(None, tmp_path / "a.npz", "train")
    assert positions_of(few).tolist() == hold_out(whole, 6, 0)[1].tolist() != list(range(6))


class Fickle(nn.Module):
    """Whose answers under attack depend on the start that was drawn."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)


ATTACK = PGD(ThreatModel(L2(), 0.5), steps=2)


def by_place(records: tuple[Record, ...]) -> dict[int, tuple[Any, ...]]:
    return {
        r.index: (r.label, r.prediction, r.file, {k: (v.prediction, round(v.distance, 5)) for k, v in r.attacks.items()}) for r in records
    }


@every_set
def test_a_record_is_the_same_whether_all_or_some_are_evaluated(tmp_path, make):
    images, model = make(tmp_path), Fickle()
    whole = by_place(evaluate(model, images, ATTACK, batch_size=5, progress=False).records)
    for some in (images.subset(torch.tensor([22, 3, 17, 4])), images.subset(hold_out(images, 7, 1)[1])):
        few = by_place(evaluate(model, some, ATTACK, progress=False).records)
        assert set(few) == set(positions_of(some).tolist()) and few == {place: whole[place] for place in few}


def test_with_limit_the_records_of_a_command_name_the_images_and_their_files(tmp_path):
    root = folder(tmp_path)
    records = evaluate(Fickle(), open_dataset(None, root, "test", limit=6), progress=False).records
    everything = open_dataset(None, root, "test")
    assert [r.index for r in records] != list(range(6))
    for record in records:
        assert record.file == files_of(everything)[record.index] and record.file.startswith("test/")
        assert list(record.to_json())[:2] == ["index", "file"] and (root / record.file).is_file()


def test_adversarial_images_name_the_files_that_they_come_from(tmp_path):
    root = folder(tmp_path)
    everything = open_dataset(None, root, "test")
    report = evaluate(Fickle(), open_dataset(None, root, "test", limit=9), ATTACK, batch_size=4, keep=True, progress=False)
    (kept,) = report.adversarial.values()
    assert len(kept) and kept.sources == tuple(files_of(everything)[i] for i in kept.index.tolist())
    assert [record["source"] for record in kept.records()] == list(kept.sources)
    (without,) = evaluate(Fickle(), ImageSet(PIXELS, LABELS, NAMES, "mine"), ATTACK, keep=True, progress=False).adversarial.values()
    assert without.sources == () and all("source" not in record for record in without.records())


def test_without_a_choice_the_draws_are_those_of_the_place_in_the_set():
    images = ImageSet(PIXELS, LABELS, NAMES, "mine")
    for one, other in zip(as_batches(images, batch_size=7), Batches(images, 7).epoch(0), strict=True):
        assert torch.equal(one.keys, other.keys) and torch.equal(one.index, other.index)


@pytest.mark.parametrize("workers", [0, 1])
def test_in_training_the_images_that_are_trained_on_are_counted(workers):
    some = ImageSet(PIXELS, LABELS, NAMES, "mine").subset(torch.tensor([5, 9, 2]))
    batch = next(iter(Batches(some, 3, workers=workers).epoch(0)))
    assert batch.index.tolist() == [0, 1, 2]


INDICES = st.lists(st.integers(-N, N - 1), min_size=1, max_size=12)


@seeded
@given(INDICES, st.data())
def test_a_subset_of_torch_s_is_counted_in_the_dataset_behind_it(indices, data):
    behind = TensorDataset(PIXELS, LABELS)
    inner = data.draw(st.lists(st.integers(0, len(indices) - 1), min_size=1, max_size=6))
    for subset, places in (
        (Subset(behind, indices), [i % N for i in indices]),
        (Subset(Subset(behind, indices), inner), [indices[i] % N for i in inner]),
    ):
        everything = torch.cat([batch.keys for batch in as_batches((PIXELS, LABELS))])
        for given_as in (subset, DataLoader(subset, batch_size=4), as_images(subset, classes=NAMES)):
            batches = list(as_batches(given_as, batch_size=5))
            assert torch.cat([batch.index for batch in batches]).tolist() == places
            assert torch.equal(torch.cat([batch.keys for batch in batches]), everything[places])
