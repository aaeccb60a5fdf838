"""Certified accuracy over the radius as a plot."""

from __future__ import annotations

import os
from collections.abc import Mapping

from robustlab.reports.plots import Axes, Line, accuracy_line, line_plot
from robustlab.smoothing import Certificates

POINTS = 200  # of a curve: it is a stair with a step for each image
AXES = Axes("L2 radius, pixels in [0, 1]", "certified accuracy", percent=True)


def certified_line(name: str, found: Certificates) -> Line:
    """Certified accuracy from 0 to the largest radius that the draws can prove, with its intervals."""
    return accuracy_line(name, found.at([found.largest_radius * point / POINTS for point in range(POINTS + 1)]))


def certified_plot(path: str | os.PathLike[str], curves: Mapping[str, Certificates], *, title: str = "") -> None:
    """Draw the curves of some smoothed classifiers, by their names, into a PNG or SVG file with a title."""
    line_plot(path, [certified_line(name, found) for name, found in curves.items()], AXES, title=title)
