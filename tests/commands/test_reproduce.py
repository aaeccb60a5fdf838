"""``robustlab reproduce``: a page, its numbers and its pictures; stopped anywhere it goes on; mistakes are one sentence."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from PIL import Image

from robustlab.errors import UserError
from robustlab.experiments import EXPERIMENTS
from robustlab.experiments.cache import ExperimentCache, NetworkTraining
from robustlab.experiments.claims import configured
from robustlab.experiments.claims import reproduce as run_from_python

LIGHT = ["--device", "cpu", "--threads", "1", "--no-amp"]
Call = Callable[..., Any]


def module(name: str) -> Any:
    return import_module(f"robustlab.experiments.{name.replace('-', '_')}")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_data(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def smallest_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 4x4 pixels, for networks of full size; three batches of 128, so that two steps end no epoch."""
    return tiny.write_data(tmp_path_factory.mktemp("smallest"), train=3 * 128, size=4)


@pytest.fixture(autouse=True)
def tiny_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.add_architectures(monkeypatch)
    for name, config in tiny.CONFIGS.items():
        monkeypatch.setattr(module(name), "Config", lambda config=config: config)


@pytest.fixture
def reproduce(call: Call, images: Path, tmp_path: Path) -> Call:
    def called(name: str, *words: object, out: str = "out") -> Any:
        return call("reproduce", name, "--data", images, "--out", tmp_path / out, *LIGHT, *words)

    return called


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def config(name: str, **flags: Any) -> Any:
    """The configuration that flags make of the small one."""
    return configured(name, "small", flags)


# What comes out


@pytest.mark.parametrize("name", ["two-classes", "regimes"])
def test_the_table_is_printed_and_written_with_numbers_and_pictures(reproduce: Call, tmp_path: Path, name: str) -> None:
    told = reproduce(name)
    assert told.code == 0, told.err
    out = tmp_path / "out"
    assert (out / f"{name}.md").read_text() == told.out and told.out.startswith("## ")
    record = read(out / f"{name}.json")
    assert record["config"]["arch"] == "tiny" and record["config"]["n"] == 140
    assert len(record["found"]["measurements"]) == told.out.count("\n|") - 2
    assert record["environment"]["torch"] and record["seconds_of_the_last_call"] >= 0
    pictures = {"regimes": {"regimes-augmented.png", "regimes-plain.png"}}.get(name, set())
    assert {path.name for path in out.iterdir()} == {f"{name}.md", f"{name}.json", *pictures, "models", "sets", "measurements"}
    for picture in pictures:
        with Image.open(out / picture) as image:
            assert image.format == "PNG"


def test_progress_is_told_on_stderr_alone(reproduce: Call) -> None:
    told = reproduce("data-size")
    assert "training tiny (standard, 1 epochs) on original n 130, 130 images" in told.err
    mine = f" {os.getpid()}] "
    assert mine in told.err and mine not in told.out and "epoch 1/1" not in told.out


