"""How far long work has come: a bar on a terminal or in a notebook, elsewhere a plain line about every 20 seconds."""

from __future__ import annotations

import errno
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from tqdm import TqdmWarning

with warnings.catch_warnings():  # in a notebook without ipywidgets, where the bar is text and nothing is amiss
    warnings.simplefilter("ignore", TqdmWarning)
    from tqdm.auto import tqdm

EVERY = 20.0  # seconds between two lines where there is no terminal


class Progress:
    """The progress of one piece of work; a context manager.

        with Progress("attacking", len(images), "img") as progress:
            progress.update(250)

    Lines and bars go to stderr. A piece of work that takes less than ``EVERY`` seconds leaves no line.

    Args:
        title: what is done, in a word or two.
        total: how many there are to do; None where that is told later, by ``at``.
        unit: of what.
        shown: False keeps it silent, as in all but one of several processes.
    """

    def __init__(self, title: str, total: float | None = None, unit: str = "it", *, shown: bool = True) -> None:
        self.title, self.total, self.unit, self.shown = title, total, unit, shown
        self.done, self.began, self._text = 0.0, time.monotonic(), ""
        self._told, self._first = self.began, 0.0
        self._bar: Any = None
        if shown and has_bars():
            self._bar = tqdm(total=total, desc=title, unit=unit, leave=False, file=sys.stderr, dynamic_ncols=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def update(self, n: float = 1) -> None:
        """``n`` more are done."""
        self.done += n
        if self._bar is not None:
            with _perhaps_unseen():
                self._bar.update(round(self.done) - self._bar.n)  # parts of an image, as in a batch half done, would show as 20.833333
        elif self.shown and time.monotonic() - self._told >= EVERY:
            self._told = time.monotonic()
            say(self.line())

    def at(self, done: float, total: float | None = None) -> None:
        """So many are done by now, and so many there are in all."""
        if total is not None:
            self.total = total
            if self._bar is not None:
                self._bar.total = total
        self.update(done - self.done)

    def start_from(self, done: float) -> None:
        """So many were done before this work began, and tell nothing of its speed."""
        self._first = self.done = done
        if self._bar is not None:
            with _perhaps_unseen():
                self._bar.update(round(done))

    def skip(self, n: float = 1) -> None:
        """``n`` more are done, but not by this work: they tell nothing of its speed."""
        self._first += n
        self.update(n)

    def note(self, text: str) -> None:
        """Words to show behind the numbers from now on."""
        self._text = text
        if self._bar is not None:
            with _perhaps_unseen():
                self._bar.set_postfix_str(text)

    def write(self, text: str) -> None:
        """A line that stays, on stdout."""
        if not self.shown:
            return
        with _perhaps_unseen():
            if self._bar is not None:
                self._bar.write(text, file=sys.stdout)
            else:
                sys.stdout.write(text + "\n")
                sys.stdout.flush()

    def line(self) -> str:
        """What is done, of how many, how fast, and how long the rest takes at that speed."""
        seconds = time.monotonic() - self.began
        speed = (self.done - self._first) / seconds if seconds > 0 else 0.0
        told = f"{self.title}: {self.done:,.0f}"
        if self.total:
            told += f" of {self.total:,.0f} {self.unit} ({100 * self.done / self.total:.0f} %)"
        else:
            told += f" {self.unit}"
        told += f", {speed:.3g} {self.unit}/s"
        if self.total and speed > 0:
            told += f", about {_duration((self.total - self.done) / speed)} left"
        return f"{told}, {self._text}" if self._text else told

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            with _perhaps_unseen():
                self._bar.close()


def has_bars() -> bool:
    """Whether stderr can show a bar: a terminal, or a notebook."""
    if "IPython" in sys.modules:
        shell = sys.modules["IPython"].get_ipython()
        if shell is not None and "IPKernelApp" in shell.config:
            return True
    return sys.stderr.isatty()


def say(text: str) -> None:
    """A line on stderr; nothing where the terminal was closed."""
    with _perhaps_unseen():
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


@contextmanager
def _perhaps_unseen() -> Iterator[None]:
    """Let go by that the terminal was closed, so that what was done is saved when SIGHUP comes and a bar cannot be drawn any more."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EIO:
            raise


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
