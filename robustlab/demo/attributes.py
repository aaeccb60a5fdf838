"""Buttons that are no classes: directions in a model's features along which a picture can be changed.

Where the truth is known, as for *shapes*, a direction is learned from it; else it is made of the classes' own weights, or is one
feature by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import count as count_from

import torch
from torch import Tensor

from robustlab.data.drawing import ATTRIBUTES
from robustlab.data.imageset import Images
from robustlab.data.shapes import CLASSES, shapes, truth
from robustlab.demo.session import Attribute, as_bytes
from robustlab.models.classifier import Classifier
from robustlab.models.frozen import frozen
from robustlab.pixels import to_float, to_uint8

# Against each other: the classes that show the attribute, and those that do not.
CONTRASTS: dict[tuple[str, ...], dict[str, tuple[Sequence[str], Sequence[str]]]] = {
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"): {
        "alive": (("bird", "cat", "deer", "dog", "frog", "horse"), ("airplane", "automobile", "ship", "truck")),
        "wings": (("airplane", "bird"), ("automobile", "cat", "deer", "dog", "frog", "horse", "ship", "truck")),
        "wheels": (("automobile", "truck"), ("airplane", "ship")),
        "hooves": (("deer", "horse"), ("bird", "cat", "dog", "frog")),
        "pet": (("cat", "dog"), ("bird", "deer", "frog", "horse")),
    }
}
LOOKED_AT = 1000  # pictures among which those are looked for that show an attribute best
EXAMPLES = 1500  # pictures of shapes from which a direction is learned
RIDGE = 0.01  # share of the features' mean variance added to each


def attributes_of(model: Classifier, single: int = 4) -> tuple[Attribute, ...]:
    """The attributes that can be named for a model.

    Args:
        single: how many features to offer by themselves where no truth is known.
    """
    if model.classes == CLASSES:
        return _learned(model)
    named = [between(model, name, *groups) for name, groups in CONTRASTS.get(model.classes, {}).items()]
    return (*named, *features(model, single))


def _learned(model: Classifier) -> tuple[Attribute, ...]:
    """For each attribute of shapes the direction that tells it best, by ridge regression on pictures of which it is known.

    A step of 1 in level is the average difference between pictures that have the attribute and pictures that do not.
    """
    index = torch.arange(EXAMPLES)
    facts = truth(index)
    device = model.head.weight.device
    with frozen(model), torch.no_grad():
        parts = [model.features(to_float(part).to(device)).cpu().double() for part in shapes(EXAMPLES).pixels.split(250)]
    f = torch.cat(parts)
    f = f - f.mean(0)
    covariance = f.T @ f / len(f)
    covariance += RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=f.dtype)
    found = []
    for name, hint in ATTRIBUTES.items():
        has = facts[name]
        mean_difference = f[has].mean(0) - f[~has].mean(0)
        direction = torch.linalg.solve(covariance, mean_difference)
        found.append(Attribute(name, hint, (direction / (direction @ mean_difference)).float()))
    return tuple(found)


def between(model: Classifier, name: str, those: Sequence[str], others: Sequence[str]) -> Attribute:
    """The average weights of some classes minus those of others: the level is the difference of their mean logits.

    Args:
        model: the classifier whose last layer is read.
        name: what the button says.
        those: classes that show the attribute.
        others: classes that do not.
    """
    weight = model.head.weight.detach()

    def mean(classes: Sequence[str]) -> Tensor:
        return weight[[model.classes.index(k) for k in classes]].mean(0)

    return Attribute(name, f"{', '.join(those)} rather than {', '.join(others)}", mean(those) - mean(others))


def features(model: Classifier, count: int) -> tuple[Attribute, ...]:
    """The features that the classes disagree on most, each by itself, named after the classes that it speaks for."""
    weight = model.head.weight.detach().cpu()
    weight = weight - weight.mean(0)
    found: list[Attribute] = []
    for unit in weight.norm(dim=0).argsort(descending=True, stable=True)[:count].tolist():
        order = [model.classes[k] for k in weight[:, unit].argsort(descending=True).tolist()]
        liked = order[: min(2, len(order) - 1)]
        hint = f"one feature of the network, number {unit}, which speaks for {' and '.join(liked)}, against {order[-1]}"
        one = torch.zeros(weight.shape[1])
        one[unit] = 1
        found.append(Attribute(_new_name("like " + " or ".join(liked), {each.name for each in found}), hint, one))
    return tuple(found)


def _new_name(name: str, taken: Collection[str]) -> str:
    """The name, with a number behind it where others are called so too."""
    return next(one for k in count_from(1) if (one := name if k == 1 else f"{name} {k}") not in taken)


def with_examples(model: Classifier, attributes: Sequence[Attribute], images: Images, most: int = 3) -> tuple[Attribute, ...]:
    """The attributes with the pictures that show them best.

    Args:
        model: whose features they are directions of.
        attributes: some of them.
        images: square ones in colour; up to ``LOOKED_AT`` of them are looked at, spread over all.
        most: pictures for each.
    """
    if not attributes or not len(images):
        return tuple(attributes)
    index = torch.arange(0, len(images), max(1, -(-len(images) // LOOKED_AT)))
    device = model.head.weight.device
    with frozen(model), torch.no_grad():
        parts = [model.features(to_float(images.fetch(some)).to(device)).cpu() for some in index.split(250)]
    levels = torch.cat(parts) @ torch.stack([one.direction.to(parts[0]).cpu() for one in attributes]).T  # (n, A)
    best = levels.argsort(dim=0, descending=True, stable=True)[:most].T
    shown = [tuple(as_bytes(to_uint8(images.fetch(index[place][None]))) for place in places) for places in best]
    return tuple(replace(one, examples=some) for one, some in zip(attributes, shown, strict=True))
