"""The folder of a run: what was asked, what happened, what came out. A run that is killed at any moment can go on from it.

settings.json      everything a rerun needs
environment.json   versions, hardware, commit
metrics.jsonl      one line per epoch, or per step
tensorboard/       the same numbers, and pictures
last.pt  best.pt   checkpoints: dicts of tensors and numbers, which load without running code

Lines are added to ``metrics.jsonl``; every other file is replaced whole.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from robustlab import files, pickles
from robustlab.errors import UserError
from robustlab.options import from_file, leaves
from robustlab.paths import place_of

LOG = "metrics.jsonl"
LOCK = ".lock"  # hidden: it may stay behind where a process was killed
Read = Callable[[dict[str, Any]], Mapping[str, Any]]  # from settings as an older file has them to today's


class Board:
    """Curves and pictures for TensorBoard; a context manager.

    Args:
        folder: where its files go.
        purge_from: forget what is shown from this epoch or step on, as it will come again.

    Raises:
        UserError: at any call, the place cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], purge_from: int | None = None) -> None:
        self.folder = place_of(folder)
        with self._writing():
            self._writer = SummaryWriter(str(self.folder), purge_step=purge_from)

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def number(self, name: str, value: float, at: int) -> None:
        """A point of a curve, at an epoch or step."""
        with self._writing():
            self._writer.add_scalar(name, value, at)

    def picture(self, name: str, picture: Tensor, at: int) -> None:
        """A picture, float ``(C, H, W)`` in [0, 1]."""
        with self._writing():
            self._writer.add_image(name, picture, at)

    def flush(self) -> None:
        """Write what was told so far to the disk."""
        with self._writing():
            self._writer.flush()

    def close(self) -> None:
        with self._writing():
            self._writer.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Say which folder it is that TensorBoard cannot write to."""
        try:
            yield
        except OSError as error:
            raise UserError(f"cannot write {self.folder}: {error.strerror or error}") from error


class Run:
    """A folder that belongs to one set of settings.

    Settings are a dataclass of options (see ``robustlab.options``) or a mapping of values that JSON holds.

    Attributes:
        folder: where it is.
        metrics: the lines that were logged, in order.
    """

    def __init__(self, folder: str | os.PathLike[str], metrics: list[dict[str, Any]] | None = None) -> None:
        self.folder = place_of(folder)
        self.metrics = metrics or []
        self._board: Board | None = None

    @staticmethod
    def is_run(folder: str | os.PathLike[str]) -> bool:
        """Whether a run was begun in the folder."""
        return (place_of(folder) / "settings.json").exists()

    @staticmethod
    def settings_of(folder: str | os.PathLike[str], what: str = "run") -> dict[str, Any]:
        """What ``settings.json`` holds.

        Raises:
            UserError: it is missing or damaged.
        """
        return files.read_json(place_of(folder) / "settings.json", f"a {what}'s settings")

    @classmethod
    def open(
        cls, folder: str | os.PathLike[str], settings: Any, free: Collection[str] = (), *, what: str = "run", read: Read | None = None
    ) -> Run:
        """Go on with the run in the folder, or start one where there is none; see ``create`` and ``reopen``.

        Of several processes that may come at the same time, each should hold a ``files.file_lock`` meanwhile.
        """
        return cls.reopen(folder, settings, free, what=what, read=read) if cls.is_run(folder) else cls.create(folder, settings, what=what)

    @classmethod
    def create(cls, folder: str | os.PathLike[str], settings: Any, *, what: str = "run") -> Run:
        """Start a run in a folder that is empty, but for hidden files, or does not exist yet.

        Args:
            what: what the run is called in messages, such as ``set``.

        Raises:
            UserError: the folder holds another run, or other files.
        """
        path = place_of(folder)
        if cls.is_run(path):
            raise UserError(f"{path} holds a {what} already: go on with it by `resume`, or name another folder with `out`")
        files.check_vacant(path, hidden_allowed=True)
        files.sweep(path)
        # First the file that makes the folder a run's: killed in between, it can be resumed.
        files.write_json(path / "settings.json", _plain(settings))
        files.write_json(path / "environment.json", environment())
        return cls(path)

    @classmethod
    def reopen(
        cls, folder: str | os.PathLike[str], settings: Any, free: Collection[str] = (), *, what: str = "run", read: Read | None = None
    ) -> Run:
        """Go on with a run whose settings are the same, but for the ``free`` ones; takes away half a line that a kill left in the log.

        Args:
            free: options by their names, or settings by theirs: ``device``, or ``machine``, or ``machine.device``.
            what: what the run is called in messages, such as ``set``.
            read: turns the file's settings into today's. Without it a dataclass reads its own: in groups, or flat as they once were.

        Raises:
            UserError: there is no run in the folder, its settings differ (the sentence names the differences), or a damaged log.
        """
        path = place_of(folder)
        before = cls.settings_of(path, what)
        if read is None and dataclasses.is_dataclass(settings):
            kind = type(settings)
            read = lambda found: _plain(from_file(kind, found, str(path / "settings.json"), passed_over=True))  # noqa: E731
        check_same(path, read(before) if read else before, settings, free, what=what)
        files.sweep(path)
        if not (path / "environment.json").exists():  # killed between the first two files
            files.write_json(path / "environment.json", environment())
        return cls(path, _repaired(path / LOG))

    @staticmethod
    @contextmanager
    def alone(folder: str | os.PathLike[str], what: str = "run") -> Iterator[None]:
        """Inside, no other process works in the folder; one that is killed holds it no longer. The folder is made where it is missing.

        Args:
            what: what is in the folder, for the message.

        Raises:
            UserError: another process works there.
        """
        path, made = place_of(folder), not place_of(folder).exists()
        lock = path / LOCK
        if not path.is_dir():
            files.check_vacant(path)
        with files.file_lock(lock) as mine:
            if not mine:
                raise UserError(f"another process works on the {what} in {path}: wait for its end, or name another folder with `out`")
            try:
                yield
            finally:
                files.remove_lock(lock)
                if made:
                    with suppress(OSError):  # which keeps a folder that something was written to
                        path.rmdir()

    def keep_epochs_before(self, epoch: int) -> None:
        """Forget what was logged from ``epoch`` on: those epochs will run again."""
        self._keep_before("epoch", epoch)

    def keep_steps_before(self, step: int) -> None:
        """Forget what was logged from ``step`` on: those steps will be taken again."""
        self._keep_before("step", step)

    def _keep_before(self, index: str, limit: int) -> None:
        kept = [line for line in self.metrics if line[index] < limit]
        if len(kept) < len(self.metrics):
            files.write_text(self.log_file, "".join(json.dumps(line) + "\n" for line in kept))
        self.metrics = kept
        self._board = Board(self.folder / "tensorboard", purge_from=limit)

    def append(self, line: dict[str, Any]) -> None:
        """Add a line to ``metrics.jsonl``, with a ``step`` or an ``epoch``."""
        files.append_bytes(self.log_file, f"{json.dumps(line)}\n".encode())
        self.metrics.append(line)

    def log(self, line: dict[str, Any]) -> None:
        """Add numbers to ``metrics.jsonl`` and TensorBoard.

        Args:
            line: by name; ``step`` tells when they were measured, or ``epoch`` where there is no step.
        """
        at = line["step"] if "step" in line else line["epoch"]
        self.append(line)
        for name, value in line.items():
            if isinstance(value, int | float) and name not in ("epoch", "step"):
                self.board.number(name, value, at)
        self.board.flush()

    def picture(self, name: str, picture: Tensor, at: int) -> None:
        """Show a picture, float ``(C, H, W)`` in [0, 1], in TensorBoard, at an epoch or step."""
        self.board.picture(name, picture, at)

    @property
    def board(self) -> Board:
        """TensorBoard's files, begun when they are first asked for."""
        if self._board is None:
            self._board = Board(self.folder / "tensorboard")
        return self._board

    @property
    def log_file(self) -> Path:
        """The file with a line for each epoch or step."""
        return self.folder / LOG

    @property
    def environment(self) -> dict[str, Any]:
        """Where the run was started: versions, hardware, commit.

        Raises:
            UserError: the file is missing or damaged.
        """
        return files.read_json(self.folder / "environment.json", "a run's environment")

    def save(self, name: str, checkpoint: dict[str, Any]) -> None:
        """Write ``name.pt``, atomically."""
        content = io.BytesIO()  # torch.save itself does not say when a disk is full
        torch.save(checkpoint, content)
        files.write_bytes(self.folder / f"{name}.pt", content.getbuffer())

    def load(self, name: str) -> dict[str, Any] | None:
        """Read ``name.pt`` onto the CPU; None where it was never written.

        Raises:
            UserError: the file is damaged, or holds more than tensors and numbers.
        """
        path = self.folder / f"{name}.pt"
        if not path.exists():
            return None
        found = pickles.load_pickle(path, "checkpoint of a run", trust=None)
        if not isinstance(found, dict):
            raise UserError(f"{path} should hold the checkpoint of a run, not a {type(found).__name__}")
        return found

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def emptied(folder: Path) -> None:
    """Take away what is in a run folder, but for its lock: first the file that makes it one."""
    (folder / "settings.json").unlink(missing_ok=True)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink(missing_ok=True)


