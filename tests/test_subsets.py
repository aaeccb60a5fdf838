"""What belongs to some of a batch's examples: rows of tensors, parts of tuples, an object's own answer."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from laws import drawn
from torch import Tensor

from robustlab.goals import Away, Targeted, Untargeted, margin
from robustlab.norms import L2
from robustlab.objectives import feature_distance, goal_objective
from robustlab.steps import Adam, Momentum, Sparse, Steepest
from robustlab.subsets import Indivisible, restricted

INDEX = torch.tensor([3, 0])
ROWS = drawn(4, 2)


@dataclass
class Own:
    told: tuple = ()

    def at(self, *told: Tensor) -> Own:
        return Own(told)


def test_tensors_give_rows_tuples_parts_and_numbers_themselves():
    first, (second, nothing), step, scalar = restricted((ROWS, (ROWS[:, 0], None), 3, torch.tensor(2.0)), INDEX)
    assert torch.equal(first, ROWS[INDEX]) and torch.equal(second, ROWS[INDEX, 0])
    assert nothing is None and step == 3 and float(scalar) == 2
    assert restricted(0.5, INDEX) == 0.5


def test_an_object_gives_its_own_answer():
    assert restricted(Own(), INDEX).told == (INDEX,)
    assert restricted((Own(),), INDEX, ROWS)[0].told == (INDEX, ROWS)


@pytest.mark.parametrize("value", ["text", [1, 2], {"a": 1}, object(), lambda x: x], ids=lambda value: type(value).__name__)
def test_what_belongs_to_the_whole_batch_is_named(value):
    with pytest.raises(Indivisible, match=rf"^{type(value).__name__} has no method at\(index\)"):
        restricted((ROWS, value), INDEX)


LOGITS, LABELS = drawn(4, 3, seed=1), torch.tensor([0, 2, 1, 1])
GOALS = {"untargeted": Untargeted(LABELS, margin), "targeted": Targeted(LABELS), "away": Away(drawn(4, 3, seed=2))}


@pytest.mark.parametrize("goal", GOALS.values(), ids=GOALS)
def test_the_goal_of_some_examples_is_theirs(goal):
    some = restricted(goal, INDEX)
    assert torch.equal(some.loss(LOGITS[INDEX]), goal.loss(LOGITS)[INDEX])
    assert torch.equal(some.achieved(LOGITS[INDEX]), goal.achieved(LOGITS)[INDEX])


def test_the_objective_of_some_examples_is_theirs():
    whole = goal_objective(lambda x: 2 * x, GOALS["untargeted"])
    value, achieved = whole(LOGITS)
    some = restricted(whole, INDEX)(LOGITS[INDEX])
    assert torch.equal(some[0], value[INDEX]) and torch.equal(some[1], achieved[INDEX])
    distance = feature_distance(lambda x: x, drawn(4, 3, seed=2))
    assert torch.equal(restricted(distance, INDEX)(LOGITS[INDEX]), distance(LOGITS)[INDEX])


def test_an_objective_whose_goal_belongs_to_the_whole_batch_does_so_too():
    class Whole:
        loss = achieved = None

    with pytest.raises(Indivisible, match="Whole has no method"):
        restricted(goal_objective(lambda x: x, Whole()), INDEX)


@pytest.mark.parametrize("rule", [Steepest, Momentum], ids=lambda rule: rule.__name__)
def test_a_rule_keeps_the_step_sizes_of_its_examples(rule):
    sizes = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert torch.equal(restricted(rule(L2(), sizes), INDEX).step_size, sizes[INDEX])
    assert restricted(rule(Sparse(), 0.1), INDEX) == rule(Sparse(), 0.1)


def test_adam_keeps_step_sizes_and_its_state_is_divided():
    sizes = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert torch.equal(restricted(Adam(sizes, 0.5), INDEX).step_size, sizes[INDEX])
    mean, square, t = restricted((ROWS, ROWS.square(), 7), INDEX)
    assert torch.equal(mean, ROWS[INDEX]) and torch.equal(square, ROWS[INDEX].square()) and t == 7
