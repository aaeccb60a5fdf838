"""Drawing: exact pixels, the same in any direction, and the file of results that ``raster.js`` is held to as well."""

from __future__ import annotations

import base64
import json
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import seeded

from robustlab.demo import raster

RED = (255, 0, 0)
VECTORS = json.loads(Path(__file__).with_name("raster_vectors.json").read_text())
places = st.tuples(st.integers(-20, 30), st.integers(-20, 30))


def drawn(size: int, *actions: dict) -> bytearray:
    picture = raster.blank(size)
    for action in actions:
        raster.apply(picture, size, action)
    return picture


def painted(size: int, action: dict) -> set[tuple[int, int]]:
    """Where an action paints."""
    picture = drawn(size, {**action, "color": RED})
    return {(k % size, k // size) for k in range(size * size) if picture[3 * k : 3 * k + 3] == bytes(RED)}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_the_shared_results(vector):
    assert base64.b64encode(drawn(vector["size"], *vector["actions"])).decode() == vector["rgb"]


def test_the_shared_results_cover_every_tool_in_every_direction():
    names = {vector["name"] for vector in VECTORS}
    assert {f"{tool} {x}{y}" for tool, x, y in product(("rectangle", "circle", "brush"), "+-", "+-")} <= names
    assert {action["do"] for vector in VECTORS for action in vector["actions"]} == {"fill", "brush", "rectangle", "circle"}


@seeded
@given(places, places, st.sampled_from(["rectangle", "circle"]))
def test_a_shape_is_the_same_from_any_corner(a, b, tool):
    corners = [(a, b), (b, a), ((a[0], b[1]), (b[0], a[1])), ((b[0], a[1]), (a[0], b[1]))]
    assert len({frozenset(painted(12, {"do": tool, "from": p, "to": q})) for p, q in corners}) == 1


@seeded
@given(places, places)
def test_a_rectangle_is_every_pixel_between_its_corners(a, b):
    (x0, x1), (y0, y1) = sorted((a[0], b[0])), sorted((a[1], b[1]))
    wanted = {(x, y) for x in range(12) for y in range(12) if x0 <= x <= x1 and y0 <= y <= y1}
    assert painted(12, {"do": "rectangle", "from": a, "to": b}) == wanted


@seeded
@given(st.integers(1, 12), st.integers(1, 12))
def test_a_circle_touches_the_sides_of_its_box_and_is_symmetric(width, height):
    found = painted(12, {"do": "circle", "from": (0, 0), "to": (width - 1, height - 1)})
    assert {x for x, _ in found} == set(range(width)) and {y for _, y in found} == set(range(height))
    assert found == {(width - 1 - x, y) for x, y in found} == {(x, height - 1 - y) for x, y in found}
    assert (width < 5 or height < 5) or (0, 0) not in found


@seeded
@given(places, places)
def test_a_line_joins_its_ends_without_gaps(a, b):
    dots = list(raster.line(a, b))
    assert dots[0] == a and dots[-1] == b
    assert len(dots) == max(abs(a[0] - b[0]), abs(a[1] - b[1])) + 1
    assert all(max(abs(x - u), abs(y - v)) == 1 for (x, y), (u, v) in zip(dots, dots[1:], strict=False))


@seeded
@given(st.lists(places, min_size=2, max_size=5), st.integers(1, 6))
def test_a_stroke_is_its_pieces(points, width):
    """The page paints a stroke piece by piece as it is drawn, and a recipe as a whole."""
    whole = painted(12, {"do": "brush", "points": points, "width": width})
    pieces = [painted(12, {"do": "brush", "points": [a, b], "width": width}) for a, b in zip(points, points[1:], strict=False)]
    assert whole == set.union(*pieces)


@pytest.mark.parametrize("width", range(1, 9))
def test_a_dab_is_as_wide_as_the_brush_and_round(width):
    found = painted(16, {"do": "brush", "points": [(7, 7)], "width": width})
    xs, ys = {x for x, _ in found}, {y for _, y in found}
    assert len(xs) == len(ys) == width and (7, 7) in found
    assert found == {(min(xs) + max(xs) - x, y) for x, y in found} == {(y, x) for x, y in found}
    assert width < 4 or (min(xs), min(ys)) not in found


def test_nothing_is_painted_beyond_the_picture():
    """A pixel to the right of the last is not the first of the next row."""
    for action in ({"do": "brush", "points": [(-3, 5), (20, 5)], "width": 1}, {"do": "rectangle", "from": (-4, 5), "to": (30, 5)}):
        assert painted(12, action) == {(x, 5) for x in range(12)}


def test_an_unknown_drawing_is_refused():
    with pytest.raises(ValueError, match="no drawing"):
        drawn(4, {"do": "spray"})
