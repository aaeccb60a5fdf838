"""Names of classes: what a name may be, and how two classes of one name are told apart.

Models and images are matched by these names, so each must mean one class.
"""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence

from torch import Tensor

from robustlab.checks import MOST_CLASSES, check_distinct
from robustlab.errors import UserError

LONGEST = 1000  # characters of a name
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_NO_TEXT = re.compile("[\ud800-\udfff]")  # what stands for bytes that are no UTF-8


def check_names(source: str, names: Sequence[str]) -> None:
    """Refuse names that are no text, too many of them, and two classes of one name. What cannot be printed is escaped where it is written.

    Args:
        source: what has these classes, for the message.
        names: of the classes, by number.

    Raises:
        UserError: one of these; names the class.
    """
    if len(names) > MOST_CLASSES:
        raise UserError(f"{source}: {len(names):,} classes are too many: at most {MOST_CLASSES:,}")
    for number, name in enumerate(names):
        if not isinstance(name, str):
            raise UserError(f"{source}: the name of class {number} must be text, got {type(name).__name__}")
        if not name.isascii() and _NO_TEXT.search(name):
            raise UserError(f"{source}: the name of class {number}, {name[:60]!a}, is not UTF-8: rename it")
        if len(name) > LONGEST:
            raise UserError(f"{source}: the name of class {number}, {name[:40]!a}..., is longer than {LONGEST} characters")
    check_distinct(names, source)


def folder_classes(source: str, names: Sequence[str]) -> tuple[str, ...]:
    """The names of class folders as names of classes, with letters with accents in one form whatever the archive had.

    Args:
        source: the folder that holds them, for the message.
        names: of the class folders.

    Raises:
        UserError: a name that is not UTF-8 or holds a control character, or two that differ only in their form.
    """
    for number, name in enumerate(names):
        if _CONTROL.search(name):
            raise UserError(f"{source}: the name of class {number}, {name[:60]!a}, holds a control character: rename its folder")
    found = tuple(map(composed, names))
    check_names(source, found)
    return found


def told_apart(source: str, names: Iterable[object]) -> tuple[str, ...]:
    """Names that data bring along; several classes of one name get their numbers into it, ``crane (134)`` and ``crane (517)``.

    Args:
        source: what has these classes, for messages.
        names: by number.

    Raises:
        UserError: a name that is no text, or too many of them.

    Warns:
        UserWarning: several classes of one name.
    """
    found = list(map(str, names))
    doubles, taken, renamed = _doubles(found), set(found), []
    for number, name in enumerate(found):
        if name in doubles:
            found[number] = _free(f"{name} ({number})", taken)
            taken.add(found[number])
            renamed.append(found[number])
    if renamed:
        several = ", ".join(ascii(name) for name in renamed[:3]) + (", ..." if len(renamed) > 3 else "")
        warnings.warn(
            f"{source}: {len(renamed)} classes share their names with others, and are told apart by number: {several}", stacklevel=3
        )
    check_names(source, found)
    return tuple(found)


def numbers(source: str, labels: Tensor) -> tuple[str, ...]:
    """Names for classes that have none: ``0, 1, ...`` up to the largest label.

    Args:
        source: what has these labels, for the message.
        labels: of any integer type and shape.

    Raises:
        UserError: more classes than can be.
    """
    highest = int(labels.max()) if labels.numel() else -1
    if highest >= MOST_CLASSES:
        raise UserError(f"{source}: label {highest} means {highest + 1:,} classes, and at most {MOST_CLASSES:,} are read")
    return tuple(map(str, range(highest + 1)))


def composed(name: str) -> str:
    """A name in Unicode's composed form (NFC): file systems and archives differ in the form that they keep."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def with_commas(names: Sequence[str], known: Iterable[str]) -> list[str]:
    """Names out of a list that was cut at commas: parts that make the name of a class with commas together are put together again.

    Args:
        names: the parts.
        known: the names that there are.
    """
    whole, found, rest = set(known), [], list(names)
    while rest:
        joined = ((k, comma.join(rest[:k])) for k in range(1, len(rest) + 1) for comma in (", ", ","))
        length, name = next(((k, name) for k, name in joined if name in whole), (1, rest[0]))
        found.append(name)
        rest = rest[length:]
    return found


def _doubles(names: Sequence[str]) -> dict[str, int]:
    """Names that several classes have, and how many."""
    return {name: count for name, count in Counter(names).items() if count > 1}


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "'"
    return name
