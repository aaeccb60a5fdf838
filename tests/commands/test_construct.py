"""``robustlab construct``: sets that load back, cards that tell the truth, and work that survives being killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robustlab.commands import settings
from robustlab.commands import train as training
from robustlab.commands.flags import parse
from robustlab.construction import KINDS, kinds
from robustlab.data.catalog import open_dataset
from robustlab.data.constructed import facts, read_manifest
from robustlab.data.imageset import ImageSet
from robustlab.errors import UserError
from robustlab.evaluation import predictions
from robustlab.models.matching import check_fits
from robustlab.models.zoo import build, load
from robustlab.pixels import to_float

LIGHT = ["--device", "cpu", "--threads", "1"]
# Most kinds are made here through a model that they are not meant for, and a set is damaged on purpose.
pytestmark = pytest.mark.filterwarnings("default:.* (needs a|were damaged):UserWarning")
FEW = ["--steps", "4", "--shard-size", "16", "--batch-size", "8", *LIGHT]


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained model of the data's three classes."""
    out = tmp_path_factory.mktemp("runs") / "run"
    words = ["--arch", "mlp", "--epochs", "3", "--batch-size", "16", "--lr", "0.02", "--no-amp", "--no-test", "--workers", "0", *LIGHT]
    training.run(parse(settings.Train, [*words, "--data", str(data), "--out", str(out)], "train"))
    return out / "model.json"


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_built_and_says_what_it_is(call, model: Path, data: Path, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "set"
    told = call("construct", "--kind", kind.lower(), "--model", model, "--data", data, "--out", out, *FEW)
    assert told.code == 0, told.err
    manifest, card = read_manifest(out), (out / "card.md").read_text()
    assert card.startswith(f"# {kind}: 60 images") and card in told.out
    assert manifest["sha256"] in told.out and manifest["sha256"] in card
    with Image.open(out / "contact.png") as sheet:
        assert sheet.width > 3 * 8
    made, source = open_dataset(None, out), open_dataset(None, data)
    assert made.classes == source.classes and len(made) == len(source) == 60
    known = facts(out)
    assert torch.equal(known["label"], source.labels)
    expected = {"D_det": (source.labels + 1) % 3, "D_R": source.labels, "D_NR": source.labels}.get(kind, made.labels)
    assert torch.equal(made.labels, expected)
    taken = predictions(load(model), to_float(made.fetch(torch.arange(60)))) == made.labels
    assert f"{100 * float(taken.double().mean()):.1f} % as stored" in card


def test_a_set_trains_a_model_that_is_tested_on_the_original_images(call, refused, model: Path, data: Path, tmp_path: Path) -> None:
    out, run = tmp_path / "set", tmp_path / "run"
    assert call("construct", "--kind", "D_det", "--model", model, "--data", data, "--store", "uint8", "--out", out, *FEW).code == 0
    words = ["--data", out, "--arch", "mlp", "--epochs", "1", "--batch-size", "16", "--no-amp", "--workers", "0", *LIGHT]
    assert "has no test images" in refused("train", *words, "--out", tmp_path / "other")
    assert call("train", *words, "--test-data", data, "--out", run).code == 0
    record = json.loads((run / "model.json").read_text())
    assert record["n"] == 20 and "clean" in record["accuracies"]


def test_foreign_test_data_are_refused_before_training(refused, data: Path, tmp_path: Path) -> None:
    names = np.array(["red", "green", "violet"])
    np.savez(tmp_path / "test.npz", x=np.zeros((3, 8, 8, 3), np.uint8), y=np.arange(3), classes=names)
    words = ["--data", data, "--test-data", tmp_path, "--arch", "mlp", "--epochs", "1", "--out", tmp_path / "run", *LIGHT]
    assert "unknown class 'blue'" in refused("train", *words)
    assert not (tmp_path / "run").exists()


def test_some_classes_only(call, model: Path, data: Path, tmp_path: Path) -> None:
    """Two of the model's three classes, in another order: targets are the model's outputs of those names."""
    out = tmp_path / "set"
    words = ["--classes", "blue,red", "--limit", "20", "--eps", "2", *FEW]
    assert call("construct", "--kind", "D_det", "--model", model, "--data", data, "--out", out, *words).code == 0
    manifest, known = read_manifest(out), facts(out)
    assert manifest["classes"] == ["blue", "red"] and manifest["n"] == 20
    outputs = torch.tensor([2, 0])
    assert manifest["facts"]["taken_for_label"] == pytest.approx(float((known["predicted"] == outputs[known["y"]]).double().mean()))
    assert manifest["facts"]["taken_for_label"] > 0.5


def test_the_same_command_again_checks_and_mends(call, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    words = ["construct", "--kind", "D_rand", "--model", model, "--data", data, "--out", out, *FEW]
    assert call(*words).code == 0
    digest, shard = read_manifest(out)["sha256"], out / "shards" / "00001.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "is damaged (00001.safetensors)" in call("train", "--data", out, "--out", tmp_path / "run", *LIGHT).err
    told = call(*words)
    assert told.code == 0 and "1 of the shards" in told.err
    assert shard.read_bytes() == whole and read_manifest(out)["sha256"] == digest


def test_other_settings_are_refused_and_named(call, refused, model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    words = ["--model", model, "--data", data, "--out", out, *FEW]
    assert call("construct", "--kind", "D_det", *words).code == 0
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert "construction.eps: 0.5 there, 1.0 here" in refused("construct", "--kind", "D_det", *words, "--eps", "1")
    assert "construction.targets: 'next_class' there, 'random_target' here" in refused("construct", "--kind", "D_rand", *words)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def start(*words: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "robustlab", "construct", *map(str, words)]
    return subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_and_gone_on_with_by_two_processes_it_is_the_same_set(call, model: Path, data: Path, tmp_path: Path) -> None:
    words = ["--kind", "D_R", "--model", model, "--data", data, "--limit", "24", "--steps", "200"]
    words += ["--shard-size", "4", "--batch-size", "2", *LIGHT]
    killed = start(*words, "--out", tmp_path / "killed")
    deadline = time.monotonic() + 100
    while not list((tmp_path / "killed").glob("shards/*.json")):
        assert killed.poll() is None and time.monotonic() < deadline, killed.communicate()
        time.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (tmp_path / "killed" / "manifest.json").exists()
    both = [start(*words, "--out", tmp_path / "killed", RANK=str(rank), WORLD_SIZE="2") for rank in range(2)]
    told: list[Any] = [process.communicate(timeout=400) for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert call("construct", *words, "--out", tmp_path / "whole").code == 0
    first, second = (read_manifest(tmp_path / name) for name in ("killed", "whole"))
    assert first["sha256"] == second["sha256"]
    assert not [path for path in (tmp_path / "killed").rglob(".*")], "locks and temporary files are gone"


# What is wrong


@pytest.mark.parametrize(
    "words, sentence",
    [
        ([], "which set? --kind takes one of: D_rand, D_det, D_R, D_NR"),
        (["--kind", "D_dat"], "unknown kind 'D_dat'. Did you mean 'D_"),
        (["--kind", "D_R"], "through which model?"),
        (["--kind", "D_R", "--model", "{model}", "--eps", "1"], "takes no norm and no eps"),
        (["--kind", "D_R", "--model", "{model}", "--dataset", "shapes", "--limit", "20"], "does not know all classes of shapes"),
        (["--kind", "D_R", "--model", "{model}", "--data", "{data}", "--classes", "red,grean"], "Did you mean 'green'?"),
        (["--kind", "D_R", "--model", "{model}", "--data", "{data}", "--store", "int8"], "invalid choice"),
        (["--kind", "D_R", "--model", "{model}", "--data", "{data}", "--out", "{data}"], "is not an empty folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_sentence(refused, model, data, monkeypatch, tmp_path, words: list[str], sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert sentence in refused("construct", *(word.format(model=model, data=data) for word in words), *LIGHT)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "classes, channels, chosen, sentence",
    [
        (["red", "blue"], 3, True, "m does not name its classes, so that `classes` cannot say which of its outputs are meant"),
        (["red"], 3, False, "the model has 2 unnamed classes, but noise has 1"),
        (["red", "blue"], 1, False, "m wants 3 channels, but the images of noise have 1"),
    ],
)
def test_images_that_do_not_fit_a_model_without_class_names(classes: list[str], channels: int, chosen: bool, sentence: str) -> None:
    nameless = build("mlp", num_classes=2)
    images = ImageSet(torch.zeros(4, channels, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), tuple(classes), "noise")
    with pytest.raises(UserError) as caught:
        check_fits(nameless, images, "m", chosen=chosen)
    assert str(caught.value) == sentence
    check_fits(
        nameless,
        ImageSet(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), ("a", "b"), "noise"),
        "m",
        chosen=False,
    )


def test_a_full_disk_is_told_before_anything_is_written(refused, model, data, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda place: type("Usage", (), {"free": 1000})())
    assert "GB more, but its disk has only" in refused(
        "construct", "--kind", "D_det", "--model", model, "--data", data, "--out", tmp_path / "set", *FEW
    )
    assert not (tmp_path / "set").exists()


def test_the_wrong_kind_of_model_is_warned_about(call, model: Path, data: Path, tmp_path: Path, monkeypatch) -> None:
    """Whether the model counts as robust is moved to either side of what was measured."""
    words = ["--model", model, "--data", data, *FEW]
    for robust, (wrong, right) in ((0.0, ("D_NR", "D_R")), (1.1, ("D_R", "D_NR"))):
        monkeypatch.setattr(kinds, "ROBUST", robust)
        assert f"warning: {wrong} needs" in call("construct", "--kind", wrong, *words, "--out", tmp_path / f"{wrong}{robust}").err
        assert "warning" not in call("construct", "--kind", right, *words, "--out", tmp_path / f"{right}{robust}").err
