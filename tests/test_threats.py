"""Threat models as settings name them."""

from __future__ import annotations

import pytest

from robustlab.constraints import ThreatModel
from robustlab.norms import L1, L2, NORMS, Linf
from robustlab.threats import DEFAULT_EPS, named_threat, norm_name

TRAINED = ThreatModel(Linf(), 4 / 255)


@pytest.mark.parametrize(
    "norm, eps, default, expected",
    [
        (None, None, None, ThreatModel(L2(), 0.5)),
        (None, 0.25, None, ThreatModel(L2(), 0.25)),
        ("linf", None, None, ThreatModel(Linf(), 8 / 255)),
        ("l1", None, TRAINED, ThreatModel(L1(), 12.0)),
        (None, None, TRAINED, TRAINED),
        ("linf", None, TRAINED, TRAINED),
        ("linf", 0.0, TRAINED, ThreatModel(Linf(), 0.0)),
    ],
)
def test_what_is_left_out_is_the_default_s_or_the_norm_s_own(norm, eps, default, expected) -> None:
    assert named_threat(norm, eps, default) == expected


@pytest.mark.parametrize("name", NORMS)
def test_a_threat_s_norm_has_the_name_that_makes_it(name: str) -> None:
    assert norm_name(named_threat(name, None)) == name and named_threat(name, None).eps == DEFAULT_EPS[name]
