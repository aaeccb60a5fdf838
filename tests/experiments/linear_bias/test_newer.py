"""The claims newer than the talk at two seeds: their verdicts, and that each has a plot."""

from __future__ import annotations

import pytest

pytest.importorskip("scipy")
pytest.importorskip("cvxpy")

from robustlab.experiments.linear_bias.claim import FAILS, HOLDS, Evidence, Setting  # noqa: E402
from robustlab.experiments.linear_bias.newer import CLAIMS  # noqa: E402

BY_NAME = {claim.name: claim for claim in CLAIMS}


def verdicts_of(name: str) -> dict[str, str]:
    """The verdicts by case, of evidence that survives being kept."""
    evidence = BY_NAME[name].test(Setting(2))
    assert evidence.plots and Evidence.from_values(evidence.as_values()).rows == evidence.rows
    return {row.case: row.verdict for row in evidence.rows}


@pytest.mark.slow
def test_adam_nears_linf_until_its_constant_is_in_the_way():
    assert list(verdicts_of("adam-linf").values()) == [HOLDS, FAILS]


def test_adam_of_one_example_is_near_l2():
    assert list(verdicts_of("adam-one-example").values()) == [HOLDS]


@pytest.mark.long
def test_signum_needs_a_long_mean():
    assert list(verdicts_of("signum").values()) == [HOLDS, FAILS]


@pytest.mark.long
def test_spectral_descent_reaches_its_margin_and_muons_short_cut_does_not():
    assert verdicts_of("spectral-descent")["momentum 0.9, decaying steps"] == HOLDS
    verdicts = verdicts_of("muon")
    assert verdicts["5 quintic steps"] == FAILS and verdicts["15 cubic steps"] == HOLDS


@pytest.mark.long
def test_steepest_descent_in_homogeneous_networks():
    verdicts = verdicts_of("steepest-homogeneous")
    assert all(verdicts[f"{model}, {norm}"] == HOLDS for model in ("linear network", "ReLU network") for norm in ("L2()", "Linf()"))
