"""AutoAttack (Croce and Hein 2020; in L1 Croce and Hein 2021): the line-ups that robust accuracies are believed by."""

from __future__ import annotations

from robustlab.attacks.apgd import APGD
from robustlab.attacks.fab import FAB
from robustlab.attacks.lineup import LineUp
from robustlab.attacks.nearest import Within
from robustlab.attacks.protocols import Solving
from robustlab.attacks.square import Square
from robustlab.constraints import ThreatModel
from robustlab.errors import unknown
from robustlab.goals import dlr
from robustlab.norms import L1

VERSIONS = ("standard", "plus", "rand")


def autoattack(threat: ThreatModel, version: str = "standard") -> LineUp:
    """AutoAttack with the parameters of its public code; no setting is left to choose.

    - ``standard``: Auto-PGD on the cross-entropy, Auto-PGD for 9 targets, FAB for 9 targets, Square with 5,000 queries; in L1 Auto-PGD has
      5 starts, and 5 targets.
    - ``plus``: Auto-PGD on the cross-entropy and on the DLR from 5 starts each, FAB from 5 starts, Square, Auto-PGD and FAB for 9 targets.
    - ``rand``, for models with random answers: Auto-PGD on both losses, with 20 passes at each point.

    Other than in the public code, which attacks come first does not change who is broken, only what it costs: draws belong to images,
    and an image that one attack breaks is not moved by the next.

    Args:
        threat: what the adversary may do, in Linf, L2 or L1.
        version: one of ``VERSIONS``.

    Raises:
        UserError: no such version, or a norm that an attack of it does not know.
    """
    attacks: list[Solving]
    if version == "rand":
        attacks = [APGD(threat, eot=20), APGD(threat, surrogate=dlr, eot=20)]
    elif version == "plus":
        fab = Within(FAB(threat.norm, targets=0, restarts=5), threat)
        attacks = [APGD(threat, restarts=5), APGD(threat, surrogate=dlr, restarts=5), fab, Square(threat)]
        attacks += [APGD(threat, targets=9), Within(FAB(threat.norm), threat)]
    elif version == "standard":
        in_l1 = isinstance(threat.norm, L1)
        attacks = [APGD(threat, restarts=5 if in_l1 else 1), APGD(threat, targets=5 if in_l1 else 9)]
        attacks += [Within(FAB(threat.norm), threat), Square(threat)]
    else:
        raise unknown("version of AutoAttack", version, VERSIONS)
    return LineUp(attacks, "AutoAttack" if version == "standard" else f"AutoAttack {version}")
