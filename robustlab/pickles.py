"""Reading ``torch.save`` files without running what is in them, unless their owner says so."""

from __future__ import annotations

import math
import os
import pathlib
import pickle
import re
import threading
import types
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from robustlab.errors import UserError

_ONE_AT_A_TIME = threading.Lock()  # torch keeps what is safe in one place for all threads
_PLAIN = re.compile(r"[?bBiufcSU]\d*")  # types of numbers and text: arrays of them only hold bytes


def load_pickle(path: str | os.PathLike[str], what: str = "checkpoint", *, trust: bool | None = False) -> Any:
    """What ``torch.save`` wrote, on the CPU. The one place where the project reads pickles.

    Numbers and arrays of NumPy, paths and ``argparse.Namespace`` are data. The checksums of today's format are compared first.

    Args:
        path: a file of the present format or of the one before PyTorch 1.6, which has no checksums.
        what: what the file should be, for messages.
        trust: also read files that run code while they are read; None where the caller has no way to say so.

    Raises:
        UserError: no such file, a damaged one, or one that would run code and is not trusted; names what it would call.
    """
    _check_beginning(Path(path), what)
    with _ONE_AT_A_TIME, safe_globals(_data()):
        try:
            return torch.load(path, map_location="cpu", weights_only=not trust)
        except ModuleNotFoundError as error:
            raise UserError(f"{path} needs the package {error.name}, which is not installed") from error
        except UserError as error:  # of the readers below
            raise UserError(f"{path} is not a {what} that can be read: {error}") from error
        # A damaged pickle can raise anything: KeyError, EOFError, UnicodeDecodeError, RuntimeError, ...
        except Exception as error:
            calls = _unsafe_calls(path, error)
            if calls and not trust:
                advice = "" if trust is None else "; if you trust its source, give `trust=True`"
                raise UserError(f"{path} would run code when read ({', '.join(calls)}){advice}") from error
            raise UserError(f"{path} is a damaged or incomplete {what}, or a file of another kind ({type(error).__name__})") from error


def _check_beginning(path: Path, what: str) -> None:
    """Refuse what ``torch.save`` did not write: its files begin as a zip archive or as a binary pickle."""
    try:
        with open(path, "rb") as file:
            start = file.read(2)
    except FileNotFoundError as error:
        raise UserError(f"there is no {what} {path}") from error
    except OSError as error:
        raise UserError(f"cannot read the {what} {path}: {error.strerror}") from error
    if not start:
        raise UserError(f"the {what} {path} is empty")
    if start != b"PK" and start[:1] != pickle.PROTO:
        why = "it looks like a web page, so its download went wrong" if start[:1] == b"<" else f"it begins with {start!r}"
        raise UserError(f"{path} is not a PyTorch {what}: {why}")
    if start == b"PK":
        _check_archive(path, what)


def _check_archive(path: Path, what: str) -> None:
    """Compare an archive's sizes and checksums, which torch passes over: a flipped bit would be another weight."""
    damaged = f"{path} is a damaged or incomplete {what}, or a file of another kind"
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            inner = {entry.filename.partition("/")[2] for entry in entries}
            if "constants.pkl" in inner:
                raise UserError(
                    f"{path} is a TorchScript archive, which is a program and no {what}: torch.jit.load gives a function, which can be "
                    "attacked as it is, and torch.save of its state_dict() a file that can be read here"
                )
            if "data.pkl" not in inner and inner & {"archive_format", "serialized_exported_program.json", "models/model.json"}:
                raise UserError(f"{path} is a program of torch.export and no {what}: torch.save the state_dict() of its network")
            size, declared = os.path.getsize(path), sum(entry.file_size for entry in entries)
            if declared > size:
                raise UserError(f"{path} takes {size:,} bytes and says that it holds {declared:,}: torch.save compresses nothing")
            wrong = archive.testzip()
    # What a damaged archive raises: BadZipFile, zlib.error, NotImplementedError for a compression that there is not, EOFError, ...
    except UserError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError, LookupError, OverflowError, MemoryError) as error:
        raise UserError(f"{damaged} ({type(error).__name__})") from error
    if wrong is not None:
        raise UserError(f"{damaged} (the checksum of its part {wrong!r:.80} does not agree)")


def _unsafe_calls(path: str | os.PathLike[str], error: Exception) -> list[str]:
    """The functions and classes that a checkpoint names and that may not be called."""
    try:
        return sorted(get_unsafe_globals_in_checkpoint(path))
    # Only today's zip files can be searched, and damaged ones raise anything; of others, the refusal names the first.
    except Exception:
        return re.findall(r"GLOBAL ([\w.]+)", str(error))[:1] if isinstance(error, pickle.UnpicklingError) else []


# What trainers leave in checkpoints beside tensors. NumPy's own functions trust what a pickle says of an array's memory, so each is
# replaced by one that looks first.


class _DType:
    """What stands for a ``numpy.dtype``: a type of numbers or text, and its byte order."""

    def __init__(self, code: Any, *flags: Any) -> None:
        if not isinstance(code, str) or not _PLAIN.fullmatch(code):
            raise UserError(f"it holds an array of {code!r:.40}, and only arrays of numbers and text are read")
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|", "=") else "="

    @property
    def real(self) -> np.dtype:
        return np.dtype(self.code).newbyteorder(self.order)  # type: ignore[arg-type]


class _Array(np.ndarray):
    """An array whose shape, type and bytes agree."""

    def __setstate__(self, state: Any) -> None:
        try:
            _, shape, dtype, fortran, content = state
            fits = isinstance(content, bytes) and len(content) == math.prod(shape) * dtype.real.itemsize and min(shape, default=0) >= 0
        except (TypeError, ValueError, AttributeError):
            fits = False
        if not fits:
            raise UserError("it holds an array whose shape and bytes do not agree")
        super().__setstate__((1, tuple(shape), dtype.real, bool(fortran), content))  # type: ignore[arg-type]


def _array(*unused: Any) -> _Array:
    return _Array(0, np.uint8)


def _number(dtype: Any, content: Any = b"") -> Any:
    if not isinstance(dtype, _DType) or not isinstance(content, bytes) or len(content) != dtype.real.itemsize:
        raise UserError("it holds a number whose type and bytes do not agree")
    return np.frombuffer(content, dtype.real)[0]


def _no_bytes() -> bytes:
    """What a pickle writes for ``b""``."""
    return b""


def _data() -> list[Any]:
    """What may be called, under each name that it has in files of any version of Python and NumPy."""
    found: list[Any] = [(_DType, "numpy.dtype"), (_Array, "numpy.ndarray"), types.SimpleNamespace]
    found += [(_no_bytes, "builtins.bytes"), (types.SimpleNamespace, "argparse.Namespace")]
    for package in ("numpy.core", "numpy._core"):
        found += [(_number, f"{package}.multiarray.scalar"), (_array, f"{package}.multiarray._reconstruct")]
    for kind in ("PurePosixPath", "PureWindowsPath", "PosixPath", "WindowsPath", "PurePath", "Path"):
        pure = pathlib.PureWindowsPath if "Windows" in kind else pathlib.PurePosixPath
        found += [(pure, f"pathlib.{kind}"), (pure, f"pathlib._local.{kind}")]
    return found
