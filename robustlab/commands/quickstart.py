"""``robustlab quickstart``: a standard and a robust model, trained, attacked and compared, and one page about them."""

from __future__ import annotations

import dataclasses
import sys

from robustlab.commands import settings
from robustlab.commands.common import choose_device, computes_bfloat16
from robustlab.experiments.quickstart import Settings, quickstart


def run(args: settings.Quickstart) -> None:
    """The command. Called again after an interruption, it goes on where it was."""
    device = choose_device(args.device, args.threads)
    try:
        found = quickstart(
            Settings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Settings)}),
            out=args.out,
            device=device,
            workers=args.workers,
            bfloat16=computes_bfloat16(device),
            download=args.download,
            say=print,
        )
    except KeyboardInterrupt:
        print("the same quickstart command goes on from here", file=sys.stderr)
        raise
    print(f"\n{found}\n\nthe page with the pictures: {found.page.absolute()}\n\nnext:")
    for command, what in found.next_commands:
        print(f"  {command}\n      {what}")
