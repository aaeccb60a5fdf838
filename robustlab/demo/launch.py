"""The page in a browser with one call: ``serve`` until Ctrl-C, or ``start`` in the background of a notebook."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from robustlab.data.adapt import Data
from robustlab.demo.page import Models, make_page
from robustlab.errors import UserError
from robustlab.models import zoo
from robustlab.models.classifier import Classifier

if TYPE_CHECKING:
    from robustlab.demo.server import RunningPage


def serve(
    models: Models | None = None,
    images: Data | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    token: str | None = None,
    device: torch.device | str | None = None,
    load: Callable[[str], Classifier] = zoo.load,
    on_ready: Callable[[str], object] = print,
) -> None:
    """Serve the page until Ctrl-C.

        from robustlab import demo, load
        demo.serve([load("runs/robust/best.pt"), "cifar10-small-standard"], "datasets/cifar10")

    Args:
        models, images, device, load: see ``make_page``.
        host: address to listen on; any but this machine's own needs a token.
        port: 0 for any free one.
        token: word that the page's address must carry; made up where one is needed and none is given.
        on_ready: called with the address to open once connections are accepted.

    Raises:
        UserError: the packages for the page are missing; no such model, or images that it cannot read; an address that cannot
            be listened on; a token that no address can carry.
    """
    check_packages()
    from robustlab.demo.server import serve_page

    page = make_page(models, images, device=device, load=load)
    serve_page(page, host, port, token=token_for(host, token), on_ready=on_ready)


def start(
    models: Models | None = None,
    images: Data | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    device: torch.device | str | None = None,
    load: Callable[[str], Classifier] = zoo.load,
) -> RunningPage:
    """Serve the page in the background, on any free port where none is named.

        page = demo.start(model)
        page.address
        page.stop()

    Args:
        models, images, device, load: see ``make_page``.
        host, port, token: see ``serve``.

    Raises:
        UserError: as ``serve``.
    """
    check_packages()
    from robustlab.demo.server import start_page

    return start_page(make_page(models, images, device=device, load=load), host, port, token=token_for(host, token))


def check_packages() -> None:
    """Refuse to begin without the packages that serve a page.

    Raises:
        UserError: says how to install them.
    """
    if not (find_spec("starlette") and find_spec("uvicorn")):
        raise UserError("the page needs the packages starlette and uvicorn; install them by: pip install 'robustlab[web]'")


def token_for(host: str, token: str | None) -> str | None:
    """The token that a page at an address asks for: the one that is given, or one made up where other machines can reach it."""
    from robustlab.demo.server import is_local

    return secrets.token_urlsafe(18) if token is None and not is_local(host) else token
