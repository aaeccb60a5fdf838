"""Squared loss, more values than examples: which of the many solutions gradient and mirror descent find, and what breaks it."""

from __future__ import annotations

import torch

from robustlab.experiments.finding import LinePlot
from robustlab.experiments.linear_bias.claim import REGRESSION, Claim, Evidence, Row, Setting, numbers, relative_distance
from robustlab.linear_bias.descent import descend
from robustlab.linear_bias.interpolants import nearest_interpolant
from robustlab.linear_bias.losses import LinearObjective, Squared
from robustlab.norms import L2
from robustlab.reports.plots import Axes, spread_line
from robustlab.seeding import example_keys, normal
from robustlab.steps import Steepest


def gradient_descent(setting: Setting) -> Evidence:
    """From any start gradient descent goes to the nearest interpolant, with any step that converges."""
    problem = setting.regression(10, 30)
    start = normal(example_keys(1, torch.arange(setting.seeds)), (problem.d,), torch.float64)
    stable = 2 / (2 * torch.linalg.matrix_norm(problem.X, ord=2) ** 2)  # twice one over the largest curvature
    nearest, shortest = nearest_interpolant(problem, start), nearest_interpolant(problem)
    rows, lines = [], []
    for share in (0.05, 0.5, 0.95):
        path = descend(LinearObjective(problem, Squared()), start, Steepest(L2(), share * stable, scaled=True), 5000)
        gaps = torch.stack([relative_distance(w, nearest) for w in path.points])
        rows.append(
            Row(
                f"step {share:g} of the largest",
                "the interpolant nearest to the start",
                numbers(gaps[-1]),
                numbers(relative_distance(path.last, shortest)),
                1e-10,
                "relative L2 distance",
            )
        )
        lines.append(spread_line(f"step {share:g} of the largest", path.moments[1:], gaps[1:].clamp(min=1e-17).T.tolist()))
    axes = Axes("steps", "relative L2 distance", log_x=True, log_y=True)
    plot = LinePlot("Gradient descent and the nearest interpolant", tuple(lines), axes)
    return Evidence(tuple(rows), {"": plot})


CLAIMS = (
    Claim(
        "gradient-descent",
        "On squared loss gradient descent goes to the interpolant that is nearest to its start, whatever the step.",
        "Gunasekar et al. 2018, section 2",
        gradient_descent,
        takes=REGRESSION,
    ),
)
