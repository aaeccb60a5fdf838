"""Two models side by side: which images are shown, when a difference is clear, how far the two features of shapes are apart."""

from __future__ import annotations

import pytest
import torch

from robustlab.data.shapes import CLASSES, contradictions, shapes
from robustlab.reports.comparison import COLUMNS, CaptionedPicture, PictureRow, clear, columns, exchange_lengths, sheet_of_rows, summary


def rate(value: float, half: float) -> dict:
    return {"accuracy": value, "interval95": [value - half, value + half], "n": 100}


def test_columns_spread_over_the_classes_and_prefer_recognized_images():
    labels = torch.arange(40) % 10
    recognized = torch.ones(40, dtype=torch.bool)
    recognized[0] = False
    chosen = columns(labels, recognized, 10)
    assert labels[chosen].tolist() == [0, 1, 3, 5, 6, 8] and chosen[0] == 10
    assert columns(labels[:4], recognized[:4], 10).sort().values.tolist() == [0, 1, 2, 3]
    two = columns(torch.arange(12) % 2, torch.zeros(12, dtype=torch.bool), 2)
    assert (two % 2).tolist() == [0, 1, 0, 1, 0, 1] and len(two.unique()) == COLUMNS


def test_contradictions_differ_from_the_test_pictures_in_the_two_features_only():
    pixels, shape, pattern = contradictions(40)
    assert not (shape == pattern).any() and shape.tolist() == [i % len(CLASSES) for i in range(40)]
    change = (pixels.int() - shapes(40, "test").pixels.int()).flatten(1).abs().amax(1)
    assert change.median() < 40, "most pictures keep their shape, so only the faint pattern is another"
    lengths = exchange_lengths(40)
    assert lengths["shape"] > 3 * lengths["pattern"] > 0


@pytest.mark.parametrize(("robust", "expected"), [(0.55, False), (0.75, True)])
def test_a_difference_is_clear_when_the_intervals_do_not_touch(robust, expected):
    models = {"standard": {"accuracies": {"a": rate(0.5, 0.1)}}, "robust": {"accuracies": {"a": rate(robust, 0.1)}}}
    assert clear(models, "a") is expected


@pytest.mark.parametrize("follows", [{}, {"shape": rate(0.25, 0.1), "pattern": rate(0.75, 0.1)}])
def test_the_summary_has_a_line_for_each_measurement_and_says_when_nothing_is_clear(follows):
    accuracies = {"clean": rate(0.8, 0.05), "PGD-20": rate(0.5, 0.1)}
    model = {"accuracies": accuracies, "follows": follows}
    told = summary({"models": {"standard": model, "robust": model}, "attack": "PGD-20", "dataset": "photographs"})
    assert told.splitlines()[1].split() == ["clean", *["80.0", "%", "[75.0,", "85.0]"] * 2]
    assert told.count("50.0 % [40.0, 60.0]") == 2 and told.count("75.0 % [65.0, 85.0]") == (2 if follows else 0)
    assert "100 test images of photographs" in told and "do not differ beyond doubt" in told
    assert ("faint pattern" in told) is bool(follows)
    assert not any(line != line.rstrip() for line in told.splitlines())


def test_a_sheet_has_the_pictures_of_its_rows_and_no_words():
    pictured = PictureRow("pictures", tuple(CaptionedPicture(torch.zeros(3, 8, 8), "caption") for _ in range(3)))
    words = PictureRow("words", tuple(CaptionedPicture(None, "caption") for _ in range(3)))
    assert sheet_of_rows([pictured, words, pictured]).shape == sheet_of_rows([pictured, pictured]).shape
