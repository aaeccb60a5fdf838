"""Networks with one answer for a graph: invariant, a batch graph by graph, and as sharp as colours of nodes are."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from robustlab import gnn
from robustlab.errors import UserError
from robustlab.gnn.networks import GraphNetwork, describe, from_description

KINDS = (gnn.GIN, gnn.PooledSGNN)
every_kind = pytest.mark.parametrize("kind", KINDS)
SMALL = {"width": 8, "depth": 3}


def unequal() -> gnn.GraphBatch:
    """Graphs of several sizes, one node and no edge among them, with features."""
    graphs = gnn.side_by_side([*(gnn.erdos_renyi(n, 0.4, seed=n) for n in (5, 9, 1)), gnn.random_regular(8, 3)])
    x = torch.randn(graphs.n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return replace(graphs, x=x, keys=None)


def cycles(*lengths: int) -> gnn.GraphBatch:
    """One graph of cycles."""
    pairs, start = [], 0
    for length in lengths:
        pairs += [(start + i, start + (i + 1) % length) for i in range(length)]
        start += length
    return gnn.graph(torch.tensor(pairs).T)


def path(n: int) -> gnn.GraphBatch:
    return gnn.graph(torch.tensor([[i, i + 1] for i in range(n - 1)]).T)


def star(n: int) -> gnn.GraphBatch:
    return gnn.graph(torch.tensor([[0, i] for i in range(1, n)]).T)


@every_kind
@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("pool", ["sum", "mean"])
def test_renumbering_changes_nothing_and_a_batch_is_its_graphs(kind: Callable[..., GraphNetwork], norm: str, pool: str) -> None:
    graphs = unequal()
    starts = {0: 5, 5: 9, 14: 1, 15: 8}
    order = torch.cat([torch.randperm(n, generator=torch.Generator().manual_seed(n)) + start for start, n in starts.items()])
    for features, how in ((2, graphs), (0, replace(graphs, x=None))):
        network = kind(3, features=features, norm=norm, pool=pool, **SMALL).double()
        network(how)  # BatchNorm sees something
        network.eval()
        here = network(how)
        assert network.of_graphs and here.shape == (4, 3) and here.dtype == torch.float64
        torch.testing.assert_close(network(how.permuted(order)), here, rtol=0, atol=1e-10)
        torch.testing.assert_close(torch.cat([network(how.one(i)) for i in range(4)]), here, rtol=0, atol=1e-10)


@every_kind
def test_it_is_written_down_saved_and_made_again(kind: Callable[..., GraphNetwork], tmp_path: Path) -> None:
    graphs = replace(unequal(), x=None)
    for norm in ("batch", "none", "graph"):
        network = kind(2, norm=norm, pool="mean", seed=3, **SMALL)
        network(graphs)
        network.eval()
        again = from_description(json.loads(json.dumps(describe(network))))
        assert type(again) is kind and again.settings == network.settings
        kept = gnn.load_network(gnn.save_network(tmp_path / norm, network))
        assert torch.equal(kept(graphs), network(graphs))


PAIRS = {
    "a path and a star": (path(5), star(5), True),
    "cycles of other lengths": (cycles(6), cycles(7), True),
    "trees with equal degrees": (
        gnn.graph(torch.tensor([[0, 1], [1, 2], [2, 3], [3, 4], [1, 5]]).T),
        gnn.graph(torch.tensor([[0, 1], [1, 2], [2, 3], [3, 4], [2, 5]]).T),
        True,
    ),
    "C6 and two triangles": (cycles(6), cycles(3, 3), False),
    "regular graphs": (gnn.random_regular(10, 3, seed=0), gnn.random_regular(10, 3, seed=1), False),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_gin_with_random_weights_sees_what_colours_see(pair: str) -> None:
    first, second, differs = PAIRS[pair]
    network = gnn.GIN(8, norm="none", width=16, depth=4).double()
    apart = float((network(first) - network(second)).abs().max().detach())
    assert apart > 1e-4 if differs else apart < 1e-10


def test_sgnn_sees_more_than_colours() -> None:
    """Walks of four steps reach 4 nodes of a cycle of 8, 5 of one of 5, and 3 of one of 3."""
    assert (gnn.PooledSGNN(2, norm="none", depth=1)(cycles(8)) - gnn.PooledSGNN(2, norm="none", depth=1)(cycles(3, 5))).abs().max() > 1e-4


def test_a_norm_within_each_graph_takes_regular_graphs_apart_no_more() -> None:
    """Why graphs have another norm: of two regular graphs of one size only the input's own sum is left."""
    first, second = gnn.random_regular(10, 3), gnn.random_regular(10, 5)
    for norm, differs in (("graph", False), ("none", True)):
        network = gnn.GIN(8, norm=norm, **SMALL).double()
        with torch.no_grad():
            network.readouts[0].weight.zero_()
            assert bool(((network(first) - network(second)).abs() > 1e-4).any()) is differs


def test_batches_with_batch_norm_depend_on_each_other_in_training_only() -> None:
    graphs = unequal()
    network = gnn.GIN(2, features=2, **SMALL).double()
    assert not torch.allclose(network(graphs)[0], network(graphs.one(0))[0])
    with pytest.raises(UserError, match="at least 2 nodes in each batch of a training, got 1"):
        network(graphs.one(2))


@pytest.mark.parametrize("changes, message", [({"norm": "layer"}, "batch"), ({"pool": "max"}, "pool.*sum"), ({"width": 0}, "`width`")])
@every_kind
def test_what_is_no_network_is_refused(kind: Callable[..., GraphNetwork], changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        kind(2, **changes)
