"""What a claim about an optimizer is, and what its experiment shows: gaps to the solution that the theory names, and to a wrong one."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from robustlab.experiments.finding import LinePlot
from robustlab.linear_bias.descent import Path
from robustlab.linear_bias.problems import Problem, regression, separable
from robustlab.norms import L2
from robustlab.reports.plots import Axes, Line, spread_line

HOLDS, FAILS = "holds", "fails as it should"
OPEN = "not at this scale"
REGRESSION, TWO_CLASSES = "fewer examples than values", "examples of two classes"


@dataclass(frozen=True)
class Row:
    """One prediction and what came of it.

    Attributes:
        case: which variant: "step 0.1", "L1".
        predicted: the solution that the theory names, in words.
        gap: for each seed, how far the result is from it: what it is a distance of stands in ``measure``.
        control: for each seed the same for a wrong solution (where the claim is expected to fail: for the case in which it holds).
        tolerance: the largest gap that passes.
        measure: what gap and control are: "relative L2 distance", "1 - margin / largest margin".
        expected: ``HOLDS`` or ``FAILS``.
        note: one sentence for the table, such as an exponent measured and predicted.
    """

    case: str
    predicted: str
    gap: tuple[float, ...]
    control: tuple[float, ...]
    tolerance: float
    measure: str
    expected: str = HOLDS
    note: str = ""

    @property
    def verdict(self) -> str:
        """``HOLDS`` if every gap is below the tolerance, and that below a third of every control; ``FAILS``, where that is expected, if it
        is the other way round; else ``OPEN``."""
        near, far = (self.gap, self.control) if self.expected == HOLDS else (self.control, self.gap)
        return self.expected if max(near) < self.tolerance < min(far) / 3 else OPEN


@dataclass(frozen=True)
class Evidence:
    """What the experiment on a claim shows.

    Attributes:
        rows: predictions with their gaps.
        plots: line plots by a short name.
        facts: other numbers worth keeping, in values that JSON holds.
    """

    rows: tuple[Row, ...]
    plots: Mapping[str, LinePlot] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_values(self) -> dict[str, Any]:
        """The same in values that JSON holds."""
        plots = {name: asdict(plot) for name, plot in self.plots.items()}
        return {"rows": [asdict(row) for row in self.rows], "plots": plots, "facts": dict(self.facts)}

    @staticmethod
    def from_values(values: Mapping[str, Any]) -> Evidence:
        """Back from ``as_values``."""
        rows = tuple(Row(**{**row, "gap": tuple(row["gap"]), "control": tuple(row["control"])}) for row in values["rows"])
        return Evidence(rows, {name: _plot(plot) for name, plot in values["plots"].items()}, values["facts"])


def _plot(values: Mapping[str, Any]) -> LinePlot:
    lines = tuple(Line(**line) for line in values["lines"])
    return LinePlot(values["title"], lines, Axes(**values["axes"]), values["references"])


@dataclass(frozen=True)
class Setting:
    """On what a claim is tested.

    Attributes:
        seeds: how many problems or starts, in one batch.
        data: one's own examples in place of drawn ones, where a claim takes them.
    """

    seeds: int = 10
    data: Problem | None = None

    def regression(self, n: int, d: int, **changes: Any) -> Problem:
        """One's own data, or a regression problem for each seed; see ``linear_bias.regression``."""
        return self.data or regression(self.seeds, n, d, **changes)

    def separable(self, n: int, d: int, **changes: Any) -> Problem:
        """One's own data, or a separable problem for each seed; see ``linear_bias.separable``."""
        return self.data or separable(self.seeds, n, d, **changes)


@dataclass(frozen=True)
class Claim:
    """A sentence that can be tested.

    Attributes:
        name: for the command: ``mirror-descent``.
        says: the claim, in one sentence.
        source: paper and year, with the theorem.
        test: from a setting to evidence. Sums up what it saw; draws nothing that depends on anything but seeds.
        takes: what data of one's own it can be tested on: ``REGRESSION``, ``TWO_CLASSES``, or "" where it has data of its own.
        part: "squared loss", "classification", "newer", "Gaussians".
    """

    name: str
    says: str
    source: str
    test: Callable[[Setting], Evidence]
    takes: str = ""
    part: str = "squared loss"


def numbers(values: Tensor) -> tuple[float, ...]:
    """A tensor's values as a tuple of floats."""
    return tuple(values.double().flatten().tolist())


def spread(values: tuple[float, ...]) -> str:
    """Median and worst of some gaps, for a table."""
    return f"{statistics.median(values):.2g} ({max(values):.2g})" if len(values) > 1 else f"{values[0]:.2g}"


def relative_distance(w: Tensor, reference: Tensor) -> Tensor:
    """``‖w - reference‖ / ‖reference‖`` in L2 for each seed, ``(S,)``."""
    return L2().measure(w - reference) / L2().measure(reference.expand_as(w))


def over_steps(name: str, path: Path, distance: Callable[[Tensor], Tensor], least: float = 1e-17) -> Line:
    """A distance over the steps: median and range of the seeds, without the start.

    Args:
        name: of the line.
        path: where a descent went.
        distance: from points ``(S, ...)`` to ``(S,)``.
        least: what is drawn in place of smaller ones.
    """
    kept = [(moment, distance(point)) for moment, point in zip(path.moments, path.points, strict=True) if moment]
    runs = torch.stack([values for _, values in kept]).clamp(min=least).T.tolist()
    return spread_line(name, [moment for moment, _ in kept], runs)


def falling(title: str, lines: Sequence[Line], y: str, x: str = "steps", references: Mapping[str, float] | None = None) -> LinePlot:
    """A plot on two logarithmic axes.

    Args:
        title: above it.
        lines: what it shows.
        y, x: what stands at the axes.
        references: numbers to draw as horizontal lines, by their names.
    """
    return LinePlot(title, tuple(lines), Axes(x, y, log_x=True, log_y=True), references or {})
