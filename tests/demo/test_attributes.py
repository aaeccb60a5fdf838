"""Buttons that are no classes: where the truth is known they tell it; else they are what they say."""

from __future__ import annotations

import re

import labelled
import pytest
import torch
from page import blind, classifier

from robustlab.data.drawing import ATTRIBUTES
from robustlab.data.imageset import ImageSet
from robustlab.data.shapes import CLASSES, shapes, truth
from robustlab.demo import attributes
from robustlab.demo.attributes import CONTRASTS, attributes_of
from robustlab.demo.page import make_page
from robustlab.demo.session import RunRequest, as_bytes, as_image, perform
from robustlab.demo.starters import MOST
from robustlab.errors import UserError
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


# Of a user's own pictures.


def own(n: int = 300) -> tuple[ImageSet, dict[str, torch.Tensor]]:
    has = labelled.facts(n)
    pixels = torch.from_numpy(labelled.pixels(has, 16, 16)).permute(0, 3, 1, 2).contiguous()
    return ImageSet(pixels, torch.zeros(n).long(), ("picture",), "own"), {"bright top": has[:, 0], "red": has[:, 1]}


def test_directions_solve_the_ridge_regression_whichever_system_is_smaller():
    for n, d in ((50, 8), (8, 50), (20, 20)):
        f = torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
        f -= f.mean(0)
        right = torch.randn(d, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(d))
        system = f.T @ f / n + attributes.RIDGE * (f.T @ f / n).diagonal().mean() * torch.eye(d, dtype=torch.float64)
        assert torch.allclose(system @ attributes._solved(f, right), right, atol=1e-9)


def test_a_level_of_one_is_the_average_difference():
    f = torch.randn(60, 5, generator=torch.Generator().manual_seed(0))
    has = torch.stack([f[:, 0] > 0.1, f[:, 1] + f[:, 2] > 0], 1)
    for way, which in zip(attributes.learned(f, has, "it"), has.T, strict=True):
        assert float((f @ way)[which].mean() - (f @ way)[~which].mean()) == pytest.approx(1, abs=1e-4)


def test_attributes_of_data_are_told_on_others_and_say_how_well():
    found = attributes.attributes_of_data(classifier(), *own(), "tiny")
    assert [one.name for one in found] == ["bright top", "red"]
    for one in found:
        have, lack, seen, others, taken, rest = map(int, re.findall(r"\d+", one.hint))
        assert have + lack == 240 and others + rest == 60
        assert seen - taken > 50, "random features show a change of brightness and of colour"


def test_coins_that_no_picture_shows_are_found_by_chance():
    images, facts = own(1000)
    facts = {"coin": torch.rand(1000, generator=torch.Generator().manual_seed(9)) < 0.5, **facts}
    coin, *_ = attributes.attributes_of_data(classifier(), images, facts, "tiny")
    *_, seen, _, taken, _ = map(int, re.findall(r"\d+", coin.hint))
    assert abs(seen - taken) < 25


def test_what_cannot_be_learned_is_left_out_and_named():
    images, facts = own()
    rare = torch.zeros(300, dtype=torch.bool)
    with pytest.warns(UserWarning, match=r"fewer than 5 of 240 pictures have or lack it: never, always$"):
        found = attributes.attributes_of_data(classifier(), images, {"never": rare, **facts, "always": ~rare}, "tiny")
    assert [one.name for one in found] == list(facts)
    with pytest.warns(UserWarning, match="the features of blind do not show it: bright top, red"):
        assert attributes.attributes_of_data(blind().model, images, facts, "blind") == ()
    with pytest.warns(UserWarning, match="fewer than 5"):
        assert attributes.attributes_of_data(classifier(), images, {"never": rare}, "tiny") == ()


def test_features_that_are_no_numbers_are_one_sentence():
    model = classifier()
    with torch.no_grad():
        model.body[0].weight.fill_(float("nan"))
    with pytest.raises(UserError, match="tiny gives NaN or infinity"):
        attributes.attributes_of_data(model, *own(), "tiny")


@pytest.mark.parametrize("form", [".txt", ".csv"])
def test_a_press_moves_the_picture_where_the_attribute_is(tmp_path, form):
    """The shipped robust network: more and less of the upper half's lightness, and of red, in pixels."""
    labelled.write_celeba(tmp_path, 300, form=form, parts=[0] * 240 + [2] * 60)
    page = make_page("cifar10-small-l2", tmp_path)
    (one,) = page.models.values()
    assert page.size == 32 and [each.name for each in one.attributes] == ["Bright Top", "Red"]
    assert all(len(each.examples) == 3 for each in one.attributes)
    names = [starter.name for starter in page.starters[-MOST:]]
    assert names[0] == "000241.jpg" and names[-1] == "000300.jpg", "pictures that were not learned from"

    def changed(picture: bytes, attribute: int, less: bool) -> tuple[float, float]:
        request = RunRequest(one, picture, attribute=attribute, minimize=less, eps=4, steps=25, tv=0.5, wake=True)
        change = (as_image(perform(request).frame.picture) - as_image(picture))[0]
        return float(change[:, :16].mean() - change[:, 16:].mean()), float(change[0].mean() - change[1:].mean())

    for starter in page.starters[-MOST::4]:
        for k in range(2):
            more, less = (changed(starter.picture, k, minus)[k] for minus in (False, True))
            assert more > 0.01 and less < -0.01, (starter.name, k)
