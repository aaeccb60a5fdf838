"""Laws of stand-ins: the same function up to rounding, on a copy, whatever the shape of the network."""

from __future__ import annotations

import pytest
import torch
from foldable import X, assert_same, every_network, lived_in, norms_in, plain, seeded
from laws import images, untouched
from torch import nn

from robustlab.models.accelerate import accelerate
from robustlab.models.folding import fold_batch_norm
from robustlab.models.zoo import build
from robustlab.norms import L2


@every_network
@pytest.mark.parametrize("channels_last", [True, False])
def test_the_stand_in_is_the_same_function(make, left, channels_last):
    model = seeded(make)
    assert_same(accelerate(model, channels_last=channels_last), model)


@every_network
def test_what_can_be_folded_is_folded_and_nothing_else(make, left):
    assert norms_in(fold_batch_norm(seeded(make))) == left


@every_network
def test_the_model_itself_is_untouched(make, left):
    model = seeded(make).train()
    with untouched(model, X):
        accelerate(model, dtype=torch.bfloat16)(X)


@pytest.mark.parametrize("arch, left", [("small", 0), ("resnet18", 0), ("preact_resnet18", 9), ("mlp", 0)])
def test_our_own_networks(arch, left):
    model = build(arch, num_classes=5, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.25])
    if arch != "mlp":
        lived_in(model)
    x = images(2, 3, 32, 32) if arch == "mlp" else images(2, 3, 16, 8)
    fast = accelerate(model.eval())
    assert_same(fast, model, x)
    assert norms_in(fast) == left


@pytest.mark.parametrize("arch", ["small", "preact_resnet18"])
def test_every_relu_of_our_networks_works_in_place(arch):
    relus = [module for module in fold_batch_norm(build(arch, num_classes=2)).modules() if isinstance(module, nn.ReLU)]
    assert relus and all(relu.inplace for relu in relus)


def test_a_stand_in_wants_no_gradient_of_its_weights_and_shares_none(tiny_model):
    fast = accelerate(tiny_model)
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    theirs = {parameter.data_ptr() for parameter in tiny_model.parameters()}
    assert not theirs & {parameter.data_ptr() for parameter in fast.parameters()}


def test_a_model_left_in_training_mode_is_copied_in_evaluation_mode(tiny_model):
    expected = tiny_model.eval()(X)
    torch.testing.assert_close(accelerate(tiny_model.train())(X), expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_keeps_the_callers_precision_outside_and_the_direction_of_the_gradient():
    model = seeded(lambda: nn.Sequential(*list(plain())[:-1], nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)))
    fast, y = accelerate(model, dtype=torch.bfloat16), torch.arange(4)
    grads = []
    for network in (model, fast):
        x = X.clone().requires_grad_()
        logits = network(x)
        assert logits.dtype == torch.float32
        grads.append(torch.autograd.grad(nn.functional.cross_entropy(logits, y, reduction="sum"), x)[0])
    cosine = (grads[0] * grads[1]).flatten(1).sum(1) / (L2().measure(grads[0]) * L2().measure(grads[1]))
    assert (cosine > 0.95).all()
    assert all(p.dtype == torch.bfloat16 for p in fast.parameters())


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("channels_last", [True, False])
def test_one_image_and_none(n, channels_last, tiny_model):
    x = X[:n]
    assert accelerate(tiny_model, channels_last=channels_last)(x).shape == (n, 10)


def test_images_that_are_no_pictures_pass_as_they_are():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    assert_same(accelerate(model), model, images(5, 6))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("layout", ["contiguous", "channels last", "transposed", "cut out"])
def test_a_gradient_lies_in_memory_as_its_input(layout, channels_last, dtype):
    x = {
        "contiguous": X.clone(),
        "channels last": X.contiguous(memory_format=torch.channels_last),
        "transposed": X.transpose(2, 3),
        "cut out": images(4, 3, 10, 10)[:, :, 1:9, 1:9],
    }[layout].requires_grad_()
    model = seeded(plain)
    (grad,) = torch.autograd.grad(accelerate(model, dtype=dtype, channels_last=channels_last)(x).sum(), x)
    assert grad.stride() == torch.empty_like(x).stride() and grad.dtype == x.dtype
    (wanted,) = torch.autograd.grad(model(x).sum(), x)
    torch.testing.assert_close(grad, wanted, rtol=1e-4 if dtype is None else 0.1, atol=1e-5 if dtype is None else 0.1)


def test_a_gradient_by_functional_transforms_is_the_same():
    model = seeded(plain)
    fast = accelerate(model)
    torch.testing.assert_close(
        torch.func.grad(lambda x: fast(x).sum())(X), torch.func.grad(lambda x: model(x).sum())(X), rtol=1e-4, atol=1e-5
    )
