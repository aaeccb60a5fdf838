"""Optimizers: mirror descent, momentum in the primal and in the dual, acceleration, and the bridge to torch in both directions."""

from __future__ import annotations

import pytest
import torch
from laws import drawn
from torch import nn

from robustlab.constraints import Everywhere
from robustlab.errors import UserError
from robustlab.linear_bias import (
    Cosh,
    DualAcceleration,
    Entropy,
    HypEntropy,
    LinearObjective,
    LogExponential,
    MirrorDescent,
    NaturalGradient,
    PNorm,
    PrimalMomentum,
    Quadratic,
    RuleOptimizer,
    Squared,
    TorchRule,
    certified_gap,
    descend,
    largest,
    regression,
    separable,
    zeros,
)
from robustlab.linear_bias.optimizers import as_rule
from robustlab.norms import L1, L2, Linf, Spectral
from robustlab.steps import Adam, RunningMean, Steepest
from robustlab.subsets import restricted

W, GRAD, VALUE = drawn(4, 6).exp(), drawn(4, 6, seed=1), torch.zeros(4)
POTENTIALS = [Quadratic(), Entropy(), HypEntropy(0.5), PNorm(1.5), Cosh()]
MIRRORS = (MirrorDescent, NaturalGradient, PrimalMomentum)
RULES = [*(make(potential, 0.1) for make in MIRRORS for potential in POTENTIALS), DualAcceleration(0.1)]

TORCH_OPTIMIZERS = [
    lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    lambda p: torch.optim.Adam(p, lr=0.01),
    lambda p: torch.optim.Adagrad(p, lr=0.1),
]


@pytest.mark.parametrize("potential", POTENTIALS, ids=repr)
def test_a_mirror_step_minimizes_linear_loss_and_divergence(potential):
    """``<g, w> + D(w, w_t) / step`` is smallest at the next point: its derivative there is zero."""
    rule = MirrorDescent(potential, 0.1)
    moved, z = rule.step(W, VALUE, GRAD, Everywhere(), rule.init(W, 1))
    leaf = moved.clone().requires_grad_()
    (slope,) = torch.autograd.grad(((GRAD * leaf).sum(1) + potential.divergence(leaf, W) / 0.1).sum(), leaf)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-9)
    torch.testing.assert_close(potential.dual(moved), z)


def test_mirror_descent_with_a_square_is_gradient_descent():
    objective = LinearObjective(regression(3, 4, 6), Squared())
    rules = MirrorDescent(Quadratic(), 0.01), Steepest(L2(), 0.01, scaled=True)
    mirror, plain = (descend(objective, drawn(3, 6), rule, 50).last for rule in rules)
    torch.testing.assert_close(mirror, plain)


def test_exponentiated_gradient_as_published():
    rule = MirrorDescent(Entropy(), 0.1)
    moved, _ = rule.step(W, VALUE, GRAD, Everywhere(), rule.init(W, 1))
    torch.testing.assert_close(moved, W * (-0.1 * GRAD).exp())


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_seeds_that_leave_do_not_change_the_steps_of_the_others(rule):
    index, state = torch.tensor([3, 1]), rule.init(W, 2)
    w, state = rule.step(W, VALUE, GRAD, Everywhere(), state)
    whole, _ = rule.step(w, VALUE, GRAD, Everywhere(), state)
    part, _ = restricted(rule, index).step(w[index], VALUE[index], GRAD[index], Everywhere(), restricted(state, index))
    torch.testing.assert_close(part, whole[index])


@pytest.mark.parametrize("make", [MirrorDescent, NaturalGradient, PrimalMomentum])
def test_a_start_outside_the_domain_is_refused(make):
    with pytest.raises(UserError, match="the entropy is a potential of positive weights only, got 0"):
        descend(LinearObjective(regression(1, 2, 3), Squared()), torch.zeros(1, 3).double(), make(Entropy(), 0.1), 5)


