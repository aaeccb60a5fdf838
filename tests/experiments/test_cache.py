"""The cache: every piece is made once, found again by what it is, shared between processes, and gone on with after a stop."""

from __future__ import annotations

import json
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

from robustlab import load
from robustlab.construction import Relabelled, next_class
from robustlab.data.constructed import read_manifest
from robustlab.data.imageset import Images
from robustlab.errors import UserError
from robustlab.evaluation import Rate
from robustlab.experiments.cache import ExperimentCache, Measurement, NetworkTraining, rate
from robustlab.models.classifier import Classifier

Open = Callable[..., ExperimentCache]
SHORT = NetworkTraining("tiny", epochs=2)
D_DET = Relabelled(next_class, steps=1)


def train(cache: ExperimentCache, training: NetworkTraining = SHORT, name: str = "all") -> Classifier:
    return cache.trained(cache.images("train"), training, name)


def construct(cache: ExperimentCache, construction: Relabelled = D_DET, **options: Any) -> tuple[Images, dict[str, Any]]:
    return cache.constructed(construction, cache.images("train"), cache.source("standard:1", "tiny"), "D_det", **options)


def same_weights(a: Classifier, b: Classifier) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def weights(cache: ExperimentCache) -> bytes:
    """The only network of a cache, as it lies on the disk."""
    (file,) = cache.out.glob("models/*/model.safetensors")
    return file.read_bytes()


# Images


def test_images_are_opened_once_and_limited_with_the_same_share_of_each_class(open_cache: Open) -> None:
    cache = open_cache()
    assert cache.images("train") is cache.images("train", limit=TRAIN) is cache.images("train", limit=10 * TRAIN)
    assert cache.images("train", limit=30).labels.bincount().tolist() == [10, 10, 10]
    assert len(cache.images("test")) == TEST


def test_named_classes_are_numbered_in_the_order_of_their_names(open_cache: Open) -> None:
    pair = open_cache().images("test", ("bird", "dog"), 10)
    assert pair.classes == ("bird", "dog") and pair.labels.bincount().tolist() == [5, 5]


# NetworkTraining


def test_a_network_is_trained_once(open_cache: Open, work: Work) -> None:
    first = train(open_cache())
    again = train(open_cache())
    assert work.trainings == 1 and work.steps == 2 * STEPS
    assert same_weights(first, again) and not again.training and again.classes == ("dog", "cat", "bird")


@pytest.mark.parametrize("steps", range(1, 2 * STEPS + 1))
def test_a_training_stopped_anywhere_goes_on_to_the_same_weights(open_cache: Open, work: Work, steps: int) -> None:
    train(open_cache("whole"))
    stopped = open_cache(stop_after=steps)
    with pytest.raises(KeyboardInterrupt):
        train(stopped)
    train(open_cache())
    assert weights(stopped) == weights(open_cache("whole"))
    assert work.steps == 2 * 2 * STEPS, "no step is taken twice"
    assert not list(stopped.out.rglob("last.pt"))


def test_a_training_killed_within_an_epoch_goes_on_after_the_epoch_before(open_cache: Open, work: Work) -> None:
    train(open_cache("whole"))
    killed = open_cache()
    with pytest.raises(ZeroDivisionError):
        train(replace(killed, say=lambda text: 1 // (not text.startswith("epoch 2"))))
    assert list(killed.out.rglob("last.pt"))
    train(killed)
    assert weights(killed) == weights(open_cache("whole"))
    assert work.steps == (2 + 3) * STEPS


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"lr": 0.05}, {"epochs": 1}, {"augment": False}, {"recipe": "fast-l2"}, {"arch": "tiny2"}], ids=str
)
def test_other_settings_are_another_network(open_cache: Open, work: Work, change: dict[str, Any]) -> None:
    cache = open_cache()
    train(cache)
    train(cache, replace(SHORT, **change))
    train(cache)
    assert work.trainings == 2 and len(list(cache.out.glob("models/*/model.json"))) == 2


def test_other_images_and_another_precision_are_another_network(open_cache: Open, work: Work) -> None:
    train(open_cache())
    train(open_cache(), name="others")
    open_cache().trained(open_cache().images("train", limit=150), SHORT, "all")
    train(open_cache(bfloat16=True))
    assert work.trainings == 4


