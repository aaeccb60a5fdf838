"""Text that others chose, names of classes and sets say, as part of what the project writes: one place for each language.

HTML has its own in the standard library, ``html.escape``.
"""

from __future__ import annotations

import json
import re


def markdown_text(text: str, *, pipes: bool = True) -> str:
    """Text within a line of Markdown, which is shown as it is.

    Args:
        text: in one line or several, which become one.
        pipes: escape these too; not where a table does so.
    """
    special = "\\`*_<>[]#&~" + ("|" if pipes else "")
    return "".join(("\\" + c if c in special else c) if c.isprintable() else " " for c in text)


def markdown_code(text: str) -> str:
    """Text as code within a line of Markdown, between more backticks than follow each other in it."""
    line = "".join(c if c.isprintable() else " " for c in text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    return f"{fence}{line}{fence}" if len(fence) == 1 else f"{fence} {line} {fence}"


def yaml_text(text: str) -> str:
    """A YAML string; JSON's, but for characters that YAML allows only by their number."""
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in json.dumps(text, ensure_ascii=False))
