"""Nothing that a person receives runs code: not a run folder, a set, a cache, a replay file, arrays or tensors, whatever they say of trust.

In every file of every folder that the project reads a pickle is planted that would leave a mark; every command reads them.
"""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustlab import load, training
from robustlab.commands import main
from robustlab.data.catalog import open_dataset
from robustlab.errors import UserError

LIGHT = ["--device", "cpu", "--threads", "1"]
TRAINING = ["--arch", "mlp", "--epochs", "2", "--batch-size", "16", "--no-test", "--workers", "0", *LIGHT]
FORMS = ("pickle", "torch", "old torch", "npz")


class Plant:
    """What leaves a mark while it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def plant(path: Path, mark: Path, form: str) -> None:
    """A pickle in place of a file, in a form that some reader takes."""
    content = {"format": "robustlab-training-1", "model": Plant(mark), "state_dict": Plant(mark)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    elif form == "npz":
        with open(path, "wb") as file:
            np.savez(file, x=np.array([Plant(mark)], dtype=object), y=np.array([Plant(mark)], dtype=object))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")


# The network is hardly trained, and says so.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:D_det needs a standard model"),
    pytest.mark.filterwarnings("ignore:.*were damaged"),
]


@pytest.fixture(scope="module")
def received(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each kind, as another person may have sent it."""
    here = tmp_path_factory.mktemp("received")
    run, few = here / "run", ["--data", str(data), *LIGHT]
    assert main(["train", *TRAINING, "--data", str(data), "--out", str(run)]) == 0
    model = ["--model", str(run / "model.json")]
    made = ["construct", "--kind", "D_det", "--norm", "l2", "--eps", "0.5", "--steps", "1", *model, *few, "--limit", "12"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "D_det needs a standard model")
        assert main([*made, "--shard-size", "6", "--out", str(here / "set")]) == 0
    for layout in ("released", "npz"):
        assert main(["export", "--data", str(data), "--format", layout, "--out", str(here / layout)]) == 0
    sheet = ["synthesize", "translate", *model, *few, "--images", "2", "--steps", "1"]
    assert main([*sheet, "--grid", str(here / "replay" / "grid.png")]) == 0
    return here


def commands(here: Path, data: Path, out: Path) -> dict[str, list[list[object]]]:
    """What reads each of the received folders."""
    model, few = ["--model", here / "run" / "model.json"], ["--data", data, *LIGHT]
    light = [*LIGHT, "--workers", "0"]
    read: dict[str, list[list[object]]] = {
        "run": [
            ["train", "--resume", here / "run", *LIGHT],
            ["evaluate", "--model", here / "run", *few, "--workers", "0", "--steps", "1"],
            *([["evaluate", "--model", here / "run" / name, *few, "--workers", "0", "--steps", "1"] for name in ("best.pt", "last.pt")]),
            ["train", *TRAINING, "--init", here / "run" / "best.pt", "--data", data, "--out", out / "init"],
            [
                "construct",
                "--kind",
                "D_det",
                "--steps",
                "1",
                "--model",
                here / "run" / "best.pt",
                *few,
                "--limit",
                "6",
                "--out",
                out / "made",
            ],
            ["synthesize", "gradients", "--model", here / "run" / "best.pt", *few, "--images", "1", "--grid", out / "g.png"],
        ],
        "set": [
            ["train", *TRAINING, "--data", here / "set", "--val-size", "0", "--batch-size", "4", "--out", out / "on-set"],
            [
                "construct",
                "--kind",
                "D_det",
                "--norm",
                "l2",
                "--eps",
                "0.5",
                "--steps",
                "1",
                *model,
                *few,
                "--limit",
                "12",
                "--shard-size",
                "6",
            ]
            + ["--out", here / "set"],
        ],
        "replay": [["synthesize", "--replay", here / "replay" / "grid.json", "--data", data, *LIGHT, "--grid", out / "again.png"]],
        "released": [["train", *TRAINING, "--data", here / "released", "--out", out / "on-released"]],
        "npz": [["evaluate", *model, "--data", here / "npz", *light, "--split", "train", "--steps", "1"]],
    }
    return read


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["run", "set", "replay", "released", "npz"])
def test_a_pickle_in_any_file_of_a_received_folder_runs_nothing(call, received: Path, data, tmp_path: Path, kind: str, form: str) -> None:
    mark, here = tmp_path / "mark", tmp_path / "here"
    names = sorted(
        str(path.relative_to(received)) for path in (received / kind).rglob("*") if path.is_file() and "tensorboard" not in path.parts
    )
    assert names
    for number, name in enumerate(names):
        shutil.copytree(received, here)
        plant(here / name, mark, form)
        for words in commands(here, data, tmp_path / str(number))[kind]:
            told = call(*words)
            assert told.code in (0, 2) and "Traceback" not in told.err, (name, words, told)
            assert not mark.exists(), (name, words)
        shutil.rmtree(here)


