"""Progress: a plain line about every 20 seconds where there is no terminal, a bar where there is one."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from robustlab import progress
from robustlab.progress import EVERY, Progress


class Clock:
    """A clock that goes only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def test_short_work_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("attacking", 100, "img") as bar:
        for _ in range(100):
            clock.now += (EVERY - 1) / 100
            bar.update()
    assert capsys.readouterr() == ("", "")


def test_long_work_says_a_line_every_20_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("attacking", 1200, "img") as bar:
        for _ in range(120):
            clock.now += 1
            bar.update(10)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert lines[0] == "attacking: 200 of 1,200 img (17 %), 10 img/s, about 1 min 40 s left"
    assert lines[-1] == "attacking: 1,200 of 1,200 img (100 %), 10 img/s, about 0 s left"


def test_what_was_done_before_tells_nothing_of_the_speed(clock: Clock) -> None:
    bar = Progress("training", 100, "batch")
    bar.start_from(50)
    clock.now += 10
    bar.at(60)
    assert bar.line() == "training: 60 of 100 batch (60 %), 1 batch/s, about 40 s left"


def test_the_total_may_be_told_later_and_words_may_stand_behind(clock: Clock) -> None:
    bar = Progress("reading", unit="img")
    clock.now += 2
    bar.update(4)
    assert bar.line() == "reading: 4 img, 2 img/s"
    bar.at(6, 20)
    bar.note("loss 0.5")
    assert bar.line() == "reading: 6 of 20 img (30 %), 3 img/s, about 5 s left, loss 0.5"


def test_all_but_one_of_several_processes_are_silent(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("training", 10, shown=False) as bar:
        clock.now += 100
        bar.update()
        bar.write("epoch 1")
    assert capsys.readouterr() == ("", "")


def test_lines_that_stay_go_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("training", 10) as bar:
        bar.write("epoch 1")
    assert capsys.readouterr() == ("epoch 1\n", "")


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("attacking", 10, "img") as bar:
        bar.start_from(2)
        bar.note("loss 0.5")
        bar.update(8)
    assert "attacking" in terminal.getvalue() and "img" in terminal.getvalue()
    assert terminal.getvalue().rstrip().endswith("\r") or terminal.getvalue().endswith("\r")


def test_a_notebook_has_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not progress.has_bars()
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))  # type: ignore[arg-type]
    assert progress.has_bars()
