"""Drawing on a small square picture with whole numbers only, so that ``static/raster.js`` gives the same bytes.

A picture is a ``bytearray`` of ``size * size`` RGB pixels, row by row. Shapes are filled and have no soft edges; whatever lies
beyond the picture is cut off. Every tool changes ``picture`` in place; ``size`` is its side in pixels, ``points`` and the corners ``start``
and ``end`` are ``(x, y)`` from the upper left, ``color`` is three numbers from 0 to 255. ``tests/demo/raster_vectors.json`` holds both
programs to the same results.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

BLANK = (204, 204, 204)

Color = Sequence[int]
Point = Sequence[int]


def blank(size: int, color: Color = BLANK) -> bytearray:
    """A picture of one colour."""
    return bytearray(bytes(color) * (size * size))


def brush(picture: bytearray, size: int, points: Sequence[Point], color: Color, width: int) -> None:
    """Discs of diameter ``width`` along straight lines from point to point; one point gives one disc."""
    dots = points[:1] if len(points) == 1 else [dot for a, b in zip(points, points[1:], strict=False) for dot in line(a, b)]
    half = (width - 1) // 2
    for cx, cy in dots:
        for j in range(width):
            for i in range(width):
                if (2 * i + 1 - width) ** 2 + (2 * j + 1 - width) ** 2 < width * width:
                    _set(picture, size, cx - half + i, cy - half + j, color)


def line(start: Point, end: Point) -> Iterator[tuple[int, int]]:
    """The pixels between two, both included (Bresenham 1965)."""
    (x, y), (x1, y1) = start, end
    dx, dy = abs(x1 - x), -abs(y1 - y)
    sx, sy = (1 if x < x1 else -1), (1 if y < y1 else -1)
    error = dx + dy
    while True:
        yield x, y
        if x == x1 and y == y1:
            return
        twice = 2 * error
        if twice >= dy:
            error, x = error + dy, x + sx
        if twice <= dx:
            error, y = error + dx, y + sy


def rectangle(picture: bytearray, size: int, start: Point, end: Point, color: Color) -> None:
    """All pixels between two corners, both included."""
    for x, y in _box(size, start, end):
        _set(picture, size, x, y, color)


def circle(picture: bytearray, size: int, start: Point, end: Point, color: Color) -> None:
    """The ellipse that touches the four sides of the box between two corners."""
    x0, y0 = min(start[0], end[0]), min(start[1], end[1])
    width, height = abs(end[0] - start[0]) + 1, abs(end[1] - start[1]) + 1
    room = width * width * height * height + max(width, height) ** 2  # so that thin ones reach their ends too
    for x, y in _box(size, start, end):
        across, down = (2 * (x - x0) + 1 - width) * height, (2 * (y - y0) + 1 - height) * width
        if across * across + down * down <= room:
            _set(picture, size, x, y, color)


def apply(picture: bytearray, size: int, action: Mapping[str, Any]) -> None:
    """Draw one entry of a history: ``fill``, ``brush``, ``rectangle`` or ``circle``."""
    kind = action["do"]
    if kind == "fill":
        picture[:] = blank(size, action["color"])
    elif kind == "brush":
        brush(picture, size, action["points"], action["color"], action["width"])
    elif kind == "rectangle":
        rectangle(picture, size, action["from"], action["to"], action["color"])
    elif kind == "circle":
        circle(picture, size, action["from"], action["to"], action["color"])
    else:
        raise ValueError(f"{kind!r} is no drawing")


def _box(size: int, start: Point, end: Point) -> Iterator[tuple[int, int]]:
    """The pixels of the picture between two corners."""
    for y in range(max(min(start[1], end[1]), 0), min(max(start[1], end[1]), size - 1) + 1):
        for x in range(max(min(start[0], end[0]), 0), min(max(start[0], end[0]), size - 1) + 1):
            yield x, y


def _set(picture: bytearray, size: int, x: int, y: int, color: Color) -> None:
    if 0 <= x < size and 0 <= y < size:
        at = 3 * (y * size + x)
        picture[at : at + 3] = bytes(color)
