"""Usefulness of features: known in closed form where features are linear."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from laws import images, restless, untouched
from torch import Tensor, nn

from robustlab.constraints import ThreatModel
from robustlab.data.imageset import ImageSet
from robustlab.errors import UserError
from robustlab.evaluation.usefulness import Usefulness, usefulness
from robustlab.models.classifier import Classifier
from robustlab.norms import L2, Linf

CLASSES = ("red", "green", "blue")


def coloured(n: int, seed: int) -> ImageSet:
    """Images around a grey to which the class adds a little of its colour."""
    y = torch.arange(n) % 3
    x = 0.4 + 0.2 * images(n, 3, 4, 4, seed=seed)
    x[torch.arange(n), y] += 0.05
    return ImageSet(x, y, CLASSES, "coloured")


class LinearFeatures(nn.Module):
    """``scale * W x + shift``."""

    def __init__(self, weight: Tensor, scale: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.weight, self.scale, self.shift = nn.Parameter(weight), scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.flatten(1) @ self.weight.T + self.shift


def classifier(weight: Tensor, scale: float = 1.0, shift: float = 0.0) -> Classifier:
    return Classifier(LinearFeatures(weight, scale, shift), nn.Linear(len(weight), 3), mean=[0.0] * 3, std=[1.0] * 3, classes=CLASSES)


WEIGHT = torch.cat([images(5, 48, seed=3) - 0.5, torch.eye(3).repeat_interleave(16, 1) / 16])  # the last three are the mean of a channel
TRAIN, TEST = coloured(120, 0), coloured(60, 1)


def measured(model: Classifier, threat: ThreatModel, **options: object) -> Usefulness:
    return usefulness(model, TRAIN, TEST, threat, per_class=20, progress=False, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("threat", [ThreatModel(L2(), 0.3), ThreatModel(Linf(), 0.02)], ids=repr)
def test_of_linear_features_both_are_known(threat):
    """Clean: a correlation. Attacked: less by eps times the dual norm of the weights, in deviations of the feature."""
    found = measured(classifier(WEIGHT), threat)
    assert found.feature.tolist() == list(range(8)) and found.label[5:].tolist() == [0, 1, 2] and found.n == 40
    for i, (label, clean, attacked) in enumerate(zip(found.label.tolist(), found.clean.tolist(), found.attacked.tolist(), strict=True)):
        ours = TRAIN.labels == label
        values = TRAIN.pixels.flatten(1).double() @ WEIGHT[i].double()
        weights = torch.where(ours, 0.5 / ours.sum(), 0.5 / (~ours).sum()).double()
        mean = weights @ values
        deviation = (weights @ (values - mean).square()).sqrt()
        y = torch.where(ours, 1.0, -1.0).double()
        correlation = weights @ (y * (values - mean)) / deviation
        # the images of the test: 20 of the class, and every second of the 40 others
        mine, others = (TEST.labels == label).nonzero()[:20, 0], (TEST.labels != label).nonzero()[::2, 0]
        shown = TEST.pixels.flatten(1).double() @ WEIGHT[i].double()
        expected = correlation.sign() * (shown[mine].mean() - shown[others].mean()) / 2 / deviation
        assert clean == pytest.approx(float(expected), rel=1e-4)
        cost = threat.eps * float(threat.norm.dual.measure(WEIGHT[i][None].double())) / deviation
        # PGD turns from its random start towards the worst image, and may be a few degrees short of it at the end.
        assert clean - float(cost) * (1 + 1e-6) <= attacked <= clean - 0.98 * float(cost)


def test_shift_and_scale_of_features_do_not_matter():
    threat = ThreatModel(L2(), 0.1)
    plain, moved = measured(classifier(WEIGHT), threat), measured(classifier(WEIGHT, 4.0, -3.0), threat)
    torch.testing.assert_close(plain.clean, moved.clean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(plain.attacked, moved.attacked, rtol=1e-3, atol=1e-4)
    opposite = measured(classifier(-WEIGHT), threat)
    torch.testing.assert_close(plain.clean, opposite.clean, rtol=1e-4, atol=1e-5)


def test_a_constant_feature_is_left_out_and_eps_0_changes_nothing():
    found = measured(classifier(torch.cat([WEIGHT[:2], torch.zeros(1, 48), WEIGHT[2:4]])), ThreatModel(L2(), 0.0))
    assert found.feature.tolist() == [0, 1, 3, 4]
    assert torch.equal(found.clean, found.attacked)


def test_batches_do_not_matter_and_the_model_is_left_as_it_was(tiny_model):
    body = restless(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten()))
    model = Classifier(body, nn.Linear(24, 3), mean=[0.5] * 3, std=[0.2] * 3, classes=CLASSES)
    with untouched(model):
        one, other = (measured(model, ThreatModel(L2(), 0.2), batch_size=size) for size in (7, 120))
    torch.testing.assert_close(one.clean, other.clean, rtol=1e-6, atol=1e-8)
    assert (one.attacked <= one.clean).all()


def test_what_cannot_be_measured_is_refused():
    model, threat = classifier(WEIGHT), ThreatModel(L2(), 0.1)
    with pytest.raises(UserError, match="red, green, blue has fewer than 21"):
        usefulness(model, TRAIN, TEST, threat, per_class=21)
    with pytest.raises(UserError, match="must have the same two classes or more"):
        usefulness(model, TRAIN, replace(TEST, classes=("red", "green", "bluish")), threat)
    with pytest.raises(UserError, match="per_class must be from 1"):
        usefulness(model, TRAIN, TEST, threat, per_class=0)
