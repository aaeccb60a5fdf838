"""Newer than the talk: Adam, Signum, spectral descent and Muon, steepest descent in homogeneous networks."""

from __future__ import annotations

from robustlab.experiments.linear_bias.claim import Claim

CLAIMS: tuple[Claim, ...] = ()
