"""The experiment on metric spaces: bounds below, plans above, and a map of shapes in which each is nearest to itself."""

from __future__ import annotations

from robustlab.experiments import reproduce
from robustlab.experiments.graphs.metric_spaces import EXACT, PLAN


def test_tables_hold_every_bound_and_shapes_are_nearest_to_themselves(tmp_path):
    found = reproduce("metric-spaces", out=tmp_path, device="cpu", threads=1, seeds=3, sdp=False, shape=12)
    for kind in found.numbers["bounds"].values():
        exact = kind["values"][EXACT]
        for name, values in kind["values"].items():
            pairs = list(zip(values, exact, strict=True))
            assert all(ours >= best - 1e-9 for ours, best in pairs) if name == PLAN else all(ours <= best + 1e-9 for ours, best in pairs)
    rows = found.numbers["shapes"]["distances"]
    assert all(min(range(len(row)), key=row.__getitem__) == k for k, row in enumerate(rows))
    assert (tmp_path / "metric-spaces-shapes.png").exists()
