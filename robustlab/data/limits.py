"""What a file may ask for before anything of it is made: a small file must not fill the memory."""

from __future__ import annotations

import os
from pathlib import Path

from robustlab.errors import UserError

HARMLESS = 256 << 20  # bytes that any file may take
EXPANSION = 100  # how many times a file's own size its arrays may take; photographs reach 2, drawings about 30


def check_expansion(path: Path, what: str, declared: int, stored: int) -> None:
    """Refuse an array that is far larger than what the file holds of it, or than this machine's memory.

    Args:
        path: the file, for the message.
        what: what to call the array.
        declared: bytes that it would take.
        stored: bytes that it takes in the file.

    Raises:
        UserError: with both sizes and the limit.
    """
    if declared > max(HARMLESS, EXPANSION * stored):
        raise UserError(
            f"{path}: {what} would take {readable(declared)}, and the file holds {readable(stored)} of it: at most {EXPANSION} times as "
            f"much is read, or {readable(HARMLESS)}"
        )
    memory = memory_bytes()
    if memory is not None and declared > memory:
        raise UserError(f"{path}: {what} would take {readable(declared)}, and this machine has {readable(memory)} of memory")


def memory_bytes() -> int | None:
    """This machine's memory; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def readable(count: int) -> str:
    """Bytes in the largest unit that leaves at least 1."""
    for unit, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"
