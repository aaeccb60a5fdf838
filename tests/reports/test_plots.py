"""Plots: the same input gives the same bytes anywhere; axes hold all points; every cell of a heat map has its colour."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from laws import seeded
from matplotlib import style
from PIL import Image

from robustlab.errors import UserError
from robustlab.evaluation import Rate
from robustlab.reports.plots import (
    COLOURS,
    DASHES,
    Axes,
    HeatMap,
    Line,
    _Scale,
    accuracy_line,
    heat_map,
    line_plot,
    line_svg,
    spread_line,
)

LINES = [Line("standard", [1, 10, 100], [0.9, 0.5, 0.2], [0.8, 0.4, 0.1], [1, 0.6, 0.3]), Line("robust", [1, 10, 100], [0.8, 0.7, 0.6])]
GRID = HeatMap("Title", "eps", "source", ("a", "b"), ("r",), ((0.5, None),), 0.1)
every_ending = pytest.mark.parametrize("ending", ["png", "svg"])
numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


def parts(path: Path, kind: str = "path") -> list[dict[str, Any]]:
    """The styles of an SVG file's parts of a kind, with their ``d``."""
    root = ET.parse(path).getroot()
    found = []
    for element in root.iter(f"{{http://www.w3.org/2000/svg}}{kind}"):
        style = dict(pair.split(": ") for pair in element.get("style", "").split("; ") if pair)
        found.append({**style, "d": " ".join(element.get("d", "").split())})
    return found


def curves(path: Path) -> list[dict[str, Any]]:
    """The lines of a plot, entries of the legend included."""
    return [part for part in parts(path) if part.get("fill") == "none" and part.get("stroke") in COLOURS]


# Lines


@every_ending
def test_the_same_input_gives_the_same_bytes_in_any_thread(tmp_path: Path, ending: str) -> None:
    def draw(i: int) -> tuple[bytes, bytes]:
        lines, grid = tmp_path / f"lines{i}.{ending}", tmp_path / f"grid{i}.{ending}"
        line_plot(lines, LINES, Axes("eps", "accuracy", log_x=True, percent=True), title="Title", references={"chance": 0.1})
        heat_map(grid, GRID)
        return lines.read_bytes(), grid.read_bytes()

    alone = draw(0)
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(draw, range(1, 9))) == {alone}


@every_ending
@pytest.mark.parametrize(
    "settings",
    [
        style.library["dark_background"],
        {"text.usetex": True},
        {"savefig.bbox": "tight", "savefig.transparent": True, "figure.dpi": 50},
        {"font.family": "serif", "font.size": 20, "legend.fontsize": 30, "axes.titlesize": 30},
    ],
    ids=["dark", "tex", "saving", "fonts"],
)
def test_the_readers_own_settings_change_nothing_and_stay(tmp_path: Path, settings: dict[str, Any], ending: str) -> None:
    line_plot(tmp_path / f"a.{ending}", LINES, Axes("x", "y"), title="Title")
    heat_map(tmp_path / f"b.{ending}", GRID)
    with matplotlib.rc_context(settings):
        before = dict(matplotlib.rcParams)
        line_plot(tmp_path / f"c.{ending}", LINES, Axes("x", "y"), title="Title")
        heat_map(tmp_path / f"d.{ending}", GRID)
        assert dict(matplotlib.rcParams) == before
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"c.{ending}").read_bytes()
    assert (tmp_path / f"b.{ending}").read_bytes() == (tmp_path / f"d.{ending}").read_bytes()


def test_no_window_is_thought_of() -> None:
    code = "import sys, robustlab.reports.plots; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120)
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize("name", ["$x_1", "_hidden", "\N{CJK UNIFIED IDEOGRAPH-732B}", "a\nb", "a\x00b", "<b>&amp;", "$\\frac{", "x" * 300])
@every_ending
def test_any_name_can_be_drawn(tmp_path: Path, name: str, ending: str) -> None:
    """Warnings are errors in the tests."""
    line_plot(tmp_path / f"a.{ending}", [Line(name, [0, 1], [0, 1])], Axes(name, name), title=name, references={name: 0.5})
    heat_map(tmp_path / f"b.{ending}", HeatMap(name, name, name, (name,), (name,), ((0.5,),), 0.1))
    assert len(list(tmp_path.iterdir())) == 2


def test_another_ending_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    for draw in (lambda path: line_plot(path, LINES), lambda path: heat_map(path, GRID)):
        with pytest.raises(UserError, match="should end in .png or .svg"):
            draw(tmp_path / "plot.pdf")
    assert not list(tmp_path.iterdir())


def test_lines_of_one_name_share_a_colour_and_an_entry(tmp_path: Path) -> None:
    runs = [Line(name, [1, 2, 3], [i, i + 1, i]) for name in ("first", "second") for i in range(5)]
    line_plot(tmp_path / "a.svg", runs)
    found = [curve["stroke"] for curve in curves(tmp_path / "a.svg")]
    assert [found.count(colour) for colour in COLOURS[:3]] == [5 + 1, 5 + 1, 0]


