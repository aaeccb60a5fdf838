"""Laws of borrowing: inside, evaluation mode and no gradients of weights; afterwards, bit for bit what it was."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from laws import images, restless, untouched
from torch import nn

from robustlab import L2, PGD, ThreatModel, UserError
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


def in_threads(*works: Callable[[], object]) -> list[object]:
    """What each work returns, all begun at once."""
    together = threading.Barrier(len(works))

    def begin(work: Callable[[], object]) -> object:
        together.wait()
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(begin, work) for work in works]]


@pytest.mark.parametrize("modes", [(False, False), (True, True), (True, False)], ids=["evaluation", "training", "one of each"])
def test_two_threads_get_what_each_gets_alone_and_leave_the_model_as_it_was(tiny_model, modes):
    """Also where one borrows in training mode: it waits for the other, and the other for it."""
    tiny_model = restless(tiny_model)
    y = torch.arange(4) % 3
    attacks = [PGD(ThreatModel(L2(), 0.5), steps=4, training_mode=mode) for mode in modes]
    alone = [attack(tiny_model, X, y) for attack in attacks]

    def again(attack: PGD) -> Callable[[], list[torch.Tensor]]:
        return lambda: [attack(tiny_model, X, y) for _ in range(20)]

    with untouched(tiny_model, X):
        together = in_threads(*(again(attack) for attack in attacks))
    for expected, results in zip(alone, together, strict=True):
        assert all(torch.equal(result, expected) for result in results)


def test_training_within_evaluation_in_two_threads_does_not_lock(tiny_model):
    """Both hold the model and want it for themselves: one after the other, while the other stands still."""
    tiny_model = restless(tiny_model)

    def borrow() -> list[torch.Tensor]:
        outputs = []
        with frozen(tiny_model):
            for _ in range(20):
                with frozen(tiny_model, training=True):
                    outputs.append(tiny_model(X))
                outputs.append(tiny_model(X))
        return outputs

    with untouched(tiny_model, X):
        expected = borrow()
        for found in in_threads(borrow, borrow, borrow):
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_the_last_of_two_threads_puts_back_what_the_first_found(model):
    """The first goes while the second still has the model; a part of it counts too."""
    entered, left, gone = threading.Event(), threading.Event(), threading.Event()
    some = model[2:]

    def second() -> bool:
        entered.wait()
        with frozen(some):
            left.set()
            gone.wait()
            return not any(part.training for part in some.modules()) and not any(p.requires_grad for p in some.parameters())

    def first() -> None:
        with frozen(model):
            entered.set()
            left.wait()
        gone.set()

    with untouched(model, X):
        assert in_threads(first, second)[1]


def test_an_error_in_one_thread_leaves_the_other_s_model_alone(tiny_model):
    entered, failed = threading.Event(), threading.Event()

    def failing() -> None:
        entered.wait()
        with pytest.raises(ValueError), frozen(tiny_model):
            raise ValueError
        failed.set()

    def working() -> bool:
        with frozen(tiny_model):
            entered.set()
            failed.wait()
            return not any(part.training for part in tiny_model.modules())

    tiny_model.train()
    with untouched(tiny_model, X):
        assert in_threads(failing, working)[1]


def test_weights_made_in_inference_mode_are_refused_and_left_as_they_are():
    with torch.inference_mode():
        model = nn.Linear(3, 2)
    with pytest.raises(UserError, match="made in torch.inference_mode"), frozen(model):
        pass
    assert all(parameter.requires_grad for parameter in model.parameters())
