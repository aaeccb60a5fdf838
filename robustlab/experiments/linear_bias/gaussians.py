"""Two Gaussian classes: what robust training learns, why smoothing works, and what robustness costs."""

from __future__ import annotations

from robustlab.experiments.linear_bias.claim import Claim

CLAIMS: tuple[Claim, ...] = ()
