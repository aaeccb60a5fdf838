"""What a user is told when something is wrong: one sentence, no traceback, exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake that the user can mend. Commands print its one sentence to stderr and exit with code 2."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not known, with the nearest one that is.

    Args:
        kind: what was looked up, in the singular: ``"architecture"``.
        name: what the user wrote.
        known: every name that would have been right.
    """
    names = sorted(known)
    by_lower = {n.lower(): n for n in names}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.4)
    guess = f" Did you mean {by_lower[near[0]]!r}?" if near else ""
    return UserError(f"unknown {kind} {name!r}.{guess} Known: {', '.join(names)}")


def in_one_line(error: BaseException, most: int = 300) -> str:
    """What an exception says, in one line that can be printed."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    text = " ".join(text.split()) or type(error).__name__
    return "".join(c if c.isprintable() else "?" for c in text)[:most]
