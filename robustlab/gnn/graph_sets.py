"""Labelled sets of graphs from the text files of TUDataset (Morris et al. 2020), such as MUTAG and PROTEINS.

graphs = read_tu("MUTAG")      # graphs.y a class of each graph, graphs.x features of each node
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustlab.data.limits import check_expansion
from robustlab.errors import UserError
from robustlab.gnn.graphs import GraphBatch, graph
from robustlab.gnn.readers import Place, Words
from robustlab.paths import place_of, shown

LARGEST = 3e38  # attribute, which float32 holds


def read_tu(folder: Place, *, attributes: bool = True) -> GraphBatch:
    """A set of graphs from a folder with ``NAME_A.txt``, ``NAME_graph_indicator.txt`` and ``NAME_graph_labels.txt``; labels and attributes
    of nodes are read where their files are there, all else, such as labels of edges, is passed over. Nodes and graphs are counted from 1
    there.

    Args:
        folder: of one set.
        attributes: read ``NAME_node_attributes.txt`` too.

    Returns:
        The graphs, with classes ``y``, int64 ``(B,)``, from 0 in the order of their labels, and features ``x``, float32 ``(N, F)``: a one
        for the node's label, and then its attributes; None where the set has neither. Edges that are all there in one direction only get
        the other one.

    Raises:
        UserError: a missing file, a damaged line, files whose lengths do not fit, a graph without nodes, self-loops, double edges, an edge
            from one graph to another, or edges of which some have their other direction and some not.
    """
    stem = _stem(place_of(folder))
    labels, indicator = _Rows.of(stem, "graph_labels", 1), _Rows.of(stem, "graph_indicator", 1)
    count, n = len(labels.values), len(indicator.values)
    owner = indicator.values[:, 0]
    indicator.refuse((owner < 1) | (owner > count), lambda row: f"one of the graphs 1 to {count} was expected, got {owner[row]}")
    sizes = np.bincount(owner - 1, minlength=count)
    if not sizes.all():
        raise UserError(f"{shown(indicator.path)}: graph {int(np.flatnonzero(sizes == 0)[0]) + 1} of {count} has no nodes")
    order = owner.argsort(kind="stable")  # the nodes of a graph side by side
    place = np.empty_like(order)
    place[order] = np.arange(n)
    edges = _edges(stem, owner, n)
    x = _features(stem, n, attributes)
    whole = graph(place[edges.T], n, x=None if x is None else x[order])
    y = np.unique(labels.values[:, 0], return_inverse=True)[1]
    return GraphBatch(whole.edge_index, torch.from_numpy(sizes), x=whole.x, y=torch.from_numpy(y))


@dataclass(frozen=True)
class _Rows:
    """Lines of numbers, as many in each.

    Attributes:
        path: the file, for messages.
        lines: of the rows.
        values: ``(R, width)``.
    """

    path: Path
    lines: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, stem: Path, ending: str, width: int = 0, whole: bool = True) -> _Rows:
        """All rows of a file, with ``width`` numbers in each, or as many as in the first."""
        path = _file(stem, ending)
        words = Words.of(path, "a file of a TU set")
        lines, counts = np.unique(np.array([line for line, _ in words.words], dtype=np.int64), return_counts=True)
        if not len(lines):
            raise UserError(f"{shown(path)} is empty")
        wanted = width or int(counts[0])
        if len(wrong := np.flatnonzero(counts != wanted)):
            raise UserError(f"{shown(path)}, line {lines[wrong[0]]}: {wanted} numbers were expected, got {counts[wrong[0]]}")
        most = {} if whole else {"low": -LARGEST, "high": LARGEST}
        values = words.take(len(words.words), "a whole number" if whole else "a number", whole=whole, **most)
        return cls(path, lines, values.reshape(-1, wanted))

    def refuse(self, wrong: np.ndarray, sentence: Callable[[int], str]) -> None:
        """Refuse the first row that is wrong, ``(R,)``, with a sentence about it."""
        if wrong.any():
            row = int(wrong.argmax())
            raise UserError(f"{shown(self.path)}, line {self.lines[row]}: {sentence(row)}")


def _stem(folder: Path) -> Path:
    """The folder and name of a set."""
    found = sorted(folder.glob("*_A.txt")) if folder.is_dir() else []
    if len(found) != 1:
        there = f"are {len(found)} of them" if found else "is none" if folder.is_dir() else "is no folder"
        raise UserError(f"{shown(folder)} must be a folder of one TU set, with one file NAME_A.txt: there {there}")
    return found[0].with_name(found[0].name.removesuffix("_A.txt"))


def _file(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}_{ending}.txt")


def _edges(stem: Path, owner: np.ndarray, n: int) -> np.ndarray:
    """Pairs of nodes, from 0: int64 ``(E, 2)``."""
    if not _file(stem, "A").read_bytes().strip():
        return np.zeros((0, 2), dtype=np.int64)
    rows = _Rows.of(stem, "A", 2)
    pairs = rows.values
    outside = (pairs.min(axis=1) < 1) | (pairs.max(axis=1) > n)
    rows.refuse(outside, lambda row: f"an edge joins two of the nodes 1 to {n}, got {pairs[row].tolist()}")
    i, j = pairs.T
    rows.refuse(i == j, lambda row: f"node {i[row]} has an edge to itself: leave self-loops out")
    graphs = owner[pairs - 1]
    rows.refuse(graphs[:, 0] != graphs[:, 1], lambda row: f"the edge {i[row]}, {j[row]} joins graphs {graphs[row, 0]} and {graphs[row, 1]}")
    forward, backward = i * n + j, j * n + i
    again = np.ones(len(i), dtype=bool)
    again[np.unique(forward, return_index=True)[1]] = False
    rows.refuse(again, lambda row: f"the edge {i[row]}, {j[row]} is there more than once")
    alone = ~np.isin(forward, backward)
    if not alone.all():
        rows.refuse(alone, lambda row: f"the edge {i[row]}, {j[row]} has one direction only, others have both: graphs must be undirected")
    found: np.ndarray = pairs - 1
    return found


def _features(stem: Path, n: int, attributes: bool) -> Tensor | None:
    parts = []
    if _file(stem, "node_labels").exists():
        rows = _of_nodes(_Rows.of(stem, "node_labels"), n)
        for column in rows.values.T:
            names, which = np.unique(column, return_inverse=True)
            check_expansion(rows.path, "a one for each node's label", 4 * n * len(names), rows.path.stat().st_size)
            parts.append(torch.nn.functional.one_hot(torch.from_numpy(which), len(names)).float())
    if attributes and _file(stem, "node_attributes").exists():
        parts.append(torch.from_numpy(_of_nodes(_Rows.of(stem, "node_attributes", whole=False), n).values).float())
    return torch.cat(parts, 1) if parts else None


def _of_nodes(rows: _Rows, n: int) -> _Rows:
    if len(rows.values) != n:
        raise UserError(f"{shown(rows.path)} has {len(rows.values)} lines, but there are {n} nodes")
    return rows
