"""Attacks: frozen settings that you call, ``attack(model, x, y) -> x_adv``."""

from robustlab.attacks.nfgsm import NFGSM
from robustlab.attacks.pgd import FGSM, PGD

__all__ = ["FGSM", "NFGSM", "PGD"]
