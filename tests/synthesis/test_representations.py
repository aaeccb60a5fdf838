"""Laws of looking into a network: what is read is the layer's output, nothing stays behind, and ReLUs open only inside."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from laws import drawn, images, restless, untouched
from torch import nn

from robustlab.errors import UserError
from robustlab.models.accelerate import accelerate
from robustlab.models.architectures import build
from robustlab.models.classifier import Classifier, Features
from robustlab.synthesis.representations import last_relu, layers, representation, straight_through_relu

X = images(4, 3, 8, 8)


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks) for module in model.modules())


def test_without_a_name_it_is_the_input_of_the_last_layer():
    model = build("small", num_classes=5, mean=[0.4] * 3, std=[0.2] * 3).eval()
    vectors = representation(model)(X)
    assert vectors.shape == (4, 128) and torch.equal(vectors, model.features(X)) and torch.equal(model.head(vectors), model(X))


def test_a_map_is_averaged_over_positions_and_a_vector_kept(tiny_model):
    torch.testing.assert_close(representation(tiny_model, "3")(X), tiny_model[:4](X).mean((2, 3)))
    assert torch.equal(representation(tiny_model, "7")(X), tiny_model[:8](X))
    assert torch.equal(representation(tiny_model, "8")(X), tiny_model(X))


def test_tokens_are_flattened_and_low_precision_is_widened():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.to_tokens = nn.Flatten(2)
            self.round = nn.Identity()

        def forward(self, x):
            return self.round(self.to_tokens(x).bfloat16()).float().mean(2)

    assert torch.equal(representation(Tokens(), "to_tokens")(X), X.flatten(1))
    coarse = representation(Tokens(), "round")(X)
    assert coarse.dtype == torch.float32 and torch.equal(coarse, X.bfloat16().float().flatten(1))
    assert representation(nn.Sequential(nn.Flatten()), "0")(X.double()).dtype == torch.float64


def test_every_layer_that_is_listed_can_be_read():
    model = build("small", num_classes=5).eval()
    assert {"body", "body.conv1", "body.layer3.0.relu2", "body.layer2.0.shortcut", "head"} <= set(layers(model)) and "" not in layers(model)
    for layer in layers(model):
        vectors = representation(model, layer)(X)
        assert vectors.ndim == 2 and len(vectors) == 4 and vectors.isfinite().all(), layer
    assert torch.equal(representation(model, "body")(X), model.features(X))


def test_a_list_of_modules_is_no_layer():
    class Listed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([nn.Flatten()])

        def forward(self, x):
            return self.parts[0](x)

    assert layers(Listed()) == ("parts.0",)


def test_the_gradient_is_that_of_the_layer(tiny_model):
    x, same = X.clone().requires_grad_(), X.clone().requires_grad_()
    representation(tiny_model, "4")(x).square().sum().backward()
    tiny_model[:5](same).mean((2, 3)).square().sum().backward()
    torch.testing.assert_close(x.grad, same.grad)


def test_a_relu_in_place_behind_the_layer_changes_nothing():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), nn.ReLU(inplace=True), nn.Linear(6, 2))
    vectors = representation(model, "1")(X)
    assert torch.equal(vectors, model[:2](X)) and (vectors < 0).any()


def test_a_module_that_runs_twice_counts_the_last_time():
    relu = nn.ReLU()
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 6), relu, nn.Linear(6, 5), relu, nn.Linear(5, 2))
    assert torch.equal(representation(model, "2")(X), model[:5](X))


def test_nothing_stays_behind(tiny_model):
    model = restless(tiny_model)
    with untouched(model.eval(), X):
        representation(model, "3")(X)
    assert hooks(model) == 0


def test_nothing_stays_behind_after_an_exception(tiny_model):
    for broken in (X[:, :, :4], X[0, 0, 0]):  # fails behind the layer, and in front of it
        with pytest.raises((RuntimeError, ValueError)):
            representation(tiny_model, "3")(broken)
        assert hooks(tiny_model) == 0


def test_an_unknown_layer_is_met_with_the_nearest_one():
    model = build("small", num_classes=5)
    with pytest.raises(UserError, match=r"unknown layer 'body.layer3.0.rellu2'. Did you mean 'body.layer3.0.relu2'\?"):
        representation(model, "body.layer3.0.rellu2")


def test_a_network_without_features_asks_for_a_layer(tiny_model):
    with pytest.raises(UserError, match="Sequential has no features of its own: name a layer, one of 0, 1, 2"):
        representation(tiny_model)


def test_a_layer_that_does_not_run_or_gives_no_tensor_is_refused():
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused, self.pair, self.whole = nn.Identity(), _Pair(), _Whole()

        def forward(self, x):
            return self.pair(x)[0] + self.whole(x)

    with pytest.raises(UserError, match="'unused' did not run"):
        representation(Odd(), "unused")(X)
    with pytest.raises(UserError, match="'pair' must give one value or more per image, got a tuple"):
        representation(Odd(), "pair")(X)
    with pytest.raises(UserError, match=r"'whole' .* got a tensor of shape \(1,\) for 4 images"):
        representation(Odd(), "whole")(X)


class _Pair(nn.Module):
    def forward(self, x):
        return x, x


class _Whole(nn.Module):
    def forward(self, x):
        return x.sum().reshape(1)


RELUS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "functional": F.relu,
    "functional in place": lambda x: F.relu(x, inplace=True),
    "functional in place by position": lambda x: F.relu(x, True),
    "functional by name": lambda x: F.relu(input=x),
    "functional, underscore": F.relu_,
    "torch": torch.relu,
    "torch, underscore": torch.relu_,
    "method": lambda x: x.relu(),
    "method, underscore": lambda x: x.relu_(),
    "in place, for its effect alone": lambda x: (F.relu_(x), x)[1],
}
every_relu = pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS.keys())


def gradient_through(relu, x):
    """Value and gradient of ``relu`` on a copy, weighted so that every place has its own gradient; and the copy afterwards."""
    x = x.clone().requires_grad_()
    copy = x.clone()
    y = relu(copy)
    (grad,) = torch.autograd.grad((y * torch.arange(1.0, 1 + y.numel()).view_as(y)).sum(), x)
    return y.detach(), grad, copy.detach()


@every_relu
def test_inside_every_relu_has_its_values_and_the_gradient_of_the_identity(relu):
    x = torch.tensor([[-2.0, -0.0, 0.0, 3.0, torch.inf, -torch.inf, 1e-45]])
    before, _, changed = gradient_through(relu, x)
    with straight_through_relu():
        value, grad, copy = gradient_through(relu, x)
    assert torch.equal(value, before) and torch.equal(copy, changed)
    assert torch.equal(grad, torch.arange(1.0, 8)[None])


@every_relu
def test_afterwards_relus_stop_gradients_again_also_after_an_exception(relu):
    class Wanted(Exception):
        pass

    with pytest.raises(Wanted), straight_through_relu():
        raise Wanted
    _, grad, _ = gradient_through(relu, torch.tensor([[-1.0, 2.0]]))
    assert torch.equal(grad, torch.tensor([[0.0, 2.0]]))


def test_other_functions_keep_their_gradients():
    x = drawn(3, 5)
    for function in (F.leaky_relu, F.elu, torch.tanh, lambda x: x.clamp_min(0), lambda x: F.dropout(x, 0.0)):
        outside = gradient_through(function, x)
        with straight_through_relu():
            assert all(map(torch.equal, gradient_through(function, x), outside))


def test_two_layers_become_a_product_of_matrices():
    first, second = nn.Linear(6, 9, dtype=torch.float64), nn.Linear(9, 4, dtype=torch.float64)
    x = drawn(5, 6).requires_grad_()
    with straight_through_relu():
        (grad,) = torch.autograd.grad(nn.Sequential(first, nn.ReLU(inplace=True), second)(x)[:, 2].sum(), x)
    torch.testing.assert_close(grad, (second.weight[2] @ first.weight).expand(5, 6))


def test_only_the_relus_of_one_module_open_when_it_is_named():
    """The gradient of ``v relu(B relu(A x))`` with the outer ReLU open alone: ``v B D A``, where ``D`` is the inner one's mask."""
    first, second = nn.Linear(6, 9, dtype=torch.float64), nn.Linear(9, 4, dtype=torch.float64)
    model = nn.Sequential(first, nn.ReLU(), nn.Sequential(second, nn.ReLU(inplace=True)), nn.Linear(4, 1, dtype=torch.float64))
    x = drawn(5, 6).requires_grad_()
    with straight_through_relu(model[2]):
        for _ in range(2):
            (grad,) = torch.autograd.grad(model(x).sum(), x)
            expected = (((first(x) > 0) * (model[3].weight @ second.weight)) @ first.weight).detach()
            torch.testing.assert_close(grad, expected)
    assert hooks(model) == 0
    for after in (None, model[1]):  # and it was shut again in between, as it is now
        shut = torch.autograd.grad(model(x).sum(), x)[0]
        assert not torch.allclose(shut, expected)
        with straight_through_relu(after):
            pass
        assert hooks(model) == 0