def test_momentum_zero_is_mirror_descent_and_small_natural_steps_nearly_so():
    start = drawn(4, 6).exp()
    data = regression(4, 3, 6)
    objective = LinearObjective(data, Squared())
    mirror = descend(objective, start, MirrorDescent(Entropy(), 1e-4), 200).last
    assert torch.equal(descend(objective, start, PrimalMomentum(Entropy(), 1e-4), 200).last, mirror) or torch.allclose(
        descend(objective, start, PrimalMomentum(Entropy(), 1e-4), 200).last, mirror, rtol=1e-12
    )
    torch.testing.assert_close(descend(objective, start, NaturalGradient(Entropy(), 1e-4), 200).last, mirror, rtol=0.02, atol=0)


def test_dual_acceleration_beats_plain_steps_by_far():
    data = separable(3, 10, 20)
    objective, step = LinearObjective(data, LogExponential()), 1 / largest(data, L2()) ** 2
    plain = certified_gap(data, descend(objective, zeros(data), Steepest(L2(), step, scaled=True), 1500).last, L2())
    fast = certified_gap(data, descend(objective, zeros(data), DualAcceleration(step), 1500).last, L2())
    assert (fast < plain / 20).all()


@pytest.mark.parametrize("make", TORCH_OPTIMIZERS)
def test_a_torch_optimizer_as_a_rule_moves_each_seed_as_it_would_alone(make):
    data = regression(3, 4, 6)
    path = descend(LinearObjective(data, Squared()), zeros(data), make, 30)
    for seed in range(3):
        w = nn.Parameter(torch.zeros(6).double())
        optimizer = make([w])
        for _ in range(30):
            optimizer.zero_grad()
            (data.X[seed] @ w - data.y[seed]).square().sum().backward()
            optimizer.step()
        torch.testing.assert_close(path.last[seed], w.detach())


@pytest.mark.parametrize("rule", [Steepest(Linf(), 0.01), Adam(0.01), RunningMean(Steepest(L1(), 0.01, scaled=True))], ids=repr)
def test_a_rule_as_a_torch_optimizer_is_the_rule(rule):
    data = regression(1, 4, 6)
    w = nn.Parameter(torch.zeros(6).double())
    optimizer = RuleOptimizer([w], rule)
    for _ in range(20):
        optimizer.zero_grad()
        (data.X[0] @ w - data.y[0]).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(w.detach(), descend(LinearObjective(data, Squared()), zeros(data), rule, 20).last[0])


def test_a_rule_trains_a_network_matrix_by_matrix_or_all_parameters_as_one():
    torch.manual_seed(0)
    for jointly, rule in ((False, Steepest(Linf(), 0.01)), (True, Steepest(L2(), 0.05))):
        network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)).double()
        before = [p.detach().clone() for p in network.parameters()]
        optimizer = RuleOptimizer(network.parameters(), rule, jointly=jointly)
        loss = network(drawn(16, 4)).square().mean()
        loss.backward()
        optimizer.step()
        moved = [p.detach() - b for p, b in zip(network.parameters(), before, strict=True)]
        if jointly:
            assert torch.cat([m.flatten() for m in moved]).norm().item() == pytest.approx(0.05)
        else:
            assert all(m.abs().max().item() == pytest.approx(0.01) for m in moved if m.any())


def test_spectral_descent_of_one_matrix():
    weight = nn.Parameter(drawn(3, 5))
    optimizer = RuleOptimizer([weight], Steepest(Spectral(), 0.1))
    before = weight.detach().clone()
    (weight * drawn(3, 5, seed=1)).sum().backward()
    optimizer.step()
    torch.testing.assert_close(torch.linalg.svdvals(weight.detach() - before), torch.full((3,), 0.1).double())


def test_a_closure_is_called_and_parameters_without_gradients_stay():
    used, unused = nn.Parameter(torch.ones(2).double()), nn.Parameter(torch.ones(2).double())
    optimizer = RuleOptimizer([used, unused], Steepest(Linf(), 0.5))

    def closure():
        optimizer.zero_grad()
        loss = used.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert used.tolist() == [0.5, 0.5] and unused.tolist() == [1.0, 1.0]


def test_what_is_no_optimizer_is_refused():
    assert isinstance(as_rule(torch.optim.Adam), TorchRule)
    with pytest.raises(UserError, match="an optimizer must be a step rule, or a function from parameters to a torch optimizer, got 'adam'"):
        as_rule("adam")
