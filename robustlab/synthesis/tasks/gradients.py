"""The task of gradients: what the loss is sensitive to.

Each task is a function of a ``model`` whose outputs are matched to the data's classes, the ``images`` that are worked on, and its
``settings``; an independent ``judge``, where it has one, tells how the pictures are classified.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from robustlab import pictures
from robustlab.data.shapes import render, silhouettes, truth
from robustlab.synthesis.gradients import alignment, energy_inside, loss_gradient, smooth_grad
from robustlab.synthesis.selection import MatchedModel, Selection, mean
from robustlab.synthesis.sheets import Pictures
from robustlab.synthesis.tasks import Gradients


def gradients(model: MatchedModel, images: Selection, settings: Gradients) -> Pictures:
    """Gradients of the loss at each image's label, plain and smoothed.

    Numbers: how well the direction of descent agrees with the way to the nearest other class's mean image, and with blurring; on the
    embedded set *shapes* also the share of the gradient on the object, whose place is known there.
    """
    x, y, outputs = images.x, images.y, model.outputs
    here, labels = images.at(images.others), images.labels(images.others)
    missing = torch.full_like(x[0], torch.inf)
    centers = torch.stack([here[labels == k].mean(0) if (labels == k).any() else missing for k in range(len(images.classes))])
    distance = torch.cdist(x.flatten(1), centers.flatten(1)).nan_to_num(torch.inf)
    other = distance.scatter(1, y[:, None], torch.inf).argmin(1)
    grad = images.each(lambda x, y: loss_gradient(model.model, x, outputs[y]), x, y)
    smoothed = images.each(lambda x, y, keys: smooth_grad(model.model, x, outputs[y], keys), x, y, images.keys)
    towards = images.each(lambda x, y: loss_gradient(model.model, x, outputs[y]), x, other)
    numbers = {
        "cosine: descent for the nearest other class, way to its mean image": mean(alignment(towards, x, centers[other])),
        "cosine: descent for the own class, way to the blurred image": mean(alignment(grad, x, gaussian_blur(x, [5, 5], [1.0, 1.0]))),
    }
    on_object = _objects(images)
    if on_object is not None:
        numbers |= {
            "share of the squared gradient on the object": mean(energy_inside(grad, on_object)),
            "share of the pixels on the object": mean(on_object),
        }
    rows = [("gradient", pictures.gradient_picture(grad)), ("smoothed gradient", pictures.gradient_picture(smoothed))]
    return Pictures([("image", x)], rows, numbers, images.names(y))


def _objects(images: Selection) -> Tensor | None:
    """Where the object is in images of *shapes*, bool ``(n, 1, H, W)``; None where they are not those at the same places of that set."""
    if images.images.name != "shapes":
        return None
    pixels = images.images.fetch(images.index).cpu()
    for split in ("train", "test", "val"):
        facts = truth(images.places, split)
        if torch.equal(pixels, render(facts["visible_class"], facts["faint_class"], images.places, split)):
            return silhouettes(images.places, split)[:, None].to(images.device)
    return None
