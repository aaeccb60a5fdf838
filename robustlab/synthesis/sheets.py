"""What a task made: rows of pictures, and numbers. It makes a sheet of them, saves itself, and shows itself in a notebook."""

from __future__ import annotations

import html
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab import files, pictures
from robustlab.errors import UserError
from robustlab.models.naming import short_names
from robustlab.synthesis import replay

COLUMNS = 10
WIDE = 96  # pixels: small pictures are enlarged to about this width on a sheet
LONGEST = 22  # letters of a model's name beside a row

Rows = list[tuple[str, Tensor]]


@dataclass(frozen=True, eq=False, repr=False)
class Pictures:
    """What a task made with a model and, in ``others``, with further ones of the same images.

    Attributes:
        given: rows that do not depend on the model: titles and images ``(n, C, H, W)``.
        rows: those that do, as wide.
        numbers: what was measured, by its name in words.
        heads: what to write above each column.
        feet: what to write below each column, if anything.
        model: the model's name.
        source: how many images of which set the numbers are of, in words.
        judge: the name of the classifier that judged the pictures; None where none did.
        notes: what a person should know, such as that pictures are still their starts.
        objective: the mean objective at each step of the first batch, ``(steps + 1,)``; empty where nothing was searched for.
        others: what the same task made with further models.
        replay: what makes all of them again, see ``robustlab.synthesis.replay``; None where it is not known.
    """

    given: Rows
    rows: Rows
    numbers: dict[str, float]
    heads: Sequence[str]
    feet: Sequence[str] = ()
    model: str = ""
    source: str = ""
    judge: str | None = None
    notes: tuple[str, ...] = ()
    objective: Tensor = torch.zeros(0)
    others: tuple[Pictures, ...] = ()
    replay: dict[str, Any] | None = None

    @property
    def images(self) -> Tensor:
        """The pictures of the first row that the model made, ``(n, C, H, W)`` in [0, 1]."""
        return self.rows[0][1]

    @property
    def by_model(self) -> dict[str, Pictures]:
        """The pictures of every model, by its name, this one's first."""
        return {each.model: each for each in (self, *self.others)}

    def table(self) -> tuple[list[str], list[list[str]]]:
        """The numbers of all models in words: the heads of the columns, and rows of as many cells."""
        each = (self, *self.others)
        names = dict.fromkeys(name for one in each for name in one.numbers)
        rows = [[name, *(_shown(one.numbers.get(name)) for one in each)] for name in names]
        if any(one.judge for one in each):
            rows.append(["judged by", *(one.judge or "" for one in each)])
        return [self.source, *self.by_model], rows

    def sheet(self, columns: int = COLUMNS) -> Tensor:
        """One picture of all rows with their titles, float ``(3, H, W)`` in [0, 1].

        What does not depend on the model stands there once, if the columns mean the same for all models.

        Args:
            columns: pictures of a row that are shown, at most.

        Raises:
            UserError: no columns.
        """
        if columns < 1:
            raise UserError(f"a sheet needs at least 1 column, got {columns}")
        words = short_names(self.by_model)
        same = all((list(one.heads), list(one.feet)) == (list(self.heads), list(self.feet)) for one in self.others)
        if same:
            rows = self.given + [row for name, one in self.by_model.items() for row in one._titled_rows(words[name])]
            return self._sheet_of(rows, columns)
        sheets = [one._sheet_of(one.given + one._titled_rows(words[name]), columns) for name, one in self.by_model.items()]
        width = max(sheet.shape[2] for sheet in sheets)
        return torch.cat([F.pad(sheet, (0, width - sheet.shape[2]), value=1.0) for sheet in sheets], 1)

    def _titled_rows(self, word: str) -> Rows:
        """The rows with a word for the model below each title."""
        return [(f"{title}\n{_last(word)}" if word else title, x) for title, x in self.rows]

    def _sheet_of(self, rows: Rows, columns: int) -> Tensor:
        cut = [(title, x[:columns].expand(-1, 3, -1, -1)) for title, x in rows]
        return pictures.titled(cut, self.heads[:columns], self.feet[:columns], scale=max(1, WIDE // cut[0][1].shape[-1]))

    def save(self, path: str | os.PathLike[str], *, columns: int = COLUMNS, singly: str | os.PathLike[str] | None = None) -> None:
        """Write the sheet as PNG and, where it is known what makes it again, a replay file beside it, ``.json``.

        Args:
            path: a PNG file.
            columns: pictures of a row that are shown, at most.
            singly: a folder for every picture that a model made, each in a file of its own.

        Raises:
            UserError: the path is no PNG file, something else lies where the replay file would go, or a place cannot be written.
        """
        place = replay.checked_place(path)
        pictures.save(place, self.sheet(columns))
        if singly is not None:
            for each in (self, *self.others):
                each._save_singly(Path(singly))
        if self.replay is not None:
            settings = {**self.replay["settings"], "columns": columns}
            files.write_json(place.with_suffix(".json"), {**self.replay, "settings": settings, "picture": files.sha256(place)})

    def _save_singly(self, folder: Path) -> None:
        for title, x in self.rows:
            stem = "-".join("".join(c if c.isalnum() else " " for c in f"{title} {self.model}").split())
            for i, picture in enumerate(x):
                pictures.save(folder / f"{stem}-{i:04}.png", picture.detach().cpu().clamp(0, 1).expand(3, -1, -1))

    def __repr__(self) -> str:
        shown = self.given + [row for each in (self, *self.others) for row in each.rows]
        height, width = shown[0][1].shape[2:]
        heads, rows = self.table()
        widths = [max(len(line[i]) for line in (heads, *rows)) for i in range(len(heads))]
        lines = ["  ".join(cell.ljust(wide) for cell, wide in zip(line, widths, strict=True)).rstrip() for line in (heads, *rows)]
        title = f"Pictures: {len(shown)} rows of {len(shown[0][1])}, {width}x{height} pixels"
        return "\n".join([title, *lines, *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        heads, rows = self.table()
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in heads)
        body = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
        notes = "".join(f"<p>note: {html.escape(note)}</p>" for note in self.notes)
        return pictures.as_html(self.sheet(), f"<table><tr>{head}</tr>{body}</table>{notes}")

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        pictures.to_image(self.sheet()).save(content, format="PNG")
        return content.getvalue()


def _last(name: str, most: int = LONGEST) -> str:
    return name if len(name) <= most else "\N{HORIZONTAL ELLIPSIS}" + name[1 - most :]


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
