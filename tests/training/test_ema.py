"""The average of the weights against its definition, written as a loop."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustlab.training.ema import average_in, averaged_copy


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2)).double()


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def wander(model: nn.Module, seed: int) -> None:
    """Change every parameter, and the statistics of BatchNorm."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        model.train()(torch.rand(8, 3, 8, 8, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_average_is_the_recursive_mean_with_a_decay_that_warms_up(model: nn.Module, decay: float) -> None:
    average = averaged_copy(model)
    expected = snapshot(model)
    for n in range(20):
        wander(model, n)
        average_in(average, model, decay, n)
        rate = min(decay, (1 + n) / (10 + n))
        now = model.state_dict()
        expected = {k: rate * v + (1 - rate) * now[k] if v.is_floating_point() else now[k] for k, v in expected.items()}
    for name, value in average.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-12)


def test_statistics_of_batch_norm_are_averaged_and_its_counter_is_copied(model: nn.Module) -> None:
    average = averaged_copy(model)
    for n in range(3):
        wander(model, n)
        average_in(average, model, 0.9, n)
    assert average[1].num_batches_tracked == model[1].num_batches_tracked == 3
    assert not torch.equal(average[1].running_mean, model[1].running_mean)
    assert not torch.equal(average[1].running_mean, torch.zeros(4, dtype=torch.float64))


def test_the_average_of_weights_that_stay_is_these_weights(model: nn.Module) -> None:
    before, average = snapshot(model), averaged_copy(model)
    for n in range(5):
        average_in(average, model, 0.99, n)
    for name, value in average.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-15)


def test_the_model_is_left_alone_and_the_average_cannot_be_trained(model: nn.Module) -> None:
    average = averaged_copy(model)
    wander(model, 0)
    before = snapshot(model)
    average_in(average, model, 0.5, 0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())
    assert not any(p.requires_grad for p in average.parameters())
    assert model.training and not any(module.training for module in average.modules())
    assert not {p.data_ptr() for p in average.parameters()} & {p.data_ptr() for p in model.parameters()}
