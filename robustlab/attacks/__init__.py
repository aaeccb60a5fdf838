"""Attacks: frozen settings that you call, ``attack(model, x, y) -> x_adv``."""

from robustlab.attacks.apgd import APGD
from robustlab.attacks.autoattack import autoattack
from robustlab.attacks.by_name import ATTACKS, NEAREST, named_attack, named_minimum_norm
from robustlab.attacks.cw import CW
from robustlab.attacks.ddn import DDN
from robustlab.attacks.deepfool import DeepFool
from robustlab.attacks.fab import FAB
from robustlab.attacks.fmn import FMN
from robustlab.attacks.lineup import LineUp
from robustlab.attacks.nearest import Within
from robustlab.attacks.nfgsm import NFGSM
from robustlab.attacks.pgd import FGSM, MIFGSM, PGD
from robustlab.attacks.protocols import Attack, MinimumNormAttack, with_eps
from robustlab.attacks.sigma_zero import SigmaZero
from robustlab.attacks.sparse_rs import SparseRS
from robustlab.attacks.square import Square
from robustlab.attacks.transfer import DIFGSM, NIFGSM, SINIFGSM, TIFGSM, VMIFGSM, VNIFGSM, Transfer

__all__ = [
    "APGD",
    "ATTACKS",
    "CW",
    "DDN",
    "DIFGSM",
    "FAB",
    "FGSM",
    "LineUp",
    "FMN",
    "MIFGSM",
    "NEAREST",
    "NFGSM",
    "NIFGSM",
    "PGD",
    "SINIFGSM",
    "Square",
    "TIFGSM",
    "VMIFGSM",
    "VNIFGSM",
    "Attack",
    "DeepFool",
    "MinimumNormAttack",
    "SigmaZero",
    "SparseRS",
    "Transfer",
    "Within",
    "autoattack",
    "named_attack",
    "named_minimum_norm",
    "with_eps",
]
