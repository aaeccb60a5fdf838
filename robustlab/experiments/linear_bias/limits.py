"""Where the talk's words do not hold as said: each with the honest result."""

from __future__ import annotations

from robustlab.experiments.linear_bias.claim import Claim

CLAIMS: tuple[Claim, ...] = ()
