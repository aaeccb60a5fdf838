"""Laws of interval bounds: exact for one linear layer, below every image of the ball for a deep network, and never crossed by an attack."""

from __future__ import annotations

import pytest
import torch
from laws import every_norm, images
from measured import cut
from torch import nn

from robustlab.attacks import APGD
from robustlab.constraints import ThreatModel
from robustlab.evaluation import evaluate
from robustlab.goals import margin
from robustlab.models.bounds import NoBounds, margin_bounds
from robustlab.models.zoo import build
from robustlab.norms import Linf


def linear(x: torch.Tensor, classes: int = 3) -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), classes)).double()
    with torch.no_grad():
        model[1].weight.copy_(torch.linspace(-3, 3, model[1].weight.numel(), dtype=torch.float64).sin().reshape_as(model[1].weight))
    return model


@every_norm
def test_of_a_linear_model_they_are_the_margin_less_eps_times_the_dual_norm(norm):
    x = 0.4 + images(6, 3, 2, 2, dtype=torch.float64) / 5
    model = linear(x)
    y = model(x).argmax(1)
    weight = model[1].weight.detach()
    gaps = (model(x).gather(1, y[:, None]) - model(x)).detach()
    rows = norm.dual.measure((weight[y][:, None] - weight).flatten(0, 1)).reshape(6, 3)
    expected = (gaps - 0.01 * rows).masked_fill(nn.functional.one_hot(y, 3).bool(), torch.inf).amin(1)
    torch.testing.assert_close(margin_bounds(model, x, y, ThreatModel(norm, 0.01)), expected)


@every_norm
@pytest.mark.parametrize("arch", ["small-2", "preact_small", "vgg_small"])
def test_of_a_deep_network_no_image_of_the_ball_is_below_them(norm, arch):
    x = images(5, 3, 8, 8, dtype=torch.float64)
    model = build(arch, num_classes=4, mean=[0.4] * 3, std=[0.2, 0.3, 0.25]).double()
    for _ in range(3):
        model(images(16, 3, 8, 8, dtype=torch.float64))  # BatchNorm statistics of its own
    model.eval()
    with torch.no_grad():
        y = model(x).argmax(1)
        for eps in (0.0, 1e-6, 1e-3):
            threat = ThreatModel(norm, eps)
            bound = margin_bounds(model, x, y, threat)
            for k in range(4):
                near = threat.around(x).project(x + norm.sample(torch.arange(5) + 10 * k, x.shape[1:], eps).double())
                assert (-margin(model(near), y) >= bound - 1e-9).all()
            if not eps:
                torch.testing.assert_close(bound, -margin(model(x), y), atol=1e-9, rtol=1e-9)


def test_an_evaluation_tells_what_they_prove_and_no_attack_breaks_it():
    x = images(24, 3, 2, 2, dtype=torch.float64)
    model = linear(x)
    y = model(x).argmax(1)
    threat = ThreatModel(Linf(), 0.03)
    report = evaluate(model, cut(x, y), APGD(threat, steps=20))
    proved, rate = report.proved[str(threat)], report.worst
    assert 0 < proved.count <= rate.count and "proved by interval bounds (Linf eps=0.03)" in repr(report)
    assert not any("interval" in note for note in report.notes)
    assert [type(record).from_json(record.to_json()) for record in report.records] == list(report.records)
    assert evaluate(model, cut(x, y), APGD(ThreatModel(Linf(), 1.0), steps=2)).proved == {}


def test_layers_without_known_bounds_are_named():
    x = images(2, 3, 2, 2)
    with pytest.raises(NoBounds, match="no bounds are known for the layer Softmax"):
        margin_bounds(
            nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Softmax(1)), x, torch.zeros(2, dtype=torch.int64), ThreatModel(Linf(), 0.1)
        )
