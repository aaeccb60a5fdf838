"""Laws of step rules: how far they go, in which direction, and what they remember."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from laws import drawn, every_norm, every_optimizer_norm
from torch import Tensor

from robustlab.constraints import Box, Everywhere, Masked, ThreatModel
from robustlab.errors import UserError
from robustlab.norms import L1, L2, Linf, Norm, expanded
from robustlab.optimize import minimize
from robustlab.steps import (
    Adam,
    AutoStep,
    Decaying,
    Momentum,
    Relative,
    RunningMean,
    Sparse,
    SparseAutoStep,
    Steepest,
    attack_directions,
    checkpoints,
)
from robustlab.subsets import restricted

X, GRAD, VALUE = drawn(4, 2, 3), drawn(4, 2, 3, seed=1), torch.zeros(4)


@every_norm
def test_a_steepest_step_has_its_length_in_the_norm_and_goes_down_as_fast_as_any(norm):
    moved, _ = Steepest(norm, 0.3).step(X, VALUE, GRAD, Everywhere(), None)
    torch.testing.assert_close(norm.measure(moved - X), torch.full((4,), 0.3, dtype=torch.float64))
    descent = ((X - moved) * GRAD).flatten(1).sum(1)
    torch.testing.assert_close(descent, 0.3 * norm.dual.measure(GRAD))


@every_norm
def test_each_example_can_have_its_own_step_size(norm):
    sizes = torch.tensor([0.0, 0.1, 0.2, 3.0])
    moved, _ = Steepest(norm, sizes).step(X, VALUE, GRAD, Everywhere(), None)
    torch.testing.assert_close(norm.measure(moved - X), sizes.double(), rtol=1e-6, atol=0)


@every_norm
def test_a_step_in_a_mask_has_its_whole_length_inside(norm):
    mask = torch.tensor([True, False, True])
    moved, _ = Steepest(norm, 0.3).step(X, VALUE, GRAD, Masked(Everywhere(), X, mask), None)
    torch.testing.assert_close(norm.measure(moved - X), torch.full((4,), 0.3, dtype=torch.float64))
    assert torch.equal(moved[..., ~mask], X[..., ~mask])


@pytest.mark.parametrize("share, count", [(0.0, 1), (0.01, 1), (0.5, 3), (1.0, 6)])
def test_sparse_directions_are_unit_steps_along_the_largest_gradients(share, count):
    u = Sparse(share).steepest(GRAD).flatten(1)
    torch.testing.assert_close(L1().measure(u), torch.ones(4).double())
    least_moved = GRAD.flatten(1).abs().where(u != 0, torch.inf).amin(1)
    most_kept = GRAD.flatten(1).abs().where(u == 0, 0).amax(1)
    assert ((u != 0).sum(1) == count).all() and (least_moved > most_kept).all()
    assert (u * GRAD.flatten(1) >= 0).all()
    assert not Sparse(share).steepest(torch.zeros_like(GRAD)).any()


def test_attacks_step_sparsely_in_l1_and_steepest_in_other_norms():
    assert attack_directions(L1()) == Sparse() and attack_directions(L2()) == L2() and attack_directions(Linf()) == Linf()


RULES = [
    Steepest(L2(), 0.3),
    Momentum(Linf(), 0.3, 0.9),
    Adam(0.3),
    AutoStep(L2(), 0.3),
    Steepest(L1(), 0.3, scaled=True),
    Decaying(Adam(0.3)),
    Relative(Steepest(L2(), 0.3)),
    Relative(Steepest(L2(), 0.3, scaled=True), -2.0),
    RunningMean(Decaying(Relative(Steepest(Linf(), 0.3)), 0.7, 10.0), 0.9, nesterov=True),
]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_zero_gradient_moves_nothing(rule):
    moved, _ = rule.step(X, VALUE, torch.zeros_like(GRAD), Everywhere(), rule.init(X, 1))
    assert torch.equal(moved, X)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_a_step_ends_inside_and_leaves_its_arguments_alone(rule):
    x, grad, state = X.clone(), GRAD.clone(), rule.init(X, 2)
    moved, later = rule.step(x, VALUE, grad, Box(0, 0.1), state)
    again, _ = rule.step(x, VALUE, grad, Box(0, 0.1), state)
    assert ((moved >= 0) & (moved <= 0.1)).all() and torch.equal(x, X) and torch.equal(grad, GRAD)
    assert torch.equal(moved, again), "the state passed in was changed"
    rule.step(moved, VALUE, grad, Box(0, 0.1), later)


def test_momentum_as_published():
    """MI-FGSM's recursion (Dong et al. 2018, algorithm 1), in a loop of its own."""
    grads = [drawn(4, 2, 3, seed=s) for s in range(3)]
    x, velocity = X.clone(), torch.zeros_like(X)
    for grad in grads:
        velocity = 0.7 * velocity + grad / grad.flatten(1).abs().sum(1).reshape(4, 1, 1)
        x = x - 0.1 * velocity.sign()
    rule = Momentum(Linf(), 0.1, 0.7)
    moved, state = X, rule.init(X, 3)
    for grad in grads:
        moved, state = rule.step(moved, VALUE, grad, Everywhere(), state)
    torch.testing.assert_close(moved, x)


