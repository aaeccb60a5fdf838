"""Settings as dataclasses whose fields say what they mean: one definition for Python, the command line, TOML files and run folders.

    @dataclass(frozen=True)
    class Threat:
        "What the adversary may do."

        norm: str = option("l2", "norm of the threat model", choices=("linf", "l2", "l1"))
        eps: float | None = option(None, "radius in pixel units of [0, 1] images, such as 0.5 or 8/255", radius)

    @dataclass(frozen=True)
    class Evaluate:
        "Measure a classifier's accuracy."

        threat: Threat = group(Threat)

Settings may hold groups of settings. Within one class every option has a name of its own, so that options can also be written
flat: ``--eps 0.5`` on a command line, ``eps = 0.5`` or ``[threat] eps = 0.5`` in TOML. Standard library only.

Functions that read a value from text, such as ``radius``:

Raises:
    UserError: the text is no such value, in one sentence.
"""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from robustlab.errors import UserError, unknown
from robustlab.paths import place_of

Settings = TypeVar("Settings")
COMMAS = 8  # parts of a list that are tried as one path
LARGEST_WHOLE = (1 << 63) - 1  # of torch's whole numbers
MOST_THREADS = 1024


@dataclass(frozen=True)
class Option:
    """What a setting means and how it is read.

    Attributes:
        help: one sentence for the reader of ``--help``.
        type: from text to the value; None for a switch, which has a ``--no-`` form where its default is None.
        choices: the only values that are allowed.
        metavar: what stands for the value in the help.
        optional_value: the value of a flag that is given without one.
        name: what the option is called outside Python, where that is not the field's name.
        shown: how the help writes the default, where that is not the value itself.
        only_typed: only the command line of this very call, or the caller in Python, may say it: no file and no run folder can, whoever
            they come from. Or a function that tells of a value whether that holds for it.
    """

    help: str
    type: Callable[[str], Any] | None = str
    choices: Sequence[str] | None = None
    metavar: str | None = None
    optional_value: Any = None
    name: str = ""
    shown: str = ""
    only_typed: bool | Callable[[Any], bool] = False

    def must_be_typed(self, value: Any) -> bool:
        """Whether no file may say this value."""
        return self.only_typed(value) if callable(self.only_typed) else self.only_typed and bool(value)


def option(default: Any, help: str, type: Callable[[str], Any] | None = str, **more: Any) -> Any:
    """A field of settings with its help; see ``Option`` for what ``more`` may hold."""
    return field(default=default, metadata={"option": Option(help, type, **more)})


def group(cls: type) -> Any:
    """A field that holds a group of settings, with that group's defaults."""
    return field(default_factory=cls)


@dataclass(frozen=True)
class Leaf:
    """One option of a class of settings.

    Attributes:
        path: the fields that lead to it, its own name last.
        default: its value where nothing is said.
        group: the innermost class that holds it.
    """

    path: tuple[str, ...]
    option: Option
    default: Any
    group: type

    @property
    def name(self) -> str:
        return self.option.name or self.path[-1]

    @property
    def flag(self) -> str:
        """How the option is written on a command line: ``--batch-size``."""
        return f"--{self.name.replace('_', '-')}"


def leaves(cls: type) -> dict[str, Leaf]:
    """All options of a class of settings and of its groups, by name, in order."""
    found: dict[str, Leaf] = {}
    for leaf in _leaves(cls, ()):
        if leaf.name in found:
            raise TypeError(f"{cls.__name__} has two options called {leaf.name!r}")
        found[leaf.name] = leaf
    return found


def _leaves(cls: type, path: tuple[str, ...]) -> Iterator[Leaf]:
    # Those that are named by keyword alone come last, as they do in a call, and under the class that they are inherited from.
    for each in sorted(dataclasses.fields(cls), key=lambda each: each.kw_only is True):
        if "option" in each.metadata:
            home = next(part for part in cls.__mro__ if each.name in part.__dict__.get("__annotations__", {})) if each.kw_only else cls
            yield Leaf((*path, each.name), each.metadata["option"], each.default, home)
        elif isinstance(each.default_factory, type) and dataclasses.is_dataclass(each.default_factory):
            yield from _leaves(each.default_factory, (*path, each.name))


