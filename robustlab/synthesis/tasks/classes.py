"""Tasks that raise the score of a class: generation, inpainting, super-resolution, translation, and images from drawings.

Each task is a function of a ``model`` whose outputs are matched to the data's classes, the ``images`` that are worked on, and its
``settings``; an independent ``judge``, where it has one, tells how the pictures are classified.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import rgb_to_grayscale

from robustlab.errors import UserError
from robustlab.norms import L2
from robustlab.seeding import example_keys
from robustlab.synthesis import edit, fills
from robustlab.synthesis.budget import Search, choices_of, search_of
from robustlab.synthesis.features import head_of
from robustlab.synthesis.masks import mask_of
from robustlab.synthesis.measures import calmness, diversity, frechet_distance, inception_score, likeness
from robustlab.synthesis.seeds import ClassGaussians, default_grain
from robustlab.synthesis.selection import MatchedModel, Selection, in_turn, mean
from robustlab.synthesis.sheets import Pictures
from robustlab.synthesis.tasks import Generate, Inpaint, Sketch, SuperResolve, Translate

PER_CLASS = 1000  # images that the Gaussian of a class is fitted to


def generation(model: MatchedModel, images: Selection, settings: Generate, *, judge: MatchedModel | None = None) -> Pictures:
    """Images of classes, as many as there are images in the selection, from seeds: draws of Gaussians fitted to the training images.

    Numbers: the judge's accuracy on them; a score like Inception's, a Fréchet distance and the diversity, all by the judge's softmax
    and features, so that they compare with nothing published; and the same of real images.

    Raises:
        UserError: the selection has no training images.
    """
    n, search = len(images.index), search_of("generate", settings, images.images.shape[1])
    y = images.target(settings.target, torch.arange(n, device=images.device) % len(images.classes))
    seeds = _seeds(images, y)
    x = images.each(lambda y, s: edit.generate(model.model, model.outputs[y], s, search, on_step=images.on_step), y, seeds)
    numbers = ({} if judge is None else _scores(images, judge, x, y, seeds)) | calmness({"": x, ", seeds": seeds})
    return Pictures([("seed", seeds)], [("generated", x)], numbers, images.names(y))


def _seeds(images: Selection, y: Tensor) -> Tensor:
    """Draws of the classes' Gaussians, ``(n, C, H, W)``."""
    if images.training_images is None:
        raise UserError("generation draws its seeds from training images: give them by `train`")
    grain = default_grain(*images.images.shape[1:])
    gaussians = ClassGaussians.fit(images.training_images, PER_CLASS, grain, set(y.tolist())).to(images.device)
    return gaussians.sample(y, example_keys(images.seed, torch.arange(len(y))).to(images.device))


def _scores(images: Selection, judge: MatchedModel, x: Tensor, y: Tensor, seeds: Tensor) -> dict[str, float]:
    """What a judge, a ``Classifier``, finds of images ``x`` of the classes ``y`` that grew from ``seeds``, and of as many real images."""
    labels = images.images.labels.cpu()
    of_them = torch.isin(labels, y.cpu()).nonzero()[:, 0]
    real = of_them[in_turn(labels[of_them], len(x))]
    rest = images.reference(of_them[~torch.isin(of_them, real)])
    numbers = {
        "classified as its label": images.accuracy(judge, x, y),
        "classified as its label, real images": images.accuracy(judge, images.at(real), images.labels(real)),
    }
    beside = images.features(judge, images.at(rest)) if len(rest) else torch.zeros(0, 1)
    for name, some in (("", x), (", seeds", seeds), (", real images", images.at(real))):
        seen = images.features(judge, some)
        logits = head_of(judge.model)(seen)[:, judge.outputs].detach()
        numbers[f"Inception-style score{name}"] = inception_score(logits.softmax(1), splits=1)[0]
        if min(len(seen), len(beside)) > 1:
            numbers[f"Fréchet distance to {len(beside)} other images{name}"] = frechet_distance(seen, beside)
        if len(seen) > 1:
            numbers[f"diversity{name}"] = diversity(seen)
    return numbers


def inpainting(model: MatchedModel, images: Selection, settings: Inpaint, *, judge: MatchedModel | None = None) -> Pictures:
    """Images with a missing part filled in. Numbers: likeness to the image, and the judge's accuracy, also for the harmonic fill."""
    height, width = images.images.shape[1:]
    search, chosen = search_of("inpaint", settings, height), choices_of("inpaint", settings)
    x, y, mask = images.x, images.target(settings.target, images.y), mask_of(settings.mask, images.keys, height, width)

    def made_of(x: Tensor, mask: Tensor, y: Tensor) -> Tensor:
        how = {"weight": chosen["weight"], "start": chosen["start"], "on_step": images.on_step}
        return edit.inpaint(model.model, x, mask, model.outputs[y], search, **how)

    made, smooth = images.each(made_of, x, mask, y), images.each(lambda x, mask: fills.fill(x, mask, "harmonic"), x, mask)
    shown = {"": made, ", harmonic fill": smooth}
    if chosen["start"] == "mean":
        shown[", filled with the mean"] = fills.fill(x, mask)
    numbers = likeness(x, shown) | _classified(images, judge, y, shown)
    given = [("image", x), ("with a hole", torch.where(mask, 0.5, x)), ("harmonic fill", smooth)]
    return Pictures(given, [("inpainted", made)], numbers, images.names(y))


