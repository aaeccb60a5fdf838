"""The page's server: a few routes, streamed runs, and a guard in front of both.

``POST /api/run`` answers with one JSON object a line: ``queued`` while others are served, ``frame`` for the newest picture, then
``done`` or ``error``. Closing the connection abandons the run. Nothing that comes from outside is ever used as a path.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import ipaddress
import json
import logging
import math
import socket
import string
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from importlib.resources import files
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from robustlab.demo.connections import CONNECTIONS, Connection
from robustlab.demo.page import Page
from robustlab.demo.session import Abandoned, Frame, RunRequest, read_request
from robustlab.demo.uploads import MOST_FRAMES, animated, decode_upload
from robustlab.demo.worker import QueuedRun, Worker
from robustlab.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
PLACES = 8  # runs that are made or wait; further ones are told to come again
UPLOADS = 2  # pictures read at a time
UPLOAD_BYTES = 16 << 20
BODY_SECONDS = 30.0  # for a request's body to arrive
RUN_SECONDS = 600.0  # for a run's answer, the waiting included
SHORTEST_TOKEN = 12
STATIC = {"index.html": "text/html", "style.css": "text/css", "app.js": "text/javascript", "raster.js": "text/javascript"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
log = logging.getLogger("robustlab.demo")


def application(page: Page, *, token: str | None = None, hosts: Sequence[str] | None = LOOPBACK) -> ASGIApp:
    """The page as an ASGI application.

    Args:
        page: what is served.
        token: asked for by everything under ``/api/``, where given.
        hosts: names under which it may be called; None for any, which is for a server with a token.
    """
    endpoints = _Endpoints(page)
    routes = [
        Route("/", _static("index.html")),
        *(Route(f"/static/{name}", _static(name)) for name in STATIC),
        Route("/healthz", endpoints.health),
        Route("/api/meta", endpoints.meta),
        Route("/api/starter/{number}", endpoints.starter),
        Route("/api/upload", endpoints.upload, methods=["POST"]),
        Route("/api/film", endpoints.film, methods=["POST"]),
        Route("/api/run", endpoints.run, methods=["POST"]),
    ]
    handlers: dict[Any, Callable[..., Any]] = {
        UserError: lambda request, error: _refusal(422, str(error)),
        _Refused: lambda request, error: _refusal(error.status, str(error)),
        ClientDisconnect: lambda request, error: _refusal(400, "the request broke off"),
        404: lambda request, error: _refusal(404, "there is nothing here"),
        405: lambda request, error: _refusal(405, "method not allowed"),
        Exception: lambda request, error: _refusal(500, "something went wrong on the server; its terminal says more"),
    }
    return _Guard(Starlette(routes=routes, exception_handlers=handlers, lifespan=endpoints.lifespan), token, hosts)


class _Endpoints:
    """What the page's requests are answered with, and the threads behind it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.worker = Worker(PLACES)
        self.readers = ThreadPoolExecutor(1, "robustlab-upload")
        self.uploads = 0

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        self.worker.close()
        self.readers.shutdown(wait=False, cancel_futures=True)

    async def health(self, request: Request) -> Response:
        return Response("ok", media_type="text/plain")

    async def meta(self, request: Request) -> Response:
        return _json(self.page.described())

    async def starter(self, request: Request) -> Response:
        number: str = request.path_params["number"]
        # Long numbers are none of ours; Python itself refuses to read those of thousands of digits.
        if not (number.isascii() and number.isdigit() and len(number) < 10 and int(number) < len(self.page.starters)):
            return _refusal(404, "there is no such picture")
        return Response(self.page.starters[int(number)].picture, media_type="application/octet-stream")

    async def upload(self, request: Request) -> Response:
        if self.uploads >= UPLOADS:
            return _busy("other pictures are being read")
        self.uploads += 1
        try:
            part = _part(request.query_params.get("part"))
            content = await _body(request, UPLOAD_BYTES)
            picture = await asyncio.get_running_loop().run_in_executor(self.readers, decode_upload, content, self.page.size, part)
        finally:
            self.uploads -= 1
        return Response(picture, media_type="application/octet-stream")

    async def film(self, request: Request) -> Response:
        content = await _body(request, MOST_FRAMES * (3 * self.page.size**2 + 10))
        film = await asyncio.get_running_loop().run_in_executor(self.readers, animated, content, self.page.size)
        return Response(film, media_type="image/gif")

    async def run(self, request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _refusal(415, "a run is asked for in JSON, content type application/json")
        # Two pictures in base64, and room for the rest.
        wanted = read_request(await _body(request, 8 * self.page.size**2 + 10_000), self.page.models, self.page.size)
        if self.worker.full:
            return _busy("others are drawing too")
        return _RunResponse(self.worker, wanted)


def serve_page(page: Page, host: str, port: int, *, token: str | None = None, on_ready: Callable[[str], object] = print) -> None:
    """Serve until interrupted.

    Args:
        page: what is served.
        host: address to listen on.
        port: 0 for any free one.
        token: asked for by everything but the page's own files; needed unless ``host`` is this machine alone.
        on_ready: called with the address to open once connections are accepted.

    Raises:
        UserError: no token where one is needed or one that no address can carry, or the address cannot be listened on.
    """
    with _listener(host, port, token) as listener:
        on_ready(_address(host, listener, token))
        _server(page, host, token).run(sockets=[listener])


class RunningPage:
    """A page that is served by a thread of this process until ``stop``, or until a ``with`` block ends.

    Attributes:
        address: to be opened in a browser.
    """

    def __init__(self, page: Page, host: str, port: int, token: str | None) -> None:
        listener = _listener(host, port, token)
        self.address = _address(host, listener, token)
        self._server = _server(page, host, token)
        self._thread = threading.Thread(target=self._serve, args=(listener,), name="robustlab-page", daemon=True)
        self._thread.start()

    def _serve(self, listener: socket.socket) -> None:
        with listener:
            self._server.run(sockets=[listener])

    def stop(self) -> None:
        """Close the page; runs that are being made are abandoned."""
        self._server.should_exit = True
        self._thread.join()

    def __enter__(self) -> RunningPage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<page at {self.address}>"

    def _repr_html_(self) -> str:
        return f'<a href="{self.address}" target="_blank">{self.address}</a>'


def start_page(page: Page, host: str, port: int, *, token: str | None = None) -> RunningPage:
    """Serve in the background, as a notebook needs it, whose main thread has other things to do.

    Args:
        page: what is served.
        host: address to listen on.
        port: 0 for any free one.
        token: see ``serve_page``.

    Raises:
        UserError: as ``serve_page``.
    """
    return RunningPage(page, host, port, token)


def _server(page: Page, host: str, token: str | None) -> uvicorn.Server:
    config = uvicorn.Config(
        application(page, token=token, hosts=(*LOOPBACK, _name_of(host)) if is_local(host) else None),
        http=Connection,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=2 * CONNECTIONS,  # a second line of defence, behind ``Connection``
        timeout_graceful_shutdown=2,
        ws="none",
    )
    return uvicorn.Server(config)


def _address(host: str, listener: socket.socket, token: str | None) -> str:
    """What to open in a browser."""
    return f"http://{_name_of(host)}:{listener.getsockname()[1]}/" + (f"#token={token}" if token else "")


def _name_of(host: str) -> str:
    """A host as an address writes it."""
    return f"[{host.strip('[]')}]" if ":" in host else host


def _listener(host: str, port: int, token: str | None) -> socket.socket:
    """A socket that listens, once all is well with the address and its token."""
    if not is_local(host) and not token:
        raise UserError(f"{host} can be reached from other machines, so a token is needed: give a word by `token`")
    check_address(port, token)
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host.strip("[]"), port))
        listener.listen(CONNECTIONS)
    except OSError as error:
        listener.close()
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror or error}; another `port` may be free") from error
    return listener


