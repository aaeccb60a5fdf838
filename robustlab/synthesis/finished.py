"""A set of pictures that is finished: what was said of it is kept in its folder, so that who asks for it again is told the same."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from robustlab import files
from robustlab.blocks import Blocks
from robustlab.errors import UserError
from robustlab.progress import say
from robustlab.records import check_same

NAME = "finished.json"
WHAT = "what was said of finished pictures"
SET = "set of pictures"
KINDS: dict[str, Any] = {"asked": dict, "picture": str, "heads": [str], "rows": [[str]], "notes": [str], "sha256": str}
FREE = ("images.name", "train.name")  # of what was asked for: it may change before the work goes on


@dataclass(frozen=True)
class Said:
    """What a person is told of pictures.

    Attributes:
        heads, rows: of the table of numbers.
        notes: sentences.
    """

    heads: list[str]
    rows: list[list[str]]
    notes: list[str]


def made_once(out: Path | None, sheet: Path, asked: Mapping[str, Any], shown: Mapping[str, Any], make: Callable[[Blocks], Said]) -> Said:
    """Make pictures, or what is missing of them; or tell what was said of those that are finished.

    Args:
        out: their folder; without one nothing is kept.
        sheet: the picture of them all, wherever it lies.
        asked: what the pictures depend on, in values that JSON holds.
        shown: what only the sheet and the files beside it depend on.
        make: makes and writes them.

    Raises:
        UserError: the folder holds pictures with other settings, which the sentence names, or finished ones whose sheet is gone or another
            one; a damaged file; or it is in use.
    """
    try:
        with Blocks.at(out, asked, FREE, what=SET, results=(NAME,), alone=True) as blocks:
            if out is not None and blocks.is_finished:
                return _said_before(out, sheet, {**asked, **shown})
            said = make(blocks)
            with blocks.finishing({}):
                if out is not None:
                    kept = {"asked": {**asked, **shown}, "picture": files.sha256(sheet), **asdict(said), "sha256": _hash(said)}
                    files.write_json(out / NAME, kept)
    except KeyboardInterrupt:
        if out is not None:
            say("what was made is kept: the same command goes on from here")
        raise
    return said


def _said_before(out: Path, sheet: Path, asked: Mapping[str, Any]) -> Said:
    found = files.read_json(out / NAME, WHAT)
    files.check_kinds(found, KINDS, out / NAME, WHAT)
    check_same(out, found["asked"], asked, FREE, what=SET)
    if not sheet.is_file() or files.sha256(sheet) != found["picture"]:
        raise UserError(f"{out} holds finished pictures, but {sheet} is not there or is not their sheet: name another folder with `out`")
    said = Said(found["heads"], found["rows"], found["notes"])
    if _hash(said) != found["sha256"]:
        raise UserError(f"{out / NAME} is damaged or was changed: its sha256 is not that of its numbers and notes")
    return replace(said, notes=[*said.notes, f"these pictures were finished before, in {out}"])


def _hash(said: Said) -> str:
    """Hexadecimal SHA-256 of numbers and notes: a changed digit would be another number in silence."""
    return hashlib.sha256(json.dumps(asdict(said)).encode()).hexdigest()
