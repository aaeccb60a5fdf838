"""Tours: the shortest against all orders, heuristics that never lie below it, beams that are tours, and what is refused."""

from __future__ import annotations

import itertools
import re

import pytest
import torch

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.gnn.generators import points
from robustlab.gnn.tours import (
    HEURISTICS,
    Cities,
    beam_search,
    best_two_opt,
    check_tour,
    euclidean,
    length,
    nearest_neighbour,
    optimal_tour,
    random_tours,
    two_opt,
)

KEYS = seeding.example_keys(0, torch.arange(10))


@pytest.mark.parametrize("n", [3, 4, 5, 7])
def test_the_shortest_tour_is_the_shortest_of_all(n):
    for place in points(n, graphs=4):
        distances = euclidean(place).distances
        every = torch.tensor([[0, *rest] for rest in itertools.permutations(range(1, n))])
        found = check_tour(optimal_tour(distances), n)
        assert float(length(distances, found)) == pytest.approx(float(length(distances, every).min()))


def test_two_far_groups_need_a_cut():
    """Each group alone is a short cycle: the first program answers with two of them."""
    place = torch.cat([points(5, seed=1)[0], points(5, seed=2)[0] + 100])
    distances = euclidean(place).distances
    assert float(length(distances, optimal_tour(distances))) > 2 * 98
    check_tour(optimal_tour(distances), 10)


@pytest.mark.parametrize("name", HEURISTICS)
def test_heuristics_are_tours_and_not_shorter_than_the_shortest(name):
    for place, key in zip(points(12, graphs=5), KEYS, strict=False):
        distances = euclidean(place).distances
        found = check_tour(HEURISTICS[name](distances, key), 12)
        assert length(distances, found) >= length(distances, optimal_tour(distances)) - 1e-9


def test_twenty_starts_of_two_opt_find_the_shortest_tours_of_12_cities():
    for place, key in zip(points(12, graphs=10, seed=5), KEYS, strict=True):
        distances = euclidean(place).distances
        assert float(length(distances, best_two_opt(distances, key))) == pytest.approx(float(length(distances, optimal_tour(distances))))


def test_no_exchange_of_two_edges_shortens_what_two_opt_found():
    distances = euclidean(points(9)[0]).distances
    tour = two_opt(distances, random_tours(9, 1, KEYS[:1]))[0]
    for i, j in itertools.combinations(range(9), 2):
        other = torch.cat([tour[: i + 1], tour[i + 1 : j + 1].flip(0), tour[j + 1 :]])
        assert length(distances, other) >= length(distances, tour) - 1e-12


def test_many_tours_are_improved_as_each_alone():
    place = points(10, graphs=6)
    distances = torch.stack([euclidean(one).distances for one in place])
    tours = random_tours(10, 6, KEYS[:1])
    found = two_opt(distances, tours)
    assert all(torch.equal(found[k], two_opt(distances[k], tours[k])) for k in range(6))
    assert (length(distances, found) <= length(distances, tours)).all()


def test_two_opt_ends_where_all_tours_are_as_long():
    assert two_opt(1 - torch.eye(6, dtype=torch.float64), torch.arange(6)).tolist() == list(range(6))
    assert two_opt(torch.zeros(4, 4, dtype=torch.float64), torch.arange(4)).tolist() == list(range(4))


def test_nearest_neighbours_from_every_start():
    distances = euclidean(torch.tensor([[0.0, 0], [1, 0], [3, 0], [6, 0]], dtype=torch.float64)).distances
    assert nearest_neighbour(distances).tolist() == [0, 1, 2, 3]
    assert nearest_neighbour(distances, torch.tensor([2, 3])).tolist() == [[2, 1, 0, 3], [3, 2, 1, 0]]


def test_a_beam_as_wide_as_all_tours_finds_the_likeliest_and_a_narrow_one_only_tours():
    distances = euclidean(points(6)[0]).distances
    wide = beam_search(-distances, distances, width=1000)
    assert float(length(distances, wide)) == pytest.approx(float(length(distances, optimal_tour(distances))))
    scores = seeding.normal(KEYS[:1], (12, 12), torch.float64)[0].log_softmax(1)
    for width in (1, 3):
        check_tour(beam_search(scores, euclidean(points(12)[0]).distances, width), 12)


def test_scores_of_minus_infinity_still_give_a_tour():
    distances = euclidean(points(8)[0]).distances
    check_tour(beam_search(torch.full((8, 8), -torch.inf), distances, 4), 8)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: Cities(torch.zeros(2, 2)), "at least three cities, (n, n), got (2, 2)"),
        (lambda: Cities(torch.zeros(3, 4)), "got (3, 4)"),
        (lambda: Cities(torch.full((3, 3), torch.nan)), "finite"),
        (lambda: Cities(torch.ones(3, 3)), "0 from a city to itself"),
        (lambda: Cities(torch.tensor([[0.0, 1, 2], [1, 0, 1], [1, 1, 0]])), "as long forth as back"),
        (lambda: check_tour(torch.tensor([0, 1]), 3), "a tour of 3 cities visits 3, got 2"),
        (lambda: check_tour(torch.tensor([0, 1, 1]), 3), "number 2 2 times"),
        (lambda: check_tour(torch.tensor([0, 1, 3]), 3), "number 1 to 3, got 4"),
        (lambda: optimal_tour(euclidean(points(40)[0]).distances, seconds=1e-4), "not found within 0.0001 seconds"),
    ],
)
def test_refusals(call, said):
    with pytest.raises(UserError, match=re.escape(said)):
        call()
