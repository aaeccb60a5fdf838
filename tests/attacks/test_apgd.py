"""Laws of Auto-PGD: its moves are the published ones, its set is exact, an example is by itself, and a model is only borrowed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import assert_within, every_norm, images, restless, seeded, threat_of, untouched
from oracles import Counting, halfway
from torch import Tensor, nn

from robustlab.attacks import APGD, named_attack, with_eps
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.goals import Targeted, Untargeted, cross_entropy, dlr, likeliest_others, margin
from robustlab.models.accelerate import accelerate
from robustlab.norms import L1, L2, Linf
from robustlab.seeding import example_keys

THREATS = [ThreatModel(Linf(), 8 / 255), ThreatModel(L2(), 0.5), ThreatModel(L1(), 6.0)]
NAMES = ["apgd-ce", "apgd-dlr", "apgd-t"]
every_threat = pytest.mark.parametrize("threat", THREATS, ids=repr)
every_name = pytest.mark.parametrize("name", NAMES)
KEYS = example_keys(0, torch.arange(12))
LABELS = torch.arange(12) % 3
NARROW = ThreatModel(Linf(), 1e-4)  # here nothing is fooled
WIDE = ThreatModel(L2(), 4.0)


def fooled(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    """Judged independently: a fresh forward pass in evaluation mode."""
    with torch.no_grad():
        return model.eval()(x_adv).argmax(1) != y


def own_labels(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model(x).argmax(1)


# What is known in closed form.


@every_name
@every_norm
def test_it_succeeds_exactly_where_the_decision_boundary_is_within_eps(name, norm):
    x = 0.45 + images(12, 27, dtype=torch.float64) / 10
    model, y = halfway(x)
    with torch.no_grad():
        distances = model.distance(x, norm)
    # In L1 the nearest image moves one value; a step moves no less than two once the best point has moved two.
    for factor in (1 - 1e-4, 1.4 if isinstance(norm, L1) else 1 + 1e-4):
        x_adv = named_attack(name, ThreatModel(norm, factor * distances))(model, x, y)
        assert (fooled(model, x_adv, y) == (factor > 1)).all()


@pytest.mark.parametrize("norm", [Linf(), L2()], ids=repr)
def test_where_nothing_is_fooled_it_reaches_the_worst_case_of_a_linear_model(norm):
    x = 0.45 + images(12, 27, dtype=torch.float64) / 10
    model, y = halfway(x)
    with torch.no_grad():
        eps = float(model.distance(x, norm).min()) / 2
        found = cross_entropy(model(APGD(ThreatModel(norm, eps))(model, x, y)), y)
    torch.testing.assert_close(found, model.worst_loss(x, y, norm, eps), rtol=1e-4, atol=0)


# The set, exactly.


@every_norm
@settings(seeded, max_examples=8)
@given(
    eps=st.one_of(st.sampled_from([0.0, 1e-12, 8 / 255, 1.0, 100.0]), st.floats(0, 2)),
    name=st.sampled_from(NAMES),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    extreme=st.booleans(),
)
def test_what_it_returns_and_all_it_tries_is_within_the_threat_model(norm, eps, name, dtype, extreme):
    x = images(3, 2, 2, 3)
    x = (x.round() if extreme else x).to(dtype)
    model, tried = Counting(12).to(dtype), []
    threat = threat_of(norm, eps)
    hook = model.register_forward_pre_hook(lambda module, args: tried.append(args[0].detach()) if len(args[0]) == 3 else None)
    x_adv = named_attack(name, threat, steps=8, restarts=2)(model, x, LABELS[:3])
    hook.remove()
    assert_within(threat, x, x_adv)
    wider = threat_of(norm, 3 * eps) if isinstance(norm, L1) else threat  # in L1 it goes through wider balls first
    for point in tried:
        assert_within(wider, x, point)


@every_name
@every_norm
def test_eps_zero_returns_the_image(name, norm, tiny_model):
    x = images(4, 3, 8, 8)
    assert torch.equal(named_attack(name, ThreatModel(norm, 0.0), steps=3)(tiny_model, x, LABELS[:4]), x)


@pytest.mark.parametrize("norm", [Linf(), L2()], ids=repr)
def test_it_starts_at_distance_eps(norm):
    x = torch.full((12, 27), 0.5, dtype=torch.float64)
    start = APGD(ThreatModel(norm, 0.1), steps=0)(Counting(27).double(), x, LABELS, keys=KEYS)
    torch.testing.assert_close(norm.measure(start - x), torch.full((12,), 0.1, dtype=torch.float64), rtol=1e-6, atol=0)
    assert len({tuple(row.tolist()) for row in start - x}) == 12


# An example by itself.


@every_name
@every_threat
def test_an_example_gets_the_same_attack_alone_in_a_batch_and_in_any_order(name, threat, tiny_model):
    model, x = tiny_model.double(), images(12, 3, 8, 8, dtype=torch.float64)
    attack = named_attack(name, threat, steps=5, restarts=2)
    whole = attack(model, x, LABELS, keys=KEYS)
    for rows in ([5], [11, 0, 3], list(range(11, -1, -1))):
        torch.testing.assert_close(attack(model, x[rows], LABELS[rows], keys=KEYS[rows]), whole[rows], rtol=0, atol=1e-11)
    assert torch.equal(attack(model, x, LABELS, keys=KEYS), whole)


@every_norm
def test_a_radius_for_each_image_is_the_attack_with_that_radius_on_each(norm, tiny_model):
    model, x, eps = tiny_model.double(), images(4, 3, 8, 8, dtype=torch.float64), [0.0, 0.02, 0.3, 1.0]
    y = own_labels(model, x)
    x_adv = APGD(ThreatModel(norm, eps), steps=10)(model, x, y, keys=KEYS[:4])
    for i, radius in enumerate(eps):
        row = slice(i, i + 1)
        alone = APGD(ThreatModel(norm, radius), steps=10)(model, x[row], y[row], keys=KEYS[row])
        torch.testing.assert_close(x_adv[row], alone, rtol=0, atol=1e-6)


@every_threat
@pytest.mark.parametrize("surrogate", [cross_entropy, dlr, margin])
def test_it_is_never_worse_than_its_start(threat, surrogate, tiny_model):
    x = images(12, 3, 8, 8)
    y = own_labels(tiny_model, x)

    def rank(attack: APGD) -> Tensor:
        x_adv = attack(tiny_model, x, y, keys=KEYS)
        return surrogate(tiny_model(x_adv), y).detach() + 1e6 * fooled(tiny_model, x_adv, y)

    start, end = (rank(APGD(threat, steps=steps, surrogate=surrogate)) for steps in (0, 12))
    assert (end >= start).all() and end.sum() > start.sum()


# Restarts, targets, and who is done.


def sizes_seen(model: nn.Module) -> list[int]:
    seen: list[int] = []
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    return seen


@every_name
def test_who_is_fooled_leaves_the_batch_and_further_starts_run_the_others_only(name, tiny_model):
    x = images(48, 3, 8, 8)
    y, keys = own_labels(tiny_model, x), example_keys(0, torch.arange(48))
    attack, left = named_attack(name, ThreatModel(Linf(), 0.0), steps=6), 48
    while left == 48:  # the smallest of these eps that fools some; not all at once
        attack = with_eps(attack, attack.threat.eps + 0.003)
        left = 48 - int(fooled(tiny_model, attack(tiny_model, x, y, keys=keys), y).sum())
    seen = sizes_seen(tiny_model)
    more = replace(attack, restarts=3)(tiny_model, x, y, keys=keys)
    runs = seen[1:] if attack.targets else seen
    assert runs == sorted(runs, reverse=True) and runs[0] == 48 > runs[-1]
    assert 48 - int(fooled(tiny_model, more, y).sum()) <= left


@pytest.mark.parametrize(
    "name, options, forward, backward",
    [
        ("apgd-ce", {}, 11, 10),
        ("apgd-ce", {"restarts": 3}, 33, 30),
        ("apgd-dlr", {"steps": 0}, 1, 0),
        ("apgd-t", {}, 1 + 4 * 11, 4 * 10),
        ("apgd-t", {"targets": 2, "restarts": 2}, 1 + 4 * 11, 4 * 10),
    ],
)
def test_what_it_costs_an_example_that_withstands(name, options, forward, backward):
    model, x = Counting(27, 5), images(6, 27)
    named_attack(name, NARROW, **{"steps": 10} | options)(model, x, own_labels(model, x))
    assert model.counts == {"forward": forward + 1, "input": backward, "weights": 0}  # and one for the labels
    assert all(p.grad is None for p in model.parameters())


def test_in_l1_it_goes_through_wider_balls_at_the_cost_of_two_more_points():
    model, x = Counting(27, 5), images(6, 27)
    y = own_labels(model, x)
    found = APGD(ThreatModel(L1(), 1e-4), steps=10).solve(model, x, y)
    assert found.passes.tolist() == [13] * 6 and model.counts["input"] == 10
    narrow = APGD(ThreatModel(L1(), 1e-4), steps=10, large_eps_first=False).solve(model, x, y)
    assert narrow.passes.tolist() == [11] * 6


def test_targets_are_the_likeliest_other_classes_at_the_image():
    logits, y = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 5.0, 1.0, 9.0]]), torch.tensor([0, 1])
    assert likeliest_others(logits, y, 2).tolist() == [[2, 1], [3, 2]]
    assert likeliest_others(logits, y, 9).tolist() == [[2, 1, 3], [3, 2, 0]]


class Mistaken(nn.Module):
    """Predicts another class than the model, everywhere."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return -self.model(x)