def check_address(port: int, token: str | None) -> None:
    """Refuse a port that there is not, and a token that cannot be part of an address and of a header.

    Raises:
        UserError: says what is allowed.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"a port is a number up to 65535, got {port}")
    allowed = set(string.ascii_letters + string.digits + "-_.~")
    if token is not None and (len(token) < SHORTEST_TOKEN or not set(token) <= allowed):
        raise UserError(f"a token needs at least {SHORTEST_TOKEN} letters, digits or -_.~; where none is given, one is made up")


def is_local(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class _Refused(Exception):
    """A request that is not read to its end."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def _json(content: Any, status: int = 200) -> Response:
    return JSONResponse(content, status)


def _refusal(status: int, sentence: str) -> Response:
    return _json({"error": sentence}, status)


def _busy(why: str) -> Response:
    answer = _refusal(503, f"{why}; try again in a moment")
    answer.headers["retry-after"] = "1"
    return answer


def _part(text: str | None) -> tuple[float, float, float] | None:
    """The square of an upload that is wanted: its left, its top and its side, as shares of the picture's width, height and shorter side."""
    if text is None:
        return None
    try:
        left, top, side = (float(number) for number in text.split(","))
    except ValueError:
        raise UserError("part must be three numbers with commas: left, top and side of a square, as shares of the picture") from None
    if not (0 <= left <= 1 and 0 <= top <= 1 and 0 < side <= 1):
        raise UserError("part must lie in the picture: left and top from 0 to 1, side above 0 and at most 1")
    return left, top, side


