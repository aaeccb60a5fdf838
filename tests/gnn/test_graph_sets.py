"""Sets of graphs in the files of TUDataset: what is written comes back, and damage is one sentence with its line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from robustlab.errors import UserError
from robustlab.gnn import read_tu

# A path of three nodes, a single node, and an edge; the nodes of the last two are numbered in turn.
FILES = {
    "A": "1, 2\n2, 1\n2, 3\n3, 2\n4, 6\n6, 4\n",
    "graph_indicator": "1\n1\n1\n3\n2\n3\n",
    "graph_labels": "1\n-1\n1\n",
}
LABELS = {"node_labels": "3\n0\n3\n7\n0\n0\n"}
ATTRIBUTES = {"node_attributes": "0.5, 1\n1, 2\n1.5, 3\n2, 4\n2.5, -1e3\n3, 6\n"}


def written(folder: Path, files: Mapping[str, str]) -> Path:
    for ending, text in files.items():
        (folder / f"TINY_{ending}.txt").write_text(text)
    return folder


def test_graphs_labels_and_attributes_come_back(tmp_path: Path) -> None:
    graphs = read_tu(written(tmp_path, {**FILES, **LABELS, **ATTRIBUTES, "edge_labels": "damaged"}))
    assert graphs.sizes.tolist() == [3, 1, 2] and graphs.y.tolist() == [1, 0, 1]
    assert graphs.edge_index.tolist() == [[0, 1, 1, 2, 4, 5], [1, 0, 2, 1, 5, 4]]
    assert graphs.x is not None and graphs.x.dtype == torch.float32
    assert graphs.x[:, :3].argmax(1).tolist() == [1, 0, 1, 0, 2, 0] and (graphs.x[:, :3].sum(1) == 1).all()
    assert graphs.x[:, 3:].tolist() == [[0.5, 1], [1, 2], [1.5, 3], [2.5, -1000], [2, 4], [3, 6]]
    assert torch.equal(read_tu(tmp_path, attributes=False).x, graphs.x[:, :3])


def test_a_set_without_features_and_edges_in_one_direction(tmp_path: Path) -> None:
    both, once = tmp_path / "both", tmp_path / "once"
    for folder, files in ((both, FILES), (once, {**FILES, "A": "1 2\n\n3 2\n4,6\n"})):
        folder.mkdir()
        written(folder, files)
    assert read_tu(both).x is None and torch.equal(read_tu(both).edge_index, read_tu(once).edge_index)
    assert read_tu(written(once, {"A": "\n"})).edge_index.shape == (2, 0)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"A": "1, 2\n2, x\n"}, "TINY_A.txt, line 2: a whole number was expected, got 'x'"),
        ({"A": "1, 2\n2, 1, 1\n"}, "TINY_A.txt, line 2: 2 numbers were expected, got 3"),
        ({"A": "1, 2\n\n0, 1\n"}, "TINY_A.txt, line 3: an edge joins two of the nodes 1 to 6, got [0, 1]"),
        ({"A": "1, 2\n2, 7\n"}, "TINY_A.txt, line 2: an edge joins two of the nodes 1 to 6, got [2, 7]"),
        ({"A": "1, 2\n3, 3\n"}, "TINY_A.txt, line 2: node 3 has an edge to itself: leave self-loops out"),
        ({"A": "1, 2\n3, 4\n"}, "TINY_A.txt, line 2: the edge 3, 4 joins graphs 1 and 3"),
        ({"A": "1, 2\n2, 1\n1, 2\n"}, "TINY_A.txt, line 3: the edge 1, 2 is there more than once"),
        ({"A": "1, 2\n2, 1\n3, 2\n"}, "TINY_A.txt, line 3: the edge 3, 2 has one direction only, others have both"),
        ({"A": "1, 99999999999999999999\n"}, "TINY_A.txt, line 1: a whole number was expected"),
        ({"graph_indicator": "1\n1\n1\n4\n2\n3\n"}, "TINY_graph_indicator.txt, line 4: one of the graphs 1 to 3 was expected, got 4"),
        ({"graph_indicator": "1\n1\n1\n3\n3\n3\n"}, "TINY_graph_indicator.txt: graph 2 of 3 has no nodes"),
        ({"graph_indicator": " "}, "TINY_graph_indicator.txt is empty"),
        ({"graph_labels": "1\n0.5\n1\n"}, "TINY_graph_labels.txt, line 2: a whole number was expected, got '0.5'"),
        ({"graph_labels": "1\n1\n"}, "TINY_graph_indicator.txt, line 4: one of the graphs 1 to 2 was expected, got 3"),
        ({"node_labels": "3\n0\n"}, "TINY_node_labels.txt has 2 lines, but there are 6 nodes"),
        ({"node_attributes": "1\n2\n3\nnan\n5\n6\n"}, "TINY_node_attributes.txt, line 4: a number was expected, got 'nan'"),
        ({"node_attributes": "1\n2\n3\n1e39\n5\n6\n"}, "TINY_node_attributes.txt, line 4: a number was expected, got '1e39'"),
        ({"node_attributes": "1\n2\n3\n4, 4\n5\n6\n"}, "TINY_node_attributes.txt, line 4: 1 numbers were expected, got 2"),
    ],
)
def test_what_is_no_set_is_refused_with_its_line(tmp_path: Path, changes: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        read_tu(written(tmp_path, {**FILES, **changes}))


def test_what_is_no_folder_of_one_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be a folder of one TU set, with one file NAME_A.txt: there is no folder"):
        read_tu(tmp_path / "none")
    with pytest.raises(UserError, match="there is none"):
        read_tu(tmp_path)
    (written(tmp_path, FILES) / "OTHER_A.txt").write_text("")
    with pytest.raises(UserError, match="there are 2 of them"):
        read_tu(tmp_path)
    (tmp_path / "OTHER_A.txt").unlink()
    (tmp_path / "TINY_graph_labels.txt").unlink()
    with pytest.raises(UserError, match="TINY_graph_labels.txt"):
        read_tu(tmp_path)


def test_a_label_of_its_own_for_each_of_many_nodes_is_refused(tmp_path: Path) -> None:
    n = 20_000
    files = {"A": "1, 2\n", "graph_indicator": "1\n" * n, "graph_labels": "1\n", "node_labels": "\n".join(map(str, range(n)))}
    with pytest.raises(UserError, match="a one for each node's label would take"):
        read_tu(written(tmp_path, files))
