"""Layers: equal to the published formula with dense matrices, equivariant, and each graph of a batch by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab import gnn
from robustlab.errors import UserError
from robustlab.gnn.layers import (
    GraphLayer,
    GraphNorm,
    Groups,
    LineGraphLayer,
    MessageLayer,
    _blocks,
    edge_groups,
    half_relu,
    line_degree,
    node_groups,
    propagate,
)

OPERATORS = (gnn.Identity(), gnn.Degree(), gnn.Adjacency(), gnn.Reached(2), gnn.Power(2), gnn.HopRing(2), gnn.GraphMean())


def some_graphs() -> gnn.GraphBatch:
    """Unequal ones, dense and sparse, and one without an edge."""
    loose = gnn.graph(torch.empty(2, 0, dtype=torch.int64), 4)
    parts = [gnn.erdos_renyi(20, 0.3), loose, gnn.erdos_renyi(35, 0.08, seed=1), gnn.random_regular(12, 3)]
    return gnn.side_by_side([gnn.GraphBatch(one.edge_index, one.sizes) for one in parts])


def equal_graphs() -> gnn.GraphBatch:
    """As many nodes in each, so that dense products are chosen."""
    return gnn.erdos_renyi(18, 0.4, graphs=3)


def randomly(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def mixed(graphs: gnn.GraphBatch) -> Tensor:
    """A permutation that keeps every node in its graph."""
    source = torch.Generator().manual_seed(3)
    return torch.cat([torch.randperm(n, generator=source) + start for n, start in zip(graphs.sizes, graphs.starts, strict=False)])


def layers() -> dict[str, Callable[[gnn.GraphBatch, Tensor], Tensor]]:
    source = torch.Generator().manual_seed(0)
    found: dict[str, Callable[[gnn.GraphBatch, Tensor], Tensor]] = {
        "graph layer": GraphLayer(OPERATORS, 3, 5, source=source),
        "linear graph layer": GraphLayer(OPERATORS, 3, 5, linear=True, source=source),
        "message layer": MessageLayer(3, 5, source=source),
    }
    for reach in (1, 2):
        layer = LineGraphLayer(OPERATORS, 3, 5, reach=reach, source=source)
        found[f"line-graph layer, reach {reach}"] = lambda graphs, x, layer=layer: torch.cat(
            [(out := layer(graphs, x, line_degree(graphs).expand(-1, 3)))[0], gnn.to_nodes(graphs, out[1], signed=True)], 1
        )
    return found


@pytest.mark.parametrize("name", layers())
@pytest.mark.parametrize("graphs", [some_graphs(), equal_graphs()], ids=["unequal", "equal"])
def test_renumbered_nodes_get_the_same_values(name: str, graphs: gnn.GraphBatch) -> None:
    layer, x, order = layers()[name], randomly(graphs.n, 3, dtype=torch.float32), mixed(graphs)
    moved = torch.empty_like(x)
    moved[order] = x
    here, there = layer(graphs, x), layer(graphs.permuted(order), moved)[order]
    scale = here.detach().abs().max().clamp(min=1)
    assert (here - there).abs().max() <= 1e-5 * scale


@pytest.mark.parametrize("name", layers())
def test_a_batch_is_its_graphs_one_by_one(name: str) -> None:
    layer = layers()[name]
    for graphs in (some_graphs(), equal_graphs()):
        x = randomly(graphs.n, 3, dtype=torch.float32)
        parts = x.split(graphs.sizes.tolist())
        alone = torch.cat([layer(graphs.one(i), part) for i, part in enumerate(parts)])
        torch.testing.assert_close(layer(graphs, x), alone, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("linear", [False, True])
def test_a_graph_layer_is_the_published_formula(linear: bool) -> None:
    graphs = gnn.erdos_renyi(25, 0.3)
    layer, x = GraphLayer(OPERATORS, 3, 4, linear=linear).double(), randomly(25, 3)
    A = graphs.adjacency()
    walks = A @ A
    dense = [torch.eye(25), A.sum(1).diag(), A, (walks > 0).double(), walks, ((walks > 0) & (A == 0)).double().fill_diagonal_(0)]
    dense.append(torch.full((25, 25), 1 / 25))
    values = torch.cat([M.double() @ x for M in dense], 1) @ layer.theta.weight.T + layer.theta.bias
    if not linear:
        values = torch.cat([values[:, :2].relu(), values[:, 2:]], 1)
    wanted = F.batch_norm(values, None, None, training=True)
    torch.testing.assert_close(layer(graphs, x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("reach", [1, 2])
def test_a_line_graph_layer_is_the_published_formula(reach: int) -> None:
    graphs = gnn.erdos_renyi(16, 0.3)
    layer = LineGraphLayer(gnn.dyadic(2), 3, 4, reach=reach).double()
    edges = graphs.edge_index.shape[1]
    x, y = randomly(16, 3).requires_grad_(), randomly(edges, 3, seed=1).requires_grad_()
    A, B = graphs.adjacency(), torch.zeros(edges, edges, dtype=torch.float64)
    for e, (i, j) in enumerate(graphs.edge_index.T.tolist()):
        for f, (k, m) in enumerate(graphs.edge_index.T.tolist()):
            B[e, f] = float(j == k and m != i)
    at_tail, at_head = F.one_hot(graphs.tail, 16).double().T, F.one_hot(graphs.head, 16).double().T
    Pm, Pd = at_tail + at_head, at_tail - at_head
    nodes = [x, A.sum(1)[:, None] * x, A @ x, (A @ A).clamp(max=1) @ x, Pm @ y, Pd @ y]
    x1 = half_relu(torch.cat(nodes, 1) @ layer.theta.weight.T + layer.theta.bias)
    x1 = F.batch_norm(x1, None, None, training=True)
    powers = [B, (B @ B).clamp(max=1)][:reach]
    lines = [y, B.sum(1)[:, None] * y, *(power @ y for power in powers), Pm.T @ x1, Pd.T @ x1]
    y1 = half_relu(torch.cat(lines, 1) @ layer.gamma.weight.T + layer.gamma.bias)
    y1 = F.batch_norm(y1, None, None, training=True)
    found = layer(graphs, x, y)
    torch.testing.assert_close(found, (x1, y1), rtol=1e-4, atol=1e-5)
    weights = randomly(16, 4, seed=2), randomly(edges, 4, seed=3)
    theirs = torch.autograd.grad((x1 * weights[0]).sum() + (y1 * weights[1]).sum(), (x, y, layer.gamma.weight), retain_graph=True)
    ours = torch.autograd.grad((found[0] * weights[0]).sum() + (found[1] * weights[1]).sum(), (x, y, layer.gamma.weight))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_message_layer_is_that_of_torch_geometric() -> None:
    theirs, graphs = pytest.importorskip("torch_geometric.nn").GINConv, gnn.erdos_renyi(25, 0.3)
    layer, x, groups = MessageLayer(3, 4).double(), randomly(25, 3), node_groups(graphs)
    layer.eps.data.fill_(0.3)
    mlp = torch.nn.Module()
    mlp.forward = lambda h: layer.outer(groups, layer.second(layer.inner(groups, layer.first(h)).relu())).relu()
    torch.testing.assert_close(layer(graphs, x), theirs(mlp, eps=0.3)(x, graphs.edge_index))


def test_operators_are_the_same_where_dense_products_are_chosen() -> None:
    graphs = equal_graphs()
    x = randomly(graphs.n, 2).requires_grad_()
    for operator, found in zip(OPERATORS, propagate(OPERATORS, graphs, x), strict=True):
        torch.testing.assert_close(found, operator.dense(graphs) @ x)
        (ours,) = torch.autograd.grad(found.square().sum(), x)
        torch.testing.assert_close(ours, 2 * operator.dense(graphs).T @ found.detach())
    assert _blocks(gnn.Adjacency(), graphs, torch.float64) is not None and _blocks(gnn.Adjacency(), some_graphs(), torch.float64) is None
    assert _blocks(gnn.Adjacency(), gnn.erdos_renyi(100, 0.02, graphs=2), torch.float64) is None


def test_statistics_are_of_each_graph_alone() -> None:
    graphs = some_graphs()
    x = randomly(graphs.n, 2) * 7 + 3
    found = GraphNorm(2).double()(node_groups(graphs), x)
    for part, of in zip(found.split(graphs.sizes.tolist()), x.split(graphs.sizes.tolist()), strict=True):
        torch.testing.assert_close(part, (of - of.mean(0)) / of.std(0, correction=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 1.0, 3e5, 1e-3])
def test_a_constant_becomes_zero_and_not_noise(value: float) -> None:
    graphs, noise = some_graphs(), randomly(71, 1, dtype=torch.float32).sign()
    x = torch.full((71, 1), value) * (1 + noise * 2**-23)
    assert GraphNorm(1)(node_groups(graphs), x).abs().max() < 1e-3
    assert not GraphNorm(1)(node_groups(graphs), torch.full((71, 1), value)).any()


def test_edges_are_grouped_by_their_graphs() -> None:
    graphs = some_graphs()
    groups = edge_groups(graphs)
    assert torch.equal(groups.owner, graphs.graph[graphs.tail])
    y = randomly(groups.rows, 2)
    means = torch.stack([y[groups.owner == g].mean(0) if (groups.owner == g).any() else torch.zeros(2) for g in range(4)])
    torch.testing.assert_close(groups.mean(y), means.double())


def test_groups_of_equal_and_unequal_sizes_agree_with_their_gradients() -> None:
    x, values = randomly(6, 2), randomly(3, 2, seed=1)
    equal = Groups(torch.tensor([0, 2, 4, 6]))
    unequal = Groups(torch.tensor([0, 2, 4, 6]))
    unequal.__dict__["equal"] = 0
    assert equal.equal == 2
    for act, of in ((Groups.mean, x), (Groups.repeated, values)):
        grads = [torch.autograd.grad(act(groups, leaf := of.clone().requires_grad_()).pow(3).sum(), leaf)[0] for groups in (equal, unequal)]
        torch.testing.assert_close(act(equal, of), act(unequal, of))
        torch.testing.assert_close(*grads)


def test_half_of_the_channels_are_bent() -> None:
    x = -torch.ones(1, 5)
    assert half_relu(x).tolist() == [[0, 0, 0, -1, -1]]


def test_another_reach_is_refused() -> None:
    with pytest.raises(UserError, match="`reach` must be 1 or 2, got 3"):
        LineGraphLayer(gnn.dyadic(1), 1, 2, reach=3)
