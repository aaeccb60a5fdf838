"""``robustlab demo``: the interactive page in a browser; see ``robustlab.demo``."""

from __future__ import annotations

import secrets
import string
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from robustlab.commands import settings
from robustlab.commands.common import check_reads, choose_device, load_model, open_data, short_names
from robustlab.demo.attributes import attributes_of
from robustlab.demo.session import Served
from robustlab.demo.starters import examples, sketches
from robustlab.errors import UserError
from robustlab.models.checkpoints import read_record
from robustlab.models.zoo import released

SHORTEST_TOKEN = 12


def run(args: settings.Demo) -> None:
    """Load the models and serve until Ctrl-C."""
    if not (find_spec("starlette") and find_spec("uvicorn")):
        raise UserError("the page needs the packages starlette and uvicorn; install them by: pip install robustlab[web]")
    from robustlab.demo.server import Page, is_local, serve

    token = args.server.token
    if token is None and not is_local(args.server.host):
        token = secrets.token_urlsafe(18)
    _check_token(token)
    if args.server.port > 65535:
        raise UserError(f"a port is a number up to 65535, got {args.server.port}")
    device = choose_device(args.machine.device, args.machine.threads)
    known = released()
    # Robust ones first: the first is chosen when the page opens, and others draw only noise.
    names = sorted(known, key=lambda name: known[name]["threat"] == "none") if args.model.name is None else args.model.name.split(",")
    if not names:
        raise UserError("which model? --model takes checkpoints' paths, or names of released models, and none is released yet")
    generated = args.data.path is None and args.data.dataset in (None, "shapes")
    images = open_data(args.data.dataset, args.data.path, "test", image_size=args.data.image_size, limit=10 if generated else None)
    starters = [*sketches(images.shape[-1]), *examples(images)]
    models: dict[str, Served] = {}
    for name, word in short_names(names).items():
        model = load_model(name, args.model).to(device)
        if not generated and model.unnamed and model.num_classes == len(images.classes):
            model.classes = images.classes
        served = Served(word, _note(model.arch, known.get(name) or _record(name)), model, attributes_of(model))
        check_reads(served.outputs, (3, *images.shape[1:]), served.name, device)
        models[served.name] = served
    page = Page(models, images.shape[-1], starters, _device_name(device))

    def ready(address: str) -> None:
        if not is_local(args.server.host):
            print("warning: other machines can reach this page; whoever has the address below, with its token, can use it")
        print(f"{', '.join(models)} on {page.device}\nopen {address}   (Ctrl-C ends it)", flush=True)

    serve(page, args.server.host, args.server.port, token=token, on_ready=ready)


def _check_token(token: str | None) -> None:
    """It goes into an address and a header."""
    allowed = set(string.ascii_letters + string.digits + "-_.~")
    if token is not None and (len(token) < SHORTEST_TOKEN or not set(token) <= allowed):
        raise UserError(f"a token needs at least {SHORTEST_TOKEN} letters, digits or -_.~; without --token one is made up")


def _record(name: str) -> dict[str, Any] | None:
    """What lies beside weights of our own, which is more than a checkpoint says."""
    path = Path(name)
    return read_record(path.with_suffix(".json")) if path.suffix in (".json", ".safetensors") and path.exists() else None


def _note(arch: str, record: dict[str, Any] | None) -> str:
    """What is known of a model, in one line."""
    if record is None:
        return arch or "a network of your own"
    threat = "not trained against attacks" if record["threat"] == "none" else f"trained against {record['threat']}"
    numbers = ", ".join(f"{what} {value:.1f} %" for what, value in record["accuracies"].items())
    return f"{record['arch']} on {record['dataset']}, {threat}" + (f": {numbers}" if numbers else "")


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "1 CPU thread" if torch.get_num_threads() == 1 else f"{torch.get_num_threads()} CPU threads"
