"""Laws of line-ups: a cascade breaks what its attacks break together, each attack gets what is left, and AutoAttack is as published."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from laws import assert_within, images, restless, untouched
from measured import X, cut, labelled
from oracles import Counting
from torch import nn

from robustlab.attacks import APGD, FAB, PGD, LineUp, Square, Within, autoattack, named_attack, with_eps
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.evaluation import Report, evaluate
from robustlab.goals import Untargeted, cross_entropy, dlr
from robustlab.norms import L1, L2, Linf
from robustlab.objectives import expected, goal_objective, value_and_gradient
from robustlab.seeding import example_keys

THREATS = [ThreatModel(Linf(), 0.01), ThreatModel(L2(), 0.1), ThreatModel(L1(), 1.0)]
KEYS = example_keys(0, torch.arange(24))


def quick(threat: ThreatModel) -> LineUp:
    """A weak attack first, so that every stage has something to do."""
    return LineUp(
        [PGDLike(threat), APGD(threat, steps=8), Within(FAB(threat.norm, steps=5, targets=3), threat), Square(threat, queries=40)]
    )


@dataclass(frozen=True)
class PGDLike:
    """One step of PGD whose verdict may be asked for."""

    threat: ThreatModel

    def __str__(self) -> str:
        return f"one step ({self.threat})"

    def solve(self, model, x, y, *, keys=None, fast_model=None, highest_label=-1):
        found = PGD(self.threat, steps=1, random_start=False).solve(model, x, y, keys=keys, highest_label=highest_label)
        return replace(found, passes=None)

    def __call__(self, model, x, y, *, keys=None, fast_model=None):
        return self.solve(model, x, y, keys=keys).x


@pytest.mark.parametrize("threat", THREATS, ids=repr)
def test_a_line_up_breaks_what_its_attacks_break_and_says_which_did(threat, tiny_model):
    with torch.no_grad():
        y = tiny_model(X).argmax(1)
    lineup = quick(threat)
    found = lineup.run(tiny_model, X, y, keys=KEYS, accelerate=False)
    assert_within(threat, X, found.x)
    with torch.no_grad():
        assert ((tiny_model(found.x).argmax(1) != y) == (found.by >= 0)).all()
    assert torch.equal(found.x[found.by < 0], X[found.by < 0])
    left = torch.arange(len(X))
    for stage, attack in enumerate(lineup.attacks):
        alone = attack.solve(tiny_model, X[left], y[left], keys=KEYS[left])
        broken = alone.achieved.clone()  # what lies at a boundary may be on its other side when it is looked at again, by rounding
        with torch.no_grad():
            broken[alone.achieved] = tiny_model(alone.x[alone.achieved]).argmax(1) != y[left][alone.achieved]
        assert torch.equal(found.by[left] == stage, broken)
        assert (found.passes[left, stage] == (1 if alone.passes is None else alone.passes + 1)).all()
        left = left[~broken]
        gone = torch.ones(len(X), dtype=torch.bool).index_fill(0, left, False)
        assert (found.passes[gone, stage + 1 :] == 0).all()
    assert torch.equal(found.by < 0, torch.ones(len(X), dtype=torch.bool).index_fill(0, left, False).logical_not())
    assert found.by.unique().numel() >= 3


def test_one_by_one_as_in_a_batch_and_with_a_radius_for_each_image(tiny_model):
    with torch.no_grad():
        y = tiny_model(X).argmax(1)
    radii = torch.linspace(0.002, 0.02, 24, dtype=torch.float64)
    whole = quick(ThreatModel(Linf(), radii)).run(tiny_model, X, y, keys=KEYS)
    for k in range(0, 24, 5):
        one = quick(ThreatModel(Linf(), float(radii[k]))).run(tiny_model, X[k : k + 1], y[k : k + 1], keys=KEYS[k : k + 1])
        assert one.by.item() == whole.by[k].item()
        torch.testing.assert_close(one.x[0], whole.x[k], atol=1e-5, rtol=0)


def test_what_is_left_of_small_batches_fills_batches_again(tiny_model):
    with torch.no_grad():
        y = tiny_model(X).argmax(1)
    lineup, seen = quick(THREATS[0]), []
    whole = lineup.run(tiny_model, X, y, keys=KEYS)
    hook = tiny_model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    parts = lineup.run(tiny_model, X, y, keys=KEYS, batch_size=5)
    hook.remove()
    assert torch.equal(parts.by, whole.by) and max(seen) == 5
    torch.testing.assert_close(parts.x, whole.x, atol=1e-5, rtol=0)
    report = evaluate(tiny_model, (X, y), lineup, batch_size=6)
    assert report.worst == evaluate(tiny_model, (X, y), lineup).worst


@pytest.mark.parametrize("norm", [Linf(), L2(), L1()], ids=repr)
def test_autoattack_has_the_published_parameters(norm):
    threat = ThreatModel(norm, 0.5)
    many, aims = (5, 5) if norm == L1() else (1, 9)
    fab = FAB(norm, steps=100, restarts=1, targets=9, alpha_max=0.1, eta=1.05, beta=0.9)
    targeted = APGD(threat, steps=100, restarts=1, targets=aims, alpha=0.75, rho=0.75)
    square = Square(threat, queries=5000, restarts=1, p_init=0.8, rescale_schedule=False)
    assert autoattack(threat).attacks == (APGD(threat, steps=100, restarts=many), targeted, Within(fab, threat), square)
    assert autoattack(threat, "rand").attacks == (APGD(threat, eot=20), APGD(threat, surrogate=dlr, eot=20))
    plus = autoattack(threat, "plus").attacks
    assert plus[:2] == (APGD(threat, restarts=5), APGD(threat, restarts=5, surrogate=dlr))
    assert plus[2:] == (Within(FAB(norm, targets=0, restarts=5), threat), square, APGD(threat, targets=9), Within(fab, threat))
    assert all(attack.threat == threat for attack in plus)


def test_line_ups_by_name():
    threat = THREATS[0]
    assert named_attack("Standard", threat) == autoattack(threat) and str(autoattack(threat)) == f"AutoAttack ({threat})"
    mixed = named_attack("apgd-ce+square", threat)
    assert mixed.attacks == (APGD(threat), Square(threat)) and str(mixed) == f"APGD-CE + Square ({threat})"
    assert mixed.stages == ("APGD-CE", "Square")
    assert with_eps(autoattack(threat), 0.5) == autoattack(ThreatModel(threat.norm, 0.5))


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: LineUp([]), "^a line-up needs at least one attack$"),
        (lambda: LineUp([APGD(THREATS[0]), APGD(THREATS[1])]), "need one threat model"),
        (lambda: LineUp([APGD(THREATS[0]), APGD(THREATS[0])]), "no use for one attack twice"),
        (lambda: LineUp([FAB(Linf())]), "attacks within a threat model that have a method `solve`"),
        (lambda: autoattack(THREATS[0], "standart"), "^unknown version of AutoAttack 'standart'.*standard"),
        (lambda: named_attack("standard", THREATS[0], steps=10), "has no option 'steps': a line-up is what it is"),
        (lambda: named_attack("apgd-ce+sqare", THREATS[0]), "square"),
        (lambda: quick(THREATS[0])(nn.Flatten(), X, Untargeted(torch.zeros(24, dtype=torch.int64))), "a line-up attacks labels"),
    ],
)
def test_mistakes(make, sentence):
    with pytest.raises(UserError, match=sentence):
        make()


def test_model_arguments_and_random_state_are_bit_identical_afterwards(tiny_model):
    model, y = restless(tiny_model), torch.arange(24) % 10
    with untouched(model, X, y, KEYS):
        quick(THREATS[0])(model, X, y, keys=KEYS)


def test_no_image_at_all(tiny_model):
    found = quick(THREATS[0]).run(tiny_model, X[:0], torch.zeros(0, dtype=torch.int64))
    assert found.x.shape == (0, 3, 8, 8) and found.passes.shape == (0, 4)


# In an evaluation.


def test_a_report_of_a_line_up_tells_what_every_stage_left(tiny_model):
    y, threat = labelled(tiny_model), THREATS[0]
    report = evaluate(tiny_model, cut(X, y), quick(threat))
    name = f"line-up ({threat})"
    alone = [evaluate(tiny_model, cut(X, y), LineUp(quick(threat).attacks[: k + 1])).worst.count for k in range(4)]
    assert [rate.count for rate in report.after(name).values()] == alone and alone == sorted(alone, reverse=True)
    assert report.under(name).count == alone[-1] and list(report.after(name)) == [
        "one step",
        "APGD-CE-8",
        "FAB-T-5 with 3 targets",
        "Square-40",
    ]
    attacked = [record.attacks[name] for record in report.records if record.attacks]
    assert all((one.by is None) == (one.prediction == record.label) for record in report.records for one in record.attacks.values())
    assert report.passes(name) == pytest.approx(sum(one.passes for one in attacked) / len(attacked))
    assert "after APGD-CE-8" in repr(report) and "(upper bound, line-up only)" in report.headline
    assert Report(("AutoAttack (Linf)", "PGD-20 (Linf)"), ()).headline.endswith("(AutoAttack and PGD-20)")
    assert [type(record).from_json(record.to_json()) for record in report.records] == list(report.records)


# Models with random answers.


class Noisy(nn.Module):
    """A linear model that adds noise to its logits; where two logits are close, its answers change between calls."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.inner, self.scale = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), scale
        with torch.no_grad():
            self.inner[1].weight.copy_(torch.linspace(-1, 1, 36).reshape(3, 12).sin())

    def forward(self, x):
        logits = self.inner(x)
        return logits + self.scale * torch.randn_like(logits)


