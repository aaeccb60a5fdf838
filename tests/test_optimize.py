"""Laws of the one loop: it stays in its set, keeps the best, costs what it says, and treats each example by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from laws import drawn
from torch import Tensor

from robustlab.constraints import Box, Everywhere
from robustlab.errors import UserError
from robustlab.norms import L2, Linf
from robustlab.objectives import value_and_gradient
from robustlab.optimize import Solution, look, minimize, when_achieved
from robustlab.steps import Adam, Momentum, Steepest
from robustlab.subsets import restricted

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


# A value for the last point.


@pytest.mark.parametrize("steps", [0, 3])
def test_the_last_value_is_known_where_it_is_asked_for(steps):
    calls = []

    def objective(x: Tensor) -> Tensor:
        calls.append(len(x))
        return distance(x)

    start, rule = TARGET + 0.3, Steepest(Linf(), 1.0)
    found = minimize(objective, start, Everywhere(), rule, steps=steps, keep_best=False, evaluate_last=True)
    plain = minimize(distance, start, Everywhere(), rule, steps=steps, keep_best=False)
    assert torch.equal(found.x, plain.x) and torch.equal(found.value, distance(found.x)) and plain.value is None
    assert calls == [6] * (steps + 1)


# Stopping.


@pytest.mark.parametrize("allowed", [0, 1, 3, 9])
@pytest.mark.parametrize("keep_best", [True, False])
def test_told_to_stop_it_ends_with_what_it_has(allowed, keep_best):
    asked, met = [], []

    def stop() -> bool:
        asked.append(len(met))
        return len(asked) > allowed

    rule = Steepest(L2(), 0.4)
    found = minimize(
        distance, -TARGET, Everywhere(), rule, steps=5, keep_best=keep_best, stop=stop, on_step=lambda t, x, value: met.append(x)
    )
    taken = min(allowed, 5)
    expected = minimize(distance, -TARGET, Everywhere(), rule, steps=taken, keep_best=keep_best)
    assert torch.equal(found.x, expected.x) and len(asked) == min(allowed + 1, 5)
    assert asked == list(range(len(asked))), "asked before each step"
    if keep_best:
        assert torch.equal(found.value, expected.value)


# Examples that are done.


class Distance:
    """To rows of its own, with a verdict within ``reach``; notes how many examples it is asked about."""

    def __init__(self, target: Tensor, reach: float, asked: list[int]) -> None:
        self.target, self.reach, self.asked = target, reach, asked

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.asked.append(len(x))
        value = (x - self.target).square().flatten(1).sum(1)
        return value, value.detach() < self.reach**2


class Divisible(Distance):
    def at(self, index: Tensor) -> Divisible:
        return type(self)(self.target[index], self.reach, self.asked)


FAR = torch.linspace(0, 1, 6, dtype=torch.float64).reshape(6, 1, 1) * torch.ones(6, 2, 3, dtype=torch.float64)
RULES = {
    "steepest": Steepest(L2(), 0.3),
    "a step size for each": Steepest(L2(), torch.linspace(0.2, 0.4, 6)),
    "momentum": Momentum(L2(), 0.2, 0.5),
    "adam": Adam(0.1),
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("keep_best", [True, False])
@pytest.mark.parametrize("kind", [Divisible, Distance])
def test_examples_that_are_done_leave_and_each_gets_what_it_would_alone(rule, keep_best, kind):
    """Without a way to divide the objective all are computed on, for the same result."""
    asked: list[int] = []
    options = {"steps": 6, "keep_best": keep_best, "done": when_achieved}
    found = minimize(kind(TARGET, 0.5, asked), TARGET + FAR, Box(-9, 9), rule, **options)
    for i in range(6):
        row, alone = torch.tensor([i]), kind(TARGET[i : i + 1], 0.5, [])
        single = minimize(alone, (TARGET + FAR)[row], Box(-9, 9), restricted(rule, row), **options)
        for own, whole in ((single.x, found.x), (single.value, found.value)):
            torch.testing.assert_close(whole[row], own, rtol=1e-12, atol=1e-12)
        assert torch.equal(single.achieved, found.achieved[row])
    assert found.achieved.sum() > 1 and found.finite.all()
    assert asked == sorted(asked, reverse=True) and asked[0] == 6 and (asked[-1] < 6) == (kind is Divisible)


def test_two_runs_with_the_same_batch_give_the_same_bytes():
    first, second = (
        minimize(Divisible(TARGET, 0.5, []), TARGET + FAR, Box(-9, 9), Momentum(L2(), 0.2), steps=6, done=when_achieved) for _ in range(2)
    )
    assert torch.equal(first.x, second.x) and torch.equal(first.value, second.value)


@pytest.mark.parametrize("kind", [Divisible, Distance])
def test_when_all_are_done_nothing_more_is_computed(kind):
    asked: list[int] = []
    found = minimize(kind(TARGET, 9.0, asked), TARGET + FAR, Everywhere(), Steepest(L2(), 0.1), steps=50, done=when_achieved)
    assert asked == [6] and torch.equal(found.x, TARGET + FAR) and found.achieved.all()


def test_done_may_be_any_rule_on_what_is_known():
    """A tolerance on the value, for an objective without a verdict."""

    class Plain(Divisible):
        def __call__(self, x: Tensor) -> Tensor:
            return super().__call__(x)[0]

    asked: list[int] = []
    found = minimize(
        Plain(TARGET, 0.0, asked), TARGET + FAR, Everywhere(), Descent(0.25), steps=60, done=lambda solution: solution.value < 1e-3
    )
    assert (found.value < 1e-3).all() and (found.value[1:] > 1e-6).all() and len(asked) < 60
    with pytest.raises(ValueError, match="must give a verdict beside its value"):
        minimize(Plain(TARGET, 0.0, []), TARGET + FAR, Everywhere(), Descent(0.25), steps=2, done=when_achieved)


def test_the_hook_sees_all_the_examples_also_when_some_have_left():
    seen = []
    found = minimize(
        Divisible(TARGET, 0.5, []),
        TARGET + FAR,
        Everywhere(),
        Steepest(L2(), 0.3),
        steps=4,
        done=when_achieved,
        on_step=lambda t, x, value: seen.append((t, x, value)),
    )
    assert [t for t, _, _ in seen] == [0, 1, 2, 3, 4]
    assert all(x.shape == TARGET.shape and torch.equal(value, (x - TARGET).square().flatten(1).sum(1)) for _, x, value in seen)
    assert torch.equal(seen[-1][1][:2], found.x[:2])


# Examples that are no longer finite.


def breaking(x: Tensor) -> tuple[Tensor, Tensor]:
    """Examples 1 and 4 fall over an edge; the verdict there means nothing."""
    value = distance(x)
    over = (x.detach() - TARGET[: len(x)])[:, 0, 0] < 0.7
    over &= torch.arange(len(x)) % 3 == 1
    return torch.where(over, torch.nan, 1.0) * value, over


@pytest.mark.parametrize("keep_best", [True, False])
@pytest.mark.parametrize("evaluate_last", [True, False])
def test_examples_that_are_no_longer_finite_come_back_from_before_that_and_are_told(keep_best, evaluate_last):
    options = {"steps": 5, "keep_best": keep_best, "evaluate_last": evaluate_last}
    found = minimize(breaking, TARGET + 1, Everywhere(), Steepest(Linf(), 0.2), allow_nonfinite=True, **options)
    fine = torch.tensor([True, False, True, True, False, True])
    assert torch.equal(found.finite, fine) and found.x.isfinite().all()
    sound = minimize(distance, TARGET + 1, Everywhere(), Steepest(Linf(), 0.2), **options)
    assert torch.equal(found.x[fine], sound.x[fine])
    fallen = (found.x - TARGET)[~fine]
    torch.testing.assert_close(fallen, torch.full_like(fallen, 0.8 if keep_best else 1.0))
    if evaluate_last and not keep_best:
        assert torch.equal(found.value.isnan(), ~fine)
    if keep_best:
        assert not found.value.isnan().any() and not found.achieved.any(), "a point with a value is better than one without"


def test_what_is_not_finite_from_the_start_stays_where_it_was():
    found = minimize(
        lambda x: x.sum(1) * torch.tensor([1.0, torch.nan]), torch.ones(2, 1), Box(), Steepest(L2(), 0.5), steps=3, allow_nonfinite=True
    )
    assert found.x.flatten().tolist() == [0, 1] and found.finite.tolist() == [True, False] and found.value.isnan().tolist() == [False, True]


def test_infinite_gradients_do_not_move_an_example():
    found = minimize(
        lambda x: x.sqrt().sum(1), torch.tensor([[0.0], [1.0]]), Box(), Steepest(L2(), 0.1), steps=1, keep_best=False, allow_nonfinite=True
    )
    assert found.x.flatten().tolist() == [0, pytest.approx(0.9)] and found.finite.tolist() == [False, True]


def test_a_point_that_a_gradient_without_numbers_led_to_is_not_the_best_whatever_its_value():
    """At 1 the root's gradient is NaN, and of NaN this objective makes the best value there is."""

    def objective(x: Tensor) -> Tensor:
        return (x - 1).abs().sqrt().sum(1).nan_to_num(-9.0)

    found = minimize(objective, torch.tensor([[3.0], [1.0]]), Everywhere(), Steepest(L2(), 0.5), steps=2, allow_nonfinite=True)
    assert found.x.flatten().tolist() == [2, 1] and found.value.tolist() == [1, 0] and found.finite.tolist() == [True, False]


