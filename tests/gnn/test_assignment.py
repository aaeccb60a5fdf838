"""Quadratic assignment: its value, exchanges against their definition, methods on graphs that they must solve, and no gain from an order in
which the solution is written down."""

from __future__ import annotations

import itertools
import re

import pytest
import torch

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.gnn.assignment import (
    RANDOM,
    QuadraticAssignment,
    accuracy,
    decoded,
    exchange,
    inverse,
    matching,
    solve,
    touring,
    two_opt,
)
from robustlab.gnn.generators import erdos_renyi, noisy_copies, points, random_regular, renumbered
from robustlab.gnn.graphs import side_by_side
from robustlab.gnn.tours import euclidean, length


def drawn(n, seed=0, maximize=False):
    keys = seeding.example_keys(seed, torch.arange(2))
    return QuadraticAssignment(*seeding.normal(keys, (n, n), torch.float64), maximize)


def permutation(n, seed=0):
    return seeding.permutation(seed, n, "test")


@pytest.mark.parametrize("n", [1, 2, 7])
def test_the_value_is_a_trace(n):
    problem, p = drawn(n), permutation(n)
    X = torch.zeros(n, n, dtype=torch.float64)
    X[torch.arange(n), p] = 1
    assert problem.value(p) == pytest.approx(float(torch.trace(problem.A.T @ X @ problem.B @ X.T)))
    exchanged = QuadraticAssignment(problem.B, problem.A)
    assert exchanged.value(inverse(p)) == pytest.approx(problem.value(p))
    assert problem.renamed(p).value(torch.arange(n)) == pytest.approx(problem.value(p))
    assert problem.to_maximize().value(p) == pytest.approx(-problem.value(p))


@pytest.mark.parametrize("n", [2, 3, 8])
def test_exchanges_change_the_value_by_what_they_say(n):
    problem = drawn(n, seed=n)
    changes, before = exchange(problem.A, problem.B), problem.value(torch.arange(n))
    for r, s in itertools.product(range(n), repeat=2):
        p = torch.arange(n)
        p[[r, s]] = p[[s, r]]
        assert float(changes[r, s]) == pytest.approx(problem.value(p) - before, abs=1e-10)


@pytest.mark.parametrize("maximize", [False, True])
def test_no_exchange_improves_what_two_opt_found(maximize):
    problem = drawn(9, 1, maximize)
    found = two_opt(problem, permutation(9))
    changes = exchange(problem.A, problem.B[found][:, found])
    assert (changes <= 1e-9).all() if maximize else (changes >= -1e-9).all()
    assert torch.equal(problem.better(found, permutation(9)), found)


@pytest.mark.parametrize("method", RANDOM)
@pytest.mark.parametrize("maximize", [False, True])
def test_methods_are_better_than_nearly_all_permutations(method, maximize):
    ranks = []
    for seed in range(5):
        problem = drawn(5, seed, maximize)
        values = torch.tensor([problem.value(torch.tensor(p)) for p in itertools.permutations(range(5))])
        value = problem.value(solve(problem, method, seed=seed))
        ranks.append(float(((values < value) if maximize else (values > value)).double().mean()))
    assert sum(ranks) / 5 > 0.9


@pytest.mark.parametrize("method", ["spectral", "grampa"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_spectral_methods_find_a_renumbered_matrix(method, sign):
    """The smallest ``tr(A X (-A') X^T)`` as the largest ``tr(A X A' X^T)``."""
    A, order = drawn(15).A + drawn(15).A.T, permutation(15)
    back = inverse(order)
    assert torch.equal(solve(QuadraticAssignment(A, sign * A[back][:, back], sign > 0), method), order)


@pytest.mark.parametrize("method", ["spectral", "grampa", "faq"])
def test_a_renumbered_graph_is_found_again(method):
    first = erdos_renyi(40, 0.3)
    second, order = renumbered(first)
    assert accuracy(solve(matching(first, second), method, starts=5), order) == 1


def test_more_noise_is_harder_and_grampa_stands_more_of_it_than_umeyama():
    graphs = erdos_renyi(50, 0.3, graphs=10)
    found = {}
    for noise in (0.0, 0.02, 0.2):
        copies, order = renumbered(noisy_copies(graphs, noise))
        for method in ("spectral", "grampa"):
            shares = []
            for k in range(10):
                true = order.reshape(10, 50)[k] - 50 * k
                shares.append(accuracy(solve(matching(graphs.one(k), copies.one(k)), method), true))
            found[method, noise] = sum(shares) / 10
    assert found["grampa", 0.0] == 1 and found["grampa", 0.02] > found["grampa", 0.2] and found["grampa", 0.02] > found["spectral", 0.02]


def test_no_method_gains_from_the_order_in_which_the_solution_is_written():
    """On regular graphs FAQ's gradient at the barycentre is constant up to rounding: its linear assignment may answer the identity, which
    is the truth where nodes were not renumbered."""
    graphs = random_regular(50, 10, graphs=5)
    copies = noisy_copies(graphs, 0.05)
    problems = [matching(graphs.one(k), copies.one(k)) for k in range(5)]
    true = torch.arange(50)
    assert sum(accuracy(solve(problem), true) for problem in problems) / 5 < 0.2


def test_more_starts_are_never_worse_and_seeds_say_which():
    problem = drawn(12, 3)
    for method in ("faq", "2-opt"):
        values = [problem.value(solve(problem, method, starts=starts)) for starts in (1, 3, 6)]
        assert values == sorted(values, reverse=True)
        assert torch.equal(solve(problem, method, seed=4), solve(problem, method, seed=4))


def test_a_tour_is_an_assignment():
    distances = euclidean(points(7)[0]).distances
    p = permutation(7)
    assert touring(distances).value(p) == pytest.approx(float(length(distances, p)))


def test_decoding_takes_the_largest_sum():
    scores = torch.tensor([[0.9, 0.8], [0.8, 0.0]])
    assert decoded(scores).tolist() == [1, 0]  # although both rows like column 0 best


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: QuadraticAssignment(torch.zeros(2, 2), torch.zeros(3, 3)), "must both have the shape (n, n), got (2, 2) and (3, 3)"),
        (lambda: QuadraticAssignment(torch.zeros(0, 0), torch.zeros(0, 0)), "shape (n, n)"),
        (lambda: QuadraticAssignment(torch.tensor([[torch.nan]]), torch.zeros(1, 1)), "A must be finite, but [0, 0] is not"),
        (lambda: drawn(3).value(torch.tensor([0, 1])), "a permutation of 3 must be int64 of shape (3,), got int64 (2,)"),
        (lambda: drawn(3).value(torch.tensor([0.0, 1, 2])), "got float32 (3,)"),
        (lambda: drawn(3).value(torch.tensor([0, 1, 1])), "each of the numbers 0 to 2 once"),
        (lambda: solve(drawn(3), "fax"), "unknown method 'fax'. Did you mean 'faq'?"),
        (lambda: solve(drawn(3), starts=0), "`starts` must be at least 1, got 0"),
        (lambda: matching(erdos_renyi(3, 1), erdos_renyi(4, 1)), "one size, got 3 and 4 nodes"),
        (lambda: matching(side_by_side([erdos_renyi(3, 1)] * 2), erdos_renyi(3, 1)), "got a batch of 2"),
    ],
)
def test_refusals(call, said):
    with pytest.raises(UserError, match=re.escape(said)):
        call()
