"""Signals are noted once, a second one acts, and everything is as before afterwards; away from the main thread nothing happens."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from robustlab.interrupts import interruptible

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handled() -> object:
    """Handlers that note what reaches them."""
    seen: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: seen.append(number)) for number in NUMBERS}
    yield seen
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_is_noted_and_the_second_acts(handled: list[int], number: int) -> None:
    before = [signal.getsignal(each) for each in NUMBERS]
    with interruptible() as noted:
        os.kill(os.getpid(), number)
        assert noted == [number] and handled == []
        os.kill(os.getpid(), number)
        assert noted == [number] and handled == [number]
    assert [signal.getsignal(each) for each in NUMBERS] == before


def test_handlers_are_put_back_after_an_exception() -> None:
    before = [signal.getsignal(each) for each in NUMBERS]
    with pytest.raises(ZeroDivisionError), interruptible():
        raise ZeroDivisionError
    assert [signal.getsignal(each) for each in NUMBERS] == before


def test_work_within_work_shares_the_note_and_the_second_signal_still_acts(handled: list[int]) -> None:
    with interruptible() as outer:
        with interruptible() as inner:
            os.kill(os.getpid(), signal.SIGINT)
            assert outer == inner == [signal.SIGINT]
            os.kill(os.getpid(), signal.SIGINT)
            assert handled == [signal.SIGINT]
        assert outer == [signal.SIGINT]


def test_in_another_thread_signals_are_left_alone(handled: list[int]) -> None:
    before, found = [signal.getsignal(each) for each in NUMBERS], []

    def work() -> None:
        with interruptible() as noted:
            found.append((list(noted), [signal.getsignal(each) for each in NUMBERS]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [([], before)]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_that_is_ignored_stays_ignored_and_the_others_are_noted(number: int) -> None:
    """As ``nohup`` ignores SIGHUP, and a shell SIGINT for what runs in the background."""
    signal.signal(number, signal.SIG_IGN)
    with interruptible() as outer, interruptible() as inner:
        os.kill(os.getpid(), number)
        assert inner == []
        other = next(each for each in NUMBERS if each != number)
        os.kill(os.getpid(), other)
        assert outer == inner == [other]
    assert signal.getsignal(number) is signal.SIG_IGN
