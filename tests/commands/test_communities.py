"""``robustlab communities``: a table, labels and a picture of a graph of one's own."""

from __future__ import annotations

import csv
import json
import sys

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("scipy")
pytest.importorskip("networkx")

from robustlab.commands import main  # noqa: E402
from robustlab.gnn import SGNN, stochastic_block_model  # noqa: E402
from robustlab.gnn.weights import save_network  # noqa: E402
from robustlab.reports.plots import graph_plot  # noqa: E402


@pytest.fixture
def file(tmp_path):
    graph = stochastic_block_model(60, 2, inside=0.4, between=0.05)
    np.savez(tmp_path / "mine.npz", edge_index=graph.edge_index.numpy(), y=graph.y.numpy())
    return tmp_path / "mine.npz"


def test_labels_table_and_picture(file, tmp_path, capsys):
    save_network(tmp_path / "net", SGNN(2, depth=2))
    out = tmp_path / "out"
    assert main(["communities", "--data", str(file), "--model", str(tmp_path / "net.json"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "Communities of mine.npz" in said and "Labels at random have an overlap of" in said and "Believe the labels of" in said
    told = json.loads((out / "communities.json").read_text())
    with (out / "labels.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 60 and [int(row["node"]) for row in rows] == list(range(60))
    assert list(rows[0])[1] == told["best"] and set(rows[0]) == {"node", *told["methods"]} and str(tmp_path / "net.json") in rows[0]
    found, true = np.array([int(row[told["best"]]) for row in rows]), np.load(file)["y"]
    assert max((found == true).mean(), (found != true).mean()) > 0.9
    assert (out / "communities.md").read_text().startswith("## Communities of mine.npz")
    with Image.open(out / "communities.png") as image:
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 20
    assert main(["communities", "--data", str(file), "--out", str(out)]) == 2
    assert "not an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["scipy.optimize", "networkx"])
def test_what_cannot_be_drawn_is_refused_before_the_work(package, file, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["communities", "--data", str(file), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr()
    assert "the picture of the graph needs" in said.err and not said.out and not (tmp_path / "out").exists()
    if package == "networkx":  # without a picture it is not needed
        assert main(["communities", "--data", str(file), "--methods", "adjacency"]) == 0


def test_labels_of_any_numbers_are_compared(file, tmp_path, capsys):
    held = dict(np.load(file))
    np.savez(tmp_path / "odd.npz", edge_index=held["edge_index"], y=held["y"] * 900_000 + 7)
    said = []
    for name in (file, tmp_path / "odd.npz"):
        assert main(["communities", "--data", str(name), "--methods", "bethe hessian"]) == 0
        said.append(capsys.readouterr().out.rpartition("| bethe hessian")[2].split("|")[1:6])
    assert said[0] == said[1]


@pytest.mark.parametrize(
    "flags, said",
    [
        ([], "of which graph? --data takes a file"),
        (["--data", "none.npz"], "there is no file"),
        (["--data", "FILE", "--methods", "bethe"], "unknown method 'bethe'. Did you mean 'bethe hessian'?"),
        (["--data", "FILE", "--k", "61"], "1 to 60 communities, got 61"),
        (["--data", "FILE", "--model", "FOLDER"], "without model.json"),
    ],
)
def test_a_mistake_gets_one_sentence_and_nothing_is_written(flags, said, file, tmp_path, capsys):
    places = {"FILE": str(file), "FOLDER": str(tmp_path)}
    assert main(["communities", *(places.get(flag, flag) for flag in flags), "--out", str(tmp_path / "out")]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_the_matrix_of_a_large_graph_shows_its_blocks(tmp_path):
    n = 400
    inside = [(i, j) for i in range(n) for j in (i - 1, i + 1) if 0 <= j < n and (i < 200) == (j < 200)]
    graph_plot(tmp_path / "matrix.png", inside, [int(i >= 200) for i in range(n)], title="blocks", ends=[200, 400])
    with Image.open(tmp_path / "matrix.png") as image:
        grey = np.asarray(image.convert("L"), dtype=float)
    height, width = grey.shape
    corner = grey[int(0.15 * height) : int(0.4 * height), int(0.65 * width) : int(0.9 * width)]
    assert (corner > 250).mean() > 0.99
