"""The console command ``robustlab``; the scripts in ``scripts/`` come in through the same door."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, TextIO

from robustlab.commands import settings
from robustlab.commands.flags import parse, with_flags
from robustlab.errors import UserError, unknown
from robustlab.paths import shown

COMMANDS = {
    "quickstart": settings.Quickstart,
    "train": settings.Train,
    "evaluate": settings.Evaluate,
    "certify": settings.Certify,
    "construct": settings.Construct,
    "export": settings.Export,
    "reproduce": settings.Reproduce,
    "communities": settings.Communities,
    "isomorphic": settings.Isomorphic,
    "synthesize": settings.Synthesize,
    "demo": settings.Demo,
    "models": settings.Models,
}
MESSAGE = 20_000  # characters; a list of a thousand classes is one sentence too


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 after a mistake of the user's, 130 after Ctrl-C."""
    try:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _warn
                return _run(list(sys.argv[1:] if argv is None else argv))
        finally:
            _write(sys.stdout)
    except UserError as error:
        _write(sys.stderr, f"robustlab: {shown(str(error), MESSAGE)}\n")
        return 2
    except KeyboardInterrupt:
        _write(sys.stderr, "robustlab: interrupted\n")
        return 130
    except BrokenPipeError:
        _silence(sys.stdout)  # the reader of our output, such as `head`, has gone
        return 1


def _write(stream: TextIO, text: str = "") -> None:
    """Write and flush; where the terminal was closed the work has its exit code all the same."""
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        _silence(stream)


def _silence(stream: TextIO) -> None:
    """Let what is still to be written go nowhere: there is nobody left to tell."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _warn(message: Warning | str, *where: Any, **more: Any) -> None:
    """One sentence, without the place in the code that it comes from."""
    _write(sys.stderr, f"warning: {shown(str(message), MESSAGE)}\n")


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else 2
    name, rest = argv[0], argv[1:]
    if name == "--version":
        print(import_module("robustlab").__version__)
        return 0
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    args: Any = parse(COMMANDS[name], rest, f"robustlab {name}")
    # Read by torch's OpenMP when it is loaded. By default its threads spin while they wait for each other, which costs most
    # of the speed as soon as anything else runs on the same cores (two threads beside one busy process: measured 1/4 to 1/8).
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    # Only now, since this imports torch: help and mistakes in the flags are answered at once.
    command = import_module(f"robustlab.commands.{name}")
    warnings.showwarning = lambda message, *where, **more: _warn(with_flags(str(message), type(args)))
    try:
        command.run(args)
    except UserError as error:
        raise UserError(with_flags(str(error), type(args))) from error
    return 0


def usage() -> str:
    """One line per command."""
    lines = [f"  {name:<12}{(cls.__doc__ or '').strip()}" for name, cls in COMMANDS.items()]
    return "\n".join(["usage: robustlab COMMAND [--FLAG VALUE ...]", "", *lines, "", "robustlab COMMAND --help lists its flags."])