def value_of(settings: Any, name: str) -> Any:
    """The value of an option, by its name."""
    found = settings
    for part in leaves(type(settings))[name].path:
        found = getattr(found, part)
    return found


def changed(settings: Settings, **values: Any) -> Settings:
    """The settings with some options changed, named flat whatever group they are in.

    Raises:
        UserError: an option that these settings do not have (names the nearest), or a value that a command line would refuse too.
    """
    known = leaves(type(settings))
    inner: dict[str, dict[str, Any]] = {}
    own: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise unknown("setting", name, known)
        check_value(known[name], value)
        first, *rest = known[name].path
        if rest:
            inner.setdefault(first, {})[name] = value
        else:
            own[first] = value
    groups = {first: changed(getattr(settings, first), **some) for first, some in inner.items()}
    return dataclasses.replace(settings, **own, **groups)  # type: ignore[type-var]


def check_value(leaf: Leaf, value: Any) -> None:
    """Refuse a value of an option that could not be written on a command line, or would be refused there.

    Args:
        value: as Python has it: a number, text, a list.

    Raises:
        UserError: with the option's name.
    """
    option = leaf.option
    if value is None or value == leaf.default:
        if value is None and leaf.default is not None:
            raise UserError(f"{leaf.name} must have a value, such as {leaf.default!r}")
        return
    if option.type is None:
        if not isinstance(value, bool):
            raise UserError(f"{leaf.name} must be true or false, got {value!r:.60}")
    elif option.choices and value not in option.choices:
        raise unknown(leaf.name, f"{value!s:.60}", option.choices)
    elif option.type is str:
        if not isinstance(value, str | os.PathLike):
            raise UserError(f"{leaf.name} must be text, got {value!r:.60}")
    elif isinstance(value, bool | Mapping):
        raise UserError(f"{leaf.name} must be a number, or text, got {value!r:.60}")
    else:
        _check_read(leaf.name, option.type, value)


def _check_read(name: str, read: Callable[[str], Any], value: Any) -> None:
    """Refuse what an option's own reader refuses, or reads as something else."""
    several = isinstance(value, list | tuple)
    try:
        found = read(",".join(map(str, value)) if several else str(value))
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    texts = several and all(isinstance(each, str | os.PathLike) for each in value)
    same = texts or isinstance(found, list) if several else not isinstance(found, list) and isinstance(value, str) == isinstance(found, str)
    if not same and value != "inf":  # JSON has no infinity, so that files have the word
        raise UserError(f"{name} must be {'several values' if isinstance(found, list) else 'one number'}, got {value!r:.60}")


def flat(settings: Any) -> dict[str, Any]:
    """All options with their values, by name."""
    return {name: value_of(settings, name) for name in leaves(type(settings))}


def given(settings: Any) -> dict[str, Any]:
    """The options that are not what they are where nothing is said, by name."""
    return {name: value_of(settings, name) for name, leaf in leaves(type(settings)).items() if value_of(settings, name) != leaf.default}


def from_file(cls: type[Settings], values: Mapping[str, Any], source: str, *, passed_over: bool = False) -> Settings:
    """Settings from what a file holds: nested in groups, or flat as files were before there were groups.

    Args:
        values: by name; a group's name leads to a mapping.
        source: the file, for the message.
        passed_over: let names go by that these settings do not have.

    What only the caller may say (``Option.only_typed``) is left at its default, whatever the file holds.

    Raises:
        UserError: a name that these settings do not have; names the nearest.
    """
    known = leaves(cls)
    if not isinstance(values, Mapping):
        raise UserError(f"{source} should hold settings by name, got {values!r:.60}")
    found = {name: value for name, value in by_name(cls, values).items() if name in known or not passed_over}
    for name in found:
        if name not in known:
            raise UserError(f"{source}: {unknown('setting', name, known)}")
        try:
            check_value(known[name], found[name])
        except UserError as error:
            raise UserError(f"{source}: {error}") from None
    return changed(cls(), **{name: value for name, value in found.items() if not known[name].option.must_be_typed(value)})


