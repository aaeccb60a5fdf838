"""The claims on squared loss at two seeds: their verdicts, and what the plots and tables show."""

from __future__ import annotations

import pytest

from robustlab.experiments.linear_bias import all_claims
from robustlab.experiments.linear_bias.claim import FAILS, HOLDS, Setting
from robustlab.linear_bias import regression

pytest.importorskip("scipy")
HOLDING = ["gradient-descent", "updates-in-span", "mirror-descent", "mirror-descent-one-example", "dual-momentum", "conserved"]
FAILING = ["primal-momentum", "natural-gradient", "adam-squared"]
BOTH = ["boosting-and-lasso", "product-l1", "factorization-nuclear"]
SLOW = {"mirror-descent", "mirror-descent-one-example", "boosting-and-lasso", "product-l1", "factorization-nuclear", "conserved"}


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


@pytest.mark.long
def test_steepest_descent_interpolates_and_settles_elsewhere_as_its_steps_go_to_zero():
    evidence = all_claims()["steepest-descent-squared"].test(Setting(2))
    assert {row.verdict for row in evidence.rows} == {FAILS}
    facts = evidence.facts
    assert max(facts["residuals"]) < 1e-8 and facts["residuals"][3] < 1e-10
    assert 0.005 < facts["norm excess"][3] < 0.013
    assert facts["change from step .001 to .0002"] < 2e-3 and evidence.rows[1].gap[0] > 5e-2
    # The interpolants are (a, 5 - a / 2, -4 - a / 2), and at the smallest norm the derivative by a is zero.
    a, b, c = facts["smallest norm"]
    assert abs(a ** (1 / 3) - b ** (1 / 3) / 2 + (-c) ** (1 / 3) / 2) < 1e-9 and abs(b - 5 + a / 2) < 1e-9 and abs(c + 4 + a / 2) < 1e-9


def test_without_momentum_of_the_weights_the_limit_is_the_closed_form():
    facts = all_claims()["primal-momentum"].test(Setting(1)).facts
    assert facts["without momentum"] == pytest.approx(facts["closed form"], abs=1e-10)


def test_the_power_of_alpha_where_it_can_be_told_from_a_logarithm():
    evidence = all_claims()["small-initialization"].test(Setting(2))
    easy = [row for row in evidence.rows if "below" in row.case]
    assert easy and all(row.verdict == HOLDS for row in easy)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["initialization-scale", pytest.param("deep-products", marks=pytest.mark.long)])
def test_the_scale_and_the_depth_of_a_start_tell_the_norm(name):
    assert verdicts(name) == {HOLDS}


def test_data_of_ones_own():
    data = regression(1, 5, 12)
    for name in ("gradient-descent", "updates-in-span"):
        assert all(row.verdict == HOLDS for row in all_claims()[name].test(Setting(2, data)).rows)
