"""Laws of minimum-norm attacks: on linear models the distance is known, nothing is nearer than it, and an example is by itself."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from laws import assert_within, every_norm, images, restless, untouched
from oracles import Counting, Linear, halfway
from torch import Tensor, nn

from robustlab.attacks import CW, DDN, FAB, FMN, DeepFool, SigmaZero, Within, with_eps
from robustlab.attacks.cw import PATIENCE, TanhAdam
from robustlab.attacks.nearest import Nearest
from robustlab.constraints import Everywhere, ThreatModel
from robustlab.errors import UserError
from robustlab.goals import Targeted, margin
from robustlab.hyperplanes import shortest_move
from robustlab.models.accelerate import accelerate
from robustlab.norms import L0, L1, L2, AttackNorm, Linf, Lp
from robustlab.seeding import example_keys

KEYS = example_keys(0, torch.arange(12))
QUICK: list[Nearest] = [
    *(FAB(norm, steps=8, targets=2) for norm in (Linf(), L2(), L1())),
    FAB(L2(), steps=8, targets=0),
    FAB(Linf(), steps=8, targets=1, restarts=2),
    *(FMN(norm, steps=20) for norm in (Linf(), L2(), L1(), L0())),
    DDN(steps=20),
    DeepFool(L2(), steps=20),
    DeepFool(Linf(), steps=20),
    CW(steps=50, searches=4, step_size=0.05, c=0.1),
    SigmaZero(steps=30),
]
every_attack = pytest.mark.parametrize("attack", QUICK, ids=repr)


def known() -> list[Nearest]:
    """Attacks that find the distance of a linear model within 1 %."""
    return [
        *(FAB(norm, targets=targets) for norm in (Linf(), L2(), L1()) for targets in (0, 9)),
        *(FMN(norm, steps=300) for norm in (Linf(), L2(), L1())),
        DDN(steps=300),
        CW(steps=500),
        *(DeepFool(norm, overshoot=0.005) for norm in (Linf(), L2())),
    ]


def own_labels(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


def nearest(model: Linear, x: Tensor, norm: AttackNorm) -> Tensor:
    """The distance of each image from a linear model's decision boundary inside the pixel box, float64 ``(B,)``."""
    w = model.w.detach().expand(len(x), -1).reshape(x.shape)
    return norm.measure(shortest_move(w, -model.score(x).detach(), norm, -x, 1 - x))


# What is known.


@pytest.mark.parametrize("attack", known(), ids=repr)
@pytest.mark.parametrize("room", [0.45, 0.01])
def test_on_a_linear_model_it_finds_the_distance_within_a_percent_and_nothing_nearer(attack, room):
    """In the middle of the box, and at its sides, where much of what would help is soon at its end."""
    x = images(12, 27, dtype=torch.float64)
    x = (x if room > 0.1 else x.round()) * (1 - 2 * room) + room
    model, y = halfway(x)
    if isinstance(attack, CW):  # Adam's step must be short beside the distances
        attack = replace(attack, step_size=0.01 if room < 0.1 else 0.0005)
    found = attack.solve(model, x, y)
    true = nearest(model, x, attack.norm)
    assert ((true > 1.001 * model.distance(x, attack.norm)).sum() > 3) == (room < 0.1)
    assert found.achieved.all() and (own_labels(model, found.x) != y).all()
    assert (found.value >= true * (1 - 1e-9)).all() and (found.value <= 1.01 * true).all(), (found.value / true).max()
    torch.testing.assert_close(found.value, attack.norm.measure(found.x - x))


@every_norm
def test_fab_crosses_the_boundary_of_a_linear_model_in_one_step(norm):
    x = 0.5 + (images(12, 27, dtype=torch.float64) - 0.5) / 10
    model, y = halfway(x)
    for targets in (0, 9):
        found = FAB(norm, steps=1, targets=targets).solve(model, x, y)
        torch.testing.assert_close(found.value, 1.05 * model.distance(x, norm).detach())
        assert (found.passes == 2).all()


# What it returns.


