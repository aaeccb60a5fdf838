"""For the site: a docstring may explain several arguments at once, ``a, b: two images``; each gets a row of its own."""

from __future__ import annotations

import re
from typing import Any

import griffe

# An entry of a section, with its further lines, which are indented more.
ENTRY = re.compile(r"^( +)(\w+(?:, \w+)+): (.*(?:\n\1 +\S.*)*)", re.M)


class OneArgumentEach(griffe.Extension):
    """Rewrites docstrings before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            head, args, rest = obj.docstring.value.partition("Args:\n")
            obj.docstring.value = head + args + ENTRY.sub(_apart, rest)


def _apart(entry: re.Match[str]) -> str:
    indent, names, text = entry.groups()
    return "\n".join(f"{indent}{name}: {text}" for name in names.split(", "))
