"""Laws of the one loop: it stays in its set, keeps the best, costs what it says, and treats each example by itself."""

from __future__ import annotations

import pytest
import torch
from laws import drawn
from torch import Tensor

from robustlab.constraints import Box, Everywhere
from robustlab.errors import UserError
from robustlab.norms import L2, Linf
from robustlab.optimize import Solution, minimize
from robustlab.steps import Steepest

TARGET = drawn(6, 2, 3, seed=9)


def distance(x: Tensor) -> Tensor:
    return (x - TARGET[: len(x)]).square().flatten(1).sum(1)


class Descent:
    """Plain gradient descent, for problems whose answers are known."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def init(self, x, steps):
        return None

    def step(self, x, value, grad, constraint, state):
        return constraint.project(x - self.rate * grad), state


def test_it_finds_the_minimum_and_without_a_constraint_the_target():
    solution = minimize(distance, torch.zeros_like(TARGET), Everywhere(), Descent(0.25), steps=60)
    torch.testing.assert_close(solution.x, TARGET)
    assert solution.value.max() < 1e-15


def test_in_a_box_it_finds_the_nearest_point_of_the_box():
    solution = minimize(distance, torch.zeros_like(TARGET), Box(-0.5, 0.5), Descent(0.25), steps=60)
    torch.testing.assert_close(solution.x, TARGET.clamp(-0.5, 0.5))


@pytest.mark.parametrize("steps", [0, 1, 5])
@pytest.mark.parametrize("keep_best", [True, False])
def test_a_start_outside_is_projected_and_every_point_met_is_inside(steps, keep_best):
    met, start = [], torch.full_like(TARGET, 14.0)
    solution = minimize(
        distance, start, Box(-1, 1), Steepest(L2(), 0.3), steps=steps, keep_best=keep_best, on_step=lambda t, x, value: met.append(x)
    )
    assert all(((x >= -1) & (x <= 1)).all() for x in [*met, solution.x])
    assert (start == 14).all()


def test_the_best_point_met_is_kept_rather_than_the_last():
    """Steps of length 1 on a distance of 0.3 overshoot: every second point is worse than the start."""
    met = []
    start = TARGET + 0.3
    kept = minimize(distance, start, Everywhere(), Steepest(Linf(), 1.0), steps=3, on_step=lambda t, x, value: met.append(value))
    last = minimize(distance, start, Everywhere(), Steepest(Linf(), 1.0), steps=3, keep_best=False)
    assert torch.equal(kept.value, torch.stack(met).amin(0)) and torch.equal(kept.value, distance(kept.x))
    assert (kept.value < distance(last.x)).all() and last.value is None


def test_more_steps_never_end_with_a_worse_value():
    values = [minimize(distance, -TARGET, Box(-1, 1), Steepest(Linf(), 0.7), steps=k).value for k in range(8)]
    assert all((after <= before).all() for before, after in zip(values, values[1:], strict=False))


def test_success_comes_before_value():
    """An example that has reached its goal is not traded for one with a lower loss that has not."""

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, 0], x.detach()[:, 0] > -0.5  # the goal is achieved only early in the descent

    solution = minimize(objective, torch.zeros(1, 1), Everywhere(), Steepest(Linf(), 0.4), steps=5)
    assert solution.achieved.all() and float(solution.x) == pytest.approx(-0.4)


@pytest.mark.parametrize("steps", [0, 1, 4])
@pytest.mark.parametrize("keep_best", [True, False])
def test_k_steps_cost_k_passes_and_keeping_the_best_one_forward_more(steps, keep_best):
    calls = {"forward": 0, "gradient": 0}

    def objective(x: Tensor) -> Tensor:
        calls["forward"] += 1
        calls["gradient"] += x.requires_grad
        return distance(x)

    minimize(objective, TARGET + 1, Everywhere(), Steepest(L2(), 0.1), steps=steps, keep_best=keep_best)
    assert calls == {"forward": steps + keep_best, "gradient": steps}


def test_the_hook_sees_every_point_that_is_evaluated_with_its_value():
    seen = []
    minimize(distance, TARGET + 1, Everywhere(), Steepest(L2(), 0.1), steps=3, on_step=lambda *what: seen.append(what))
    assert [t for t, _, _ in seen] == [0, 1, 2, 3]
    assert all(torch.equal(value, distance(x)) for _, x, value in seen)


def test_examples_do_not_see_each_other():
    together = minimize(distance, -TARGET, Box(-1, 1), Steepest(L2(), 0.7), steps=5)
    for i in range(len(TARGET)):
        own = TARGET[i : i + 1]
        alone = minimize(lambda x, own=own: (x - own).square().flatten(1).sum(1), -own, Box(-1, 1), Steepest(L2(), 0.7), steps=5)
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("keep_best", [True, False])
def test_no_examples_no_calls(keep_best):
    def objective(x: Tensor) -> Tensor:
        raise AssertionError("called without examples")

    solution = minimize(objective, torch.zeros(0, 3), Box(), Steepest(L2(), 0.1), steps=3, keep_best=keep_best)
    assert solution.x.shape == (0, 3)


def test_the_number_of_steps_must_not_be_negative():
    with pytest.raises(UserError, match="steps must be >= 0, got -1"):
        minimize(distance, TARGET, Box(), Steepest(L2(), 0.1), steps=-1)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_values_that_are_no_numbers_are_refused_with_their_positions(steps):
    def objective(x: Tensor) -> Tensor:
        return torch.where(torch.arange(len(x)) % 4 == 1, torch.nan, 1.0) * distance(x)

    with pytest.raises(UserError, match=r"NaN or infinite for 2 of 6 examples \(positions 1, 5\)"):
        minimize(objective, TARGET + 1, Everywhere(), Steepest(L2(), 0.1), steps=steps)


@pytest.mark.parametrize("keep_best", [True, False])
def test_gradients_that_are_no_numbers_are_refused_though_the_value_is_one(keep_best):
    with pytest.raises(UserError, match=r"gradient is NaN or infinite for 1 of 2 examples \(positions 0\)"):
        minimize(lambda x: x.sqrt().sum(1), torch.tensor([[0.0], [1.0]]), Everywhere(), Steepest(L2(), 0.1), steps=1, keep_best=keep_best)


def test_an_infinite_loss_is_the_best_there_is_and_no_mistake():
    """A probability of exactly zero for the right class: the value is infinite, the gradient is a number."""

    def objective(x: Tensor) -> Tensor:
        return x.sum(1) - torch.tensor([0.0, torch.inf])

    assert torch.equal(minimize(objective, torch.ones(2, 1), Box(), Steepest(L2(), 0.5), steps=2).value, torch.tensor([0.0, -torch.inf]))


def solution(value: list[float], achieved: list[bool] | None = None, name: float = 0.0) -> Solution:
    known = None if achieved is None else torch.tensor(achieved)
    return Solution(torch.full((len(value), 2), name), torch.tensor(value), known)


def test_the_better_of_two_solutions_is_chosen_for_each_example():
    first = solution([1.0, 2.0, 3.0, 0.0], [True, True, False, False], name=1)
    second = solution([2.0, 1.0, 9.0, -1.0], [True, True, True, False], name=2)
    better = first.or_better(second)
    assert better.x[:, 0].tolist() == [1, 2, 2, 2]
    assert better.value.tolist() == [1, 1, 9, -1] and better.achieved.tolist() == [True, True, True, False]
    backwards = second.or_better(first)
    assert torch.equal(backwards.x, better.x) and torch.equal(backwards.value, better.value)


def test_between_equals_the_later_one_is_taken_and_a_verdict_may_be_missing():
    assert (solution([1.0], [True], name=1).or_better(solution([1.0], [True], name=2)).x == 2).all()
    better = solution([1.0, 1.0], name=1).or_better(solution([0.0, 2.0], name=2))
    assert better.x[:, 0].tolist() == [2, 1] and better.achieved is None
