"""Indicators of attack failure: each fails as planted, and an attack that works raises none."""

from __future__ import annotations

import torch
from evaluation import zoo
from torch import Tensor

from robustlab.constraints import ThreatModel
from robustlab.evaluation import Trace, attack_failures
from robustlab.goals import Untargeted, margin
from robustlab.norms import Linf
from robustlab.objectives import goal_objective
from robustlab.optimize import Solution, minimize
from robustlab.steps import Steepest

X, Y = zoo.draw(20, seed=2)


def run(model, eps: float, size: float, steps: int = 20, keep_best: bool = True) -> tuple[Trace, Solution]:
    trace, objective = Trace(), goal_objective(model, Untargeted(Y, margin))
    rule = trace.watching(Steepest(Linf(), size))
    allowed = ThreatModel(Linf(), eps).around(X)
    return trace, minimize(objective, X, allowed, rule, steps=steps, keep_best=keep_best, evaluate_last=True, on_step=trace)


def names(trace: Trace, returned: Tensor | None = None) -> list[str]:
    return [finding.name for finding in attack_failures(trace, returned)]


def test_of_an_attack_that_works_nothing_is_said():
    for model in zoo.plain().values():
        for eps in (0.005, 0.03, 0.5):
            trace, found = run(model, eps, 2.5 * eps / 20)
            assert len(trace.values) == 21 and len(trace.flat) == 20
            assert names(trace, found.value) == []
    assert attack_failures(Trace()) == ()


def test_an_adversarial_image_that_is_not_returned_is_told():
    """Steps as long as the ball is wide lead across it and back."""
    trace, found = run(zoo.standard(), 0.12, 0.24, keep_best=False)
    assert found.value is not None
    missed = int(((torch.stack(trace.values) < 0).any(0) & (found.value >= 0)).sum())
    told = {one.name: one for one in attack_failures(trace, found.value)}
    assert (missed > 0) == ("silent-success" in told)
    back = found.value.clone().fill_(1.0)  # an attack that gives all of them back
    (silent,) = [one for one in attack_failures(trace, back) if one.name == "silent-success"]
    assert silent.numbers["images"] == int((torch.stack(trace.values) < 0).any(0).sum()) > 0


def test_steps_that_are_too_short_are_told():
    assert "incomplete" in names(run(zoo.standard(), 0.05, 1e-4)[0])
    assert "incomplete" not in names(run(zoo.standard(), 0.05, 1e-4, steps=5)[0])  # five steps are no search


def test_gradients_that_are_missing_at_the_start_or_vanish_on_the_way_are_told():
    network = zoo.standard()

    def flat_away(x: Tensor) -> Tensor:
        """The network, whose logits stand still beyond .01."""
        far = ((x - X).abs().amax((1, 2, 3)) > 0.01)[:, None]
        logits = network(x)
        return torch.where(far, logits.detach() + 0 * logits, logits)

    assert names(run(flat_away, 0.02, 0.004)[0]) == ["transient-gradient"]
    assert names(run(lambda x: 0 * network(x) + network(x).detach(), 0.02, 0.004)[0]) == ["unavailable-gradient"]
