"""A partial order as a picture: what is larger stands higher, and a line goes up to the next larger ones (Hasse's diagram)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from robustlab.reports.plots import COLOURS, INK, PAPER, SOFT, font, save, titled, words


@dataclass(frozen=True)
class Order:
    """Some sets by inclusion.

    Attributes:
        title: above the picture.
        names: of the sets; those that are equal have one name, such as ``"A = B"``.
        sizes: how much is in each.
        covers: pairs ``(smaller, larger)`` of names with none between.
    """

    title: str
    names: tuple[str, ...]
    sizes: Mapping[str, int]
    covers: tuple[tuple[str, str], ...]


def ordered(title: str, sets: Mapping[str, frozenset[int]]) -> Order:
    """Sets in order: equal ones get one name, and those between which there is none cover each other."""
    together: dict[frozenset[int], list[str]] = {}
    for name, members in sets.items():
        together.setdefault(members, []).append(name)
    by_name = {" = ".join(names): members for members, names in together.items()}
    below = [(a, b) for a in by_name for b in by_name if by_name[a] < by_name[b]]
    covers = tuple((a, b) for a, b in below if not any(by_name[a] < by_name[c] < by_name[b] for c in by_name))
    return Order(title, tuple(by_name), {name: len(members) for name, members in by_name.items()}, covers)


def order_plot(path: str | os.PathLike[str], order: Order) -> None:
    """Draw a partial order into a PNG or SVG file, written atomically.

    Raises:
        UserError: another ending than ``.png`` or ``.svg``, or a place that cannot be written.
    """
    places = positions(order)
    width, height = (1 + max(place[axis] for place in places.values()) for axis in (0, 1))
    figure = Figure(figsize=(max(6.0, 2.6 * width), 1.6 + 0.95 * height), facecolor=PAPER)
    panel = figure.add_axes((0.01, 0.01, 0.98, 0.9))
    for smaller, larger in order.covers:
        (x, y), (u, v) = places[smaller], places[larger]
        panel.plot((x, u), (y, v), color=SOFT, linewidth=1.2, zorder=1)
    for name, (x, y) in places.items():
        lines = [words(part) for part in name.split(" = ")] + [f"{order.sizes[name]:,}"]
        box = {"boxstyle": "round,pad=0.4", "facecolor": PAPER, "edgecolor": COLOURS[0], "linewidth": 1.2}
        panel.text(x, y, "\n".join(lines), ha="center", va="center", bbox=box, zorder=2, **font(9.5, INK))
    panel.set(xlim=(-0.6, width - 0.4), ylim=(-0.6, height - 0.4))
    panel.set_axis_off()
    titled(panel, order.title)
    save(path, figure)


def positions(order: Order) -> dict[str, tuple[float, float]]:
    """Places in rows: a set stands one row above the highest that it covers; within a row, near those that it covers."""
    rows: dict[str, int] = {}
    for name in sorted(order.names, key=lambda name: order.sizes[name]):
        rows[name] = 1 + max((rows[smaller] for smaller, larger in order.covers if larger == name), default=-1)
    widest = max(list(rows.values()).count(row) for row in rows.values())
    places: dict[str, tuple[float, float]] = {}
    for row in range(max(rows.values()) + 1):
        here = [name for name in order.names if rows[name] == row]
        below = {name: [places[smaller][0] for smaller, larger in order.covers if larger == name] for name in here}
        here.sort(key=lambda name: sum(below[name]) / len(below[name]) if below[name] else 0.0)
        for place, name in enumerate(here):
            places[name] = (place + (widest - len(here)) / 2, float(row))
    return places
