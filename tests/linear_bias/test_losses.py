"""Losses: slopes against automatic differentiation, no overflow, and objectives that agree with it."""

from __future__ import annotations

import math

import pytest
import torch
from laws import drawn

from robustlab.errors import UserError
from robustlab.linear_bias import (
    LOSSES,
    CrossEntropy,
    Difference,
    LinearObjective,
    LogExponential,
    ModelObjective,
    MulticlassObjective,
    OneExample,
    Problem,
    regression,
    separable,
)
from robustlab.linear_bias.losses import as_loss
from robustlab.objectives import KnowsGradient, at_step, value_and_gradient

every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@every_loss
@pytest.mark.parametrize("scale", [0.1, 1, 20, 200])
def test_the_slope_is_the_derivative(loss, scale):
    outputs, y = (scale * drawn(3, 5)).requires_grad_(), drawn(3, 5, seed=1).sign()
    (slope,) = torch.autograd.grad(loss.value(outputs, y).sum(), outputs)
    torch.testing.assert_close(loss.slope(outputs.detach(), y), slope, rtol=1e-9, atol=1e-300)


@every_loss
@pytest.mark.parametrize("scale", [0.1, 1, 20, 200])
def test_value_and_slope_at_once_are_those_one_by_one(loss, scale):
    outputs, y = scale * drawn(3, 5), drawn(3, 5, seed=1).sign()
    value, slope = loss.value_and_slope(outputs, y)
    torch.testing.assert_close(value, loss.value(outputs, y), rtol=1e-13, atol=0)
    torch.testing.assert_close(slope, loss.slope(outputs, y), rtol=1e-12, atol=1e-300)


@every_loss
def test_losses_are_convex_and_lower_where_the_target_is_met(loss):
    y = drawn(1, 4, seed=1).sign()
    assert loss.value(y, y) < loss.value(-y, y)
    if loss == LOSSES["log-logistic"]:
        return  # the logarithm of a convex function need not be one
    line = torch.linspace(-3, 3, 601, dtype=torch.float64)
    values = torch.cat([loss.value(t * y, y) for t in line])
    assert (values[:-2] + values[2:] - 2 * values[1:-1] >= -1e-9).all()


@pytest.mark.parametrize("name", ["log-exponential", "log-logistic"])
def test_logarithms_of_losses_are_finite_however_far_margins_are(name):
    loss, y = LOSSES[name], torch.ones(1, 3).double()
    for far in (1e-3, 1e3, 1e6, -1e6):
        outputs = torch.tensor([[far, 2 * far, 1.0]]).double()
        assert loss.value(outputs, y).isfinite().all() and loss.slope(outputs, y).isfinite().all()
        assert loss.slope(outputs, y).abs().amax() > 0
    plain = LOSSES[name.removeprefix("log-")]
    outputs = drawn(2, 3)
    torch.testing.assert_close(loss.value(outputs, y), plain.value(outputs, y).log())


def test_the_logarithm_of_logistic_loss_becomes_that_of_the_exponential_one():
    outputs, y = torch.tensor([[40.0, 60.0, 41.0]]).double(), torch.ones(1, 3).double()
    torch.testing.assert_close(LOSSES["log-logistic"].value(outputs, y), LogExponential().value(outputs, y))


@every_loss
def test_a_linear_objective_knows_its_gradient(loss):
    data, w = separable(3, 6, 4), drawn(3, 4)
    objective = LinearObjective(data, loss)
    assert isinstance(objective, KnowsGradient)
    value, verdict, grad = value_and_gradient(objective, w)
    plain, _, expected = value_and_gradient(lambda x: objective(x), w)
    assert verdict is None
    torch.testing.assert_close(value, plain)
    torch.testing.assert_close(grad, expected)
    alone = objective.at(torch.tensor([1]))
    torch.testing.assert_close(alone(w[1:2]), value[1:2])


def test_a_model_in_other_parameters_pays_for_its_weights():
    data, theta = regression(3, 5, 4), drawn(3, 8)
    model = Difference(4)
    inner = LinearObjective(data, LOSSES["squared"])
    torch.testing.assert_close(ModelObjective(data, LOSSES["squared"], model)(theta), inner(model.weights(theta)))


def test_one_example_at_a_time_sums_up_to_the_whole():
    data, w = regression(3, 5, 4), drawn(3, 4)
    one = OneExample(data, LOSSES["squared"], in_turn=True)
    summed = torch.stack([at_step(one, step)(w) for step in range(5)]).sum(0)
    torch.testing.assert_close(summed, LinearObjective(data, LOSSES["squared"])(w))
    assert torch.equal(at_step(one, 7)(w), at_step(one, 2)(w))


def test_random_examples_belong_to_seed_and_step():
    many, one = regression(4, 6, 3), regression(1, 6, 3)
    w = drawn(4, 3)
    for step in range(20):
        whole, alone = OneExample(many, LOSSES["squared"]).at_step(step)(w), OneExample(one, LOSSES["squared"]).at_step(step)(w[:1])
        torch.testing.assert_close(whole[:1], alone)
    drawn_rows = {float(OneExample(one, LOSSES["squared"]).at_step(s)(w[:1])) for s in range(60)}
    assert len(drawn_rows) == 6


def test_losses_by_name():
    assert as_loss("logistic") is LOSSES["logistic"] and as_loss(LogExponential()) == LogExponential()
    with pytest.raises(UserError, match="unknown loss 'logistik'. Did you mean 'logistic'"):
        as_loss("logistik")
    with pytest.raises(UserError, match="a loss must be a name or a Loss, got 3"):
        as_loss(3)


def test_a_polynomial_tail_is_what_its_name_says():
    loss, y = LOSSES["polynomial"], torch.ones(1, 1).double()
    assert math.isclose(loss.value(torch.tensor([[99.0]]).double(), y).item(), 0.01)


@pytest.mark.parametrize("logarithm", [False, True])
def test_cross_entropy_is_that_of_torch_and_knows_its_slope(logarithm):
    outputs, y = drawn(2, 5, 3).requires_grad_(), torch.tensor([[0, 1, 2, 1, 0], [2, 2, 0, 1, 1]]).double()
    loss = CrossEntropy(logarithm)
    plain = torch.stack([torch.nn.functional.cross_entropy(o, t.long(), reduction="sum") for o, t in zip(outputs, y, strict=True)])
    torch.testing.assert_close(loss.value(outputs, y), plain.log() if logarithm else plain)
    (slope,) = torch.autograd.grad(loss.value(outputs, y).sum(), outputs)
    torch.testing.assert_close(loss.slope(outputs.detach(), y), slope)
    far = loss.slope(1e5 * torch.nn.functional.one_hot(y.long(), 3).double(), y)
    assert far.isfinite().all() and bool(far.any()) == logarithm


def test_an_objective_of_several_classes_knows_its_gradient():
    data = Problem(drawn(2, 6, 4), torch.tensor([[0, 1, 2, 0, 1, 2]] * 2).double())
    objective, w = MulticlassObjective(data), drawn(2, 3, 4)
    value, _, grad = value_and_gradient(objective, w)
    plain, _, expected = value_and_gradient(lambda x: objective(x), w)
    torch.testing.assert_close(value, plain)
    torch.testing.assert_close(grad, expected)
    two = Problem(data.X, torch.tensor([[0, 1, 1, 0, 1, 0]] * 2).double())
    binary = LinearObjective(Problem(data.X, 2 * two.y - 1), LOSSES["log-logistic"])
    torch.testing.assert_close(MulticlassObjective(two)(w[:, :2]), binary(w[:, 1] - w[:, 0]))
