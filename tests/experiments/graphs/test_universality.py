"""Fits by ReLU layers: the least error of a partition is a bound and is reached; and the experiment on small graphs."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy")
pytest.importorskip("networkx")

from robustlab.errors import UserError  # noqa: E402
from robustlab.experiments import reproduce  # noqa: E402
from robustlab.experiments.graphs.universality import ALL, TARGETS, bends_at_all, fitted_layer, least_error, nearest, projected, sup_error  # noqa: E402
from robustlab.gnn import all_graphs, graph  # noqa: E402

numbers = st.lists(st.floats(0, 1, width=16), min_size=2, max_size=30)


@given(numbers, st.integers(1, 5), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_no_function_of_the_labels_is_nearer(values, classes, source):
    values = torch.tensor(values, dtype=torch.float64)
    labels = torch.tensor([source.randrange(classes) for _ in values])
    labels = labels.unique(return_inverse=True)[1]
    least = least_error(values, labels)
    for _ in range(20):
        function = torch.tensor([source.random() for _ in range(classes)], dtype=torch.float64)
        assert float((function[labels] - values).abs().max()) >= least - 1e-12
    middle = torch.stack([(values[labels == one].max() + values[labels == one].min()) / 2 for one in range(int(labels.max()) + 1)])
    assert float((middle[labels] - values).abs().max()) == pytest.approx(least, abs=1e-12)


@given(st.integers(0, 1000), st.integers(2, 40), st.integers(1, 8))
@settings(deadline=None, max_examples=25)
def test_a_unit_for_each_place_reaches_the_least_error(seed, count, classes):
    """In float64, where several graphs are at one place and have other values; and no layer is nearer."""
    source = torch.Generator().manual_seed(seed)
    places = torch.cat([torch.tensor([0.0, 1.0]), torch.rand(classes, generator=source)]).double()
    labels = torch.cat([torch.tensor([0, 1]), torch.randint(len(places), (count,), generator=source)]).unique(return_inverse=True)[1]
    places, values = places[labels], torch.rand(len(labels), generator=source, dtype=torch.float64)
    least = least_error(values, places.unique(return_inverse=True)[1])
    assert sup_error(bends_at_all(places, values), places[:, None], values) == pytest.approx(least, abs=1e-6)
    assert sup_error(fitted_layer(places[:, None], values, 5), places[:, None], values) >= least - 1e-9


def test_the_nearest_in_the_maximum():
    """Chebyshev: the best line for a parabola on [0, 1] is off by 1/8."""
    x = torch.linspace(0, 1, 101, dtype=torch.float64)
    weights, shift = nearest(x[:, None], x**2)
    assert float((x * weights + shift - x**2).abs().max()) == pytest.approx(1 / 8, abs=1e-9)
    assert float(weights) == pytest.approx(1) and shift == pytest.approx(-1 / 8)
    zero = torch.zeros(3, 2, dtype=torch.float64)
    assert nearest(zero, torch.tensor([0.0, 0.2, 1.0]).double())[1] == pytest.approx(0.5)
    with pytest.raises(UserError, match="at least one of `units`, got 0"):
        fitted_layer(x[:, None], x, 0)


def test_more_units_are_nearer_and_few_are_what_they_say():
    answers = torch.randn(60, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    values = answers.square().sum(1)
    errors = [sup_error(fitted_layer(answers, values, units), answers, values) for units in (2, 10, 300)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-6
    network = fitted_layer(answers, values, 10)
    assert network[0].out_features == 10 and isinstance(network[1], torch.nn.ReLU)


def test_directions_keep_apart_what_is_apart():
    answers = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).repeat_interleave(2, 0)
    places, labels = projected(answers)
    assert labels.max() == 39 and torch.equal(labels[::2], labels[1::2]) and torch.equal(places[::2], places[1::2])
    assert places.min() == 0 and places.max() == 1


def test_targets_are_what_they_say():
    triangle, path = graph([[0, 1, 2], [1, 2, 0]]), graph([[0, 1], [1, 2]])
    values = {name: (float(make(triangle)[0]), float(make(path)[0])) for name, make in TARGETS.items() if name != "a random number"}
    assert values == {
        "triangles": (1, 0),
        "components": (1, 1),
        "largest clique": (3, 2),
        "algebraic connectivity": (pytest.approx(3), pytest.approx(1)),
    }
    assert len(TARGETS["a random number"](all_graphs(5)).unique()) == 34


def test_the_experiment(tmp_path):
    found = reproduce(
        "universality", out=tmp_path, classes=("GIN", "Ring-GNN"), targets=("components", "a random number"), nodes=6, units=(3,)
    )
    told = found.numbers["universality"]
    assert told["GIN"]["classes"] <= told["GIN"]["bound classes"] == 204 and told["Ring-GNN"]["classes"] == 208
    for name, values in told.items():
        for target in ("components", "a random number"):
            one = values[target]
            assert one["errors"][ALL] == pytest.approx(one["of network"], abs=1e-5) and one["errors"]["3"] >= one["least"] - 1e-9
            assert one["of network"] >= one["least"] and (one["of network"] == 0) == (name == "Ring-GNN")
    kept = json.loads((tmp_path / "universality.json").read_text())["found"]["universality"]
    assert kept == told and (tmp_path / "universality-components.png").exists()
    for changes, said in (({"classes": ("GCN",)}, "unknown class 'GCN'"), ({"targets": ("colour",)}, "unknown target 'colour'")):
        with pytest.raises(UserError, match=said):
            reproduce("universality", out=tmp_path, **changes)
