"""The folder of a run: what was asked, what happened, what came out. Every file in it is whole at any moment.

settings.json      everything a rerun needs
environment.json   versions, hardware, commit
metrics.jsonl      one line per epoch
tensorboard/       the same numbers, and pictures
last.pt  best.pt   checkpoints: dicts of tensors and numbers, which load without running code
"""

from __future__ import annotations

import io
import json
import os
import platform
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from robustlab import files, pickles
from robustlab.errors import UserError


class Run:
    """A run folder that belongs to one set of settings."""

    def __init__(self, folder: str | os.PathLike[str], metrics: list[dict[str, Any]]) -> None:
        self.folder = Path(folder)
        self.metrics = metrics
        self._board: SummaryWriter | None = None

    @classmethod
    def create(cls, folder: str | os.PathLike[str], settings: dict[str, Any]) -> Run:
        """Start a run in a folder that is empty, but for hidden files, or does not exist yet.

        Raises:
            UserError: the folder holds another run, or other files.
        """
        path = Path(folder)
        if (path / "settings.json").exists():
            raise UserError(f"{path} holds a run already: go on with it by --resume, or name another folder with --out")
        if path.exists() and (not path.is_dir() or any(not entry.name.startswith(".") for entry in path.iterdir())):
            raise UserError(f"{path} is not an empty folder: name another one with --out")
        files.sweep(path)
        # First the file that makes the folder a run's: killed in between, it can be resumed.
        files.write_json(path / "settings.json", settings)
        files.write_json(path / "environment.json", environment())
        return cls(path, [])

    @classmethod
    def reopen(cls, folder: str | os.PathLike[str], settings: dict[str, Any], free: Collection[str] = ()) -> Run:
        """Go on with a run whose settings are the same, but for the ``free`` ones.

        Raises:
            UserError: there is no run in the folder, or its settings differ; the sentence names the differences.
        """
        path = Path(folder)
        before = files.read_json(path / "settings.json", "a run's settings")
        different = differences({k: v for k, v in before.items() if k not in free}, {k: v for k, v in settings.items() if k not in free})
        if different:
            raise UserError(f"{path} belongs to a run with other settings ({different})")
        files.sweep(path)
        if not (path / "environment.json").exists():  # killed between the first two files
            files.write_json(path / "environment.json", environment())
        return cls(path, _read_lines(path / "metrics.jsonl"))

    def keep_epochs_before(self, epoch: int) -> None:
        """Forget what was logged from ``epoch`` on: those epochs will run again."""
        self.metrics = [line for line in self.metrics if line["epoch"] < epoch]
        with self._told():
            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=epoch)

    def log(self, line: dict[str, Any]) -> None:
        """Add one epoch's numbers, ``epoch`` among them, to ``metrics.jsonl`` and TensorBoard."""
        self.metrics.append(line)
        files.write_text(self.folder / "metrics.jsonl", "".join(json.dumps(m) + "\n" for m in self.metrics))
        with self._told():
            for name, value in line.items():
                if isinstance(value, int | float) and name != "epoch":
                    self.board.add_scalar(name, value, line["epoch"])
            self.board.flush()

    def picture(self, name: str, grid: Tensor, epoch: int) -> None:
        """Show a picture, float ``(C, H, W)`` in [0, 1], in TensorBoard."""
        with self._told():
            self.board.add_image(name, grid, epoch)

    @property
    def board(self) -> SummaryWriter:
        if self._board is None:
            self._board = SummaryWriter(str(self.folder / "tensorboard"))
        return self._board

    def save(self, name: str, checkpoint: dict[str, Any]) -> None:
        """Write ``name.pt``, atomically."""
        content = io.BytesIO()  # torch.save itself does not say when a disk is full
        torch.save(checkpoint, content)
        files.write_bytes(self.folder / f"{name}.pt", content.getbuffer())

    def load(self, name: str, map_location: torch.device) -> dict[str, Any] | None:
        """Read ``name.pt``; None where it was never written.

        Raises:
            UserError: the file is damaged, or holds more than tensors and numbers.
        """
        path = self.folder / f"{name}.pt"
        if not path.exists():
            return None
        return pickles.read(path, "checkpoint of a run", trust=None, map_location=map_location)

    def close(self) -> None:
        if self._board is not None:
            with self._told():
                self._board.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Say which folder it is that TensorBoard cannot write to."""
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self.folder / 'tensorboard'}: {error.strerror or error}") from error


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """One epoch's numbers per line; none where there is no file."""
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read as one JSON object per line: {error}") from error
    if not all(isinstance(line, dict) and "epoch" in line for line in lines):
        raise UserError(f"{path} should hold one JSON object with an epoch per line")
    return lines


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How settings differ from those in a file, in words; empty where they agree. Inner settings are named ``outer.inner``."""
    there, here = _flat(before), _flat(json.loads(json.dumps(now)))
    names = sorted({*there, *here})
    return "; ".join(f"{k}: {there.get(k)!r} there, {here.get(k)!r} here" for k in names if there.get(k) != here.get(k))


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def environment() -> dict[str, Any]:
    """Versions, hardware and commit, for the record."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "commit": commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def commit() -> str | None:
    """The commit of the source tree this runs from, with ``+`` where files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parent
    try:
        told = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() or None if told.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
