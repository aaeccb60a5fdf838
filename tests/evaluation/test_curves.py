"""Laws of curves: known on linear models, never rising, and of any attack."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from laws import every_norm, images
from measured import Across, X, cut, labelled, remembering
from oracles import Counting, halfway

from robustlab.attacks import FGSM, MIFGSM, NFGSM, PGD, with_eps
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.evaluation import Rate, curve, evaluate
from robustlab.norms import L1, L2, Linf

THREAT = ThreatModel(Linf(), 0.02)
RADII = [0.3, 0.0, 0.01, 0.05, 0.1, 0.05]


@every_norm
def test_on_a_linear_model_the_curve_is_known(norm):
    x = 0.45 + images(24, 27, dtype=torch.float64) / 10
    model, y = halfway(x)
    single = PGD(ThreatModel(norm, 1.0), steps=1, random_start=False)
    found = curve(model, lambda: cut(x, y), single, RADII)
    with torch.no_grad():
        distance = model.distance(x, norm)
    assert found == {eps: Rate(int((distance > eps).sum()), 24) for eps in sorted(set(RADII))}
    assert list(found) == sorted(set(RADII)) and len({rate.count for rate in found.values()}) > 1
    for eps in sorted(set(RADII))[1:]:
        attack = replace(single, threat=ThreatModel(norm, eps))
        assert evaluate(model, cut(x, y), [attack]).under(str(attack)) == found[eps]


def test_a_curve_starts_at_the_clean_accuracy_and_never_rises(tiny_model):
    y = labelled(tiny_model)
    found = curve(tiny_model, lambda: cut(X, y), PGD(THREAT, steps=2), [0.0, 0.005, 0.01, 0.02, 0.05])
    counts = [rate.count for rate in found.values()]
    assert counts[0] == 18 and counts == sorted(counts, reverse=True) and counts[-1] < 18
    assert all(rate.n == 24 for rate in found.values())


def test_what_is_broken_is_not_attacked_again():
    x, model = images(12, 27), Counting(27)
    y = model(x).argmax(1)
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    found = curve(model, lambda: cut(x, y, 12), FGSM(ThreatModel(Linf(), 0.1)), [0.0, 0.01, 0.05, 0.1])
    alive = [rate.count for rate in found.values()]
    assert seen == [12] + [n for n in alive[:-1] for _ in range(2)], "once clean, then a step and a judgement of those alive"


@pytest.mark.parametrize("radius", [-0.1, math.nan, math.inf])
def test_radii_are_checked_before_anything_runs(radius):
    def never():
        raise AssertionError("the images were read")

    with pytest.raises(UserError, match="a radius must be a finite number >= 0"):
        curve(Counting(27), never, PGD(ThreatModel(L1(), 1.0)), [0.1, radius])


@every_norm
@pytest.mark.parametrize("batch_size", [5, 24])
def test_a_minimum_norm_attack_gives_the_whole_curve_in_one_run(norm, batch_size):
    x = 0.45 + images(24, 27, dtype=torch.float64) / 10
    model, y = halfway(x)
    calls = []
    model.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    found = curve(model, cut(x, y, batch_size), Across(norm), RADII)
    with torch.no_grad():
        distance = model.distance(x, norm)
    assert found == {eps: Rate(int((distance > eps).sum()), 24) for eps in sorted(set(RADII))}
    assert sum(calls) == 2 * 24, "once clean, once a judgement"
    attack = Across(norm, fails=True)
    failed = attack.kept(x)[:, 0]
    assert 0 < int(failed.sum()) < 24
    standing = int((failed | (distance > 0.3)).sum())
    assert curve(model, cut(x, y, batch_size), attack, [0.0, 0.3]) == {0.0: Rate(24, 24), 0.3: Rate(standing, 24)}


def test_an_attack_comes_by_name_too(tiny_model):
    data, threat = (X, labelled(tiny_model)), ThreatModel(L2(), 7.0)
    assert curve(tiny_model, data, "pgd", [0.0, 0.1], threat=threat) == curve(tiny_model, data, PGD(threat), [0.0, 0.1])


@pytest.mark.parametrize("make", [FGSM, MIFGSM, PGD, NFGSM])
def test_the_steps_of_an_attack_scale_with_its_radius(tiny_model, make):
    """A curve is what the attack reaches that was made for each radius, whatever radius it was made for first."""
    y = labelled(tiny_model)
    for eps in (0.03, 0.3, 3.0):
        threat = ThreatModel(L2(), eps)
        made, scaled = make(threat), with_eps(make(ThreatModel(L2(), 0.3)), eps)
        assert str(made) == str(scaled)
        assert torch.equal(made(tiny_model, X, y), scaled(tiny_model, X, y))


def test_an_attack_whose_radius_cannot_be_replaced_is_refused():
    attack, _ = remembering(PGD(ThreatModel(L2(), 0.1)))
    with pytest.raises(
        UserError, match="only an attack that is a dataclass with a field 'threat' can have another eps, which PGD-10 .* is not"
    ):
        curve(Counting(27), [], attack, [0.1])
    with pytest.raises(UserError, match="a curve is of one attack, got 2"):
        curve(Counting(27), [], [PGD(ThreatModel(L2(), 0.1)), FGSM(ThreatModel(L2(), 0.1))], [0.1])
