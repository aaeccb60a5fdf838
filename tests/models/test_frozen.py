"""Laws of borrowing: inside, evaluation mode and no gradients of weights; afterwards, bit for bit what it was."""

from __future__ import annotations

import pytest
import torch
from laws import images, restless, untouched
from torch import nn

from robustlab.models.frozen import frozen

X = images(4, 3, 8, 8)


class Noisy(nn.Module):
    """Functional dropout that is always on: every forward pass draws from the global random state."""

    def forward(self, x):
        return nn.functional.dropout(x, 0.5, training=True)


class Unstable(nn.Module):
    """A submodule that keeps on counting in any mode, in place and by assigning a new buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("in_place", torch.zeros(3))
        self.register_buffer("assigned", torch.zeros((), dtype=torch.int64), persistent=False)
        self.register_buffer("absent", None)

    def forward(self, x):
        self.in_place += 1
        self.assigned = self.assigned + 1
        return x


@pytest.fixture
def model(tiny_model) -> nn.Module:
    return restless(nn.Sequential(Noisy(), Unstable(), *tiny_model))


def test_inside_every_submodule_evaluates_and_no_weight_wants_a_gradient(model):
    with frozen(model) as inside:
        assert inside is model
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())


def test_inside_training_mode_every_submodule_trains_and_still_no_weight_wants_a_gradient(model):
    with frozen(model, training=True):
        assert all(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("training", [False, True])
def test_afterwards_all_is_as_before(model, training):
    with untouched(model, X), frozen(model, training=training):
        x = X.clone().requires_grad_()
        model(x).sum().backward()
        assert x.grad is not None


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("caller", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_also_under_a_caller_without_gradients(model, training, caller):
    with caller(), untouched(model), frozen(model, training=training):
        model(X)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_also_after_an_exception(model, training, error):
    with untouched(model), pytest.raises(error), frozen(model, training=training):
        model(X)
        raise error


def test_also_when_frozen_within_frozen_and_training_within_evaluation(model):
    with untouched(model), frozen(model), frozen(model, training=True), frozen(model):
        assert not model.training
        model(X)


def test_a_frozen_batch_norm_in_a_training_model_stays_in_evaluation_mode(tiny_model):
    """Transfer learning: ``model.train()`` afterwards would wake every layer."""
    tiny_model.train()
    tiny_model[1].eval()
    with frozen(tiny_model):
        pass
    assert tiny_model.training and not tiny_model[1].training and tiny_model[4].training


def test_the_statistics_of_training_mode_are_put_back(tiny_model):
    """BatchNorm writes them past autograd's version counters, so a change cannot be seen there."""
    before = {name: buffer.clone() for name, buffer in tiny_model.named_buffers()}
    with frozen(tiny_model, training=True):
        tiny_model(X + 3)
        assert not torch.equal(tiny_model[1].running_mean, before["1.running_mean"])
    assert before and all(torch.equal(buffer, before[name]) for name, buffer in tiny_model.named_buffers())


def test_gradients_under_way_are_neither_lost_nor_changed(tiny_model):
    """A loss worked out before the model was lent can still be differentiated, with gradients already accumulated."""
    tiny_model(X).sum().backward()
    loss = tiny_model(X).sum()
    kept = [p.grad for p in tiny_model.parameters()]
    values = [grad.clone() for grad in kept]
    with frozen(tiny_model, training=True):
        tiny_model(X)
    assert all(p.grad is grad for p, grad in zip(tiny_model.parameters(), kept, strict=True))
    assert all(map(torch.equal, kept, values))
    loss.backward()
    assert all(torch.allclose(p.grad, 2 * value, rtol=1e-4, atol=1e-5) for p, value in zip(tiny_model.parameters(), values, strict=True))


def test_draws_inside_are_the_callers_own_and_come_again(model):
    """Inside, the random state goes on from the caller's; outside, it never moved."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        with frozen(model):
            first = torch.rand(3)
        assert torch.equal(torch.rand(3), first)


def test_a_model_without_parameters_can_be_frozen():
    with frozen(nn.Flatten()) as model:
        assert model(X).shape == (4, 192)


def test_of_a_function_only_the_random_state_is_known():
    before = torch.get_rng_state()
    with frozen(lambda x: 2 * x) as model:
        torch.rand(3)
        assert torch.equal(model(X), 2 * X)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_put_into_evaluation_mode_and_back_and_a_frozen_one_is_left_as_it_is(tiny_model):
    script = torch.jit.trace(tiny_model, X)
    script.train()
    list(script.children())[4].eval()
    with frozen(script):
        assert not any(module.training for module in script.modules())
        torch.testing.assert_close(script(X), tiny_model(X))
    assert [module.training for module in script.children()] == [True] * 4 + [False] + [True] * 4
    fixed = torch.jit.freeze(torch.jit.trace(tiny_model.eval(), X))
    with frozen(fixed, training=True):
        torch.testing.assert_close(fixed(X), tiny_model(X), rtol=1e-4, atol=1e-5)
