"""A folder that somebody sent runs no code, whatever its own settings say: trust is given by the call that reads it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustlab.data.catalog import open_dataset
from robustlab.errors import UserError
from robustlab.models.zoo import load
from robustlab.training.run import train

SHAPES = ["--dataset", "shapes", "--limit", "40", "--device", "cpu", "--threads", "1"]


class Planted:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trust") / "run"
    images = open_dataset("shapes", limit=40)
    train(images, arch="mlp", epochs=1, batch_size=16, val_size=0, out=out, device="cpu", progress=False)
    return out


@pytest.fixture
def received(run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A run folder with a planted pickle in every checkpoint, whose settings say that it is trusted; and what the pickle would make."""
    folder, mark = tmp_path / "received", tmp_path / "it ran"
    shutil.copytree(run, folder)
    for name in ("best.pt", "last.pt"):
        torch.save({"format": "robustlab-training-1", "model": Planted(mark), "state_dict": Planted(mark)}, folder / name)
    settings = folder / "settings.json"
    settings.write_text(settings.read_text().replace('"trust_checkpoint": false', '"trust_checkpoint": true'))
    assert '"trust_checkpoint": true' in settings.read_text()
    (folder / "model.json").unlink()
    (folder / "model.safetensors").unlink()
    return folder, mark


COMMANDS = {
    "evaluate": ["--model", "{}/best.pt", *SHAPES],
    "construct": ["--kind", "D_det", "--model", "{}/last.pt", "--steps", "1", "--out", "{}/set", *SHAPES],
    "synthesize": ["translate", "--model", "{}/best.pt", "--images", "2", "--grid", "{}/sheet.png", *SHAPES],
    "train": ["--init", "{}/best.pt", "--epochs", "1", "--out", "{}/new", *SHAPES],
    "demo": ["--model", "{}/best.pt", "--port", "0"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_what_a_received_folder_brings(refused: Callable[..., str], received: tuple[Path, Path], command: str) -> None:
    folder, mark = received
    said = refused(command, *(word.format(folder) for word in COMMANDS[command]))
    assert "would run code when read" in said and "mkdir" in said
    assert not mark.exists()


def test_neither_does_going_on_with_it(received: tuple[Path, Path]) -> None:
    folder, mark = received
    with pytest.raises(UserError, match="would run code when read"):
        train(open_dataset("shapes", limit=40), out=folder, resume=True, device="cpu", progress=False)
    for name in ("best.pt", "last.pt"):
        with pytest.raises(UserError, match="would run code when read"):
            load(folder / name)
    assert not mark.exists()


@pytest.mark.parametrize("ending", ["npz", "pt"])
def test_data_run_no_code_either(refused: Callable[..., str], received: tuple[Path, Path], tmp_path: Path, ending: str) -> None:
    _, mark = received
    place = tmp_path / "data"
    place.mkdir()
    if ending == "npz":
        np.savez(place / "train.npz", x=np.array([Planted(mark)], dtype=object), y=np.array([Planted(mark)], dtype=object))
        refused("train", "--data", place / "train.npz", "--out", tmp_path / "new")
    else:
        for name in ("CIFAR_ims", "CIFAR_lab"):
            torch.save(Planted(mark), place / name)
        assert "would run code when read" in refused("train", "--dataset", "released", "--data", place, "--out", tmp_path / "new")
    assert not mark.exists()