def _repaired(path: Path) -> list[dict[str, Any]]:
    """The log's lines, none where there is no file. A last line that a kill cut off is taken away, also from the file."""
    what = "one JSON object per line"
    if not path.exists():
        return []
    text = files.read_text(path, what, files.LARGEST_LOG)
    whole = text[: text.rfind("\n") + 1]
    # What is no number may have been measured, so that this file alone may hold it.
    lines = [files.parse_json(line, path, what, finite=False) for line in whole.split("\n")[:-1]]
    if not all(files.is_kind(line, ({"epoch": int}, {"step": int})) for line in lines):
        raise UserError(f"{path} should hold one JSON object with an epoch or a step per line")
    if whole != text:
        files.write_text(path, whole)
    return lines


def _plain(settings: Any) -> dict[str, Any]:
    """Settings as a mapping."""
    return dataclasses.asdict(settings) if dataclasses.is_dataclass(settings) else dict(settings)  # type: ignore[arg-type]


def _fixed(values: Mapping[str, Any], settings: Any, free: Collection[str]) -> dict[str, Any]:
    """The values that may not change, by their whole names."""
    options = leaves(type(settings)) if dataclasses.is_dataclass(settings) else {}
    names = [".".join(options[name].path) if name in options else name for name in free]
    return {key: value for key, value in _flat(values).items() if not any(key == name or key.startswith(f"{name}.") for name in names)}


def check_same(place: Path, before: Mapping[str, Any], settings: Any, free: Collection[str] = (), *, what: str) -> None:
    """Refuse other settings than those that a place was begun with.

    Args:
        before: those, in values that JSON holds.
        settings: of now.
        free: settings that may change meanwhile, see ``Run.reopen``.
        what: what the place holds, for the message.

    Raises:
        UserError: names the differences.
    """
    different = differences(_fixed(before, settings, free), _fixed(_plain(settings), settings, free))
    if different:
        raise UserError(f"{place} holds a {what} with other settings ({different}): name another folder with `out`")


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How settings differ from those in a file, in words; empty where they agree. Inner settings are named ``outer.inner``."""
    there, here = (_flat(json.loads(json.dumps(each))) for each in (before, now))
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
        "torchvision": _version("torchvision"),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "commit": commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def _version(package: str) -> str | None:
    """That of an installed package, without importing it, which for torchvision takes as long as for torch."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def commit() -> str | None:
    """The commit of the source tree this runs from, with ``+`` where files differ from it; None outside a checkout.

    Git is asked once in a process, whose code is that of its start.
    """
    here = Path(__file__).resolve().parent
    try:
        answer = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())
