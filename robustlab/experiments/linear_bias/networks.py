"""Linear networks, convolutional ones and homogeneous ones: one class of functions, other limits."""

from __future__ import annotations

from robustlab.experiments.linear_bias.claim import Claim

CLAIMS: tuple[Claim, ...] = ()
