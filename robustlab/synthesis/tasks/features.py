"""Tasks about features: painted, added to images, inverted, interpolated, visualized, and as the cause of mistakes.

Each task is a function of a ``model`` whose outputs are matched to the data's classes, the ``images`` that are worked on, and its
``settings``; an independent ``judge``, where it has one, tells how the pictures are classified.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor

from robustlab import pictures
from robustlab.errors import UserError
from robustlab.models.frozen import frozen
from robustlab.norms import L2
from robustlab.seeding import example_keys, fold, uniform
from robustlab.synthesis import edit, features
from robustlab.synthesis.budget import Search, choices_of, search_of
from robustlab.synthesis.masks import mask_of
from robustlab.synthesis.measures import likeness
from robustlab.synthesis.representations import last_relu, straight_through_relu
from robustlab.synthesis.selection import MatchedModel, Selection, mean
from robustlab.synthesis.sheets import Pictures, Rows
from robustlab.synthesis.tasks import AddFeature, Extremes, Interpolate, Invert, Paint, Sensitivity, Visualize

SHOWN = 3  # features of a mistake that are raised and taken out one by one
ORDINALS = ("first", "second", "third")


def painting(model: MatchedModel, images: Selection, settings: Paint, *, judge: MatchedModel | None = None) -> Pictures:
    """A feature painted into a part of images. Numbers: its activation, and how many the judge classifies as the feature's class."""
    height, width = images.images.shape[1:]
    search, layer, weight = search_of("paint", settings, height), settings.layer, choices_of("paint", settings)["weight"]
    x, mask = images.x, mask_of(settings.mask, images.keys, height, width)
    units, y = _units_of_classes(model, images, settings)
    with _opened(model, layer):
        made = images.each(
            lambda x, mask, u: edit.paint(model.model, x, mask, u, search, layer, weight, on_step=images.on_step), x, mask, units
        )
    numbers = _activations(model, images, layer, units, x, made)
    if layer is None and judge is not None:
        numbers |= {
            "classified as the feature's class": images.accuracy(judge, made, y),
            "classified as the feature's class, before": images.accuracy(judge, x, y),
        }
    given = [("image", x), ("where", torch.where(mask, x, 0.5 + x / 2))]
    return Pictures(given, [("painted", made)], numbers, _names(images, units, y))


def feature_addition(model: MatchedModel, images: Selection, settings: AddFeature) -> Pictures:
    """A feature added to images. Numbers: its activation, and how far the images moved."""
    x, layer, level = images.x, settings.layer, settings.level
    search = search_of("add-feature", settings, x.shape[2])
    units, y = _units_of_classes(model, images, settings)
    with _opened(model, layer):
        made = images.each(lambda x, u: features.add_feature(model.model, x, u, search, layer, level, on_step=images.on_step), x, units)
    numbers = _activations(model, images, layer, units, x, made) | {"L2 distance to the image": mean(L2().measure(made - x))}
    rows = [("with the feature", made), ("change, amplified", pictures.amplified(made - x))]
    return Pictures([("image", x)], rows, numbers, _names(images, units, y))


def inversion(model: MatchedModel, images: Selection, settings: Invert) -> Pictures:
    """Images with the representations of others. Numbers: the distance of the representations, and likeness to the image."""
    x, layer = images.x, settings.layer
    search = search_of("invert", settings, x.shape[2])
    start = x.roll(1, 0) if settings.start == "image" else images.noise(images.keys)
    made = images.each(lambda x, s: features.invert(model.model, x, s, search, layer, on_step=images.on_step), x, start)
    goal, first, last = (images.features(model, some, layer) for some in (x, start, made))
    numbers = {
        "relative feature distance": mean(_relative_distance(last, goal)),
        "relative feature distance, start": mean(_relative_distance(first, goal)),
        **likeness(x, {"": made, ", start": start}),
    }
    return Pictures([("image", x), ("start", start)], [("inverted", made)], numbers, images.names(images.y))


