"""On a device: the same results as on the CPU, and no waiting for it where there need be none."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import count
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import torch
from laws import ALL_NORMS, every_norm, images
from pretend import Device, pretending
from torch import Tensor, nn

from robustlab.attacks import FGSM, MIFGSM, NFGSM, PGD, Transfer
from robustlab.commands import main
from robustlab.constraints import ThreatModel
from robustlab.construction import KINDS, ConstructedSet, Plan, construct, published_construction
from robustlab.data.imageset import ImageSet
from robustlab.data.shapes import shapes
from robustlab.demo.page import make_page
from robustlab.demo.session import Frame, RunRequest, perform
from robustlab.devices import choose_device, computes_bfloat16
from robustlab.errors import UserError
from robustlab.evaluation import Report, curve, evaluate, predictions
from robustlab.goals import Away, Targeted, dlr, margin
from robustlab.models.architectures import BODIES, build
from robustlab.models.classifier import Classifier
from robustlab.models.resnet import BasicBlock, ResNet
from robustlab.models.zoo import load
from robustlab.norms import L2, Linf
from robustlab.pixels import to_float
from robustlab.seeding import example_keys
from robustlab.settings import OPTIMIZERS, Training
from robustlab.synthesis import Pictures, synthesize
from robustlab.synthesis.tasks import TASKS
from robustlab.training import Stopped, train
from robustlab.training.fit import Optimization, TrainingState
from robustlab.training.losses import TRADES, Adversarial, Standard, TrainingLoss
from robustlab.training.method import complete
from robustlab.training.recipes import RECIPES

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


def test_it_shows_a_change_of_shape_in_place(device):
    x = X[:1].to(device.name)
    x.squeeze_(0).transpose_(0, 2)
    assert x.shape == (8, 8, 3) and torch.equal(x.cpu(), X[0].transpose(0, 2)) and torch.equal((x + 1).cpu(), X[0].transpose(0, 2) + 1)


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
    "transfer": Transfer(THREATS[1], 3, nesterov=True, scales=2, diversity=0.7, kernel=5, neighbours=2),
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
    found = attack(model, x, y, keys=keys if keyed else None, accelerate=False)
    assert sum(device.stops.values()) <= 2, device.stops
    assert not device.copies, device.copies
    assert_same(found, expected)


def test_on_a_stand_in_of_its_own_an_attack_stops_the_device_twice_more(tiny_model, device):
    """For the checksum of the weights, and for a comparison at what was found."""
    attack = PGD(THREATS[1])
    expected = attack(tiny_model, X, Y, keys=KEYS)
    model, x, y, keys = moved(tiny_model, device), *(t.to(device.name) for t in (X, Y, KEYS))
    attack(model, x, y, keys=keys)
    device.forget()
    found = attack(model, x, y, keys=keys)
    assert sum(device.stops.values()) == 4, device.stops
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


# Everything that the library does: on a small network with BatchNorm, and a few *shapes*.

SHAPES, TEST = shapes(40), shapes(12, "test")
QUIET: dict[str, Any] = {"progress": False}
T = TypeVar("T")
FEW: dict[str, Any] = {"epochs": 2, "batch_size": 8, "val_size": 8, "arch": "narrow", "amp": False}
STEPS = 4  # of an epoch: 40 images without the 8 that choose it, by 8


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Classifier:
    """A classifier of *shapes* by an architecture of that name, in evaluation mode."""
    monkeypatch.setitem(BODIES, "narrow", lambda channels: ResNet(BasicBlock, (1, 1), (4, 8), channels))
    return narrow_with_seed(0)


def narrow_with_seed(seed: int) -> Classifier:
    return build("narrow", num_classes=10, classes=SHAPES.classes, mean=[0.4] * 3, std=[0.2] * 3, seed=seed).eval()


def assert_same_model(there: nn.Module, here: nn.Module, *, exactly: bool = False) -> None:
    for name, tensor in here.state_dict().items():
        found = there.state_dict()[name].cpu()
        assert torch.equal(found, tensor.cpu()) if exactly else torch.allclose(found, tensor.cpu(), rtol=0, atol=1e-6), name


def assert_same_numbers(there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    assert there == pytest.approx(dict(here), abs=1e-5, nan_ok=True)


class Watched:
    """A ``stop`` for a training that never says so, and knows what each step cost the device."""

    def __init__(self, device: Device) -> None:
        self.device, self.seen = device, []

    def __call__(self) -> bool:
        self.seen.append((self.device.stops.total(), self.device.copies.total()))
        return False

    def assert_free(self, steps: int, epochs: int = 2) -> None:
        """Between two steps of an epoch the device was neither stopped nor copied to; asked once more at the end of each."""
        assert len(self.seen) == epochs * (steps + 1)
        for first in range(0, len(self.seen), steps + 1):
            assert len(set(self.seen[first : first + steps])) == 1, self.device


def attacked(recipe: str) -> dict[str, int]:
    """Two steps for a recipe that attacks in many."""
    return {"steps": 2} if RECIPES[recipe].steps > 1 else {}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [name for name in RECIPES if name not in ("noise", "consistency")])  # parts of smoothadv-l2
def test_a_recipe_trains_the_same_there_also_when_it_is_stopped_and_goes_on(recipe, narrow, device, tmp_path):
    test: dict[str, Any] = {"test": TEST, "test_attack": PGD(THREATS[1], steps=2)}
    options: dict[str, Any] = {"recipe": recipe, **test, **FEW, **QUIET, **attacked(recipe)}
    here = train(SHAPES, device="cpu", **options)
    watched = Watched(device)
    there = train(SHAPES, device=device.name, stop=watched, out=tmp_path / "whole", **options)
    watched.assert_free(STEPS)
    assert str(there.model.mean.device) == device.name
    assert_same_model(there.model, here.model)
    assert there.report.records == here.report.records and there.best_epoch == here.best_epoch
    for after, before in zip(there.history, here.history, strict=True):
        assert_same_numbers(*({name: line[name] for name in line if "second" not in name} for line in (after, before)))

    steps = count()
    with pytest.raises(Stopped):
        train(SHAPES, device=device.name, stop=lambda: next(steps) == 1, out=tmp_path / "parts", **options)
    resumed = train(SHAPES, device=device.name, out=tmp_path / "parts", resume=True, **test, **QUIET)
    assert_same_model(resumed.model, there.model, exactly=True)
    assert resumed.report.records == there.report.records
    assert_same_model(load(tmp_path / "parts/model.safetensors"), there.model, exactly=True)


@pytest.mark.parametrize(
    "option",
    [
        *({"optimizer": name} for name in OPTIMIZERS),
        {"clip": 0.1},
        {"ema": 0.9},
        {"awp": 0.01},
        {"accumulate": 2},
        {"label_smoothing": 0.1},
        {"no_augment": True},
        {"attack_in_train_mode": True},
        {"stand_in": "float32"},
        {"norm": "l1"},
    ],
    ids=str,
)
def test_whatever_the_settings_no_step_of_a_training_stops_the_device_or_copies_to_it(option, narrow, device, tmp_path):
    """Not after it was taken up again either."""
    options = {"recipe": "fast-l2", **FEW, **QUIET, **option}
    here, watched, steps = train(SHAPES, device="cpu", **options), Watched(device), count()
    with pytest.raises(Stopped):
        train(SHAPES, device=device.name, stop=lambda: next(steps) == STEPS, out=tmp_path, **options)
    there = train(SHAPES, device=device.name, stop=watched, out=tmp_path, resume=True, **QUIET)
    watched.assert_free(STEPS, epochs=1)
    assert_same_model(there.model, here.model)


def counted(device: Device, run: Callable[..., T], *args: Any) -> tuple[T, int]:
    """What a run gives, and how often it stopped the device."""
    device.forget()
    return run(*args), device.stops.total()


@pytest.mark.filterwarnings("ignore:.* needs a:UserWarning")
@pytest.mark.parametrize(("kind", "dtype"), [*((kind, "float32") for kind in KINDS), ("D_det", "uint8")])
def test_a_set_is_constructed_the_same_there_and_no_step_of_it_stops_the_device(kind, dtype, narrow, device):
    def made(steps: int, where: str) -> ConstructedSet:
        return construct(narrow, SHAPES, kind, steps=steps, dtype=dtype, shard_size=20, batch_size=16, device=where, **QUIET)

    here, (there, stops) = made(2, "cpu"), counted(device, made, 2, device.name)
    index = torch.arange(len(SHAPES))
    assert_same(to_float(there.images.fetch(index)), to_float(here.images.fetch(index)))
    assert torch.equal(there.images.labels, here.images.labels) and there.model == here.model
    for name, column in here.facts.items():
        assert_same(there.facts[name].double(), column.double())
    settings = {where: made.manifest["settings"] for where, made in (("cpu", here), ("pretend", there))}
    assert settings["pretend"] == {**settings["cpu"], "device": "pretend"}
    assert counted(device, made, 4, device.name)[1] == stops


def test_a_plan_reads_the_weights_once_and_in_one_piece(narrow, device):
    plan = Plan(published_construction("D_det"), SHAPES, moved(narrow, device), device=torch.device(device.name))
    device.forget()
    assert (
        plan.described()["model"] == plan.described()["model"] == Plan(published_construction("D_det"), SHAPES, narrow).described()["model"]
    )
    assert device.stops.total() == 1, device.stops


@dataclass(frozen=True)
class Halved:
    """A minimum-norm attack: the way to an adversarial image in a wide ball, or half of it where that is enough."""

    norm: L2 = L2()

    def __str__(self) -> str:
        return "halved"

    def __call__(self, model, x, y, *, keys=None, fast_model=None):
        x_adv = PGD(ThreatModel(self.norm, 2.0), steps=2)(model, x, y, keys=keys, fast_model=fast_model)
        half = (x + x_adv) / 2
        return torch.where((predictions(model, half) != y)[:, None, None, None], half, x_adv)


def test_an_evaluation_is_the_same_there_and_no_step_of_it_stops_the_device(narrow, device):
    data = ImageSet(SHAPES.pixels, predictions(narrow, to_float(SHAPES.pixels)), SHAPES.classes, "taken")  # all of them are attacked

    def found(model: nn.Module) -> Report:
        attacks = [*(PGD(threat, steps=2) for threat in THREATS), PGD(THREATS[1], steps=2, restarts=2), Halved()]
        return evaluate(model, data, attacks, batch_size=16, keep=True, **QUIET)

    there_model = moved(narrow, device)
    here, there = found(narrow), found(there_model)
    for after, before in zip(there.records, here.records, strict=True):
        assert (after.index, after.label, after.prediction) == (before.index, before.label, before.prediction)
        for name in before.attacks | before.nearest:
            assert vars((after.attacks | after.nearest)[name]) == pytest.approx(vars((before.attacks | before.nearest)[name]))
    for name, before in here.adversarial.items():
        after = there.adversarial[name]
        for column in fields(before):
            if isinstance(value := getattr(before, column.name), Tensor):
                assert_same(getattr(after, column.name).double(), value.double())
    few, many = (counted(device, evaluate, there_model, data, PGD(THREATS[1], steps)) for steps in (1, 3))
    assert few[1] == many[1]


@pytest.mark.parametrize("attack", [PGD(THREATS[1], steps=2), FGSM(THREATS[2]), Halved()], ids=str)
def test_a_curve_is_the_same_there(attack, narrow, device):
    radii = (0.0, 0.01, 0.1, 0.5, 1.0)
    assert curve(moved(narrow, device), SHAPES, attack, radii, **QUIET) == curve(narrow, SHAPES, attack, radii, **QUIET)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_makes_the_same_pictures_there_and_no_step_of_it_stops_the_device(task, narrow, device):
    known, judge = TASKS[task], narrow_with_seed(1)

    def made(where: str, steps: int = 2) -> Pictures:
        asked: dict[str, Any] = {"steps": steps} if known.presets else {}
        asked |= {"train": SHAPES} if known.training_images else {}
        return synthesize(task, narrow, SHAPES, n=6, batch_size=4, judge=judge if known.judged else False, device=where, **asked, **QUIET)

    here, (there, stops) = made("cpu"), counted(device, made, device.name)
    for (title, x), (_, before) in zip([*there.given, *there.rows], [*here.given, *here.rows], strict=True):
        assert torch.allclose(x.cpu(), before, rtol=0, atol=1e-5), title
    assert_same_numbers(there.numbers, here.numbers)
    assert_same(there.objective, here.objective)
    assert there.replay["models"] == here.replay["models"] and there.heads == here.heads and there.notes == here.notes
    assert torch.equal(there.sheet(), here.sheet())
    if known.presets:
        assert counted(device, made, device.name, 4)[1] == stops


@pytest.mark.parametrize("change", [{"target": 1}, {"target": 1, "minimize": True}, {"attribute": 0}, {"steps": 0}], ids=str)
def test_a_press_on_the_page_draws_the_same_there(change, narrow, device):
    narrow.classes = tuple("abcdefghij")  # of which no attribute is known, so that none need be learned
    frames: dict[str, list[Frame]] = {}
    results: dict[str, Frame] = {}
    for where in ("cpu", device.name):
        page = make_page({"narrow": narrow}, SHAPES, device=where)
        served, picture = page.models["narrow"], page.starters[-1].picture
        assert str(served.directions.device) == where
        frames[where] = []
        results[where] = perform(RunRequest(served, picture, **{"steps": 3, **change}), frames[where].append).frame
    for after, before in zip([*frames[device.name], results[device.name]], [*frames["cpu"], results["cpu"]], strict=True):
        assert (after.step, after.picture) == (before.step, before.picture)
        assert after.distance == pytest.approx(before.distance)
        assert after.logits == pytest.approx(before.logits, abs=1e-5) and after.levels == pytest.approx(before.levels, abs=1e-5)


# By its name.


def test_it_is_a_device_like_any_other(device):
    assert choose_device("pretend") == choose_device("pretend:0") == choose_device(torch.device("pretend:0"))
    with pytest.raises(UserError, match="there is no pretend:1: this machine has 1 GPUs"):
        choose_device("pretend:1")
    assert not computes_bfloat16(choose_device("pretend"))


def test_it_says_whether_it_is_fast_at_bfloat16(device, monkeypatch):
    """One place to change for whoever asks: training from Python, and commands."""
    for fast in (True, False):
        monkeypatch.setattr(torch.pretend, "bfloat16", fast)
        method = complete(Training(recipe="fast-l2"), bfloat16=computes_bfloat16(choose_device("pretend")))
        assert method.optimizing.amp is fast


def test_it_is_there_only_while_it_is_pretended(device):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pretend._device", None)
        with pytest.raises(UserError, match="device 'pretend' is not available on this machine"):
            choose_device("pretend")


def test_commands_take_it_and_say_the_same(narrow, device, tmp_path, capsys):
    said = []
    for where in ("cpu", "pretend"):
        out = str(tmp_path / where)
        words = ["--recipe", "fast-l2", "--arch", "narrow", "--epochs", "1", "--batch-size", "8", "--val-size", "8", "--no-amp"]
        assert main(["train", "--dataset", "shapes", "--limit", "40", "--device", where, "--out", out, *words]) == 0
        assert main(["evaluate", "--model", f"{out}/model.safetensors", "--dataset", "shapes", "--limit", "10", "--device", where]) == 0
        said.append(re.sub(r"\d+ img/s|[\d.]+ s\b", "", capsys.readouterr().out).replace(out, "OUT"))
    assert said[0] == said[1] != ""
