"""Attacks by name, for the command line and for those who do not want to import them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from robustlab.attacks.pgd import FGSM, PGD
from robustlab.attacks.protocols import Attack
from robustlab.constraints import ThreatModel
from robustlab.errors import unknown

ATTACKS: dict[str, Callable[[ThreatModel], Attack]] = {
    "fgsm": FGSM,
    "pgd": PGD,
    "pgd-20": partial(PGD, steps=20),
    "pgd-50": partial(PGD, steps=50),
}


def named_attack(name: str, threat: ThreatModel) -> Attack:
    """The attack of that name within a threat model.

    Raises:
        UserError: no attack of that name; names the nearest.
    """
    if name not in ATTACKS:
        raise unknown("attack", name, ATTACKS)
    return ATTACKS[name](threat)
