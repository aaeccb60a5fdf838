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
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from robustlab import __version__
from robustlab.demo.raster import BLANK
from robustlab.demo.session import LARGEST, Abandoned, Frame, Order, Served, read_order
from robustlab.demo.starters import Starter
from robustlab.demo.uploads import decode
from robustlab.demo.worker import Job, Worker
from robustlab.errors import UserError

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
PLACES = 8  # runs that are made or wait; further ones are told to come again
UPLOADS = 2  # pictures read at a time
UPLOAD_BYTES = 16 << 20
BODY_SECONDS = 30.0  # for a request's body to arrive
RUN_SECONDS = 600.0  # for a run's answer, the waiting included
CONNECTIONS = 128
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


@dataclass(frozen=True)
class Page:
    """What is served.

    Attributes:
        models: by name, the first one chosen at the start.
        size: height and width of all pictures.
        device: in words, for the page's foot.
    """

    models: Mapping[str, Served]
    size: int
    starters: Sequence[Starter] = ()
    device: str = "cpu"

    def described(self) -> dict[str, Any]:
        """What the page needs to know at the start."""
        return {
            "version": __version__,
            "size": self.size,
            "blank": BLANK,
            "device": self.device,
            "largest": LARGEST,
            "starters": [starter.name for starter in self.starters],
            "models": [
                {
                    "name": served.name,
                    "note": served.note,
                    "classes": served.model.classes,
                    "attributes": [{"name": attribute.name, "hint": attribute.hint} for attribute in served.attributes],
                }
                for served in self.models.values()
            ],
        }


def application(page: Page, *, token: str | None = None, hosts: Sequence[str] | None = LOOPBACK) -> ASGIApp:
    """The page as an ASGI application.

    Args:
        token: asked for by everything under ``/api/``, where given.
        hosts: names under which it may be called; None for any, which is for a server with a token.
    """
    worker = Worker(PLACES)
    readers = ThreadPoolExecutor(1, "robustlab-upload")
    uploads = 0

    async def meta(request: Request) -> Response:
        return _json(page.described())

    async def health(request: Request) -> Response:
        return Response("ok", media_type="text/plain")

    async def starter(request: Request) -> Response:
        number = request.path_params["number"]
        if number >= len(page.starters):
            return _refusal(404, "there is no such picture")
        return Response(page.starters[number].picture, media_type="application/octet-stream")

    async def upload(request: Request) -> Response:
        nonlocal uploads
        if uploads >= UPLOADS:
            return _busy("other pictures are being read")
        uploads += 1
        try:
            content = await _body(request, UPLOAD_BYTES)
            loop = asyncio.get_running_loop()
            picture = await loop.run_in_executor(readers, decode, content, page.size)
        finally:
            uploads -= 1
        return Response(picture, media_type="application/octet-stream")

    async def run(request: Request) -> Response | _Stream:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return _refusal(415, "a run is asked for in JSON, content type application/json")
        # Two pictures in base64, and room for the rest.
        order = read_order(await _body(request, 8 * page.size**2 + 10_000), page.models, page.size)
        if worker.full:
            return _busy("others are drawing too")
        return _Stream(worker, order)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        worker.close()
        readers.shutdown(wait=False, cancel_futures=True)

    routes = [
        Route("/", _static("index.html")),
        *(Route(f"/static/{name}", _static(name)) for name in STATIC),
        Route("/healthz", health),
        Route("/api/meta", meta),
        Route("/api/starter/{number:int}", starter),
        Route("/api/upload", upload, methods=["POST"]),
        Route("/api/run", run, methods=["POST"]),
    ]
    handlers: dict[Any, Callable[..., Any]] = {
        UserError: lambda request, error: _refusal(422, str(error)),
        _Refused: lambda request, error: _refusal(error.status, str(error)),
        ClientDisconnect: lambda request, error: _refusal(400, "the request broke off"),
        404: lambda request, error: _refusal(404, "there is nothing here"),
        405: lambda request, error: _refusal(405, "this is not how to ask for it"),
        Exception: lambda request, error: _refusal(500, "something went wrong on the server; its terminal says more"),
    }
    return _Guard(Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan), token, hosts)


def serve(page: Page, host: str, port: int, *, token: str | None = None, on_ready: Callable[[str], object] = print) -> None:
    """Serve until interrupted.

    Args:
        port: 0 for any free one.
        token: needed unless ``host`` is this machine alone.
        on_ready: told the address to open once connections are accepted.

    Raises:
        UserError: no token where one is needed, or the address cannot be listened on.
    """
    local = is_local(host)
    if not local and not token:
        raise UserError(f"{host} can be reached from other machines, so a token is needed: --token WORD")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    with listener:
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host.strip("[]"), port))
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise UserError(f"cannot listen on {host}:{port}: {why}; another --port may be free") from error
        listener.listen(CONNECTIONS)
        name = f"[{host.strip('[]')}]" if ":" in host else host
        address = f"http://{name}:{listener.getsockname()[1]}/" + (f"#token={token}" if token else "")
        config = uvicorn.Config(
            application(page, token=token, hosts=LOOPBACK if local else None),
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=CONNECTIONS,
            timeout_graceful_shutdown=2,
            ws="none",
        )
        on_ready(address)
        uvicorn.Server(config).run(sockets=[listener])


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


class _Stream(Response):
    """A run's answer, line by line; abandons the run when the reader has gone."""

    def __init__(self, worker: Worker, order: Order) -> None:
        super().__init__(media_type="application/x-ndjson")
        self.worker = worker
        # Joined here and not when the answer begins: nobody else can take the place in between.
        self.job = worker.submit(order)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        gone, told = asyncio.ensure_future(_gone(receive)), asyncio.ensure_future(self._tell(send, headers))
        try:
            await asyncio.wait({gone, told}, timeout=RUN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.worker.abandon(self.job)
            gone.cancel()
            told.cancel()
            await asyncio.gather(gone, told, return_exceptions=True)

    async def _tell(self, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        job = self.job

        async def line(kind: str, more: bool = True, **content: Any) -> None:
            body = (json.dumps({"type": kind, **content}, allow_nan=False) + "\n").encode()
            await send({"type": "http.response.body", "body": body, "more_body": more})

        await send({"type": "http.response.start", "status": 200, "headers": headers})
        shown = -1
        while not job.future.done():
            if (ahead := self.worker.ahead(job)) and ahead != shown:
                shown = ahead
                await line("queued", ahead=ahead)
            if frame := job.take():
                await line("frame", **_told(frame))
            await job.news.wait()
            job.news.clear()
        await line(more=False, **_ending(job))


async def _gone(receive: Receive) -> None:
    """Returns when the reader has."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _ending(job: Job) -> dict[str, Any]:
    """The last line."""
    try:
        outcome = job.future.result()
    except UserError as error:
        return {"kind": "error", "message": str(error)}
    except (Abandoned, CancelledError):
        return {"kind": "error", "message": "the run was stopped"}
    except Exception:
        log.exception("a run failed")
        return {"kind": "error", "message": "something went wrong on the server; its terminal says more"}
    return {"kind": "done", "in_time": outcome.in_time, "stays": outcome.stays, **_told(outcome.frame)}


def _told(frame: Frame) -> dict[str, Any]:
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
