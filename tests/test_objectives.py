"""Laws of objectives: one value and one gradient per example, whatever the batch and whatever the caller's autograd mode."""

from __future__ import annotations

import pytest
import torch
from laws import drawn, images
from torch import nn

from robustlab.errors import UserError
from robustlab.goals import Away, Targeted, Untargeted, margin
from robustlab.objectives import evaluate, reaching, value_and_gradient


def cubes(x):
    return (x**3).flatten(1).sum(1)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_gradient_is_the_examples_own_whatever_the_batch(n):
    """Sums, never means: the gradient of a mean would shrink as the batch grows."""
    x = drawn(n, 2, 3)
    value, achieved, grad = value_and_gradient(cubes, x)
    torch.testing.assert_close(grad, 3 * x**2)
    torch.testing.assert_close(value, cubes(x))
    assert achieved is None


def test_nothing_of_the_graph_survives_and_the_input_is_left_alone():
    x = drawn(2, 3)
    value, _, grad = value_and_gradient(cubes, x)
    assert not value.requires_grad and not grad.requires_grad and not x.requires_grad and x.grad is None


def test_a_caller_without_gradients_gets_them_all_the_same():
    x = drawn(2, 3)
    with torch.no_grad():
        assert torch.equal(value_and_gradient(cubes, x)[2], 3 * x**2)
    with torch.inference_mode():
        assert torch.equal(value_and_gradient(cubes, x.clone())[2], 3 * x**2)


@pytest.mark.parametrize("goal", [Untargeted, lambda y: Untargeted(y, margin), Targeted, lambda y: Away(torch.eye(3)[y].clone())])
def test_goals_made_in_inference_mode_work(goal):
    model = nn.Linear(4, 3)
    with torch.inference_mode():
        x, y = images(2, 4), torch.tensor([0, 2])
        inside = value_and_gradient(reaching(model, goal(y)), x)
    outside = value_and_gradient(reaching(model, goal(torch.tensor([0, 2]))), images(2, 4))
    assert all(map(torch.equal, inside, outside))


def test_reaching_gives_loss_and_success_at_the_models_logits():
    logits, y = drawn(3, 4), torch.tensor([0, 1, 2])
    loss, achieved = evaluate(reaching(lambda x: logits, Untargeted(y)), torch.zeros(3, 1))
    torch.testing.assert_close(loss, -nn.functional.cross_entropy(logits, y, reduction="none"))
    assert torch.equal(achieved, logits.argmax(1) != y)


def test_losses_are_worked_out_in_float32_at_least():
    """A bfloat16 softmax would be too coarse, and float64 logits that differ after the eighth digit are different."""
    y = torch.zeros(1, dtype=torch.int64)
    for dtype, wanted in [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)]:
        logits = torch.tensor([[0.0, 1.0]], dtype=dtype)
        assert evaluate(reaching(lambda x, logits=logits: logits, Untargeted(y)), y)[0].dtype == wanted
    close = torch.tensor([[1.0, 1.0 + 1e-12]], dtype=torch.float64)
    assert evaluate(reaching(lambda x: close, Untargeted(y)), y)[1].all()


@pytest.mark.parametrize("objective", [lambda x: cubes(x).mean(), lambda x: x**2, lambda x: cubes(x)[:1]])
def test_an_objective_must_give_one_value_per_example(objective):
    with pytest.raises(ValueError, match=r"objective must return shape \(2,\), got"):
        value_and_gradient(objective, drawn(2, 3))


@pytest.mark.parametrize("objective", [lambda x: torch.zeros(len(x)), lambda x: cubes(x.round().detach()), torch.no_grad()(cubes)])
def test_an_objective_without_gradient_is_named_as_such(objective):
    with pytest.raises(UserError, match="no gradient with respect to its input"):
        value_and_gradient(objective, drawn(2, 3))