@every_attack
def test_what_it_returns_is_an_image_that_fools_or_the_image_itself(attack, tiny_model):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        model, x = tiny_model.to(dtype), images(12, 3, 8, 8).round().to(dtype)
        y = own_labels(model, x)
        y[3] = (y[3] + 1) % 10
        found = attack.solve(model, x, y)
        assert found.x.dtype == dtype and 0 <= float(found.x.min()) and float(found.x.max()) <= 1
        assert torch.equal(own_labels(model, found.x) != y, found.achieved)
        assert torch.equal(found.x[~found.achieved], x[~found.achieved])
        assert torch.equal(found.value, attack.norm.measure(found.x.double() - x.double()))
        assert torch.equal(found.x[3], x[3]) and found.achieved[3] and found.passes[3] == 1
    assert found.achieved.sum() > 4


@every_attack
def test_an_example_gets_the_same_attack_alone_in_a_batch_and_in_any_order(attack, tiny_model):
    model, x = tiny_model.double(), images(12, 3, 8, 8, dtype=torch.float64)
    y = own_labels(model, x)
    whole = attack(model, x, y, keys=KEYS)
    for rows in ([5], list(range(11, -1, -1))):
        torch.testing.assert_close(attack(model, x[rows], y[rows], keys=KEYS[rows]), whole[rows], rtol=0, atol=1e-9)
    assert torch.equal(attack(model, x, y, keys=KEYS), whole)


# Enough, and within a threat model.


@every_attack
def test_examples_leave_when_the_point_is_near_enough(attack, tiny_model):
    x = images(12, 3, 8, 8)
    y = own_labels(tiny_model, x)
    full = attack.solve(tiny_model, x, y, keys=KEYS)
    enough = 1.5 * full.value.clamp_min(1e-3)
    enough[::3] = 1e-9
    some = replace(attack, enough=enough).solve(tiny_model, x, y, keys=KEYS)
    assert torch.equal(some.achieved, full.achieved)
    easy = (enough > 1e-9) & full.achieved
    assert (some.value[easy] <= enough[easy]).all()
    assert some.passes[easy].sum() < full.passes[easy].sum() or isinstance(attack, DeepFool)  # which ends with the first in any case
    torch.testing.assert_close(some.value[~easy], full.value[~easy], rtol=0.2, atol=0)  # restarts begin elsewhere


@every_attack
def test_within_a_threat_model_it_is_an_attack_of_that_budget(attack, tiny_model):
    model, x = tiny_model.double(), images(12, 3, 8, 8, dtype=torch.float64)
    y = own_labels(model, x)
    full = attack.solve(model, x, y, keys=KEYS)
    eps = full.value * torch.where(torch.arange(12) % 2 == 0, 0.5, 1.05)
    eps = eps.floor() if isinstance(attack.norm, L0) else eps
    within = Within(attack, ThreatModel(attack.norm, eps))
    found = within.solve(model, x, y, keys=KEYS)
    assert_within(within.threat, x, found.x)
    assert torch.equal(own_labels(model, found.x) != y, found.achieved)
    assert torch.equal(found.x[~found.achieved], x[~found.achieved])
    if getattr(attack, "restarts", 1) == 1:
        assert found.achieved[1::2].all()
    assert torch.equal(within(model, x, y, keys=KEYS, accelerate=False), found.x)
    assert torch.equal(with_eps(within, 0.0)(model, x, y, keys=KEYS), x)


def test_names_say_what_they_do_and_what_means_nothing_is_refused():
    assert str(FAB("l2")) == "FAB-T (L2)" and str(FAB(Linf, targets=0, restarts=5)) == "FAB-100x5 (Linf)"
    assert str(Within(FAB(L2(), 20, targets=3), ThreatModel(L2(), 0.5))) == "FAB-T-20 with 3 targets (L2 eps=0.5)"
    with pytest.raises(UserError, match="^FAB-T \\(L1\\) measures in another norm than the threat model, L2 eps=0.5$"):
        Within(FAB(L1()), ThreatModel(L2(), 0.5))
    with pytest.raises(UserError, match="^an attack needs a norm"):
        FAB(Lp(3.0))
    with pytest.raises(UserError, match="^FAB needs steps >= 0, restarts >= 1 and targets >= 0, got 100, 0 and 9$"):
        FAB(L2(), restarts=0)
    with pytest.raises(UserError, match="^enough must be a distance >= 0 in pixel units, or None, got -1$"):
        FAB(L2(), enough=-1)
    with pytest.raises(UserError, match="^FAB chooses its goals by itself: give labels, not Targeted$"):
        FAB(L2())(Counting(27), images(3, 27), Targeted(torch.zeros(3, dtype=torch.int64), margin))


