"""The optimizer is the defence: how much of the best robust radius each one reaches, by closed form and under attack."""

from __future__ import annotations

from robustlab.experiments.linear_bias.claim import Claim

CLAIMS: tuple[Claim, ...] = ()
