"""The page's benchmark runs and gives numbers. No test asks how fast anything is."""

from __future__ import annotations

import json
import math

from benchmarks import demo


def test_it_measures_runs_and_a_crowd(tmp_path, capsys):
    out = tmp_path / "demo.json"
    words = ["--arch", "small", "--size", "16", "--steps", "3", "--repeats", "2", "--tabs", "12", "--out", str(out)]
    assert demo.main(words) == 0
    found = json.loads(out.read_text())
    for name in ("first_frame_s", "steps_per_s", "ratio_to_bare_loop", "frames_per_run"):
        spread = found[name]
        assert all(math.isfinite(value) and value > 0 for value in spread.values()) and spread["low"] <= spread["median"] <= spread["high"]
    assert found["crowd"]["served"] == 12 and found["crowd"]["first_s"] <= found["crowd"]["last_s"]
    assert found["crowd"]["added_mb"] >= 0
    assert "first frame after the press" in capsys.readouterr().out


def test_mistakes_are_one_sentence(capsys):
    assert demo.main(["--model", "nowhere.pt"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