def test_a_training_that_an_older_version_began_is_begun_anew(open_cache: Open, work: Work) -> None:
    """Its settings were in another form; it ends with the same weights."""
    train(open_cache("whole"))
    with pytest.raises(KeyboardInterrupt):
        train(open_cache(stop_after=1))
    (folder,) = open_cache().out.glob("models/*/")
    (folder / "settings.json").write_text('{"arch": "tiny", "images": "all", "n": 300}')
    train(open_cache())
    assert weights(open_cache()) == weights(open_cache("whole"))
    assert work.steps == (2 + 2) * STEPS + 1


def test_a_training_under_way_can_be_looked_at(open_cache: Open) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(open_cache(stop_after=STEPS + 2))
    (folder,) = open_cache().out.glob("models/*/")
    assert load(folder / "last.pt").arch == "tiny"
    (line,) = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert line["epoch"] == 0 and 0 <= line["train/accuracy"] <= 1


# Sources


def test_a_source_is_trained_here_by_recipe_epochs_and_images(open_cache: Open, work: Work) -> None:
    cache = open_cache()
    some = cache.source("fast-l2:2:150", "tiny")
    assert some.arch == "tiny" and (work.trainings, work.steps) == (1, 2)
    cache.source("fast-l2:2", "tiny")
    assert (work.trainings, work.steps) == (2, 2 + 2 * STEPS)
    cache.source("fast-l2:2:150", "tiny")
    assert work.trainings == 2


def test_a_source_of_all_images_is_the_same_whether_they_are_counted_or_not(open_cache: Open, work: Work) -> None:
    cache = open_cache()
    assert same_weights(cache.source("standard:1", "tiny"), cache.source(f"standard:1:{TRAIN}", "tiny"))
    assert work.trainings == 1


def test_a_source_by_its_released_name_or_path_is_loaded(open_cache: Open, work: Work) -> None:
    released = open_cache().source("cifar10-small-standard", "tiny")
    assert released.arch == "small" and released.num_classes == 10
    made = train(open_cache())
    (path,) = open_cache().out.glob("models/*/model.json")
    assert same_weights(open_cache().source(str(path)), made)
    assert work.trainings == 1


@pytest.mark.parametrize("name, nearest", [("standrd:1", "standard"), ("cifar10-small-standart", "cifar10-small-standard")])
def test_an_unknown_source_is_told_with_the_nearest(open_cache: Open, name: str, nearest: str) -> None:
    with pytest.raises(UserError, match=f"Did you mean '{nearest}'"):
        open_cache().source(name, "tiny")


# Sets


def test_a_set_is_constructed_once(open_cache: Open, work: Work) -> None:
    made, known = construct(open_cache())
    again, same = construct(open_cache())
    assert work.images == TRAIN and known == same
    assert torch.equal(made.fetch(torch.arange(TRAIN)), again.fetch(torch.arange(TRAIN)))
    assert torch.equal(made.labels, (open_cache().images("train").labels + 1) % 3)


def test_a_set_stopped_between_shards_goes_on_to_the_same_bytes(open_cache: Open, work: Work) -> None:
    construct(open_cache("whole"))
    open_cache().source("standard:1", "tiny")
    with pytest.raises(KeyboardInterrupt):
        construct(open_cache(stop_after=2))
    assert not list(open_cache().out.glob("sets/*/manifest.json"))
    construct(open_cache())
    assert work.images == 2 * TRAIN, "the shard that was there is not made again"
    (one,), (other,) = (open_cache(name).out.glob("sets/*") for name in ("whole", "out"))
    assert read_manifest(one)["sha256"] == read_manifest(other)["sha256"]


def test_other_settings_are_another_set(open_cache: Open, work: Work) -> None:
    construct(open_cache())
    construct(open_cache(), replace(D_DET, steps=2))
    construct(open_cache(), seed=1)
    assert work.images == 3 * TRAIN and len(list(open_cache().out.glob("sets/*"))) == 3


# Cells


def measurements(measure: Callable[[str], dict[str, Any]], names: str, **settings: Any) -> list[Measurement]:
    return [Measurement(name, settings, lambda name=name: measure(name)) for name in names]


