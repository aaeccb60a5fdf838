"""Networks on tensors: the same for renumbered graphs, for each graph of a batch by itself, and what they cannot see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from robustlab import gnn
from robustlab.errors import UserError
from robustlab.gnn.ign import TensorNetwork, by_size, tensor_of
from robustlab.gnn.networks import describe, from_description


def networks(**more: int) -> list[TensorNetwork]:
    found: list[TensorNetwork] = [gnn.IGN(2, width=16, **more), gnn.EquivariantIGN(2, width=16, **more)]
    found += [gnn.IGN(2, 3, width=8, depth=2, **more), gnn.EquivariantIGN(2, 3, width=8, depth=2, **more), gnn.IGN(2, 1, **more)]
    found += [gnn.RingGNN(2, width=(8, 10), **more), gnn.RingGNN(2, width=(8,), powers=3, **more)]
    return found


def featured(graphs: gnn.GraphBatch, features: int = 0) -> gnn.GraphBatch:
    x = torch.randn(graphs.n, features, generator=torch.Generator().manual_seed(5)) if features else None
    return gnn.GraphBatch(graphs.edge_index, graphs.sizes, x=x)


def some_graphs(features: int = 0) -> gnn.GraphBatch:
    """Of unequal sizes in no order, one without an edge, one complete, one node alone."""
    loose, full = gnn.graph(torch.empty(2, 0, dtype=torch.int64), 4), gnn.from_adjacency(1 - torch.eye(9))
    single = gnn.graph(torch.empty(2, 0, dtype=torch.int64), 1)
    parts = [gnn.erdos_renyi(9, 0.4), loose, gnn.erdos_renyi(12, 0.3, seed=1), single, gnn.random_regular(8, 3), full]
    return featured(gnn.side_by_side([gnn.GraphBatch(one.edge_index, one.sizes) for one in parts]), features)


def mixed(graphs: gnn.GraphBatch, seed: int = 3) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.cat([torch.randperm(n, generator=source) + start for n, start in zip(graphs.sizes, graphs.starts, strict=False)])


@pytest.mark.parametrize("features", [0, 2])
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_renumbered_graphs_get_the_same_values_and_renumbered_nodes_too(features: int, dtype: torch.dtype, bound: float) -> None:
    graphs = some_graphs(features)
    order = mixed(graphs)
    for network in networks(features=features):
        here, there = network.to(dtype)(graphs), network(graphs.permuted(order))
        assert here.shape == ((len(graphs) if network.of_graphs else graphs.n), 2) and here.dtype == dtype
        assert (here - (there if network.of_graphs else there[order])).abs().max() <= bound


@pytest.mark.parametrize("features", [0, 2])
def test_a_batch_of_any_sizes_is_its_graphs_one_by_one(features: int) -> None:
    graphs = some_graphs(features)
    for network in networks(features=features):
        network.double()
        alone = torch.cat([network(graphs.one(i)) for i in range(len(graphs))])
        torch.testing.assert_close(network(graphs), alone, rtol=0, atol=1e-10)
        assert (alone.std(0) > 1e-6).all()


def test_every_network_says_whether_its_values_are_of_graphs() -> None:
    assert [network.of_graphs for network in networks()] == [True, False, True, False, True, True, True]
    assert not gnn.SGNN(2).of_graphs


def test_the_tensor_is_the_adjacency_matrix_and_the_features_on_diagonals() -> None:
    graphs = some_graphs(2)
    for group in by_size(graphs):
        x = tensor_of(graphs, group, graphs.x, torch.float64)
        for i, values in zip(group.which.tolist(), x, strict=True):
            assert torch.equal(values[0], graphs.one(i).adjacency())
            assert torch.equal(values[1:], graphs.one(i).x.double().T.diag_embed())
    assert sorted(torch.cat([group.which for group in by_size(graphs)]).tolist()) == list(range(len(graphs)))


def test_networks_are_written_down_and_made_again(tmp_path: Path) -> None:
    graphs = some_graphs()
    for network in [*networks(), gnn.RingGNN(2, width=(3,), readout="eigenvalues", nodes=9)]:
        again = from_description(json.loads(json.dumps(describe(network))))
        assert type(again) is type(network) and again.settings == network.settings
        path = gnn.save_network(tmp_path / "model", network)
        one = graphs.one(0)
        assert torch.equal(gnn.load_network(path)(one), network(one))


def test_order_2_does_not_see_what_1_wl_does_not_on_regular_graphs_and_order_3_does() -> None:
    six = torch.arange(6)
    ring = gnn.graph(torch.stack([six, (six + 1) % 6]))
    triangles = gnn.graph(torch.tensor([[0, 1, 2, 3, 4, 5], [1, 2, 0, 4, 5, 3]]))
    for seed in range(3):
        for order, sees in ((2, False), (3, True)):
            network = gnn.IGN(4, order, width=12, seed=seed).double()
            apart = float((network(ring) - network(triangles)).detach().abs().max())
            assert (apart > 1e-7) if sees else (apart < 1e-13)
    ring_network = gnn.RingGNN(4, width=(6, 6)).double()
    assert (ring_network(ring) - ring_network(triangles)).abs().max() > 1e-4


def test_relaxed_graphs_have_the_same_values_and_gradients() -> None:
    graphs = gnn.erdos_renyi(8, 0.4, graphs=2)
    for network in networks():
        soft = gnn.relaxed(graphs, torch.float64)
        soft.weights.requires_grad_()
        found = network.double()(soft)
        torch.testing.assert_close(found, network(graphs))
        assert torch.autograd.grad(found.sum(), soft.weights)[0].abs().sum() > 0


def test_a_network_can_be_trained() -> None:
    """To tell how dense a graph is."""
    graphs = gnn.side_by_side([gnn.GraphBatch(one.edge_index, one.sizes) for one in (gnn.erdos_renyi(8, p) for p in (0.2, 0.5, 0.8))])
    wanted = torch.tensor([[-1.0], [0.0], [1.0]])
    for network in (gnn.IGN(1, width=8), gnn.RingGNN(1, width=(8,))):
        optimizer = torch.optim.Adam(network.parameters(), 0.01)
        losses = []
        for _ in range(60):
            optimizer.zero_grad()
            loss = (network(graphs) - wanted).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] / 100


def test_what_networks_cannot_take_is_refused() -> None:
    one = gnn.erdos_renyi(6, 0.5)
    hollow = gnn.GraphBatch(one.edge_index, torch.tensor([6, 0]))
    for network in networks():
        with pytest.raises(UserError, match="graph 1 of the batch has no nodes"):
            network(hollow)
        nothing = gnn.GraphBatch(one.edge_index[:, :0], torch.empty(0, dtype=torch.int64))
        assert network(nothing).shape == (0, 2)
    for network in networks(features=2):
        with pytest.raises(UserError, match="wants 2 features of each node, the graphs have none"):
            network(one)
    for order in (-1, 0, 6):
        with pytest.raises(UserError, match=f"`order` of a network on tensors must be 1 to 5, got {order}"):
            gnn.IGN(2, order)
    with pytest.raises(UserError, match="`width` of a graph network must be 1 to 10,000, got 0"):
        gnn.IGN(2, width=0)
    with pytest.raises(UserError, match="does not say what graph network it holds"):
        from_description({**describe(gnn.IGN(2)), "order": "two"})


def test_a_graph_whose_tensors_do_not_fit_memory_is_refused_with_the_dimension() -> None:
    large = gnn.graph(torch.tensor([[0], [1]]), 3_000)
    with pytest.raises(UserError, match="from order 2 to order 3 have dimension 52, and what comes out at n = 3000 would take 6.9"):
        gnn.IGN(2, 3)(large)
