"""Random graphs: exact densities, one graph as in many, sizes that do not divide, and what is refused."""

from __future__ import annotations

import math
import re

import pytest
import torch

from robustlab.errors import UserError
from robustlab.gnn import generators
from robustlab.gnn.generators import (
    block_sizes,
    degree_corrected_block_model,
    distinct,
    erdos_renyi,
    noisy_copies,
    planted_clique,
    points,
    random_regular,
    renumbered,
    signal_to_noise,
    stochastic_block_model,
    triangle,
)
from robustlab.gnn.graphs import GraphBatch

MAKERS = {
    "blocks": lambda **more: stochastic_block_model(30, 3, inside=0.4, between=0.1, **more),
    "corrected": lambda **more: degree_corrected_block_model(30, 3, inside=0.4, between=0.1, **more),
    "erdos-renyi": lambda **more: erdos_renyi(30, 0.2, **more),
    "regular": lambda **more: random_regular(30, 4, **more),
    "clique": lambda **more: planted_clique(30, 6, **more),
}
every_maker = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@every_maker
def test_a_graph_is_its_own_whatever_the_others(make):
    many, one = make(graphs=4, seed=5), make(graphs=1, seed=5, first=2)
    assert torch.equal(many.one(2).edge_index, one.edge_index) and torch.equal(many.keys[2:3], one.keys)
    assert not torch.equal(many.one(0).edge_index, many.one(1).edge_index)
    assert not torch.equal(make(seed=5).edge_index, make(seed=6).edge_index)


@every_maker
def test_graphs_are_simple_and_undirected(make):
    found = make(graphs=3)
    codes = found.tail * found.n + found.head
    assert (found.tail != found.head).all() and (codes.diff() > 0).all()
    assert torch.equal(found.edge_index[:, found.reverse], found.edge_index.flip(0))
    assert torch.equal(found.graph[found.tail], found.graph[found.head])


