"""Small colour pictures of ten shapes, drawn many at a time: the visible part of the *shapes* dataset.

Every shape is built from discs and convex polygons by union (minimum) and intersection (maximum) of signed distances.
Per pixel only exactly rounded operations are used, so a picture is the same alone and in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from robustlab.seeding import fold, uniform

SIZE = 32  # pixels
ATTRIBUTES = {
    "large": "the shape's radius is at least 10 pixels, else below 9",
    "dark": "the shape is lighter than its dark background, else darker than its light one",
    "warm": "the shape is red to yellow, else green to violet",
    "striped": "the shape carries stripes",
    "outlined": "the shape has a contour: white on dark, black on light",
    "crowded": "five to seven spots lie around, else one to three",
}
_SPOTS = 7


def attributes(keys: Tensor) -> dict[str, Tensor]:
    """The six yes-or-no properties of each picture, independent fair coins: bool, shape ``(B,)`` each."""
    coins = uniform(fold(keys, "attributes"), (len(ATTRIBUTES),)) < 0.5
    return dict(zip(ATTRIBUTES, coins.T, strict=True))


def draw(shape: Tensor, keys: Tensor) -> Tensor:
    """Pictures of the shapes numbered ``shape``, int64 ``(B,)``: float32 in [0, 1], ``(B, 3, 32, 32)``; all else is drawn from ``keys``."""
    has = attributes(keys)
    x, y = _grid()
    picture = _background(x, y, keys, has)
    picture = _with_spots(picture, x, y, keys, has)
    picture = _with_shape(picture, x, y, shape, keys, has)
    grain = uniform(fold(keys, "grain"), (3, SIZE, SIZE)) - 0.5
    return (picture + grain * (4 / 255)).clamp_(0, 1)


def _background(x: Tensor, y: Tensor, keys: Tensor, has: dict[str, Tensor]) -> Tensor:
    """A gradient between two neighbouring hues, dark or light."""
    u = _Draws(keys, "background")
    hue = u(0, 1)
    value = torch.where(has["dark"], u(0.12, 0.34), u(0.78, 0.92))
    saturation = torch.where(has["dark"], u(0.35, 0.75), u(0.12, 0.4))
    first = _rgb(hue, saturation, value)
    second = _rgb(hue + u(-0.12, 0.12), saturation, value * torch.where(has["dark"], u(1.2, 1.7), u(0.82, 0.95)))
    cos, sin = _direction(u(0, 1))
    return _mix(_image(first), _image(second), ((x * cos + y * sin) / SIZE + 0.5).clamp(0, 1))


def _with_spots(picture: Tensor, x: Tensor, y: Tensor, keys: Tensor, has: dict[str, Tensor]) -> Tensor:
    """Small discs and squares of middling brightness, as distraction."""
    many = torch.where(has["crowded"], 5, 1) + (uniform(fold(keys, "spots"), ()) * 3).long()
    for spot in range(_SPOTS):
        u = _Draws(keys, "spot", spot)
        value = torch.where(has["dark"], u(0.4, 0.62), u(0.55, 0.75))
        color = _rgb(u(0, 1), u(0.25, 0.75), value)
        dx, dy = (x - _plane(u(-15, 15))).abs(), (y - _plane(u(-15, 15))).abs()
        round_ = _plane(u(0, 1) < 0.5)
        distance = torch.where(round_, (dx * dx + dy * dy).sqrt(), torch.maximum(dx, dy)) - _plane(u(0.9, 2.2))
        shown = _plane((spot < many).float() * u(0.5, 0.9))
        picture = _mix(picture, _image(color), _inside(distance) * shown)
    return picture


def silhouette(shape: Tensor, keys: Tensor) -> Tensor:
    """Where the shape covers the middle of a pixel, in the picture that ``draw`` makes of the same: bool ``(B, 32, 32)``."""
    return _placed(*_grid(), shape, keys, attributes(keys))[2] < 0


def _with_shape(picture: Tensor, x: Tensor, y: Tensor, shape: Tensor, keys: Tensor, has: dict[str, Tensor]) -> Tensor:
    """The shape with its shadow."""
    x, y, distance, radius = _placed(x, y, shape, keys, has)
    inside = _inside(distance)
    shaded = picture * (1 - 0.45 * _shadow(inside))[:, None]
    return _mix(shaded, _paint(x, y, distance, radius, keys, has), inside)


def _placed(x: Tensor, y: Tensor, shape: Tensor, keys: Tensor, has: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The shape anywhere within the picture, tilted by up to 25 degrees: the pixels as seen from its middle, in radii, their
    signed distance to it, in pixels, and its radius."""
    u = _Draws(keys, "shape")
    radius = torch.where(has["large"], u(10.0, 12.5), u(6.5, 9.0))
    reach = SIZE / 2 - 1 - radius
    x, y = ((along - _plane(u(-1, 1) * reach)) / _plane(radius) for along in (x, y))
    cos, sin = _direction(u(-0.07, 0.07))
    return x, y, _distance(shape, x * cos + y * sin, y * cos - x * sin) * _plane(radius), radius


