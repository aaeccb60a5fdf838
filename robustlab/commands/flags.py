"""From a command line, and below it a TOML file, to settings: dataclasses of options in groups, see ``robustlab.options``.

Standard library only, so that ``--help`` answers at once.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from robustlab.errors import UserError, unknown
from robustlab.options import TEXTS, Leaf, Option, by_name, changed, leaves
from robustlab.paths import place_of

Settings = TypeVar("Settings")


# What a sentence of the library calls a setting, alone or with a value: `out`, `batch_size=16`.
SETTING = re.compile(r"`(\w+)(?:=([^`]*))?`")
ARGUMENTS = {"trust": "trust_checkpoint", "root": "data"}  # of functions in Python, and the options that give them


def with_flags(sentence: str, settings: type) -> str:
    """A sentence of the library in the words of a command line: `` `batch_size=16` `` becomes ``--batch-size 16``.

    Args:
        sentence: names settings in backquotes.
        settings: the command's; what is no option of it stays as it is.
    """
    known = leaves(settings)
    by_name = {leaf.path[-1]: leaf for leaf in known.values()} | known

    def flag(found: re.Match[str]) -> str:
        name, value = found.groups()
        leaf = by_name.get(ARGUMENTS.get(name, name))
        if leaf is None:
            return found.group()
        return leaf.flag if value is None or leaf.option.type is None else f"{leaf.flag} {value}"

    return SETTING.sub(flag, sentence)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parse(settings: type[Settings], argv: Sequence[str], prog: str) -> Settings:
    """Settings from a command line and, below it, ``--config FILE.toml``; what neither says keeps its default.

    Raises:
        UserError: an unknown flag or key, with the nearest one.
    """
    choose = getattr(settings, "for_words", None)  # of a command whose options depend on what is said
    settings = choose(argv) if choose else settings
    known = leaves(settings)
    words = getattr(settings, "first_words", ())  # the options whose values may stand alone, as the first words
    alone = next((i for i, word in enumerate(argv[: len(words)]) if word.startswith("-")), min(len(argv), len(words)))
    argv = [part for name, word in zip(words, argv[:alone], strict=False) for part in (f"--{name}", word)] + list(argv[alone:])
    values, rest = build_parser(settings, prog).parse_known_args(argv)
    if rest:
        if rest[0].startswith("-"):
            raise unknown("flag", rest[0].partition("=")[0], [leaf.flag for leaf in known.values()])
        raise UserError(f"unexpected argument {rest[0]!r}: every setting is a flag, such as --out FOLDER")
    given = vars(values)
    config = given.pop("config", None)
    return changed(settings(), **{**(read_config(place_of(config), settings, prog) if config else {}), **given})


def build_parser(settings: type, prog: str) -> argparse.ArgumentParser:
    """The parser for a class of settings: a group of flags for each group of options, with defaults and examples in the help."""
    examples = getattr(settings, "examples", ())
    text = "\n".join(["examples:", *(f"  {line}" for line in examples)]) if examples else None
    parser = Parser(
        prog=prog,
        usage=f"{prog} {_first(settings)}[--OPTION VALUE ...]",
        description=_description(settings),
        epilog=text,
        formatter_class=_Help,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    sections: dict[type, Any] = {}
    for leaf in leaves(settings).values():
        if leaf.group not in sections:
            title = (leaf.group.__doc__ or leaf.group.__name__).strip().splitlines()[0].rstrip(".")
            sections[leaf.group] = parser if leaf.group is settings else parser.add_argument_group(title[0].lower() + title[1:])
        _add(sections[leaf.group], leaf)
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings; flags given here win over it")
    return parser


def _first(settings: type) -> str:
    """The first words of the command line and a space after each; empty where none may stand alone."""
    return "".join(f"{leaves(settings)[name].default or name.upper()} " for name in getattr(settings, "first_words", ()))


def _description(settings: type) -> str:
    """What a command is for, with a line for each of its topics."""
    topics: Mapping[str, str] = getattr(settings, "topics", {})
    lines = [f"  {name:<15}{about}" for name, about in topics.items()]
    return "\n".join([settings.__doc__ or "", *(["", *lines] if lines else [])])


class _Help(argparse.RawTextHelpFormatter):
    """Keeps the examples' lines, and breaks those of the options' help."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=min(shutil.get_terminal_size().columns, 110))

    def _split_lines(self, text: str, width: int) -> list[str]:
        return argparse.HelpFormatter._split_lines(self, text, width)


