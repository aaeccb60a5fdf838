"""Belief propagation: exact on trees by enumeration, its free energy, thresholds, draws that belong to graphs, learned models."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from robustlab.errors import UserError
from robustlab.gnn.generators import stochastic_block_model
from robustlab.gnn.graphs import graph, side_by_side
from robustlab.gnn.overlap import chance, overlap
from robustlab.gnn.propagation import Blocks, belief_propagation, learned_blocks


def tree(n: int, seed: int):
    """A random tree: every node but the first hangs on one before it."""
    source = torch.Generator().manual_seed(seed)
    parents = [int(torch.randint(i, (), generator=source)) for i in range(1, n)]
    return graph([parents, list(range(1, n))], n)


def enumerated(one, blocks: Blocks, field: torch.Tensor):
    """Marginals and the logarithm of the sum of ``prod n_t exp(field_t) prod affinity`` over all labellings."""
    k, n = len(blocks.shares), one.n
    labels = torch.tensor(list(product(range(k), repeat=n)))
    once = one.edge_index[:, one.tail < one.head]
    weights = (blocks.shares.log() + field)[labels].sum(1)
    weights = weights + blocks.affinity[labels[:, once[0]], labels[:, once[1]]].log().sum(1)
    found = torch.stack([torch.stack([weights[labels[:, i] == t].logsumexp(0) for t in range(k)]) for i in range(n)])
    return found.softmax(1), weights.logsumexp(0)


@pytest.mark.parametrize("k, n, seed", [(2, 9, 0), (2, 8, 1), (3, 6, 2), (3, 7, 3)])
def test_on_a_tree_marginals_and_free_energy_are_exact(k, n, seed):
    source = torch.Generator().manual_seed(seed)
    affinity = torch.rand(k, k, generator=source, dtype=torch.float64) * 4
    shares = torch.rand(k, generator=source, dtype=torch.float64) + 0.2
    blocks, one = Blocks(shares / shares.sum(), affinity + affinity.T), tree(n, seed)
    found = belief_propagation(one, blocks, sweeps=2000, tolerance=1e-12, restarts=1)
    assert found.converged.all()
    mean = found.marginals.mean(0)
    marginals, log_sum = enumerated(one, blocks, -(blocks.affinity @ mean))  # the mean field at the fixed point
    torch.testing.assert_close(found.marginals, marginals, rtol=0, atol=1e-9)
    expected = -log_sum / n - mean @ blocks.affinity @ mean / 2
    torch.testing.assert_close(found.energy[0], expected, rtol=0, atol=1e-9)


def test_the_share_of_edges_inside_is_that_of_the_tree():
    blocks = Blocks(torch.tensor([0.3, 0.7]).double(), torch.tensor([[5.0, 1.0], [1.0, 3.0]]).double())
    pair = graph([[0], [1]], 2)
    found = belief_propagation(pair, blocks, sweeps=2000, tolerance=1e-12)
    weights = blocks.shares * (-(blocks.affinity @ found.marginals.mean(0))).exp()
    joint = weights[:, None] * weights * blocks.affinity
    torch.testing.assert_close(found.inside[0], joint.diagonal().sum() / joint.sum(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("a, b", [(5.75, 0.25), (0.25, 5.75), (0.0, 6.0)])
def test_communities_above_the_threshold(a, b):
    graphs = stochastic_block_model(1000, 2, inside=a / 1000, between=b / 1000, graphs=2)
    found = belief_propagation(graphs, Blocks.planted(2, a, b), restarts=2)
    assert found.converged.all() and (overlap(graphs, found.labels, 2) > 0.84).all()
    torch.testing.assert_close(found.marginals.sum(1), torch.ones(2000).double())


def test_nothing_is_found_below_the_threshold():
    graphs = stochastic_block_model(1000, 2, inside=0.004, between=0.002, graphs=3)
    found = belief_propagation(graphs, Blocks.planted(2, 4, 2), restarts=2)
    assert float(overlap(graphs, found.labels, 2).mean()) < chance(graphs, 2) + 0.1
    assert float((found.marginals - 0.5).abs().max()) < 0.1  # and it says so


def test_five_communities_that_avoid_each_other_are_found():
    one = stochastic_block_model(400, 5, inside=0, between=30 / 400)
    found = belief_propagation(one, Blocks.planted(5, 0, 30), restarts=2)
    assert float(overlap(one, found.labels, 5)) > 0.9


def test_the_best_start_has_the_lowest_free_energy():
    one = stochastic_block_model(400, 5, inside=0, between=18 / 400, seed=3)
    blocks = Blocks.planted(5, 0, 18)
    energies = [float(belief_propagation(one, blocks, restarts=restarts, sweeps=60).energy) for restarts in (1, 2, 4)]
    # More starts are computed side by side, which moves the last digit of each.
    assert energies[0] >= energies[1] - 1e-12 and energies[1] >= energies[2] - 1e-12


def test_a_graph_has_the_same_beliefs_alone_and_beside_others():
    graphs = stochastic_block_model(200, 2, inside=0.06, between=0.01, graphs=3)
    blocks = Blocks.planted(2, 12, 2)
    together = belief_propagation(graphs, blocks)
    for which in range(3):
        alone = belief_propagation(graphs.one(which), blocks)
        torch.testing.assert_close(alone.marginals, together.marginals[200 * which : 200 * (which + 1)], rtol=0, atol=1e-9)
        assert alone.converged[0] == together.converged[which]
    again = belief_propagation(graphs, blocks)
    assert torch.equal(again.marginals, together.marginals)


def test_graphs_of_unequal_size_and_nodes_without_edges():
    graphs = side_by_side([graph([[0, 1], [1, 2]], 5), graph(torch.empty(2, 0, dtype=torch.int64), 3), tree(6, 0)])
    found = belief_propagation(graphs, Blocks.planted(2, 3, 1), sweeps=500, tolerance=1e-12)
    assert found.marginals.shape == (14, 2) and found.marginals.isfinite().all() and found.energy.isfinite().all()
    torch.testing.assert_close(found.marginals[3], found.marginals[4])  # two nodes of one graph of which nothing is known


@pytest.mark.parametrize("a, b", [(9, 1), (1, 9)])
def test_the_model_is_learned(a, b):
    one = stochastic_block_model(1500, 2, inside=a / 1500, between=b / 1500)
    found = learned_blocks(one, 2, assortative=a > b)
    learned = found.blocks.affinity[0]
    assert abs(float(learned[0]) - a) < 0.5 and abs(float(learned[1]) - b) < 0.5
    assert float(overlap(one, found.labels, 2)) > 0.9


def test_a_model_is_learned_where_messages_that_know_nothing_are_stable():
    one = stochastic_block_model(400, 5, inside=0, between=18 / 400)
    learned = learned_blocks(one, 5, assortative=False).blocks.affinity[0]
    assert float(learned[0]) < 0.1 and abs(float(learned[1]) - 18) < 1


def test_models_and_settings_that_do_not_fit_are_refused():
    one, half = tree(4, 0), torch.tensor([0.5, 0.5]).double()
    with pytest.raises(UserError, match=r"2 communities need a symmetric `affinity` of shape \(2, 2\), got \(3, 3\)"):
        Blocks(half, torch.ones(3, 3).double())
    with pytest.raises(UserError, match="symmetric"):
        Blocks(half, torch.tensor([[1.0, 2.0], [3.0, 1.0]]).double())
    with pytest.raises(UserError, match="every `affinity` must be finite and at least 0"):
        Blocks.planted(2, 3, -1)
    with pytest.raises(UserError, match="`shares` of communities must be above 0 and sum to 1"):
        Blocks(torch.tensor([0.5, 0.6]).double(), torch.ones(2, 2).double())
    with pytest.raises(UserError, match="at least one of `restarts` and `sweeps`, got 0 and 200"):
        belief_propagation(one, Blocks.planted(2, 2, 1), restarts=0)
