"""Two classes that can be separated: margins, in which norm, how fast, and how little start and step matter in the end."""

from __future__ import annotations

from robustlab.experiments.linear_bias.claim import Claim

CLAIMS: tuple[Claim, ...] = ()