def interpolation(model: MatchedModel, images: Selection, settings: Interpolate) -> Pictures:
    """Walks from each image at an even place to the one behind it. Numbers: the distance to the mixed representations.

    Raises:
        UserError: fewer than two images.
    """
    x, points, layer = images.x, settings.points, settings.layer
    if len(x) < 2:
        raise UserError(f"an interpolation needs at least 2 images, got {len(x)}")
    search = search_of("interpolate", settings, x.shape[2])
    starts = x if settings.start == "image" else images.noise(images.keys)
    given: Rows = []
    rows: Rows = []
    distances = []
    share = torch.linspace(0, 1, points, device=x.device)
    for i in range(0, len(x) - 1, 2):
        pair = " to ".join(images.names(images.y[i : i + 2]))
        (a, b), (first, last) = x[i : i + 2], starts[i : i + 2]
        walking = partial(features.interpolate, starts=(first, last), on_step=images.on_step)
        walk = images.once(partial(walking, model.model, a, b, points, search, layer))
        ends, found = images.features(model, x[i : i + 2], layer), images.features(model, walk, layer)
        distances.append(_relative_distance(found, torch.lerp(ends[0], ends[1], share[:, None].to(ends.dtype))))
        given.append((f"{pair}\nblended", torch.lerp(a, b, share[:, None, None, None])))
        rows.append((f"{pair}\nwalk", walk))
    numbers = {"relative distance to the mixed features": mean(torch.cat(distances))}
    return Pictures(given, rows, numbers, [f"{s:.2f}" for s in share.tolist()])


def visualization(model: MatchedModel, images: Selection, settings: Visualize) -> Pictures:
    """Pictures that activate features. Numbers: the activation, also in images of the set."""
    layer, search = settings.layer, search_of("visualize", settings, images.images.shape[1])
    units = torch.tensor(settings.units or range(len(images.index)), device=images.device)
    if settings.start == "image":
        start = images.x[torch.arange(len(units)) % len(images.index)]
    else:
        start = images.noise(example_keys(images.seed, torch.arange(len(units))))
    made = _visualized(model, images, search, layer, units, start)
    numbers = _activations(model, images, layer, units, start, made)
    real = images.features(model, images.at(images.others), layer)[:, units]
    numbers |= {f"largest activation in {len(real)} images": mean(real.amax(0)), "mean activation in them": mean(real)}
    return Pictures([("start", start)], [("visualized", made)], numbers, [f"feature {u}" for u in units.tolist()])


def extreme_images(model: MatchedModel, images: Selection, settings: Extremes) -> Pictures:
    """The images of the whole set that activate features most and least, beside pictures raised from grey. Numbers: the activations."""
    everything, layer, k = images.images, settings.layer, min(settings.top, len(images.images))
    units = torch.tensor(settings.units or range(3), device=images.device)
    grey = torch.full((len(units), *everything.shape), 0.5, device=images.device)
    search = search_of("extremes", settings, everything.shape[1])
    raised = _visualized(model, images, search, layer, units, grey)
    rows: Rows = []
    values = []
    for unit, picture in zip(units.tolist(), raised, strict=True):
        most, least = features.extremes(model.model, everything, unit, k, layer, chunk=images.batch_size)
        shown = torch.cat([picture[None], images.at(most), images.at(least)])
        labels = everything.labels.cpu()[most]
        alike = mean(labels == labels.mode().values)
        values.append([*images.features(model, shown, layer)[:, unit].split([1, k, k]), torch.tensor([alike])])
        rows.append((f"feature {unit}", shown))
    names = ("activation, raised from grey", "activation, most active images", "activation, least active", "most active of one class")
    numbers = {name: mean(torch.cat([v[i].cpu() for v in values])) for i, name in enumerate(names)}
    return Pictures([], rows, numbers, ["raised", *[f"most {i + 1}" for i in range(k)], *[f"least {i + 1}" for i in range(k)]])


def sensitivity(model: MatchedModel, images: Selection, settings: Sensitivity) -> Pictures:
    """The features that cause mistakes, raised in the mistaken images.

    Numbers: the margin of the predicted class over the true one, in logits, and how many images are classified correctly, with all features
    and without those that contribute most to the mistake.

    Raises:
        UserError: the model makes no mistake on these images, or has fewer features than are to be taken out.
    """
    x, y, k = images.x, images.y, settings.top
    predicted = images.logits(model, x).argmax(1)
    wrong = (predicted != y).nonzero()[:, 0]
    if not len(wrong):
        raise UserError(f"{model.name} makes no mistake on these {len(x)} images: look at more images")
    x, y, predicted, keys = x[wrong], y[wrong], predicted[wrong], images.keys[wrong]
    contributed = images.each(lambda x, y: features.contributions(model.model, x, model.outputs[y]), x, y)
    if k > contributed.shape[1]:
        raise UserError(f"`top` must be at most the number of features, {contributed.shape[1]}, got {k}")
    random = uniform(fold(keys, "features"), (contributed.shape[1],))
    ranked = {"the top": contributed.argsort(1, descending=True), "random": random.argsort(1)}
    numbers = {"images": float(len(images.x)), "mistakes": float(len(wrong))}
    numbers |= {"margin of the predicted class": mean(_margin(images.logits(model, x), predicted, y))}
    for rank in range(min(k, SHOWN)):
        logits = _logits_without(model, images, x, ranked["the top"][:, rank : rank + 1])
        numbers[f"margin without the {ORDINALS[rank]} feature alone"] = mean(_margin(logits, predicted, y))
        numbers[f"corrected without the {ORDINALS[rank]} feature alone"] = mean(logits.argmax(1) == y)
    for name, order in ranked.items():
        logits = _logits_without(model, images, x, order[:, :k])
        numbers[f"corrected without {name} {k} features"] = mean(logits.argmax(1) == y)
    some = slice(0, 10)
    top, search = ranked["the top"][some, : min(k, SHOWN)], search_of("sensitivity", settings, x.shape[2])
    rows = [
        (f"{ORDINALS[rank]} feature, raised", _visualized(model, images, search, None, top[:, rank], x[some]))
        for rank in range(top.shape[1])
    ]
    heads = [f"{a} as {b}" for a, b in zip(images.names(y[some]), images.names(predicted[some]), strict=True)]
    return Pictures([], [("mistaken image", x[some]), *rows], numbers, heads, [", ".join(map(str, units)) for units in top.tolist()])


