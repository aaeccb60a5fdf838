"""Attacks by the names that papers give them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

from robustlab.attacks.apgd import APGD
from robustlab.attacks.pgd import FGSM, MIFGSM, PGD
from robustlab.attacks.square import Square
from robustlab.constraints import ThreatModel
from robustlab.errors import unknown
from robustlab.goals import dlr

# N-FGSM is none of them: it leaves the eps ball, so it must not measure robustness.
ATTACKS: dict[str, Callable[[ThreatModel], PGD | APGD | Square]] = {
    "apgd-ce": APGD,
    "apgd-dlr": partial(APGD, surrogate=dlr),
    "apgd-t": partial(APGD, targets=9),
    "fgsm": FGSM,
    "mi-fgsm": MIFGSM,
    "pgd": PGD,
    "pgd-20": partial(PGD, steps=20),
    "pgd-50x10": partial(PGD, steps=50, restarts=10),
    "square": Square,
}


def named_attack(name: str, threat: ThreatModel, **options: Any) -> PGD | APGD | Square:
    """An attack from its name, in any case.

    Args:
        name: one of ``ATTACKS``, or ``pgd-STEPS`` or ``pgd-STEPSxRESTARTS`` with any numbers: ``"pgd-100"``, ``"pgd-20x5"``.
        threat: what the adversary may do.
        options: settings of the attack that differ from those behind its name: ``keep_best=False``.

    Raises:
        UserError: a name or an option that is not known; says the nearest one.
    """
    known = name.strip().lower()
    numbers = re.fullmatch(r"pgd-(\d+)(?:x(\d+))?", known)
    if known in ATTACKS:
        attack = ATTACKS[known](threat)
    elif numbers:
        attack = PGD(threat, steps=int(numbers[1]), restarts=int(numbers[2] or 1))
    else:
        raise unknown("attack", name, ATTACKS)
    settings = [field.name for field in fields(attack) if field.name != "threat"]
    for option in options:
        if option not in settings:
            raise unknown(f"option of {known}", option, settings)
    return replace(attack, **options)
