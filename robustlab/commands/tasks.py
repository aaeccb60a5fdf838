"""What ``robustlab synthesize`` can make: a table of tasks, each from some images and one model to rows of pictures and some numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur, pil_to_tensor, rgb_to_grayscale

from robustlab import pictures
from robustlab.commands import settings
from robustlab.data.imageset import Images, hold_out
from robustlab.data.shapes import silhouettes
from robustlab.errors import UserError, unknown
from robustlab.models.classifier import Classifier
from robustlab.models.frozen import frozen
from robustlab.norms import L2
from robustlab.optimize import OnStep
from robustlab.options import value_of
from robustlab.pixels import to_float
from robustlab.seeding import example_keys, fold, integers, normal, uniform
from robustlab.synthesis import edit, features
from robustlab.synthesis.budget import Search, preset, usual
from robustlab.synthesis.gradients import alignment, energy_inside, loss_gradient, smooth_grad
from robustlab.synthesis.measures import WINDOW, diversity, frechet_distance, inception_score, psnr, ssim
from robustlab.synthesis.parameters import Fourier
from robustlab.synthesis.representations import last_relu, representation, straight_through_relu
from robustlab.synthesis.seeds import ClassGaussians, default_grain

REFERENCE = 1000  # images that others are compared with
PER_CLASS = 1000  # images that the Gaussian of a class is fitted to
SHOWN = 3  # features of a mistake that are raised and damped one by one
ORDINALS = ("first", "second", "third")

Rows = list[tuple[str, Tensor]]


@dataclass(frozen=True, eq=False)
class Subject:
    """A model with its name, and which of its outputs stands for each class of the data, int64 ``(K,)``."""

    name: str
    model: Classifier
    outputs: Tensor


@dataclass(frozen=True)
class Made:
    """What a task made with one model.

    Attributes:
        given: rows that do not depend on the model: titles and images ``(n, C, H, W)``.
        rows: those that do, as wide.
        numbers: what was measured, by its name in words.
        heads: what to write above each column.
        feet: what to write below each column, if anything.
    """

    given: Rows
    rows: Rows
    numbers: dict[str, float]
    heads: Sequence[str]
    feet: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Work:
    """What a task works on.

    Attributes:
        images: the split that was asked for.
        index: positions in it of the images to work on, int64 ``(n,)``.
        training: opens the training images, from which seeds are drawn.
        on_step: told of every step of a search.
    """

    args: settings.Synthesize
    images: Images
    index: Tensor
    search: Search
    device: torch.device
    training: Callable[[], Images]
    on_step: OnStep

    @cached_property
    def x(self) -> Tensor:
        return self.at(self.index)

    @cached_property
    def y(self) -> Tensor:
        return self.images.labels.cpu()[self.index].to(self.device)

    @cached_property
    def keys(self) -> Tensor:
        return example_keys(self.args.compute.seed, self.index).to(self.device)

    @cached_property
    def reference(self) -> Tensor:
        """Positions of up to ``REFERENCE`` other images, with the same share of each class."""
        others = torch.ones(len(self.images), dtype=torch.bool)
        others[self.index] = False
        rest = others.nonzero()[:, 0]
        return rest[hold_out(self.images.subset(rest), min(REFERENCE, len(rest)), seed=0)[1]]

    def seeds(self, y: Tensor, keys: Tensor) -> Tensor:
        """Draws of the classes' Gaussians, ``(n, C, H, W)``."""
        grain = default_grain(*self.images.shape[1:])
        return ClassGaussians.fit(self.training(), PER_CLASS, grain, set(y.tolist())).to(self.device).sample(y, keys)

    @cached_property
    def mask(self) -> Tensor:
        """Bool ``(n, 1, H, W)``, true where to work."""
        height, width = self.images.shape[1:]
        name = self.args.task.mask or ("centre" if self.args.task.task == "paint" else "square")
        make = MASKS.get(name) or (lambda keys, height, width: _mask_of(name, height, width))
        return make(self.keys, height, width).to(self.device).expand(len(self.index), 1, height, width)

    @property
    def weight(self) -> float:
        """Of changes outside the mask, in a task that has one."""
        assert self.args.task.weight is not None
        return self.args.task.weight

    def at(self, index: Tensor) -> Tensor:
        """Images of the split, float32 in [0, 1], shape ``(B, C, H, W)``."""
        return to_float(self.images.fetch(index)).to(self.device)

    def each(self, make: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """``make`` of the tensors, a batch at a time."""
        return torch.cat([make(*parts) for parts in zip(*(t.split(self.args.compute.batch_size) for t in tensors), strict=True)])

    def target(self, default: Tensor) -> Tensor:
        """The class of ``--target`` for each image, or the default, int64 ``(n,)``."""
        name = self.args.task.target
        if name is None:
            return default
        if name not in self.images.classes:
            raise unknown("class", name, self.images.classes)
        return torch.full_like(default, self.images.classes.index(name))

    def names(self, y: Tensor) -> list[str]:
        return [self.images.classes[k] for k in y.tolist()]

    def see(self, subject: Subject, x: Tensor, layer: str | None = None) -> Tensor:
        """The representation of images, ``(B, D)``."""
        with frozen(subject.model), torch.no_grad():
            return self.each(representation(subject.model, layer), x)

    def logits(self, subject: Subject, x: Tensor) -> Tensor:
        """Of the data's classes, ``(B, K)``."""
        with frozen(subject.model), torch.no_grad():
            return self.each(subject.model, x)[:, subject.outputs]

    def agreement(self, judge: Subject, x: Tensor, y: Tensor) -> float:
        """Share of images that a judge takes for the classes ``y``."""
        return _mean(self.logits(judge, x).argmax(1) == y)

    def noise(self, keys: Tensor) -> Tensor:
        """Faint noise around grey, as the notebooks of Engstrom et al. (2019) start from."""
        return (0.5 + normal(fold(keys, "noise"), self.images.shape) / 20).clamp(0, 1).to(self.device)


Make = Callable[[Work, Subject, Subject], Made]


def gradients(work: Work, subject: Subject, judge: Subject) -> Made:
    x, y, outputs = work.x, work.y, subject.outputs
    here, labels = work.at(work.reference), work.images.labels.cpu()[work.reference].to(work.device)
    means = torch.stack(
        [here[labels == k].mean(0) if (labels == k).any() else here[0] + torch.inf for k in range(len(work.images.classes))]
    )
    distance = torch.cdist(x.flatten(1), means.flatten(1)).nan_to_num(torch.inf)
    other = distance.scatter(1, y[:, None], torch.inf).argmin(1)
    grad = work.each(lambda x, y: loss_gradient(subject.model, x, outputs[y]), x, y)
    smoothed = work.each(lambda x, y, keys: smooth_grad(subject.model, x, outputs[y], keys), x, y, work.keys)
    towards = work.each(lambda x, y: loss_gradient(subject.model, x, outputs[y]), x, other)
    numbers = {
        "cosine: descent for the nearest other class, way to its mean image": _mean(alignment(towards, x, means[other])),
        "cosine: descent for the own class, way to the blurred image": _mean(alignment(grad, x, gaussian_blur(x, [5, 5], [1.0, 1.0]))),
    }
    if work.images.name == "shapes" and not work.args.data.classes:  # else positions are no longer those of the whole set
        on_object = silhouettes(work.index, work.args.data.split)[:, None].to(work.device)
        numbers |= {
            "share of the squared gradient on the object": _mean(energy_inside(grad, on_object)),
            "share of the pixels on the object": _mean(on_object),
        }
    rows = [("gradient", pictures.gradient_picture(grad)), ("smoothed gradient", pictures.gradient_picture(smoothed))]
    return Made([("image", x)], rows, numbers, work.names(y))


def generate(work: Work, subject: Subject, judge: Subject) -> Made:
    n = len(work.index)
    y = work.target(torch.arange(n, device=work.device) % len(work.images.classes))
    seeds = work.seeds(y, example_keys(work.args.compute.seed, torch.arange(n)).to(work.device))
    x = work.each(lambda y, s: edit.generate(subject.model, subject.outputs[y], s, work.search, on_step=work.on_step), y, seeds)
    labels = work.images.labels.cpu()
    of_them = torch.isin(labels, y.cpu()).nonzero()[:, 0]
    real = of_them[in_turn(labels[of_them], n)]
    rest = of_them[~torch.isin(of_them, real)]
    reference = rest[hold_out(work.images.subset(rest), min(REFERENCE, len(rest)), seed=0)[1]]
    scores = {name: work.see(judge, images) for name, images in (("", x), (" of real images", work.at(real)))}
    beside = work.see(judge, work.at(reference)) if len(reference) else torch.zeros(0, 1)
    numbers = {"taken for its class": work.agreement(judge, x, y)}
    numbers |= {"taken for its class of real images": work.agreement(judge, work.at(real), labels[real].to(work.device))}
    for name, seen in scores.items():
        p = judge.model.head(seen)[:, judge.outputs].softmax(1).detach()
        numbers[f"Inception-style score{name}"] = inception_score(p, splits=1)[0]
        if min(len(seen), len(beside)) > 1:
            numbers[f"Fréchet distance to {len(beside)} other images{name}"] = frechet_distance(seen, beside)
        if len(seen) > 1:
            numbers[f"diversity{name}"] = diversity(seen)
    return Made([("seed", seeds)], [("generated", x)], numbers, work.names(y))


def inpaint(work: Work, subject: Subject, judge: Subject) -> Made:
    x, y, mask, weight = work.x, work.target(work.y), work.mask, work.weight
    start = edit.fill(x, mask)
    made = work.each(
        lambda x, mask, y: edit.inpaint(subject.model, x, mask, subject.outputs[y], work.search, weight, on_step=work.on_step), x, mask, y
    )
    missing = torch.where(mask, 0.5, x)
    likeness = _likeness(x, {"": made, ", filled with the mean": start})
    judged = {
        "taken for its class": work.agreement(judge, made, y),
        "taken for its class, filled with the mean": work.agreement(judge, start, y),
    }
    return Made([("image", x), ("with a hole", missing)], [("inpainted", made)], likeness | judged, work.names(y))


def super_resolve(work: Work, subject: Subject, judge: Subject) -> Made:
    x, y, size = work.x, work.target(work.y), (work.x.shape[2], work.x.shape[3])
    small = F.adaptive_avg_pool2d(x, (_smaller(size[0], work.args.task.factor), _smaller(size[1], work.args.task.factor)))
    smooth = F.interpolate(small, size=size, mode="bicubic").clamp(0, 1)
    made = work.each(
        lambda s, y: edit.super_resolve(subject.model, s, subject.outputs[y], size, work.search, on_step=work.on_step), small, y
    )
    likeness = _likeness(x, {"": made, ", bicubic": smooth})
    judged = {"taken for its class": work.agreement(judge, made, y), "taken for its class, bicubic": work.agreement(judge, smooth, y)}
    given = [("image", x), (f"{small.shape[3]} pixels wide", edit.enlarged(small, size)), ("bicubic", smooth)]
    return Made(given, [("super-resolved", made)], likeness | judged, work.names(y))


def _smaller(side: int, factor: float) -> int:
    return max(1, round(side / factor))


def translate(work: Work, subject: Subject, judge: Subject) -> Made:
    x, y = work.x, work.target((work.y + 1) % len(work.images.classes))
    made = _towards(work, subject, x, y)
    numbers = {"taken for the target class": work.agreement(judge, made, y), "L2 moved": _mean(L2().measure(made - x))}
    return Made([("image", x)], [("translated", made)], numbers, [f"to {name}" for name in work.names(y)])


def sketch(work: Work, subject: Subject, judge: Subject) -> Made:
    y = work.target(work.y)
    lines = work.x if work.args.task.drawn else drawing_of(work.x)
    made = _towards(work, subject, lines, y)
    numbers = {"taken for its class": work.agreement(judge, made, y), "taken for its class, as a sketch": work.agreement(judge, lines, y)}
    given = [("image", work.x), ("sketch", lines)]
    return Made(given[work.args.task.drawn :], [("from the sketch", made)], numbers, work.names(y))


def _towards(work: Work, subject: Subject, x: Tensor, y: Tensor) -> Tensor:
    return work.each(lambda x, y: edit.translate(subject.model, x, subject.outputs[y], work.search, on_step=work.on_step), x, y)


def paint(work: Work, subject: Subject, judge: Subject) -> Made:
    x, mask, layer, weight = work.x, work.mask, work.args.task.layer, work.weight
    units, y = _units_of_classes(work, subject)
    with _opened(work, subject):
        made = work.each(
            lambda x, mask, u: edit.paint(subject.model, x, mask, u, work.search, layer, weight, on_step=work.on_step), x, mask, units
        )
    numbers = _activations(work, subject, units, x, made)
    if layer is None:
        numbers |= {"taken for the class of the feature": work.agreement(judge, made, y)}
        numbers |= {"taken for the class of the feature, before": work.agreement(judge, x, y)}
    shown = torch.where(mask, x, 0.5 + x / 2)
    return Made([("image", x), ("where", shown)], [("painted", made)], numbers, _of_classes(work, units, y))


def add_feature(work: Work, subject: Subject, judge: Subject) -> Made:
    x, layer, level = work.x, work.args.task.layer, work.args.task.level
    units, y = _units_of_classes(work, subject)
    with _opened(work, subject):
        made = work.each(lambda x, u: features.add_feature(subject.model, x, u, work.search, layer, level, on_step=work.on_step), x, units)
    numbers = _activations(work, subject, units, x, made) | {"L2 moved": _mean(L2().measure(made - x))}
    rows = [("with the feature", made), ("change, amplified", pictures.amplified(made - x))]
    return Made([("image", x)], rows, numbers, _of_classes(work, units, y))


def invert(work: Work, subject: Subject, judge: Subject) -> Made:
    x, layer = work.x, work.args.task.layer
    start = x.roll(1, 0) if work.args.task.start == "image" else work.noise(work.keys)
    made = work.each(lambda x, s: features.invert(subject.model, x, s, work.search, layer, on_step=work.on_step), x, start)
    args, first, last = (work.see(subject, images, layer) for images in (x, start, made))
    size = args.norm(dim=1).clamp_min(torch.finfo(args.dtype).tiny)
    numbers = {
        "relative feature distance": _mean((last - args).norm(dim=1) / size),
        "relative feature distance, start": _mean((first - args).norm(dim=1) / size),
        **_likeness(x, {"": made, ", start": start}),
    }
    return Made([("image", x), ("start", start)], [("inverted", made)], numbers, work.names(work.y))


def interpolate(work: Work, subject: Subject, judge: Subject) -> Made:
    x, points, layer = work.x, work.args.task.points, work.args.task.layer
    if len(x) < 2:
        raise UserError("an interpolation needs at least 2 images: --images 2, or --positions with two of them")
    starts = work.x if work.args.task.start == "image" else work.noise(work.keys)
    given: Rows = []
    rows: Rows = []
    distances = []
    share = torch.linspace(0, 1, points, device=x.device)
    for i in range(0, len(x) - 1, 2):
        pair = " to ".join(work.names(work.y[i : i + 2]))
        (a, b), (first, last) = x[i : i + 2], starts[i : i + 2]
        walk = features.interpolate(subject.model, a, b, points, work.search, layer, starts=(first, last), on_step=work.on_step)
        ends, seen = work.see(subject, x[i : i + 2], layer), work.see(subject, walk, layer)
        args = torch.lerp(ends[0], ends[1], share[:, None].to(ends.dtype))
        distances.append((seen - args).norm(dim=1) / args.norm(dim=1).clamp_min(torch.finfo(args.dtype).tiny))
        given.append((f"{pair}\nblended", torch.lerp(a, b, share[:, None, None, None])))
        rows.append((f"{pair}\nwalk", walk))
    numbers = {"relative distance to the mixed features": _mean(torch.cat(distances))}
    return Made(given, rows, numbers, [f"{s:.2f}" for s in share.tolist()])


def visualize(work: Work, subject: Subject, judge: Subject) -> Made:
    units = torch.tensor(work.args.task.units or range(len(work.index)), device=work.device)
    index = torch.arange(len(units)) % len(work.index)
    start = work.x[index] if work.args.task.start == "image" else work.noise(example_keys(work.args.compute.seed, torch.arange(len(units))))
    made = _visualized(work, subject, units, start)
    numbers = _activations(work, subject, units, start, made)
    real = work.see(subject, work.at(work.reference), work.args.task.layer)[:, units]
    numbers |= {f"largest activation in {len(real)} images": _mean(real.amax(0)), "mean activation in them": _mean(real)}
    return Made([("start", start)], [("visualized", made)], numbers, [f"feature {u}" for u in units.tolist()])


def extremes(work: Work, subject: Subject, judge: Subject) -> Made:
    layer, k = work.args.task.layer, min(work.args.task.top, len(work.images))
    units = torch.tensor(work.args.task.units or range(3), device=work.device)
    grey = torch.full((len(units), *work.images.shape), 0.5, device=work.device)
    raised = _visualized(work, subject, units, grey)
    rows: Rows = []
    values = []
    for unit, picture in zip(units.tolist(), raised, strict=True):
        most, least = features.extremes(subject.model, work.images, unit, k, layer, chunk=work.args.compute.batch_size)
        shown = torch.cat([picture[None], work.at(most), work.at(least)])
        labels = work.images.labels.cpu()[most]
        alike = _mean(labels == labels.mode().values)
        values.append([*work.see(subject, shown, layer)[:, unit].split([1, k, k]), torch.tensor([alike])])
        rows.append((f"feature {unit}", shown))
    names = ("activation, raised from grey", "activation, most active images", "activation, least active", "most active of one class")
    numbers = {name: _mean(torch.cat([v[i].cpu() for v in values])) for i, name in enumerate(names)}
    return Made([], rows, numbers, ["raised", *[f"most {i + 1}" for i in range(k)], *[f"least {i + 1}" for i in range(k)]])


def sensitivity(work: Work, subject: Subject, judge: Subject) -> Made:
    x, y, k = work.x, work.y, work.args.task.top
    predicted = work.logits(subject, x).argmax(1)
    wrong = (predicted != y).nonzero()[:, 0]
    if not len(wrong):
        raise UserError(f"{subject.name} makes no mistake on these {len(x)} images: look at more with --images")
    x, y, predicted, keys = x[wrong], y[wrong], predicted[wrong], work.keys[wrong]
    owed = work.each(lambda x, y: features.contributions(subject.model, x, subject.outputs[y]), x, y)
    if k > owed.shape[1]:
        raise UserError(f"--top must be at most the number of features, {owed.shape[1]}, got {k}")
    ranked = {"the top": owed.argsort(1, descending=True), "random": uniform(fold(keys, "features"), (owed.shape[1],)).argsort(1)}

    def lead(logits: Tensor) -> Tensor:
        """Of the class that was predicted over the true one, in logits."""
        return (logits.gather(1, predicted[:, None]) - logits.gather(1, y[:, None]))[:, 0]

    def without(units: Tensor) -> Tensor:
        return work.each(lambda x, units: features.damped(subject.model, x, units, 0.0), x, units)[:, subject.outputs]

    numbers = {"images": float(len(work.x)), "mistakes": float(len(wrong))}
    numbers |= {"lead of the mistaken class": _mean(lead(work.logits(subject, x)))}
    for rank in range(min(k, SHOWN)):
        logits = without(ranked["the top"][:, rank : rank + 1])
        numbers[f"lead without the {ORDINALS[rank]} feature alone"] = _mean(lead(logits))
        numbers[f"corrected without the {ORDINALS[rank]} feature alone"] = _mean(logits.argmax(1) == y)
    for name, order in ranked.items():
        numbers[f"corrected without {name} {k} features"] = _mean(without(order[:, :k]).argmax(1) == y)
    some = slice(0, 10)
    top = ranked["the top"][some, : min(k, SHOWN)]
    rows = [(f"{ORDINALS[rank]} feature, raised", _visualized(work, subject, top[:, rank], x[some])) for rank in range(top.shape[1])]
    heads = [f"{a} as {b}" for a, b in zip(work.names(y[some]), work.names(predicted[some]), strict=True)]
    return Made([], [("mistaken image", x[some]), *rows], numbers, heads, [", ".join(map(str, units)) for units in top.tolist()])


def _visualized(work: Work, subject: Subject, units: Tensor, start: Tensor) -> Tensor:
    parameters, layer = Fourier() if work.args.task.fourier else None, work.args.task.layer
    with _opened(work, subject):
        return work.each(
            lambda u, x: features.visualize(subject.model, u, x, work.search, layer, parameters, on_step=work.on_step), units, start
        )


def _opened(work: Work, subject: Subject) -> AbstractContextManager[None]:
    """Inside, the last ReLU lets every gradient through, so that features which are off at the start wake up."""
    relu = last_relu(subject.model, work.args.task.layer)
    return nullcontext() if relu is None else straight_through_relu(relu)


def _active(work: Work, subject: Subject, units: Tensor, x: Tensor) -> Tensor:
    """The activation of each image's unit, shape ``(B,)``."""
    with frozen(subject.model), torch.no_grad():
        return features.activation(subject.model, units, x, work.args.task.layer)(x)


def _units_of_classes(work: Work, subject: Subject) -> tuple[Tensor, Tensor]:
    """For each image a feature and its class, int64 ``(n,)`` each: those of ``--units`` in turn, or what speaks most for the target."""
    weight = subject.model.head.weight.detach()[subject.outputs]  # (K, D)
    y = work.target((work.y + 1) % len(work.images.classes))
    if work.args.task.units is None:
        if work.args.task.layer is not None:
            raise UserError("which features of the layer? --units 3,7")
        return weight.argmax(1)[y], y
    units = torch.tensor(work.args.task.units, device=y.device)[torch.arange(len(y), device=y.device) % len(work.args.task.units)]
    if work.args.task.layer is None and int(units.max()) < weight.shape[1]:
        y = weight.argmax(0)[units]
    return units, y


def _of_classes(work: Work, units: Tensor, y: Tensor) -> list[str]:
    return [f"{name}: {unit}" for name, unit in zip(work.names(y), units.tolist(), strict=True)]


def _activations(work: Work, subject: Subject, units: Tensor, before: Tensor, after: Tensor) -> dict[str, float]:
    first, last = (work.each(lambda u, x: _active(work, subject, u, x), units, x) for x in (before, after))
    return {"activation": _mean(last), "activation, before": _mean(first), "of features that are off": _mean(last == 0)}


def _likeness(x: Tensor, made: dict[str, Tensor]) -> dict[str, float]:
    """PSNR and, where the images are large enough for its window, SSIM."""
    found = {f"PSNR{name}": _mean(psnr(images, x)) for name, images in made.items()}
    if min(x.shape[2:]) >= WINDOW:
        found |= {f"SSIM{name}": _mean(ssim(images, x)) for name, images in made.items()}
    return found


def drawing_of(x: Tensor) -> Tensor:
    """Dark lines on white where an image's brightness changes: a stand-in for a drawing by hand, shape ``(B, C, H, W)``."""
    grey = F.pad(rgb_to_grayscale(x) if x.shape[1] == 3 else x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    smooth = torch.tensor([1.0, 2.0, 1.0], device=x.device).outer(torch.tensor([-1.0, 0.0, 1.0], device=x.device))
    edges = F.conv2d(grey, torch.stack([smooth, smooth.T])[:, None]).norm(dim=1, keepdim=True)
    return (1 - edges / edges.amax((2, 3), keepdim=True).clamp_min(1e-6)).expand_as(x).contiguous()


def _square(keys: Tensor, height: int, width: int) -> Tensor:
    """A square anywhere, as wide compared with the image as that of Santurkar et al. (2019), 60 pixels of 224."""
    side = max(1, round(min(height, width) * 60 / 224))
    top, left = (integers(fold(keys, "hole", along), size - side + 1)[:, None] for along, size in (("y", height), ("x", width)))
    rows, columns = (torch.arange(size, device=keys.device) for size in (height, width))
    inside = ((rows >= top) & (rows < top + side))[:, :, None] & ((columns >= left) & (columns < left + side))[:, None]
    return inside[:, None]


def _part(top: float, bottom: float, left: float, right: float) -> Callable[[Tensor, int, int], Tensor]:
    """A rectangle, from and to these shares of the height and the width."""

    def make(keys: Tensor, height: int, width: int) -> Tensor:
        mask = torch.zeros(1, 1, height, width, dtype=torch.bool)
        mask[:, :, round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = True
        return mask

    return make


MASKS: dict[str, Callable[[Tensor, int, int], Tensor]] = {
    "square": _square,
    "centre": _part(0.25, 0.75, 0.25, 0.75),
    "left": _part(0, 1, 0, 0.5),
    "right": _part(0, 1, 0.5, 1),
    "top": _part(0, 0.5, 0, 1),
    "bottom": _part(0.5, 1, 0, 1),
}


def _mask_of(name: str, height: int, width: int) -> Tensor:
    """A mask from a picture, which is white where to work: bool ``(1, 1, H, W)``."""
    if not Path(name).is_file():
        raise UserError(f"there is no mask {name!r}: --mask takes a picture, or one of {', '.join(MASKS)}")
    try:
        with Image.open(name) as image:
            if image.size != (width, height):
                raise UserError(f"the mask {name} must be as large as the images, {width}x{height}, got {image.width}x{image.height}")
            mask = pil_to_tensor(image.convert("L"))[None] >= 128
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"the mask {name} cannot be read as a picture") from error
    if not mask.any():
        raise UserError(f"the mask {name} is black everywhere; it must be white where to work")
    return mask


def in_turn(labels: Tensor, n: int) -> Tensor:
    """Positions of the first image of each class, then of the second of each, and so on: int64, at most ``n``."""
    if not len(labels):
        return labels
    classes = int(labels.max()) + 1
    rank = F.one_hot(labels, classes).cumsum(0).gather(1, labels[:, None])[:, 0] - 1
    return (rank * classes + labels).argsort()[:n]


def _mean(values: Tensor) -> float:
    return float(values.double().mean())


@dataclass(frozen=True)
class Task:
    """A way to make pictures.

    Attributes:
        about: what it makes, for the help.
        flags: the settings that only some tasks have, of those that this one has.
        preset: whose settings these are, in ``budget.PRESETS`` and ``budget.USUAL``; None where nothing is searched for.
        weights: of changes outside a mask, ours and the published one; None where there is no mask.
        images: how many images where no flag says otherwise.
        own: whether the images may be files of the user's own, of which nothing is known.
        judged: whether an independent classifier judges the result.
    """

    make: Make
    about: str
    flags: tuple[str, ...] = ()
    preset: str | None = None
    weights: tuple[float, float] | None = None
    images: int = 10
    judged: bool = False
    own: bool = False

    def search(self, args: settings.Synthesize, size: int) -> Search:
        """The steps to take: the flags', else ours or, where asked for, the published ones, for images of ``size`` pixels."""
        if self.preset is None:
            return Search(None, 0.0, 0)
        found = (preset if args.task.published else usual)(self.preset, size)
        given = {name: value for name in ("eps", "step_size", "steps") if (value := value_of(args, name)) is not None}
        return replace(found, **given)

    def weight(self, args: settings.Synthesize) -> float | None:
        """Of changes outside a mask: the flag's, else ours or the published one."""
        return self.weights[args.task.published] if self.weights is not None and args.task.weight is None else args.task.weight


SEARCH = ("eps", "step_size", "steps", "published")
FREE = ("step_size", "steps", "published")  # where the whole pixel box is open
CLASS = (*SEARCH, "positions", "judge")
FEATURE = ("positions", "layer", "units")

TASKS: dict[str, Task] = {
    "gradients": Task(gradients, "what the loss is sensitive to", ("positions",)),
    "generate": Task(generate, "images of classes, from seeds", (*SEARCH, "target", "judge"), "generate", judged=True),
    "inpaint": Task(inpaint, "a missing part", (*CLASS, "target", "mask", "weight"), "inpaint", (math.inf, 10.0), judged=True, own=True),
    "super-resolve": Task(super_resolve, "a small image enlarged", (*CLASS, "target", "factor"), "super_resolve", judged=True, own=True),
    "translate": Task(translate, "images turned into another class", (*CLASS, "target"), "translate", judged=True, own=True),
    "sketch": Task(sketch, "images from line drawings", (*CLASS, "target", "drawn"), "sketch", judged=True, own=True),
    "paint": Task(
        paint, "a feature within a mask", (*CLASS, *FEATURE, "target", "mask", "weight"), "paint", (900.0, 900.0), judged=True, own=True
    ),
    "invert": Task(invert, "what a representation keeps", (*FREE, "positions", "layer", "start"), "invert", own=True),
    "interpolate": Task(
        interpolate, "a walk between images", (*FREE, "positions", "layer", "start", "points"), "interpolate", images=4, own=True
    ),
    "visualize": Task(visualize, "what a feature responds to", (*FREE, *FEATURE, "start", "fourier"), "visualize"),
    "add-feature": Task(add_feature, "a feature in an image", (*SEARCH, *FEATURE, "target", "level"), "add_feature", own=True),
    "extremes": Task(extremes, "the images that a feature responds to", (*FREE, "layer", "units", "top", "fourier"), "extremes"),
    "sensitivity": Task(sensitivity, "features that mistakes are owed to", (*FREE, "positions", "top"), "visualize", images=500),
}
