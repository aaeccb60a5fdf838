"""Optional packages, asked for when they are needed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from robustlab.errors import UserError


def scipy_module(name: str, extra: str = "gnn", what: str = "this") -> Any:
    """A module of scipy, such as ``sparse.linalg``.

    Args:
        name: of the module.
        extra: of robustlab, with which scipy comes.
        what: needs it, for the message.

    Raises:
        UserError: scipy is not installed.
    """
    return _module(f"scipy.{name}", extra, what)


def networkx() -> Any:
    """The package networkx.

    Raises:
        UserError: it is not installed.
    """
    return _module("networkx", "gnn")


def cvxpy(what: str = "this") -> Any:
    """The package cvxpy, with the solver Clarabel.

    Args:
        what: needs it, for the message.

    Raises:
        UserError: it is not installed.
    """
    return _module("cvxpy", "bias", what)


def _module(name: str, extra: str, what: str = "this") -> Any:
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UserError(f"{what} needs {package}, which is not installed: pip install robustlab[{extra}]") from None
