"""Laws of a stand-in that takes up weights again: it is a fresh one, bit by bit. And what a graph would lose is not traced."""

from __future__ import annotations

import random
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from foldable import NETWORKS, X, assert_same, every_network, hooked, lived_in, norms_in, plain, seeded
from laws import images, untouched
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from robustlab.errors import UserError
from robustlab.models import folding
from robustlab.models.accelerate import accelerate
from robustlab.models.folding import fold_batch_norm
from robustlab.models.zoo import build
from robustlab.training.distributed import SyncedBatchNorm2d

every_precision = pytest.mark.parametrize("dtype", [None, torch.bfloat16])


def moved(model: nn.Module) -> None:
    """Other weights and statistics, by every way in which they come: in place, as new memory, in training mode."""
    for i, parameter in enumerate(model.parameters()):
        step = 0.1 * torch.ones_like(parameter).cumsum(0) / len(parameter)
        if i % 2:
            parameter.data = parameter.detach() + step
        else:
            with torch.no_grad():
                parameter.add_(step)
    lived_in(model)


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    ours, theirs = one.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]) and ours[name].stride() == theirs[name].stride(), name
    assert torch.equal(one(X), other(X))


@pytest.fixture
def traced(monkeypatch) -> list[nn.Module]:
    """The models that are traced from now on."""
    seen: list[nn.Module] = []
    once = folding._traced
    monkeypatch.setattr(folding, "_traced", lambda model: (seen.append(model), once(model))[1])
    return seen


@every_network
@every_precision
def test_a_stand_in_that_takes_up_weights_is_a_fresh_one(make, left, dtype, traced):
    model = seeded(make)
    fast = accelerate(model, dtype=dtype)
    del traced[:]
    moved(model)
    with untouched(model, X):
        fast.refresh(model)
    assert not traced
    assert_equal(fast, accelerate(model, dtype=dtype))


@pytest.mark.parametrize("arch", ["small", "preact_small", "vgg_small"])
@every_precision
def test_so_is_one_of_our_networks_after_training(arch, dtype, traced):
    model = build(arch, num_classes=3)
    fast = accelerate(model, dtype=dtype)
    del traced[:]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    F.cross_entropy(model.train()(images(4, 3, 16, 16)), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    fast.refresh(model)
    assert not traced and all(module.training for module in model.modules())
    fresh = accelerate(model, dtype=dtype)
    assert all(torch.equal(a, b) for a, b in zip(fast.state_dict().values(), fresh.state_dict().values(), strict=True))


class Tied(nn.Module):
    """Two convolutions with one weight, of which one has a BatchNorm behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm, self.two = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(self.norm(self.one(x))).flatten(1)


class Computes(nn.Module):
    """A tensor that is no parameter and no buffer, of which a number is computed: that becomes part of the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.scale = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), torch.tensor(2.0)

    def forward(self, x):
        return self.norm(self.conv(x * (self.scale + 1))).flatten(1)


def test_layers_that_share_a_weight():
    model = seeded(Tied)
    fast = accelerate(model)
    assert norms_in(fast) == 0
    moved(model)
    fast.refresh(model)
    assert_equal(fast, accelerate(model))
    assert_same(fast, model)


def test_what_is_computed_while_tracing_is_computed_again():
    model = seeded(Computes)
    fast = accelerate(model)
    model.scale.mul_(3)
    fast.refresh(model)
    assert_same(fast, model)


@pytest.mark.parametrize(
    "change",
    {
        "a hook": lambda model: model[0].register_forward_hook(lambda module, args, output: output.tanh()),
        "another layer": lambda model: model.__setitem__(2, nn.Sigmoid()),
        "another setting": lambda model: setattr(model[3], "padding", (1, 1)),
        "another width": lambda model: model.__setitem__(0, nn.Conv2d(3, 6, 3)),
        "a computed weight": lambda model: spectral_norm(model[0]),
        "another forward pass": lambda model: setattr(model[2], "forward", torch.tanh),
        "weights that are copies": lambda model: setattr(model[1], "weight", nn.Parameter(model[1].weight.detach() * 2)),
    }.values(),
)
def test_a_model_of_another_structure_is_traced_anew(change):
    model = seeded(plain)
    fast = accelerate(model)
    change(model)
    model.eval()
    fast.refresh(model)
    assert_same(fast, model)
    assert_equal(fast, accelerate(model))


