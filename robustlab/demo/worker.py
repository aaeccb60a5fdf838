"""One run at a time, in a thread of its own, and a short line of those that wait."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from robustlab.demo.session import Frame, RunRequest, RunResult, perform


class QueuedRun:
    """A run that waits or is made. Of its frames only the newest is kept, so that a slow reader skips some and costs nothing."""

    def __init__(self, request: RunRequest, news: asyncio.Event) -> None:
        self.request = request
        self.news = news  # set whenever there is something new to send
        self.stop = threading.Event()
        self.future: Future[RunResult]
        self._newest: Frame | None = None

    def take(self) -> Frame | None:
        """The newest frame that was not taken yet."""
        frame, self._newest = self._newest, None
        return frame

    def work(self, loop: asyncio.AbstractEventLoop) -> RunResult:
        """In the worker's thread."""

        def on_frame(frame: Frame) -> None:
            waiting = self._newest is not None
            self._newest = frame
            if not waiting:
                loop.call_soon_threadsafe(self.news.set)

        return perform(self.request, on_frame, self.stop.is_set)


class Worker:
    """Runs, first come, first served. Its methods are called from the event loop's thread."""

    def __init__(self, places: int) -> None:
        self.places = places  # the one at work included
        self._line: list[QueuedRun] = []
        self._thread = ThreadPoolExecutor(1, "robustlab-run")

    @property
    def full(self) -> bool:
        """Whether every place in the line is taken."""
        return len(self._line) >= self.places

    def submit(self, request: RunRequest) -> QueuedRun:
        """Join the line; ``full`` was asked before."""
        loop = asyncio.get_running_loop()
        run = QueuedRun(request, asyncio.Event())
        self._line.append(run)
        run.future = self._thread.submit(run.work, loop)

        def ended(future: Future[RunResult]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: the program ends
                loop.call_soon_threadsafe(self._leave, run)

        run.future.add_done_callback(ended)
        return run

    def ahead(self, run: QueuedRun) -> int:
        """How many are served before it."""
        return self._line.index(run) if run in self._line else 0

    def abandon(self, run: QueuedRun) -> None:
        """Nobody waits for it any more: out of the line at once, or stopped at its next step."""
        run.stop.set()
        run.future.cancel()

    def close(self) -> None:
        for run in list(self._line):
            self.abandon(run)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _leave(self, run: QueuedRun) -> None:
        self._line.remove(run)
        for other in [run, *self._line]:
            other.news.set()