def _paint(x: Tensor, y: Tensor, distance: Tensor, radius: Tensor, keys: Tensor, has: dict[str, Tensor]) -> Tensor:
    """The shape's colour, lit from the upper left, with stripes and contour where it has them; ``x`` and ``y`` in radii."""
    u = _Draws(keys, "paint")
    hue = torch.where(has["warm"], u(-0.04, 0.15), u(0.3, 0.8))
    value = torch.where(has["dark"], u(0.8, 0.95), u(0.32, 0.48) + 0.2 * has["warm"])
    color = _rgb(hue, u(0.55, 0.9), value)
    cos, sin = _direction(u(0, 1))
    wave = (x * cos + y * sin) * _plane(radius / u(4.0, 6.0))  # in periods
    stripes = ((wave - wave.floor() - 0.5).abs() * 4 - 0.5).clamp(0, 1)
    depth = _plane(has["striped"] * torch.where(has["dark"], -0.3, 0.5))  # darker stripes on a light shape, and the reverse
    color = (_image(color) * (1 - (x + y) / 8 + depth * stripes)[:, None]).clamp(0, 1)
    contour = torch.where(has["dark"], 0.97, 0.08)[:, None].expand(-1, 3)
    return _mix(color, _image(contour), _inside(-1.2 - distance) * _plane(has["outlined"].float()))


def _shadow(mask: Tensor) -> Tensor:
    """A mask thrown one and two pixels to the lower right."""
    once = torch.nn.functional.pad(mask, (1, 0, 1, 0))[:, :-1, :-1]
    twice = torch.nn.functional.pad(mask, (2, 0, 2, 0))[:, :-2, :-2]
    return (once + twice) / 2


# Shapes, in units of their radius; x to the right, y down.

Distance = Callable[[Tensor, Tensor], Tensor]


def _disc(x: Tensor, y: Tensor, cx: float, cy: float, radius: float) -> Tensor:
    return ((x - cx) * (x - cx) + (y - cy) * (y - cy)).sqrt() - radius


def _edges(x: Tensor, y: Tensor, corners: Sequence[tuple[float, float]]) -> list[Tensor]:
    """Signed distances to the lines through consecutive corners, clockwise on the screen; negative inside."""
    sides = zip(corners, [*corners[1:], corners[0]], strict=True)
    return [((x - ax) * (by - ay) - (y - ay) * (bx - ax)) / math.dist((ax, ay), (bx, by)) for (ax, ay), (bx, by) in sides]


def _convex(x: Tensor, y: Tensor, *corners: tuple[float, float]) -> Tensor:
    edges = _edges(x, y, corners)
    distance = edges[0]
    for edge in edges[1:]:
        distance = torch.maximum(distance, edge)
    return distance


def _box(x: Tensor, y: Tensor, half_width: float, half_height: float, cy: float = 0.0) -> Tensor:
    return torch.maximum(x.abs() - half_width, (y - cy).abs() - half_height)


def _square(x: Tensor, y: Tensor) -> Tensor:
    return _box(x, y, 0.8, 0.8)


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return _disc(x, y, 0, 0, 0.7).abs() - 0.24


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return _convex(x, y, (0, -0.95), (0.98, 0.75), (-0.98, 0.75))