def test_more_names_than_colours_differ_by_their_dashes(tmp_path: Path) -> None:
    n = len(COLOURS) * len(DASHES)
    line_plot(tmp_path / "a.svg", [Line(f"line {i}", [0, 1], [i, i]) for i in range(n)])
    looks = {(curve["stroke"], curve.get("stroke-dasharray")) for curve in curves(tmp_path / "a.svg") if curve["d"].count("L") == 1}
    assert len(looks) == n


def test_a_value_that_is_not_finite_leaves_a_gap(tmp_path: Path) -> None:
    for value, pieces in ((2.5, 1), (math.nan, 2), (math.inf, 2)):
        line_plot(tmp_path / "a.svg", [Line("", [0, 1, 2, 3, 4], [1, 2, value, 4, 5])])
        (curve,) = (c for c in curves(tmp_path / "a.svg"))
        assert curve["d"].count("M") == pieces


def test_all_points_and_intervals_lie_within_the_axes(tmp_path: Path) -> None:
    """The ends of the axes come from the values, so nothing is cut off."""
    for log in (False, True):
        scale = _Scale([3.0, 1e-4, 1e4], log)
        assert scale.limits[0] < 1e-4 and scale.limits[1] > 1e4


@seeded
@given(st.lists(numbers, min_size=1, max_size=5))
@example([2.2250738585072014e-308])
@example([2.2250738585072014e-308, 5e-308])
def test_a_linear_axis_has_a_few_different_round_ticks(values: list[float]) -> None:
    scale = _Scale(values, False)
    low, high = scale.limits
    written = [scale.written(tick) for tick in scale.ticks]
    assert low < high and 2 <= len(written) == len(set(written)) <= 8
    assert all(low <= tick <= high for tick in scale.ticks)


@seeded
@given(st.lists(st.floats(-12, 12), min_size=1, max_size=5))
def test_a_logarithmic_axis_has_a_few_different_ticks(exponents: list[float]) -> None:
    scale = _Scale([10.0**e for e in exponents], True)
    low, high = scale.limits
    written = [scale.written(tick) for tick in scale.ticks]
    assert 0 < low < high and len(written) == len(set(written)) <= 13
    assert len(written) >= 2 or high / low < 3


@pytest.mark.parametrize("tick, written", [(1e-5, "10⁻⁵"), (0.01, "0.01"), (2000.0, "2,000"), (1e6, "10⁶"), (0.5, "0.5")])
def test_powers_of_ten_far_from_one_are_written_as_such(tick: float, written: str) -> None:
    assert _Scale([1.0], True).written(tick) == written