def _static(name: str) -> Callable[[Request], Any]:
    """A file of the page, read once, at the start."""
    content = files("robustlab.demo").joinpath("static", name).read_bytes()

    async def endpoint(request: Request) -> Response:
        return Response(content, media_type=STATIC[name])

    return endpoint


async def _body(request: Request, limit: int) -> bytes:
    """A request's body, unless it is larger than ``limit`` or does not come."""
    too_large = _Refused(413, f"at most {limit:,} bytes can be sent here")
    announced = request.headers.get("content-length", "")
    if announced.isascii() and announced.isdigit() and (len(announced) > 15 or int(announced) > limit):
        raise too_large
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                content += part
                if len(content) > limit:
                    raise too_large
    except TimeoutError:
        raise _Refused(408, "the request did not arrive in time") from None
    return bytes(content)


class _RunResponse(StreamingResponse):
    """A run's answer, line by line; abandons the run when the reader has gone, or after ``RUN_SECONDS``."""

    def __init__(self, worker: Worker, request: RunRequest) -> None:
        # Joined here and not when the answer begins: nobody else can take the place in between.
        self.worker, self.run = worker, worker.submit(request)
        super().__init__(_lines(worker, self.run), media_type="application/x-ndjson")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Starlette's own listens for the reader's leaving only where the server asks for it (ASGI before 2.4), else it finds out
        # when it sends; a run in the line sends nothing.
        gone = asyncio.ensure_future(self.listen_for_disconnect(receive))
        answered = asyncio.ensure_future(self.stream_response(send))
        try:
            await asyncio.wait({gone, answered}, timeout=RUN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.worker.abandon(self.run)
            gone.cancel()
            answered.cancel()
            await asyncio.gather(gone, answered, return_exceptions=True)


async def _lines(worker: Worker, run: QueuedRun) -> AsyncIterator[bytes]:
    """What is new of a run, until it ends."""
    shown = -1
    while not run.future.done():
        if (ahead := worker.ahead(run)) and ahead != shown:
            shown = ahead
            yield _line("queued", ahead=ahead)
        if frame := run.take():
            yield _line("frame", **_described(frame))
        await run.news.wait()
        run.news.clear()
    yield _last_line(run)


def _line(type: str, **content: Any) -> bytes:
    return (json.dumps({"type": type, **content}, allow_nan=False) + "\n").encode()


def _last_line(run: QueuedRun) -> bytes:
    try:
        result = run.future.result()
    except UserError as error:
        return _line("error", message=str(error))
    except (Abandoned, CancelledError):
        return _line("error", message="the run was stopped")
    except Exception:  # whatever a model may raise: its reader gets a sentence, the terminal the rest
        log.exception("a run failed")
        return _line("error", message="something went wrong on the server; its terminal says more")
    return _line("done", in_time=result.in_time, why_unchanged=result.why_unchanged, **_described(result.frame))


def _described(frame: Frame) -> dict[str, Any]:
    """A frame as JSON, which has no numbers that are not finite: they are null."""

    def numbers(values: Sequence[float]) -> list[float | None]:
        return [round(value, 4) if math.isfinite(value) else None for value in values]

    return {
        "step": frame.step,
        "distance": round(frame.distance, 4),
        "logits": numbers(frame.logits),
        "levels": numbers(frame.levels),
        "rgb": base64.b64encode(frame.picture).decode(),
    }


class _Guard:
    """In front of everything: who may ask, and the headers of every answer."""

    def __init__(self, app: ASGIApp, token: str | None, hosts: Sequence[str] | None) -> None:
        self.app, self.token, self.hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *((name.encode(), value.encode()) for name, value in HEADERS.items())]
            await send(message)

        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            if name in (b"host", b"origin", b"authorization"):
                if name.decode() in headers:
                    return _refusal(400, "a header came twice")
                headers[name.decode()] = value.decode("latin-1")
        host = headers.get("host", "").lower()
        # A site that has its name point at this machine (DNS rebinding) still calls it by that name.
        if self.hosts is not None and _without_port(host) not in self.hosts:
            return _refusal(400, "this server is not called by that name")
        origin = headers.get("origin")
        if origin is not None and _netloc(origin) != host:
            return _refusal(403, "requests from other sites are not served")
        if self.token is None or not scope["path"].startswith("/api/"):
            return None
        given = headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, b"Bearer " + self.token.encode()):
            return _refusal(401, "a token is needed: open the address that the server printed")
        return None


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _netloc(origin: str) -> str:
    """Host and port of an origin; empty where it is none."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
