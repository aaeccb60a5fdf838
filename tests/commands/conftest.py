"""What the tests of commands share: a data set of 8x8 images that trains in milliseconds, and a way to call a command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from robustlab.commands import main


@dataclass(frozen=True)
class Called:
    """What a command did: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train.npz`` with 60 images and ``test.npz`` with 20: three classes, told apart by their colour, in noise."""
    folder = tmp_path_factory.mktemp("data")
    for n, name in ((60, "train"), (20, "test")):
        random = np.random.default_rng(n)
        y = np.arange(n) % 3
        x = random.integers(0, 160, (n, 3, 8, 8))
        x[np.arange(n), y] += 60
        np.savez(folder / f"{name}.npz", x=x.astype(np.uint8), y=y, classes=np.array(["red", "green", "blue"]))
    return folder


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Called]:
    """``call("train", "--epochs", 3)`` runs a command in this process."""

    def called(*words: object) -> Called:
        capsys.readouterr()
        try:
            code = main([str(word) for word in words])
        except SystemExit as exit:
            code = int(exit.code or 0)
        return Called(code, *capsys.readouterr())

    return called


@pytest.fixture
def refused(call: Callable[..., Called]) -> Callable[..., str]:
    """Runs a command that must end with exit code 2 and one sentence on stderr, which it returns."""

    def called(*words: object) -> str:
        told = call(*words)
        assert told.code == 2, told
        assert told.err.count("\n") == 1 and told.err.endswith("\n"), told.err
        assert "Traceback" not in told.err
        return told.err.strip()

    return called