def _cross(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(_box(x, y, 0.95, 0.32), _box(x, y, 0.32, 0.95))


def _star(x: Tensor, y: Tensor) -> Tensor:
    """A pentagram: the points outside at most one of its five lines."""
    tips = [(1.1 * math.sin(0.8 * math.pi * k), -1.1 * math.cos(0.8 * math.pi * k)) for k in range(5)]
    edges = _edges(x, y, tips)
    largest, second = torch.maximum(edges[0], edges[1]), torch.minimum(edges[0], edges[1])
    for edge in edges[2:]:
        second = torch.maximum(second, torch.minimum(largest, edge))
        largest = torch.maximum(largest, edge)
    return second


def _heart(x: Tensor, y: Tensor) -> Tensor:
    lobes = torch.minimum(_disc(x, y, -0.45, -0.3, 0.5), _disc(x, y, 0.45, -0.3, 0.5))
    return torch.minimum(lobes, _convex(x, y, (0, -0.4), (0.87, -0.02), (0, 0.95), (-0.87, -0.02)))


def _crescent(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(_disc(x, y, 0, 0, 0.97), -_disc(x, y, 0.5, -0.15, 0.78))


def _hourglass(x: Tensor, y: Tensor) -> Tensor:
    upper = _convex(x, y, (-0.8, -0.92), (0.8, -0.92), (0, 0.25))
    return torch.minimum(upper, _convex(x, y, (0, -0.25), (0.8, 0.92), (-0.8, 0.92)))


def _arrow(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(_convex(x, y, (0, -1), (0.85, 0), (-0.85, 0)), _box(x, y, 0.3, 0.65, 0.3))


SHAPES: dict[str, Distance] = {
    "disc": lambda x, y: _disc(x, y, 0, 0, 0.9),
    "ring": _ring,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "heart": _heart,
    "crescent": _crescent,
    "hourglass": _hourglass,
    "arrow": _arrow,
}


def _distance(shape: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Signed distance of each pixel to its image's shape, ``(B, H, W)``."""
    distance = torch.empty_like(x)
    for number, function in enumerate(SHAPES.values()):
        chosen = (shape == number).nonzero()[:, 0]
        distance[chosen] = function(x[chosen], y[chosen])
    return distance


# Numbers per image and planes of pixels.


class _Draws:
    """Successive uniform numbers of one purpose: each call gives the next one between two bounds, shape ``(B,)``."""

    def __init__(self, keys: Tensor, *purpose: str | int) -> None:
        self._columns = iter(uniform(fold(keys, *purpose), (16,)).T)

    def __call__(self, low: float, high: float) -> Tensor:
        return low + (high - low) * next(self._columns)


def _grid() -> tuple[Tensor, Tensor]:
    """x and y of the pixels' centres, measured from the middle of the picture, ``(H, W)`` each."""
    side = torch.arange(SIZE) + 0.5 - SIZE / 2
    return side.expand(SIZE, SIZE), side[:, None].expand(SIZE, SIZE)


def _direction(turn: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of a part of a full turn, as planes. In float64, whose last bit rounding to float32 hides."""
    angle = turn.double() * (2 * math.pi)
    return _plane(angle.cos().float()), _plane(angle.sin().float())


def _plane(value: Tensor) -> Tensor:
    return value[:, None, None]


def _image(color: Tensor) -> Tensor:
    return color[:, :, None, None]


def _inside(distance: Tensor) -> Tensor:
    """How much of a pixel is covered by what lies at a signed distance, ``(B, H, W)`` in [0, 1]."""
    return (0.5 - distance).clamp(0, 1)


def _mix(below: Tensor, above: Tensor, opacity: Tensor) -> Tensor:
    return below + (above - below) * opacity[:, None]


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Colours ``(B, 3)`` from hue (in turns, any real), saturation and value."""
    place = (torch.tensor([5.0, 3.0, 1.0]) + 6 * hue[:, None]) % 6
    depth = torch.minimum(place, 4 - place).clamp(0, 1)
    return value[:, None] * (1 - saturation[:, None] * depth)
