"""The landscape of linear graph networks: the networks are those of ``gnn``, the loss is what it says, descent comes to rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from robustlab import gnn
from robustlab.errors import UserError
from robustlab.experiments import reproduce
from robustlab.experiments.graphs import landscape

SMALL = landscape.Condition(n=60, ratio=2.5, depth=3, graphs=2)


def test_many_networks_at_a_time_are_linear_networks_of_one_feature() -> None:
    graphs, theta = SMALL.drawn(0), landscape.starts(4, 3)
    found, c = landscape.outputs(graphs, theta), graphs.mean_degree
    for which in range(4):
        network = gnn.SGNN(1, landscape.OPERATORS, width=1, depth=3, linear=True).double()
        for layer, (own, degree, neighbours) in zip(network.layers, theta[which].tolist(), strict=True):
            layer.theta.weight.data = torch.tensor([[own - degree * c**0.5, degree / c**0.5, neighbours / c**0.5]], dtype=torch.float64)
            torch.nn.init.zeros_(layer.theta.bias)
        torch.nn.init.ones_(network.last.weight)
        torch.nn.init.zeros_(network.last.bias)
        torch.testing.assert_close(found[:, which : which + 1], network(graphs), rtol=1e-3, atol=1e-3)


def test_the_loss_is_of_the_angle_in_each_graph() -> None:
    graphs = SMALL.drawn(0)
    right = landscape.signs(graphs)
    x = torch.stack([right, -3 * right + 5, torch.randn(120, dtype=torch.float64, generator=torch.Generator().manual_seed(0))], 1)
    found = landscape.cosine_losses(graphs, x, right)
    assert found.shape == (2, 3) and found[:, :2].abs().max() < 1e-12
    cosine = torch.corrcoef(torch.stack([x[:60, 2], right[:60]]))[0, 1]
    torch.testing.assert_close(found[0, 2], 1 - cosine**2)
    assert landscape.overlaps(graphs, x[:, :1]).tolist() == [[1.0], [1.0]]


def test_a_start_is_a_function_of_its_number() -> None:
    assert torch.equal(landscape.starts(5, 3)[:2], landscape.starts(2, 3))
    assert torch.equal(landscape.starts(5, 3)[2:], landscape.starts(3, 3, first=2))


def test_conditions_change_one_thing_at_a_time() -> None:
    config = landscape.Config()
    assert len(config.conditions) == 8
    for condition in config.conditions:
        assert sum(getattr(condition, name) != getattr(config.base, name) for name in ("n", "ratio", "depth")) <= 1
    graphs = landscape.Condition(n=4000, ratio=1.5, graphs=1).drawn(0)
    a, b = ((graphs.y[graphs.tail] == graphs.y[graphs.head]).double().mean() * 6 * torch.tensor([1, -1]) + torch.tensor([0, 6])).tolist()
    assert gnn.signal_to_noise(a, b) == pytest.approx(1.5, abs=0.2)
    with pytest.raises(UserError, match="the signal-to-noise ratio is 0 to 3, got 4"):
        landscape.Condition(ratio=4)


def objective(theta: torch.Tensor) -> torch.Tensor:
    graphs = SMALL.drawn(0)
    return landscape.cosine_losses(graphs, landscape.outputs(graphs, theta), landscape.signs(graphs)).mean(0)


def test_second_derivatives_are_those_of_autograd() -> None:
    theta = landscape.starts(1, 3, first=7)
    right = torch.autograd.functional.hessian(lambda one: objective(one).sum(), theta).reshape(9, 9)
    for at_once in (1, 4, 100):
        torch.testing.assert_close(landscape.hessian(objective, theta, at_once), right, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("start", range(4))
def test_a_start_comes_to_rest_at_a_minimum(start: int) -> None:
    begin = landscape.starts(1, 3, first=start)
    found, lowest = landscape.arrived(objective, begin)
    loss, slope = landscape.slopes(objective, found)
    assert float(slope) < landscape.REST and float(loss) <= float(objective(begin))
    torch.testing.assert_close(found.norm(dim=2), torch.ones(1, 3, dtype=torch.float64))
    around = found + 0.02 * landscape.starts(200, 3, seed=5) * found.norm(dim=2, keepdim=True)
    assert lowest > -landscape.REST and float((objective(around) - loss).min()) > -1e-4


def test_what_is_no_minimum_is_seen() -> None:
    def saddle(theta: torch.Tensor) -> torch.Tensor:  # by the angles of two layers: at rest at (0, 0), down in one of them
        unit = theta / theta.norm(dim=2, keepdim=True)
        return unit[:, 0, 1] ** 2 - unit[:, 1, 1] ** 2

    end, lowest = landscape.arrived(saddle, torch.tensor([[[2.0, 0, 0], [3.0, 0, 0]]], dtype=torch.float64))
    assert end.tolist() == [[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]] and lowest == pytest.approx(-2)


def test_the_experiment_is_run_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landscape, "BLOCK", 4)
    small = {"seeds": 6, "steps": 60, "base": SMALL, "ns": (40,), "ratios": (2.5,), "depths": (2,)}
    said: list[str] = []
    found = reproduce("landscape", out=tmp_path, device="cpu", say=said.append, **small)
    assert len(said) == 6 and len(found.tables[0].rows) == 3
    for values in found.numbers["conditions"]:
        assert len(values["losses"]) == 6 and all(
            0 <= loss <= first + 1e-9 for loss, first in zip(values["losses"], values["first"], strict=True)
        )
        assert 0 < values["spectral"] < 1 and max(values["slope"]) < landscape.REST
        assert len(values["unseen"]) == len(values["curvature"]) == 6
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [f"landscape-{name}.png" for name in ("depth", "n", "ratio")]
    again = reproduce("landscape", out=tmp_path, device="cpu", say=said.append, **small)
    assert len(said) == 6 and again.numbers == found.numbers
