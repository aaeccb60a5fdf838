"""Buttons that are no classes: where the truth is known they tell it; else they are what they say."""

from __future__ import annotations

import re

import pytest
import torch
from page import classifier

from robustlab.data.drawing import ATTRIBUTES
from robustlab.data.imageset import ImageSet
from robustlab.data.shapes import CLASSES, shapes, truth
from robustlab.demo import attributes
from robustlab.demo.attributes import CONTRASTS, attributes_of
from robustlab.demo.session import as_bytes
from robustlab.models.architectures import build
from robustlab.pixels import to_float

CIFAR = next(iter(CONTRASTS))


@pytest.fixture(scope="module")
def known():
    """A model of shapes with random weights, its attributes, and the levels of pictures that they were not learned from."""
    model = build("small", num_classes=10, classes=CLASSES).eval()
    found = attributes_of(model)
    index = torch.arange(300)
    with torch.no_grad():
        f = model.features(to_float(shapes(300, "test").pixels))
    return found, torch.stack([f @ one.direction for one in found], 1), truth(index, "test")


def test_shapes_have_their_true_attributes(known):
    found, levels, facts = known
    assert [one.name for one in found] == list(ATTRIBUTES)
    assert levels.isfinite().all()
    means = [levels[facts[one.name], k].mean() - levels[~facts[one.name], k].mean() for k, one in enumerate(found)]
    assert sum(mean > 0.2 for mean in means) >= 4, "random features show most of them"


def test_what_the_features_show_is_told_on_new_pictures(known):
    found, levels, facts = known
    k = [one.name for one in found].index("dark")
    has = facts["dark"]
    middle = (levels[has, k].mean() + levels[~has, k].mean()) / 2
    assert ((levels[:, k] > middle) == has).double().mean() > 0.9


def test_cifar_has_named_contrasts():
    model = classifier(CIFAR)
    found = {one.name: one for one in attributes_of(model, single=2)}
    assert list(found)[: len(CONTRASTS[CIFAR])] == list(CONTRASTS[CIFAR]) and len(found) == len(CONTRASTS[CIFAR]) + 2
    f = torch.rand(3, 24)
    logits = model.head(f) - model.head.bias
    wheels = logits[:, [1, 9]].mean(1) - logits[:, [0, 8]].mean(1)
    assert torch.allclose(f @ found["wheels"].direction, wheels, atol=1e-5)
    assert "automobile, truck rather than airplane, ship" == found["wheels"].hint


def test_contrasts_name_classes_that_exist_and_none_on_both_sides():
    for classes, contrasts in CONTRASTS.items():
        for those, others in contrasts.values():
            assert set(those) | set(others) <= set(classes) and not set(those) & set(others)


@pytest.mark.parametrize("classes", [("a", "b"), ("a", "b", "c"), tuple("abcdefgh")])
def test_any_model_has_single_features(classes):
    model = classifier(classes)
    found = attributes.features(model, 3)
    assert len({one.name for one in found}) == 3
    for one in found:
        unit = int(re.search(r"number (\d+),", one.hint)[1])
        assert re.fullmatch(r"like \w( or \w)?( \d)?", one.name), "named after the classes that it speaks for"
        assert one.direction[unit] == 1 and one.direction.abs().sum() == 1
        assert f"speaks for {classes[int(model.head.weight[:, unit].argmax())]}" in one.hint


def test_an_attribute_shows_the_pictures_that_show_it_best():
    model = classifier()
    pixels = torch.randint(0, 256, (20, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    images = ImageSet(pixels, torch.zeros(20).long(), ("a",), "noise")
    found = attributes.with_examples(model, attributes.features(model, 2), images)
    with torch.no_grad():
        f = model.features(images.pixels.float() / 255)
    for one in found:
        order = (f @ one.direction).argsort(descending=True)[:3]
        assert one.examples == tuple(as_bytes(images.pixels[k][None]) for k in order.tolist())
    assert attributes.with_examples(model, (), images) == ()
