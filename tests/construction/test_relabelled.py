"""Laws of D_rand and D_det: which targets, a small ball around every source image, and the way towards the target."""

from __future__ import annotations

import pytest
import torch
from laws import assert_within, every_norm, images
from torch import Tensor, nn

from robustlab.constraints import ThreatModel
from robustlab.construction import Relabelled, next_class, random_target
from robustlab.data import ImageSet
from robustlab.errors import UserError
from robustlab.evaluation import predictions
from robustlab.models.classifier import Classifier
from robustlab.norms import L2, Linf
from robustlab.pixels import to_float
from robustlab.seeding import example_keys

N = 60_000
MANY = example_keys(0, torch.arange(N))
INDEX = torch.arange(22)
KEYS = example_keys(0, INDEX)


def chi_square(observed: Tensor) -> float:
    expected = observed.sum().double() / observed.numel()
    return float(((observed - expected) ** 2 / expected).sum())


# Quantiles of the chi-square distribution at 1 - 1e-6.
@pytest.mark.parametrize("classes, quantile", [(2, 23.93), (3, 27.63), (10, 44.81)])
def test_drawn_targets_are_uniform_over_all_classes(classes, quantile):
    target = random_target(torch.zeros(N, dtype=torch.int64), MANY, classes)
    assert chi_square(target.bincount(minlength=classes)) < quantile


def test_drawn_targets_are_uniform_whatever_the_own_class():
    """The own class among them: 1 - 1e-6 quantile of chi-square with 9 degrees of freedom, for each class."""
    y = torch.arange(N) % 10
    target = random_target(y, MANY, 10)
    assert all(chi_square(target[y == own].bincount(minlength=10)) < 44.81 for own in range(10))
    deviation = (N * 0.1 * 0.9) ** 0.5
    assert abs(int((target == y).sum()) - N * 0.1) < 5 * deviation


def test_drawn_targets_belong_to_their_keys():
    y, order = torch.zeros(N, dtype=torch.int64), torch.arange(N).flip(0)
    target = random_target(y, MANY, 10)
    assert torch.equal(random_target(y, MANY[order], 10), target[order])
    assert torch.equal(random_target(y + 3, MANY, 10), target)
    assert not torch.equal(random_target(y, example_keys(1, torch.arange(N)), 10), target)


@pytest.mark.parametrize("classes", [1, 2, 3, 10])
def test_following_targets_are_the_next_class_around(classes):
    y = torch.arange(N) % classes
    target = next_class(y, MANY, classes)
    assert torch.equal(target, (y + 1) % classes)
    assert target[:classes].sort().values.tolist() == list(range(classes))


def test_following_exchanges_two_classes():
    y = torch.tensor([0, 1, 1, 0])
    target = next_class(y, KEYS[:4], 2)
    assert target.tolist() == [1, 0, 0, 1]
    assert torch.equal(next_class(target, KEYS[:4], 2), y)


@every_norm
@pytest.mark.parametrize("targets", [random_target, next_class])
def test_every_image_lies_in_the_ball_around_its_source(norm, targets, source, classifier):
    threat = ThreatModel(norm, {"L1": 6.0, "L2": 0.5, "Linf": 8 / 255}[type(norm).__name__])
    x = to_float(source.pixels)
    made = Relabelled(targets, threat, 6, threat.eps / 2)(source, INDEX, KEYS, classifier)
    assert_within(threat, x, made.x)
    moved = norm.measure(made.x.double() - x.double())
    assert torch.equal(made.facts["moved"], moved.float()) and (moved > 0).any()


def test_labels_are_the_targets_and_not_what_the_attack_reached(source, classifier):
    made = Relabelled(next_class, ThreatModel(L2(), 0.0), 2, 0.1)(source, INDEX, KEYS, classifier)
    assert torch.equal(made.x, to_float(source.pixels)) and torch.equal(made.y, (source.labels + 1) % 4)


def test_targets_are_the_outputs_of_the_classes_of_that_name(source, classifier):
    """The images know four of the model's ten classes, in an order of their own."""
    made = Relabelled(next_class, ThreatModel(L2(), 4.0), 30, 0.5)(source, INDEX, KEYS, classifier)
    outputs = torch.tensor(["abcdefghij".index(name) for name in source.classes])
    assert (predictions(classifier, made.x) == outputs[made.y]).all()
    assert (predictions(classifier, to_float(source.pixels)) != outputs[made.y]).any()


def test_a_linear_model_is_approached_on_the_straight_way():
    w = torch.tensor([3.0, 0.0, -4.0, 0.0]) / 5
    model = Classifier(nn.Flatten(), nn.Linear(4, 2), mean=[0.5], std=[0.5])
    with torch.no_grad():
        model.head.weight.copy_(torch.stack([-w, w]))
    middling = ImageSet(0.4 + images(8, 1, 2, 2) / 5, torch.arange(8) % 2, ("0", "1"), "middling")
    made = Relabelled(next_class, ThreatModel(L2(), 0.3), 5, 0.1)(middling, torch.arange(8), KEYS[:8], model)
    towards = (2 * made.y - 1)[:, None] * w
    torch.testing.assert_close((made.x - middling.pixels).flatten(1), 0.3 * towards)


def test_a_target_function_of_ones_own_gets_labels_keys_and_the_number_of_classes(source, classifier):
    def mirrored(y: Tensor, keys: Tensor, num_classes: int) -> Tensor:
        assert torch.equal(y, source.labels[INDEX[5:9]]) and torch.equal(keys, KEYS[5:9])
        return num_classes - 1 - y

    construction = Relabelled(mirrored, ThreatModel(Linf(), 0.1), 1, None)
    assert torch.equal(construction(source, INDEX[5:9], KEYS[5:9], classifier).y, 3 - source.labels[5:9])
    assert construction.described()["targets"] == "mirrored"


def test_without_a_step_size_the_steps_cross_the_ball_and_a_half():
    threat = ThreatModel(L2(), 0.5)
    assert Relabelled(random_target, threat, 10, None).described() == Relabelled(random_target, threat, 10, 0.125).described()
    assert Relabelled(random_target, threat, 10, None).attack.rule == Relabelled(random_target, threat, 10, 0.125).attack.rule


def test_the_defaults_are_the_published_settings():
    told = Relabelled(next_class).described()
    assert told == {"kind": "relabelled", "targets": "next_class", "norm": "L2", "eps": 0.5, "steps": 100, "step_size": 0.1}


def test_a_class_that_the_model_does_not_know_is_named(source, classifier):
    strange = ImageSet(source.pixels, source.labels, ("c", "a", "j", "zebra"), "zoo")
    with pytest.raises(UserError, match="does not know all classes of zoo: unknown class 'zebra'"):
        Relabelled(random_target)(strange, INDEX, KEYS, classifier)


@pytest.mark.parametrize("settings", [{"steps": -1}, {"step_size": -0.1}, {"step_size": float("nan")}], ids=repr)
def test_settings_without_meaning_are_refused(settings):
    with pytest.raises(UserError, match="relabelling needs steps >= 0 and step_size >= 0"):
        Relabelled(next_class, **settings)