def test_a_random_model_is_asked_ten_times_and_the_evaluation_is_the_same_again():
    model, x = Noisy(0.3), images(24, 3, 2, 2)
    with torch.no_grad():
        y = model.inner(x).argmax(1)
    attack = APGD(ThreatModel(Linf(), 0.05), steps=5, eot=3)
    report = evaluate(model, cut(x, y), attack)
    torch.rand(7)  # what was drawn meanwhile does not matter
    again = evaluate(model, cut(x, y), attack)
    assert report == again and {record.votes for record in report.records} == {10}
    assert "the most frequent one of 10" in report.notes[0]
    calm = evaluate(Noisy(0.0), cut(x, y), attack)
    assert {record.votes for record in calm.records} == {1} and calm.notes == []
    assert all("votes" not in record.to_json() for record in calm.records)


def test_expectation_over_transformation_follows_the_mean_gradient_at_the_cost_of_its_draws():
    model, x, y = Noisy(0.5), images(6, 3, 2, 2), torch.arange(6) % 3
    torch.manual_seed(0)
    single = [value_and_gradient(goal_objective(model, Untargeted(y, cross_entropy)), x) for _ in range(5)]
    torch.manual_seed(0)
    value, achieved, grad = value_and_gradient(expected(goal_objective(model, Untargeted(y, cross_entropy)), 5), x)
    torch.testing.assert_close(value, sum(one[0] for one in single) / 5)
    torch.testing.assert_close(grad, sum(one[2] for one in single) / 5)
    assert torch.equal(achieved, sum(one[1].int() for one in single) >= 3)
    counting = Counting(12, 5)
    with torch.no_grad():
        own = counting(x.flatten(1)).argmax(1)
    found = APGD(ThreatModel(Linf(), 1e-5), steps=4, eot=20).solve(counting, x.flatten(1), own)
    assert counting.counts == {"forward": 101, "input": 80, "weights": 0} and found.passes.tolist() == [100] * 6
