"""Laws of searches on a stand-in that nobody asked for: nothing is different but the time, whatever becomes of the model."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import threading
from collections.abc import Callable

import pytest
import torch
from foldable import NETWORKS, X, lived_in, plain, seeded
from laws import images, untouched
from torch import Tensor, nn

from robustlab.attacks import APGD, DDN, FGSM, PGD, LineUp, Square
from robustlab.attacks.nearest import Within
from robustlab.constraints import ThreatModel
from robustlab.evaluation import evaluate
from robustlab.models import stand_ins
from robustlab.models.stand_ins import checksums, refreshed
from robustlab.norms import L2, Linf
from robustlab.seeding import example_keys

CALLS: list[int] = []  # sizes of the batches that a model was called with
OUTSIDE: list[float] = [1.0]  # what a model looks at beside its weights
Y = torch.arange(4)
KEYS = example_keys(0, torch.arange(4))
ATTACK = PGD(ThreatModel(Linf(), 0.05), steps=6)
LINEUP = LineUp([PGD(ThreatModel(L2(), 0.3), steps=5), Square(ThreatModel(L2(), 0.3), queries=6), APGD(ThreatModel(L2(), 0.3), steps=5)])


class Seen(nn.Module):
    """Notes how it is called, by its class's own forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Linear(6, 4)
        self.slope = 1.0

    def forward(self, x: Tensor) -> Tensor:
        CALLS.append(len(x) if isinstance(x, Tensor) else 0)
        seen = self.norm(self.conv(x)).relu().mean((2, 3))
        return OUTSIDE[0] * self.slope * self.head(4 * seen)


@pytest.fixture
def model() -> nn.Module:
    OUTSIDE[0] = 1.0
    model = seeded(Seen)
    CALLS.clear()
    return model


def itself(model: nn.Module, attack=ATTACK) -> Tensor:
    return attack(model, X, Y, keys=KEYS, accelerate=False)


def found(model: nn.Module, attack=ATTACK) -> Tensor:
    return attack(model, X, Y, keys=KEYS)


@pytest.mark.parametrize("attack", [ATTACK, *LINEUP.attacks, LINEUP], ids=str)
def test_it_finds_what_a_search_of_the_model_finds(attack, model):
    model.double()
    x = X.double()
    with untouched(model, x):
        ours = attack(model, x, Y, keys=KEYS)
    assert len(CALLS) < 16 or attack is LINEUP, "the model itself was searched"
    torch.testing.assert_close(ours, attack(model, x, Y, keys=KEYS, accelerate=False), rtol=0, atol=1e-8)


def test_the_steps_are_taken_elsewhere_and_the_stand_in_is_made_once(model):
    found(model)
    first = len(CALLS)
    assert torch.equal(found(model), found(model)) and len(CALLS) == first + 2, "once for each call, to compare what was found"
    CALLS.clear()
    itself(model)
    assert CALLS == [4] * 7
    ATTACK(model, X, Y, keys=KEYS, fast_model=model)
    assert CALLS == [4] * 14
    FGSM(ATTACK.threat)(model, X, Y)
    assert CALLS == [4] * 15, "one step is not worth it"


def written_past_torch(model: nn.Module) -> None:
    model.conv.weight.detach().numpy()[2, 1, 0, 2] += 0.5


