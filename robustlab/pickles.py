"""Reading ``torch.save`` files without running what is in them, unless their owner says so."""

from __future__ import annotations

import importlib
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from robustlab.errors import UserError


def _numpy_numbers() -> list[Any]:
    """NumPy's scalars, which trainers leave in checkpoints (accuracies, learning rates); they only hold bytes.

    Each under the name that it has in files of NumPy 1 and of NumPy 2.
    """
    scalar = importlib.import_module("numpy._core.multiarray").scalar
    types = [type(np.dtype(code)) for code in ("bool", "int32", "int64", "float16", "float32", "float64")]
    return [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar"), np.dtype, *types]


def load_pickle(path: str | os.PathLike[str], what: str = "checkpoint", *, trust: bool | None = False) -> Any:
    """What ``torch.save`` wrote, on the CPU. The one place where the project reads pickles.

    Args:
        path: a file of the present format or of the one before PyTorch 1.6.
        what: what the file should be, for messages.
        trust: also read files that run code while they are read; None where the caller has no way to say so.

    Raises:
        UserError: no such file, a damaged one, or one that would run code and is not trusted; names what it would call.
    """
    _check_beginning(Path(path), what)
    with safe_globals(_numpy_numbers()):
        try:
            return torch.load(path, map_location="cpu", weights_only=not trust)
        except ModuleNotFoundError as error:
            raise UserError(f"{path} needs the package {error.name}, which is not installed") from error
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


def _unsafe_calls(path: str | os.PathLike[str], error: Exception) -> list[str]:
    """The functions and classes that a checkpoint names and that may not be called."""
    try:
        return sorted(get_unsafe_globals_in_checkpoint(path))
    # Only today's zip files can be searched, and damaged ones raise anything; of others, the refusal names the first.
    except Exception:
        return re.findall(r"GLOBAL ([\w.]+)", str(error))[:1] if isinstance(error, pickle.UnpicklingError) else []