# Stand-ins, classes, shapes, costs, and what is left behind.


class Mistaken(nn.Module):
    """Predicts another class than the model, everywhere."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return -self.model(x)


def test_carlini_and_wagner_go_on_while_the_lowest_value_falls_though_adam_swings():
    x, rule = images(2, 1, 2, 2, dtype=torch.float64), TanhAdam(0.01)
    state = rule.init(x, 5 * PATIENCE)
    for step in range(4 * PATIENCE + 1):
        swing = 5.0 if step % PATIENCE == 0 else 0.0  # what is seen at a look is no lower than at the one before
        value = torch.tensor([1 - 0.01 * step + swing, 1.0], dtype=torch.float64)
        assert rule.over(state).tolist() == [False, step > PATIENCE]
        x, state = rule.step(x, value, torch.ones_like(x), Everywhere(), state)


@pytest.mark.parametrize("norm", [L2(), Linf()])
def test_deepfool_does_not_come_to_rest_on_the_boundary(norm):
    """On a convex margin every move ends before the boundary, and so near to it at last that rounding ends it there."""

    def model(x: Tensor) -> Tensor:
        lead = (-3 * x.sum(1)).exp() - 0.5
        return torch.stack([lead, torch.zeros_like(lead)], 1)

    x = torch.linspace(0, 0.08, 200)[:, None].expand(-1, 2).contiguous()
    found = DeepFool(norm, steps=20).solve(model, x, torch.zeros(200, dtype=torch.int64))
    assert found.achieved.all()
    assert (found.x.sum(1) < 1.03 * math.log(2) / 3).all()


@every_attack
def test_a_stand_in_is_not_believed_and_finds_what_the_model_finds(attack, tiny_model):
    model, x = tiny_model.double(), images(12, 3, 8, 8, dtype=torch.float64)
    y = own_labels(model, x)
    alone, lent = attack.solve(model, x, y, keys=KEYS), attack.solve(model, x, y, keys=KEYS, fast_model=accelerate(model))
    assert torch.equal(own_labels(model, lent.x) != y, lent.achieved) and torch.equal(lent.achieved, alone.achieved)
    torch.testing.assert_close(lent.value, alone.value, rtol=1e-3, atol=0)
    if getattr(attack, "restarts", 1) == 1:
        assert torch.equal(attack(model, x, y, keys=KEYS, fast_model=Mistaken(model)), alone.x)


@every_attack
@pytest.mark.parametrize("classes", [2, 3])
def test_two_classes_and_three(attack, classes):
    model, x = Counting(27, classes), images(12, 27)
    y = own_labels(model, x)
    assert attack.solve(model, x, y).achieved.all()


@every_attack
def test_any_shape_and_no_image_at_all_and_everything_is_left_as_it_was(attack, tiny_model):
    for n, shape in ((0, (1, 5, 9)), (1, (1, 1, 1)), (2, (12,))):
        model = Counting(Tensor(*shape).numel(), 4)
        assert attack(model, images(n, *shape), torch.zeros(n, dtype=torch.int64)).shape == (n, *shape)
    model = restless(tiny_model)
    x, y, keys = images(4, 3, 8, 8), torch.arange(4), KEYS[:4].clone()
    with untouched(model, x, y, keys):
        found = attack(model, x, y, keys=keys)
    assert not found.requires_grad


@pytest.mark.parametrize("targets, starts", [(2, 2), (9, 4), (0, 1)])
def test_what_fab_costs(targets, starts):
    model, x = Counting(27, 5), images(6, 27)
    y = own_labels(model, x)
    found = FAB(L2(), steps=10, targets=targets).solve(model, x, y)
    assert model.counts["forward"] == 1 + (targets > 0) + 11 * starts and model.counts["weights"] == 0
    assert model.counts["input"] == 10 * starts * (1 if targets else 4)  # without targets one for each other class
    assert (found.passes == 11 * starts).all()
