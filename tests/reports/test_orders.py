"""Partial orders: inclusion and nothing else, equal sets once, and a picture in which what is larger stands higher."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from robustlab.errors import UserError
from robustlab.reports.orders import laid_out, order_plot, ordered

some_sets = st.dictionaries(st.sampled_from("abcdefg"), st.frozensets(st.integers(0, 4)), min_size=1)


@given(some_sets)
def test_lines_upwards_are_inclusion(sets):
    order = ordered("sets", sets)
    name_of = {name: whole for whole in order.names for name in whole.split(" = ")}
    assert set(name_of) == set(sets) and all(order.sizes[name_of[name]] == len(sets[name]) for name in sets)
    above = {name: {name} for name in order.names}
    for _ in order.names:
        for smaller, larger in order.covers:
            above[smaller] |= above[larger]
    for a in sets:
        for b in sets:
            assert (name_of[b] in above[name_of[a]]) == (sets[a] <= sets[b])
    for smaller, larger in order.covers:  # with none between
        assert not any((smaller, c) in order.covers and larger in above[c] for c in order.names if c not in (smaller, larger))


@given(some_sets)
def test_what_is_larger_stands_higher_and_no_line_passes_a_name(sets):
    order = ordered("sets", sets)
    places, lines = laid_out(order)
    assert set(places) == set(order.names) and len(set(places.values())) == len(order.names)
    assert [(line[0], line[-1]) for line in lines] == [(places[larger], places[smaller]) for smaller, larger in order.covers]
    for line in lines:
        assert [y for _, y in line] == [line[0][1] - step for step in range(len(line))]  # one row after the other
        for x, y in line[1:-1]:
            assert all(abs(x - u) >= 0.7 for u, v in places.values() if v == y)


def test_a_picture(tmp_path):
    order = ordered("three sets", {"none": frozenset(), "one": frozenset({1}), "two": frozenset({2}), "both": frozenset({1, 2})})
    assert set(order.covers) == {("none", "one"), ("none", "two"), ("one", "both"), ("two", "both")}
    order_plot(tmp_path / "order.png", order)
    with Image.open(tmp_path / "order.png") as image:
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 10
    with pytest.raises(UserError, match="png"):
        order_plot(tmp_path / "order.pdf", order)
