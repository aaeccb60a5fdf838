"""Curves and grids of shares as PNG files, drawn without a display and without matplotlib: a few lines, two axes, a legend."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

from PIL import Image, ImageDraw, ImageFont

from robustlab import files
from robustlab.evaluation import Rate
from robustlab.experiments.table import Heatmap

SIZE, MARGIN, ZOOM = (640, 420), (64, 44, 24, 56), 2  # in points; left, top, right, bottom
COLOURS = ("#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce", "#a16207", "#be185d")


def save_curve(path: str | os.PathLike[str], curves: Mapping[str, Mapping[float, Rate]], title: str, norm: str) -> None:
    """Accuracy over eps with its 95 % intervals, one line per model, as a PNG file.

    Args:
        curves: from a model's name to its accuracies by radius, at least one point each.
        title: above the picture.
        norm: the unit of the horizontal axis, such as ``L2``.
    """
    plot = _Plot(max((eps for rates in curves.values() for eps in rates), default=1.0) or 1.0)
    plot.axes(title, f"{norm} eps, pixels in [0, 1]")
    for place, ((name, rates), colour) in enumerate(zip(curves.items(), COLOURS * (1 + len(curves) // len(COLOURS)), strict=False)):
        points = sorted(rates.items())
        lower = [plot.at(eps, rate.interval[0]) for eps, rate in points]
        upper = [plot.at(eps, rate.interval[1]) for eps, rate in points]
        if len(points) > 1:
            plot.band(upper + lower[::-1], colour)
        plot.line([plot.at(eps, rate.value) for eps, rate in points], colour)
        plot.legend(place, name, colour)
    image = plot.image.resize(SIZE, Image.Resampling.LANCZOS)
    files.write_with(path, lambda temporary: image.save(temporary, format="PNG"))


class _Plot:
    """A drawing of twice the size, shrunk at the end for smooth lines."""

    def __init__(self, widest: float) -> None:
        self.widest = widest
        self.image = Image.new("RGB", (SIZE[0] * ZOOM, SIZE[1] * ZOOM), "white")
        self.draw = ImageDraw.Draw(self.image, "RGBA")

    def at(self, eps: float, accuracy: float) -> tuple[float, float]:
        left, top, right, bottom = MARGIN
        x = left + (SIZE[0] - left - right) * eps / self.widest
        y = top + (SIZE[1] - top - bottom) * (1 - accuracy)
        return x * ZOOM, y * ZOOM

    def axes(self, title: str, unit: str) -> None:
        for percent in range(0, 101, 20):
            self.draw.line([self.at(0, percent / 100), self.at(self.widest, percent / 100)], fill="#e5e7eb", width=ZOOM)
            self.text(self.at(0, percent / 100), f"{percent} %", "rm", offset=(-8, 0))
        step = _round_step(self.widest / 5)
        for i in range(math.floor(self.widest / step + 1e-9) + 1):
            self.text(self.at(i * step, 0), f"{i * step:.3g}", "ma", offset=(0, 8))
        self.draw.line([self.at(0, 1), self.at(0, 0), self.at(self.widest, 0)], fill="#374151", width=ZOOM)
        self.text((SIZE[0] / 2 * ZOOM, (SIZE[1] - 12) * ZOOM), unit, "ms")
        self.text((SIZE[0] / 2 * ZOOM, 14 * ZOOM), title, "ma", size=15)

    def band(self, corners: list[tuple[float, float]], colour: str) -> None:
        self.draw.polygon(corners, fill=colour + "30")

    def line(self, points: list[tuple[float, float]], colour: str) -> None:
        self.draw.line(points, fill=colour, width=2 * ZOOM, joint="curve")
        for x, y in points:
            self.draw.ellipse([x - 3 * ZOOM, y - 3 * ZOOM, x + 3 * ZOOM, y + 3 * ZOOM], fill=colour)

    def legend(self, place: int, name: str, colour: str) -> None:
        x, y = (SIZE[0] - MARGIN[2]) * ZOOM, (MARGIN[1] + 6 + 18 * place) * ZOOM
        self.text((x, y), name, "ra", colour=colour)

    def text(
        self, at: tuple[float, float], text: str, anchor: str, *, offset: tuple[int, int] = (0, 0), size: int = 12, colour: str = "#111827"
    ) -> None:
        font = ImageFont.load_default(size * ZOOM)
        self.draw.text((at[0] + offset[0] * ZOOM, at[1] + offset[1] * ZOOM), text, fill=colour, font=font, anchor=anchor)


def _round_step(step: float) -> float:
    """The nearest of 1, 2, 2.5, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return min((1, 2, 2.5, 5, 10), key=lambda m: abs(m * power - step)) * power


def save_heatmap(path: str | os.PathLike[str], heatmap: Heatmap) -> None:
    """Shares on a grid as a PNG file: blue above the neutral share, orange below it, the numbers written in."""
    cell, left, top = (96, 48), 150, 74
    width, height = max(left + cell[0] * len(heatmap.columns) + 24, 560), top + cell[1] * len(heatmap.rows) + 56
    image = Image.new("RGB", (width * ZOOM, height * ZOOM), "white")
    draw = ImageDraw.Draw(image)

    def text(x: float, y: float, words: str, anchor: str, size: int = 13, colour: str = "#111827") -> None:
        draw.text((x * ZOOM, y * ZOOM), words, fill=colour, font=ImageFont.load_default(size * ZOOM), anchor=anchor)

    text(12, 14, heatmap.title, "la", 14)
    text(left - 12, top - 10, heatmap.y, "rs", 12, "#4b5563")
    text(left + cell[0] * len(heatmap.columns) / 2, height - 14, heatmap.x, "ms", 12, "#4b5563")
    for j, name in enumerate(heatmap.columns):
        text(left + cell[0] * (j + 0.5), height - 44, name, "ms")
    for i, (name, values) in enumerate(zip(heatmap.rows, heatmap.values, strict=True)):
        text(left - 12, top + cell[1] * (i + 0.5), name, "rm")
        for j, value in enumerate(values):
            x, y = left + cell[0] * j, top + cell[1] * i
            box = [x * ZOOM, y * ZOOM, (x + cell[0] - 2) * ZOOM, (y + cell[1] - 2) * ZOOM]
            draw.rectangle(box, fill=_diverging(value, heatmap.neutral))
            shown = "-" if value is None else f"{100 * value:.1f} %"
            text(x + cell[0] / 2, y + cell[1] / 2, shown, "mm", 14)
    shrunk = image.resize((width, height), Image.Resampling.LANCZOS)
    files.write_with(path, lambda temporary: shrunk.save(temporary, format="PNG"))


def _diverging(value: float | None, neutral: float) -> tuple[int, int, int]:
    """From orange at 0 over white at the neutral share to blue at 1, light enough for dark letters."""
    if value is None:
        return 243, 244, 246
    share = (value - neutral) / (1 - neutral) if value > neutral else (neutral - value) / neutral
    full = (96, 165, 250) if value > neutral else (251, 146, 60)
    red, green, blue = (round(255 + (c - 255) * min(1.0, share**0.7)) for c in full)
    return red, green, blue
