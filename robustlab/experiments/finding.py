"""What an experiment found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from robustlab.reports.plots import HeatMap
from robustlab.reports.tables import Table


@dataclass(frozen=True)
class Finding:
    """Everything that an experiment has to show.

    Attributes:
        tables: measurements beside what was published.
        numbers: the same in values that JSON holds.
        maps: heat maps to draw, by file name.
    """

    tables: tuple[Table, ...]
    numbers: dict[str, Any]
    maps: dict[str, HeatMap] = field(default_factory=dict)
