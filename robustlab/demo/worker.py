"""One run at a time, in a thread of its own, and a short line of those that wait."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import Future, ThreadPoolExecutor

from robustlab.demo.session import Frame, Order, Outcome, carry_out


class Job:
    """An order in the line. Of its frames only the newest is kept, so that a slow reader skips some and costs nothing."""

    def __init__(self, order: Order, news: asyncio.Event) -> None:
        self.order = order
        self.news = news  # set whenever there is something to tell
        self.stop = threading.Event()
        self.future: Future[Outcome]
        self._newest: Frame | None = None

    def take(self) -> Frame | None:
        """The newest frame that was not taken yet."""
        frame, self._newest = self._newest, None
        return frame

    def work(self, loop: asyncio.AbstractEventLoop) -> Outcome:
        """In the worker's thread."""

        def on_frame(frame: Frame) -> None:
            waiting = self._newest is not None
            self._newest = frame
            if not waiting:
                loop.call_soon_threadsafe(self.news.set)

        return carry_out(self.order, on_frame, self.stop.is_set)


class Worker:
    """Jobs in the order in which they came. Its methods are called from the event loop's thread."""

    def __init__(self, places: int) -> None:
        self.places = places  # the one at work included
        self._line: list[Job] = []
        self._thread = ThreadPoolExecutor(1, "robustlab-run")

    @property
    def full(self) -> bool:
        return len(self._line) >= self.places

    def submit(self, order: Order) -> Job:
        """Join the line; ``full`` was asked before."""
        loop = asyncio.get_running_loop()
        job = Job(order, asyncio.Event())
        self._line.append(job)
        job.future = self._thread.submit(job.work, loop)

        def ended(future: Future[Outcome]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: the program ends
                loop.call_soon_threadsafe(self._leave, job)

        job.future.add_done_callback(ended)
        return job

    def ahead(self, job: Job) -> int:
        """How many are served before it."""
        return self._line.index(job) if job in self._line else 0

    def abandon(self, job: Job) -> None:
        """Nobody waits for it any more: out of the line at once, or stopped at its next step."""
        job.stop.set()
        job.future.cancel()

    def close(self) -> None:
        for job in list(self._line):
            self.abandon(job)
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _leave(self, job: Job) -> None:
        self._line.remove(job)
        for other in [job, *self._line]:
            other.news.set()
