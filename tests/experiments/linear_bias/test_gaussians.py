"""The claims on Gaussians come out as they should."""

from __future__ import annotations

import pytest

from robustlab.experiments.linear_bias.claim import FAILS, HOLDS, Setting
from robustlab.experiments.linear_bias.gaussians import CLAIMS


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_verdicts_of_gaussians(claim):
    evidence = claim.test(Setting(2))
    expected = FAILS if claim.name == "robust-training-helps" else HOLDS
    assert {row.verdict for row in evidence.rows} == {expected}, evidence.rows
    assert all(line.y for plot in evidence.plots.values() for line in plot.lines)
