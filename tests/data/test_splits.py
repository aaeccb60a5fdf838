"""Where two parts of a set meet: one check, and a word on classes without images."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import robustlab
from robustlab.commands import main
from robustlab.data import ImageSet
from robustlab.data.splits import matching, note_empty_classes
from robustlab.errors import UserError

LIGHT = {"arch": "small", "epochs": 1, "batch_size": 8, "val_size": 0, "no_augment": True, "progress": False, "device": "cpu"}


def images(
    n: int = 12, size: int = 8, channels: int = 3, classes: tuple[str, ...] = ("a", "b"), labels: list[int] | None = None
) -> ImageSet:
    pixels = torch.zeros(n, channels, size, size, dtype=torch.uint8)
    return ImageSet(pixels, torch.tensor(labels) if labels else torch.arange(n) % len(classes), classes, "mine")


def save(folder: Path, size: int, **more: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, side in (("train", 8), ("test", size)):
        np.savez(folder / f"{part}.npz", x=np.zeros((12, side, side, 3), np.uint8), y=np.arange(12) % 2, **more)
    return folder


@pytest.mark.parametrize(
    "test, sentence",
    [
        (images(size=10), "are 10x10x3 (width, height, channels), but those to train on are 8x8x3"),
        (images(channels=1), "are 8x8x1"),
        (images(classes=("a", "c")), "do not know all classes of the training images: unknown class 'b'"),
        (images(n=0), "mine has no test images"),
    ],
)
def test_what_does_not_fit_is_refused(test, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        matching(test, images())
    with pytest.raises(UserError, match=re.escape(sentence)):
        robustlab.train(images(), test=test, **LIGHT)


@pytest.mark.parametrize("door", ["beside", "--test-data", "quickstart"])
def test_every_door_is_guarded_before_the_first_epoch(tmp_path, capsys, door):
    data, out = save(tmp_path / "data", 8 if door == "--test-data" else 10), tmp_path / "run"
    if door == "quickstart":
        words = ["quickstart", "--data", str(data), "--epochs", "1", "--out", str(out)]
    else:
        words = ["train", "--data", str(data), "--epochs", "1", "--batch-size", "8", "--out", str(out)]
    words += ["--test-data", str(save(tmp_path / "other", 10))] if door == "--test-data" else []
    assert main([*words, "--device", "cpu", "--threads", "1"]) == 2
    told = capsys.readouterr()
    assert "10x10x3 (width, height, channels), but those to train on are 8x8x3" in told.err and "epoch" not in told.out + told.err


def test_a_class_without_images_is_told():
    with pytest.warns(UserWarning, match="mine: 2 of 4 classes have no training image: 'b', 'd'"):
        note_empty_classes(images(labels=[0, 2] * 6, classes=("a", "b", "c", "d")), "training")
    with pytest.warns(UserWarning, match="mine: one class has no test image: 'c'"):
        note_empty_classes(images(), "test", ("a", "b", "c"))
    with pytest.warns(UserWarning, match="one class has no training image: 'b'"):
        robustlab.train(images(labels=[0, 2] * 6, classes=("a", "b", "c")), **LIGHT)


def test_fewer_images_than_classes_say_nothing():
    note_empty_classes(images(n=2, classes=("a", "b", "c")), "test")
