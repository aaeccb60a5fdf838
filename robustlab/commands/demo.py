"""``robustlab demo``: the interactive page in a browser; see ``robustlab.demo``."""

from __future__ import annotations

from robustlab.commands import settings
from robustlab.commands.common import choose_device, load_model
from robustlab.data.catalog import open_dataset
from robustlab.demo import make_page
from robustlab.demo.launch import check_packages, token_for
from robustlab.options import paths


def run(args: settings.Demo) -> None:
    """Load the models and serve until Ctrl-C."""
    check_packages()
    from robustlab.demo import server

    token = token_for(args.server.host, args.server.token)
    server.check_address(args.server.port, token)  # a mistake in these is told before anything is read
    device = choose_device(args.machine.device, args.machine.threads)
    generated = args.data.path is None and args.data.dataset in (None, "shapes")
    data, limit = args.data, 10 if generated else None
    images = open_dataset(data.dataset, data.path, "test", image_size=data.image_size, limit=limit)
    models = None if args.model.name is None else paths(args.model.name)
    # Generated pictures are there to begin with; their classes say nothing of a model's.
    page = make_page(models, None if generated else images, device=device, load=lambda name: load_model(name, args.model))

    def ready(address: str) -> None:
        if not server.is_local(args.server.host):
            print("warning: other machines can reach this page; whoever has the address below, with its token, can use it")
        print(f"{', '.join(page.models)} on {page.device}\nopen {address}   (Ctrl-C ends it)", flush=True)

    server.serve_page(page, args.server.host, args.server.port, token=token, on_ready=ready)
