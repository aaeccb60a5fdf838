"""Numbers that need no solver: margins, and how far at most a separator is from the best one."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.linear_bias.problems import Problem
from robustlab.norms import Norm


def largest(problem: Problem, norm: Norm) -> Tensor:
    """The largest *dual* norm of an example, ``B``, shape ``(S,)`` or ``(1,)``: scaled steepest descent in ``norm`` on the logarithm of the
    exponential loss may take steps of ``1 / B^2``."""
    return norm.dual.measure(problem.X.flatten(0, 1)).reshape(problem.X.shape[:2]).amax(1)


def margins(problem: Problem, w: Tensor, norm: Norm) -> Tensor:
    """The smallest margin ``min_n y_n <w, x_n> / ‖w‖`` of each seed, ``(S,)``; negative where ``w`` does not separate, zero for ``w = 0``.

    Args:
        w: ``(S, d)``.
    """
    size = norm.measure(w)
    return (problem.outputs(w) * problem.y).amin(1) / torch.where(size > 0, size, 1)


def bound(problem: Problem, w: Tensor, norm: Norm) -> Tensor:
    """A number that no margin in ``norm`` exceeds, ``(S,)``: the dual norm of a mixture of the rows ``y_n x_n``, for every mixture.

    The mixture is the one on which descent puts its weight at ``w``, ``softmax(-margins)``, the best of several sharpnesses.
    """
    signed = problem.signed
    outputs = problem.outputs(w) * problem.y
    found = []
    for sharpness in torch.logspace(-3, 3, 25, dtype=w.dtype):
        mixture = torch.softmax(-sharpness * outputs, 1)
        found.append(norm.dual.measure((signed * mixture[..., None]).sum(1)))
    return torch.stack(found).amin(0)


def certified_gap(problem: Problem, w: Tensor, norm: Norm, mixture: Tensor | None = None) -> Tensor:
    """How far the margin of ``w`` is at most below the largest one, as a share of it: ``1 - margin / bound``, shape ``(S,)``.

    No solver is asked, so this holds for problems of any size.

    Args:
        w: ``(S, d)``.
        mixture: weights of the examples, ``(S, n)``, at least 0 and of sum 1, if better ones than ``bound`` tries are known, such as the
            mean of those met on the way.
    """
    best = bound(problem, w, norm)
    if mixture is not None:
        best = torch.minimum(best, norm.dual.measure((problem.signed * mixture[..., None]).sum(1)))
    return 1 - margins(problem, w, norm) / best