def test_the_same_command_again_says_the_same_and_makes_nothing(reproduce: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first = reproduce("robustified")
    found = read(tmp_path / "out" / "robustified.json")["found"]
    work = tiny.count_work(monkeypatch)
    again = reproduce("robustified")
    assert again.out == first.out and again.err == "" and work == tiny.Work()
    assert read(tmp_path / "out" / "robustified.json")["found"] == found


@pytest.mark.parametrize("name, source", [("data-size", "standard"), ("mislabelled", "standard:30")])
def test_full_scale_trains_the_published_network(call: Call, smallest_images: Path, tmp_path: Path, name: str, source: str) -> None:
    """Its own settings, for a step, and gone on with for a second."""
    full = module(name).FULL
    for _ in range(2):
        with pytest.MonkeyPatch.context() as patch:
            tiny.count_work(patch, on_work=lambda work: os.kill(os.getpid(), signal.SIGINT))
            told = call("reproduce", name, "--data", smallest_images, "--out", tmp_path / "out", *LIGHT, "--scale", "full")
        assert told.code == 130, told.err
    (run,) = (tmp_path / "out" / "models").glob("*/last.pt")
    asked = read(run.with_name("settings.json"))["training"]
    checkpoint = torch.load(run, weights_only=True, mmap=True)
    assert checkpoint["arch"] == asked["network"]["arch"] == full.arch == "resnet18"
    assert sum(weight.numel() for weight in checkpoint["model"].values()) > 11 * 10**6
    epochs = 30 if name == "mislabelled" else full.epochs[1]  # of its source; of so few images as many as there may be
    assert (asked["recipe"], asked["optimizing"]["epochs"]) == (source.partition(":")[0], epochs)
    assert (checkpoint["epoch"], checkpoint["step"]) == (0, 2)


def test_a_network_of_full_size_is_kept_in_float32(smallest_images: Path, tmp_path: Path) -> None:
    """Of 44.7 MB, which is more than the project ships of one."""
    cache = ExperimentCache(tmp_path, str(smallest_images))
    trained = cache.trained(cache.images("train", limit=128), NetworkTraining("resnet18", epochs=1), "all")
    (record,) = tmp_path.glob("models/*/model.json")
    assert read(record)["dtype"] == "float32" and record.with_suffix(".safetensors").stat().st_size > 25 * 10**6
    assert trained.arch == "resnet18"


def test_flags_change_the_configuration(reproduce: Call, tmp_path: Path) -> None:
    words = ["--model", "standard:2", "--eps", "0.5", "--limit", "130", "--seeds", "1", "--epochs", "2", "--steps", "2", "--arch", "tiny2"]
    assert reproduce("two-classes", *words).code == 0
    args = {"sources": ["standard:2"], "eps": [0.5], "n": 130, "seeds": 1, "epochs": 2, "steps": 2, "arch": "tiny2"}
    record = read(tmp_path / "out" / "two-classes.json")
    assert record["config"].items() >= args.items()
    (cell,) = record["found"]["measurements"]
    assert (cell["source"], cell["eps"], len(cell["seeds"])) == ("standard:2", 0.5, 1)


@pytest.mark.parametrize(
    "name, flag, field, value",
    [
        ("mislabelled", "model", "source", "a"),
        ("transfer", "model", "source", "a"),
        ("two-classes", "model", "sources", ("a",)),
        ("regimes", "model", "sources", ("a",)),
        ("transfer", "arch", "archs", ("a",)),
        ("mislabelled", "eps", "eps", 0.7),
        ("regimes", "eps", "eps", (0.7,)),
    ],
)
def test_a_flag_sets_one_value_also_where_an_experiment_has_several(name: str, flag: str, field: str, value: Any) -> None:
    before, after = vars(module(name).Config()), vars(config(name, **{flag: value[0] if isinstance(value, tuple) else value}))
    assert {key: after[key] for key in after if after[key] != before[key]} == {field: value}


@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_without_flags_the_configuration_is_the_small_one(name: str) -> None:
    assert config(name) == module(name).Config()


@pytest.mark.parametrize("name", tiny.CONFIGS)
@pytest.mark.parametrize(
    "flag, value", [("limit", 7), ("model", "a"), ("eps", 0.7), ("steps", 7), ("arch", "a"), ("epochs", 7), ("seeds", 7)]
)
def test_each_flag_changes_one_setting_or_is_refused_with_those_there_are(name: str, flag: str, value: Any) -> None:
    before = vars(module(name).Config())
    try:
        after = vars(config(name, **{flag: value}))
    except UserError as error:
        assert f"the experiment {name!r} has no `{flag}`; it has `" in str(error)
    else:
        assert sum(after[key] != before[key] for key in after) == 1


def test_from_python_it_finds_and_writes_the_same(reproduce: Call, images: Path, tmp_path: Path) -> None:
    told = reproduce("data-size", "--seeds", "1")
    said: list[str] = []
    found = run_from_python("data-size", images, out=tmp_path / "python", seeds=1, test=20, device="cpu", bfloat16=False, say=said.append)
    assert (tmp_path / "python" / "data-size.md").read_text() == told.out == "\n\n".join(map(str, found.tables)) + "\n"
    one, other = (read(tmp_path / out / "data-size.json") for out in ("out", "python"))
    assert (one["config"], one["found"]) == (other["config"], other["found"]) and other["found"] == found.numbers
    assert any(text.startswith("training tiny") for text in said)


@pytest.mark.parametrize(
    "name, changes, sentence",
    [
        ("mislabeled", {}, "Did you mean 'mislabelled'"),
        ("mislabelled", {"scale": "medium"}, "unknown scale 'medium'"),
        ("mislabelled", {"learning_rate": 1.0}, "the experiment 'mislabelled' has no `learning_rate`; it has `limit`, `model`"),
    ],
)
def test_a_mistake_in_python_is_told_in_one_sentence(
    images: Path, tmp_path: Path, name: str, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        run_from_python(name, images, out=tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_from_python_any_setting_of_an_experiment_can_be_changed() -> None:
    changed = configured("mislabelled", "full", {"lrs": [0.1], "sets": "D_det", "limit": None})
    assert changed == replace(module("mislabelled").FULL, lrs=(0.1,), sets=("D_det",))


# Stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_anywhere_the_same_command_goes_on_to_the_same_numbers(reproduce: Call, tmp_path: Path, number: int) -> None:
    """A signal at every second step of a training, until nothing is left to do."""
    assert reproduce("data-size", out="whole").code == 0
    codes = []
    while not codes or codes[-1] == 130:
        with pytest.MonkeyPatch.context() as patch:
            tiny.count_work(patch, on_work=lambda work: work.steps == 2 and os.kill(os.getpid(), number))
            told = reproduce("data-size")
        assert told.code in (0, 130) and ("the same command goes on from here" in told.err) == (told.code == 130), told.err
        assert (tmp_path / "out" / "data-size.md").exists() == (told.code == 0)
        codes.append(told.code)
    assert len(codes) > 3
    one, other = (read(tmp_path / out / "data-size.json") for out in ("whole", "out"))
    assert (one["config"], one["found"]) == (other["config"], other["found"])


def test_an_interrupt_leaves_the_handlers_of_signals_as_they_were(reproduce: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    tiny.count_work(monkeypatch, on_work=lambda work: os.kill(os.getpid(), signal.SIGINT))
    assert reproduce("data-size").code == 130
    assert signal.getsignal(signal.SIGINT) is before


# What is wrong


def test_without_an_experiment_all_are_named(refused: Call) -> None:
    said = refused("reproduce")
    assert "which experiment? One of: " in said
    assert all(name in said and what in said for name, what in EXPERIMENTS.items())


def test_an_unknown_experiment_is_told_with_the_nearest(refused: Call, images: Path) -> None:
    assert "unknown experiment 'mislabeled'. Did you mean 'mislabelled'?" in refused("reproduce", "mislabeled", "--data", images)


@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_an_experiment_on_images_needs_them(refused: Call, name: str) -> None:
    assert f"the experiment {name!r} needs images: name their folder or file by --data" in refused("reproduce", name)


@pytest.mark.parametrize(
    "name, words, sentence",
    [
        ("robustified", ["--eps", "1"], "the experiment 'robustified' has no --eps; it has --limit, --steps, --arch, --epochs, --seeds"),
        ("robustified", ["--model", "a"], "has no --model"),
        ("data-size", ["--limit", "9"], "has no --limit"),
        ("data-size", ["--epochs", "9"], "has no --epochs"),
        ("regimes", ["--seeds", "2"], "has no --seeds; it has --limit, --model, --eps, --steps, --arch, --epochs"),
        ("two-classes", ["--data", "nowhere"], "there is nothing at nowhere"),
        ("two-classes", ["--device", "abacus"], "unknown device 'abacus'"),
        ("two-classes", ["--scale", "medium"], "invalid choice: 'medium'"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(refused: Call, images: Path, tmp_path: Path, name: str, words: list[str], sentence: str) -> None:
    assert sentence in refused("reproduce", name, "--data", images, "--out", tmp_path / "out", *LIGHT, *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--model", "standrd:1"], "Did you mean 'standard'?"),
        (["--model", "nowhere.pt"], "there is no checkpoint nowhere.pt"),
        (["--arch", "tyni"], "Did you mean 'tiny'?"),
        (["--limit", "100"], "do not fill one batch of 128"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_name_or_number_that_does_not_work_is_told_where_it_is_met(reproduce: Call, words: list[str], sentence: str) -> None:
    told = reproduce("two-classes", *words)
    assert told.code == 2 and sentence in told.err.splitlines()[-1] and "Traceback" not in told.err
