"""Laws of objectives: one value and one gradient per example, whatever the batch and whatever the caller's autograd mode."""

from __future__ import annotations

import pytest
import torch
from laws import drawn, images
from torch import nn

from robustlab.errors import UserError
from robustlab.goals import Away, Targeted, Untargeted, margin
from robustlab.objectives import evaluate_objective, feature_distance, goal_objective, mean_of, through, value_and_gradient
from robustlab.subsets import restricted


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
        inside = value_and_gradient(goal_objective(model, goal(y)), x)
    outside = value_and_gradient(goal_objective(model, goal(torch.tensor([0, 2]))), images(2, 4))
    assert all(map(torch.equal, inside, outside))


def test_reaching_gives_loss_and_success_at_the_models_logits():
    logits, y = drawn(3, 4), torch.tensor([0, 1, 2])
    loss, achieved = evaluate_objective(goal_objective(lambda x: logits, Untargeted(y)), torch.zeros(3, 1))
    torch.testing.assert_close(loss, -nn.functional.cross_entropy(logits, y, reduction="none"))
    assert torch.equal(achieved, logits.argmax(1) != y)


def test_losses_are_worked_out_in_float32_at_least():
    """A bfloat16 softmax would be too coarse, and float64 logits that differ after the eighth digit are different."""
    y = torch.zeros(1, dtype=torch.int64)
    for dtype, wanted in [(torch.bfloat16, torch.float32), (torch.float16, torch.float32), (torch.float64, torch.float64)]:
        logits = torch.tensor([[0.0, 1.0]], dtype=dtype)
        assert evaluate_objective(goal_objective(lambda x, logits=logits: logits, Untargeted(y)), y)[0].dtype == wanted
    close = torch.tensor([[1.0, 1.0 + 1e-12]], dtype=torch.float64)
    assert evaluate_objective(goal_objective(lambda x: close, Untargeted(y)), y)[1].all()


@pytest.mark.parametrize("objective", [lambda x: cubes(x).mean(), lambda x: x**2, lambda x: cubes(x)[:1]])
def test_an_objective_must_give_one_value_per_example(objective):
    with pytest.raises(ValueError, match=r"objective must return shape \(2,\), got"):
        value_and_gradient(objective, drawn(2, 3))


@pytest.mark.parametrize("objective", [lambda x: torch.zeros(len(x)), lambda x: cubes(x.round().detach()), torch.no_grad()(cubes)])
def test_an_objective_without_gradient_is_named_as_such(objective):
    with pytest.raises(UserError, match="no gradient with respect to its input"):
        value_and_gradient(objective, drawn(2, 3))


def test_feature_distance_is_relative_to_the_size_of_the_target():
    features, target = drawn(3, 5), drawn(3, 5, seed=1)
    value, achieved = evaluate_objective(feature_distance(lambda x: features, target), torch.zeros(3, 1))
    torch.testing.assert_close(value, (features - target).norm(dim=1) / target.norm(dim=1))
    assert achieved is None


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_feature_distance_does_not_depend_on_the_scale_of_the_features(scale):
    x, target = drawn(3, 5), drawn(3, 5, seed=1)
    scaled = value_and_gradient(feature_distance(lambda x: scale * x, scale * target), x)
    plain = value_and_gradient(feature_distance(lambda x: x, target), x)
    torch.testing.assert_close((scaled[0], scaled[2]), (plain[0], plain[2]))


def test_feature_distance_falls_straight_towards_the_target():
    x, target = drawn(3, 5), drawn(3, 5, seed=1)
    grad = value_and_gradient(feature_distance(lambda x: x, target), x)[2]
    torch.testing.assert_close(grad, (x - target) / (x - target).norm(dim=1, keepdim=True) / target.norm(dim=1, keepdim=True))


def test_feature_distance_at_the_target_is_zero_with_a_gradient_of_zero():
    value, _, grad = value_and_gradient(feature_distance(lambda x: 2 * x, 2 * drawn(2, 3)), drawn(2, 3))
    assert (value == 0).all() and (grad == 0).all()


def test_feature_distance_to_nothing_is_not_divided():
    x, target = drawn(2, 3), torch.zeros(2, 3, dtype=torch.float64)
    value, _, grad = value_and_gradient(feature_distance(lambda x: x, target), x)
    torch.testing.assert_close(value, x.norm(dim=1))
    assert grad.isfinite().all()


def test_feature_distance_takes_its_target_as_constant():
    weight = drawn(3, 4).requires_grad_()
    objective = feature_distance(lambda x: x @ weight.detach(), drawn(2, 3, seed=1) @ weight)
    assert not value_and_gradient(objective, drawn(2, 3))[0].requires_grad and weight.grad is None


def test_feature_distance_is_worked_out_in_the_dtype_of_the_target():
    """Features of a coarse stand-in are measured against exact ones."""
    features, target = drawn(2, 300).bfloat16(), drawn(2, 300, seed=1, dtype=torch.float32)
    value = evaluate_objective(feature_distance(lambda x: features, target), torch.zeros(2, 1))[0]
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, (features.float() - target).norm(dim=1) / target.norm(dim=1))


def test_feature_distance_has_a_gradient_in_inference_mode():
    with torch.inference_mode():
        value, _, grad = value_and_gradient(feature_distance(lambda x: x, drawn(2, 3)), drawn(2, 3, seed=1))
    assert value.isfinite().all() and (grad != 0).any()


def test_a_mean_of_objectives_has_the_mean_value_the_mean_gradient_and_the_verdict_of_most():
    x = drawn(5, 3)

    def above(level):
        return lambda x: (level * x.sum(1), x[:, 0] > level)

    mean = mean_of((above(-1.0), above(0.5), above(1.0)))
    value, achieved, grad = value_and_gradient(mean, x)
    torch.testing.assert_close((value, grad), (x.sum(1) / 6, torch.full_like(x, 1 / 6)))
    assert torch.equal(achieved, x[:, 0] > 0.5) and 0 < achieved.sum() < 5
    assert mean_of((cubes,)) is cubes
    assert value_and_gradient(mean_of((cubes, cubes)), x)[1] is None


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_an_objective_of_a_changed_input_is_differentiated_by_the_chain_rule(mode):
    x = drawn(4, 3)
    changed = through(lambda z: ((z**3).sum(1), z[:, 0] > 0), torch.sin)
    with mode():
        value, achieved, grad = value_and_gradient(changed, x.clone())
        alone, verdict = evaluate_objective(changed, x.clone())
    torch.testing.assert_close((value, grad), ((x.sin() ** 3).sum(1), 3 * x.sin() ** 2 * x.cos()))
    assert torch.equal(alone, value) and torch.equal(verdict, achieved) and torch.equal(achieved, x[:, 0].sin() > 0)


def test_an_objective_of_a_changed_input_can_be_of_some_of_the_examples():
    class Plus:
        def __init__(self, other):
            self.other = other

        def __call__(self, x):
            return x + self.other

        def at(self, index):
            return Plus(self.other[index])

    x, index = drawn(4, 3), torch.tensor([3, 1])
    changed = through(feature_distance(Plus(torch.zeros(1)), drawn(4, 3, seed=2)), Plus(drawn(4, 3, seed=1)))
    few, all_of_them = value_and_gradient(restricted(changed, index), x[index]), value_and_gradient(changed, x)
    torch.testing.assert_close((few[0], few[2]), (all_of_them[0][index], all_of_them[2][index]))