def _margin(logits: Tensor, predicted: Tensor, y: Tensor) -> Tensor:
    """Of the predicted class over the true one, in logits, ``(B,)``."""
    return (logits.gather(1, predicted[:, None]) - logits.gather(1, y[:, None]))[:, 0]


def _logits_without(model: MatchedModel, images: Selection, x: Tensor, units: Tensor) -> Tensor:
    """Logits of the images' classes, ``(B, K)``, with the features at ``units``, int64 ``(B, k)``, taken out."""
    return images.each(lambda x, units: features.damped(model.model, x, units, 0.0), x, units)[:, model.outputs]


def _visualized(model: MatchedModel, images: Selection, search: Search, layer: str | None, units: Tensor, start: Tensor) -> Tensor:
    """Images that activate the units, int64 ``(n,)``, from ``start``, ``(n, C, H, W)``."""
    with _opened(model, layer):
        return images.each(lambda u, x: features.visualize(model.model, u, x, search, layer, on_step=images.on_step), units, start)


def _opened(model: MatchedModel, layer: str | None) -> AbstractContextManager[None]:
    """Inside, the last ReLU lets every gradient through, so that features which are off at the start wake up."""
    relu = last_relu(model.model, layer)
    return nullcontext() if relu is None else straight_through_relu(relu)


def _units_of_classes(model: MatchedModel, images: Selection, settings: Paint | AddFeature) -> tuple[Tensor, Tensor]:
    """For each image a feature and its class, int64 ``(n,)`` each: the given ones in turn, or the one that speaks most for the target."""
    y = images.target(settings.target, (images.y + 1) % len(images.classes))
    if settings.units is None and settings.layer is not None:
        raise UserError("which features of the layer? Give their numbers by `units`")
    if settings.layer is not None and settings.units is not None:
        return _in_turn(settings.units, y), y
    weight = features.head_of(model.model).weight.detach()[model.outputs]  # (K, D)
    if settings.units is None:
        return weight.argmax(1)[y], y
    units = _in_turn(settings.units, y)
    return units, weight.argmax(0)[units] if int(units.max()) < weight.shape[1] else y


def _in_turn(units: Sequence[int], y: Tensor) -> Tensor:
    """A unit for each label, int64 ``(n,)``."""
    return torch.tensor(units, device=y.device)[torch.arange(len(y), device=y.device) % len(units)]


def _names(images: Selection, units: Tensor, y: Tensor) -> list[str]:
    return [f"{name}: {unit}" for name, unit in zip(images.names(y), units.tolist(), strict=True)]


def _activations(
    model: MatchedModel, images: Selection, layer: str | None, units: Tensor, before: Tensor, after: Tensor
) -> dict[str, float]:
    """The activation of each image's unit, int64 ``(n,)``, in images ``(n, C, H, W)`` before and after."""

    def active(units: Tensor, x: Tensor) -> Tensor:
        with frozen(model.model), torch.no_grad():
            return features.activation(model.model, units, x, layer)(x)

    first, last = (images.each(active, units, x) for x in (before, after))
    return {"activation": mean(last), "activation, before": mean(first), "share of features that are off": mean(last == 0)}


def _relative_distance(found: Tensor, goal: Tensor) -> Tensor:
    """``|found - goal| / |goal|`` of representations ``(B, D)``, shape ``(B,)``."""
    return (found - goal).norm(dim=1) / goal.norm(dim=1).clamp_min(torch.finfo(goal.dtype).tiny)
