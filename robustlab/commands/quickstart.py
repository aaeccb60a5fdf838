"""``robustlab quickstart``: a standard and a robust model, trained, attacked and compared, and one page about them."""

from __future__ import annotations

import dataclasses
import sys

from robustlab.commands import settings
from robustlab.commands.common import choose_device, computes_bfloat16
from robustlab.experiments.quickstart import Settings, quickstart
from robustlab.options import value_of


def run(args: settings.Quickstart) -> None:
    """The command. Called again after an interruption, it goes on where it was."""
    device = choose_device(args.machine.device, args.machine.threads)
    try:
        found = quickstart(
            Settings(**{field.name: value_of(args, field.name) for field in dataclasses.fields(Settings)}),
            out=args.output.out,
            device=device,
            workers=args.machine.workers,
            bfloat16=computes_bfloat16(device),
            download=args.data.download,
            say=print,
        )
    except KeyboardInterrupt:
        print("the same quickstart command goes on from here", file=sys.stderr)
        raise
    print(f"\n{found}\n\nthe page with the pictures: {found.page.absolute()}\n\nnext:")
    for command, what in found.next_commands:
        print(f"  {command}\n      {what}")