@pytest.mark.parametrize(
    "lines, axes, sentence",
    [
        ([], Axes(), "there is nothing to draw"),
        ([Line("a", [], [])], Axes(), "there is nothing to draw"),
        ([Line("a", [1], [math.nan])], Axes(), "there is nothing to draw"),
        ([Line("a", [0, 1], [1, 1])], Axes(log_x=True), "the line 'a' has x = 0"),
        ([Line("a", [1, 2], [1, -2])], Axes(log_y=True), "the line 'a' has y = -2"),
        ([Line("a", [1, 2], [0.5, 50])], Axes(percent=True), "shows shares from 0 to 1, not 50"),
    ],
)
def test_what_cannot_be_drawn_is_told(tmp_path: Path, lines: list[Line], axes: Axes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        line_plot(tmp_path / "a.png", lines, axes)
    assert not list(tmp_path.iterdir())


def test_a_reference_at_zero_is_refused_on_a_logarithmic_axis(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the line 'zero' has y = 0"):
        line_plot(tmp_path / "a.png", LINES, Axes(log_y=True), references={"zero": 0.0})


@pytest.mark.parametrize(
    "x, y, low, high",
    [([1], [1, 2], None, None), ([1, 2], [1, 2], [1], [1]), ([1], [1], [1], None), ([1], [1], None, [1]), ([math.inf], [1], None, None)],
)
def test_coordinates_that_do_not_match_are_refused(x: list[float], y: list[float], low: Any, high: Any) -> None:
    with pytest.raises(UserError, match="the line 'a'"):
        Line("a", x, y, low, high)


@pytest.mark.parametrize("bars", [False, True])
def test_an_interval_may_reach_down_to_zero_on_a_logarithmic_axis(tmp_path: Path, bars: bool) -> None:
    line_plot(tmp_path / "a.svg", [Line("a", [1, 2], [0.1, 1], [0, 0], [1, 2])], Axes(log_y=True), bars=bars)
    coloured = [part["d"] for part in parts(tmp_path / "a.svg") if COLOURS[0] in part.values()]
    heights = [float(y) for path in coloured for y in re.findall(r"[ML] \S+ (\S+)", path)]
    assert len(heights) >= 4 and all(0 <= abs(height) <= 4.2 * 72 for height in heights)


@seeded
@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_several_runs_are_one_line_between_the_smallest_and_the_largest(runs: list[list[float]], random: Any) -> None:
    line = spread_line("runs", [1, 2, 3], runs)
    assert line.low is not None and line.high is not None
    for values, low, y, high in zip(zip(*runs, strict=True), line.low, line.y, line.high, strict=True):
        assert low == min(values) <= y <= max(values) == high
    random.shuffle(runs)
    assert spread_line("runs", [1, 2, 3], runs) == line


def test_where_one_run_ended_early_there_is_a_gap() -> None:
    line = spread_line("runs", [1, 2], [[1, 2], [3, math.nan]])
    assert line.y[0] == 2 and math.isnan(line.y[1])


def test_accuracies_are_a_line_in_order_with_their_intervals() -> None:
    rates = {0.5: Rate(3, 10), 0.0: Rate(9, 10)}
    line = accuracy_line("model", rates)
    assert line.x == [0.0, 0.5] and line.y == [0.9, 0.3]
    assert list(zip(line.low or (), line.high or (), strict=True)) == [rates[0.0].interval, rates[0.5].interval]


# For the middle of a page


def test_an_svg_for_a_page_has_its_label_its_colours_and_ids_of_its_own() -> None:
    text = line_svg(LINES, Axes("x", "y"), label='a < "b"', colours={"standard": "var(--a)", "robust": "red"}, ids="mine")
    root = ET.fromstring(text)
    assert (root.tag, root.get("role"), root.get("aria-label")) == ("svg", "img", 'a < "b"')
    assert "viewBox" in root.attrib and not {"width", "height", "xmlns"} & set(root.attrib)
    assert "var(--a)" in text and "red" in text and "currentColor" in text and not any(colour in text for colour in COLOURS)
    assert not {"metadata", "style"} & {element.tag for element in root.iter()} and "://" not in text
    ids = [element.get("id", "mine-") for element in root.iter()]
    assert all(name.startswith("mine-") for name in ids)
    assert {address[1:] for element in root.iter() if (address := element.get("href"))} <= set(ids)


# Heat maps


def drawn(path: Path, values: tuple[tuple[float | None, ...], ...], neutral: float = 0.1, **more: Any) -> Image.Image:
    """The picture of a grid, which must be a PNG file."""
    columns, rows = tuple("abcdefghij"[: len(values[0])]), tuple("xyz"[: len(values)])
    heat_map(path, HeatMap("Title", "eps", "source", columns, rows, values, neutral, **more))
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.convert("RGB")


def colours(image: Image.Image) -> set[tuple[int, ...]]:
    """The colours of whole areas, letters and edges left out."""
    return {colour for count, colour in image.getcolors(1 << 20) if count > 1000}


def test_above_the_neutral_share_is_blue_and_below_it_orange(tmp_path: Path) -> None:
    (above,) = colours(drawn(tmp_path / "a.png", ((0.9,),))) - {(255, 255, 255)}
    (below,) = colours(drawn(tmp_path / "b.png", ((0.01,),))) - {(255, 255, 255)}
    assert above[2] > above[0] and below[0] > below[2]


def test_the_neutral_share_is_white_and_nothing_measured_is_grey(tmp_path: Path) -> None:
    assert colours(drawn(tmp_path / "a.png", ((0.1,),))) == {(255, 255, 255)}
    assert colours(drawn(tmp_path / "b.png", ((None,),))) == {(255, 255, 255), (243, 244, 246)}


@pytest.mark.parametrize("neutral", [0.1, 0.5])
def test_every_share_from_none_to_all_can_be_drawn(tmp_path: Path, neutral: float) -> None:
    assert len(colours(drawn(tmp_path / "a.png", ((0.0, neutral, 1.0), (None, 0.05, 0.6)), neutral))) == 6


def test_other_numbers_than_shares_have_limits_of_their_own(tmp_path: Path) -> None:
    shares = drawn(tmp_path / "a.png", ((0.0, 0.5, 1.0),), 0.5)
    others = drawn(tmp_path / "b.png", ((-1.0, 0.0, 1.0),), 0.0, limits=(-1.0, 1.0), percent=False)
    beyond = drawn(tmp_path / "c.png", ((-9.0, 0.0, 9.0),), 0.0, limits=(-1.0, 1.0), percent=False)
    at_the_end = drawn(tmp_path / "d.png", ((-9.0, 0.0, 9.0),), 0.0, percent=False)
    assert colours(shares) == colours(others) == colours(beyond) == colours(at_the_end)


def test_a_larger_grid_is_a_larger_picture(tmp_path: Path) -> None:
    small, large = drawn(tmp_path / "a.png", ((0.2,),)), drawn(tmp_path / "b.png", ((0.2,) * 9,) * 3)
    assert large.width > small.width and large.height > small.height


def test_rows_that_do_not_fit_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        heat_map(tmp_path / "a.png", HeatMap("T", "x", "y", ("a",), ("r", "s"), ((0.5,),), 0.1))
    assert not list(tmp_path.iterdir())
