"""Flips of edges: exact, within their budget, and against a network without changing it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from robustlab.errors import UserError
from robustlab.gnn import (
    LGNN,
    MPNN,
    SGNN,
    Adjacency,
    Degree,
    GraphMean,
    HopRing,
    Identity,
    Power,
    Reached,
    side_by_side,
    stochastic_block_model,
)
from robustlab.gnn.flips import budgets, flipped, guided_flips, random_flips
from robustlab.gnn.losses import invariant_cross_entropy
from robustlab.gnn.relaxed import relaxed

GRAPHS = stochastic_block_model(40, 2, inside=0.3, between=0.05, graphs=3)
FAMILY = (Identity(), Degree(), Adjacency(), Power(2), Reached(2), Reached(3, loops=False), GraphMean())


def pairs_of(graphs):
    half = graphs.edge_index[:, graphs.tail < graphs.head]
    return {tuple(pair) for pair in half.T.tolist()}


def changed(before, after):
    """How many pairs of each graph differ."""
    starts = before.starts.tolist()
    apart = pairs_of(before) ^ pairs_of(after)
    return [sum(low <= i < high for i, _ in apart) for low, high in zip(starts, starts[1:], strict=False)]


@pytest.mark.parametrize("network", [SGNN(2, FAMILY, depth=4), MPNN(2, depth=3)], ids=["sgnn", "mpnn"])
def test_a_network_sees_no_difference_between_edges_and_relaxed_edges_of_zero_and_one(network):
    torch.testing.assert_close(network(relaxed(GRAPHS)), network(GRAPHS), rtol=1e-4, atol=1e-4)


def test_relaxed_edges_have_the_derivative_of_the_loss():
    network, edges = SGNN(2, (Identity(), Degree(), Adjacency(), Reached(2)), depth=2).double(), relaxed(GRAPHS, torch.float64)

    def loss(weights):
        graphs = replace(edges, weights=weights, _walks={})
        return invariant_cross_entropy(graphs, network(graphs)).sum()

    torch.manual_seed(0)
    inside = (0.8 * edges.weights + 0.1 * torch.rand_like(edges.weights)).requires_grad_()
    along = torch.randn_like(inside)
    (slope,) = torch.autograd.grad(loss(inside), inside)
    change = (loss(inside + 1e-6 * along) - loss(inside - 1e-6 * along)) / 2e-6
    torch.testing.assert_close((slope * along).sum(), change, rtol=1e-4, atol=1e-7)


def test_flipping_twice_changes_nothing_and_once_exactly_the_pairs():
    one = GRAPHS.one(0)
    pairs = torch.tensor([[0, 7, 39], [1, 3, 2]])
    after = flipped(one, pairs)
    assert pairs_of(one) ^ pairs_of(after) == {(0, 1), (3, 7), (2, 39)}
    assert torch.equal(flipped(after, pairs.flip(0)).edge_index, one.edge_index) and torch.equal(after.y, one.y)
    assert (after.tail * 40 + after.head).diff().min() > 0


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("share", [0, 0.01, 0.2, 1.5])
def test_random_flips_spend_the_budget_of_each_graph_whatever_lies_beside_it(balanced, share):
    after = random_flips(GRAPHS, share, balanced=balanced, seed=4)
    assert changed(GRAPHS, after) == budgets(GRAPHS, share).tolist()
    alone = random_flips(GRAPHS.one(1), share, balanced=balanced, seed=4)
    assert torch.equal(after.one(1).edge_index, alone.edge_index)
    if balanced:
        assert (after.mean_degree - GRAPHS.mean_degree) * GRAPHS.n / 2 <= 3 or share > 1


def test_balanced_flips_draw_every_absent_pair_equally_often():
    one, watched = GRAPHS.one(0), {(0, 39), (5, 31), (38, 39), (0, 2)}
    absent = watched - pairs_of(one)
    comes = sum(len(absent & pairs_of(random_flips(one, 0.2, seed=seed))) for seed in range(300))
    budget = int(budgets(one, 0.2))
    expected = 300 * len(absent) * (budget - budget // 2) / (780 - len(pairs_of(one)))
    assert len(absent) > 1 and abs(comes - expected) < 4 * expected**0.5


def test_guided_flips_are_within_the_budget_raise_the_loss_most_and_change_no_model():
    network = SGNN(2, (Identity(), Degree(), Adjacency(), Reached(2)), depth=3)
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.random.get_rng_state()
    after = guided_flips(network, GRAPHS, 0.1, steps=15)
    assert all(count <= most for count, most in zip(changed(GRAPHS, after), budgets(GRAPHS, 0.1).tolist(), strict=True))
    assert torch.equal(state, torch.random.get_rng_state()) and network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())

    def loss(graphs):
        with torch.no_grad():
            return invariant_cross_entropy(graphs, network(graphs))

    random = [loss(random_flips(GRAPHS, 0.1, seed=seed)) for seed in range(5)]
    assert (loss(after) > torch.stack(random).amax(0)).all() and (loss(after) >= loss(GRAPHS)).all()
    alone = side_by_side([guided_flips(network, GRAPHS.one(b), 0.1, steps=15) for b in range(3)])
    assert torch.equal(alone.edge_index, after.edge_index)
    assert torch.equal(guided_flips(network, GRAPHS, 0).edge_index, GRAPHS.edge_index)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: budgets(GRAPHS, -0.1), "at least 0, got -0.1"),
        (lambda: budgets(GRAPHS, float("nan")), "at least 0, got nan"),
        (lambda: random_flips(GRAPHS, 100), "flips are more than the 780 pairs of nodes of graph 0"),
        (lambda: flipped(GRAPHS, torch.tensor([[0], [1]])), "one graph at a time, got 3"),
        (lambda: flipped(GRAPHS.one(0), torch.tensor([[0], [40]])), "two different nodes from 0 to 39"),
        (lambda: flipped(GRAPHS.one(0), torch.tensor([[3], [3]])), "two different nodes from 0 to 39"),
        (lambda: flipped(GRAPHS.one(0), torch.tensor([[0, 1], [1, 0]])), "comes twice"),
        (lambda: guided_flips(LGNN(2, depth=1), GRAPHS, 0.1), "a network on line graphs cannot be differentiated by edges"),
        (lambda: guided_flips(SGNN(2, (HopRing(2),), depth=1), GRAPHS, 0.1), "HopRing is not known on weighted edges"),
        (lambda: guided_flips(SGNN(2, depth=1), GRAPHS, 0.1, steps=0), "steps >= 1"),
        (lambda: relaxed(side_by_side([GRAPHS, stochastic_block_model(9, 2, inside=1, between=0)])), r"as many nodes each, got \[9, 40\]"),
    ],
)
def test_what_cannot_be_flipped_is_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()
