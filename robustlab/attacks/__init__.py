"""Attacks: frozen settings that you call, ``attack(model, x, y) -> x_adv``."""

from robustlab.attacks.apgd import APGD
from robustlab.attacks.autoattack import autoattack
from robustlab.attacks.by_name import ATTACKS, named_attack
from robustlab.attacks.fab import FAB
from robustlab.attacks.lineup import LineUp
from robustlab.attacks.nearest import Within
from robustlab.attacks.nfgsm import NFGSM
from robustlab.attacks.pgd import FGSM, MIFGSM, PGD
from robustlab.attacks.protocols import Attack, MinimumNormAttack, with_eps
from robustlab.attacks.square import Square

__all__ = [
    "APGD",
    "ATTACKS",
    "FAB",
    "FGSM",
    "LineUp",
    "MIFGSM",
    "NFGSM",
    "PGD",
    "Square",
    "Attack",
    "MinimumNormAttack",
    "Within",
    "autoattack",
    "named_attack",
    "with_eps",
]
