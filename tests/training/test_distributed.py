"""Two processes train as one does: the same normalization, gradients and losses, and one of them writes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.data.batches import Batches
from robustlab.data.imageset import ImageSet
from robustlab.norms import Linf
from robustlab.training import Adversarial, Epoch, Optimization, Standard, TrainingState, fit
from robustlab.training.distributed import ALONE, SyncedBatchNorm2d, World, join, synchronize_batch_norm

SETTINGS = Optimization(epochs=2, batch_size=8, lr=0.1, ema=0.9)
PGD2 = PGD(ThreatModel(Linf(), 8 / 255), steps=2, keep_best=False)


def test_alone_nothing_is_wrapped_summed_or_waited_for() -> None:
    model, values = network(), torch.tensor([1.0, 2.0])
    assert ALONE.leads
    assert ALONE.wrap(model) is model
    assert synchronize_batch_norm(model, ALONE) is model and type(model[1]) is nn.BatchNorm2d
    assert torch.equal(ALONE.sum(values), values)
    assert ALONE.any(True) and not ALONE.any(False)
    ALONE.wait()


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join(torch.device("cpu")) is ALONE
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert join(torch.device("cpu")) is ALONE


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes found; they are started once, since that takes seconds."""
    folder = tmp_path_factory.mktemp("two")
    mp.spawn(one_of_two, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def one_of_two(rank: int, folder: str) -> None:
    """Run in a process of its own."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    world = World(rank, 2)
    found = {
        "sum": world.sum(torch.tensor([1.0 + rank, 10.0])),
        "any": [world.any(flag) for flag in (False, True, rank == 1)],
        "leads": world.leads,
        "normalized": {mode: normalized(mode, rank) for mode in ("train", "eval", "cumulative", "far from zero")},
        "standard": trained(Standard(), world),
        "adversarial": trained(Adversarial(PGD2), world),
        "resumed": trained(Adversarial(PGD2), world, stop_after=3),
        "accumulated": trained(Standard(), world, accumulate=2),
        "perturbed": trained(Adversarial(PGD2), world, accumulate=2, awp=0.05),
        "on a stand-in": trained(Adversarial(PGD2, stand_in=torch.float64), world),
        "attack": collectives_of_an_attack(rank),
    }
    torch.save(found, f"{folder}/{rank}.pt")
    world.wait()
    dist.destroy_process_group()


def normalized(mode: str, rank: int | None) -> dict[str, Tensor]:
    """Output, gradients and statistics of a BatchNorm layer on a batch, or on this process's half of it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 5, 3, 4, generator=generator, dtype=torch.float64) * 2 + 1
    if mode == "far from zero":
        x += 1000
    towards = torch.randn(8, 5, 3, 4, generator=generator, dtype=torch.float64)
    layer = nn.BatchNorm2d(5, momentum=None if mode == "cumulative" else 0.1).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, generator=generator)
    layer.train(mode != "eval")
    if rank is not None:
        synchronize_batch_norm(nn.Sequential(layer), World(rank, 2))
        assert type(layer) is SyncedBatchNorm2d
        x, towards = x.chunk(2)[rank], towards.chunk(2)[rank]
    for _ in range(2):
        inputs = x.clone().requires_grad_()
        out = layer(inputs)
    (out * towards).sum().backward()
    gradients = {f"gradient of {name}": parameter.grad for name, parameter in layer.named_parameters()}
    return {"out": out.detach(), "gradient of x": inputs.grad, **gradients, **layer.state_dict()}


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(24, 3)
        ).double()


class Doubled(Batches):
    """Batches in float64."""

    def epoch(self, n: int, start: int = 0):
        for batch in super().epoch(n, start):
            object.__setattr__(batch, "x", batch.x.double())
            yield batch


