"""An attack to look at: the right images in the right places, with the model's answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from measured import X, labelled

from robustlab import pictures
from robustlab.attacks import FGSM, PGD
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.evaluation import evaluate
from robustlab.evaluation.grids import adversarial_grid
from robustlab.norms import L2

THREAT = ThreatModel(L2(), 0.3)


@pytest.fixture
def report(tiny_model):
    return evaluate(tiny_model, (X, labelled(tiny_model)), [PGD(THREAT, steps=3), FGSM(THREAT)], keep=True)


def test_three_rows_show_the_original_the_change_and_the_result(report, monkeypatch):
    shown = []
    monkeypatch.setattr(pictures, "captioned", lambda rows, scale: shown.append((rows, scale)) or torch.zeros(3, 4, 4))
    found = report.adversarial[report.attacks[0]]
    adversarial_grid(found, 5)
    (original, change, adversarial), scale = shown[0]
    assert 8 * scale >= 120 and [len(row.images) for row in (original, change, adversarial)] == [5] * 3
    place = [int((found.x == image).flatten(1).all(1).nonzero()[0, 0]) for image in original.images]
    assert torch.equal(adversarial.images, found.x_adv[place])
    assert torch.equal(change.images, pictures.amplified(found.x_adv[place] - found.x[place]))
    for row, classes, confidence in (
        (original, found.label, found.confidence),
        (adversarial, found.prediction_adv, found.confidence_adv),
    ):
        assert row.captions == [f"{int(classes[i])} {100 * float(confidence[i]):.0f} %" for i in place]
    assert adversarial.colors == [pictures.ALARM if found.broken[i] else pictures.INK for i in place]
    factor = 0.5 / float((found.x_adv - found.x)[place[0]].abs().max())
    assert change.captions[0] == f"enlarged {factor:.3g}x"


def test_successes_come_first_and_of_many_classes(report, monkeypatch):
    captions = []
    monkeypatch.setattr(pictures, "captioned", lambda rows, scale: captions.append(rows) or torch.zeros(3, 4, 4))
    found = replace(report.adversarial[report.attacks[0]], classes=tuple("abcdefghij"))
    broken = set(found.label[found.broken].tolist())
    assert 0 < int(found.broken.sum()) < len(found) and len(broken) > 1
    adversarial_grid(found, len(broken))
    rows = captions[0]
    assert {words[0] for words in rows[0].captions} == {"abcdefghij"[label] for label in broken}
    assert set(rows[2].colors) == {pictures.ALARM}
    adversarial_grid(found, len(found))
    colors = captions[1][2].colors
    assert len(colors) == len(found) and colors == sorted(colors, key=lambda color: color != pictures.ALARM)


def test_a_report_shows_itself(report):
    grid = report.grid(images=4)
    assert grid.mode == "RGB" and grid.size[0] > 4 * 120
    assert report.grid().tobytes() == report.grid(report.attacks[0]).tobytes() != report.grid(report.attacks[1]).tobytes()
    assert report._repr_html_().count("<img") == 1
    with pytest.raises(UserError, match="unknown attack 'PGD'"):
        report.grid("PGD")


def test_where_nothing_was_attacked_there_is_nothing_to_show(tiny_model):
    wrong = (tiny_model(X).argmax(1) + 1) % 10
    report = evaluate(tiny_model, (X, wrong), PGD(THREAT, steps=1), keep=True)
    with pytest.raises(UserError, match="there is nothing to show: no image was attacked"):
        report.grid()
    assert "<img" not in report._repr_html_()


def test_images_of_two_channels_are_refused(report):
    found = report.adversarial[report.attacks[0]]
    assert "<img" not in replace(report, adversarial={"PGD": replace(found, x=found.x[:, :2])})._repr_html_()
    with pytest.raises(UserError, match="only images of 1 or 3 channels can be shown"):
        adversarial_grid(replace(found, x=found.x[:, :2]))
    with pytest.raises(UserError, match="no image was attacked"):
        adversarial_grid(replace(found, index=found.index[:0]))
