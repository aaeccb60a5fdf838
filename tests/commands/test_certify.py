"""``robustlab certify``: its table and its records are those of the library, and it leaves a curve."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from robustlab.commands import settings
from robustlab.commands import train as command
from robustlab.commands.flags import parse
from robustlab.data.catalog import open_dataset
from robustlab.models.zoo import load
from robustlab.smoothing import certify, certifying
from robustlab.smoothing.bounds import lower_bound

LIGHT = ["--device", "cpu", "--threads", "1", "--workers", "0"]
FEW = ["--sigma", "0.1", "--n0", "10", "--n", "100", *LIGHT]


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder of a network that was trained with noise."""
    out = tmp_path_factory.mktemp("runs") / "run"
    words = ["--recipe", "noise", "--sigma", "0.1", "--arch", "mlp", "--epochs", "3", "--batch-size", "16", "--lr", "0.02", "--no-test"]
    command.run(parse(settings.Train, [*words, *LIGHT, "--data", str(data), "--out", str(out)], "train"))
    return out


def test_its_table_and_files_are_the_library_s(call, run: Path, data: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(0 <= line["val/noise"] <= 1 for line in lines)
    out = tmp_path / "out"
    told = call("certify", "--model", run, "--data", data, *FEW, "--radii", "0,0.05", "--out", out)
    assert told.code == 0 and told.err == ""
    found = certify(load(run), open_dataset(None, data, "test"), 0.1, n0=10, n=100, progress=False)
    assert found.accuracy.count > 10
    assert told.out.splitlines()[1:-1] == found.lines(found.rows([0, 0.05])).splitlines()
    assert [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()] == [r.to_json() for r in found.records]
    assert {path.name for path in out.iterdir()} == {"records.jsonl", "report.json", "curve.png"}
    with Image.open(out / "curve.png") as image:
        assert image.width > 500
    assert call("certify", "--model", run, "--data", data, *FEW, "--radii", "0,0.05", "--out", out).out == told.out


def test_two_processes_find_what_one_finds_also_where_one_is_killed(call, monkeypatch, run: Path, data: Path, tmp_path: Path) -> None:
    words = ["certify", "--model", str(run), "--data", str(data), *FEW, "--n", "1000", "--batch-size", "20"]
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert call(*words, "--out", whole).code == 0
    with subprocess.Popen(
        [sys.executable, "-m", "robustlab", *words, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as other:
        deadline = time.monotonic() + 120
        while other.poll() is None and time.monotonic() < deadline and not list(out.glob(".unfinished/images/*.json")):
            time.sleep(0.005)
        other.send_signal(signal.SIGSTOP)
        kept = len(list(out.glob(".unfinished/images/*.json")))
        assert other.poll() is None and 0 < kept < 20

        certified: list[int] = []

        def killing(*counted: Any) -> float:
            other.kill()  # while it is at an image
            certified.append(1)
            return lower_bound(*counted)

        monkeypatch.setattr(certifying, "lower_bound", killing)
        assert call(*words, "--out", out).code == 0
    assert len(certified) == 20 - kept
    assert {path.name for path in out.iterdir()} == {"records.jsonl", "report.json", "curve.png"}
    for name in ("records.jsonl", "curve.png"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


def test_mistakes_name_flags(refused, run: Path, data: Path) -> None:
    assert "--sigma is the noise's standard deviation" in refused("certify", "--model", run, "--data", data, "--sigma", "0", *LIGHT)
    assert "--n must be at least 10" in refused("certify", "--model", run, "--data", data, "--n", "5", *LIGHT)
    assert "the recipe 'standard' has no --sigma" in refused("train", "--data", data, "--sigma", "1", *LIGHT)
