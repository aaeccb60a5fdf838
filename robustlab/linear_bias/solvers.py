"""The solvers behind exact solutions, asked for when they are needed: ``pip install robustlab[bias]``."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

from robustlab import extras
from robustlab.errors import UserError

NEEDS = "this exact solution"
scipy_optimize = partial(extras.scipy_module, "optimize", "bias", NEEDS)  # linear programs by HiGHS, nonnegative least squares
scipy_integrate = partial(extras.scipy_module, "integrate", "bias", NEEDS)  # implicit methods for gradient flow
cvxpy = partial(extras.cvxpy, NEEDS)


def solve_program(program: Any) -> None:
    """Solve a convex program of cvxpy with Clarabel, without its remarks about the last digits.

    Raises:
        UserError: it has no solution.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program.solve(solver="CLARABEL")
    if program.status not in ("optimal", "optimal_inaccurate"):
        raise UserError(f"the convex program has no solution: it is {program.status}")