@pytest.mark.parametrize("inside, between", [(0.3, 0.05), (0.0, 0.2), (1.0, 0.0), (0.7, 0.9)])
@pytest.mark.parametrize("n, k", [(40, 2), (41, 3), (7, 7)])
def test_edges_are_as_dense_as_asked_for(n, k, inside, between):
    """Within four standard deviations of the binomial count, and exactly where a probability is 0 or 1."""
    found = stochastic_block_model(n, k, inside=inside, between=between, graphs=50)
    same = found.y[found.tail] == found.y[found.head]
    sizes = block_sizes(n, k)
    pairs_inside = 50 * int((sizes * (sizes - 1)).sum()) // 2
    pairs_between = 50 * n * (n - 1) // 2 - pairs_inside
    for count, pairs, p in ((int(same.sum()) // 2, pairs_inside, inside), (int((~same).sum()) // 2, pairs_between, between)):
        assert abs(count - pairs * p) <= 4 * (pairs * p * (1 - p)) ** 0.5
    assert torch.equal(torch.bincount(found.y, minlength=k), 50 * sizes)


def test_the_first_blocks_take_what_does_not_divide():
    assert block_sizes(402, 5).tolist() == [81, 81, 80, 80, 80] and block_sizes(3, 3).tolist() == [1, 1, 1]


@pytest.mark.parametrize("n, degree", [(10, 3), (50, 10), (8, 7), (5, 0), (6, 5), (500, 3)])
def test_every_node_of_a_regular_graph_has_its_degree(n, degree):
    assert (random_regular(n, degree, graphs=3).degree == degree).all()


def test_a_planted_clique_is_one_and_changes_nothing_else():
    found, base = planted_clique(60, 8, graphs=2), erdos_renyi(60, 0.5, graphs=2)
    A, B = found.adjacency(), base.adjacency()
    for which in range(2):
        members = (found.y == 1) & (found.graph == which)
        assert members.sum() == 8
        inside = members[:, None] & members
        elsewhere = ~inside & (found.graph[:, None] == which)
        assert A[inside].sum() == 8 * 7 and torch.equal(A[elsewhere], B[elsewhere])


def test_numbers_without_repetition():
    source = torch.Generator().manual_seed(0)
    for high, count in ((10, 10), (10, 3), (1000, 600), (10**12, 50), (5, 0)):
        found = distinct(high, count, source)
        assert len(found.unique()) == count and (count == 0 or int(found.max()) < high)


def test_triangle_numbers_name_every_pair_once():
    i, j = triangle(torch.arange(1000 * 999 // 2))
    assert (i < j).all() and (j < 1000).all() and len((i * 1000 + j).unique()) == 1000 * 999 // 2
    far = torch.tensor([(10**6) * (10**6 - 1) // 2 - 1])
    assert [int(part) for part in triangle(far)] == [10**6 - 2, 10**6 - 1]


def test_points_lie_in_the_cube_and_belong_to_their_graph():
    many = points(6, 3, graphs=4)
    assert many.shape == (4, 6, 3) and ((many >= 0) & (many < 1)).all()
    assert torch.equal(many[3:], points(6, 3, first=3))


def test_the_threshold_of_two_communities():
    assert signal_to_noise(5, 1) == pytest.approx(16 / 12) and signal_to_noise(0, 18, 5) == pytest.approx(0.9)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: stochastic_block_model(10, 2, inside=1.2, between=0), "`inside` must be a probability, got 1.2"),
        (lambda: stochastic_block_model(10, 2, inside=0.1, between=float("nan")), "`between` must be a probability, got nan"),
        (lambda: stochastic_block_model(3, 4, inside=0.1, between=0), "a graph of 3 nodes has 1 to 3 communities, got 4"),
        (lambda: random_regular(5, 3), "no graph of 5 nodes has 3 neighbours at each"),
        (lambda: random_regular(5, 5), "no graph of 5 nodes has 5 neighbours at each"),
        (lambda: planted_clique(5, 6), "a clique in a graph of 5 nodes has 0 to 5 nodes, got 6"),
    ],
)
def test_what_cannot_be_drawn_is_refused(make, said):
    with pytest.raises(UserError, match=re.escape(said)):
        make()


def test_weights_of_a_corrected_model_make_the_degrees():
    n, p = 2000, 0.01
    one = degree_corrected_block_model(n, 2, inside=p, between=p, exponent=3.5)
    weights = one.x[:, 0]
    assert float(weights.mean()) == pytest.approx(1) and float(weights.max()) > 4
    expected = (-torch.expm1(-p * weights[:, None] * weights)).fill_diagonal_(0).sum(1)
    assert float(((one.degree - expected) ** 2 / expected).mean()) == pytest.approx(1, abs=0.1)  # as Poisson numbers
    assert len({tuple(edge) for edge in one.edge_index.T.tolist()}) == one.edge_index.shape[1]


def test_blocks_of_a_corrected_model():
    one = degree_corrected_block_model(900, 3, inside=0.02, between=0.002, exponent=math.inf)
    same = one.y[one.tail] == one.y[one.head]
    torch.testing.assert_close(one.x, torch.ones(900, 1).double())
    assert int(same.sum()) == pytest.approx(900 * 299 * -math.expm1(-0.02), rel=0.1)
    assert int((~same).sum()) == pytest.approx(900 * 600 * -math.expm1(-0.002), rel=0.15)
    assert one.y.bincount().tolist() == [300, 300, 300] and one.y[:10].unique().numel() > 1


def test_a_corrected_model_without_a_mean_is_refused():
    with pytest.raises(UserError, match="`exponent` of the weights must be above 2, or they have no mean; got 2"):
        degree_corrected_block_model(10, inside=0.1, between=0.1, exponent=2)


@pytest.mark.parametrize("small", [0, 512])
@pytest.mark.parametrize("keep_density, added", [(True, 0.05 * 0.2 / 0.8), (False, 0.05)])
def test_noisy_copies_lose_and_gain_as_many_edges_as_asked_for(keep_density, added, small, monkeypatch):
    monkeypatch.setattr(generators, "SMALL", small)
    graphs = erdos_renyi(50, 0.2, graphs=100)
    copies = noisy_copies(graphs, 0.05, keep_density=keep_density)
    codes, new = (one.tail * graphs.n + one.head for one in (graphs, copies))
    assert (new.diff() > 0).all() and torch.equal(copies.graph[copies.tail], copies.graph[copies.head])
    edges, pairs = len(codes) / 2, 100 * 50 * 49 / 2
    lost, gained = int((~torch.isin(codes, new)).sum()) / 2, int((~torch.isin(new, codes)).sum()) / 2
    assert abs(lost - 0.05 * edges) < 4 * (0.05 * edges) ** 0.5
    assert abs(gained - added * (pairs - edges)) < 4 * (added * (pairs - edges)) ** 0.5


@pytest.mark.parametrize("small", [0, 512])
@every_maker
def test_noisy_copies_are_a_graphs_own_and_without_noise_the_same(make, small, monkeypatch):
    monkeypatch.setattr(generators, "SMALL", small)
    graphs = make(graphs=3)
    assert torch.equal(noisy_copies(graphs, 0).edge_index, graphs.edge_index)
    copies = noisy_copies(graphs, 0.3, seed=1)
    assert torch.equal(copies.one(2).edge_index, noisy_copies(graphs.one(2), 0.3, seed=1).edge_index)
    assert not torch.equal(copies.edge_index, noisy_copies(graphs, 0.3, seed=2).edge_index)
    assert torch.equal(copies.one(1).edge_index, noisy_copies(graphs, torch.tensor([0.0, 0.3, 0.1]), seed=1).one(1).edge_index)


@pytest.mark.parametrize("p, edges", [(0, 0), (1, 435)])
def test_all_noise_takes_every_edge_and_copies_of_extremes_are_sound(p, edges):
    graphs = erdos_renyi(30, p)
    assert noisy_copies(graphs, 0).edge_index.shape[1] == 2 * edges
    assert noisy_copies(graphs, 1).edge_index.shape[1] == 0
    assert noisy_copies(graphs, 1, keep_density=False).edge_index.shape[1] == 2 * (435 - edges)


def test_renumbered_graphs_go_back_by_their_order():
    graphs = erdos_renyi(12, 0.4, graphs=3)
    found, order = renumbered(graphs, seed=3)
    assert torch.equal(found.permuted(order.argsort()).edge_index, graphs.edge_index)
    assert not torch.equal(order, renumbered(graphs, seed=4)[1]) and torch.equal(order // 12, torch.arange(36) // 12)


def test_copies_of_graphs_without_keys_or_with_odd_noise_are_refused():
    graphs = erdos_renyi(5, 0.5)
    bare = GraphBatch(graphs.edge_index, graphs.sizes)
    for call in (lambda: noisy_copies(bare, 0.1), lambda: renumbered(bare)):
        with pytest.raises(UserError, match="key"):
            call()
    with pytest.raises(UserError, match="`noise` must be a probability, got 1.5"):
        noisy_copies(graphs, 1.5)
