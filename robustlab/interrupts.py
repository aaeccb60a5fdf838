"""Ctrl-C, SIGTERM and SIGHUP that long work hears of and answers when it has saved what it did."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# SIGHUP comes when a terminal is closed or a connection is lost; Windows has none.
SIGNALS = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


class _Note:
    """A handler that notes the first signal, and leaves a second one to the handlers of before."""

    def __init__(self) -> None:
        self.noted: list[int] = []
        # A handler that was not set from Python is None, and Python could not put it back. What is ignored stays ignored, as `nohup`
        # wants it of SIGHUP.
        self.before: dict[int, Any] = {
            number: handler for number in SIGNALS if (handler := signal.getsignal(number)) not in (None, signal.SIG_IGN)
        }

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.noted.append(number)
        signal.signal(number, self.before[number])


@contextmanager
def interruptible() -> Iterator[list[int]]:
    """Inside, the first Ctrl-C, SIGTERM or SIGHUP is only noted, in the list that is yielded; a second one acts at once.

    Python handles signals in its main thread only: in another one the list stays empty and signals act as before. Where
    the caller is inside ``interruptible`` already, both share one list. A signal that the process ignores stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    outer = next((handler for number in SIGNALS if isinstance(handler := signal.getsignal(number), _Note)), None)
    if outer is not None:
        yield outer.noted
        return
    note = _Note()
    for number in note.before:
        signal.signal(number, note)
    try:
        yield note.noted
    finally:
        for number, handler in note.before.items():
            signal.signal(number, handler)
