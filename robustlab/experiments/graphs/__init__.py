"""Experiments on graphs, one module each: a ``Config``, a ``FULL`` one, and ``run(cache, config)``; see ``reproduce``. What they share is
how a mean over graphs is told, and drawn."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from robustlab.reports.plots import Line

T_95 = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 14: 2.14, 19: 2.09, 29: 2.05, 59: 2.00}


def half_width(values: Sequence[float]) -> float:
    """Half of the 95 % interval of a mean, by Student's t; not a number for fewer than two values."""
    if len(values) < 2:
        return math.nan
    freedom = len(values) - 1
    quantile = T_95[max(known for known in T_95 if known <= freedom)] if freedom < 120 else 1.96  # the next smaller one: never too narrow
    return quantile * statistics.stdev(values) / math.sqrt(len(values))


def shown(values: Sequence[float], digits: int = 3) -> str:
    """The mean of some values with its 95 % interval: ``0.873 ± 0.021``; of no values nothing."""
    if not values:
        return ""
    half = half_width(values)
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if math.isnan(half) else f"{mean} ± {half:.{digits}f}"


def mean_line(name: str, runs: Mapping[float, Sequence[float]], low: float = -math.inf, high: float = math.inf) -> Line:
    """Means with their 95 % intervals as a line.

    Args:
        name: of the line.
        runs: for each ``x`` the values of the graphs.
        low, high: where intervals end at the latest.
    """
    x = sorted(runs)
    means = [statistics.mean(runs[at]) for at in x]
    halves = [0.0 if math.isnan(half := half_width(runs[at])) else half for at in x]
    ends = [[min(max(m + sign * h, low), high) for m, h in zip(means, halves, strict=True)] for sign in (-1, 1)]
    return Line(name, x, means, *ends)