def test_momentum_that_forgets_at_once_is_steepest_descent():
    without, _ = Steepest(L1(), 0.2).step(X, VALUE, GRAD, Everywhere(), None)
    rule = Momentum(L1(), 0.2, 0.0)
    torch.testing.assert_close(rule.step(X, VALUE, GRAD, Everywhere(), rule.init(X, 1))[0], without)


def test_adam_is_the_librarys_adam():
    def objective(x):
        return (x - GRAD).abs().pow(1.5).flatten(1).sum(1)

    ours = minimize(objective, X, Everywhere(), Adam(0.05), steps=12, keep_best=False).x
    parameter = X.clone().requires_grad_()
    optimizer = torch.optim.Adam([parameter], lr=0.05)
    for _ in range(12):
        optimizer.zero_grad()
        objective(parameter).sum().backward()
        optimizer.step()
    torch.testing.assert_close(ours, parameter.detach(), rtol=1e-9, atol=1e-9)


@every_optimizer_norm
def test_a_scaled_step_minimizes_the_model_that_steepest_descent_has_of_the_loss(norm):
    """``<g, dx> + ‖dx‖^2 / (2 step)`` is smallest at a scaled step: ``-step / 2`` times the squared dual norm."""
    moved, _ = Steepest(norm, 0.3, scaled=True).step(X, VALUE, GRAD, Everywhere(), None)
    moves = [moved - X, *(0.3 * drawn(4, 2, 3, seed=s) for s in range(2, 30))]
    models = [(GRAD * dx).flatten(1).sum(1) + norm.measure(dx) ** 2 / 0.6 for dx in moves]
    torch.testing.assert_close(models[0], -0.15 * norm.dual.measure(GRAD) ** 2)
    assert all((models[0] <= other).all() for other in models[1:])


def test_a_scaled_step_in_l2_is_gradient_descent():
    moved, _ = Steepest(L2(), 0.3, scaled=True).step(X, VALUE, GRAD, Everywhere(), None)
    assert torch.equal(moved, X - 0.3 * GRAD)


def test_a_scaled_step_needs_a_norm():
    with pytest.raises(UserError, match=r"a scaled step needs a norm that has a dual, such as L2\(\), got Sparse"):
        Steepest(Sparse(), 0.3, scaled=True)


def after(rule, steps):
    x, state = X, rule.init(X, steps)
    for s in range(steps):
        x, state = rule.step(x, VALUE, drawn(4, 2, 3, seed=s), Everywhere(), state)
    return x


def test_decaying_steps_fall_as_said():
    by_hand = X
    for s in range(3):
        by_hand = by_hand - 0.3 * (5 / (5 + s)) ** 0.7 * drawn(4, 2, 3, seed=s).sign()
    torch.testing.assert_close(after(Decaying(Steepest(Linf(), 0.3), 0.7, 5.0), 3), by_hand)


