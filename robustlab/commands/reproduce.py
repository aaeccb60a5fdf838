"""``robustlab reproduce NAME``: an experiment of the talks; see ``robustlab.experiments``."""

from __future__ import annotations

import os
import sys
import time

from robustlab.commands import settings
from robustlab.commands.common import choose_device, computes_bfloat16
from robustlab.experiments.claims import SHARED, check_experiment, configured, reproduce
from robustlab.options import value_of


def run(args: settings.Reproduce) -> None:
    """The command."""
    check_experiment(args.experiment, args.data)
    name, scale, changes = str(args.experiment), args.settings.scale, {word: value_of(args, word) for word in SHARED}
    configured(name, scale, changes)  # before the device is chosen, which may take long
    device = choose_device(args.machine.device, args.machine.threads)
    bfloat16 = computes_bfloat16(device) if args.machine.amp is None else args.machine.amp
    try:
        found = reproduce(name, args.data, out=args.out, scale=scale, device=device, bfloat16=bfloat16, say=_say, **changes)
    except KeyboardInterrupt:
        print("the same command goes on from here", file=sys.stderr)
        raise
    print("\n\n".join(str(table) for table in found.tables))


def _say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')} {os.getpid()}] {text}", file=sys.stderr, flush=True)
