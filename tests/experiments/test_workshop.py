"""The workshop: every piece is made once, found again by what it is, shared between processes, and gone on with after a stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from tiny import STEPS, TEST, TRAIN, Work

from robustlab.construction import Relabelled, following
from robustlab.data.constructed import read_manifest
from robustlab.data.imageset import Images
from robustlab.errors import UserError
from robustlab.evaluation import Rate
from robustlab.experiments.workshop import Cell, Training, Workshop, rate
from robustlab.models.classifier import Classifier

Open = Callable[..., Workshop]
SHORT = Training("tiny", epochs=2)
D_DET = Relabelled(following, steps=1)


def train(workshop: Workshop, training: Training = SHORT, name: str = "all") -> Classifier:
    return workshop.trained(workshop.images("train"), training, name)


def construct(workshop: Workshop, construction: Relabelled = D_DET, **options: Any) -> tuple[Images, dict[str, Any]]:
    return workshop.constructed(construction, workshop.images("train"), workshop.source("standard:1", "tiny"), "D_det", **options)


def same_weights(a: Classifier, b: Classifier) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def weights(workshop: Workshop) -> bytes:
    """The only network of a workshop, as it lies on the disk."""
    (file,) = workshop.out.glob("models/*/model.safetensors")
    return file.read_bytes()


# Images


def test_images_are_opened_once_and_limited_with_the_same_share_of_each_class(open_workshop: Open) -> None:
    workshop = open_workshop()
    assert workshop.images("train") is workshop.images("train", limit=TRAIN) is workshop.images("train", limit=10 * TRAIN)
    assert workshop.images("train", limit=30).labels.bincount().tolist() == [10, 10, 10]
    assert len(workshop.images("test")) == TEST


def test_named_classes_are_numbered_in_the_order_of_their_names(open_workshop: Open) -> None:
    pair = open_workshop().images("test", ("bird", "dog"), 10)
    assert pair.classes == ("bird", "dog") and pair.labels.bincount().tolist() == [5, 5]


# Training


def test_a_network_is_trained_once(open_workshop: Open, work: Work) -> None:
    first = train(open_workshop())
    again = train(open_workshop())
    assert work.trainings == 1 and work.steps == 2 * STEPS
    assert same_weights(first, again) and not again.training and again.classes == ("dog", "cat", "bird")


@pytest.mark.parametrize("steps", range(1, 2 * STEPS + 1))
def test_a_training_stopped_anywhere_goes_on_to_the_same_weights(open_workshop: Open, work: Work, steps: int) -> None:
    train(open_workshop("whole"))
    stopped = open_workshop(stop_after=steps)
    with pytest.raises(KeyboardInterrupt):
        train(stopped)
    train(open_workshop())
    assert weights(stopped) == weights(open_workshop("whole"))
    assert work.steps == 2 * 2 * STEPS, "no step is taken twice"
    assert not list(stopped.out.rglob("last.pt"))


def test_a_training_killed_within_an_epoch_goes_on_after_the_epoch_before(open_workshop: Open, work: Work) -> None:
    train(open_workshop("whole"))
    killed = open_workshop()
    with pytest.raises(ZeroDivisionError):
        train(replace(killed, say=lambda text: 1 // (not text.startswith("epoch 2"))))
    assert list(killed.out.rglob("last.pt"))
    train(killed)
    assert weights(killed) == weights(open_workshop("whole"))
    assert work.steps == (2 + 3) * STEPS


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"lr": 0.05}, {"epochs": 1}, {"augment": False}, {"recipe": "fast-l2"}, {"arch": "tiny2"}], ids=str
)
def test_other_settings_are_another_network(open_workshop: Open, work: Work, change: dict[str, Any]) -> None:
    workshop = open_workshop()
    train(workshop)
    train(workshop, replace(SHORT, **change))
    train(workshop)
    assert work.trainings == 2 and len(list(workshop.out.glob("models/*/model.json"))) == 2


def test_other_images_and_another_precision_are_another_network(open_workshop: Open, work: Work) -> None:
    train(open_workshop())
    train(open_workshop(), name="others")
    open_workshop().trained(open_workshop().images("train", limit=150), SHORT, "all")
    train(open_workshop(bfloat16=True))
    assert work.trainings == 4


# Sources


def test_a_source_is_trained_here_by_recipe_epochs_and_images(open_workshop: Open, work: Work) -> None:
    workshop = open_workshop()
    some = workshop.source("fast-l2:2:150", "tiny")
    assert some.arch == "tiny" and (work.trainings, work.steps) == (1, 2)
    workshop.source("fast-l2:2", "tiny")
    assert (work.trainings, work.steps) == (2, 2 + 2 * STEPS)
    workshop.source("fast-l2:2:150", "tiny")
    assert work.trainings == 2


def test_a_source_of_all_images_is_the_same_whether_they_are_counted_or_not(open_workshop: Open, work: Work) -> None:
    workshop = open_workshop()
    assert same_weights(workshop.source("standard:1", "tiny"), workshop.source(f"standard:1:{TRAIN}", "tiny"))
    assert work.trainings == 1


def test_a_source_by_its_released_name_or_path_is_loaded(open_workshop: Open, work: Work) -> None:
    released = open_workshop().source("cifar10-small-standard", "tiny")
    assert released.arch == "small" and released.num_classes == 10
    made = train(open_workshop())
    (path,) = open_workshop().out.glob("models/*/model.json")
    assert same_weights(open_workshop().source(str(path)), made)
    assert work.trainings == 1


@pytest.mark.parametrize("name, nearest", [("standrd:1", "standard"), ("cifar10-small-standart", "cifar10-small-standard")])
def test_an_unknown_source_is_told_with_the_nearest(open_workshop: Open, name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"Did you mean '{nearest}'"):
        open_workshop().source(name, "tiny")


# Sets


def test_a_set_is_constructed_once(open_workshop: Open, work: Work) -> None:
    made, known = construct(open_workshop())
    again, same = construct(open_workshop())
    assert work.images == TRAIN and known == same
    assert torch.equal(made.fetch(torch.arange(TRAIN)), again.fetch(torch.arange(TRAIN)))
    assert torch.equal(made.labels, (open_workshop().images("train").labels + 1) % 3)


def test_a_set_stopped_between_shards_goes_on_to_the_same_bytes(open_workshop: Open, work: Work) -> None:
    construct(open_workshop("whole"))
    open_workshop().source("standard:1", "tiny")
    with pytest.raises(KeyboardInterrupt):
        construct(open_workshop(stop_after=2))
    assert not list(open_workshop().out.glob("sets/*/manifest.json"))
    construct(open_workshop())
    assert work.images == 2 * TRAIN, "the shard that was there is not made again"
    (one,), (other,) = (open_workshop(name).out.glob("sets/*") for name in ("whole", "out"))
    assert read_manifest(one)["sha256"] == read_manifest(other)["sha256"]


def test_other_settings_are_another_set(open_workshop: Open, work: Work) -> None:
    construct(open_workshop())
    construct(open_workshop(), replace(D_DET, steps=2))
    construct(open_workshop(), seed=1)
    assert work.images == 3 * TRAIN and len(list(open_workshop().out.glob("sets/*"))) == 3


# Cells


def cells(measure: Callable[[str], dict[str, Any]], names: str, **settings: Any) -> list[Cell]:
    return [Cell(name, settings, lambda name=name: measure(name)) for name in names]


def test_cells_are_measured_in_order_and_read_back(open_workshop: Open) -> None:
    seen: list[str] = []

    def measure(name: str) -> dict[str, Any]:
        seen.append(name)
        return {"here": name, "after": len(seen)}

    found = open_workshop().measured("some", cells(measure, "bac"))
    assert seen == ["b", "a", "c"] == [f["here"] for f in found]
    assert open_workshop().measured("some", cells(measure, "cab")) == [found[2], found[1], found[0]]
    assert len(seen) == 3, "read, not measured again"


def test_a_cell_is_known_by_experiment_name_and_settings(open_workshop: Open) -> None:
    seen: list[str] = []
    for experiment, name, settings in [("x", "a", {"n": 1}), ("x", "a", {"n": 2}), ("x", "b", {"n": 1}), ("y", "a", {"n": 1})] * 2:
        open_workshop().measured(experiment, cells(lambda name: {"before": seen.append(name)}, name, **settings))
    assert seen == ["a", "a", "b", "a"]


def test_long_names_with_odd_characters_are_file_names_that_differ(open_workshop: Open, tmp_path: Path) -> None:
    for source in ("../../a", "..", "a/b:c*?", "x" * 500 + "a", "x" * 500 + "b"):
        open_workshop().measured("some", cells(lambda name: {}, "a", source=source))
        open_workshop().measured("some", [Cell(source, {"source": source}, dict)])
    (cells_folder,) = (tmp_path / "out").iterdir()
    assert len(list(cells_folder.iterdir())) == 10 and {path.name for path in tmp_path.iterdir()} == {"out"}


def test_a_stop_before_a_cell_keeps_those_before_it(open_workshop: Open) -> None:
    seen: list[str] = []
    some = cells(lambda name: {"before": seen.append(name)}, "abc")
    with pytest.raises(KeyboardInterrupt):
        open_workshop(stop_after=3).measured("some", some)
    assert seen == ["a", "b"]
    open_workshop().measured("some", some)
    assert seen == ["a", "b", "c"]


def test_a_cell_that_failed_is_measured_again(open_workshop: Open) -> None:
    with pytest.raises(ZeroDivisionError):
        open_workshop().measured("some", cells(lambda name: {"value": 1 / 0}, "a"))
    assert open_workshop().measured("some", cells(lambda name: {"value": 1}, "a")) == [{"value": 1}]


def test_a_number_that_json_does_not_hold_is_no_measurement(open_workshop: Open) -> None:
    with pytest.raises(ValueError):
        open_workshop().measured("some", cells(lambda name: {"value": float("nan")}, "a"))
    assert not list(open_workshop().out.glob("cells/*.json"))


def test_a_rate_is_kept_as_its_counts() -> None:
    assert Rate(**rate(Rate(3, 7))) == Rate(3, 7)


# Two at once


def both(work: Callable[[], Any]) -> list[Any]:
    """What two threads got that worked at the same time."""
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(work())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    return found


def test_two_workshops_on_one_folder_share_the_cells(open_workshop: Open) -> None:
    """A cell of the first two ends only when the other one has begun, so each must be measured by a workshop of its own."""
    seen: list[str] = []
    begun = threading.Barrier(2, timeout=30)

    def measure(name: str) -> dict[str, Any]:
        seen.append(name)
        if name in "ab":
            begun.wait()
        return {"here": name}

    one, other = both(lambda: open_workshop().measured("some", cells(measure, "abcd")))
    assert one == other == [{"here": name} for name in "abcd"]
    assert sorted(seen) == list("abcd")
    assert not list(open_workshop().out.rglob("*.lock"))


def test_two_workshops_that_want_one_network_train_it_once(open_workshop: Open, work: Work) -> None:
    one, other = both(lambda: train(open_workshop()))
    assert work.trainings == 1 and same_weights(one, other)


def test_other_data_or_precision_is_measured_anew(tmp_path: Path) -> None:
    """In the same folder, under the same name."""
    measured = []
    for n, bfloat16 in ((0, False), (0, True), (1, False), (0, False)):
        data = tiny.write_data(tmp_path / f"data{n}")
        if n:
            with np.load(data / "train.npz") as old:
                np.savez(data / "train.npz", x=255 - old["x"], y=old["y"], classes=old["classes"])
        workshop = Workshop(tmp_path / "out", str(data), bfloat16=bfloat16)
        workshop.measured("law", [Cell("one", {}, lambda: measured.append(0) or {})])
    assert len(measured) == 3
