"""A partial order as a picture: what is larger stands higher, and a line goes up to the next larger ones (Hasse's diagram)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from robustlab.reports.plots import COLOURS, INK, PAPER, SOFT, font, save, titled, words

Point = tuple[float, float]
Stop = tuple[str, str]  # of a line, by its ends; of a name twice that name


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
    places, lines = laid_out(order)
    points = [*places.values(), *(point for line in lines for point in line)]
    left, right, height = min(x for x, _ in points), max(x for x, _ in points), 1 + max(y for _, y in points)
    figure = Figure(figsize=(max(6.0, 2.6 * (1 + right - left)), 1.6 + 0.95 * height), facecolor=PAPER)
    panel = figure.add_axes((0.01, 0.01, 0.98, 0.92))
    for line in lines:
        panel.plot(*zip(*line, strict=True), color=SOFT, linewidth=1.2, solid_joinstyle="round", zorder=1)
    for name, (x, y) in places.items():
        text = "\n".join([*(words(part) for part in name.split(" = ")), f"{order.sizes[name]:,}"])
        box = {"boxstyle": "round,pad=0.4", "facecolor": PAPER, "edgecolor": COLOURS[0], "linewidth": 1.2}
        panel.text(x, y, text, ha="center", va="center", bbox=box, zorder=2, **font(9.5, INK))
    panel.set(xlim=(left - 0.55, right + 0.55), ylim=(-0.5, height - 0.5))
    panel.set_axis_off()
    titled(panel, order.title)
    save(path, figure)


def laid_out(order: Order) -> tuple[dict[str, Point], list[list[Point]]]:
    """The places of the names and the lines between them, each a list of points: a set stands one row below the lowest that covers it; a
    line that goes on for several rows has a place of its own in each, so that it passes no name (Sugiyama, Tagawa and Toda 1981)."""
    under: dict[str, int] = {}  # rows below the highest one
    for name in sorted(order.names, key=lambda name: -order.sizes[name]):
        under[name] = 1 + max((under[larger] for smaller, larger in order.covers if smaller == name), default=-1)
    rows: list[list[Stop]] = [[(name, name) for name in order.names if under[name] == row] for row in range(max(under.values()) + 1)]
    chains = []
    for smaller, larger in order.covers:
        stops = [(smaller, larger)] * (under[smaller] - under[larger] - 1)
        for row, stop in enumerate(stops, under[larger] + 1):
            rows[row].append(stop)
        chains.append((larger, smaller, len(stops)))
    across: list[dict[Stop, float]] = []
    for row, stops in enumerate(rows):
        above = across[-1] if across else {}
        middle = {stop: _middle(order, stop, above) for stop in stops}
        across.append(_spread(sorted(stops, key=lambda stop: middle[stop]), middle if row else {}))
    places = {name: (across[row][name, name], float(len(rows) - 1 - row)) for name, row in under.items()}
    lines = []
    for larger, smaller, count in chains:
        between = [
            (across[row][smaller, larger], float(len(rows) - 1 - row)) for row in range(under[larger] + 1, under[larger] + 1 + count)
        ]
        lines.append([places[larger], *between, places[smaller]])
    return places, lines


def _middle(order: Order, stop: Stop, above: Mapping[Stop, float]) -> float:
    """The mean place of what a stop hangs on in the row above."""
    smaller, larger = stop
    hangs = [(smaller, larger)] if smaller != larger else [(smaller, other) for one, other in order.covers if one == smaller]
    found = [above[key] for low, high in hangs for key in ((low, high), (high, high)) if key in above]
    return sum(found) / len(found) if found else 0.0


def _spread(stops: Sequence[Stop], wanted: Mapping[Stop, float]) -> dict[Stop, float]:
    """Places in a row in this order: names one apart, lines closer, as a whole where they hang."""
    found: dict[Stop, float] = {}
    at = 0.0
    for before, stop in zip((None, *stops), stops, strict=False):
        at += 0.0 if before is None else sum(0.5 if smaller == larger else 0.25 for smaller, larger in (before, stop))
        found[stop] = at
    shift = sum(wanted.get(stop, 0.0) - found[stop] for stop in stops) / max(len(stops), 1) if wanted else -at / 2
    return {stop: place + shift for stop, place in found.items()}
