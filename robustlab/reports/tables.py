"""Tables of results: in Markdown, with the error of every number beside it."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from robustlab.evaluation import Rate

ALIGNED = 60  # characters: longer cells do not widen their column


@dataclass(frozen=True)
class Table:
    """Rows under a title; ``str`` gives it as Markdown.

    Attributes:
        regime: under which conditions the numbers hold, in one or two sentences.
        columns: their titles.
        rows: a value for each column.
        notes: sentences below the table.
    """

    title: str
    regime: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [f"## {self.title}", "", self.regime, "", markdown(self.columns, self.rows), *(f"\n{note}" for note in self.notes)]
        return "\n".join(parts)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table in Markdown whose columns stand one below the other, but for cells of more than ``ALIGNED`` characters.

    Args:
        columns: their titles, which may be empty.
        rows: for each column a value, shown by ``str``. A ``|`` stays a ``|``; a line break becomes a space.

    Returns:
        Lines without a line break at the end.

    Raises:
        ValueError: a row has more or fewer values than there are columns.
    """
    cells = [[_cell(str(value)) for value in line] for line in (columns, *rows)]
    widths = [max((len(cell) for cell in column if len(cell) <= ALIGNED), default=1) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def over_seeds(rates: Sequence[Rate]) -> str:
    """In percent: one rate with its 95 % interval; of several their mean, and the smallest and largest."""
    if len(rates) == 1:
        low, high = rates[0].interval
        return f"{100 * rates[0].value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    values = [100 * r.value for r in rates]
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f}, {len(values)} seeds)"


def percent(share: float) -> str:
    """A share in [0, 1] such as ``12.3 %``."""
    return f"{100 * share:.1f} %"


def _cell(text: str) -> str:
    """Text for one cell. Backslashes before a ``|`` are doubled, so that they do not escape the one that escapes it."""
    return re.sub(r"(\\*)\|", r"\1\1\\|", " ".join(text.splitlines()))
