"""Exact solutions, by solvers: what the theory says that an optimizer picks. One problem at a time, in NumPy's float64.

scipy and cvxpy are asked for when they are needed: ``pip install robustlab[bias]``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.linear_bias.problems import Problem


def nearest_interpolant(problem: Problem, start: Tensor | None = None) -> Tensor:
    """The solution of ``X w = y`` that is nearest to ``start`` in L2, ``(S, d)``; the shortest one if there is no start."""
    origin = problem.X.new_zeros(len(problem.X), problem.d) if start is None else start
    missing = problem.y - problem.outputs(origin)
    return origin + torch.linalg.lstsq(problem.X, missing[..., None], driver="gelsd").solution[..., 0]