def test_a_relative_step_has_its_share_of_the_points_length():
    moved, _ = Relative(Steepest(L2(), 0.3)).step(X, VALUE, GRAD, Everywhere(), None)
    torch.testing.assert_close(L2().measure(moved - X), 0.3 * L2().measure(X))
    scaled, _ = Relative(Steepest(L2(), 0.3, scaled=True), -2.0).step(X, VALUE, GRAD, Everywhere(), None)
    torch.testing.assert_close(X - scaled, 0.3 * GRAD / expanded(L2().measure(X), X) ** 2)


def test_relative_and_decaying_go_in_either_order():
    one = after(Decaying(Relative(Steepest(L2(), 0.3)), 0.5, 2.0), 4)
    torch.testing.assert_close(after(Relative(Steepest(L2(), 0.3)), 1), after(Decaying(Relative(Steepest(L2(), 0.3))), 1))
    x = X
    for s in range(4):
        g = drawn(4, 2, 3, seed=s)
        x = x - 0.3 * (2 / (2 + s)) ** 0.5 * (L2().measure(x) / L2().measure(g)).reshape(4, 1, 1) * g
    torch.testing.assert_close(one, x)


def test_a_running_mean_around_gradient_descent_is_the_librarys_momentum():
    parameter = X.clone().requires_grad_()
    optimizer = torch.optim.SGD([parameter], lr=0.03, momentum=0.9)
    for s in range(5):
        parameter.grad = drawn(4, 2, 3, seed=s)
        optimizer.step()
    torch.testing.assert_close(after(RunningMean(Steepest(L2(), 0.3, scaled=True), 0.9), 5), parameter.detach())


def test_nesterovs_mean_looks_one_step_ahead():
    parameter = X.clone().requires_grad_()
    optimizer = torch.optim.SGD([parameter], lr=0.03, momentum=0.9, nesterov=True)
    for s in range(5):
        parameter.grad = drawn(4, 2, 3, seed=s)
        optimizer.step()
    torch.testing.assert_close(after(RunningMean(Steepest(L2(), 0.3, scaled=True), 0.9, nesterov=True), 5), parameter.detach())


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_examples_that_leave_do_not_change_the_steps_of_the_others(rule):
    index = torch.tensor([0, 2])
    state = rule.init(X, 2)
    x, state = rule.step(X, VALUE, GRAD, Everywhere(), state)
    whole, _ = rule.step(x, VALUE, GRAD, Everywhere(), state)
    part, _ = restricted(rule, index).step(x[index], VALUE[index], GRAD[index], Everywhere(), restricted(state, index))
    torch.testing.assert_close(part, whole[index])


# Auto-PGD.


