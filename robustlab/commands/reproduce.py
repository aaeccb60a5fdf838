"""``robustlab reproduce NAME``: an experiment of the talks; stopped anywhere, it goes on where it was; several processes may share it."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from robustlab import files
from robustlab.commands import settings
from robustlab.commands.common import choose_device, computes_bfloat16, interruptible
from robustlab.errors import UserError, unknown
from robustlab.experiments import EXPERIMENTS
from robustlab.experiments.cache import ExperimentCache
from robustlab.options import value_of
from robustlab.records import environment
from robustlab.reports.plots import heat_map

WITHOUT_DATA = ("known-features",)
SETTINGS = {"limit": "n", "model": "source", "eps": "eps", "steps": "steps", "arch": "arch", "epochs": "epochs", "seeds": "seeds"}


def run(args: settings.Reproduce) -> None:
    """The command."""
    if args.experiment is None:
        raise UserError(f"which experiment? One of: {', '.join(f'{name} ({what})' for name, what in EXPERIMENTS.items())}")
    if args.experiment not in EXPERIMENTS:
        raise unknown("experiment", args.experiment, EXPERIMENTS)
    if args.data is None and args.experiment not in WITHOUT_DATA:
        raise UserError(f"the experiment {args.experiment!r} needs images: --data PATH")
    module = import_module(f"robustlab.experiments.{args.experiment.replace('-', '_')}")
    config = configured(module.FULL if args.settings.scale == "full" else module.Config(), args)
    device = choose_device(args.machine.device, args.machine.threads)
    out, began = Path(args.out), time.monotonic()
    with interruptible() as noted:
        cache = ExperimentCache(
            out,
            args.data,
            device,
            computes_bfloat16(device) if args.machine.amp is None else args.machine.amp,
            say=lambda text: print(f"[{time.strftime('%H:%M:%S')} {os.getpid()}] {text}", file=sys.stderr, flush=True),
            stop=lambda: bool(noted),
        )
        try:
            found = module.run(cache, config)
        except KeyboardInterrupt:
            print("the same command goes on from here", file=sys.stderr)
            raise
    text = "\n\n".join(str(table) for table in found.tables)
    files.write_text(out / f"{args.experiment}.md", text + "\n")
    for name, grid in found.maps.items():
        heat_map(out / f"{name}.png", grid)
    record = {"config": dataclasses.asdict(config), "found": found.numbers, "environment": environment()}
    files.write_json(out / f"{args.experiment}.json", {**record, "seconds_of_the_last_call": round(time.monotonic() - began)})
    print(text)


def configured(config: Any, args: settings.Reproduce) -> Any:
    """The experiment's configuration with what was given on the command line.

    Raises:
        UserError: a setting that this experiment does not have.
    """
    has = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    flags = {flag: name if name in has else f"{name}s" for flag, name in SETTINGS.items()}
    known = [f"--{flag}" for flag, name in flags.items() if name in has and not (flag == "epochs" and isinstance(has[name], tuple))]
    changes = {}
    for flag, name in flags.items():
        value = value_of(args, flag)
        if value is None:
            continue
        if f"--{flag}" not in known:
            raise UserError(f"the experiment {args.experiment!r} has no --{flag}; it has {', '.join(known)}")
        changes[name] = (value,) if isinstance(has[name], tuple) else value
    return dataclasses.replace(config, **changes)
