"""Optional packages, asked for when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from robustlab.errors import UserError, in_one_line


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


def networkx(what: str = "this") -> Any:
    """The package networkx.

    Args:
        what: needs it, for the message.

    Raises:
        UserError: it is not installed.
    """
    return _module("networkx", "gnn", what)


def cvxpy(what: str = "this") -> Any:
    """The package cvxpy, with the solver Clarabel.

    Args:
        what: needs it, for the message.

    Raises:
        UserError: it is not installed.
    """
    return _module("cvxpy", "bias", what)


def check_installed(packages: Sequence[str], what: str) -> None:
    """Ask for packages before long work that needs them.

    Args:
        packages: of ``scipy``, ``networkx`` and ``cvxpy``.
        what: needs them, for the message.

    Raises:
        UserError: one of them is not installed.
    """
    ask: dict[str, Callable[..., object]] = {"scipy": partial(scipy_module, "optimize"), "networkx": networkx, "cvxpy": cvxpy}
    for package in packages:
        ask[package](what=what)


def robustbench(what: str = "this") -> Any:
    """The package robustbench, with its table of models.

    Args:
        what: needs it, for the message.

    Raises:
        UserError: it is not installed, or lacks something itself.
    """
    try:
        import_module("robustbench.model_zoo")
        return import_module("robustbench")
    except ModuleNotFoundError as error:
        if error.name in ("robustbench", "robustbench.model_zoo"):
            raise UserError(f"{what} needs robustbench, which is not installed: pip install robustlab[robustbench]") from None
        raise UserError(f"{what} needs robustbench, which cannot be imported here: {in_one_line(error)}") from error


def _module(name: str, extra: str, what: str = "this") -> Any:
    try:
        return import_module(name)
    except ImportError:
        package = name.partition(".")[0]
        raise UserError(f"{what} needs {package}, which is not installed: pip install robustlab[{extra}]") from None
