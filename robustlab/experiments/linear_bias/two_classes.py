"""What the claims on two classes share: distances to a separator, and descents with the steps that the theory allows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustlab.experiments.linear_bias.claim import Setting
from robustlab.linear_bias.certificates import largest, margins
from robustlab.linear_bias.descent import Path, descend
from robustlab.linear_bias.losses import LinearObjective, LogExponential
from robustlab.linear_bias.problems import Problem, zeros
from robustlab.norms import L1, L2, Linf, Lp, Norm
from robustlab.seeding import example_keys, normal
from robustlab.steps import Steepest

STEPS, LONG = 20_000, 100_000
GAP, TURN = "1 - margin / largest margin", "1 - cosine of the angle"
LEAST = 1e-12  # of gaps in plots
LP_NORMS: dict[str, Norm] = {"L1": L1(), "L1.5": Lp(1.5), "L2": L2(), "L4": Lp(4.0), "Linf": Linf()}


def margin_gap(problem: Problem, w: Tensor, norm: Norm, best: Tensor) -> Tensor:
    """``1 - margin / best`` of weights ``w`` for a ``problem`` in a ``norm``, ``(S,)``: 0 at a separator of the ``best`` margin, above 1
    where ``w`` does not separate."""
    return 1 - margins(problem, w, norm) / best


def gap_to(problem: Problem, norm: Norm, best: Tensor) -> Callable[[Tensor], Tensor]:
    """``margin_gap`` of weights alone."""
    return lambda w: margin_gap(problem, w, norm, best)


def turned(w: Tensor, reference: Tensor) -> Tensor:
    """``1 - cos`` of the angle between weights and a reference, ``(S,)``; exact also where it is far below rounding of the cosine."""
    unit, aim = (v / torch.linalg.vector_norm(v, dim=1, keepdim=True) for v in (w, reference.expand_as(w)))
    return (unit - aim).square().sum(1) / 2


def scaled_descent(problem: Problem, norm: Norm, steps: int = STEPS, start: Tensor | None = None, share: float | Tensor = 1.0) -> Path:
    """Steepest descent in a ``norm`` on the logarithm of the exponential loss of a ``problem``: ``steps`` of ``share / B^2``, of which the
    theory allows a ``share`` of 1, from ``start``, or zero."""
    rule = Steepest(norm, share / largest(problem, norm) ** 2, scaled=True)
    return descend(LinearObjective(problem, LogExponential()), zeros(problem) if start is None else start, rule, steps)


def smooth_step(problem: Problem) -> Tensor:
    """One over the largest curvature of the logistic loss, ``(S,)``. Gradient descent may take up to twice as much."""
    return 4 / torch.linalg.matrix_norm(problem.X, ord=2) ** 2


def drawn_starts(setting: Setting, problem: Problem, size: float = 1.0) -> Tensor:
    """Normal weights to start from, one for each seed, ``(seeds, d)``."""
    return size * normal(example_keys(1, torch.arange(setting.seeds)), (problem.d,), torch.float64)


def repeated(problem: Problem, times: int) -> Problem:
    """The same problems several times over, for one batch of several cases; as it is where all rows share one problem."""
    return problem if len(problem.X) == 1 else Problem(problem.X.repeat(times, 1, 1), problem.y.repeat(times, 1))


def with_both_labels(signed: Tensor) -> Problem:
    """The problem whose rows ``y x`` are given, ``(S, n, d)``; every second label is -1."""
    y = (1.0 - 2.0 * (torch.arange(signed.shape[1]) % 2)).to(signed).expand(len(signed), -1)
    return Problem(signed * y[..., None], y)
