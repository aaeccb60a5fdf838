"""The experiment on metric spaces: bounds below, plans above, and a map of shapes in which two samples of one are near."""

from __future__ import annotations

from robustlab.experiments import reproduce
from robustlab.experiments.graphs.metric_spaces import EXACT, PLAN


def test_tables_hold_every_bound_and_two_samples_of_a_shape_are_near(tmp_path):
    found = reproduce("metric-spaces", out=tmp_path, device="cpu", threads=1, seeds=2, sdp=False, shape=12)
    for kind in found.numbers["bounds"].values():
        exact = kind["values"][EXACT]
        for name, values in kind["values"].items():
            pairs = list(zip(values, exact, strict=True))
            assert all(ours >= best - 1e-9 for ours, best in pairs) if name == PLAN else all(ours <= best + 1e-9 for ours, best in pairs)
    rows = found.numbers["shapes"]["distances"]
    same = [row[k] for k, row in enumerate(rows)]
    others = [value for k, row in enumerate(rows) for j, value in enumerate(row) if j != k]
    assert min(same) >= 0 and sum(same) / len(same) < sum(others) / len(others) / 2
    assert (tmp_path / "metric-spaces-shapes.png").exists()
