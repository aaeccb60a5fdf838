"""Exact statistics of counts: Clopper and Pearson's bound, the binomial test, and the radius that a probability proves."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import torch
from torch import Tensor

KEPT = 4096  # bounds that are remembered: many images have the same counts


@lru_cache(KEPT)
def lower_bound(count: int, n: int, alpha: float) -> float:
    """A probability's lower bound (Clopper and Pearson 1934): it is above the true one for a share ``alpha`` of samples at most.

    The bound is the alpha-quantile of the beta distribution of ``count`` and ``n - count + 1``, found by bisection on the exact
    binomial sum down to neighbouring floats; of these it is the lower one.

    Args:
        count: how often something happened, 0 to ``n``.
        n: in so many independent draws.
        alpha: in (0, 1).
    """
    if count == 0:
        return 0.0
    terms, low, high = _Tail(count, n), 0.0, 1.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if terms.probability(middle) <= alpha else (low, middle)
    return low


def two_sided_test(count: int, other: int) -> float:
    """The p-value of the exact binomial test that two things, which happened ``count`` and ``other`` times, are equally likely."""
    n, more = count + other, max(count, other)
    return 1.0 if count == other else min(1.0, 2 * _Tail(more, n).probability(0.5))


def certified_radius(p: float, sigma: float) -> float:
    """The L2 radius that a lower bound ``p`` of the top class's probability proves, in pixel units; 0 where it is not above 1/2.

    ``sigma`` times the normal quantile of ``p`` (Cohen et al. 2019, theorem 1, with 1 - p as the bound of all other classes together).
    """
    return sigma * NormalDist().inv_cdf(p) if p > 0.5 else 0.0


class _Tail:
    """The probability that a binomial variable of ``n`` draws is at least ``count``, for any probability of one draw."""

    def __init__(self, count: int, n: int) -> None:
        self.hits = torch.arange(count, n + 1, dtype=torch.float64, device="cpu")
        self.misses = n - self.hits
        self.ways: Tensor = math.lgamma(n + 1) - torch.lgamma(self.hits + 1) - torch.lgamma(self.misses + 1)

    def probability(self, p: float) -> float:
        """For ``p`` in (0, 1)."""
        return float((self.ways + self.hits * math.log(p) + self.misses * math.log1p(-p)).logsumexp(0).exp())