def super_resolution(model: MatchedModel, images: Selection, settings: SuperResolve, *, judge: MatchedModel | None = None) -> Pictures:
    """Images made smaller and enlarged again. Numbers: likeness to the image, and the judge's accuracy, also for bicubic enlargement."""
    x, y = images.x, images.target(settings.target, images.y)
    size = (x.shape[2], x.shape[3])
    search, chosen = search_of("super-resolve", settings, size[0]), choices_of("super-resolve", settings)
    small = F.adaptive_avg_pool2d(x, (_smaller(size[0], settings.factor), _smaller(size[1], settings.factor)))
    smooth = fills.enlarged(small, size, "bicubic")

    def made_of(small: Tensor, y: Tensor) -> Tensor:
        return edit.super_resolve(model.model, small, model.outputs[y], size, search, **chosen, on_step=images.on_step)

    made = images.each(made_of, small, y)
    numbers = likeness(x, {"": made, ", bicubic": smooth}) | _classified(images, judge, y, {"": made, ", bicubic": smooth})
    given = [("image", x), (f"{small.shape[3]} pixels wide", fills.enlarged(small, size)), ("bicubic", smooth)]
    return Pictures(given, [("super-resolved", made)], numbers, images.names(y))


def _smaller(side: int, factor: float) -> int:
    return max(1, round(side / factor))


def translation(model: MatchedModel, images: Selection, settings: Translate, *, judge: MatchedModel | None = None) -> Pictures:
    """Images turned into another class. Numbers: how many the judge classifies as the target, and how far they moved."""
    x, y = images.x, images.target(settings.target, (images.y + 1) % len(images.classes))
    made = _towards(model, images, x, y, search_of("translate", settings, x.shape[2]))
    numbers = {} if judge is None else {"targeted success rate": images.accuracy(judge, made, y)}
    numbers |= {"L2 distance to the image": mean(L2().measure(made - x))} | calmness({"": made, ", image": x})
    return Pictures([("image", x)], [("translated", made)], numbers, [f"to {name}" for name in images.names(y)])


def sketching(model: MatchedModel, images: Selection, settings: Sketch, *, judge: MatchedModel | None = None) -> Pictures:
    """Images from line drawings. Numbers: the judge's accuracy, also on the drawings."""
    y = images.target(settings.target, images.y)
    drawings = images.x if settings.drawn else drawing_of(images.x)
    made = _towards(model, images, drawings, y, search_of("sketch", settings, drawings.shape[2]))
    numbers = _classified(images, judge, y, {"": made, ", as a sketch": drawings})
    given = [("sketch", drawings)] if settings.drawn else [("image", images.x), ("sketch", drawings)]
    return Pictures(given, [("from the sketch", made)], numbers, images.names(y))


def _towards(model: MatchedModel, images: Selection, x: Tensor, y: Tensor, search: Search) -> Tensor:
    return images.each(lambda x, y: edit.translate(model.model, x, model.outputs[y], search, on_step=images.on_step), x, y)


def _classified(images: Selection, judge: MatchedModel | None, y: Tensor, made: Mapping[str, Tensor]) -> dict[str, float]:
    """The judge's accuracy on some images, by what to write behind its name; empty without a judge."""
    return {} if judge is None else {f"classified as its label{name}": images.accuracy(judge, x, y) for name, x in made.items()}


def drawing_of(x: Tensor) -> Tensor:
    """Dark lines on white where an image's brightness changes: a stand-in for a drawing by hand.

    Args:
        x: images in [0, 1], shape ``(B, C, H, W)``.

    Returns:
        Of the same shape, in [0, 1].
    """
    grey = F.pad(rgb_to_grayscale(x) if x.shape[1] == 3 else x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    smooth = torch.tensor([1.0, 2.0, 1.0], device=x.device).outer(torch.tensor([-1.0, 0.0, 1.0], device=x.device))
    edges = F.conv2d(grey, torch.stack([smooth, smooth.T])[:, None]).norm(dim=1, keepdim=True)
    return (1 - edges / edges.amax((2, 3), keepdim=True).clamp_min(1e-6)).expand_as(x).contiguous()