@pytest.mark.parametrize("base", [Divisible, Distance])
def test_among_examples_that_leave_those_that_break_leave_too(base):
    class Breaking(base):
        def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
            value, achieved = super().__call__(x)
            return torch.where(self.target[:, 0, 0] == TARGET[4, 0, 0], torch.nan, value), achieved

    def run(**options):
        return minimize(Breaking(TARGET, 0.5, []), TARGET + FAR, Everywhere(), Steepest(L2(), 0.3), steps=5, done=when_achieved, **options)

    with pytest.raises(UserError, match=r"NaN or infinite for 1 of 6 examples \(positions 4\)"):
        run()
    found = run(allow_nonfinite=True)
    assert found.finite.tolist() == [True] * 4 + [False, True] and found.x.isfinite().all()
    assert torch.equal(found.x[4], (TARGET + FAR)[4])


# An objective for each step.


class Noisy:
    """The distance to a target that is seen through another noise at each step."""

    def __init__(self, target: Tensor, asked: list[int]) -> None:
        self.target, self.asked = target, asked

    def at_step(self, step: int):
        self.asked.append(step)
        noise = drawn(*TARGET.shape[1:], seed=step)
        return lambda x: (x - self.target - noise).square().flatten(1).sum(1)

    def at(self, index: Tensor) -> Noisy:
        return Noisy(self.target[index], self.asked)