def test_a_failure_in_the_named_module_shuts_it_again():
    inner = nn.Linear(3, 3)
    model = nn.Sequential(nn.ReLU(), inner)
    x = torch.full((2, 3), -1.0, requires_grad=True)
    with straight_through_relu(inner):
        with pytest.raises(RuntimeError):
            inner(torch.ones(2, 5))
        assert torch.equal(torch.autograd.grad(model(x).sum(), x)[0], torch.zeros(2, 3))
    assert hooks(model) == 0


@pytest.mark.parametrize("arch", ["small", "preact_small", "vgg_small", "mlp"])
@pytest.mark.parametrize("fast", [False, True])
def test_in_our_networks_values_stay_and_units_that_are_off_wake(arch, fast):
    classifier = build(arch, num_classes=5).eval()
    last = [m for m in classifier.body.modules() if isinstance(m, nn.BatchNorm2d | nn.Linear)][-1]
    nn.init.constant_(last.bias, -100.0)  # every unit of the last block but what its shortcut carries
    model = accelerate(Features(classifier)) if fast else Features(classifier)
    x = images(2, 3, 32, 32).requires_grad_()
    outside = model(x)
    off = outside.detach().amax(0) == 0
    assert off.any()
    (shut,) = torch.autograd.grad(outside[:, off].sum(), x)
    with straight_through_relu():
        inside = model(x)
        (awake,) = torch.autograd.grad(inside[:, off].sum(), x)
    assert torch.equal(inside, outside)
    assert (shut == 0).all() and (awake.abs().flatten(1).amax(1) > 0).all()