def _add(section: Any, leaf: Leaf) -> None:
    option = leaf.option
    text = option.help.replace("%", "%%") + _default(leaf).replace("%", "%%")
    if option.type is None:
        action = argparse.BooleanOptionalAction if leaf.default is None else "store_true"
        section.add_argument(leaf.flag, dest=leaf.name, action=action, help=text)
    elif option.optional_value is not None:
        section.add_argument(
            leaf.flag, dest=leaf.name, nargs="?", const=option.optional_value, type=_reader(option), metavar=option.metavar, help=text
        )
    else:
        section.add_argument(leaf.flag, dest=leaf.name, type=_reader(option), choices=option.choices, metavar=_metavar(leaf), help=text)


def _metavar(leaf: Leaf) -> str | None:
    """What stands for the value in the help: numbers are ``N``; choices are listed by argparse."""
    option = leaf.option
    return option.metavar or (None if option.choices else "TEXT" if option.type is str else "N")


def _default(leaf: Leaf) -> str:
    if leaf.option.shown:
        return f" (default: {leaf.option.shown})"
    return "" if leaf.default is None or leaf.default is False else f" (default: {leaf.default})"


def _reader(option: Option) -> Callable[[str], Any]:
    """The option's own way to read a value, whose sentence argparse passes on."""
    read = option.type
    assert read is not None

    def reader(text: str) -> Any:
        try:
            return read(text)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return reader


def read_config(path: Path, settings: type, prog: str) -> dict[str, Any]:
    """The options in a TOML file by name, checked as those on the command line are.

    Options stand at the top or in tables named after their groups; names may be written with - or _.
    """
    from robustlab import files  # only here, since it imports more than the standard library

    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    table = files.read_toml(path, "settings")
    known = leaves(settings)
    argv: list[str] = []
    for key, value in by_name(settings, _underscored(table)).items():
        if key not in known:
            raise UserError(f"{path}: {unknown('setting', key, [name.replace('_', '-') for name in known])}")
        if known[key].option.must_be_typed(value):
            raise UserError(f"{path}: {key} cannot stand in a file: give {known[key].flag} on the command line of each call that needs it")
        try:
            argv += _as_on_the_command_line(known[key], value)
        except TypeError as error:
            raise UserError(f"{path}: {key} must be {error}, got {value!r}") from None
    return vars(build_parser(settings, f"{prog}: {path}").parse_args(argv))


def _underscored(table: Mapping[str, Any]) -> dict[str, Any]:
    """Names with _ for -, also in tables."""
    return {key.replace("-", "_"): _underscored(value) if isinstance(value, dict) else value for key, value in table.items()}


def _as_on_the_command_line(leaf: Leaf, value: Any) -> list[str]:
    """A TOML value as words of a command line; raises a TypeError that says what it should be."""
    option = leaf.option
    if isinstance(value, bool) and (option.type is None or option.optional_value is not None):
        return [leaf.flag] if value else [f"--no-{leaf.flag[2:]}"] if leaf.default is None and option.type is None else []
    if option.type is None:
        raise TypeError("true or false")
    if option.type in TEXTS and not isinstance(value, str):
        raise TypeError("text in quotes")
    if isinstance(value, bool | dict):
        raise TypeError("a number")
    return [f"{leaf.flag}={','.join(map(str, value)) if isinstance(value, list) else value}"]
