"""Attacks by name: each is what its paper says, and a name that is not known brings the nearest."""

from __future__ import annotations

import pytest
import torch
from laws import every_norm, images

from robustlab.attacks import (
    APGD,
    ATTACKS,
    CW,
    DDN,
    FAB,
    FGSM,
    FMN,
    NEAREST,
    PGD,
    DeepFool,
    SigmaZero,
    Square,
    Within,
    autoattack,
    named_attack,
    named_minimum_norm,
)
from robustlab.attacks.autoattack import VERSIONS
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.goals import cross_entropy, dlr, margin
from robustlab.norms import L0, L1, L2, Linf

THREAT = ThreatModel(Linf(), 8 / 255)
MEANT = {
    "pgd": PGD(THREAT),
    "PGD-20": PGD(THREAT, steps=20),
    "pgd-50x10": PGD(THREAT, steps=50, restarts=10),
    "pgd-7": PGD(THREAT, steps=7),
    "pgd-100x5": PGD(THREAT, steps=100, restarts=5),
    " fgsm ": FGSM(THREAT),
    "APGD-CE": APGD(THREAT, steps=100, surrogate=cross_entropy),
    "apgd-dlr": APGD(THREAT, steps=100, surrogate=dlr),
    "apgd-t": APGD(THREAT, steps=100, targets=9),
    "square": Square(THREAT, queries=5000),
    "fab": Within(FAB(Linf(), steps=100, restarts=1, targets=0), THREAT),
    "FAB-T": Within(FAB(Linf(), steps=100, restarts=1, targets=9), THREAT),
    "standard": autoattack(THREAT),
}


@pytest.mark.parametrize("name, attack", MEANT.items())
def test_a_name_means_an_attack(name, attack):
    assert named_attack(name, THREAT) == attack


@pytest.mark.parametrize("name", sorted({*ATTACKS} - {"sparse-rs"}))
@every_norm
def test_every_name_attacks_in_every_norm(name, norm, tiny_model):
    x = images(4, 3, 8, 8)
    quick = {"steps": 2, "restarts": 1} if "50" in name or "apgd" in name else {"steps": 5} if "fab" in name else {}
    quick = {"queries": 40} if name == "square" else {"steps": 2} if name.startswith("v") else quick
    with torch.no_grad():
        # What FAB or a line-up does not break, it does not touch.
        y, eps = tiny_model(x).argmax(1), 0.8 if "fab" in name else 50 ** isinstance(norm, L1) - 0.2 if name in VERSIONS else 0.1
        attack = named_attack(name, ThreatModel(norm, eps), **quick)
        x_adv = attack(tiny_model, x, y)
        before, after = (torch.nn.functional.cross_entropy(tiny_model(z), y) for z in (x, x_adv))
    assert after > before and (norm.measure(x_adv.double() - x.double()) <= eps).all()


def test_mi_fgsm_as_published(tiny_model):
    """Dong et al. (2018), algorithm 1, by hand: ten steps of eps / 10 along the sign of the sum of gradients of unit L1 norm."""
    eps, model = 0.1, tiny_model.double()
    x, y = 0.3 + 0.4 * images(4, 3, 8, 8, dtype=torch.float64), torch.arange(4)
    moved, velocity = x.clone(), torch.zeros_like(x)
    for _ in range(10):
        moved.requires_grad_()
        (grad,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(moved), y, reduction="sum"), moved)
        velocity = velocity + grad / grad.abs().sum((1, 2, 3), keepdim=True)
        moved = moved.detach() + eps / 10 * velocity.sign()
    torch.testing.assert_close(named_attack("mi-fgsm", ThreatModel(Linf(), eps))(model, x, y), moved, rtol=0, atol=1e-9)


def test_settings_can_be_told():
    attack = named_attack("pgd-20", ThreatModel(L2(), 0.5), surrogate=margin, restarts=2)
    assert attack == PGD(ThreatModel(L2(), 0.5), steps=20, surrogate=margin, restarts=2)
    assert named_attack("fab", THREAT, restarts=5) == Within(FAB(Linf(), restarts=5, targets=0), THREAT)
    with pytest.raises(UserError, match="^unknown option of fab 'norm'. Known: alpha_max, beta, eta, restarts, steps, targets$"):
        named_attack("fab", THREAT, norm=L2())


@pytest.mark.parametrize(
    "name, options, sentence",
    [
        (
            "pdg",
            {},
            r"^unknown attack 'pdg'. Did you mean 'pgd'\? Known: apgd-ce, apgd-dlr, apgd-t, di-fgsm, .*, fab, fab-t, fgsm, .*vni-fgsm$",
        ),
        ("pgd-", {}, "^unknown attack 'pgd-'. Did you mean 'pgd'"),
        ("pgd-20", {"restart": 2}, r"^unknown option of pgd-20 'restart'. Did you mean 'restarts'\? Known: keep_best, "),
        ("pgd-20x0", {}, "^PGD needs steps >= 0 and restarts >= 1, got 20 and 0$"),
    ],
)
def test_what_is_not_known_brings_the_nearest_name(name, options, sentence):
    with pytest.raises(UserError, match=sentence):
        named_attack(name, THREAT, **options)


def test_minimum_norm_attacks_by_name():
    meant = {
        "CW": CW(L2(), 10_000, 9, step_size=0.01, c=1e-3),
        "ddn": DDN(L2(), 100, gamma=0.05, init_norm=1.0),
        "DeepFool": DeepFool(L2(), 50, overshoot=0.02, classes=10),
        "fab": FAB(L2(), targets=0),
        "fab-t": FAB(L2(), 100, targets=9),
        "fmn": FMN(L2(), 100, alpha_init=1.0, gamma_init=0.05, gamma_final=0.001),
    }
    assert all(named_minimum_norm(name, L2()) == attack for name, attack in meant.items())
    assert named_minimum_norm("sigma-zero", L0()) == SigmaZero(L0(), 1000) and {*map(str.lower, meant), "sigma-zero"} == {*NEAREST}
    assert named_minimum_norm("fmn", "l0", steps=50) == FMN(L0(), 50)
    with pytest.raises(UserError, match="^unknown minimum-norm attack 'fnm'. Did you mean 'fmn'"):
        named_minimum_norm("fnm", L2())
    with pytest.raises(UserError, match=r"^DDN-100 is known in L2\(\), got L1\(\)$"):
        named_minimum_norm("ddn", L1())
    with pytest.raises(UserError, match="^unknown option of ddn 'gama'. Did you mean 'gamma'"):
        named_minimum_norm("ddn", L2(), gama=1)