def trained(loss: Any, world: World, stop_after: int | None = None, accumulate: int = 1, awp: float = 0.0) -> dict[str, Any]:
    """Two epochs, in float64, perhaps stopped and resumed on the way."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (40, 3, 8, 8), generator=generator, dtype=torch.uint8)
    images = ImageSet(pixels, torch.arange(40) % 3, ("a", "b", "c"), "noise")
    batches = Doubled(images, 8, seed=1, shuffle=True, drop_last=True, rank=world.rank, world_size=world.size)
    settings = replace(SETTINGS, accumulate=accumulate, awp=awp)
    epochs: list[Epoch] = []
    done = 0

    def stop() -> bool:
        nonlocal done
        done += 1
        return done == stop_after and world.leads  # only one of the processes is told to

    state = TrainingState.fresh(synchronize_batch_norm(network(), world), settings)
    epochs += fit(state, batches, loss, settings, world=world, stop=stop)
    if stop_after:
        assert done == stop_after
        saved = state.state_dict()
        saved["sums"] = world.sum(saved["sums"] * world.leads)  # as from the file that the leading process wrote
        state = TrainingState.fresh(synchronize_batch_norm(network(), world), settings)
        state.load_state_dict(saved)
        epochs += fit(state, batches, loss, settings, world=world)
    assert state.average is not None
    return {
        "losses": [epoch.loss for epoch in epochs],
        "accuracies": [epoch.accuracy for epoch in epochs],
        "model": state.model.state_dict(),
        "average": state.average.state_dict(),
    }


def collectives_of_an_attack(rank: int) -> bool:
    """Whether an attack that only one process makes comes back; it would wait for the other one if it synchronized."""
    model = synchronize_batch_norm(network(), World(rank, 2))
    wrapped = World(rank, 2).wrap(model)
    if rank == 0:
        PGD2(wrapped.module, torch.full((2, 3, 8, 8), 0.5, dtype=torch.float64), torch.tensor([0, 1]))
    return all(module.training for module in wrapped.modules())


@pytest.mark.parametrize("mode", ["train", "eval", "cumulative", "far from zero"])
def test_synchronized_batch_norm_is_batch_norm_on_the_whole_batch(two: list[dict[str, Any]], mode: str) -> None:
    whole = normalized(mode, None)
    halves = [found["normalized"][mode] for found in two]
    # Digits lost by subtracting 1000 are lost to torch's own BatchNorm, too.
    tolerance = 1e-7 if mode == "far from zero" else 1e-10
    for name in ("out", "gradient of x"):
        torch.testing.assert_close(torch.cat([half[name] for half in halves]), whole[name], rtol=0, atol=tolerance)
    for name in ("gradient of weight", "gradient of bias"):
        torch.testing.assert_close(halves[0][name] + halves[1][name], whole[name], rtol=0, atol=tolerance)
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        for half in halves:
            torch.testing.assert_close(half[name], whole[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "name, loss, settings",
    [
        ("standard", Standard(), {}),
        ("adversarial", Adversarial(PGD2), {}),
        ("resumed", Adversarial(PGD2), {}),
        ("accumulated", Standard(), {"accumulate": 2}),
        ("perturbed", Adversarial(PGD2), {"accumulate": 2, "awp": 0.05}),
        ("on a stand-in", Adversarial(PGD2, stand_in=torch.float64), {}),
    ],
)
def test_two_processes_train_as_one(two: list[dict[str, Any]], name: str, loss: Any, settings: dict[str, Any]) -> None:
    alone = trained(loss, ALONE, **settings)
    for found in two:
        assert found[name]["losses"] == pytest.approx(alone["losses"], abs=1e-10)
        assert found[name]["accuracies"] == alone["accuracies"]
        for kind in ("model", "average"):
            for key, value in alone[kind].items():
                torch.testing.assert_close(found[name][kind][key], value, rtol=0, atol=1e-9)


def test_both_processes_hold_the_same_bits(two: list[dict[str, Any]]) -> None:
    for name in ("standard", "adversarial", "resumed", "perturbed", "on a stand-in"):
        assert two[0][name]["losses"] == two[1][name]["losses"]
        for key, value in two[0][name]["model"].items():
            assert torch.equal(value, two[1][name]["model"][key])


def test_sums_and_flags_go_over_all_processes(two: list[dict[str, Any]]) -> None:
    for found in two:
        assert found["sum"].tolist() == [3.0, 20.0]
        assert found["any"] == [False, True, True]
    assert [found["leads"] for found in two] == [True, False]


def test_an_attack_waits_for_no_other_process(two: list[dict[str, Any]]) -> None:
    assert all(found["attack"] for found in two)