def test_it_reaches_a_representation_and_leaves_the_model_alone(tiny_model):
    model = Classifier(tiny_model[:-1], tiny_model[-1], mean=[0.5] * 3, std=[0.2] * 3).eval()
    with untouched(model, X), straight_through_relu():
        representation(model, "body.5")(X)
        representation(model)(X)
    assert hooks(model) == 0


def test_the_last_relu_is_the_one_that_a_layer_ends_with():
    model = build("small", num_classes=5)
    assert last_relu(model) is last_relu(model, "head") is last_relu(model, "body.layer4") is model.body.layer4[0].relu2
    assert last_relu(model, "body.layer2.0") is model.body.layer2[0].relu2
    assert last_relu(model, "body.layer2.0.conv2") is model.body.layer2[0].relu1
    assert last_relu(model, "body.conv1") is None
    assert last_relu(build("preact_small", num_classes=5)).__class__ is nn.ReLU
    with pytest.raises(UserError, match="unknown layer 'body.layer9'"):
        last_relu(model, "body.layer9")


def test_a_unit_that_is_off_wakes_with_the_last_relu_open():
    model = build("small", num_classes=5).eval()
    x = X.clone().requires_grad_()
    model.body.layer4[0].bn2.bias.data.fill_(-100.0)  # everything is off
    (shut,) = torch.autograd.grad(representation(model)(x).sum(), x)
    with straight_through_relu(last_relu(model)):
        (open_,) = torch.autograd.grad(representation(model)(x).sum(), x)
    assert (shut == 0).all() and (open_ != 0).any()
