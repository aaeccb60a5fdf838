"""Parametrizations: gradients against automatic differentiation, degrees, convolutions as torch computes them, conserved quantities."""

from __future__ import annotations

import pytest
import torch
from laws import drawn

from robustlab.errors import UserError
from robustlab.linear_bias import (
    L2,
    CircularConvolution,
    Difference,
    Direct,
    Homogeneous,
    LinearNetwork,
    LogExponential,
    MatrixProduct,
    ModelObjective,
    Parametrization,
    Problem,
    Product,
    ReLUNetwork,
    Squared,
    Steepest,
    descend,
    regression,
    separable,
)
from robustlab.objectives import value_and_gradient

D = 6
LINEAR = [
    Direct(D),
    *(Difference(D, depth) for depth in (1, 2, 3)),
    *(Product(D, depth) for depth in (1, 2, 3, 5)),
    *(MatrixProduct(2, 3, depth) for depth in (1, 2, 4)),
    MatrixProduct(3, 2, 2, inner=5),
    *(LinearNetwork(widths) for widths in ((D,), (D, 4), (D, 4, 3), (D, 2, 5, 3))),
    *(CircularConvolution(D, depth) for depth in (1, 2, 3, 4)),
    Homogeneous(lambda theta: theta[:, :D] ** 3 - theta[:, :D] * theta[:, D:] ** 2, 2 * D, 3),
]
MODELS = [*LINEAR, ReLUNetwork(D, 5)]
CONSERVING = [model for model in LINEAR if hasattr(model, "conserved")]
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda m: f"{type(m).__name__}-{m.degree}-{m.size}")
every_linear = pytest.mark.parametrize("model", LINEAR, ids=lambda m: f"{type(m).__name__}-{m.degree}-{m.size}")
every_conserving = pytest.mark.parametrize("model", CONSERVING, ids=lambda m: f"{type(m).__name__}-{m.degree}-{m.size}")


@every_model
@pytest.mark.parametrize("shared", [False, True])
def test_the_gradient_is_the_derivative(model, shared):
    data = separable(1 if shared else 3, 7, D)
    objective, theta = ModelObjective(data, LogExponential(), model), model.random(3, 0.7)
    assert theta.shape == (3, model.size)
    value, _, grad = value_and_gradient(objective, theta)
    plain, _, expected = value_and_gradient(lambda x: objective(x), theta)
    torch.testing.assert_close(value, plain)
    torch.testing.assert_close(grad, expected)


@every_model
def test_a_model_is_homogeneous_of_its_degree(model):
    theta, X = model.random(3, 1.0), drawn(3, 4, D)
    torch.testing.assert_close(model.outputs(1.7 * theta, X), 1.7**model.degree * model.outputs(theta, X))


@every_model
def test_a_seed_is_the_same_alone(model):
    theta, X = model.random(3, 1.0), drawn(3, 4, D)
    assert torch.equal(model.random(1, 1.0, first=2), theta[2:])
    torch.testing.assert_close(model.outputs(theta[2:], X[2:]), model.outputs(theta, X)[2:])


@every_linear
def test_outputs_are_those_of_the_weights(model):
    theta, X = model.random(3, 1.0), drawn(3, 4, D)
    torch.testing.assert_close(model.outputs(theta, X), torch.einsum("snd,sd->sn", X, model.weights(theta)))


@every_conserving
def test_small_steps_conserve_what_flow_does_and_large_ones_do_not(model):
    data, theta = regression(2, 4, D), model.random(2, 0.5)
    if model.degree == 1:
        assert model.conserved(theta).shape == (2, 0)
        return

    def drift(step):
        path = descend(ModelObjective(data, Squared(), model), theta, Steepest(L2(), step, scaled=True), round(0.02 / step))
        return (model.conserved(path.last) - model.conserved(theta)).abs().max()

    assert drift(1e-5) < 0.2 * drift(1e-4) < 1e-2  # of the order of the step


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_circular_network_computes_what_its_layers_do(depth):
    model = CircularConvolution(D, depth)
    theta, x = model.random(2, 1.0), drawn(2, 1, D)
    filters, hidden = theta.reshape(2, depth, D), x[:, 0]
    for layer in range(depth - 1):
        rolled = torch.stack([hidden.roll(-k, 1) for k in range(D)], 1)  # rolled[:, k, i] = hidden[(i + k) mod D]
        hidden = D**-0.5 * (filters[:, layer, :, None] * rolled).sum(1)
    torch.testing.assert_close(model.outputs(theta, x)[:, 0], (filters[:, -1] * hidden).sum(1))


def test_a_linear_network_computes_what_torch_does():
    model = LinearNetwork((D, 4, 3))
    theta, x = model.random(1, 1.0), drawn(1, 5, D)
    last, second, first = model.factors(theta)
    assert [f.shape[1:] for f in (last, second, first)] == [(1, 3), (3, 4), (4, D)]
    hidden = torch.nn.functional.linear(torch.nn.functional.linear(x[0], first[0]), second[0])
    torch.testing.assert_close(model.outputs(theta, x)[0], torch.nn.functional.linear(hidden, last[0])[:, 0])


def test_a_relu_network_computes_what_torch_does():
    model = ReLUNetwork(D, 4)
    theta, x = model.random(1, 1.0), drawn(1, 5, D)
    w, a = theta[0, : 4 * D].reshape(4, D), theta[0, 4 * D :]
    torch.testing.assert_close(model.outputs(theta, x)[0], torch.nn.functional.linear(x[0], w).relu() @ a)


def test_factors_that_begin_as_identities_stay_transposes_on_symmetric_examples():
    A = drawn(2, 5, 3, 3)
    data = Problem((A + A.mT).flatten(2), drawn(2, 5, seed=1))
    model = MatrixProduct(3, 3)
    theta = descend(ModelObjective(data, Squared(), model), model.start(2, 0.3), Steepest(L2(), 1e-3, scaled=True), 200).last
    left, right = model.factors(theta)
    torch.testing.assert_close(left, right.mT)
    assert (torch.linalg.eigvalsh(model.matrix(theta)) > -1e-12).all()


def test_a_model_of_ones_own_needs_nothing_but_outputs():
    class Sine:
        def outputs(self, theta, X):
            return (theta[:, None] * X).sum(2).sin()

    data, theta = regression(2, 4, 3), drawn(2, 3)
    objective = ModelObjective(data, Squared(), Sine())
    _, _, grad = value_and_gradient(objective, theta)
    _, _, expected = value_and_gradient(lambda x: objective(x), theta)
    torch.testing.assert_close(grad, expected)
    assert not isinstance(Sine(), Parametrization)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: Product(3, 0), "the depth must be at least 1, got 0"),
        (lambda: CircularConvolution(3, 0), "the depth must be at least 1, got 0"),
        (lambda: LinearNetwork(()), "a linear network needs the widths of its inputs and hidden layers"),
        (lambda: LinearNetwork((3, 0)), "each at least 1, got"),
        (lambda: Homogeneous(torch.sin, 3, 1), "the function is not homogeneous of degree 1: doubled parameters must give 2 times w"),
    ],
)
def test_what_is_no_parametrization_is_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()
