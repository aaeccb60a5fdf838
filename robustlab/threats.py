"""Threat models by name, as settings say them: a norm, a radius, or neither."""

from __future__ import annotations

from robustlab.constraints import ThreatModel
from robustlab.norms import L2, NORMS

DEFAULT_EPS = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0, "l0": 10.0}  # in pixel units, in L0 in pixels


def named_threat(norm: str | None, eps: float | None, default: ThreatModel | None = None) -> ThreatModel:
    """The threat model that settings name.

    Args:
        norm: ``linf``, ``l2``, ``l1`` or ``l0``; the default's where left out.
        eps: radius in pixel units; where left out, the default's, or that of ``DEFAULT_EPS`` for another norm.
        default: L2 at 0.5 where left out.
    """
    default = default or ThreatModel(L2(), DEFAULT_EPS["l2"])
    if norm is None or NORMS[norm] == default.norm:
        return ThreatModel(default.norm, default.eps if eps is None else eps)
    return ThreatModel(NORMS[norm], DEFAULT_EPS[norm] if eps is None else eps)


def norm_name(threat: ThreatModel) -> str:
    """What settings call a threat's norm."""
    return next(name for name, norm in NORMS.items() if norm == threat.norm)
