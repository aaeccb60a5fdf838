"""Distances of metric spaces: the exact one against all correspondences, bounds below it and plans above it, isometric spaces at 0, and
Gromov-Wasserstein against POT."""

from __future__ import annotations

import itertools
import re
import warnings

import pytest
import torch

from robustlab.errors import UserError
from robustlab.gnn import metric_spaces
from robustlab.gnn.generators import points
from robustlab.gnn.metric_spaces import (
    LOWER_BOUNDS,
    circle,
    distances,
    distortion,
    entropic_gromov_wasserstein,
    gromov_hausdorff,
    gromov_wasserstein,
    gw_value,
    sdp_bound,
    sdp_distance,
)


def space(n, seed):
    return distances(points(n, seed=seed)[0])


def by_enumeration(X, Y):
    """Over all sets of pairs."""
    pairs = list(itertools.product(range(len(X)), range(len(Y))))
    best = float("inf")
    for size in range(max(len(X), len(Y)), len(pairs) + 1):
        for chosen in itertools.combinations(pairs, size):
            if {i for i, _ in chosen} == set(range(len(X))) and {j for _, j in chosen} == set(range(len(Y))):
                best = min(best, distortion(X, Y, chosen) / 2)
    return best


@pytest.mark.parametrize("n, m, seed", [(1, 3, 0), (2, 3, 1), (3, 3, 2), (3, 3, 3), (3, 4, 4)])
def test_the_exact_distance_is_the_smallest_over_all_correspondences(n, m, seed):
    X, Y = space(n, seed), space(m, seed + 100)
    found = gromov_hausdorff(X, Y)
    assert found.value == pytest.approx(by_enumeration(X, Y)) and found.value == distortion(X, Y, found.pairs) / 2
    assert gromov_hausdorff(Y, X).value == pytest.approx(found.value)


def test_known_distances():
    point = torch.zeros(1, 1, dtype=torch.float64)
    assert gromov_hausdorff(circle(4), point).value == 0.25  # half the diameter
    X = space(7, 0)
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    assert gromov_hausdorff(X, X[order][:, order]).value == 0
    assert gromov_hausdorff(X, 1.5 * X).value == pytest.approx(float(X.max()) / 4)
    simplex = [1 - torch.eye(n, dtype=torch.float64) for n in (3, 4)]
    assert gromov_hausdorff(*simplex).value == 0.5  # two points of the larger one share a partner


@pytest.mark.parametrize("seed", range(3))
def test_bounds_lie_below_and_plans_above(seed):
    X, Y = space(5, seed), space(5, seed + 50)
    exact = gromov_hausdorff(X, Y).value
    bounds = {name: bound(X, Y) for name, bound in LOWER_BOUNDS.items()}
    assert all(bound <= exact + 1e-12 for bound in bounds.values())
    assert bounds["eccentricities"] <= bounds["distances of each point"] + 1e-12
    assert bounds["sets of distances"] <= bounds["distances of each point"] + 1e-12
    assert distortion(X, Y, gromov_wasserstein(X, Y, starts=3).correspondence) / 2 >= exact - 1e-12


def test_the_triangle_inequality_of_spaces():
    X, Y, Z = space(4, 1), space(5, 2), space(5, 3)
    assert gromov_hausdorff(X, Z).value <= gromov_hausdorff(X, Y).value + gromov_hausdorff(Y, Z).value + 1e-12


def test_semidefinite_bounds():
    X, Y = space(3, 5), space(4, 6)
    assert sdp_bound(X, Y) <= gromov_hausdorff(X, Y).value + 1e-9
    order = torch.tensor([2, 0, 3, 1])
    value, shares = sdp_distance(Y, Y[order][:, order])
    assert value < 1e-3 and torch.equal(shares.argmax(0), order)
    relaxed, _ = sdp_distance(space(4, 7), Y)
    means = []
    for p in itertools.permutations(range(4)):
        moved = Y[list(p)][:, list(p)]
        means.append(float(((space(4, 7) - moved) ** 2).mean()) ** 0.5 / 2)
    assert relaxed <= min(means) + 1e-5


