"""Why smoothing works: the table has a row for each sigma, counts are possible, and the closed form is that of two features."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import NormalDist

import pytest
import tiny

from robustlab.data.shapes import ShapesConfig
from robustlab.experiments.cache import ExperimentCache
from robustlab.experiments.smoothing import FULL, Config, closed_form, run

CONFIG = Config((0.0, 0.3), n=140, arch="tiny", epochs=1, test=20, draws=20, steps=1, attacked=10, certified=6, n_draws=40)


def test_with_and_without_images_every_sigma_has_a_row_and_nothing_is_done_twice(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(ExperimentCache(tmp_path, str(data)), CONFIG)
    on_shapes, on_images = found.tables
    assert [row[0] for row in on_shapes.rows] == [row[0] for row in on_images.rows] == ["0", "0.3"]
    assert on_images.rows[0][3:] == ("-",) * 4 and all(len(row) == len(table.columns) for table in found.tables for row in table.rows)
    assert json.loads(json.dumps(found.numbers, allow_nan=False)) == found.numbers
    for row in found.numbers["shapes"]:
        assert all(one["shape"]["count"] + one["pattern"]["count"] <= one["clean"]["n"] == 20 for one in row["seeds"])
    (noisy,) = found.numbers["images"][1]["seeds"]
    assert noisy["clean"]["n"] == 10 and noisy["at"]["0"]["n"] == 6 and noisy["curve"][0]["count"] == noisy["at"]["0"]["count"]
    assert set(found.lines) == {"smoothing-features", "smoothing-certified"}
    (kept,) = (tmp_path / "certificates").glob("*/records.jsonl")
    assert len(kept.read_text().splitlines()) == 6
    work = tiny.count_work(monkeypatch)
    assert run(ExperimentCache(tmp_path, str(data)), CONFIG) == found and work == tiny.Work()
    assert type(FULL) is Config and FULL != Config()


def test_the_closed_form_goes_from_the_reliable_feature_to_the_visible_one() -> None:
    """Without noise it is the difference of the features' evidence over its deviation; much noise leaves the shape alone."""
    shape, pattern = (NormalDist().inv_cdf(share) for share in (0.9, 0.97))
    alone = NormalDist().cdf((shape**2 - pattern**2) / math.sqrt(shape**2 + pattern**2))
    shares = [closed_form(ShapesConfig(), sigma) for sigma in (0.0, 0.25, 0.5, 1.0, 2.0)]
    assert shares[0] == pytest.approx(alone) and shares == sorted(shares) and shares[-1] > 0.8
