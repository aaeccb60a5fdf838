"""On a device: the same results as on the CPU, and no waiting for it where there need be none."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from laws import ALL_NORMS, every_norm, images
from pretend import Device, pretending
from torch import Tensor, nn

from robustlab.attacks import FGSM, MIFGSM, NFGSM, PGD
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.goals import Away, Targeted, dlr, margin
from robustlab.norms import L2, Linf
from robustlab.seeding import example_keys
from robustlab.training.fit import Optimization, TrainingState
from robustlab.training.losses import TRADES, Adversarial, Standard, TrainingLoss

X, Y, KEYS = images(6, 3, 8, 8), torch.arange(6), example_keys(0, torch.arange(6))


@pytest.fixture
def device() -> Iterator[Device]:
    with pretending() as there:
        yield there


# The double itself.


def test_it_computes_what_the_cpu_computes_and_says_where_it_is(device):
    x = X.to(device.name)
    assert str(x.device) == device.name and (2 * x + 1).sum().device == x.device
    assert torch.equal((2 * x + 1).cpu(), 2 * X + 1)


def test_it_refuses_what_a_device_refuses(device):
    with pytest.raises(RuntimeError, match="tensors on pretend:0 and on the CPU"):
        X.to(device.name) + X
    assert torch.equal((X.to(device.name) + torch.tensor(2.0)).cpu(), X + 2), "a number is no tensor"


STOPS = {
    "a number": lambda x: float(x[0, 0, 0, 0]),
    "a list": lambda x: x[0, 0, 0].tolist(),
    "a decision": lambda x: bool((x > 2).any()),
    "a comparison": lambda x: torch.equal(x, x),
    "positions": lambda x: x.nonzero(),
    "a mask": lambda x: x[x > 0.5],
    "a copy": lambda x: x.cpu(),
}
COPIES = {
    "a tensor": lambda x: X.to(x.device),
    "a list": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "a number": lambda x: torch.tensor(1.0, device=x.device),
    "a number like another tensor": lambda x: x.new_tensor(3.0),
    "an index": lambda x: x[torch.tensor([0, 2])],
    "values in place": lambda x: x.copy_(X),
}
NEITHER = {
    "arithmetic": lambda x: (x.sub(0.5).clamp(0, 1) * 3).flatten(1).sum(1).argmax(),
    "filled": lambda x: (torch.full((3,), 2.0, device=x.device), torch.zeros_like(x), torch.arange(3, device=x.device)),
    "an index that is there": lambda x: x[torch.arange(2, device=x.device)],
    "choice": lambda x: torch.where(x > 0.5, x, 0),
}


@pytest.mark.parametrize("use", STOPS.values(), ids=STOPS)
def test_it_notes_what_stops_it(use, device):
    x = X.to(device.name)
    device.forget()
    use(x)
    assert sum(device.stops.values()) == 1 and not device.copies, device
    assert "test_device.py" in next(iter(device.stops))


@pytest.mark.parametrize("use", COPIES.values(), ids=COPIES)
def test_it_notes_what_is_copied_to_it(use, device):
    x = X.to(device.name)
    device.forget()
    use(x)
    assert sum(device.copies.values()) == 1 and not device.stops, device


@pytest.mark.parametrize("use", NEITHER.values(), ids=NEITHER)
def test_it_lets_pass_what_stays_on_it(use, device):
    x = X.to(device.name)
    device.forget()
    use(x)
    assert not device.stops and not device.copies


# Attacks.

THREATS = [ThreatModel(norm, eps) for norm, eps in zip(ALL_NORMS, (6.0, 0.5, 8 / 255), strict=True)]
ATTACKS = {
    **{f"{threat}": PGD(threat, steps=3) for threat in THREATS},
    **{f"{threat}, last": PGD(threat, steps=3, keep_best=False) for threat in THREATS},
    **{f"N-FGSM, {threat}": NFGSM(threat) for threat in THREATS},
    "FGSM": FGSM(ThreatModel(Linf(), 0.1)),
    "momentum": MIFGSM(ThreatModel(L2(), 0.5)),
    "in training mode": PGD(THREATS[1], steps=2, training_mode=True),
    "margin": PGD(THREATS[1], steps=2, surrogate=margin),
    "dlr": PGD(THREATS[1], steps=2, surrogate=dlr),
}


def moved(model: nn.Module, device: Device) -> nn.Module:
    return copy.deepcopy(model).to(device.name)


def assert_same(there: Tensor, here: Tensor) -> None:
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-6)


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
@pytest.mark.parametrize("keyed", [True, False], ids=["keys", "content"])
def test_an_attack_is_the_same_there_and_stops_the_device_twice(attack, keyed, tiny_model, device):
    """A look at what came in and one at what was found."""
    expected = attack(tiny_model, X, Y, keys=KEYS if keyed else None)
    model, x, y, keys = moved(tiny_model, device), *(t.to(device.name) for t in (X, Y, KEYS))
    device.forget()
    found = attack(model, x, y, keys=keys if keyed else None)
    assert sum(device.stops.values()) <= 2, device.stops
    assert not device.copies, device.copies
    assert_same(found, expected)


def test_goals_and_a_fast_model_are_the_same_there(tiny_model, device):
    with torch.no_grad():
        logits = tiny_model(X)
    model = moved(tiny_model, device)
    for here, there in ((Targeted(Y), Targeted(Y.to(device.name))), (Away(logits), Away(logits.to(device.name)))):
        attack = PGD(THREATS[1], steps=2)
        assert_same(attack(model, X.to(device.name), there, fast_model=moved(model, device)), attack(tiny_model, X, here))


@pytest.mark.parametrize("restarts", [2, 3])
def test_each_further_restart_stops_the_device_once_more(restarts, tiny_model, device):
    y = tiny_model(X).argmax(1)
    attack = PGD(ThreatModel(Linf(), 0.01), steps=1, restarts=restarts)
    expected = attack(tiny_model, X, y, keys=KEYS)
    model, x, labels, keys = moved(tiny_model, device), *(t.to(device.name) for t in (X, y, KEYS))
    device.forget()
    found = attack(model, x, labels, keys=keys)
    assert sum(device.stops.values()) == 2 + restarts - 1 and not device.copies, device
    assert_same(found, expected)


@every_norm
def test_a_radius_for_each_image_is_copied_there_and_not_at_each_step(norm, tiny_model, device):
    threat, copies = ThreatModel(norm, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), []
    model, x, y = moved(tiny_model, device), X.to(device.name), Y.to(device.name)
    for steps in (1, 5):
        attack = PGD(threat, steps=steps, restarts=2)
        device.forget()
        assert_same(attack(model, x, y), attack(tiny_model, X, Y))
        copies.append(sum(device.copies.values()))
    assert copies[0] == copies[1]


def test_labels_of_the_host_are_taken_along(tiny_model, device):
    attack = PGD(THREATS[1], steps=2)
    for y in (Y, Y.tolist(), Y.numpy()):
        assert_same(attack(moved(tiny_model, device), X.to(device.name), y), attack(tiny_model, X, Y))


# Training.

LOSSES: dict[str, TrainingLoss] = {
    "standard": Standard(0.1),
    **{f"PGD, {threat}": Adversarial(PGD(threat, steps=2, keep_best=False)) for threat in THREATS},
    **{f"N-FGSM, {threat}": Adversarial(NFGSM(threat), 0.1) for threat in THREATS},
    **{f"TRADES, {threat}": TRADES(PGD(threat, steps=2, keep_best=False)) for threat in THREATS},
    "in training mode": Adversarial(PGD(THREATS[1], steps=2, keep_best=False, training_mode=True)),
}


def step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: TrainingLoss, x: Tensor, y: Tensor, keys: Tensor) -> None:
    found = loss(model, SimpleNamespace(x=x, y=y, keys=keys))
    optimizer.zero_grad()
    found.loss.mean().backward()
    optimizer.step()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_training_step_is_the_same_there_and_neither_stops_the_device_nor_copies_to_it(loss, tiny_model, device):
    tiny_model[6].p = 0.0  # dropout draws from the device's own random numbers
    tiny_model.train()
    models, batches = (tiny_model, moved(tiny_model, device)), ((X, Y, KEYS), tuple(t.to(device.name) for t in (X, Y, KEYS)))
    for model, batch in zip(models, batches, strict=True):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
        for _ in range(2):
            device.forget()
            step(model, optimizer, loss, *batch)
            assert not device.stops, device.stops
            assert not device.copies, device.copies
    for here, there in zip(*(model.state_dict().values() for model in models), strict=True):
        assert_same(there, here)


def test_counting_a_step_and_flagging_divergence_neither_stops_the_device_nor_copies_to_it(tiny_model, device):
    model, settings = moved(tiny_model, device), Optimization()
    sums = torch.tensor([3.0, 6.0, 6.0], dtype=torch.float64).to(device.name)
    state = TrainingState.fresh(model, settings)
    state.add(["accuracy"], sums.clone())
    device.forget()
    state.add(["accuracy"], sums)
    assert not device.stops and not device.copies, device
    assert state.read(settings, 10).loss == 0.5
    assert sum(device.stops.values()) == 1, "all is read at once"
    model[1].running_var.fill_(float("inf"))
    state.add(["accuracy"], sums)
    with pytest.raises(UserError, match="training diverged: weights or statistics of BatchNorm are no longer finite in epoch 1"):
        state.read(settings, 10)
