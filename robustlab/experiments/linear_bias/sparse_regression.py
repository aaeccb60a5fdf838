"""Squared loss in other parameters: products find sparse solutions, matrix factors find low ranks; how small a start must be."""

from __future__ import annotations

from robustlab.experiments.linear_bias.claim import Claim

CLAIMS: tuple[Claim, ...] = ()
