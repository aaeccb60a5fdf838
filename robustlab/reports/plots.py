"""Plots by matplotlib, drawn without a display: lines with their spread on linear or logarithmic axes, and heat maps.

Files are PNG or SVG, by their ending; the same input gives the same bytes. Nothing here touches ``pyplot`` or ``rcParams``, so plots can be
drawn in any thread and beside a notebook's own; fonts and colours are set where they are used, whatever style the reader has chosen.
"""

from __future__ import annotations

import math
import os
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes as Panel
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from robustlab import files
from robustlab.errors import UserError
from robustlab.evaluation import Rate
from robustlab.reports.svg import document, inline, svg_element

FONT = "DejaVu Sans"  # comes with matplotlib, so a plot looks the same on every machine
INK, SOFT, RULE, PAPER = "#111827", "#4b5563", "#e5e7eb", "#ffffff"
COLOURS = ("#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce", "#a16207", "#be185d")
DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))  # for more names than colours
MARKERS = ("o", "s", "^", "D", "v", "P")  # of nodes of a graph, for more communities than colours
REFERENCE: dict[str, Any] = {"color": SOFT, "linewidth": 1.2, "linestyle": (0, (4, 3))}
MARKED = 25  # a line of more points is drawn without a dot at each of them
LONGEST = 64  # characters in a name, and in a line of a title
DPI = 150  # of PNG files
TINY = 1e-300  # no tick can be written between numbers so near to 0
CELL = 0.95, 0.48  # of a heat map, in inches: width, height
ABOVE, BELOW, UNKNOWN = (96, 165, 250), (251, 146, 60), (243, 244, 246)  # of a heat map: blue, orange, grey
SUPERSCRIPTS = str.maketrans("-0123456789", "\N{SUPERSCRIPT MINUS}⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Line:
    """Points that belong together, in order.

    Attributes:
        name: in the legend. Lines of one name, such as the runs of one method, share a colour and an entry; "" has no entry.
        x, y: coordinates, as many of the one as of the other. A ``y`` that is not finite leaves a gap.
        low, high: the ends of the interval around each ``y``; both or neither.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None

    def __post_init__(self) -> None:
        ends = [end for end in (self.low, self.high) if end is not None]
        if len({len(part) for part in (self.x, self.y, *ends)}) > 1 or len(ends) == 1:
            raise UserError(f"the line {self.name!r} needs as many x as y, and as many lower and upper ends of intervals or none of both")
        if not all(map(math.isfinite, self.x)):
            raise UserError(f"the line {self.name!r} has an x that is not finite")


@dataclass(frozen=True)
class Axes:
    """What the two axes show.

    Attributes:
        x, y: what stands at them, with its unit.
        log_x, log_y: logarithmic; every value must be above 0 then, but an interval may reach down to 0.
        percent: ``y`` holds shares in [0, 1], shown from 0 to 100 %.
        equal: a unit is as long on both, so that circles are round and right angles right.
    """

    x: str = ""
    y: str = ""
    log_x: bool = False
    log_y: bool = False
    percent: bool = False
    equal: bool = False


PLAIN = Axes()


@dataclass(frozen=True)
class HeatMap:
    """Numbers on a grid.

    Attributes:
        values: for each of ``rows`` a number for each of ``columns``; None where nothing was measured.
        neutral: the number that means nothing, chance for one; it is white, larger ones are blue, smaller ones orange.
        limits: the numbers with the fullest colours, below and above ``neutral``.
        percent: the numbers are shares, shown in percent.
    """

    title: str
    x: str
    y: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    values: tuple[tuple[float | None, ...], ...]
    neutral: float
    limits: tuple[float, float] = (0.0, 1.0)
    percent: bool = True


def accuracy_line(name: str, rates: Mapping[float, Rate]) -> Line:
    """Accuracy over eps with its 95 % intervals, as a line for ``Axes(percent=True)``."""
    points = sorted(rates.items())
    low, high = ([rate.interval[end] for _, rate in points] for end in (0, 1))
    return Line(name, [eps for eps, _ in points], [rate.value for _, rate in points], low, high)


def spread_line(name: str, x: Sequence[float], runs: Sequence[Sequence[float]]) -> Line:
    """Several runs as one line: at each ``x`` their median, and the smallest and the largest as its interval.

    Args:
        x: coordinates that the runs share, N of them.
        runs: for each run N values. Where one of them is not finite, the line has a gap.
    """
    points = [[float(value) for value in values] for values in zip(*runs, strict=True)]
    points = [values if all(map(math.isfinite, values)) else [math.nan] for values in points]
    return Line(name, x, [statistics.median(values) for values in points], list(map(min, points)), list(map(max, points)))


def line_plot(
    path: str | os.PathLike[str],
    lines: Sequence[Line],
    axes: Axes = PLAIN,
    *,
    title: str = "",
    bars: bool = False,
    references: Mapping[str, float] | None = None,
    size: tuple[float, float] = (6.4, 4.2),
) -> None:
    """Draw lines into a PNG or SVG file, written atomically.

    Args:
        path: ends in ``.png`` or ``.svg``.
        lines: at least one point in all.
        axes: what stands at them, and whether they are logarithmic.
        title: above the picture.
        bars: draw the intervals of lines as bars, not as a band.
        references: heights of dashed horizontal lines, by their names in the legend.
        size: width and height in inches; a legend of more than one row adds to the height.

    Raises:
        UserError: another ending, nothing to draw, a value that its axis cannot show, or a place that cannot be written.
    """
    references = references or {}
    figure = _figure(lines, axes, references, size, bars=bars)
    titled(figure.axes[0], title)
    dashes = [(name, Line2D([], [], **REFERENCE)) for name in references]
    _legend(figure, [(name, Line2D([], [], linewidth=2.2, **_look(place))) for place, name in enumerate(_names(lines)) if name] + dashes)
    save(path, figure)


def line_svg(
    lines: Sequence[Line],
    axes: Axes = PLAIN,
    *,
    label: str,
    colours: Mapping[str, str],
    bars: bool = False,
    size: tuple[float, float] = (5.0, 3.1),
    ids: str = "plot",
) -> str:
    """Lines as an ``<svg>`` element for the middle of an HTML page: it is as wide as its place and follows the page's colours.

    There is no legend and no title: the page says in its own letters what the colours mean.

    Args:
        lines, axes, bars, size: see ``line_plot``.
        label: what a screen reader says instead of the picture, so give the numbers.
        colours: from a line's name to its colour in CSS, such as ``var(--robust)``. All else has the colour of the text around it.
        ids: what the ids in it begin with; two plots on one page must differ in it.

    Raises:
        UserError: see ``line_plot``.
    """
    figure = _figure(lines, axes, {}, size, bars=bars)
    figure.patch.set_visible(False)
    root = svg_element(figure, ids, **_frame(figure))
    paints = {_look(place)["color"]: colours[name] for place, name in enumerate(_names(lines))}
    paints |= {INK: "currentColor", SOFT: "currentColor", f"stroke: {RULE}": "stroke: currentColor; stroke-opacity: 0.18"}
    for element in root.iter():
        for fixed, css in paints.items():
            if fixed in element.get("style", ""):
                element.set("style", element.get("style", "").replace(fixed, css))
    return inline(root, label)


def heat_map(path: str | os.PathLike[str], grid: HeatMap) -> None:
    """Draw numbers on a grid into a PNG or SVG file, written atomically: colours around the neutral number, the numbers written in.

    Raises:
        UserError: another ending than ``.png`` or ``.svg``, or a place that cannot be written.
        ValueError: a row has more or fewer numbers than there are columns, or there are more or fewer rows than names.
    """
    figure = Figure(figsize=(CELL[0] * len(grid.columns), CELL[1] * len(grid.rows)))
    panel = figure.add_axes((0, 0, 1, 1))
    for i, (_, numbers) in enumerate(zip(grid.rows, grid.values, strict=True)):
        for j, (_, value) in enumerate(zip(grid.columns, numbers, strict=True)):
            colour = [part / 255 for part in _diverging(value, grid)]
            panel.add_patch(Rectangle((j, i), 1, 1, facecolor=colour, edgecolor=PAPER, linewidth=1.5, antialiased=False, clip_on=False))
            panel.text(j + 0.5, i + 0.5, _number(value, grid.percent), ha="center", va="center", **font(10.5, INK))
    panel.set(xlim=(0, len(grid.columns)), ylim=(len(grid.rows), 0))
    steep = max(map(len, grid.columns), default=0) > 10  # too long to stand beside each other
    rotated: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if steep else {}
    panel.set_xticks([j + 0.5 for j in range(len(grid.columns))], [words(name) for name in grid.columns], **font(10, INK), **rotated)
    panel.set_yticks([i + 0.5 for i in range(len(grid.rows))], [words(name) for name in grid.rows], **font(10, INK))
    panel.tick_params(length=0, pad=5)
    panel.grid(False)
    panel.set_frame_on(False)
    titled(panel, grid.title)
    panel.set_xlabel(words(grid.x), labelpad=6, **font(10, SOFT))
    panel.set_ylabel(words(grid.y), labelpad=8, **font(10, SOFT))
    save(path, figure, tight=True)


def graph_plot(
    path: str | os.PathLike[str],
    edges: Sequence[Sequence[int]],
    labels: Sequence[int],
    *,
    title: str,
    positions: Sequence[tuple[float, float]] | None = None,
    ends: Sequence[int] = (),
) -> None:
    """Draw a graph into a PNG or SVG file, written atomically.

    Args:
        path: ends in ``.png`` or ``.svg``.
        edges: pairs of nodes; without ``positions`` the entries of a matrix, each direction by itself.
        labels: of the nodes, which tell their colour, and with more than six communities their shape.
        title: above it.
        positions: of the nodes. Where left out, the matrix of edges is drawn.
        ends: of the matrix's blocks: the row after the last of each.

    Raises:
        UserError: another ending, or a place that cannot be written.
    """
    figure = Figure(figsize=(6, 6.2), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06, rect=(0, 0, 1, 0.985)), facecolor=PAPER)
    panel = figure.add_subplot(facecolor="none")
    if positions is None:
        _entries(panel, edges, len(labels), ends)
    else:
        lines = [[positions[i], positions[j]] for i, j in edges]
        panel.add_collection(LineCollection(lines, colors=SOFT, linewidths=0.6, alpha=min(0.5, 60 / max(len(edges), 1) + 0.08), zorder=1))
        size = min(90.0, max(6.0, 6000 / max(len(labels), 1)))
        for label in sorted(set(labels)):
            x, y = zip(*(place for place, own in zip(positions, labels, strict=True) if own == label), strict=True)
            look: dict[str, Any] = {"c": COLOURS[label % len(COLOURS)], "marker": MARKERS[label // len(COLOURS) % len(MARKERS)]}
            panel.scatter(x, y, s=size, edgecolors=PAPER, linewidths=0.6, zorder=2, **look)
        panel.autoscale_view()
        panel.set_aspect("equal")
    panel.set_xticks([])
    panel.set_yticks([])
    panel.set_frame_on(positions is None)
    titled(panel, title)
    save(path, figure)


def _entries(panel: Panel, edges: Sequence[Sequence[int]], n: int, ends: Sequence[int]) -> None:
    """The density of a matrix's entries on a grid, dark where there are many, with lines between its blocks."""
    cells = min(n, 300)
    rows, columns = np.asarray(edges).reshape(-1, 2).T
    counts, _, _ = np.histogram2d(rows, columns, bins=cells, range=((0, n), (0, n)))
    most = np.quantile(counts[counts > 0], 0.98) if counts.any() else 1
    panel.imshow(1 - np.minimum(counts / most, 1) ** 0.6, cmap="gray", vmin=0, vmax=1, extent=(0, n, n, 0), interpolation="nearest")
    for end in list(ends)[:-1]:
        panel.axhline(end, color=COLOURS[1], linewidth=0.8)
        panel.axvline(end, color=COLOURS[1], linewidth=0.8)


def _number(value: float | None, percent: bool) -> str:
    if value is None:
        return "\N{EN DASH}"
    return f"{100 * value:.1f} %" if percent else f"{value:.3g}".replace("-", "\N{MINUS SIGN}")


def _diverging(value: float | None, grid: HeatMap) -> tuple[int, int, int]:
    """From orange at the lower limit over white at the neutral number to blue at the upper one, light enough for dark letters."""
    if value is None:
        return UNKNOWN
    full, end = (ABOVE, grid.limits[1]) if value > grid.neutral else (BELOW, grid.limits[0])
    reach, distance = abs(end - grid.neutral), abs(value - grid.neutral)
    share = min(1.0, distance / reach) if reach else float(distance > 0)
    red, green, blue = (round(255 + (c - 255) * share**0.7) for c in full)
    return red, green, blue


# The parts of a line plot


@dataclass(frozen=True)
class _Scale:
    """One axis: the numbers on it, and how they are shown."""

    values: Sequence[float]
    log: bool
    percent: bool = False

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The ends of the axis: all values with some room around them."""
        if self.percent:
            return 0.0, 1.0
        low, high = min(self.values), max(self.values)
        if self.log:
            room = 1.05 if low == high else (high / low) ** 0.04
            return low / room, high * room
        largest = max(abs(low), abs(high))
        if high - low <= max(1e-7 * largest, TINY):  # rounding errors are no differences to look at
            room = 0.05 * largest if largest > TINY else 0.5
            return low - room, high + room
        return low - 0.04 * (high - low), high + 0.04 * (high - low)

    @property
    def ticks(self) -> list[float]:
        """Round numbers within the limits."""
        low, high = self.limits
        if self.log:
            lowest, highest = math.floor(math.log10(low)), math.ceil(math.log10(high))
            stride, factors = max(1, (highest - lowest) // 7), (1, 2, 5) if high / low <= 100 else (1,)
            ticks = [factor * 10.0**exponent for exponent in range(lowest, highest + 1, stride) for factor in factors]
        else:
            ticks = [float(tick) for tick in MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
        return [tick for tick in ticks if low <= tick <= high]

    def written(self, tick: float) -> str:
        """A number at the axis; on a logarithmic one, powers of ten far from 1 as such."""
        if self.percent:
            return f"{100 * tick:.10g} %"
        if self.log and not 1e-3 <= tick < 1e4 and f"{tick:e}".startswith("1.0"):
            return f"10{str(round(math.log10(tick))).translate(SUPERSCRIPTS)}"
        return f"{tick:,.10g}".replace("-", "\N{MINUS SIGN}")


def _figure(lines: Sequence[Line], axes: Axes, references: Mapping[str, float], size: tuple[float, float], *, bars: bool) -> Figure:
    """Lines on their axes, without title and legend."""
    _check_positive(lines, axes, references)
    names = _names(lines)
    across = _Scale([float(value) for line in lines for value in line.x], axes.log_x)
    up = _vertical(lines, axes, references)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06, rect=(0, 0, 1, 0.985)), facecolor=PAPER)
    panel = figure.add_subplot(facecolor="none")
    panel.set_xscale("log" if axes.log_x else "linear")
    panel.set_yscale("log" if axes.log_y else "linear")
    panel.minorticks_off()
    panel.set(xlim=across.limits, ylim=up.limits)
    if axes.equal:
        panel.set_aspect("equal")
    panel.set_xticks(across.ticks, [across.written(tick) for tick in across.ticks], **font(9.5, SOFT))
    panel.set_yticks(up.ticks, [up.written(tick) for tick in up.ticks], **font(9.5, SOFT))
    panel.grid(True, color=RULE, linewidth=0.8, linestyle="solid", alpha=1, clip_on=False)
    panel.set_axisbelow(True)
    for side, spine in panel.spines.items():
        spine.set(visible=side in ("left", "bottom"), color=SOFT, linewidth=0.8)
    panel.tick_params(length=0, pad=5)
    panel.set_xlabel(words(axes.x), labelpad=5, **font(10, SOFT))
    panel.set_ylabel(words(axes.y), labelpad=5, **font(10, SOFT))
    for height in references.values():
        panel.axhline(height, zorder=1.5, clip_on=False, **REFERENCE)
    for line in lines:
        one_of_many = sum(other.name == line.name for other in lines) > 1
        _draw(panel, line, _look(names.index(line.name)), up.limits, bars=bars, thin=one_of_many)
    return figure


def _vertical(lines: Sequence[Line], axes: Axes, references: Mapping[str, float]) -> _Scale:
    """The axis of ``y``, which also shows the intervals, as far as it can, and the references."""
    values = [float(value) for line in lines for value in line.y if math.isfinite(value)]
    if not values:
        raise UserError("there is nothing to draw: no line has a point whose y is finite")
    values += references.values()
    wrong = next((value for value in values if not 0 <= value <= 1), None)
    if axes.percent and wrong is not None:
        raise UserError(f"an axis in percent shows shares from 0 to 1, not {wrong:g}")
    ends = [float(value) for line in lines for end in (line.low, line.high) if end is not None for value in end if math.isfinite(value)]
    return _Scale(values + [value for value in ends if value > 0 or not axes.log_y], axes.log_y, axes.percent)


def _check_positive(lines: Sequence[Line], axes: Axes, references: Mapping[str, float]) -> None:
    """Refuse what a logarithmic axis cannot show."""
    across = [(line.name, "x", line.x) for line in lines] if axes.log_x else []
    up = [(line.name, "y", line.y) for line in lines] + [(name, "y", [height]) for name, height in references.items()] if axes.log_y else []
    for name, axis, values in across + up:
        wrong = next((value for value in values if value <= 0), None)
        if wrong is not None:
            raise UserError(f"a logarithmic axis shows only numbers above 0, but the line {name!r} has {axis} = {wrong:g}")


def _draw(panel: Panel, line: Line, look: Mapping[str, Any], limits: tuple[float, float], *, bars: bool, thin: bool) -> None:
    """One line with its intervals, which end where the axis does."""
    x = [float(value) for value in line.x]
    y = [float(value) if math.isfinite(value) else math.nan for value in line.y]
    if line.low is not None and line.high is not None:
        low, high = ([min(max(float(value), limits[0]), limits[1]) for value in end] for end in (line.low, line.high))
        if bars:
            panel.vlines(x, low, high, colors=look["color"], linewidth=1.2, alpha=0.75, clip_on=False, zorder=2)
        else:
            panel.fill_between(x, low, high, color=look["color"], alpha=0.16, linewidth=0, clip_on=False, zorder=2)
    marks: dict[str, Any] = {"marker": "o" if len(x) <= MARKED and not thin else "", "markersize": 4.5, "markeredgewidth": 0}
    ends: dict[str, Any] = {"solid_joinstyle": "round", "solid_capstyle": "round"}
    panel.plot(x, y, linewidth=1.1 if thin else 1.8, clip_on=False, zorder=3, **look, **marks, **ends)


def _names(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line.name for line in lines))


def _look(place: int) -> dict[str, Any]:
    """Colour and dashes of the name at this place."""
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": DASHES[place // len(COLOURS) % len(DASHES)]}


def _legend(figure: Figure, entries: Sequence[tuple[str, Line2D]]) -> None:
    """Names below the plot, as many beside each other as fit; more rows of them make the figure taller."""
    if not entries:
        return
    columns = max(1, min(len(entries), round(13 * figure.get_figwidth()) // (max(len(words(name)) for name, _ in entries) + 8)))
    rows = -(-len(entries) // columns)
    figure.set_figheight(figure.get_figheight() + 0.2 * (rows - 1))
    legend = figure.legend(
        [handle for _, handle in entries],
        [f"line {i}" for i in range(len(entries))],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        prop=FontProperties(family=FONT, size=9.5),
        borderpad=0.2,
        borderaxespad=0.2,
        handlelength=1.8,
        columnspacing=1.6,
        labelspacing=0.5,
    )
    for text, (name, _) in zip(legend.get_texts(), entries, strict=True):
        text.set_text(words(name))  # only now: a legend drops names that begin with an underscore
        text.set(**font(9.5, INK))


# Letters and files


def font(size: float, colour: str) -> dict[str, Any]:
    """How text looks; a ``$`` in it is a ``$``."""
    return {"fontfamily": FONT, "fontsize": size, "color": colour, "parse_math": False, "usetex": False, "fontweight": "normal"}


def words(text: str) -> str:
    """A name, shortened where it is long, with a replacement character for what the font cannot show: matplotlib would warn of both."""
    shown = "".join(c if ord(c) in _characters() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.splitlines()))
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}"


def titled(panel: Panel, text: str) -> None:
    """A title above the left end of the axis, over several lines where it is long."""
    lines = textwrap.wrap(text, LONGEST)
    if lines:
        panel.set_title("\n".join(map(words, lines)), loc="left", pad=10, linespacing=1.3, **font(11, INK))


@cache
def _characters() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=FONT))).get_charmap())


def save(path: str | os.PathLike[str], figure: Figure, *, tight: bool = False) -> None:
    """Write a figure as its ending says; ``tight`` makes the picture as large as all that is in it.

    Raises:
        UserError: another ending than ``.png`` or ``.svg``, or a place that cannot be written.
    """
    ending, frame = Path(path).suffix.lower(), _frame(figure, tight)
    if ending == ".svg":
        files.write_text(path, document(svg_element(figure, "plot", **frame)))
    elif ending == ".png":
        FigureCanvasAgg(figure)
        files.write_with(path, lambda temporary: figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None}, **frame))
    else:
        raise UserError(f"{path} should end in .png or .svg: plots are written as one or the other")


def _frame(figure: Figure, tight: bool = False) -> dict[str, Any]:
    return {"bbox_inches": "tight" if tight else figure.bbox_inches, "pad_inches": 0.12, "facecolor": PAPER, "transparent": False}
