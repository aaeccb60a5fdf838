"""Ring-GNN: the published formula, its readout and the one beside it, and gradients where eigenvalues coincide."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from robustlab import gnn
from robustlab.errors import UserError
from robustlab.gnn.ring import RingLayer, moments, sorted_eigenvalues, sums


def skip_links(n: int, skip: int) -> gnn.GraphBatch:
    nodes = torch.arange(n)
    return gnn.graph(torch.cat([torch.stack([nodes, (nodes + 1) % n]), torch.stack([nodes, (nodes + skip) % n])], 1), n)


def randomly(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_a_layer_is_the_published_formula() -> None:
    layer, x = RingLayer(2, 3, source=torch.Generator().manual_seed(0)).double(), randomly(2, 2, 5, 5)
    layer.k1.data.fill_(0.7)
    layer.k2.data.fill_(-0.3 * 5)  # over n
    first = layer.alone.general(x).relu()
    second = torch.einsum("bcij,bcjk->bcik", layer.left.general(x), layer.right.general(x))
    torch.testing.assert_close(layer(x), 0.7 * first - 0.3 * second.relu() + 0 * first)
    assert layer.k1.requires_grad and layer.k2.requires_grad


def test_a_pair_of_channels_has_17_parameters_in_each_map() -> None:
    layer = RingLayer(1, 1)
    assert [sum(p.numel() for p in part.parameters()) for part in (layer.alone, layer.left, layer.right)] == [17, 17, 17]
    assert sum(p.numel() for p in layer.parameters()) == 3 * 17 + 2


def test_gradients_of_a_layer_are_right() -> None:
    layer = RingLayer(2, 2, source=torch.Generator().manual_seed(1)).double()
    assert torch.autograd.gradcheck(layer, randomly(1, 2, 4, 4).requires_grad_())
    assert torch.autograd.gradcheck(lambda x: moments(x, 5), randomly(1, 2, 4, 4).requires_grad_())


def test_the_published_readout_is_its_formula() -> None:
    network = gnn.RingGNN(2, width=(3,), readout="eigenvalues", nodes=6).double()
    graphs = gnn.erdos_renyi(6, 0.5)
    (A,) = network.layers[0](graphs.adjacency()[None, None])
    theta = network.last.weight.reshape(2, 3, 8)
    wanted = network.last.bias.clone()
    for c in range(3):
        values = torch.from_numpy(np.linalg.eigvalsh(((A[c] + A[c].T) / 2).detach().numpy()))
        wanted = wanted + theta[:, c, 0] * A[c].sum() / 36 + theta[:, c, 1] * A[c].trace() / 6 + theta[:, c, 2:] @ values / 6
    torch.testing.assert_close(network(graphs)[0], wanted)


def test_moments_are_sums_over_eigenvalues() -> None:
    A = randomly(1, 1, 7, 7)
    A = A + A.transpose(2, 3)
    P = torch.eye(7) - 1 / 7
    centred = P.double() @ A[0, 0] @ P.double()
    values = torch.linalg.eigvalsh(centred)
    square = (centred.square().sum() + 1e-6 * A.square().sum()) / 7
    wanted = [(square / 7).sqrt(), *(((values / square.sqrt()) ** t).mean().asinh() for t in range(2, 8))]
    torch.testing.assert_close(moments(A, 7)[0, 0], torch.stack(wanted), rtol=1e-6, atol=1e-9)
    assert torch.equal(sums(A)[0, 0], torch.stack([A.mean(), A[0, 0].diagonal().mean()]))


def gradient(network: gnn.RingGNN, A: Tensor) -> Tensor:
    A = A.clone().requires_grad_()
    (found,) = torch.autograd.grad(network.answers(network.on_tensors(A[None, None])).sum(), A)
    return found


def test_gradients_where_eigenvalues_coincide_are_equivariant_for_moments_and_not_for_eigenvalues() -> None:
    """The eigenvalues of a circular graph with skip links are there twice, but for one."""
    A = skip_links(13, 3).adjacency()
    order = torch.randperm(13, generator=torch.Generator().manual_seed(0))
    moved = A[order][:, order]
    for settings, equivariant in (({}, True), ({"readout": "eigenvalues", "nodes": 13}, False)):
        network = gnn.RingGNN(1, width=(4, 4), **settings).double()  # type: ignore[arg-type]
        torch.testing.assert_close(
            network.answers(network.on_tensors(A[None, None])), network.answers(network.on_tensors(moved[None, None])), rtol=0, atol=1e-10
        )
        here, there = gradient(network, A), gradient(network, moved)
        apart = (here[order][:, order] - there).abs().max() / here.abs().max()
        assert (apart <= 1e-10) if equivariant else (apart > 1e-2)


def test_two_layers_of_random_weights_tell_all_skip_links_apart() -> None:
    graphs = gnn.side_by_side([skip_links(41, skip) for skip in (2, 3, 4, 5, 6, 9, 11, 12, 13, 16)])
    for settings in ({}, {"readout": "eigenvalues", "nodes": 41}):
        found = gnn.RingGNN(10, width=(8, 8), **settings).double()(graphs)  # type: ignore[arg-type]
        assert torch.pdist(found).min() > 1e-6


def test_rounding_does_not_pass_for_a_spectrum() -> None:
    A = 3 + 1e-7 * randomly(1, 1, 20, 20).float()
    assert moments(A, 6).abs().max() < 1e-2
    assert moments(torch.zeros(1, 1, 5, 5), 4).abs().max() < 1e-6


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"readout": "eigenvalue"}, "unknown readout 'eigenvalue'. Did you mean 'eigenvalues'"),
        ({"readout": "eigenvalues"}, "wants the `nodes` of every graph, 1 to 10,000, got 0"),
        ({"nodes": 5}, "takes graphs of every size: leave out `nodes`, got 5"),
        ({"powers": 1}, "`powers` must be 2 to 20, got 1"),
        ({"width": ()}, "`width` of a graph network must be 1 to 10,000, got 0"),
        ({"width": (4, 0)}, "`width` of a graph network must be 1 to 10,000, got 0"),
        ({"features": -1}, "`features` of a graph network must be 0 to 10,000"),
    ],
)
def test_other_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        gnn.RingGNN(2, **settings)


def test_another_number_of_nodes_than_the_readout_was_made_for_is_refused() -> None:
    network = gnn.RingGNN(2, width=(2,), readout="eigenvalues", nodes=6)
    assert network(gnn.erdos_renyi(6, 0.5)).shape == (1, 2)
    with pytest.raises(UserError, match="`eigenvalues` was made for graphs of 6 nodes, got one of 7: `moments` takes every size"):
        network(gnn.erdos_renyi(7, 0.5))


@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_eigenvalues_give_renumbered_graphs_and_batches_the_same_values(dtype: torch.dtype, bound: float) -> None:
    graphs = gnn.side_by_side([skip_links(13, skip) for skip in (2, 3, 5)])
    network = gnn.RingGNN(3, width=(6, 6), readout="eigenvalues", nodes=13).to(dtype)
    order = torch.cat([torch.randperm(13, generator=torch.Generator().manual_seed(i)) + 13 * i for i in range(3)])
    here = network(graphs)
    assert (here - network(graphs.permuted(order))).abs().max() <= bound
    assert (here - torch.cat([network(graphs.one(i)) for i in range(3)])).abs().max() <= bound


def test_eigenvalues_are_those_of_the_symmetric_part() -> None:
    A = randomly(1, 1, 5, 5)
    torch.testing.assert_close(sorted_eigenvalues(A), sorted_eigenvalues(A.transpose(2, 3)))
    assert (sorted_eigenvalues(A).diff() >= 0).all()
