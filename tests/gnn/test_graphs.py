"""Graphs: how they come in, what is refused, and what a batch of them knows."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from robustlab.errors import UserError
from robustlab.gnn.generators import erdos_renyi, stochastic_block_model
from robustlab.gnn.graphs import as_graphs, from_adjacency, graph, side_by_side

PATH = [[0, 1], [1, 2]]  # 0 - 1 - 2, every edge once


BOTH = [[0, 1, 1, 2], [1, 0, 2, 1]]


@pytest.mark.parametrize("edges", [PATH, BOTH, [[2, 1, 1, 0], [1, 0, 2, 1]], np.array(PATH), torch.tensor(PATH, dtype=torch.int32)])
def test_edges_come_once_or_in_both_directions(edges):
    found = graph(edges)
    assert found.edge_index.tolist() == [[0, 1, 1, 2], [1, 0, 2, 1]] and found.n == 3 and found.degree.tolist() == [1, 2, 1]
    assert found.edge_index[:, found.reverse].tolist() == found.edge_index.flip(0).tolist()
    assert repr(found) == "GraphBatch(1 graph, 3 nodes, 2 edges)"


def test_nodes_without_edges_are_nodes():
    found = graph(PATH, 5)
    assert found.n == 5 and found.degree.tolist() == [1, 2, 1, 0, 0]
    assert graph(np.zeros((2, 0), dtype=np.int64), 2).n == 2 and graph([[], []], 3).edge_index.shape == (2, 0)


@pytest.mark.parametrize(
    "edges, n, said",
    [
        ([[0, 1, 2], [1, 0, 1]], None, "the edge 2 -> 1 has one direction only, others have both: graphs must be undirected"),
        ([[0, 1], [1, 1]], None, "node 1 has an edge to itself (1 self-loops): leave them out"),
        ([[0, 0], [1, 1]], None, "the edge 0 -> 1 is there more than once"),
        ([[0, -1], [1, 1]], None, "nodes are counted from 0, got -1"),
        (PATH, 2, "the graph has n = 2 nodes, but an edge names node 2"),
        ([0, 1], None, "edge_index must have the shape (2, E), got (2,)"),
        ([[0.5], [1.0]], None, "edge_index must hold whole numbers, got float32"),
        ([["a"], ["b"]], None, "edge_index must be an array of whole numbers"),
        ([[], []], None, "the graph has no nodes"),
    ],
)
def test_what_is_no_undirected_graph_is_refused(edges, n, said):
    with pytest.raises(UserError, match=re.escape(said)):
        graph(edges, n)


@pytest.mark.parametrize(
    "more, said",
    [
        ({"x": [[1.0]]}, "features must have the shape (3, F), got (1, 1)"),
        ({"x": [[1.0], [float("nan")], [0.0]]}, "features must be finite, but node 1 has one that is not"),
        ({"y": [0, 1]}, "labels of nodes must have the shape (3,), got (2,)"),
        ({"y": [0.0, 1.0, 0.5]}, "labels must hold whole numbers, got float32"),
        ({"y": [0, -1, 0]}, "labels are counted from 0, got -1"),
    ],
)
def test_features_and_labels_that_do_not_fit_are_refused(more, said):
    with pytest.raises(UserError, match=re.escape(said)):
        graph(PATH, **more)


@pytest.mark.parametrize(
    "matrix, said",
    [
        (np.zeros((2, 3)), "must have the shape (n, n), got (2, 3)"),
        (np.array([[0, 0.5], [0.5, 0]]), "must hold zeros and ones: graphs with weights are not meant here"),
        (np.array([[0, 1], [0, 0]]), "must be symmetric, but the edge 0 -> 1 has one direction only"),
        (np.eye(2), "node 0 has an edge to itself"),
    ],
)
def test_matrices_that_are_no_undirected_graph_are_refused(matrix, said):
    with pytest.raises(UserError, match=re.escape(said)):
        from_adjacency(matrix)


def test_a_matrix_and_its_graph():
    one = erdos_renyi(9, 0.4)
    assert torch.equal(as_graphs(one.adjacency().numpy()).edge_index, one.edge_index)


def test_others_graphs_by_duck_typing():
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]])
    data = SimpleNamespace(edge_index=edges, num_nodes=4, x=torch.ones(4, 2), y=torch.tensor([0, 1, 0, 1]))
    found = as_graphs(data)
    assert found.n == 4 and found.x.shape == (4, 2) and found.y.tolist() == [0, 1, 0, 1]
    assert as_graphs(SimpleNamespace(edge_index=edges, num_nodes=4, y=torch.tensor([1]))).y.tolist() == [1]
    with pytest.raises(UserError, match="graphs with weights are not meant here: leave out edge_weight"):
        as_graphs(SimpleNamespace(edge_index=edges, num_nodes=4, edge_weight=torch.ones(4)))
    with pytest.raises(
        UserError, match="graphs must be a GraphBatch, torch_geometric's Data, a networkx graph or an adjacency matrix, got str"
    ):
        as_graphs("karate")


def test_networkx_graphs():
    networkx = pytest.importorskip("networkx")
    found = as_graphs(networkx.karate_club_graph())
    assert found.n == 34 and found.edge_index.shape[1] == 2 * 78
    with pytest.raises(UserError, match="graphs must be undirected, without double edges"):
        as_graphs(networkx.DiGraph([(0, 1)]))


def test_graphs_side_by_side_are_blocks_and_come_out_again():
    parts = [stochastic_block_model(n, k, inside=0.5, between=0.2, seed=n) for n, k in ((5, 2), (1, 1), (8, 2))]
    whole = side_by_side(parts)
    assert torch.equal(whole.adjacency(), torch.block_diag(*(part.adjacency() for part in parts)))
    for which, part in enumerate(parts):
        one = whole.one(which)
        assert torch.equal(one.edge_index, part.edge_index) and torch.equal(one.y, part.y) and torch.equal(one.keys, part.keys)
    values = torch.arange(14.0)[:, None]
    torch.testing.assert_close(whole.mean(values)[:, 0], torch.tensor([2.0, 5.0, 9.5]))
    assert whole.graph.tolist() == [0] * 5 + [1] + [2] * 8


def test_a_batch_needs_graphs_of_one_kind():
    with pytest.raises(UserError, match="a batch needs at least one graph"):
        side_by_side([])
    with pytest.raises(UserError, match="either all graphs of a batch have `y` or none"):
        side_by_side([graph(PATH), graph(PATH, y=[0, 1, 1])])


def test_a_permuted_graph_is_the_same_graph():
    one = stochastic_block_model(12, 3, inside=0.6, between=0.2)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    moved = one.permuted(order)
    A, B = one.adjacency(), moved.adjacency()
    assert torch.equal(B[order][:, order], A) and torch.equal(moved.y[order], one.y)
    assert torch.equal(moved.permuted(order.argsort()).edge_index, one.edge_index)


def test_some_graphs_in_any_order_and_twice():
    graphs = side_by_side([erdos_renyi(n, 0.5, seed=n) for n in (4, 1, 6)]).labelled(torch.tensor([7, 8, 9]))
    found = graphs.some(torch.tensor([2, 0, 2, 1]))
    assert found.sizes.tolist() == [6, 4, 6, 1] and found.y.tolist() == [9, 7, 9, 8] and torch.equal(found.keys, graphs.keys[[2, 0, 2, 1]])
    wanted = side_by_side([graphs.one(which) for which in (2, 0, 2, 1)])
    assert torch.equal(found.edge_index, wanted.edge_index)
    assert graphs.some(torch.tensor([], dtype=torch.int64)).n == 0 and graphs.one(-1).n == 6
    nodes = stochastic_block_model(9, 2, inside=0.9, between=0.1, graphs=3)
    assert torch.equal(nodes.some(torch.tensor([1])).y, nodes.y[9:18])