def test_cells_are_measured_in_order_and_read_back(open_cache: Open) -> None:
    seen: list[str] = []

    def measure(name: str) -> dict[str, Any]:
        seen.append(name)
        return {"here": name, "after": len(seen)}

    found = open_cache().measured("some", measurements(measure, "bac"))
    assert seen == ["b", "a", "c"] == [f["here"] for f in found]
    assert open_cache().measured("some", measurements(measure, "cab")) == [found[2], found[1], found[0]]
    assert len(seen) == 3, "read, not measured again"


def test_a_cell_is_known_by_experiment_name_and_settings(open_cache: Open) -> None:
    seen: list[str] = []
    for experiment, name, settings in [("x", "a", {"n": 1}), ("x", "a", {"n": 2}), ("x", "b", {"n": 1}), ("y", "a", {"n": 1})] * 2:
        open_cache().measured(experiment, measurements(lambda name: {"before": seen.append(name)}, name, **settings))
    assert seen == ["a", "a", "b", "a"]


def test_long_names_with_odd_characters_are_file_names_that_differ(open_cache: Open, tmp_path: Path) -> None:
    for source in ("../../a", "..", "a/b:c*?", "x" * 500 + "a", "x" * 500 + "b"):
        open_cache().measured("some", measurements(lambda name: {}, "a", source=source))
        open_cache().measured("some", [Measurement(source, {"source": source}, dict)])
    (cells_folder,) = (tmp_path / "out").iterdir()
    assert len(list(cells_folder.iterdir())) == 10 and {path.name for path in tmp_path.iterdir()} == {"out"}


def test_a_stop_before_a_cell_keeps_those_before_it(open_cache: Open) -> None:
    seen: list[str] = []
    some = measurements(lambda name: {"before": seen.append(name)}, "abc")
    with pytest.raises(KeyboardInterrupt):
        open_cache(stop_after=3).measured("some", some)
    assert seen == ["a", "b"]
    open_cache().measured("some", some)
    assert seen == ["a", "b", "c"]


def test_a_cell_that_failed_is_measured_again(open_cache: Open) -> None:
    with pytest.raises(ZeroDivisionError):
        open_cache().measured("some", measurements(lambda name: {"value": 1 / 0}, "a"))
    assert open_cache().measured("some", measurements(lambda name: {"value": 1}, "a")) == [{"value": 1}]


def test_a_number_that_json_does_not_hold_is_no_measurement(open_cache: Open) -> None:
    with pytest.raises(ValueError):
        open_cache().measured("some", measurements(lambda name: {"value": float("nan")}, "a"))
    assert not list(open_cache().out.glob("measurements/*.json"))


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


def test_two_caches_on_one_folder_share_the_measurements(open_cache: Open) -> None:
    """A cell of the first two ends only when the other one has begun, so each must be measured by a cache of its own."""
    seen: list[str] = []
    begun = threading.Barrier(2, timeout=30)

    def measure(name: str) -> dict[str, Any]:
        seen.append(name)
        if name in "ab":
            begun.wait()
        return {"here": name}

    one, other = both(lambda: open_cache().measured("some", measurements(measure, "abcd")))
    assert one == other == [{"here": name} for name in "abcd"]
    assert sorted(seen) == list("abcd")
    assert not list(open_cache().out.rglob("*.lock"))


def test_two_caches_that_want_one_network_train_it_once(open_cache: Open, work: Work) -> None:
    one, other = both(lambda: train(open_cache()))
    assert work.trainings == 1 and same_weights(one, other)


def test_other_data_or_precision_is_measured_anew(tmp_path: Path) -> None:
    """In the same folder, under the same name."""
    measured = []
    for n, bfloat16 in ((0, False), (0, True), (1, False), (0, False)):
        data = tiny.write_data(tmp_path / f"data{n}")
        if n:
            with np.load(data / "train.npz") as old:
                np.savez(data / "train.npz", x=255 - old["x"], y=old["y"], classes=old["classes"])
        cache = ExperimentCache(tmp_path / "out", str(data), bfloat16=bfloat16)
        cache.measured("law", [Measurement("one", {}, lambda: measured.append(0) or {})])
    assert len(measured) == 3
