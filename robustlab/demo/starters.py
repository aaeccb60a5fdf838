"""Pictures to begin with: sketches drawn with the page's own tools, and examples from a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch

from robustlab.data.imageset import Images, ImageSet, files_of, first_of_each_class, spread
from robustlab.demo import raster
from robustlab.demo.session import as_bytes
from robustlab.demo.uploads import decode_upload
from robustlab.errors import UserError
from robustlab.paths import shown
from robustlab.pixels import to_uint8

MOST = 12
PHOTOGRAPHS = ("cat", "rocket", "cup", "astronaut")


@dataclass(frozen=True)
class Starter:
    """A picture with its name."""

    name: str
    picture: bytes


# Drawn at 32 pixels, scaled to others.
SKETCHES: dict[str, list[dict[str, Any]]] = {
    "meadow": [
        {"do": "fill", "color": (150, 190, 225)},
        {"do": "rectangle", "from": (0, 17), "to": (31, 31), "color": (96, 140, 62)},
        {"do": "circle", "from": (7, 11), "to": (22, 20), "color": (122, 84, 52)},
        {"do": "circle", "from": (19, 6), "to": (26, 13), "color": (122, 84, 52)},
        {"do": "rectangle", "from": (9, 18), "to": (10, 26), "color": (96, 66, 42)},
        {"do": "rectangle", "from": (19, 18), "to": (20, 26), "color": (96, 66, 42)},
    ],
    "sea": [
        {"do": "fill", "color": (196, 216, 232)},
        {"do": "rectangle", "from": (0, 19), "to": (31, 31), "color": (46, 92, 138)},
        {"do": "rectangle", "from": (5, 15), "to": (27, 20), "color": (226, 226, 222)},
        {"do": "rectangle", "from": (12, 9), "to": (20, 14), "color": (240, 240, 236)},
        {"do": "rectangle", "from": (15, 5), "to": (17, 8), "color": (170, 58, 46)},
    ],
    "sky": [
        {"do": "fill", "color": (104, 158, 220)},
        {"do": "circle", "from": (2, 20), "to": (15, 27), "color": (226, 234, 244)},
        {"do": "brush", "points": ((5, 16), (26, 11)), "width": 4, "color": (232, 234, 238)},
        {"do": "brush", "points": ((15, 14), (9, 6)), "width": 2, "color": (200, 206, 214)},
        {"do": "brush", "points": ((15, 14), (20, 21)), "width": 2, "color": (176, 184, 196)},
    ],
    "road": [
        {"do": "fill", "color": (176, 196, 208)},
        {"do": "rectangle", "from": (0, 20), "to": (31, 31), "color": (104, 104, 108)},
        {"do": "rectangle", "from": (4, 14), "to": (27, 22), "color": (188, 44, 36)},
        {"do": "rectangle", "from": (9, 9), "to": (21, 14), "color": (84, 104, 124)},
        {"do": "circle", "from": (6, 20), "to": (11, 25), "color": (24, 24, 26)},
        {"do": "circle", "from": (20, 20), "to": (25, 25), "color": (24, 24, 26)},
    ],
    "face": [
        {"do": "fill", "color": (206, 190, 160)},
        {"do": "circle", "from": (6, 8), "to": (25, 28), "color": (150, 112, 76)},
        {"do": "brush", "points": ((8, 5), (10, 10)), "width": 5, "color": (120, 84, 54)},
        {"do": "brush", "points": ((23, 5), (21, 10)), "width": 5, "color": (120, 84, 54)},
        {"do": "circle", "from": (10, 14), "to": (12, 17), "color": (20, 18, 16)},
        {"do": "circle", "from": (19, 14), "to": (21, 17), "color": (20, 18, 16)},
        {"do": "circle", "from": (13, 19), "to": (18, 22), "color": (34, 28, 26)},
    ],
    "pond": [
        {"do": "fill", "color": (88, 112, 60)},
        {"do": "circle", "from": (1, 16), "to": (30, 30), "color": (52, 80, 84)},
        {"do": "circle", "from": (8, 12), "to": (24, 23), "color": (112, 160, 58)},
        {"do": "circle", "from": (8, 9), "to": (13, 14), "color": (140, 184, 76)},
        {"do": "circle", "from": (19, 9), "to": (24, 14), "color": (140, 184, 76)},
    ],
}


def sketches(size: int) -> list[Starter]:
    """``SKETCHES`` at a picture's size."""
    return [Starter(name, _drawn(actions, size)) for name, actions in SKETCHES.items()]


def photographs(size: int) -> list[Starter]:
    """The photographs that ship, free of rights, at a picture's size; see the README beside them."""
    folder = files("robustlab.demo").joinpath("photographs")
    return [Starter(name, decode_upload(folder.joinpath(f"{name}.jpg").read_bytes(), size)) for name in PHOTOGRAPHS]


def shipped(size: int) -> Images:
    """The photographs and sketches as images of one class."""
    pictures = [torch.frombuffer(bytearray(each.picture), dtype=torch.uint8).view(size, size, 3) for each in starters(size)]
    pixels = torch.stack(pictures).permute(0, 3, 1, 2).contiguous()
    return ImageSet(pixels, torch.zeros(len(pixels), dtype=torch.int64), ("picture",), "shipped pictures")


def starters(size: int) -> list[Starter]:
    """Everything that is there to begin with, also without images of one's own."""
    return [*sketches(size), *photographs(size)]


def examples(images: Images) -> list[Starter]:
    """The first image of each class, of at most ``MOST`` classes spread over all of them; of one class as many images, by their files.

    Raises:
        UserError: the images are not square or not in colour.
    """
    channels, height, width = images.shape
    if channels != 3 or height != width:
        raise UserError(f"the page shows square pictures in colour, but {images.name} has {width}x{height} pixels of {channels} channels")
    files = files_of(images)
    if len(images.classes) == 1 and files is not None:
        index = spread(len(images), MOST)
        return [Starter(shown(files[i]), as_bytes(to_uint8(images.fetch(torch.tensor([i]))))) for i in index.tolist()]
    index = first_of_each_class(images, MOST)
    names = [images.classes[k] for k in images.labels.cpu()[index].tolist()]
    return [Starter(name, as_bytes(to_uint8(images.fetch(place[None])))) for name, place in zip(names, index, strict=True)]


def _drawn(actions: list[dict[str, Any]], size: int) -> bytes:
    picture = raster.blank(size)
    for action in actions:
        raster.apply(picture, size, _scaled(action, size))
    return bytes(picture)


def _scaled(action: Mapping[str, Any], size: int) -> dict[str, Any]:
    """An action at 32 pixels as one at ``size``; far corners of boxes reach their pixel's far side."""

    def at(point: tuple[int, int], far: int = 0) -> tuple[int, int]:
        return ((point[0] + far) * size // 32 - far, (point[1] + far) * size // 32 - far)

    scaled = dict(action)
    if "from" in action:
        scaled |= {"from": at(action["from"]), "to": at(action["to"], 1)}
    if "points" in action:
        scaled |= {"points": [at(point) for point in action["points"]], "width": max(action["width"] * size // 32, 1)}
    return scaled
