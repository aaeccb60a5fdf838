"""Ratios that survive a noisy machine: the candidates take turns, and each is compared with the first within its round."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

import torch

from robustlab.errors import UserError

Clock = Callable[[], float]
Result = TypeVar("Result")


def clock(device: torch.device) -> Clock:
    """Wall-clock seconds, read after the device has done all that it was given."""
    wait = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device.type)

    def now() -> float:
        if wait:
            wait()
        return time.perf_counter()

    return now


def timed(task: Callable[[], Result], now: Clock) -> tuple[Result, float]:
    """What a task returns, and the seconds that it took."""
    begin = now()
    result = task()
    return result, now() - begin


def in_turn(
    tasks: Mapping[str, Callable[[int], Result]], rounds: Iterable[int], now: Clock, on_result: Callable[[str, int, Result], object]
) -> dict[str, list[float]]:
    """Run every task once per round, ``A B C A B C ...``; the seconds of each task, one number per round.

    Args:
        tasks: called with the round's number.
        on_result: called with (name, round, result), outside the time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for number in rounds:
        for name, task in tasks.items():
            begin = now()
            result = task(number)
            seconds[name].append(now() - begin)
            on_result(name, number, result)
    return seconds


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of some numbers."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    @classmethod
    def ratio(cls, seconds: Sequence[float], baseline: Sequence[float]) -> Spread:
        """Of the ratios to the baseline, round by round."""
        return cls.of([a / b for a, b in zip(seconds, baseline, strict=True)])

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"

    def percent(self) -> str:
        return f"{100 * self.median:.2g} [{100 * self.low:.2g}, {100 * self.high:.2g}]"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of rows that share their keys, aligned for a terminal."""
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def described(environment: Mapping[str, Any]) -> str:
    """The hardware and versions that ``robustlab.records.environment`` found, for the line above a table."""
    processor = f"{environment['processor']}, {environment['threads']} threads"
    return ", ".join([*environment["gpus"], processor, f"torch {environment['torch']}"])


def imported(packages: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """By library the package that was asked for, and, where it is not here, the reason."""
    found: dict[str, Any] = {}
    missing: dict[str, str] = {}
    for library, package in packages.items():
        try:
            found[library] = import_module(package)
        except ImportError as error:
            missing[library] = str(error)
    return found, missing


def exit_code(run: Callable[[], object]) -> int:
    """Run a benchmark. A mistake is one sentence, and exit code 2, as for the commands."""
    try:
        run()
    except UserError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    return 0
