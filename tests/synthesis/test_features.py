"""Laws of looking into a representation: closed forms where it is linear, and promises that hold for every network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from laws import assert_within, images, restless, untouched
from torch import Tensor, nn

from robustlab.constraints import ThreatModel
from robustlab.data import ImageSet
from robustlab.errors import UserError
from robustlab.models.classifier import Classifier
from robustlab.norms import L2
from robustlab.pixels import to_float
from robustlab.synthesis.budget import Search
from robustlab.synthesis.features import add_feature, contributions, damped, extremes, interpolate, invert, visualize
from robustlab.synthesis.parameters import Fourier
from robustlab.synthesis.representations import representation, straight_through_relu

X = images(5, 3, 8, 8)
START = images(5, 3, 8, 8, seed=1)
Y = torch.tensor([3, 0, 7, 7, 9])
UNITS = torch.tensor([2, 90, 17, 200, 255])

# Of every search its call on some of the images above, and where it starts.
SEARCHES: dict[str, tuple[Callable[..., Tensor], Tensor]] = {
    "invert": (lambda m, d, s, i=slice(None), **o: invert(m, X[i].to(d), START[i].to(d), s, **o), START),
    "visualize": (lambda m, d, s, i=slice(None), **o: visualize(m, UNITS[i], START[i].to(d), s, **o), START),
    "add_feature": (lambda m, d, s, i=slice(None), **o: add_feature(m, X[i].to(d), UNITS[i], s, level=9.0, **o), X),
}
every_search = pytest.mark.parametrize("search", SEARCHES)
F32, F64 = torch.float32, torch.float64


@pytest.fixture
def model(tiny_model: nn.Sequential) -> Classifier:
    return Classifier(tiny_model[:-1], tiny_model[-1], mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3], classes="abcdefghij").eval()


@pytest.fixture
def pixels_as_features() -> Classifier:
    """Its features are the pixels."""
    return Classifier(nn.Flatten(), nn.Linear(192, 2), mean=[0.0] * 3, std=[1.0] * 3).double()


@pytest.fixture
def linear() -> Classifier:
    """Its features are four linear functions of the pixels."""
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), nn.Linear(4, 3), mean=[0.0] * 3, std=[1.0] * 3).double()


@pytest.fixture
def known() -> ImageSet:
    """Grey images, in this order from dark to light: 2, 0, 4, 3, 1; where the last two are alike."""
    grey = torch.tensor([20, 250, 10, 250, 90], dtype=torch.uint8)
    return ImageSet(grey.view(5, 1, 1, 1).expand(5, 3, 8, 8).clone(), torch.zeros(5, dtype=torch.int64), ("grey",), "greys")


def along(weights: Tensor, x: Tensor, length: float) -> Tensor:
    return x + length * weights.view_as(x) / weights.flatten(1).norm(dim=1).view(-1, 1, 1, 1)


def features(model: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.features(x)


@every_search
def test_results_are_images_within_the_ball_around_the_start(search, model):
    run, start = SEARCHES[search]
    assert_within(ThreatModel(L2(), 0.7), start, run(model, F32, Search(0.7, 0.2, 8)))
    found = run(model, F32, Search(None, 3.0, 5))
    assert 0 <= float(found.min()) and float(found.max()) <= 1
    assert (found != start).any() and found.dtype == F32


@every_search
def test_one_by_one_is_the_same_as_all_together(search, model):
    run, settings, model = SEARCHES[search][0], Search(0.8, 0.2, 6), model.double()
    alone = torch.cat([run(model, F64, settings, slice(i, i + 1)) for i in range(5)])
    torch.testing.assert_close(alone, run(model, F64, settings))


@every_search
def test_an_empty_batch_gives_an_empty_one(search, model):
    assert SEARCHES[search][0](model, F32, Search(0.5, 0.1, 3), slice(0, 0)).shape == (0, 3, 8, 8)


@every_search
def test_the_same_call_gives_the_same_picture_and_gives_the_model_back(search, model):
    run = SEARCHES[search][0]
    expected = run(model, F32, Search(0.8, 0.2, 4))
    restless(model)
    with untouched(model, X, START, UNITS):
        assert torch.equal(run(model, F32, Search(0.8, 0.2, 4)), expected)


@every_search
def test_every_step_is_shown_and_the_best_is_kept(search, model):
    seen = []
    found = SEARCHES[search][0](model, F32, Search(None, 1.0, 4), on_step=lambda t, x, value: seen.append((x.clone(), value.clone())))
    assert len(seen) == 5 and torch.equal(seen[0][0], SEARCHES[search][1])
    best = torch.stack([value for _, value in seen]).argmin(0)
    assert torch.equal(found, torch.stack([x for x, _ in seen])[best, torch.arange(5)])


@every_search
def test_no_steps_and_no_gradient_give_the_start(search, model):
    run, start = SEARCHES[search]
    assert torch.equal(run(model, F32, Search(0.8, 0.2, 0)), start)
    with torch.no_grad():
        for parameter in model.body[3].parameters():
            parameter.zero_()
    assert torch.equal(run(model, F32, Search(0.8, 0.2, 3)), start)


@pytest.mark.parametrize("eps", [None, 0.5])
def test_the_inversion_of_the_pixels_themselves_is_the_image_or_as_near_as_the_ball_goes(eps, pixels_as_features):
    x, start = X.double(), START.double()
    found = invert(pixels_as_features, x, start, Search(eps, 0.01, 700))
    far = (x - start).flatten(1).norm(dim=1)
    left = (x - found).flatten(1).norm(dim=1)
    if eps is None:
        assert (left <= 0.005 + 1e-9).all()
    else:
        torch.testing.assert_close(left, far - eps, rtol=0, atol=1e-9)
        torch.testing.assert_close(found, along(x - start, start, eps), rtol=0, atol=1e-6)


def test_an_inversion_comes_closer_to_the_representation_of_its_own_image(model):
    found = invert(model, X, START, Search(None, 0.1, 40))
    before, after = (torch.cdist(features(model, z), features(model, X)) for z in (START, found))
    assert (after.diagonal() < before.diagonal() / 2).all()
    assert (after.argmin(1) == torch.arange(5)).all()


def test_inversion_can_match_any_layer(model):
    g = representation(model, "body.4")
    found = invert(model, X, START, Search(None, 0.1, 40), "body.4")
    with torch.no_grad():
        assert ((g(found) - g(X)).norm(dim=1) < (g(START) - g(X)).norm(dim=1) / 2).all()


def test_an_interpolation_begins_and_ends_with_the_images(model):
    walk = interpolate(model, X[0], X[1], 5, Search(None, 0.1, 10))
    assert walk.shape == (5, 3, 8, 8)
    assert torch.equal(walk[0], X[0]) and torch.equal(walk[-1], X[1])
    reached, ends = features(model, walk), features(model, X[:2])
    for i in range(1, 4):
        wanted, start = torch.lerp(*ends, i / 4), features(model, torch.lerp(X[0], X[1], i / 4)[None])[0]
        assert (reached[i] - wanted).norm() < (start - wanted).norm()


def test_an_interpolation_from_other_starts_ends_near_the_images(pixels_as_features):
    a, b, *starts = (image.double() for image in (X[0], X[1], START[0], START[1]))
    walk = interpolate(pixels_as_features, a, b, 3, Search(None, 0.02, 400), starts=(starts[0], starts[1]))
    wanted = torch.stack([a, (a + b) / 2, b])
    assert ((walk - wanted).flatten(1).norm(dim=1) <= 0.01 + 1e-9).all()


def test_the_maximizer_of_a_linear_feature_in_a_ball_lies_along_its_weights(linear):
    start, units = torch.full((4, 3, 8, 8), 0.5, dtype=F64), torch.tensor([3, 0, 1, 1])
    found = visualize(linear, units, start, Search(0.45, 0.1, 8))
    torch.testing.assert_close(found, along(linear.body[1].weight.detach()[units], start, 0.45), rtol=0, atol=1e-10)


def test_without_a_ball_the_maximizer_of_a_linear_feature_is_a_corner_of_the_box(linear):
    found = visualize(linear, 2, START.double(), Search(None, 1.0, 100))
    assert torch.equal(found, (linear.body[1].weight[2] > 0).to(F64).view(1, 3, 8, 8).expand(5, -1, -1, -1))


def test_one_unit_stands_for_all_images(model):
    search = Search(1.0, 0.3, 3)
    assert torch.equal(visualize(model, 17, X, search), visualize(model, torch.full((5,), 17), X, search))


def test_a_unit_that_is_off_gives_its_start_until_its_relu_lets_gradients_through(model):
    grey = torch.full((1, 3, 8, 8), 0.5)
    off = int((features(model, grey)[0] == 0).nonzero()[0])
    search = Search(None, 0.3, 40)
    assert torch.equal(visualize(model, off, grey, search), grey)
    with untouched(model), straight_through_relu(model.body[5]):
        found = visualize(model, off, grey, search)
    assert features(model, found)[0, off] > 0


def test_visualization_in_fourier_space_is_never_worse_than_the_start(model):
    found = visualize(model, UNITS, START, Search(None, 2.0, 10), parameters=Fourier())
    chosen = torch.arange(5), UNITS
    assert (features(model, found)[chosen] > features(model, START)[chosen]).all()
    assert 0 <= float(found.min()) and float(found.max()) <= 1


def test_a_feature_is_added_up_to_its_level_and_no_further(linear):
    """Along the weights by whole steps, and the first step that reaches the level is the last."""
    x, weights = torch.full((1, 3, 8, 8), 0.5, dtype=F64), linear.body[1].weight.detach()
    gain = 0.05 * float(weights[1].norm())
    level = float(features(linear, x)[0, 1]) + 3.5 * gain
    found = add_feature(linear, x, 1, Search(None, 0.05, 50), level=level)
    torch.testing.assert_close(found, along(weights[1:2], x, 4 * 0.05), rtol=0, atol=1e-10)


def test_a_feature_that_is_there_already_is_not_added(model):
    there = features(model, X)[torch.arange(5), UNITS]
    found = add_feature(model, X, UNITS, Search(None, 0.1, 5), level=float(there.min()))
    assert torch.equal(found, X)


def test_extremes_are_found_and_alike_images_keep_their_order(known):
    model = Classifier(nn.Flatten(), nn.Linear(192, 2), mean=[0.5] * 3, std=[0.25] * 3)
    most, least = extremes(model, known, 7, 3)
    assert most.tolist() == [1, 3, 4] and least.tolist() == [2, 0, 4]


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_extremes_are_the_ends_of_the_sorted_activations(chunk, model):
    many = ImageSet((images(30, 3, 8, 8, seed=5) * 255).to(torch.uint8), torch.zeros(30, dtype=torch.int64), ("x",), "many")
    restless(model)
    with untouched(model, many.pixels):
        most, least = extremes(model, many, 4, 6, "body.4", chunk=chunk)
    model.eval()
    with torch.no_grad():
        active = representation(model, "body.4")(to_float(many.pixels))[:, 4]
    assert most.tolist() == active.argsort(descending=True)[:6].tolist()
    assert least.tolist() == active.argsort()[:6].tolist()


def test_contributions_add_up_to_the_difference_of_the_logits(model):
    model = model.double()
    x = X.double()
    with untouched(model, x, Y):
        shares = contributions(model, x, Y)
    with torch.no_grad():
        logits, bias = model(x), model.head.bias
    predicted, rows = logits.argmax(1), torch.arange(5)
    assert shares.shape == (5, 256) and (predicted != Y).any()
    wanted = logits[rows, predicted] - logits[rows, Y] - (bias[predicted] - bias[Y])
    torch.testing.assert_close(shares.sum(1), wanted)
    assert (contributions(model, x, predicted) == 0).all()


def test_damping_by_one_changes_nothing_and_by_zero_takes_out_what_was_contributed(model):
    model = model.double()
    x = X.double()
    units = contributions(model, x, Y).topk(10, 1).indices
    with torch.no_grad():
        logits = model(x)
    predicted, rows = logits.argmax(1), torch.arange(5)
    with untouched(model, x, units):
        assert torch.equal(damped(model, x, units, 1), logits)
        without = damped(model, x, units, 0)
    gap = (logits - without)[rows, predicted] - (logits - without)[rows, Y]
    torch.testing.assert_close(gap, contributions(model, x, Y).gather(1, units).sum(1))


def test_damping_all_features_leaves_the_biases(model):
    with torch.no_grad():
        assert torch.equal(damped(model, X, torch.arange(256), 0.0), model.head.bias.expand(5, 10))


def test_damped_features_are_the_same_for_all_images_or_each_image_has_its_own(model):
    shared = torch.tensor([4, 100])
    assert torch.equal(damped(model, X, shared, 0.5), damped(model, X, shared.expand(5, 2), 0.5))
    assert torch.equal(damped(model, X, torch.tensor([4, 100, 4]), 0.5), damped(model, X, shared, 0.5))


S = Search(0.5, 0.1, 2)
MISTAKES: dict[str, tuple[Callable[[Classifier, ImageSet], object], str]] = {
    "start of another size": (lambda m, d: invert(m, X, START[..., :7], S), r"the images' shape \(5, 3, 8, 8\), got \(5, 3, 8, 7\)"),
    "start outside the pixel range": (lambda m, d: invert(m, X, START - 0.5, S), r"images must lie in \[0, 1\]"),
    "other channels": (lambda m, d: visualize(m, 0, START[:, :1], S), r"wants images of shape \(B, 3, H, W\), got \(5, 1, 8, 8\)"),
    "ends of two sizes": (lambda m, d: interpolate(m, X[0], X[1, :, :4], 3, S), r"got \(3, 8, 8\) and \(3, 4, 8\)"),
    "ends in batches": (lambda m, d: interpolate(m, X[:1], X[1:2], 3, S), r"images of one shape \(C, H, W\), got \(1, 3, 8, 8\)"),
    "one point": (lambda m, d: interpolate(m, X[0], X[1], 1, S), "at least 2 points, got 1"),
    "unknown layer": (lambda m, d: invert(m, X, START, S, "body.77"), "unknown layer 'body.77'"),
    "unknown unit": (lambda m, d: visualize(m, 256, START, S), r"there is no feature unit 256: the layer has 256 \(0 to 255\)"),
    "negative unit": (lambda m, d: add_feature(m, X, UNITS - 3, S), "there is no feature unit -1"),
    "unit between two": (lambda m, d: visualize(m, 2.5, START, S), "one int or int64"),
    "too few units": (lambda m, d: visualize(m, UNITS[:3], START, S), r"int64 of shape \(5,\), got torch.int64 of shape \(3,\)"),
    "no features": (lambda m, d: visualize(m.body, 0, START, S), "Sequential has no features"),
    "no head": (lambda m, d: contributions(m.body, X, Y), "Sequential has no linear head"),
    "unknown class": (lambda m, d: contributions(m, X, Y + 1), "labels go up to 10, but the model has 10 classes"),
    "units of another batch": (lambda m, d: damped(m, X, UNITS.view(1, 5), 0.5), r"units must have shape \(k,\) or \(5, k\), got \(1, 5\)"),
    "damped unit unknown": (lambda m, d: damped(m, X, UNITS + 1, 0.5), "there is no feature unit 256"),
    "no image": (lambda m, d: extremes(m, d, 0, 0), "k must lie between 1 and the number of images, 5, got 0"),
    "more than there are": (lambda m, d: extremes(m, d, 0, 6), "number of images, 5, got 6"),
    "extremes of an unknown unit": (lambda m, d: extremes(m, d, 999, 2), "there is no feature unit 999"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_in_one_sentence(mistake, model, known):
    act, sentence = MISTAKES[mistake]
    with pytest.raises(UserError, match=sentence) as caught:
        act(model, known)
    assert "\n" not in str(caught.value)
