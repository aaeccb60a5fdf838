"""The claims on squared loss at two seeds: their verdicts, and what the plots and tables show."""

from __future__ import annotations

import pytest

from robustlab.experiments.linear_bias import all_claims
from robustlab.experiments.linear_bias.claim import FAILS, HOLDS, OPEN, Setting
from robustlab.linear_bias import regression

pytest.importorskip("scipy")
HOLDING = ["gradient-descent", "updates-in-span", "mirror-descent", "mirror-descent-one-example", "dual-momentum", "conserved"]
FAILING = ["primal-momentum", "natural-gradient", "adam-squared", "steepest-descent-squared"]
BOTH = ["boosting-and-lasso", "product-l1", "factorization-nuclear"]
SLOW = {"mirror-descent", "mirror-descent-one-example", "steepest-descent-squared", "product-l1", "factorization-nuclear", "conserved"}


def marked(names):
    return [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in names]


def verdicts(name):
    if name == "factorization-nuclear":
        pytest.importorskip("cvxpy")
    evidence = all_claims()[name].test(Setting(2))
    assert evidence.plots and all(plot.axes.log_y for plot in evidence.plots.values())
    return {row.verdict for row in evidence.rows}


@pytest.mark.parametrize("name", marked(HOLDING))
def test_it_holds(name):
    assert verdicts(name) == {HOLDS}


@pytest.mark.parametrize("name", marked(FAILING))
def test_it_fails_as_it_should(name):
    assert verdicts(name) == {FAILS}


@pytest.mark.parametrize("name", marked(BOTH))
def test_it_holds_where_it_should_and_fails_elsewhere(name):
    assert verdicts(name) == {HOLDS, FAILS}


def test_the_power_of_alpha_where_it_can_be_told_from_a_logarithm():
    evidence = all_claims()["small-initialization"].test(Setting(2))
    easy = [row for row in evidence.rows if "below" in row.case]
    assert easy and all(row.verdict == HOLDS for row in easy)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["initialization-scale", "deep-products"])
def test_only_descent_from_a_tiny_start_may_stay_open(name):
    evidence = all_claims()[name].test(Setting(2))
    assert all(row.verdict == HOLDS for row in evidence.rows if "0.001, descent" not in row.case)
    assert all(row.verdict in (HOLDS, OPEN) for row in evidence.rows)


def test_data_of_ones_own():
    data = regression(1, 5, 12)
    for name in ("gradient-descent", "updates-in-span"):
        assert all(row.verdict == HOLDS for row in all_claims()[name].test(Setting(2, data)).rows)
