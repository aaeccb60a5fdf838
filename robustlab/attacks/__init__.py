"""Attacks: frozen settings that you call, ``attack(model, x, y) -> x_adv``."""

from robustlab.attacks.apgd import APGD
from robustlab.attacks.by_name import ATTACKS, named_attack
from robustlab.attacks.nfgsm import NFGSM
from robustlab.attacks.pgd import FGSM, MIFGSM, PGD
from robustlab.attacks.protocols import Attack, MinimumNormAttack, with_eps
from robustlab.attacks.square import Square

__all__ = ["APGD", "ATTACKS", "FGSM", "MIFGSM", "NFGSM", "PGD", "Square", "Attack", "MinimumNormAttack", "named_attack", "with_eps"]
