"""Death in the middle of a write, as ``kill -9`` deals it, without the seconds that another process takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustlab import files


class Killed(BaseException):
    """Nothing in the code may catch it, as nothing can catch SIGKILL."""


def dying(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Callable[[], int]]:
    """``after(n)`` lets this process die at the n-th write of any kind; it gives a function that says how many there were."""
    write_bytes, append_bytes, replace = files.write_bytes, files.append_bytes, files.os.replace
    state = {"left": 0}

    def count(half: Callable[[], object] = lambda: None) -> None:
        state["left"] -= 1
        if state["left"] == 0:
            half()
            raise Killed

    def write_or_die(path: Any, written: bytes) -> None:
        left = Path(path).with_name(f".{Path(path).name}.1.tmp")
        count(lambda: (left.parent.mkdir(parents=True, exist_ok=True), left.write_bytes(bytes(written)[:100])))
        write_bytes(path, written)

    def append_or_die(path: Any, written: bytes) -> None:
        count(lambda: append_bytes(path, written[: len(written) // 2]))
        append_bytes(path, written)

    def replace_or_die(source: Any, target: Any) -> None:
        count()
        replace(source, target)
        count()

    def after(n: int) -> Callable[[], int]:
        state["left"] = n
        return lambda: n - state["left"]

    monkeypatch.setattr(files, "write_bytes", write_or_die)
    monkeypatch.setattr(files, "append_bytes", append_or_die)
    monkeypatch.setattr(files.os, "replace", replace_or_die)
    return after
