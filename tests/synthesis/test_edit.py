"""Laws of edits by class and by feature: within the ball, no worse than the start, nothing moved outside a mask that is held."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from laws import assert_within, every_norm, images, restless, untouched
from oracles import Linear
from torch import Tensor, nn

from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.models.classifier import Classifier
from robustlab.norms import L1, L2, Linf
from robustlab.seeding import example_keys, uniform
from robustlab.synthesis.budget import Search
from robustlab.synthesis.edit import generate, inpaint, paint, super_resolve, translate
from robustlab.synthesis.fills import enlarged, fill

Task = Callable[..., Tensor]

X = images(5, 3, 8, 8)
Y = torch.tensor([3, 0, 7, 7, 9])
UNITS = torch.tensor([2, 90, 17, 200, 255])
MASK = torch.zeros(5, 1, 8, 8, dtype=torch.bool)
for i, (top, left) in enumerate([(0, 0), (4, 4), (2, 3), (0, 5), (3, 1)]):
    MASK[i, :, top : top + 3, left : left + 3] = True

# Of every task its call on some of the images above, and where it starts, which is the centre of its ball.
TASKS: dict[str, tuple[Task, Callable[[Tensor, Tensor], Tensor]]] = {
    "generate": (lambda m, x, s, i=slice(None), **o: generate(m, Y[i], x[i], s, **o), lambda x, mask: x),
    "translate": (lambda m, x, s, i=slice(None), **o: translate(m, x[i], Y[i], s, **o), lambda x, mask: x),
    "super_resolve": (
        lambda m, x, s, i=slice(None), **o: super_resolve(m, x[i, :, ::2, ::2], Y[i], 8, s, **o),
        lambda x, mask: enlarged(x[:, :, ::2, ::2], 8),
    ),
    "inpaint": (lambda m, x, s, i=slice(None), **o: inpaint(m, x[i], MASK[i], Y[i], s, **o), fill),
    "paint": (lambda m, x, s, i=slice(None), **o: paint(m, x[i], MASK[i], UNITS[i], s, **o), lambda x, mask: x),
}
every_task = pytest.mark.parametrize("task", TASKS)


@pytest.fixture
def model(tiny_model: nn.Sequential) -> Classifier:
    return Classifier(tiny_model[:-1], tiny_model[-1], mean=[0.4, 0.5, 0.6], std=[0.2, 0.25, 0.3], classes="abcdefghij").eval()


def losses(model: nn.Module, x: Tensor, y: Tensor = Y) -> Tensor:
    with torch.no_grad():
        return F.cross_entropy(model(x), y, reduction="none")


def activations(model: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        return model.features(x)[torch.arange(len(x)), UNITS]


def outside(x: Tensor, start: Tensor) -> Tensor:
    """The mean squared change outside the mask, over all values."""
    return ((x - start) * ~MASK).square().flatten(1).mean(1)


@every_task
@every_norm
def test_results_are_images_within_the_ball_around_the_start(task, norm, model):
    run, start = TASKS[task]
    threat = ThreatModel(norm, {L1: 8.0, L2: 0.7, Linf: 0.05}[type(norm)])
    found = run(model, X, Search(threat.eps, threat.eps / 3, 8, norm))
    assert_within(threat, start(X, MASK), found)
    assert (found != start(X, MASK)).any()


@every_task
def test_without_a_radius_results_are_images(task, model):
    found = TASKS[task][0](model, X, Search(None, 2.0, 6))
    assert found.shape == X.shape and found.dtype == X.dtype
    assert 0 <= float(found.min()) and float(found.max()) <= 1


@pytest.mark.parametrize("step_size", [0.05, 0.5, 20.0])
@pytest.mark.parametrize("task", ["generate", "translate", "super_resolve"])
def test_the_class_is_never_less_likely_than_at_the_start(task, step_size, model):
    run, start = TASKS[task]
    before, after = losses(model, start(X, MASK)), losses(model, run(model, X, Search(None, step_size, 5)))
    assert (after <= before).all()
    assert step_size > 1 or (after < before).all()


@every_task
def test_one_by_one_is_the_same_as_all_together(task, model):
    run, model, x = TASKS[task][0], model.double(), X.double()
    search = Search(0.8, 0.2, 6)
    together = run(model, x, search)
    alone = torch.cat([run(model, x, search, slice(i, i + 1)) for i in range(len(x))])
    torch.testing.assert_close(alone, together)


@every_task
def test_an_empty_batch_gives_an_empty_one(task, model):
    assert TASKS[task][0](model, X, Search(0.5, 0.1, 3), slice(0, 0)).shape == (0, 3, 8, 8)


@every_task
def test_the_same_call_gives_the_same_picture_and_gives_the_model_back(task, model):
    run = TASKS[task][0]
    expected = run(model, X, Search(0.8, 0.2, 4))
    restless(model)
    with untouched(model, X, Y, MASK, UNITS):
        assert torch.equal(run(model, X, Search(0.8, 0.2, 4)), expected)


@every_task
def test_the_model_is_given_back_after_an_exception(task, model):
    def stop(t, x, value):
        raise KeyboardInterrupt

    restless(model)
    with untouched(model, X), pytest.raises(KeyboardInterrupt):
        TASKS[task][0](model, X, Search(0.8, 0.2, 4), on_step=stop)


@every_task
def test_every_step_is_shown(task, model):
    seen = []
    run, start = TASKS[task]
    found = run(model, X, Search(0.8, 0.2, 4), on_step=lambda t, x, value: seen.append((t, x.clone(), value.clone())))
    assert [t for t, _, _ in seen] == [0, 1, 2, 3, 4]
    assert torch.equal(seen[0][1], start(X, MASK))
    best = torch.stack([value for _, _, value in seen]).argmin(0)
    assert torch.equal(found, torch.stack([x for _, x, _ in seen])[best, torch.arange(5)])


@every_task
def test_no_steps_and_no_gradient_give_the_start(task, model):
    run, start = TASKS[task]
    assert torch.equal(run(model, X, Search(0.8, 0.2, 0)), start(X, MASK))
    with torch.no_grad():
        for parameter in model.body[3].parameters():
            parameter.zero_()
    assert torch.equal(run(model, X, Search(0.8, 0.2, 3)), start(X, MASK))


def test_a_seed_gives_its_picture_in_any_batch(model):
    model = model.double()
    keys, order = example_keys(4, torch.arange(5)), torch.tensor([3, 1, 4])
    search = Search(2.0, 0.3, 4)
    every = generate(model, Y, uniform(keys, (3, 8, 8), torch.float64), search)
    some = generate(model, Y[order], uniform(keys[order], (3, 8, 8), torch.float64), search)
    torch.testing.assert_close(some, every[order])


def test_on_a_linear_model_translation_takes_all_that_the_ball_and_the_box_allow():
    x = images(6, 1, 4, 4, dtype=torch.float64)
    model = Linear(torch.linspace(-1, 1, 16, dtype=torch.float64), 0.1)
    y = torch.ones(6, dtype=torch.int64)
    found = translate(model, x, y, Search(1.0, 0.02, 200))
    with torch.no_grad():
        gained = model.score(found) - model.score(x)
        possible = model.largest_gain(x.flatten(1), 1 - y, L2(), 1.0)
    assert (gained <= possible * (1 + 1e-9)).all()
    assert (gained >= possible * 0.98).all()


def test_an_enlarged_image_averages_back_to_the_small_one():
    small = images(2, 3, 4, 6)
    large = enlarged(small, (12, 18))
    assert torch.equal(F.avg_pool2d(large.double(), 3).float(), small)
    assert torch.equal(large[:, :, ::3, ::3], small)


def test_any_factor_takes_the_nearest_pixel():
    small = torch.tensor([0.1, 0.2, 0.3]).expand(1, 1, 3, 3)
    assert torch.equal(enlarged(small, (3, 4))[0, 0, 0], torch.tensor([0.1, 0.2, 0.2, 0.3]))
    assert torch.equal(enlarged(small, 5)[0, 0, 0], torch.tensor([0.1, 0.1, 0.2, 0.3, 0.3]))
    assert torch.equal(enlarged(X, 8), X)


def test_missing_pixels_are_filled_with_the_mean_of_the_others():
    filled = fill(X, MASK)
    for i in range(5):
        for c in range(3):
            hole = MASK[i, 0]
            assert (filled[i, c][hole] - X[i, c][~hole].mean()).abs().max() < 1e-6
    assert torch.equal(filled.masked_fill(MASK, 0), X.masked_fill(MASK, 0))
    white = torch.ones_like(X)
    assert torch.equal(fill(white, MASK), white)


def test_what_is_missing_is_not_looked_at(model):
    other = torch.where(MASK, images(5, 3, 8, 8, seed=9), X)
    search = Search(1.0, 0.1, 5)
    assert torch.equal(inpaint(model, other, MASK, Y, search), inpaint(model, X, MASK, Y, search))


@pytest.mark.parametrize("weight", [0.0, 10.0, 1e4, 1e9])
def test_inpainting_trades_the_class_for_changes_outside(weight, model):
    """The sum is no larger than at the start, where nothing has changed; so the change outside is bounded."""
    start = fill(X, MASK)
    found = inpaint(model, X, MASK, Y, Search(None, 0.2, 20), weight)
    before = losses(model, start)
    assert (losses(model, found) + weight * outside(found, start) <= before * (1 + 1e-6)).all()
    assert (weight * outside(found, start) <= before * (1 + 1e-6)).all()


@pytest.mark.parametrize("weight", [0.0, 900.0, 1e9])
def test_painting_trades_the_activation_for_changes_outside(weight, model):
    found = paint(model, X, MASK, UNITS, Search(None, 0.2, 20), weight=weight)
    gained = activations(model, found) - activations(model, X)
    assert (weight * outside(found, X) <= gained + 1e-5).all()


@every_norm
@pytest.mark.parametrize("eps", [0.3, None])
def test_with_an_infinite_weight_nothing_outside_the_mask_changes(eps, norm, model):
    search = Search(eps, 0.2, 10, norm)
    found = inpaint(model, X, MASK, Y, search, math.inf)
    assert torch.equal(found.masked_fill(MASK, 0), X.masked_fill(MASK, 0))
    assert (losses(model, found) < losses(model, fill(X, MASK))).all()
    painted = paint(model, X, MASK, UNITS, search, weight=math.inf)
    assert torch.equal(painted.masked_fill(MASK, 0), X.masked_fill(MASK, 0))
    assert (activations(model, painted) >= activations(model, X)).all() and (painted != X).any()


def test_on_a_linear_feature_painting_goes_straight_along_its_weights_inside_the_mask():
    body = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 4)).double()
    model = Classifier(body, nn.Linear(4, 2), mean=[0.0] * 3, std=[1.0] * 3).double()
    x = torch.full((5, 3, 8, 8), 0.5, dtype=torch.float64)
    units = torch.tensor([0, 1, 2, 3, 0])
    found = paint(model, x, MASK, units, Search(0.4, 0.1, 6), weight=math.inf)
    direction = body[1].weight.detach()[units].view_as(x) * MASK
    wanted = x + 0.4 * direction / direction.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)


def test_painting_works_at_any_layer(model):
    found = paint(model, X, MASK, torch.tensor([0, 15, 7, 7, 3]), Search(1.0, 0.2, 5), "body.4", math.inf)
    assert (found != X).any()
    with pytest.raises(UserError, match="there is no feature unit 16: the layer has 16"):
        paint(model, X, MASK, 16, Search(1.0, 0.2, 5), "body.4")


S = Search(0.5, 0.1, 2)
MISTAKES: dict[str, tuple[Callable[[Classifier], object], str]] = {
    "mask of another size": (
        lambda m: inpaint(m, X, MASK[..., :7], Y, S),
        r"mask must be bool of shape \(5, 1, 8, 8\), got .*\(5, 1, 8, 7\)",
    ),
    "one mask for five images": (lambda m: paint(m, X, MASK[:1], 0, S), r"mask must be bool of shape \(5, 1, 8, 8\)"),
    "mask of numbers": (lambda m: inpaint(m, X, MASK.float(), Y, S), "mask must be bool of shape .* got torch.float32"),
    "nothing is there": (lambda m: inpaint(m, X, MASK | (torch.arange(5) == 3).view(5, 1, 1, 1), Y, S), "all are missing in .* position 3"),
    "weight below zero": (lambda m: inpaint(m, X, MASK, Y, S, -1.0), "weight of changes outside the mask must be >= 0, got -1"),
    "weight not a number": (lambda m: paint(m, X, MASK, 0, S, weight=math.nan), "weight of changes .* got nan"),
    "unknown class": (lambda m: translate(m, X, Y + 1, S), "labels go up to 10, but the model has 10 classes"),
    "negative class": (lambda m: generate(m, Y - 1, X, S), "labels must be class indices from 0, found -1"),
    "too few classes": (lambda m: translate(m, X, Y[:2], S), r"labels must be int64 of shape \(5,\)"),
    "other channels": (lambda m: translate(m, X[:, :1], Y, S), r"wants images of shape \(B, 3, H, W\), got \(5, 1, 8, 8\)"),
    "0-255": (lambda m: translate(m, X * 255, Y, S), r"images must lie in \[0, 1\]"),
    "no batch": (lambda m: inpaint(m, X[0], MASK, Y, S), r"images must have shape \(B, C, H, W\), got \(3, 8, 8\)"),
    "shrinking": (lambda m: super_resolve(m, X, Y, 7, S), "size must be at least that of the images, 8x8, got 7x7"),
    "shrinking one side": (lambda m: super_resolve(m, X, Y, (16, 4), S), "8x8, got 16x4"),
    "unknown unit": (lambda m: paint(m, X, MASK, 256, S), r"there is no feature unit 256: the layer has 256 \(0 to 255\)"),
    "negative unit": (lambda m: paint(m, X, MASK, -1, S), "there is no feature unit -1"),
    "too few units": (lambda m: paint(m, X, MASK, UNITS[:2], S), r"one int or int64 of shape \(5,\), got torch.int64 of shape \(2,\)"),
    "unknown layer": (lambda m: paint(m, X, MASK, 0, S, "body.44"), "unknown layer 'body.44'"),
    "no features": (lambda m: paint(m.body, X, MASK, 0, S), "Sequential has no features"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_in_one_sentence(mistake, model):
    act, sentence = MISTAKES[mistake]
    with pytest.raises(UserError, match=sentence) as caught:
        act(model)
    assert "\n" not in str(caught.value)