class Rounds(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return (8 * x).round() / 8

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad


class Own(nn.Module):
    """A convolution and its BatchNorm, around something that a graph does not record."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.conv, self.norm = what, nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x):
        if self.what == "gradient":
            x = Rounds.apply(x)
        elif self.what == "constant":
            with torch.no_grad():
                factor = (8 * x).sigmoid()
            x = x * factor
        elif self.what == "precision":
            with torch.autocast("cpu", torch.bfloat16):
                x = F.conv2d(x, self.conv.weight).float()
        elif self.what == "path" and self.scale > 1:
            x = 1 - x
        elif self.what == "number":
            x = x * self.scale.item()
        return self.norm(self.conv(x)).flatten(1)


@pytest.mark.parametrize("what, left", [("gradient", 1), ("constant", 1), ("precision", 1), ("path", 1), ("number", 0), ("nothing", 0)])
def test_what_a_graph_would_lose_is_not_traced(what, left):
    model = seeded(lambda: Own(what))
    fast = accelerate(model)
    assert norms_in(fast) == left
    assert_same(fast, model)
    moved(model)
    model.scale.mul_(-1)
    fast.refresh(model)
    assert_same(fast, model)


class Draws(nn.Module):
    def __init__(self, draw) -> None:
        super().__init__()
        self.draw, self.conv, self.norm = draw, nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.norm(self.conv(x + self.draw(x))).flatten(1)


@pytest.mark.parametrize(
    "draw",
    {
        "as the images": torch.randn_like,
        "as many": lambda x: torch.randn(x.shape),
        "one for all": lambda x: torch.randn(3, 1, 1),
        "Python": lambda x: random.random(),
        "numpy": lambda x: float(np.random.rand()),
        "dropout": lambda x: F.dropout(x, 0.5, training=True),
    }.values(),
)
def test_a_random_model_stays_random_and_tracing_draws_nothing(draw):
    model = seeded(lambda: Draws(draw))
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    fast = accelerate(model)
    assert torch.equal(states[0], torch.get_rng_state()) and states[1:] == (random.getstate(), np.random.get_state()[1].tolist())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert not torch.equal(fast(X), fast(X))
    random.setstate(states[1])
    np.random.seed(0)


def test_a_model_that_cannot_be_copied_is_told_in_one_sentence():
    model = plain()
    model.seen = model(X)  # a tensor that was computed cannot be copied
    with pytest.raises(UserError, match="the model cannot be copied, so there is no stand-in for it: Only Tensors created explicitly"):
        accelerate(model)


def test_batch_norm_of_several_processes_is_folded_too():
    model = seeded(plain)
    for kind in (nn.SyncBatchNorm, SyncedBatchNorm2d):
        model[1].__class__ = kind
        fast = fold_batch_norm(model)
        assert norms_in(fast) == 0 and not any(isinstance(module, nn.SyncBatchNorm) for module in fast.modules())
        model[1].__class__ = nn.BatchNorm2d
        assert_same(fast, model)


class Normed(nn.BatchNorm2d):
    def forward(self, x):
        return 2 * super().forward(x)


class Padded(nn.Conv2d):
    def forward(self, x):
        return super().forward(x.abs())


@pytest.mark.parametrize("place, kind, left", [(0, Padded, 1), (1, Normed, 2)])  # the second cannot be traced at all
def test_layers_of_ones_own_kind_are_not_folded(place, kind, left):
    model = seeded(plain)
    model[place].__class__ = kind
    fast = accelerate(model)
    assert norms_in(fast) == left
    assert_same(fast, model)


def test_other_threads_may_compute_while_a_model_is_traced(monkeypatch):
    """``torch.fx`` patches all modules meanwhile."""
    model, other, found = seeded(plain), seeded(plain), []
    expected = other(X)

    class Elsewhere(nn.Module):
        def forward(self, x):
            thread = threading.Thread(target=lambda: found.append(other(X)))
            thread.start()
            thread.join()
            return x

    network = nn.Sequential(model, Elsewhere()).eval()
    monkeypatch.setattr(Elsewhere, "__deepcopy__", lambda self, memo: self, raising=False)
    assert norms_in(fold_batch_norm(network)) == 0
    assert len(found) == 1 and torch.equal(found[0], expected)


def test_hooks_work_on_the_copy():
    model = seeded(hooked)
    fast = accelerate(model)
    moved(model)
    fast.refresh(model)
    assert norms_in(fast) == NETWORKS["hooked"][1]
    assert_same(fast, model)
