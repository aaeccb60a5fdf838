"""The experiment on metric spaces: bounds below, plans above, and a map of shapes in which two samples of one are near."""

from __future__ import annotations

import numpy as np
import pytest

from robustlab.errors import UserError
from robustlab.experiments import reproduce
from robustlab.experiments.graphs.metric_spaces import EXACT, PLAN
from robustlab.gnn.metric_spaces import circle


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


def test_two_spaces_of_ones_own(tmp_path):
    np.savez(tmp_path / "own.npz", X=circle(4).numpy(), Y=circle(6).numpy())
    found = reproduce("metric-spaces", tmp_path / "own.npz", out=tmp_path / "out", device="cpu", threads=1, sdp=False)
    assert 0 < found.numbers[EXACT] <= found.numbers[PLAN] and len(found.tables[0].rows) == 6
    np.savez(tmp_path / "bad.npz", X=circle(4).numpy(), Y=-circle(6).numpy())
    with pytest.raises(UserError, match="bad.npz: Y must have distances that are finite, at least 0"):
        reproduce("metric-spaces", tmp_path / "bad.npz", out=tmp_path / "out", device="cpu", threads=1)
