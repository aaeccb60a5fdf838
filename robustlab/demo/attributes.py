"""Buttons that are no classes: directions in a model's features along which a picture can be changed.

Where the truth is known, as for *shapes* and for pictures that bring their attributes along, a direction is learned from it; else it is
made of the classes' own weights, or is one feature by itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import count as count_from

import torch
from torch import Tensor

from robustlab.data.drawing import ATTRIBUTES
from robustlab.data.imageset import Images
from robustlab.data.shapes import CLASSES, shapes, truth
from robustlab.demo.session import Attribute, as_bytes
from robustlab.errors import UserError
from robustlab.models.classifier import Classifier
from robustlab.models.frozen import frozen
from robustlab.pixels import to_float, to_uint8
from robustlab.progress import Progress
from robustlab.seeding import permutation

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
FEWEST = 5  # pictures that have an attribute, and that lack it, to learn it from
OTHERS = 0.2  # share of the pictures that an attribute is not learned from, but tried on
CONSTANT = 1e-6  # a feature that varies less, relative to its largest value, shows nothing
RIDGE = 0.01  # share of the features' mean variance added to each
BATCH = 250  # pictures that a model sees at a time


def attributes_of(model: Classifier, single: int = 4) -> tuple[Attribute, ...]:
    """The attributes that can be named for a model.

    Args:
        single: how many features to offer by themselves where no truth is known.
    """
    if model.classes == CLASSES:
        facts = truth(torch.arange(EXAMPLES))
        f = _features(model, shapes(EXAMPLES), torch.arange(EXAMPLES), "learning attributes")
        directions = learned(f, torch.stack([facts[name] for name in ATTRIBUTES], 1), "the model")
        return tuple(Attribute(name, hint, way) for (name, hint), way in zip(ATTRIBUTES.items(), directions, strict=True) if way.any())
    named = [between(model, name, *groups) for name, groups in CONTRASTS.get(model.classes, {}).items()]
    return (*named, *features(model, single))


def attributes_of_data(model: Classifier, images: Images, facts: Mapping[str, Tensor], what: str) -> tuple[Attribute, ...]:
    """The attributes of a user's own pictures, learned from most of these; the hints say how well they tell the others.

    Args:
        model: whose features they are directions of.
        images: pictures of which the attributes are known.
        facts: which pictures have an attribute, bool, shape ``(N,)``, by its name.
        what: what to call the model in messages.

    Raises:
        UserError: the model gives NaN or infinity.

    Warns:
        UserWarning: names the attributes that are left out.
    """
    order = permutation(0, len(images), "attributes")
    other, known = order[: int(OTHERS * len(order))], order[int(OTHERS * len(order)) :]
    counts = {name: int(has[known].sum()) for name, has in facts.items()}
    chosen = [name for name, count in counts.items() if min(count, len(known) - count) >= FEWEST]
    few = [name for name in facts if name not in chosen]
    if few:
        warnings.warn(f"left out, as fewer than {FEWEST} of {len(known):,} pictures have or lack it: {_listed(few)}", stacklevel=2)
    if not chosen:
        return ()
    f = _features(model, images, torch.arange(len(images)), f"learning attributes for {what}")
    directions = learned(f[known], torch.stack([facts[name][known] for name in chosen], 1), what)
    found = []
    for name, way in zip(chosen, directions, strict=True):
        hint = f"learned from {counts[name]:,} pictures that have it and {len(known) - counts[name]:,} that do not"
        found.append(Attribute(name, hint + _told(f @ way, facts[name], known, other), way))
    unseen = [each.name for each in found if not each.direction.any()]
    if unseen:
        warnings.warn(f"left out, as the features of {what} do not show it: {_listed(unseen)}", stacklevel=2)
    return tuple(each for each in found if each.name not in unseen)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")


def _told(levels: Tensor, has: Tensor, known: Tensor, other: Tensor) -> str:
    """How often a level above the middle means the attribute, in pictures that it was not learned from; nothing where they are too few."""
    middle = (levels[known][has[known]].mean() + levels[known][~has[known]].mean()) / 2
    above, has = levels[other] > middle, has[other]
    if min(int(has.sum()), int((~has).sum())) < FEWEST:
        return ""
    seen, taken = (100 * float(above[which].double().mean()) for which in (has, ~has))
    return f"; found in {seen:.0f} % of {int(has.sum()):,} others that have it, and in {taken:.0f} % of {int((~has).sum()):,} that do not"


def learned(f: Tensor, facts: Tensor, what: str) -> Tensor:
    """For each attribute the direction that tells it best, by ridge regression on the features of pictures of which it is known.

    A step of 1 in level is the average difference between pictures that have the attribute and pictures that do not. An attribute
    whose pictures do not differ in their features gets the direction 0.

    Args:
        f: features, shape ``(N, D)``.
        facts: which picture has which attribute, bool, shape ``(N, A)``; of each some have it and some do not.
        what: what to call the model in messages.

    Returns:
        Directions, float32, shape ``(A, D)``.

    Raises:
        UserError: features that are NaN or infinite.
    """
    if not f.isfinite().all():
        raise UserError(f"{what} gives NaN or infinity for some of the pictures from which attributes are learned")
    largest = f.abs().amax(0).double()
    f = f.double() - f.double().mean(0)
    f[:, f.abs().amax(0) <= CONSTANT * largest] = 0  # rounding alone would look like an attribute
    has = facts.double()
    differences = f.T @ (has / has.sum(0) - (1 - has) / (1 - has).sum(0))  # (D, A)
    directions = _solved(f, differences)
    steps = (directions * differences).sum(0)
    return torch.where(steps > 0, directions / steps, 0).T.float()


def _solved(f: Tensor, right: Tensor) -> Tensor:
    """``(f.T @ f / N + ridge)^-1 @ right`` for centred features ``(N, D)``, float64; by the smaller of two equal systems."""
    n, d = f.shape
    ridge = max(RIDGE * float(f.square().mean()), torch.finfo(f.dtype).tiny)
    if d <= n:
        return torch.linalg.solve(f.T @ f / n + ridge * torch.eye(d, dtype=f.dtype), right)
    inner = torch.linalg.solve(f @ f.T / n + ridge * torch.eye(n, dtype=f.dtype), f @ right)
    return (right - f.T @ inner / n) / ridge


def _features(model: Classifier, images: Images, index: Tensor, title: str) -> Tensor:
    """Of the pictures at ``index``, some at a time, on the CPU: ``(N, D)``."""
    device = model.head.weight.device
    parts = []
    with frozen(model), torch.no_grad(), Progress(title, len(index), "img") as progress:
        for some in index.split(BATCH):
            parts.append(model.features(to_float(images.fetch(some)).to(device)).cpu())
            progress.update(len(some))
    return torch.cat(parts)


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
    f = _features(model, images, index, "looking for examples")
    levels = f @ torch.stack([one.direction.to(f).cpu() for one in attributes]).T  # (n, A)
    best = levels.argsort(dim=0, descending=True, stable=True)[:most].T
    shown = [tuple(as_bytes(to_uint8(images.fetch(index[place][None]))) for place in places) for places in best]
    return tuple(replace(one, examples=some) for one, some in zip(attributes, shown, strict=True))
