"""Optional packages: what is said where one is not installed."""

from __future__ import annotations

import sys

import pytest

from robustlab import extras
from robustlab.errors import UserError
from robustlab.experiments.claims import NEEDS, reproduce
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


@pytest.mark.parametrize("name, package", [(name, package) for name, packages in NEEDS.items() for package in packages])
def test_an_experiment_without_a_package_that_it_needs_is_refused_before_it_begins(name, package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, {"scipy": "scipy.optimize"}.get(package, package), None)
    extra = "bias" if package == "cvxpy" else "gnn"
    says = rf"the experiment '{name}' needs {package}, which is not installed: pip install robustlab\[{extra}\]"
    with pytest.raises(UserError, match=says):
        reproduce(name, out=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("package", ["scipy.optimize", "cvxpy"])
def test_all_claims_on_linear_problems_need_exact_solvers_before_they_begin(package, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, package, None)
    said: list[str] = []
    with pytest.raises(UserError, match="the experiment 'linear-bias' with all its claims needs"):
        reproduce("linear-bias", out=tmp_path, say=said.append)
    assert not said
