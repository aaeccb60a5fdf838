"""Planted defences are named, plain models are left in peace, and looking changes nothing."""

from __future__ import annotations

import json
import random
import threading

import numpy as np
import pytest
import torch
from evaluation import zoo
from laws import images, restless, untouched
from oracles import Counting, halfway
from torch import nn

from robustlab.constraints import ThreatModel
from robustlab.data.catalog import open_dataset
from robustlab.errors import UserError
from robustlab.evaluation import diagnose
from robustlab.evaluation.probes import Watch
from robustlab.norms import L1, L2, Linf

X, Y = zoo.draw(40, seed=2)
THREAT = ThreatModel(Linf(), 8 / 255)
DEFENCES = zoo.defences(X, Y)


def names(model: nn.Module, n: int = 40, threat: ThreatModel = THREAT) -> list[str]:
    return [finding.name for finding in diagnose(model, X[:n], Y[:n], threat=threat)]


@pytest.mark.parametrize("defence", DEFENCES)
def test_a_planted_defence_is_named(defence):
    name, make = DEFENCES[defence]
    found = diagnose(make(), X, Y, threat=THREAT)
    assert name in [finding.name for finding in found]
    for finding in found:
        assert json.loads(json.dumps(finding.to_json())) == finding.to_json()
        assert str(finding).startswith(f"{finding.name}: ") and "\n" not in finding.sentence


@pytest.mark.parametrize("model", zoo.PLAIN)
@pytest.mark.parametrize("threat", [THREAT, ThreatModel(L2(), 0.5), ThreatModel(L1(), 6.0)], ids=repr)
def test_of_a_plain_model_nothing_is_said(model, threat):
    assert names(zoo.plain()[model], threat=threat) == []


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_images_are_no_reason(n):
    for model in zoo.plain().values():
        assert names(model, n) == []


@pytest.mark.data
def test_of_released_models_nothing_is_said(data_dir):
    some = open_dataset(None, str(data_dir), "test", limit=6)
    for model in zoo.released().values():
        labels = model.outputs_for(some.classes, some.name)[some.labels]
        assert diagnose(model, some.pixels.float() / 255, labels, threat=ThreatModel(L2(), 0.5)) == ()


def test_of_images_of_more_dimensions_or_fewer_and_float64():
    x = images(12, 27, dtype=torch.float64)
    model, y = halfway(x)
    assert {finding.name for finding in diagnose(model, x, y, threat=THREAT)} <= {"unstable"}


def test_half_precision_and_classes_switched_off_are_no_defences():
    for dtype in (torch.float16, torch.bfloat16):
        assert diagnose(zoo.standard().to(dtype), X.to(dtype), Y, threat=THREAT) == ()
    network, off = zoo.standard(), torch.tensor([3])
    assert diagnose(lambda x: network(x).index_fill(1, off, -torch.inf), X[Y != 3], Y[Y != 3], threat=THREAT) == ()


# Laws.


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("defence", ["a noise layer", "quantized input", "BatchNorm in training mode", "a table of test images"])
def test_the_order_of_the_images_changes_nothing(seed, defence):
    model = DEFENCES[defence][1]()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(seed))
    keys = torch.arange(12) * 7
    eps = ThreatModel(L2(), torch.linspace(0.1, 1, 12)), ThreatModel(L2(), torch.linspace(0.1, 1, 12)[order])
    first, second = (
        diagnose(model, X[rows], Y[rows], threat=threat, keys=keys[rows])
        for rows, threat in zip((torch.arange(12), order), eps, strict=True)
    )
    assert first == second


@pytest.mark.parametrize(
    "defence", ["a noise layer", "noise from numpy", "BatchNorm in training mode", "an inner loop", "detached preprocessing"]
)
def test_model_images_and_random_states_are_left_as_they_were(defence):
    model = DEFENCES[defence][1]()
    before = np.random.get_state()[1].tolist(), random.getstate()
    restless(model.network)
    with untouched(model, X, Y):
        diagnose(model, X[:4], Y[:4], threat=THREAT)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before


