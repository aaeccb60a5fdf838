"""Optional packages, asked for when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from robustlab.errors import UserError


def scipy_module(name: str) -> Any:
    """A module of scipy, such as ``sparse.linalg``.

    Raises:
        UserError: scipy is not installed.
    """
    return _module(f"scipy.{name}")


def networkx() -> Any:
    """The package networkx.

    Raises:
        UserError: it is not installed.
    """
    return _module("networkx")


def cvxpy() -> Any:
    """The package cvxpy, for small semidefinite programs.

    Raises:
        UserError: it is not installed.
    """
    return _module("cvxpy", "bias")


def _module(name: str, extra: str = "gnn") -> Any:
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UserError(f"this needs {package}, which is not installed: pip install robustlab[{extra}]") from None
