"""Laws of D_R and D_NR: from another image of the set, closer to the features of the own one, under the own label."""

from __future__ import annotations

import pytest
import torch
from laws import images
from torch import nn

from robustlab.construction import Inverted
from robustlab.data import ImageSet
from robustlab.errors import UserError
from robustlab.models.classifier import Classifier
from robustlab.pixels import to_float
from robustlab.seeding import example_keys

INDEX = torch.arange(22)
KEYS = example_keys(0, INDEX)


@pytest.fixture
def pixels_as_features() -> Classifier:
    """Its features are the normalized pixels, so distances between features are those between images, but for a factor."""
    return Classifier(nn.Flatten(), nn.Linear(4, 2), mean=[0.5], std=[0.25])


@pytest.fixture
def five() -> ImageSet:
    return ImageSet(0.1 + images(5, 1, 2, 2) / 2, torch.tensor([0, 0, 1, 0, 1]), ("0", "1"), "five")


def relative_distances(model, x, z):
    with torch.no_grad():
        wanted, reached = model.eval().features(x).double(), model.features(z).double()
    return (reached - wanted).norm(dim=1) / wanted.norm(dim=1)


def test_without_steps_every_image_is_another_one_of_the_set(source, classifier):
    made = Inverted(0)(source, INDEX, KEYS, classifier)
    assert torch.equal(made.x, to_float(source.pixels)[made.facts["start"]])
    assert (made.facts["start"] != INDEX).all()
    assert torch.equal(made.facts["distance"], made.facts["distance_before"])


def test_the_start_is_any_of_the_other_images_whatever_its_class(five, pixels_as_features):
    """Each of the other four within five standard deviations of its binomial mean, also those of the same class."""
    n = 20_000
    index = torch.arange(n) % 5
    start = Inverted(0)(five, index, example_keys(0, torch.arange(n)), pixels_as_features).facts["start"]
    counts = torch.zeros(5, 5).index_put_((index, start), torch.ones(n), accumulate=True)
    assert (counts.diagonal() == 0).all()
    others = counts[~torch.eye(5, dtype=torch.bool)]
    assert ((others - n / 20).abs() < 5 * (n / 5 * 1 / 4 * 3 / 4) ** 0.5).all()


def test_labels_are_those_of_the_images_whose_features_are_matched(source, classifier):
    index = torch.tensor([7, 2, 19])
    made = Inverted(3)(source, index, KEYS[index], classifier)
    assert torch.equal(made.y, source.labels[index])


def test_every_image_comes_closer_in_feature_space_than_its_start(source, classifier):
    x = to_float(source.pixels)
    made = Inverted(30, 0.1)(source, INDEX, KEYS, classifier)
    assert (made.facts["distance"] < made.facts["distance_before"]).all()
    assert made.facts["distance"].mean() < made.facts["distance_before"].mean() / 2
    assert ((made.x >= 0) & (made.x <= 1)).all()
    start = x[made.facts["start"]]
    torch.testing.assert_close(made.facts["distance_before"].double(), relative_distances(classifier, x, start), rtol=1e-5, atol=0)
    torch.testing.assert_close(made.facts["distance"].double(), relative_distances(classifier, x, made.x), rtol=1e-5, atol=0)


def test_more_steps_never_end_farther_away(source, classifier):
    distances = [Inverted(steps, 0.2)(source, INDEX, KEYS, classifier).facts["distance"] for steps in range(6)]
    assert all((later <= earlier).all() for earlier, later in zip(distances, distances[1:], strict=False))


def test_where_pixels_are_features_each_step_goes_straight_to_the_image(five, pixels_as_features):
    index, keys = torch.arange(5), KEYS[:5]
    start = five.pixels[Inverted(0)(five, index, keys, pixels_as_features).facts["start"]]
    far = (start - five.pixels).flatten(1).norm(dim=1)
    assert (far > 0.05).all()
    moved = Inverted(5, 0.01)(five, index, keys, pixels_as_features).x - start
    torch.testing.assert_close(moved, 0.05 * (five.pixels - start) / far.view(5, 1, 1, 1))
    arrived = Inverted(200, 0.01)(five, index, keys, pixels_as_features).x
    assert ((arrived - five.pixels).flatten(1).norm(dim=1) <= 0.01).all()


def test_what_a_coarse_stand_in_found_is_judged_by_the_model_itself(source, classifier):
    construction = Inverted(10, 0.2)
    made = construction(source, INDEX, KEYS, classifier, construction.fast_model(classifier, torch.bfloat16))
    judged = relative_distances(classifier, to_float(source.pixels), made.x)
    torch.testing.assert_close(made.facts["distance"].double(), judged, rtol=1e-5, atol=0)
    assert made.facts["distance"].mean() < made.facts["distance_before"].mean()


def test_the_defaults_are_the_published_settings():
    assert Inverted().described() == {"kind": "inverted", "steps": 1000, "step_size": 0.1}


@pytest.mark.parametrize("settings", [{"steps": -1}, {"step_size": -0.1}, {"step_size": float("nan")}], ids=repr)
def test_settings_without_meaning_are_refused(settings):
    with pytest.raises(UserError, match="inversion needs steps >= 0 and step_size >= 0"):
        Inverted(**settings)
