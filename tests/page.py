"""For the tests of the page: small seeded models, requests, and a client without a network."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.demo.raster import blank
from robustlab.demo.session import Attribute, RunRequest, Served
from robustlab.models.classifier import Classifier

SIZE = 16
CLASSES = ("apple", "boat", "cloud", "drum")


def classifier(classes: tuple[str, ...] = CLASSES, *, pause: float = 0.0, channels: int = 3) -> Classifier:
    """A seeded network of a few filters, with features (B, 24)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        body: list[nn.Module] = [
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 24, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ]
        head = nn.Linear(24, len(classes))
        nn.init.normal_(head.weight)
        if pause:
            body.append(_Pause(pause))
        return Classifier(nn.Sequential(*body), head, mean=[0.5] * channels, std=[0.25] * channels, arch="tiny", classes=classes).eval()


class _Pause(nn.Module):
    """Takes its time, and cannot be traced away."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, x: Tensor) -> Tensor:
        if bool(x.isfinite().any()):  # torch.fx refuses to trace this
            time.sleep(self.seconds)
        return x


def served(name: str = "tiny", **kind: Any) -> Served:
    model = classifier(**kind)
    direction = model.head.weight.detach()[0] - model.head.weight.detach()[1]
    return Served(name, f"{name}, for tests", model, (Attribute("round", "apple rather than boat", direction),))


def blind() -> Served:
    """Sees the same in every picture, so that its gradients are zero."""
    model = classifier()
    with torch.no_grad():
        model.body[0].weight.zero_()  # type: ignore[index]
    return Served("blind", "for tests", model)


def fields(request: RunRequest | None = None, **changed: Any) -> dict[str, Any]:
    """A valid request as the page sends it."""
    picture = b64encode(request.picture if request else bytes(blank(SIZE))).decode()
    whole = {"model": "tiny", "image": picture, "anchor": None, "target": 1, "minimize": False, "eps": 2.0, "step_size": 0.2, "steps": 5}
    return whole | changed


@dataclass
class Answer:
    """What came back over ASGI."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    finished: bool = False

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.body.splitlines()]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def ask(
    app: Any,
    method: str,
    path: str,
    content: bytes | dict[str, Any] = b"",
    headers: dict[str, str] | None = None,
    *,
    leave: Callable[[Answer], bool] = lambda answer: False,
    slowly: float = 0.0,
) -> Answer:
    """One request. ``leave`` is asked after every message whether the reader goes; ``slowly`` is how long it takes to read each."""
    body = json.dumps(content).encode() if isinstance(content, dict) else content
    usual = {"host": "127.0.0.1:8765", **({"content-type": "application/json"} if isinstance(content, dict) else {})}
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (usual | (headers or {})).items()]
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogateescape"),
        "query_string": query.encode("latin-1", "replace"),
        "root_path": "",
        "headers": raw,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8765),
        "state": {},
    }
    answer, gone, sent = Answer(), asyncio.Event(), False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            answer.body += message.get("body", b"")
            answer.finished = not message.get("more_body", False)
        if leave(answer):
            gone.set()
        if slowly:
            await asyncio.sleep(slowly)

    await app(scope, receive, send)
    return answer