def by_name(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of options by their names, those in groups among them. Names that ``cls`` does not know stay as they are."""
    fields = {each.name: each for each in dataclasses.fields(cls)}
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = fields[name].default_factory if name in fields else None
        if isinstance(inner, type) and dataclasses.is_dataclass(inner) and isinstance(value, Mapping):
            found |= by_name(inner, value)
        elif name in fields and "option" in fields[name].metadata:
            found[fields[name].metadata["option"].name or name] = value
        else:
            found[name] = value
    return found


def words(values: Mapping[str, Any]) -> list[str]:
    """Options as words of a command line, ``--name=value``; what is None or False is left out."""
    found = []
    for name, value in values.items():
        if value is None or value is False:
            continue
        flag = f"--{name.replace('_', '-')}"
        found.append(flag if value is True else f"{flag}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}")
    return found


# How values are read


def number(text: str) -> float:
    """A number, also written as a fraction: ``8/255``."""
    top, slash, bottom = text.partition("/")
    try:
        value = float(top) / float(bottom) if slash else float(top)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise UserError(f"{text!r:.60} is not a number like 0.5 or 8/255") from None
    if not math.isfinite(value):
        raise UserError(f"{text!r:.60} is not finite")
    return value


def names(text: str) -> list[str]:
    """Words separated by commas, at least one."""
    found = [part.strip() for part in text.split(",") if part.strip()]
    if not found:
        raise UserError(f"{text!r} names nothing")
    return found


def location(text: str) -> str:
    """A path, with ``~`` as the home folder."""
    return str(place_of(text)) if text else text


def paths(text: str) -> list[str]:
    """Paths, or names of other things, separated by commas, at least one; a path that is there may hold commas itself."""
    parts, found = text.split(","), []
    while parts:
        lengths = [len(parts), *range(min(len(parts), COMMAS), 1, -1)]
        length = next((k for k in lengths if k > 1 and os.path.exists(os.path.expanduser(",".join(parts[:k]).strip()))), 1)
        one = ",".join(parts[:length]).strip()
        if one:
            found.append(str(place_of(one)) if one.startswith("~") else one)
        parts = parts[length:]
    if not found:
        raise UserError(f"{text!r} names nothing")
    return found


def several(text: str) -> str:
    """Paths or names with commas between them, as one text; see ``paths``."""
    return ",".join(paths(text)) if text.strip(", ") else text  # nothing is named: the command says what it wants


def radius(text: str) -> float:
    """A number that is not negative."""
    value = number(text)
    if value < 0:
        raise UserError(f"{text:.60} is negative; it must be >= 0")
    return value


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise UserError(f"{text} is no share; it must lie between 0 and 1")
    return value


def weight(text: str) -> float:
    """A number that is not negative, or ``inf``."""
    return math.inf if text == "inf" else radius(text)


def radii(text: str) -> list[float]:
    """Numbers separated by commas."""
    return [radius(part) for part in text.split(",")]


def count(text: str) -> int:
    """A whole number that is not negative."""
    try:
        value = int(text)
    except ValueError:
        raise UserError(f"{text!r:.60} is not a whole number") from None
    if value < 0:
        raise UserError(f"{text:.60} is negative; it must be >= 0")
    if value > LARGEST_WHOLE:
        raise UserError(f"{text:.60} is too large; it must be <= {LARGEST_WHOLE}")
    return value


def threads(text: str) -> int:
    """How many CPU threads; torch crashes where the system cannot make as many as it is told to."""
    value = positive(text)
    if value > MOST_THREADS:
        raise UserError(f"{text} threads are too many; it must be from 1 to {MOST_THREADS}")
    return value


def counts(text: str) -> list[int]:
    """Whole numbers that are not negative, separated by commas."""
    return [count(part) for part in text.split(",")]


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if (value := count(text)) == 0:
        raise UserError("0 is too small; it must be >= 1")
    return value


def count_or_files(text: str) -> int | list[str]:
    """How many, or files separated by commas."""
    return positive(text) if text.lstrip("+-").isdigit() else paths(text)


def times(text: str) -> float:
    """A number of at least 1."""
    value = number(text)
    if value < 1:
        raise UserError(f"{text} is too small; it must be >= 1")
    return value


TEXTS = (str, location, several)  # what is read from text and stays text
