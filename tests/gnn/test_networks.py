"""Graph networks: equivariant, written down and made again, and what they refuse."""

from __future__ import annotations

import json

import pytest
import torch

from robustlab import gnn
from robustlab.errors import UserError
from robustlab.gnn.networks import GraphNetwork, describe, from_description

SMALL = {"width": 4, "depth": 3}


def networks(**more: int) -> list[GraphNetwork]:
    found: list[GraphNetwork] = [gnn.SGNN(3, **SMALL, **more), gnn.LGNN(3, **SMALL, **more), gnn.MPNN(3, **SMALL, **more)]
    return [*found, gnn.SGNN(2, (gnn.Reached(2), gnn.HopRing(3)), linear=True, **SMALL, **more), gnn.LGNN(3, reach=1, **SMALL, **more)]


def test_networks_are_equivariant_and_take_a_batch_graph_by_graph() -> None:
    graphs = gnn.stochastic_block_model(40, 2, inside=0.2, between=0.05, graphs=2)
    order = torch.cat([torch.randperm(40, generator=torch.Generator().manual_seed(i)) + 40 * i for i in range(2)])
    for network in networks():
        network.double()
        here = network(graphs)
        assert here.shape == (80, network.settings["out"]) and here.dtype == torch.float64
        torch.testing.assert_close(network(graphs.permuted(order))[order], here)
        torch.testing.assert_close(torch.cat([network(graphs.one(0)), network(graphs.one(1))]), here)


def test_a_network_is_written_down_and_made_again() -> None:
    graphs = gnn.erdos_renyi(20, 0.2)
    for network in networks():
        again = from_description(json.loads(json.dumps(describe(network))))
        assert type(again) is type(network) and again.settings == network.settings
        again.load_state_dict(network.state_dict())
        assert torch.equal(again(graphs), network(graphs))


def test_first_weights_are_a_function_of_the_seed() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, second, other = gnn.SGNN(2), gnn.SGNN(2), gnn.SGNN(2, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first.last.weight, second.last.weight) and not torch.equal(first.last.weight, other.last.weight)


def test_features_of_nodes_go_in() -> None:
    one = gnn.erdos_renyi(20, 0.2)
    x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    graphs = gnn.GraphBatch(one.edge_index, one.sizes, x=x)
    for network in networks(features=2):
        assert not torch.equal(network(graphs), network(gnn.GraphBatch(one.edge_index, one.sizes, x=x.flip(0))))
        with pytest.raises(UserError, match="wants 2 features of each node, the graphs have none"):
            network(one)


def test_powers_are_dyadic() -> None:
    assert gnn.dyadic(3) == (gnn.Identity(), gnn.Degree(), gnn.Adjacency(), gnn.Reached(2), gnn.Reached(4))
    assert gnn.dyadic(2, clipped=False)[-1] == gnn.Power(2)
    with pytest.raises(UserError, match="at least one power"):
        gnn.dyadic(0)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"network": "sgmn"}, "'sgmn'.*sgnn"),
        ({"width": 0}, "`width` of a graph network must be 1 to 10,000, got 0"),
        ({"width": "8"}, "does not say what graph network it holds"),
        ({"operators": [{"operator": "Adjacencies"}]}, "Adjacencies"),
        ({"operators": [{"operator": "Reached", "t": 0}]}, "length of at least 1"),
        ({"operators": [{"t": 0}]}, "does not say what graph network it holds"),
        ({"operators": []}, "at least one operator"),
        ({"depth": 10**9}, "`depth` of a graph network must be 1 to 1,000"),
    ],
)
def test_what_describes_no_network_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_description({**describe(gnn.SGNN(2, **SMALL)), **changes})


def test_a_description_without_a_setting_is_refused() -> None:
    with pytest.raises(UserError, match="x.json does not say what graph network it holds: out, depth missing"):
        from_description({k: v for k, v in describe(gnn.SGNN(2)).items() if k not in ("out", "depth")}, "x.json")
