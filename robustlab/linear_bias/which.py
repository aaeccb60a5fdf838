"""Which solution does *my* optimizer pick? Its distance to every solution that a theory names, and the nearest of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from robustlab.linear_bias.certificates import margins
from robustlab.linear_bias.descent import Path, descend
from robustlab.linear_bias.interpolants import norm_interpolant
from robustlab.linear_bias.losses import LinearObjective, Loss, MarginLoss, as_loss
from robustlab.linear_bias.problems import Problem, zeros
from robustlab.linear_bias.separators import max_margin
from robustlab.norms import L1, L2, Linf, Lp, Norm

NORMS: dict[str, Norm] = {"L1": L1(), "L1.5": Lp(1.5), "L2": L2(), "L4": Lp(4.0), "Linf": Linf()}
NEAR = 0.05  # a larger gap than this is no answer


@dataclass(frozen=True, eq=False)
class Answer:
    """Which solution an optimizer picked; ``str`` gives a table in Markdown.

    Attributes:
        gaps: for each reference solution how far the last point is from it, ``(S,)``: 0 at the solution itself.
        measure: what the gaps are.
        path: where the optimizer went.
    """

    gaps: Mapping[str, Tensor]
    measure: str
    path: Path

    @property
    def nearest(self) -> str:
        """The reference with the smallest median gap."""
        return min(self.gaps, key=lambda name: float(self.gaps[name].median()))

    def __str__(self) -> str:
        lines = ["| solution | median gap | smallest | largest |", "| --- | --- | --- | --- |"]
        for name, gap in sorted(self.gaps.items(), key=lambda item: float(item[1].median())):
            lines.append(f"| {name} | {float(gap.median()):.3g} | {float(gap.min()):.3g} | {float(gap.max()):.3g} |")
        near = float(self.gaps[self.nearest].median()) < NEAR
        said = f"Nearest: {self.nearest}." if near else f"None is near; the nearest is {self.nearest}."
        steps, runs = self.path.moments[-1], len(self.path.last)
        return "\n".join([*lines, "", f"{said} Gap: {self.measure}, after {steps} steps, {runs} problem{'s' if runs > 1 else ''}."])


def which_solution(
    problem: Problem, optimizer: Any, loss: Loss | str | None = None, *, steps: int = 20_000, start: Tensor | None = None
) -> Answer:
    """Run an optimizer on linear weights and compare where it ends with the solutions that theories name.

        data = lb.separable(seeds=10, n=15, d=40)
        print(lb.which_solution(data, lambda parameters: torch.optim.Adam(parameters, lr=0.01)))

    Two classes: the largest margins in L1, L1.5, L2, L4 and Linf, and the gap is ``1 - margin / largest margin``. Other targets: the
    interpolants of smallest norm, and the gap is ``norm / smallest norm - 1`` where the data are fitted.

    Args:
        problem: labels -1 and 1 that can be separated, or targets that can be fitted.
        optimizer: a step rule, or a function from parameters to a torch optimizer.
        loss: a loss or its name; ``log-exponential`` for two classes and ``squared`` otherwise if left out. A loss of margins makes it
            two classes.
        steps: number of steps.
        start: weights, ``(S, d)``; zero if left out.

    Raises:
        UserError: data that cannot be separated, with the proof; an unknown loss; a step size that is too large.
    """
    classes = problem.two_classes if loss is None else isinstance(as_loss(loss), MarginLoss)
    chosen = as_loss(("log-exponential" if classes else "squared") if loss is None else loss)
    # Before the long work: these refuse data that have no such solution.
    best = {name: max_margin(problem, norm)[1] if classes else _smallest(problem, norm) for name, norm in NORMS.items()}
    path = descend(LinearObjective(problem, chosen), zeros(problem) if start is None else start, optimizer, steps)
    if classes:
        gaps = {f"largest {name} margin": 1 - margins(problem, path.last, norm) / best[name] for name, norm in NORMS.items()}
        return Answer(gaps, "1 - margin / largest margin", path)
    missed = L2().measure(problem.outputs(path.last) - problem.y) / L2().measure(problem.y)
    gaps = {f"smallest {name} norm": (norm.measure(path.last) / best[name] - 1).abs() + missed for name, norm in NORMS.items()}
    return Answer(gaps, "norm / smallest norm - 1, plus the share of the targets that is not fitted", path)


def _smallest(problem: Problem, norm: Norm) -> Tensor:
    """The norm of the smallest interpolant, ``(S,)``."""
    return norm.measure(norm_interpolant(problem, norm))