@every_name
def test_a_stand_in_that_is_wrongly_fooled_costs_nothing_but_time(name, tiny_model):
    x = images(12, 3, 8, 8)
    y, attack = own_labels(tiny_model, x), named_attack(name, ThreatModel(Linf(), 0.01), steps=8)
    alone = attack(tiny_model, x, y, keys=KEYS)
    assert torch.equal(attack(tiny_model, x, y, keys=KEYS, fast_model=Mistaken(tiny_model)), alone)


@every_threat
def test_a_stand_in_finds_what_the_model_finds(threat, tiny_model):
    model, x, attack = tiny_model.double(), images(12, 3, 8, 8, dtype=torch.float64), APGD(threat, steps=8)
    y = own_labels(model, x)
    lent = attack(model, x, y, keys=KEYS, fast_model=accelerate(model))
    torch.testing.assert_close(lent, attack(model, x, y, keys=KEYS), rtol=0, atol=1e-9)


# Goals, classes, names.


@every_name
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_in_a_wide_ball_every_label_can_be_left_with_two_classes_and_with_more(name, classes):
    model, x = Counting(27, classes), images(12, 27)
    y = own_labels(model, x)
    assert fooled(model, named_attack(name, WIDE, steps=20)(model, x, y), y).all()


def test_any_goal_will_do_but_not_with_targets(tiny_model):
    x, attack = images(12, 3, 8, 8), APGD(THREATS[0], steps=8)
    assert torch.equal(attack(tiny_model, x, Untargeted(LABELS)), attack(tiny_model, x, LABELS))
    model, x = Counting(27), images(12, 27)
    target = (own_labels(model, x) + 1) % 3
    assert not fooled(model, APGD(WIDE, steps=20)(model, x, Targeted(target)), target).any()
    with pytest.raises(UserError, match="^with `targets` Auto-PGD chooses its goals by itself: give labels, not Targeted$"):
        APGD(WIDE, targets=9)(model, x, Targeted(target))


