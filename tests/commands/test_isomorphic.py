"""``robustlab isomorphic``: a row for each method, and an isomorphism where there is one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

pytest.importorskip("scipy")
pytest.importorskip("networkx")

from robustlab.commands import main  # noqa: E402
from robustlab.gnn import SGNN, erdos_renyi, read_graph, renumbered, strongly_regular  # noqa: E402
from robustlab.gnn.weights import save_network  # noqa: E402


@pytest.fixture
def folder(tmp_path):
    first = erdos_renyi(12, 0.3, seed=1)
    for name, one in {"a": first, "b": renumbered(first)[0], "rook": strongly_regular()[0], "shrikhande": strongly_regular()[1]}.items():
        np.savez(tmp_path / f"{name}.npz", edge_index=one.edge_index.numpy(), n=one.n)
    (tmp_path / "both.g6").write_text("EEh_\nEwCW\n")  # a path of 6 nodes with a chord, and two triangles
    return tmp_path


def test_two_files(folder, capsys):
    out = folder / "out"
    assert main(["isomorphic", str(folder / "a.npz"), str(folder / "b.npz"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert said.count("| not told apart |") == 10 and "They are isomorphic: node i of the first is node " in said
    told = json.loads((out / "isomorphic.json").read_text())
    first, second = (read_graph(folder / f"{name}.npz") for name in "ab")
    assert told["isomorphic"] and torch.equal(first.permuted(torch.tensor(told["isomorphism"])).edge_index, second.edge_index)
    assert (out / "isomorphic.md").read_text().startswith("## Are the graphs isomorphic?")
    assert main(["isomorphic", "--graph", str(folder / "a.npz"), "--other", str(folder / "b.npz"), "--out", str(out)]) == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_graphs_that_differ(folder, capsys):
    assert main(["isomorphic", str(folder / "rook.npz"), str(folder / "shrikhande.npz")]) == 0
    said = capsys.readouterr().out
    assert "3-tuples of one" in said and "not isomorphic: what an isomorphism would keep differs" in said
    assert main(["isomorphic", str(folder / "rook.npz"), str(folder / "shrikhande.npz"), "--methods", "1-WL"]) == 0
    assert "the search for an isomorphism went through all cases" in capsys.readouterr().out
    assert main(["isomorphic", str(folder / "rook.npz"), str(folder / "shrikhande.npz"), "--methods", "1-WL", "--tries", "2"]) == 0
    assert "Undecided: no method tells them apart, and 2 refinements" in capsys.readouterr().out


def test_one_file_with_two_graphs(folder, capsys):
    assert main(["isomorphic", str(folder / "both.g6"), "--methods", "1-WL,closed walks"]) == 0
    assert "closed walks of length" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, said",
    [
        ([], "which graphs? Two files, such as A.npz B.npz"),
        (["a.npz"], "a.npz must hold 2 graphs here, it holds 1"),
        (["a.npz", "both.g6"], "both.g6 must hold 1 graph here, it holds 2"),
        (["a.npz", "none.npz"], "there is no file"),
        (["a.npz", "b.npz", "rook.npz"], "unexpected argument"),
        (["a.npz", "b.npz", "--methods", "1-wl"], "unknown method '1-wl'. Did you mean '1-WL'?"),
        (["a.npz", "b.npz", "--model", "net.json"], "SGNN has answers for nodes"),
    ],
)
def test_a_mistake_gets_one_sentence_and_nothing_is_written(flags, said, folder, capsys):
    save_network(folder / "net", SGNN(2, depth=1))
    places = [str(folder / flag) if "." in flag else flag for flag in flags]
    assert main(["isomorphic", *places, "--out", str(folder / "out")]) == 2
    assert said in capsys.readouterr().err and not (folder / "out").exists()