def test_the_mean_of_squares_by_products_is_the_sum():
    X, Y = space(3, 1), space(4, 2)
    plan = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plan /= plan.sum()
    every = (X[:, None, :, None] - Y[None, :, None, :]) ** 2
    assert gw_value(X, Y, plan) == pytest.approx(float((every * plan[:, :, None, None] * plan).sum()))


@pytest.mark.parametrize("n, m", [(8, 8), (7, 9)])
def test_conditional_gradients_agree_with_pot(n, m):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ot = pytest.importorskip("ot")
        X, Y = space(n, 3), space(m, 4)
        p, q = (torch.full((k,), 1 / k, dtype=torch.float64) for k in (n, m))
        plan, log = ot.gromov.gromov_wasserstein(X.numpy(), Y.numpy(), p.numpy(), q.numpy(), "square_loss", log=True)
    found = gromov_wasserstein(X, Y)
    assert torch.allclose(found.plan.sum(1), p) and torch.allclose(found.plan.sum(0), q)
    assert found.value == pytest.approx(float(log["gw_dist"]), rel=1e-5)
    assert gromov_wasserstein(X, Y, starts=4).value <= found.value


def test_the_entropic_plan_agrees_with_pot():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ot = pytest.importorskip("ot")
        X, Y = space(6, 3), space(7, 4)
        p, q = torch.full((6,), 1 / 6, dtype=torch.float64), torch.full((7,), 1 / 7, dtype=torch.float64)
        how = {"epsilon": 0.05, "max_iter": 500, "tol": 1e-10}
        plan = ot.gromov.entropic_gromov_wasserstein(X.numpy(), Y.numpy(), p.numpy(), q.numpy(), "square_loss", **how)
    assert torch.allclose(entropic_gromov_wasserstein(X, Y, 0.05, steps=500).plan, torch.from_numpy(plan), atol=1e-5)


def test_isometric_spaces_are_matched_and_masses_count():
    X = space(9, 8)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    found = gromov_wasserstein(X, X[order][:, order], starts=10)
    assert found.value == pytest.approx(0, abs=1e-12) and distortion(X, X[order][:, order], found.correspondence) < 1e-9
    masses = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    assert torch.allclose(gromov_wasserstein(space(3, 1), space(3, 2), masses).plan.sum(1), masses)


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: gromov_hausdorff(torch.zeros(0, 0), circle(3)), "the first space must have distances (n, n) of at least one point"),
        (lambda: gromov_hausdorff(circle(3), -circle(3)), "the second space must have distances that are finite, at least 0"),
        (
            lambda: gromov_wasserstein(torch.tensor([[0.0, 1, 5], [1, 0, 1], [5, 1, 0]]), circle(3)),
            "a detour is shorter than the distance 5",
        ),
        (lambda: gromov_wasserstein(circle(3), circle(3), torch.tensor([1.0, 0, 0])), "3 numbers above 0 with the sum 1"),
        (lambda: entropic_gromov_wasserstein(circle(3), circle(3), 0), "`epsilon` must be above 0, got 0"),
        (lambda: sdp_distance(circle(3), circle(4)), "spaces of one size, got 3 and 4 points"),
        (lambda: distortion(circle(3), circle(3), [(0, 0)]), "every point of both spaces"),
    ],
)
def test_refusals(call, said):
    with pytest.raises(UserError, match=re.escape(said)):
        call()


def test_a_search_that_is_too_long_says_so(monkeypatch):
    monkeypatch.setattr(metric_spaces, "MOST_STEPS", 3)
    with pytest.raises(UserError, match="too large for the exact distance"):
        gromov_hausdorff(space(6, 1), space(6, 2))
