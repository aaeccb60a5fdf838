"""Attacks by the names that papers give them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

from robustlab.attacks.apgd import APGD
from robustlab.attacks.autoattack import VERSIONS, autoattack
from robustlab.attacks.cw import CW
from robustlab.attacks.ddn import DDN
from robustlab.attacks.deepfool import DeepFool
from robustlab.attacks.fab import FAB
from robustlab.attacks.fmn import FMN
from robustlab.attacks.lineup import LineUp
from robustlab.attacks.nearest import Nearest, Within
from robustlab.attacks.pgd import FGSM, MIFGSM, PGD
from robustlab.attacks.protocols import Attack
from robustlab.attacks.sigma_zero import SigmaZero
from robustlab.attacks.sparse_rs import SparseRS
from robustlab.attacks.square import Square
from robustlab.attacks.transfer import (
    DIFGSM,
    DIVERSITY,
    KERNEL,
    NEIGHBOURS,
    NIFGSM,
    SCALES,
    SINIFGSM,
    TIFGSM,
    VMIFGSM,
    VNIFGSM,
    Transfer,
)
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError, unknown
from robustlab.goals import dlr
from robustlab.norms import Norm

# What Wang and He (2021) call the composite transformations.
_CT: dict[str, Any] = {"scales": SCALES, "diversity": DIVERSITY, "kernel": KERNEL}

# N-FGSM is none of them: it leaves the eps ball, so it must not measure robustness.
ATTACKS: dict[str, Callable[[ThreatModel], Attack]] = {
    "apgd-ce": APGD,
    "apgd-dlr": partial(APGD, surrogate=dlr),
    "apgd-t": partial(APGD, targets=9),
    "fab": lambda threat: Within(FAB(threat.norm, targets=0), threat),
    "fab-t": lambda threat: Within(FAB(threat.norm, targets=9), threat),
    "fgsm": FGSM,
    "mi-fgsm": MIFGSM,
    "ni-fgsm": NIFGSM,
    "si-ni-fgsm": SINIFGSM,
    "di-fgsm": DIFGSM,
    "di-mi-fgsm": partial(Transfer, diversity=DIVERSITY),
    "ti-fgsm": TIFGSM,
    "ti-mi-fgsm": partial(Transfer, kernel=KERNEL),
    "di-ti-mi-fgsm": partial(Transfer, diversity=DIVERSITY, kernel=KERNEL),
    "vmi-fgsm": VMIFGSM,
    "vni-fgsm": VNIFGSM,
    "vmi-ct-fgsm": partial(Transfer, neighbours=NEIGHBOURS, **_CT),
    "vni-ct-fgsm": partial(Transfer, neighbours=NEIGHBOURS, nesterov=True, **_CT),
    "pgd": PGD,
    "pgd-20": partial(PGD, steps=20),
    "pgd-50x10": partial(PGD, steps=50, restarts=10),
    "sparse-rs": SparseRS,
    "square": Square,
    **{version: partial(autoattack, version=version) for version in VERSIONS},
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
        name: one of ``ATTACKS``, or ``pgd-STEPS`` or ``pgd-STEPSxRESTARTS`` with any numbers: ``"pgd-100"``, ``"pgd-20x5"``; or several of
            these with ``+`` between them, a line-up where each gets what those before it left: ``"apgd-ce+square"``.
        threat: what the adversary may do.
        options: settings of the attack that differ from those behind its name: ``keep_best=False``; none for a line-up.

    Raises:
        UserError: a name or an option that is not known; says the nearest one.
    """
    known = name.strip().lower()
    if "+" in known:
        return _with_options(_lineup(known, threat), known, options)
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


def _lineup(name: str, threat: ThreatModel) -> LineUp:
    """The line-up of attacks that are named with ``+`` between them."""
    parts = [named_attack(part, threat) for part in name.split("+")]
    attacks = [one for part in parts for one in (part.attacks if isinstance(part, LineUp) else [part])]
    return LineUp(attacks, " + ".join(str(one).partition(" (")[0] for one in attacks))  # type: ignore[arg-type]


def any_attack(name: str, threat: ThreatModel) -> Attack | Nearest:
    """An attack from its name: one of ``named_attack``, or else one that looks for the nearest adversarial image in the threat's norm.

    Args:
        name: in any case.
        threat: what the adversary may do; of it a minimum-norm attack takes the norm alone.

    Raises:
        UserError: a name that is not known, or a norm that the attack does not know.
    """
    known = name.strip().lower()
    if known in NEAREST and known not in ATTACKS:
        return named_minimum_norm(known, threat.norm)
    if known not in ATTACKS and not known.startswith("pgd-") and "+" not in known:
        raise unknown("attack", name, {**ATTACKS, **NEAREST})
    return named_attack(known, threat)


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
    if isinstance(attack, LineUp) and options:
        raise UserError(f"{attack} has no option {next(iter(options))!r}: a line-up is what it is")
    settings = [field.name for field in fields(attack) if field.name not in ("threat", "norm", "enough")]
    for option in options:
        if option not in settings:
            raise unknown(f"option of {name}", option, settings)
    return replace(attack, **options)
