"""Reports: what is counted from records, and how it is shown."""

from __future__ import annotations

import json
import math

import pytest
import torch
from laws import every_norm, images
from measured import Across, X, cut, labelled
from oracles import halfway

from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.evaluation import Attacked, Rate, Record, Report, curve, evaluate
from robustlab.norms import L2, Linf

RADII = [0.0, 0.01, 0.05, 0.3]


def test_an_empty_report():
    assert Report(("PGD",), ()).rates()["PGD"] == Rate(0, 0)
    assert math.isnan(Report((), (), ("FMN",)).median_distance("FMN")) and "PGD" in repr(Report(("PGD",), ()))


@every_norm
@pytest.mark.parametrize("fails", [False, True])
def test_distances_of_a_minimum_norm_attack_give_the_median_and_the_curve(norm, fails):
    x = 0.45 + images(24, 27, dtype=torch.float64) / 10
    model, y = halfway(x)
    y = torch.where(torch.arange(24) % 5 == 0, 1 - y, y)  # some are wrong without an attack
    attack = Across(norm, fails)
    report = evaluate(model, cut(x, y), attack)
    with torch.no_grad():
        distance = model.distance(x, norm)
    distance = torch.where(attack.kept(x)[:, 0], torch.inf, distance)
    distance = torch.where(model(x).argmax(1) == y, distance, 0)
    assert report.median_distance(str(attack)) == pytest.approx(float(distance.quantile(0.5, interpolation="midpoint")), rel=1e-6)
    assert report.at(str(attack), RADII) == {eps: Rate(int((distance > eps).sum()), 24) for eps in RADII}
    assert report.at(str(attack), RADII) == curve(model, cut(x, y), attack, RADII)
    assert report.attacks == () and report.minimum_norm == (str(attack),) and list(report.rates()) == ["clean"]


def test_a_minimum_norm_attack_stands_beside_others():
    x = 0.45 + images(24, 27, dtype=torch.float64) / 10
    model, y = halfway(x)
    pgd, across = PGD(ThreatModel(L2(), 0.02), steps=1), Across(L2())
    report = evaluate(model, cut(x, y), [pgd, across])
    assert report.worst == report.under(str(pgd)) == evaluate(model, cut(x, y), pgd).worst
    assert list(report.rates()) == ["clean", str(pgd)]
    record = report.records[0]
    assert record.attacks.keys() == {str(pgd)} and record.nearest.keys() == {str(across)}
    back = json.loads(json.dumps(record.to_json()))
    assert back["nearest"] == {str(across): record.nearest[str(across)].to_json()} and "nearest" not in Record(0, 1, 1, {}).to_json()


IDLE = {
    "no steps": PGD(ThreatModel(L2(), 1.0), steps=0, random_start=False),
    "steps of length 0": PGD(ThreatModel(Linf(), 0.1), steps=3, step_size=0.0, random_start=False),
    "eps 0": PGD(ThreatModel(L2(), 0.0)),
}


@pytest.mark.parametrize("attack", IDLE.values(), ids=IDLE.keys())
def test_an_attack_that_can_change_nothing_is_told(tiny_model, attack):
    report = evaluate(tiny_model, cut(X, labelled(tiny_model)), [attack, PGD(ThreatModel(L2(), 0.5))])
    (note,) = report.notes
    assert note.startswith(f"{attack} changed no image") and note in repr(report) and note in report._repr_html_()


def test_no_image_to_attack_is_told(tiny_model):
    wrong = (tiny_model.eval()(X).argmax(1) + 1) % 10
    assert evaluate(tiny_model, cut(X, wrong), PGD(ThreatModel(L2(), 0.5))).notes == [
        "no image was attacked: the model was wrong for all of them already"
    ]
    assert evaluate(tiny_model, cut(X, wrong)).notes == [] and Report(("PGD",), ()).notes == []


def test_a_model_that_knows_one_class_only_is_told():
    """No attack can lead to a class whose logit is minus infinity: that is no robustness."""

    def knows(x: torch.Tensor) -> torch.Tensor:
        first = x.flatten(1).sum(1, keepdim=True)
        return torch.cat([first, torch.full_like(first, -torch.inf)], 1)

    report = evaluate(knows, (X, torch.zeros(len(X), dtype=torch.int64)))
    assert report.notes == ["for 24 of 24 images the model gives one class only a finite logit, so no attack can change it"]
    assert report.records[0].to_json()["single"] is True


def test_what_needs_a_radius_says_so():
    report = Report(("PGD",), (), ("FMN",))
    with pytest.raises(UserError, match=r"accuracy under FMN needs a radius: use report.at\('FMN', \[0.5\]\)"):
        report.under("FMN")
    with pytest.raises(UserError, match="unknown minimum-norm attack 'PGD'"):
        report.at("PGD", [0.5])


def test_a_report_shows_its_numbers_and_escapes_names():
    records = tuple(Record(i, 1, 1 if i < 8 else 0, {"<b>": Attacked(int(i < 4), 0.1)} if i < 8 else {}) for i in range(10))
    report = Report(("<b>",), records)
    assert repr(report) == "clean  80.0 % [49.0, 94.3], n = 10\n<b>    40.0 % [16.8, 68.7], n = 10" + (
        "\nrobust accuracy 40.0 % [16.8, 68.7], n = 10 (upper bound, <b> only)"
    )
    assert (
        "&lt;b&gt;" in report._repr_html_() and "<b>" not in report._repr_html_() and "40.0 % [16.8, 68.7], n = 10" in report._repr_html_()
    )
    nearest = Report((), (Record(0, 1, 1, {}, {"FMN": Attacked(0, 0.123456)}),), ("FMN",))
    assert repr(nearest).splitlines()[1] == "FMN    median distance 0.1235"


def test_what_was_not_kept_can_be_neither_shown_nor_saved(tiny_model, tmp_path):
    report = evaluate(tiny_model, (X, labelled(tiny_model)), PGD(ThreatModel(Linf(), 0.02), steps=1))
    for use in (report.grid, lambda: report.save_adversarial(tmp_path / "adversarial")):
        with pytest.raises(UserError, match=r"the adversarial images were not kept: call evaluate\(..., keep=True\)"):
            use()
    assert not list(tmp_path.iterdir())
