"""The claims on two classes at two seeds: their verdicts, their plots, and what they share."""

from __future__ import annotations

import pytest
import torch
from laws import drawn

pytest.importorskip("scipy")
pytest.importorskip("cvxpy")

from robustlab.experiments.linear_bias.claim import FAILS, HOLDS, OPEN, Evidence, Setting  # noqa: E402
from robustlab.experiments.linear_bias.classification import CLAIMS  # noqa: E402
from robustlab.experiments.linear_bias.limits import CLAIMS as LIMITS  # noqa: E402
from robustlab.experiments.linear_bias.limits import overlapping  # noqa: E402
from robustlab.experiments.linear_bias.robustness import CLAIMS as ROBUSTNESS  # noqa: E402
from robustlab.experiments.linear_bias.robustness import robust_radius  # noqa: E402
from robustlab.experiments.linear_bias.two_classes import repeated, turned, with_both_labels  # noqa: E402
from robustlab.linear_bias import L1, L2, Linf, margins, problem, separable, split_nonseparable  # noqa: E402

BY_NAME = {claim.name: claim for claim in (*CLAIMS, *LIMITS, *ROBUSTNESS)}


def verdicts_of(name: str, setting: Setting = Setting(2)) -> dict[str, str]:  # noqa: B008
    """The verdicts by case, of evidence that survives being kept."""
    evidence = BY_NAME[name].test(setting)
    assert evidence.plots and Evidence.from_values(evidence.as_values()).rows == evidence.rows
    assert all(len(row.gap) in (1, setting.seeds) for row in evidence.rows)
    return {row.case: row.verdict for row in evidence.rows}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param("no-minimizer", marks=pytest.mark.long),
        "support-vectors",
        "gradient-descent-margin",
        pytest.param("steepest-descent-margin", marks=pytest.mark.long),
        "dual-acceleration",
        "non-separable",
        "optimizer-is-defence",
    ],
)
def test_what_holds(name):
    assert set(verdicts_of(name).values()) == {HOLDS}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, failing",
    [
        pytest.param("start-and-step", {"squared loss, the same starts"}, marks=pytest.mark.long),
        pytest.param("normalized-steps", {"L1", "L4", "Linf"}, marks=pytest.mark.long),
        pytest.param(
            "step-and-start-in-practice", {"50 times the largest stable step", "start of size 3, constant steps"}, marks=pytest.mark.long
        ),
        ("adaboost-cycles", {"AdaBoost's own step"}),
        pytest.param("polynomial-tail", {"any loss"}, marks=pytest.mark.long),
    ],
)
def test_what_fails_as_it_should_beside_what_holds(name, failing):
    verdicts = verdicts_of(name)
    assert {case for case, verdict in verdicts.items() if verdict == FAILS} == failing
    assert {verdict for case, verdict in verdicts.items() if case not in failing} == {HOLDS}


@pytest.mark.slow
def test_mirror_descent_goes_along_its_path():
    verdicts = verdicts_of("mirror-descent-margin")
    assert verdicts.pop("hypentropy") in (HOLDS, OPEN) and set(verdicts.values()) == {HOLDS}


def test_adaboost_stays_at_a_third_where_three_eighths_are_possible():
    from robustlab.experiments.linear_bias.limits import _CYCLE
    from robustlab.linear_bias import LinearObjective, LogExponential, descend, max_margin, zeros
    from robustlab.linear_bias.optimizers import AdaBoost

    votes = torch.tensor([[[1.0 if sign == "+" else -1.0 for sign in row] for row in _CYCLE.split()]]).double()
    data = with_both_labels(votes)
    assert torch.equal(data.signed, votes) and max_margin(data, L1())[1].item() == pytest.approx(3 / 8)
    last = descend(LinearObjective(data, LogExponential()), zeros(data), AdaBoost(), 1000).last
    assert margins(data, last, L1()).item() == pytest.approx(1 / 3, abs=2e-3)


def test_attacks_find_the_radius_of_the_closed_form():
    data = separable(2, 6, 8)
    for norm, dual in ((Linf(), L1()), (L2(), L2()), (L1(), Linf())):
        # Weights that separate and some that do not: the radius of these is 0.
        good = torch.linalg.lstsq(data.X, data.y[..., None]).solution[..., 0]
        torch.testing.assert_close(robust_radius(data, good, norm), margins(data, good, dual), rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(robust_radius(data, 1e4 * good, norm), margins(data, good, dual), rtol=1e-6, atol=1e-9)
        assert (robust_radius(data, -good, norm) < 1e-6).all()


def test_the_overlapping_problem_is_split_where_it_was_made():
    data = overlapping(3, bounded=4, separated=5, inner=2, outer=6)
    assert split_nonseparable(data).separable.tolist() == [[False] * 8 + [True] * 5] * 3
    assert torch.equal(overlapping(1).X, overlapping(3).X[:1])


def test_angles_far_below_rounding_and_repeated_problems():
    w = drawn(4, 5)
    assert turned(3 * w, w).max() < 1e-30
    aside = w + 1e-10 * drawn(4, 5, seed=1)
    assert (turned(aside, w) < 1e-18).all() and (turned(aside, w) > 0).all()
    torch.testing.assert_close(turned(w, -w), 2 * torch.ones(4).double())
    data = separable(2, 3, 4)
    assert torch.equal(repeated(data, 3).X[2:4], data.X) and len(repeated(data, 3).X) == 6
    shared = problem(drawn(3, 4), [0, 1, 1])
    assert repeated(shared, 3) is shared


def test_claims_on_data_of_ones_own():
    data = separable(1, 12, 20, margin=0.5)
    assert set(verdicts_of("dual-acceleration", Setting(2, data)).values()) <= {HOLDS, OPEN}
