"""How long connections may be silent, and how many there may be: nobody is locked out by those who say nothing."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 128  # altogether
PER_ADDRESS = 64  # from one address
HEADER_SECONDS = 10.0  # for a request's headers to arrive, from its connection's or the last answer's end on


class Connection(H11Protocol):
    """A connection that is closed when it asks for nothing in time, or earlier where its place is needed.

    Where there are too many, from one address or altogether, the one goes that has been silent longest; where none is silent, the new
    one. So those who ask are served, whoever holds connections open. Bodies have times of their own, see ``server``.
    """

    known: ClassVar[dict[Connection, str]] = {}  # those that are open, oldest first, with their address

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = str((transport.get_extra_info("peername") or ("",))[0])
        same_loop = [one for one in Connection.known if one.loop is self.loop]
        for crowd, most in (([one for one in same_loop if Connection.known[one] == address], PER_ADDRESS), (same_loop, CONNECTIONS)):
            if len(crowd) >= most:
                next((one for one in crowd if one.silent and not one.transport.is_closing()), self).transport.close()
        Connection.known[self] = address
        self._deadline: asyncio.TimerHandle | None = None
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        Connection.known.pop(self, None)
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.silent:
            self._stop_waiting()
        elif self._deadline is None:
            self._wait()

    @property
    def silent(self) -> bool:
        """Whether nothing is asked for, or not to the end of its headers."""
        return self.cycle is None or self.cycle.response_complete

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self._expire)

    def _stop_waiting(self) -> None:
        if self._deadline:
            self._deadline.cancel()
        self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        if self.silent and not self.transport.is_closing():
            self.transport.close()
