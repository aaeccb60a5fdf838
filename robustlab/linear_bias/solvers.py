"""The solvers behind exact solutions, asked for when they are needed: ``pip install robustlab[bias]``."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

from robustlab.errors import UserError


def scipy_optimize() -> Any:
    """The module ``scipy.optimize``: linear programs by HiGHS, nonnegative least squares.

    Raises:
        UserError: scipy is not installed.
    """
    return _needed("scipy.optimize", "scipy")


def scipy_integrate() -> Any:
    """The module ``scipy.integrate``: implicit methods for gradient flow.

    Raises:
        UserError: scipy is not installed.
    """
    return _needed("scipy.integrate", "scipy")


def cvxpy() -> Any:
    """The module ``cvxpy``, with the solver Clarabel.

    Raises:
        UserError: cvxpy is not installed.
    """
    return _needed("cvxpy", "cvxpy")


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


def _needed(module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise UserError(f"this exact solution needs {package}: pip install robustlab[bias]") from None
