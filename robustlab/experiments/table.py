"""What an experiment found: tables of measurements with what was published, in words and numbers."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from robustlab.evaluation import Rate


@dataclass(frozen=True)
class Table:
    """Rows under a title.

    Attributes:
        regime: under which conditions the numbers hold, in one or two sentences.
        notes: sentences below the table.
    """

    title: str
    regime: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As Markdown."""
        measurements = [list(self.columns), *([str(value) for value in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*measurements, strict=True)]
        lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in measurements]
        ruled = [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
        return "\n".join([f"## {self.title}", "", self.regime, "", *ruled, *(f"\n{note}" for note in self.notes)])


@dataclass(frozen=True)
class Finding:
    """Everything that an experiment has to show.

    Attributes:
        numbers: the same in values that JSON holds.
        maps: pictures to draw, by file name.
    """

    tables: tuple[Table, ...]
    numbers: dict[str, Any]
    maps: dict[str, Heatmap] = field(default_factory=dict)


@dataclass(frozen=True)
class Heatmap:
    """Shares on a grid.

    Attributes:
        values: a row of shares for each of ``rows``; None where nothing was measured.
        neutral: the share that means nothing, chance for one.
    """

    title: str
    x: str
    y: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    neutral: float


def over_seeds(rates: Sequence[Rate]) -> str:
    """One rate with its interval; of several their mean, and the smallest and largest."""
    if len(rates) == 1:
        low, high = rates[0].interval
        return f"{100 * rates[0].value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
    values = [100 * r.value for r in rates]
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f}, {len(values)} seeds)"


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
