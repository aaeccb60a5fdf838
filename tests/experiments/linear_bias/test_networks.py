"""The claims on networks at two seeds: their verdicts, and that each has a plot."""

from __future__ import annotations

import pytest

pytest.importorskip("scipy")
pytest.importorskip("cvxpy")

from robustlab.experiments.linear_bias.claim import FAILS, HOLDS, OPEN, Evidence, Setting  # noqa: E402
from robustlab.experiments.linear_bias.networks import CLAIMS  # noqa: E402

BY_NAME = {claim.name: claim for claim in CLAIMS}


def verdicts_of(name: str) -> dict[str, str]:
    """The verdicts by case, of evidence that survives being kept."""
    evidence = BY_NAME[name].test(Setting(2))
    assert evidence.plots and Evidence.from_values(evidence.as_values()).rows == evidence.rows
    return {row.case: row.verdict for row in evidence.rows}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "linear-networks",
        "convolution-depth-2",
        pytest.param("convolution-deeper", marks=pytest.mark.long),
        "same-functions-three-limits",
        pytest.param("homogeneous-kkt", marks=pytest.mark.long),
        "kernel-to-rich",
    ],
)
def test_what_holds(name):
    assert set(verdicts_of(name).values()) == {HOLDS}


@pytest.mark.long
def test_depth_changes_the_norm_with_margins_only():
    verdicts = verdicts_of("depth-changes-the-norm")
    assert [verdicts[f"squared loss, depth {depth}, start 1e-4"] for depth in (2, 3)] == [HOLDS, HOLDS]
    assert verdicts["two classes, depth 2"] == HOLDS and verdicts["two classes, depth 3"] in (FAILS, OPEN)
