"""Optional packages: what is said where one is not installed."""

from __future__ import annotations

import sys

import pytest

from robustlab import extras
from robustlab.errors import UserError
from robustlab.linear_bias import solvers


@pytest.mark.parametrize(
    "package, ask, says",
    [
        ("scipy.sparse", lambda: extras.scipy_module("sparse"), r"this needs scipy, which is not installed: pip install robustlab\[gnn\]"),
        ("networkx", extras.networkx, r"this needs networkx, which is not installed: pip install robustlab\[gnn\]"),
        ("cvxpy", extras.cvxpy, r"this needs cvxpy, which is not installed: pip install robustlab\[bias\]"),
        ("cvxpy", solvers.cvxpy, r"this exact solution needs cvxpy, which is not installed: pip install robustlab\[bias\]"),
        (
            "scipy.optimize",
            solvers.scipy_optimize,
            r"this exact solution needs scipy, which is not installed: pip install robustlab\[bias\]",
        ),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_its_extra(package, ask, says, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=says):
        ask()
