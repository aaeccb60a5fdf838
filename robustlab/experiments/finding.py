"""What an experiment found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robustlab.reports.orders import Order
from robustlab.reports.plots import PLAIN, Axes, HeatMap, Line
from robustlab.reports.tables import Table


@dataclass(frozen=True)
class LinePlot:
    """What ``reports.plots.line_plot`` draws."""

    title: str
    lines: tuple[Line, ...]
    axes: Axes = PLAIN
    references: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """Everything that an experiment has to show.

    Attributes:
        tables: measurements beside what was published.
        numbers: the same in values that JSON holds.
        maps, lines, orders: heat maps, line plots and partial orders to draw, by file name.
    """

    tables: tuple[Table, ...]
    numbers: dict[str, Any]
    maps: dict[str, HeatMap] = field(default_factory=dict)
    lines: dict[str, LinePlot] = field(default_factory=dict)
    orders: dict[str, Order] = field(default_factory=dict)