def swapped(model: nn.Module) -> None:
    model.norm.running_mean.data = model.norm.running_mean.flip(0)


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "in place": lambda model: model.conv.weight.data.mul_(-1),
    "new memory": lambda model: setattr(model.norm.weight, "data", model.norm.weight.detach() - 2),
    "past torch": written_past_torch,
    "another order": swapped,
    "training": lambda model: lived_in(model),
    "a new parameter": lambda model: setattr(model.head, "weight", nn.Parameter(-model.head.weight.detach())),
    "another layer": lambda model: setattr(model, "norm", nn.BatchNorm2d(6).eval()),
    "a setting": lambda model: setattr(model, "slope", -1.0),
    "a hook": lambda model: model.norm.register_forward_hook(lambda module, args, out: -out),
    "a forward pass": lambda model: setattr(model.norm, "forward", lambda x: -x),
    "precision": lambda model: model.double(),
    "outside": lambda model: OUTSIDE.__setitem__(0, -1.0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_becomes_of_the_model_the_model_as_it_is_now_is_attacked(change, model):
    found(model)
    change(model)
    dtype = next(model.parameters()).dtype
    x = X.to(dtype)
    ours, theirs = (ATTACK(model, x, Y, keys=KEYS, accelerate=accelerate) for accelerate in (True, False))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert torch.equal(ours, ATTACK(copy.deepcopy(model), x, Y, keys=KEYS)), "as with a stand-in that is new"


class Fickle(nn.Module):
    """Draws noise in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x + 0.05 * torch.rand_like(x))


def loose() -> nn.Module:
    model = plain()
    model.seen = model(X)  # so it cannot be copied
    return model


ITSELF = {
    name: make for name, (make, _) in NETWORKS.items() if name in ("hooked", "spectral norm", "weight norm", "path depends on values")
}
ITSELF |= {"no convolution": NETWORKS["no convolution"][0], "random": Fickle, "cannot be copied": loose}


@pytest.mark.parametrize("make", ITSELF.values(), ids=ITSELF)
def test_where_there_can_be_no_stand_in_the_model_itself_is_searched(make):
    model = seeded(make)
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            ours = found(model)
            torch.manual_seed(0)
            assert torch.equal(ours, itself(model))


def test_not_where_something_else_decides_what_a_model_computes(model):
    for images_of in (X, X.double()):
        ATTACK(lambda x: model(x.float()), images_of, Y)
    with torch.autocast("cpu", torch.bfloat16):
        found(model)
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, out: None)
    found(model)
    handle.remove()
    assert CALLS == [4] * 4 * 7, "all steps on the model itself"


def test_it_goes_with_its_model_and_is_no_part_of_it():
    model = seeded(Seen)
    blank = copy.deepcopy(model)
    before = len(stand_ins._KEPT)
    found(model)
    assert len(stand_ins._KEPT) == before + 1
    assert vars(model).keys() == vars(blank).keys() and model.state_dict().keys() == blank.state_dict().keys()
    assert len(pickle.dumps(model)) == len(pickle.dumps(blank))
    del model
    gc.collect()
    assert len(stand_ins._KEPT) == before


def test_a_stand_in_can_be_pickled(model):
    fast = refreshed(model, torch.float32)
    again = pickle.load(io.BytesIO(pickle.dumps(fast)))
    assert torch.equal(again(X), fast(X))
    again.refresh(model)
    assert torch.equal(again(X), fast(X))


def test_threads_share_it(model):
    expected, results = found(copy.deepcopy(model)), []
    threads = [threading.Thread(target=lambda: results.append(found(model))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(results) == 4 and all(torch.equal(one, expected) for one in results)


@pytest.mark.parametrize("within", [torch.no_grad, torch.inference_mode])
def test_also_where_no_gradients_are_recorded(within, model):
    with within():
        first = found(model).clone()
    assert torch.equal(found(model), first)


def test_images_that_the_model_cannot_read_do_not_cost_it_the_stand_in(model):
    with pytest.raises(RuntimeError, match="channels"):
        ATTACK(model, X[:, :2], Y)
    with pytest.raises(RuntimeError, match="dtype|type"):
        ATTACK(model, X.double(), Y)
    found(model)
    CALLS.clear()
    found(model)
    assert len(CALLS) == 1


def test_no_image_at_all(model):
    assert ATTACK(model, X[:0], Y[:0]).shape == X[:0].shape


def test_an_evaluation_has_it_too(model):
    attack = PGD(ThreatModel(Linf(), 0.05), steps=6)
    with torch.no_grad():
        y = model(X).argmax(1)
    CALLS.clear()
    ours = evaluate(model, (X, y), attack, prove=False, progress=False)
    fast = len(CALLS)
    theirs = evaluate(model, (X, y), attack, prove=False, progress=False, fast_model=model)
    assert ours.rates() == theirs.rates()
    assert len(CALLS) - fast > fast - 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool])
@pytest.mark.parametrize("shape", [(7,), (4, 3, 2, 2), ()])
def test_a_checksum_sees_every_change_of_a_place_and_every_exchange(dtype, shape):
    layer = nn.Module()
    values = images(*(shape or (1,))).reshape(shape) if shape else torch.tensor(0.25)
    layer.register_buffer("it", (values * 100).to(dtype) if dtype != torch.bool else values > 0.5)
    before = checksums(layer)
    assert checksums(copy.deepcopy(layer)) == before
    flat = layer.it.view(-1)
    for place in range(len(flat)):
        kept = flat[place].clone()
        flat[place] = ~kept if dtype == torch.bool else kept + 1
        assert checksums(layer) != before
        flat[place] = kept
    assert checksums(layer) == before
    if len(flat) > 1 and flat[0] != flat[-1]:
        flat[[0, -1]] = flat[[-1, 0]]
        assert checksums(layer) != before


def test_a_checksum_sees_the_smallest_change_whatever_the_layout():
    conv = nn.Conv2d(4, 6, 3, bias=False).to(memory_format=torch.channels_last)
    before = checksums(conv)
    bits = conv.weight.detach().view(torch.int32)
    bits[3, 2, 1, 0] ^= 1
    assert checksums(conv) != before
    bits[3, 2, 1, 0] ^= 1
    assert checksums(conv) == before
    cut = nn.Module()
    cut.register_buffer("it", torch.arange(20.0).view(4, 5)[1:, 1:4])
    assert checksums(cut) == checksums(copy.deepcopy(cut))


def test_within_and_minimum_norm_attacks_count_their_steps():
    assert DDN(steps=20).passes_in_a_row == Within(DDN(steps=20), ThreatModel(L2(), 0.5)).passes_in_a_row == 20
    assert PGD(ThreatModel(L2(), 0.5), training_mode=True).passes_in_a_row == 0