@pytest.mark.parametrize("form", FORMS)
def test_a_pickle_in_any_file_of_an_experiments_cache_runs_nothing(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiny

    from robustlab.experiments.cache import ExperimentCache, Measurement, NetworkTraining

    tiny.add_architectures(monkeypatch)
    data, mark = tiny.write_data(tmp_path / "data"), tmp_path / "mark"

    def work(out: Path) -> Any:
        cache = ExperimentCache(out, str(data))
        network = cache.trained(cache.images("train"), NetworkTraining("tiny", epochs=1), "original")
        return network, cache.measured("one", [Measurement("a", {"n": 1}, lambda: {"value": 1})])

    work(tmp_path / "whole")
    for path in sorted(path for path in (tmp_path / "whole").rglob("*") if path.is_file() and "tensorboard" not in path.parts):
        shutil.copytree(tmp_path / "whole", tmp_path / "copy")
        plant(tmp_path / "copy" / path.relative_to(tmp_path / "whole"), mark, form)
        try:
            work(tmp_path / "copy")
        except UserError:
            pass
        assert not mark.exists(), path
        shutil.rmtree(tmp_path / "copy")


def hostile(run: Path, mark: Path) -> Path:
    """A run that was killed before its first checkpoint, began with weights that run code, and says that they are trusted."""
    found = json.loads((run / "settings.json").read_text())
    plant(run / "theirs.pt", mark, "torch")
    found["training"]["network"] |= {"init": str(run / "theirs.pt"), "trust_checkpoint": True}
    (run / "settings.json").write_text(json.dumps(found))
    for name in ("last.pt", "best.pt", "metrics.jsonl", "model.json", "model.safetensors"):
        (run / name).unlink(missing_ok=True)
    return run


def test_a_run_that_trusts_its_own_files_is_not_believed(call, received: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(received / "run", tmp_path / "run")
    mark, run = tmp_path / "mark", hostile(tmp_path / "run", tmp_path / "mark")
    told = call("train", "--resume", run)
    assert told.code == 2 and "would run code when read" in told.err and not mark.exists()
    with pytest.raises(UserError, match="would run code when read"):
        training.train(open_dataset(None, data, "train"), out=run, resume=True, device="cpu", progress=False)
    assert not mark.exists()
    told = call("train", "--resume", run, "--trust-checkpoint")
    assert told.code == 2 and mark.exists(), "it is for the caller to say"


def test_a_file_of_settings_cannot_give_trust(refused: Callable[..., str], received: Path, data: Path, tmp_path: Path) -> None:
    mark, config = tmp_path / "mark", tmp_path / "c.toml"
    plant(tmp_path / "theirs.pt", mark, "torch")
    config.write_text("trust_checkpoint = true\n")
    for words in (
        ["train", *TRAINING, "--init", tmp_path / "theirs.pt", "--data", data, "--out", tmp_path / "out"],
        ["evaluate", "--model", tmp_path / "theirs.pt", "--data", data, *LIGHT],
    ):
        said = refused(*words, "--config", config)
        assert "trust_checkpoint cannot stand in a file" in said and "--trust-checkpoint" in said
    assert not mark.exists()


def test_what_a_run_writes_says_nothing_of_trust(call, received: Path, data: Path, tmp_path: Path) -> None:
    torch.save({"state_dict": dict(load(received / "run").state_dict())}, tmp_path / "theirs.pt")
    words = [*TRAINING, "--init", tmp_path / "theirs.pt", "--mean", "0.4,0.4,0.4", "--std", "0.2,0.2,0.2", "--trust-checkpoint"]
    assert call("train", *words, "--data", data, "--out", tmp_path / "run").code == 0
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["training"]["network"]["trust_checkpoint"] is False
    assert call("train", "--resume", tmp_path / "run").code == 0