def test_checkpoints_are_those_of_the_paper():
    """p_0 = 0, p_1 = .22, then p_(j+1) = p_j + max(p_j - p_(j-1) - .03, .06), in exact fractions; of N steps after ceil(p_j N)."""
    assert sorted(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    for steps in (1, 7, 20, 50, 333):
        before, p, expected = Fraction(0), Fraction(22, 100), set()
        while p <= 1:
            expected.add(math.ceil(p * steps))
            before, p = p, p + max(p - before - Fraction(3, 100), Fraction(6, 100))
        assert checkpoints(steps) == expected


def sizes_after(values: list[float], rho: float = 0.75) -> dict[int, float]:
    """The first step size is 1; the size after each of Auto-PGD's checkpoints, by the values that it is told."""
    rule = AutoStep(Linf(), 1.0, rho=rho)
    x, state, sizes = X[:1], rule.init(X[:1], 100), {}
    for t, value in enumerate(values):
        x, state = rule.step(x, torch.tensor([value]), GRAD[:1], Everywhere(), state)
        if t in checkpoints(100):
            sizes[t] = float(state.size)
    return sizes


def test_auto_steps_stay_as_they_are_while_values_fall():
    assert set(sizes_after([-float(t) for t in range(100)]).values()) == {1.0}


def test_auto_steps_halve_at_every_checkpoint_while_values_do_not_fall():
    assert list(sizes_after([float(t) for t in range(100)]).values()) == [0.5**n for n in range(1, 9)]


def test_the_share_of_steps_that_must_improve():
    """Of the 16 steps from 41 to 57 exactly 12, or 13, go down, each far enough for a new best value."""
    for down, size in ((12, 0.5), (13, 1.0)):
        values = [-float(t) for t in range(42)]
        values += [values[-1] - 10.0 * n for n in range(1, down + 1)]
        values += [values[-1] + n for n in range(1, 17 - down)]
        assert sizes_after(values)[57] == size


def test_a_best_value_that_stays_halves_the_step_unless_it_was_halved_just_before():
    """After 22 steps down, one jump up, and steps down that never come back to the best value."""
    values = [-float(t) for t in range(23)] + [-0.01 * t for t in range(77)]
    assert list(sizes_after(values).values()) == [1, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125, 0.0625]


def by_hand(f: Callable[[Tensor], Tensor], x: Tensor, norm: Norm, eps: float, center: Tensor) -> Tensor:
    """Auto-PGD (Croce and Hein 2020, algorithm 1) for one example, line by line, in 100 steps."""

    def gradient(z: Tensor) -> tuple[float, Tensor]:
        z = z.clone().requires_grad_()
        value = f(z)
        return float(value.detach()), torch.autograd.grad(value, z)[0]

    def project(z: Tensor) -> Tensor:
        moved = z - center
        short = moved.clamp(-eps, eps) if norm == Linf() else moved * min(1.0, eps / float(moved.norm()))
        return (center + short).clamp(0, 1)

    value, g = gradient(x)
    best, x_best, g_best = value, x, g
    eta, halved, best_then, since, improved, before = 2 * eps, True, value, 0, 0, x
    for i in range(100):
        z = project(x - eta * (g.sign() if norm == Linf() else g / g.norm()))
        a = 1.0 if i == 0 else 0.75
        x, before = project(x + a * (z - x) + (1 - a) * (x - before)), x
        last = value
        value, g = gradient(x)
        improved, since = improved + (value < last), since + 1
        if value < best:
            best, x_best, g_best = value, x, g
        if i + 1 in (22, 41, 57, 70, 80, 87, 93, 99):
            halved = improved <= 0.75 * since or (not halved and best_then <= best)
            if halved:
                eta, x, g = eta / 2, x_best, g_best
            best_then, since, improved = best, 0, 0
    return x_best


@pytest.mark.parametrize("norm, eps", [(Linf(), 0.1), (L2(), 0.4)], ids=repr)
def test_auto_steps_as_published(norm, eps):
    """On functions with several valleys, one for each example. With steeper ones a change of 1e-12 at the start leads elsewhere."""
    center, waves = 0.2 + 0.6 * drawn(5, 6, seed=4).sigmoid(), 6 * drawn(5, 6, 6, seed=5)
    start = center + 0.1 * norm.steepest(drawn(5, 6, seed=6))

    def valleys(z: Tensor, rows: slice = slice(None)) -> Tensor:
        return torch.einsum("bij,bj->bi", waves[rows], z).sin().sum(1)

    allowed = ThreatModel(norm, eps).around(center)
    found = minimize(valleys, start, allowed, AutoStep(norm, 2 * eps), steps=100)
    for i in range(5):
        row = slice(i, i + 1)
        expected = by_hand(lambda z, row=row: valleys(z, row).sum(), start[row], norm, eps, center[row])
        torch.testing.assert_close(found.x[row], expected, rtol=0, atol=1e-7)


def sparse_by_hand(f: Callable[[Tensor], Tensor], x: Tensor, eps: float, center: Tensor, steps: int, share: float | None) -> Tensor:
    """APGD-L1 (Croce and Hein 2021, algorithm 1) for one example ``(1, D)``, line by line; the projection is the library's."""
    allowed, size = ThreatModel(L1(), eps).around(center), x.numel()

    def gradient(z: Tensor) -> tuple[float, Tensor]:
        z = z.clone().requires_grad_()
        value = f(z)
        return float(value.detach()), torch.autograd.grad(value, z)[0]

    value, g = gradient(x)
    best, x_best, g_best, eta = value, x, g, eps
    before = size if share is not None else int((x != center).sum())
    share = before / size / 1.5 if share is None else share
    for i in range(steps):
        least = g.abs().flatten().sort().values[min(max(int((1 - share) * size), 0), size - 1)]
        u = torch.where(g.abs() >= least, g.sign(), 0.0)
        x = allowed.project(x - eta * u / u.abs().sum())
        value, g = gradient(x)
        if value < best:
            best, x_best, g_best = value, x, g
        if (i + 1) % max(int(0.04 * steps), 1) == 0:
            now = int((x_best != center).sum())
            eta = eps if now / before < 0.95 else max(eta / 1.5, eps / 10)
            x, g = (x_best, g_best) if now / before < 0.95 else (x, g)
            share, before = now / size / 1.5, now
    return x_best


@pytest.mark.parametrize("share", [0.2, None])
def test_sparse_auto_steps_as_published(share):
    center, waves = 0.2 + 0.6 * drawn(5, 20, seed=4).sigmoid(), 3 * drawn(5, 6, 20, seed=5)

    def valleys(z: Tensor, rows: slice = slice(None)) -> Tensor:
        return torch.einsum("bij,bj->bi", waves[rows], z).sin().sum(1)

    allowed = ThreatModel(L1(), 0.5).around(center)
    start = allowed.project(center + 0.3 * drawn(5, 20, seed=6))
    found = minimize(valleys, start, allowed, SparseAutoStep(center, 0.5, share), steps=60)
    for i in range(5):
        row = slice(i, i + 1)
        expected = sparse_by_hand(lambda z, row=row: valleys(z, row).sum(), start[row], 0.5, center[row], 60, share)
        torch.testing.assert_close(found.x[row], expected, rtol=0, atol=1e-9)
    assert (found.value < valleys(start) - 0.5).all()


@pytest.mark.parametrize("sparse", [False, True])
def test_auto_steps_are_cut_with_their_examples(sparse):
    sizes, index = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([3, 1])
    rule = SparseAutoStep(X - 0.1, sizes) if sparse else AutoStep(L2(), sizes)
    x, state = X, rule.init(X, 20)
    some, rest, cut = X, rule, state
    for s in range(20):
        grad, value = drawn(4, 2, 3, seed=s), drawn(4, seed=s + 100)
        if s == 6:
            some, rest, cut = restricted((x, rule, state), index)
        if s >= 6:
            some, cut = rest.step(some, value[index], grad[index], Everywhere(), cut)
        x, state = rule.step(x, value, grad, Everywhere(), state)
    assert torch.equal(some, x[index]) and torch.equal(cut.size, state.size[index])


@pytest.mark.parametrize("eps", [0.0, 0.03, torch.tensor([0.0, 0.01, 0.3, 1.0], dtype=torch.float64)], ids=str)
def test_a_signed_step_in_a_box_is_the_one_along_the_tangent(eps):
    """What a value cannot do, the projection takes back: so the step need not ask who stands at a side."""
    center = drawn(4, 2, 3, seed=2).sigmoid()
    box, rule = ThreatModel(Linf(), eps).around(center), Steepest(Linf(), 0.01)
    x = box.project(center + 0.02 * drawn(4, 2, 3, seed=3).sign())
    for seed in range(4, 8):
        grad = drawn(4, 2, 3, seed=seed) * (drawn(4, 2, 3, seed=seed + 10) > -0.5)
        moved, _ = rule.step(x, VALUE, grad, box, None)
        assert torch.equal(moved, box.project(x - 0.01 * box.tangent(x, grad).sign()))
        x = moved
