"""The frame of the claims: verdicts, values that JSON holds, the choice of claims, data of one's own, and the command."""

from __future__ import annotations

import json

import numpy as np
import pytest
from laws import drawn

from robustlab.commands import main
from robustlab.errors import UserError
from robustlab.experiments import reproduce
from robustlab.experiments.linear_bias import Config, all_claims, chosen
from robustlab.experiments.linear_bias.claim import FAILS, HOLDS, OPEN, Evidence, Row, Setting, spread
from robustlab.linear_bias import problem


def row(gap, control, tolerance=0.1, expected=HOLDS):
    return Row("a case", "the solution", tuple(gap), tuple(control), tolerance, "distance", expected)


@pytest.mark.parametrize(
    "gap, control, expected, verdict",
    [
        ([0.01, 0.09], [0.31, 5.0], HOLDS, HOLDS),
        ([0.01, 0.11], [0.31, 5.0], HOLDS, OPEN),  # one seed is too far away
        ([0.01, 0.09], [0.29, 5.0], HOLDS, OPEN),  # a wrong solution would nearly pass too
        ([0.31, 5.0], [0.01, 0.09], FAILS, FAILS),
        ([0.01, 0.09], [0.31, 5.0], FAILS, OPEN),  # it holds where it should not
        ([float("nan")], [1.0], HOLDS, OPEN),
        ([0.01], [float("nan")], HOLDS, OPEN),
    ],
)
def test_verdicts(gap, control, expected, verdict):
    assert row(gap, control, expected=expected).verdict == verdict


def test_evidence_survives_json():
    claim = all_claims()["gradient-descent"]
    evidence = claim.test(Setting(2))
    again = Evidence.from_values(json.loads(json.dumps(evidence.as_values())))
    assert again.rows == evidence.rows and set(again.plots) == set(evidence.plots)
    for name, plot in evidence.plots.items():
        assert again.plots[name].axes == plot.axes and [line.name for line in again.plots[name].lines] == [line.name for line in plot.lines]


def test_median_and_worst_are_shown():
    assert spread((0.1, 0.3, 0.2)) == "0.2 (0.3)" and spread((0.5,)) == "0.5"


def test_every_claim_says_what_it_is():
    for name, claim in all_claims().items():
        assert name == claim.name and claim.says.endswith(".") and claim.source and name == name.lower()


def test_claims_are_chosen_by_name_and_by_the_data():
    everything = chosen(Config())
    assert [claim.name for claim in everything] == list(all_claims())
    assert [claim.name for claim in chosen(Config(("gradient-descent", "gradient-descent")))] == ["gradient-descent"]
    numbers, classes = problem(drawn(3, 8), drawn(3)), problem(drawn(4, 8), [0, 1, 1, 0])
    assert {claim.takes for claim in chosen(Config(), numbers)} == {"fewer examples than values"}
    assert {claim.name for claim in chosen(Config(), numbers)} <= {claim.name for claim in chosen(Config(), classes)}
    with pytest.raises(UserError, match="unknown claim 'gradient-decent'. Did you mean 'gradient-descent'"):
        chosen(Config(("gradient-decent",)))


def test_a_claim_on_data_of_ones_own_by_the_command(tmp_path, capsys):
    np.savez(tmp_path / "xy.npz", X=drawn(6, 20).numpy(), y=drawn(6, seed=1).numpy())
    call = ["reproduce", "linear-bias", "--claim", "gradient-descent", "--seeds", "2"]
    call += ["--data", str(tmp_path / "xy.npz"), "--out", str(tmp_path / "out")]
    assert main(call) == 0
    shown = capsys.readouterr().out
    assert "| gradient-descent | step 0.5 of the largest" in shown and "| holds" in shown
    (measurement,) = (tmp_path / "out" / "measurements").glob("*.json")
    assert main(call) == 0  # nothing is measured again
    assert list((tmp_path / "out" / "measurements").glob("*.json")) == [measurement]
    np.savez(tmp_path / "xy.npz", X=drawn(6, 20, seed=2).numpy(), y=drawn(6, seed=1).numpy())
    assert main(call) == 0  # other data under the same name are other data
    assert len(list((tmp_path / "out" / "measurements").glob("*.json"))) == 2
    assert (tmp_path / "out" / "linear-bias-gradient-descent.png").stat().st_size > 5000


def test_an_unknown_claim_is_told_by_the_command(tmp_path, capsys):
    assert main(["reproduce", "linear-bias", "--claim", "mirror-decent", "--out", str(tmp_path)]) == 2
    assert "unknown claim 'mirror-decent'" in capsys.readouterr().err


def test_from_python(tmp_path):
    found = reproduce("linear-bias", out=tmp_path, claims=("gradient-descent",), seeds=2, threads=1)
    assert [entry["claim"] for entry in found.numbers["claims"]] == ["gradient-descent"]
    assert set(found.numbers["claims"][0]["verdicts"]) == {HOLDS}