def test_also_when_the_model_fails_in_the_middle():
    calls = []

    def late(x):
        calls.append(1)
        if len(calls) == 9:
            raise KeyError("gone")
        return noisy(x)

    noisy = DEFENCES["noise from numpy"][1]()
    before = np.random.get_state()[1].tolist()
    with untouched(noisy, X), pytest.raises(KeyError, match="gone"):
        diagnose(late, X, Y, threat=THREAT)
    assert np.random.get_state()[1].tolist() == before


def test_what_it_costs():
    model, x = Counting(192), X[:6]
    with torch.no_grad():
        right = model(x).argmax(1)
    for y, scaled in ((right, 0), ((right + 1) % 3, 4)):
        model.counts.update(forward=0, input=0, weights=0)
        diagnose(model, x, y, threat=THREAT)
        assert model.counts == {"forward": 23 + scaled, "input": 10, "weights": 0}


def test_of_many_images_a_hundred_are_looked_at():
    x, y = zoo.draw(130, seed=3)
    (found,) = [one for one in diagnose(DEFENCES["detached preprocessing"][1](), x, y, threat=THREAT)]
    assert found.name == "no-gradient" and found.numbers["n"] == 100


# Gradients within a forward pass.


@pytest.mark.parametrize(
    "inner",
    [
        lambda x: torch.autograd.grad((x * x).sum(), x),
        lambda x: (x * x).sum().backward(),
        lambda x: torch.autograd.backward((x * x).sum()),
        lambda x: torch.func.grad(lambda z: (z * z).sum())(x.detach()),
    ],
    ids=["grad", "Tensor.backward", "backward", "func.grad"],
)
def test_every_way_to_take_a_gradient_is_seen(inner):
    def model(x):
        with torch.enable_grad():
            inner(x.detach().requires_grad_())
        return x

    watch = Watch(model)
    watch(X)
    assert watch.took_gradients


def test_gradients_taken_elsewhere_are_not_the_models():
    """In another thread, or after a model that raised."""
    outside = threading.Event(), threading.Event()

    def busy():
        outside[0].wait(10)
        x = torch.ones(3, requires_grad=True)
        (x * x).sum().backward()
        outside[1].set()

    thread = threading.Thread(target=busy)
    thread.start()

    def waits(x):
        outside[0].set()
        outside[1].wait(10)
        return x

    watch = Watch(waits)
    watch(X)
    thread.join()
    assert not watch.took_gradients

    def raises(x):
        raise KeyError

    watch = Watch(raises)
    with pytest.raises(KeyError):
        watch(X)
    x = torch.ones(3, requires_grad=True)
    (x * x).sum().backward()
    assert not watch.took_gradients


# Numbers that do not agree, and what is refused.


def test_classes_and_targets_are_compared():
    model = zoo.standard()
    found = diagnose(model, X, Y, threat=THREAT, num_classes=5, targets=12)
    assert [one.name for one in found] == ["classes", "targets"]
    assert found[0].numbers == {"outputs": 10, "classes": 5} and "ask for 9" in found[1].sentence
    assert diagnose(model, X, Y, threat=THREAT, num_classes=10, targets=9) == ()


def test_images_divided_twice_are_named():
    assert "narrow-range" in [one.name for one in diagnose(zoo.standard(), X / 255, Y, threat=THREAT)]


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        (255 * X, Y, "divide by 255"),
        (X, torch.eye(10)[Y], r"labels must be class indices of shape \(40,\), got \(40, 10\): of one-hot rows pass y.argmax\(1\)"),
        (X, Y + 5, r"labels go up to 14, but the model has 10 classes"),
    ],
)
def test_what_is_no_input_is_refused(x, y, says):
    with pytest.raises(UserError, match=says):
        diagnose(zoo.standard(), x, y, threat=THREAT)