def test_an_objective_may_be_another_one_at_each_step():
    asked: list[int] = []
    found = minimize(Noisy(TARGET, asked), -TARGET, Everywhere(), Descent(0.1), steps=3, keep_best=False, evaluate_last=True)
    x = -TARGET
    for step in range(3):
        x = x - 0.1 * 2 * (x - TARGET - drawn(2, 3, seed=step))
    torch.testing.assert_close(found.x, x)
    torch.testing.assert_close(found.value, (x - TARGET - drawn(2, 3, seed=3)).square().flatten(1).sum(1))
    assert asked == [0, 1, 2, 3], "the last point is evaluated as step 3"


def test_an_objective_for_each_step_can_be_divided():
    options = {"steps": 20, "done": lambda solution: solution.value < 4}
    start = TARGET + 3 * FAR
    found = minimize(Noisy(TARGET, []), start, Everywhere(), Descent(0.1), **options)
    alone = [minimize(Noisy(TARGET[i : i + 1], []), start[i : i + 1], Everywhere(), Descent(0.1), **options) for i in range(6)]
    torch.testing.assert_close(found.x, torch.cat([one.x for one in alone]))


# Solutions.


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


def test_some_of_a_solution_and_back():
    whole = solution([1.0, 2.0, 3.0], [True, False, True])
    index = torch.tensor([2, 0])
    part = whole.at(index)
    assert part.value.tolist() == [3, 1] and part.achieved.tolist() == [True, True] and part.finite is None
    changed = whole.put(index, solution([9.0, 8.0], [False, False], name=7.0))
    assert changed.value.tolist() == [8, 2, 9] and changed.x[:, 0].tolist() == [7, 0, 7] and not changed.achieved.any()
    assert whole.put(index, Solution(part.x)).value is None


