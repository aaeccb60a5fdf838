"""What a user calls a place: the home folder behind ``~``, names that no file can have, and how messages show a path."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

from robustlab.errors import UserError, in_one_line

LIBRARIES = ("torchvision", "timm", "robustbench")  # whose models have names such as torchvision:resnet18
FUNCTION = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")


def names_function(name: object) -> bool:
    """Whether a model's name, or one of several with , or + between them, is ``module:function``: code that runs when it is loaded."""
    parts = re.split(r"[,+]", name) if isinstance(name, str) and ":" in name else ()
    own = [part.strip() for part in parts if FUNCTION.fullmatch(part.strip())]
    return any(part.partition(":")[0] not in LIBRARIES and not os.path.exists(part) for part in own)


def place_of(path: str | os.PathLike[str]) -> Path:
    """A path as a user wrote it, with ``~`` as the home folder; the shell leaves that alone in ``--out=~/x``, and so do files.

    Raises:
        UserError: no file can have that name: it is too long, or holds a NUL.
    """
    found = Path(os.path.expanduser(path))
    try:
        os.lstat(found)
    except ValueError as error:  # a NUL, or letters that the file system's encoding lacks
        raise UserError(f"{shown(path)} can be no path: {in_one_line(error)}") from error
    except OSError as error:
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL):
            raise UserError(f"{shown(path)} can be no path: {error.strerror}") from error
    return found


def shown(path: str | os.PathLike[str], most: int = 400) -> str:
    """A path as a message shows it: in one line, not without end, and with escapes for what cannot be printed."""
    text = os.fspath(path).encode("utf-8", "backslashreplace").decode()
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 4 :]}"