@pytest.mark.parametrize(
    "attack, name",
    [
        (APGD(THREATS[1]), "APGD-CE (L2 eps=0.5)"),
        (APGD(THREATS[1], surrogate=dlr, restarts=5), "APGD-DLR-100x5 (L2 eps=0.5)"),
        (APGD(THREATS[1], targets=9), "APGD-T (L2 eps=0.5)"),
        (APGD(THREATS[1], steps=20, targets=5), "APGD-T-20 (5 targets, L2 eps=0.5)"),
        (APGD(THREATS[1], surrogate=margin), "APGD-margin (L2 eps=0.5)"),
    ],
)
def test_its_name_says_what_it_does(attack, name):
    assert str(attack) == name


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"restarts": 0}, "^Auto-PGD needs steps >= 0, restarts >= 1, targets >= 0 and eot >= 1, got 100, 0, 0 and 1$"),
        ({"rho": 1.5}, r"^alpha and rho are shares from 0 to 1, got 0\.75 and 1\.5$"),
        ({"targets": 3, "surrogate": margin}, "^Auto-PGD aims at targets by the targeted DLR: give `surrogate` or `targets`, not both$"),
    ],
)
def test_settings_that_mean_nothing_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        APGD(THREATS[0], **options)


# What it leaves behind: nothing.


@every_name
def test_model_arguments_and_random_state_are_bit_identical_afterwards(name, tiny_model):
    model = restless(tiny_model)
    x, y, keys = images(4, 3, 8, 8), LABELS[:4].clone(), KEYS[:4].clone()
    with untouched(model, x, y, keys):
        x_adv = named_attack(name, THREATS[1], steps=5, restarts=2)(model, x, y, keys=keys)
    assert not x_adv.requires_grad and x_adv.data_ptr() != x.data_ptr()


@every_name
@pytest.mark.parametrize("n", [0, 1])
def test_any_shape_and_no_image_at_all(name, n):
    for shape in ((1, 5, 9), (1, 1, 1), (12,)):
        model = Counting(Tensor(*shape).numel(), 4)
        x_adv = named_attack(name, THREATS[1], steps=3)(model, images(n, *shape), LABELS[:n])
        assert x_adv.shape == (n, *shape)


@every_name
def test_logits_that_are_no_numbers_are_refused_and_nothing_has_changed(name, tiny_model):
    class Spoilt(nn.Module):
        def forward(self, logits: Tensor) -> Tensor:
            return logits * torch.tensor([1.0, torch.nan])[:, None] if len(logits) == 2 else logits

    model = nn.Sequential(restless(tiny_model), Spoilt())
    with untouched(model), pytest.raises(UserError, match=r"NaN or infinite for 1 of 2 examples \(positions 1\)"):
        named_attack(name, THREATS[0], steps=2)(model, images(2, 3, 8, 8), LABELS[:2])
