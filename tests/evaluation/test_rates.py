"""Shares and their intervals: Wilson's definition, published numbers, and how they print."""

from __future__ import annotations

import pytest

from robustlab.evaluation import Rate

PUBLISHED = {(8, 10): (0.4902, 0.9433), (0, 10): (0.0, 0.2775), (10, 10): (0.7225, 1.0), (50, 100): (0.4038, 0.5962)}


@pytest.mark.parametrize("counted, ends", PUBLISHED.items())
def test_the_interval_against_published_numbers(counted, ends):
    assert Rate(*counted).interval == pytest.approx(ends, abs=5e-5)


@pytest.mark.parametrize("n", [1, 7, 1000, 10_000])
def test_the_interval_ends_where_the_count_is_just_as_likely_as_five_percent_allow(n):
    """Wilson's definition: at either end ``p``, the share found lies 1.96 of its standard deviations ``sqrt(p (1 - p) / n)`` away."""
    for count in {0, 1, n // 3, n - 1, n}:
        rate = Rate(count, n)
        for p in rate.interval:
            assert (rate.value - p) ** 2 == pytest.approx(1.959963984540054**2 * p * (1 - p) / n, rel=1e-6, abs=1e-12)
        assert 0 <= rate.interval[0] <= rate.value <= rate.interval[1] <= 1


def test_no_examples_say_nothing():
    assert Rate(0, 0).value == 0 and Rate(0, 0).interval == (0, 1)


def test_a_rate_prints_its_interval_and_its_number():
    assert str(Rate(8, 10)) == "80.00 % [49.02, 94.33] (n = 10)"
    assert Rate(1, 4).to_json() == {"accuracy": 0.25, "interval95": list(Rate(1, 4).interval), "n": 4}


@pytest.mark.parametrize(("rate", "words"), [(Rate(882, 1000), "88.2 % [86.1, 90.1], n = 1000"), (Rate(0, 0), "0.0 % [0.0, 100.0], n = 0")])
def test_a_rate_shows_what_a_person_wants(rate, words):
    assert repr(rate) == words and rate._repr_html_().replace("<b>", "").replace("</b>", "") == words
