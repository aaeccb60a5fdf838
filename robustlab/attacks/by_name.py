"""Attacks by the names that papers give them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

from robustlab.attacks.apgd import APGD
from robustlab.attacks.cw import CW
from robustlab.attacks.ddn import DDN
from robustlab.attacks.deepfool import DeepFool
from robustlab.attacks.fab import FAB
from robustlab.attacks.fmn import FMN
from robustlab.attacks.nearest import Nearest, Within
from robustlab.attacks.pgd import FGSM, MIFGSM, PGD
from robustlab.attacks.protocols import Attack
from robustlab.attacks.sigma_zero import SigmaZero
from robustlab.constraints import ThreatModel
from robustlab.errors import unknown
from robustlab.goals import dlr
from robustlab.norms import Norm

# N-FGSM is none of them: it leaves the eps ball, so it must not measure robustness.
ATTACKS: dict[str, Callable[[ThreatModel], Attack]] = {
    "apgd-ce": APGD,
    "apgd-dlr": partial(APGD, surrogate=dlr),
    "apgd-t": partial(APGD, targets=9),
    "fab": lambda threat: Within(FAB(threat.norm, targets=0), threat),
    "fab-t": lambda threat: Within(FAB(threat.norm, targets=9), threat),
    "fgsm": FGSM,
    "mi-fgsm": MIFGSM,
    "pgd": PGD,
    "pgd-20": partial(PGD, steps=20),
    "pgd-50x10": partial(PGD, steps=50, restarts=10),
}

# What looks for the nearest adversarial image, in a norm.
NEAREST: dict[str, Callable[[Any], Nearest]] = {
    "cw": CW,
    "ddn": DDN,
    "deepfool": DeepFool,
    "fab": partial(FAB, targets=0),
    "fab-t": FAB,
    "fmn": FMN,
    "sigma-zero": SigmaZero,
}


def named_attack(name: str, threat: ThreatModel, **options: Any) -> Attack:
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
    if isinstance(attack, Within):
        return replace(attack, attack=_with_options(attack.attack, known, options))
    return _with_options(attack, known, options)


def named_minimum_norm(name: str, norm: Norm | str, **options: Any) -> Nearest:
    """An attack that looks for the nearest adversarial image, from its name, in any case.

    Args:
        name: one of ``NEAREST``.
        norm: what distances are measured in, or its name.
        options: settings of the attack that differ from its defaults: ``steps=200``.

    Raises:
        UserError: a name, an option or a norm that the attack does not know.
    """
    known = name.strip().lower()
    if known not in NEAREST:
        raise unknown("minimum-norm attack", name, NEAREST)
    attack: Nearest = _with_options(NEAREST[known](norm), known, options)
    return attack


def _with_options(attack: Any, name: str, options: dict[str, Any]) -> Any:
    """The same attack with other settings; what it may do to an image stays."""
    settings = [field.name for field in fields(attack) if field.name not in ("threat", "norm", "enough")]
    for option in options:
        if option not in settings:
            raise unknown(f"option of {name}", option, settings)
    return replace(attack, **options)