class Distance:
    """How far points are from images: for ``rank``."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __call__(self, x: Tensor) -> Tensor:
        return (x - self.images).flatten(1).norm(dim=1)

    def at(self, index: Tensor) -> Distance:
        return Distance(self.images[index])


class Outward:
    """Away from the start by a fixed move, for as many steps as each example has."""

    def __init__(self, many: Tensor) -> None:
        self.many = many

    def init(self, x, steps):
        return torch.zeros(len(x), dtype=torch.int64)

    def step(self, x, value, grad, constraint, state):
        return x + 1, state + 1

    def over(self, state):
        return state >= self.many

    def at(self, index):
        return Outward(self.many[index])


class Beyond:
    """The goal is achieved where the first value is at least a bound; its own value falls for ever."""

    def __init__(self, bound: Tensor) -> None:
        self.bound = bound

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return -x.sum(1), x[:, 0] >= self.bound

    def at(self, index: Tensor) -> Beyond:
        return Beyond(self.bound[index])


@pytest.mark.parametrize("leave", [False, True])
def test_by_rank_the_nearest_point_that_achieves_the_goal_is_kept(leave):
    images = torch.zeros(4, 4)
    goal, many = Beyond(torch.tensor([0.0, 2.0, 5.0, 99.0])), torch.tensor([100, 100, 3, 100])
    done = {"done": lambda found: torch.zeros(len(found.x), dtype=torch.bool)} if leave else {}
    found = minimize(goal, images, Everywhere(), Outward(many), steps=8, rank=Distance(images), **done)
    assert found.x[:, 0].tolist() == [0, 2, 0 if leave else 5, 0]
    assert found.value.tolist() == [0, 4, 0 if leave else 10, 0]
    assert found.achieved.tolist() == [True, True, not leave, False]


def test_an_example_that_its_rule_is_done_with_leaves_and_passes_are_counted():
    images, seen = torch.zeros(3, 4), []
    rule = Outward(torch.tensor([0, 5, 2]))

    def objective(x):
        seen.append(len(x))
        return x.sum(1), torch.zeros(len(x), dtype=torch.bool)

    class Objective:
        __call__ = staticmethod(objective)

        def at(self, index):
            return self

    found = minimize(Objective(), images, Everywhere(), rule, steps=8, done=when_achieved)
    assert seen == [3, 2, 2, 1, 1, 1], "three leaves after no step, two steps and five"
    assert found.passes.tolist() == [1, 6, 3]
    assert minimize(distance, TARGET, Everywhere(), Descent(0.1), steps=4).passes.tolist() == [5] * len(TARGET)
    assert minimize(distance, TARGET, Everywhere(), Descent(0.1), steps=4, keep_best=False).passes.tolist() == [4] * len(TARGET)


def test_the_better_of_two_solutions_cost_what_both_cost():
    one = Solution(torch.zeros(2, 3), torch.zeros(2), passes=torch.tensor([3, 4]))
    assert one.or_better(replace(one, passes=torch.tensor([10, 20]))).passes.tolist() == [13, 24]
    assert one.put(torch.tensor([1]), one.at(torch.tensor([0]))).passes.tolist() == [3, 3]


class Midpoint(Descent):
    """Takes its gradient half a step ahead: the midpoint method for the gradient flow."""

    def look(self, objective, x, state):
        return *value_and_gradient(objective, x - self.rate / 2 * value_and_gradient(objective, x)[2]), state


def test_a_rule_may_look_elsewhere_than_at_the_point():
    """On a quadratic with the gradient 2 (x - target) a step multiplies what is left by 1 - 2 h + 2 h^2."""
    start = torch.zeros_like(TARGET)
    found = minimize(distance, start, Everywhere(), Midpoint(0.1), steps=5, keep_best=False)
    torch.testing.assert_close(TARGET - found.x, TARGET * (1 - 0.2 + 0.02) ** 5)
    last = minimize(distance, start, Everywhere(), Midpoint(0.1), steps=5, keep_best=False, evaluate_last=True)
    torch.testing.assert_close(last.value, distance(last.x))
    value, verdict, grad, state = look(Descent(0.1), distance, start, 7)
    assert torch.equal(value, distance(start)) and verdict is None and torch.equal(grad, -2 * TARGET) and state == 7


@pytest.mark.parametrize("options", [{}, {"keep_best": False, "done": lambda solution: solution.finite}])
def test_where_a_rule_looks_elsewhere_points_cannot_be_judged(options):
    with pytest.raises(ValueError, match="^Midpoint looks elsewhere than at the points, so it needs keep_best=False and no done$"):
        minimize(distance, TARGET, Everywhere(), Midpoint(0.1), steps=1, **options)
