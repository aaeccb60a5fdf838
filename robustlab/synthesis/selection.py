"""What a task works with: a model whose outputs are matched to the classes of some images, and the images that were selected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.data.imageset import Images, hold_out, positions_of
from robustlab.errors import UserError, unknown
from robustlab.models.classifier import Classifier
from robustlab.models.digest import digest
from robustlab.models.frozen import frozen
from robustlab.models.matching import check_fits, check_reads
from robustlab.models.placement import device_of
from robustlab.optimize import OnStep
from robustlab.pixels import to_float
from robustlab.seeding import example_keys, fold, normal
from robustlab.synthesis.representations import representation

REFERENCE = 1000  # images that others are compared with


@dataclass(frozen=True, eq=False)
class MatchedModel:
    """A model and the images' classes.

    Attributes:
        name: what reports call it.
        model: maps images ``(B, C, H, W)`` in [0, 1] to logits.
        outputs: which of its outputs stands for each class of the images, int64 ``(K,)``, where the model is.
    """

    name: str
    model: nn.Module
    outputs: Tensor

    @cached_property
    def digest(self) -> str:
        """The hash of its weights; they are read once."""
        return digest(self.model)


def match(name: str, model: nn.Module, images: Images) -> MatchedModel:
    """The model, with its outputs by the classes of some images.

    A ``Classifier`` is matched by the names of its classes; of another network the outputs count in the order of the classes.

    Args:
        name: what reports and messages call the model.
        model: any network from images in [0, 1] to logits; best a ``Classifier``.
        images: a labelled set.

    Raises:
        UserError: classes, channels or a size that the model does not know.
    """
    device = device_of(model)
    if isinstance(model, Classifier):
        check_fits(model, images, name)
    with frozen(model):
        check_reads(model, images.shape, name, device)
    if isinstance(model, Classifier):
        return MatchedModel(name, model, model.outputs_for(images.classes, images.name).to(device))
    outputs = count_outputs(name, model, images.shape)
    if outputs != len(images.classes):
        raise UserError(f"{name} has {outputs} outputs, but {images.name} has {len(images.classes)} classes")
    return MatchedModel(name, model, torch.arange(outputs, device=device))


def count_outputs(name: str, model: nn.Module, shape: Sequence[int]) -> int:
    """How many logits a network gives for an image.

    Args:
        name: what to call the network in a message.
        model: any network.
        shape: ``(C, H, W)`` of an image.

    Raises:
        UserError: it cannot read such images, or gives no ``(B, K)`` tensor.
    """
    device = device_of(model)
    with frozen(model), torch.no_grad():
        check_reads(model, shape, name, device)
        logits = model(torch.zeros(1, *shape, device=device))
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        what = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        raise UserError(f"{name} must map images to logits (B, K), but gives {what}")
    return logits.shape[1]


@dataclass(frozen=True, eq=False)
class Selection:
    """Images to work on, and how.

    Attributes:
        images: a labelled set.
        index: positions in it of the images to work on, int64 ``(n,)``, on the CPU.
        training_images: from which seeds are drawn; None for a task that draws none.
        seed: of every random draw.
        batch_size: images that pass through a model at a time.
        device: where to compute.
        on_step: called with (step, images, objective) at every step of a search.
        keep: makes a tensor, or gives what was kept of it when it was made before, see ``once``; None only makes it.
        within: count an image's place within ``images`` and not in their whole split, as it once was.
    """

    images: Images
    index: Tensor
    training_images: Images | None = None
    seed: int = 0
    batch_size: int = 50
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    on_step: OnStep | None = None
    keep: Callable[[Callable[[], Tensor]], Tensor] | None = None
    within: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        return self.images.classes

    @cached_property
    def x(self) -> Tensor:
        """The images, float32 in [0, 1], ``(n, C, H, W)``."""
        return self.at(self.index)

    @cached_property
    def y(self) -> Tensor:
        """Their labels, int64 ``(n,)``."""
        return self.labels(self.index)

    @cached_property
    def keys(self) -> Tensor:
        """One key per image, int64 ``(n,)``; see ``robustlab.seeding``."""
        return example_keys(self.seed, self.places).to(self.device)

    @property
    def places(self) -> Tensor:
        """The places of the images in their whole split, int64 ``(n,)``; see ``within``."""
        return self.index if self.within else positions_of(self.images)[self.index]

    def at(self, index: Tensor) -> Tensor:
        """Images of the set, float32 in [0, 1], ``(B, C, H, W)``."""
        return to_float(self.images.fetch(index)).to(self.device)

    def labels(self, index: Tensor) -> Tensor:
        """Labels in the set, int64 ``(B,)``."""
        return self.images.labels.cpu()[index].to(self.device)

    def reference(self, index: Tensor) -> Tensor:
        """Up to ``REFERENCE`` of the positions in ``index``, with the same share of each class: int64, sorted."""
        return index[hold_out(self.images.subset(index), min(REFERENCE, len(index)), seed=0)[1]]

    @cached_property
    def others(self) -> Tensor:
        """Positions of up to ``REFERENCE`` images of the set that were not selected, or of all where none is left: int64, sorted.

        They have the same share of each class.
        """
        left = torch.ones(len(self.images), dtype=torch.bool)
        left[self.index] = False
        return self.reference(left.nonzero()[:, 0] if left.any() else torch.arange(len(self.images)))

    def target(self, name: str | None, default: Tensor) -> Tensor:
        """The class of that name for each image, or the default, int64 ``(n,)``."""
        if name is None:
            return default
        if name not in self.classes:
            raise unknown("class", name, self.classes)
        return torch.full_like(default, self.classes.index(name))

    def names(self, y: Tensor) -> list[str]:
        """The names of classes."""
        return [self.classes[k] for k in y.tolist()]

    def noise(self, keys: Tensor) -> Tensor:
        """Faint noise around grey, ``(B, C, H, W)``, as the notebooks of Engstrom et al. (2019) start from."""
        return (0.5 + normal(fold(keys, "noise"), self.images.shape) / 20).clamp(0, 1).to(self.device)

    def once(self, make: Callable[[], Tensor]) -> Tensor:
        """What ``make`` gives; where interrupted work goes on, what it gave before. Calls must come in the same order each time."""
        return make() if self.keep is None else self.keep(make)

    def each(self, make: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        """``make`` of the tensors, a batch at a time; each batch ``once``."""
        batches = zip(*(t.split(self.batch_size) for t in tensors), strict=True)
        return torch.cat([self.once(partial(make, *parts)) for parts in batches])

    def _passed(self, model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """A pass of images, a batch at a time, which is not worth keeping."""
        return torch.cat([model(part) for part in x.split(self.batch_size)])

    def features(self, matched: MatchedModel, x: Tensor, layer: str | None = None) -> Tensor:
        """The representation of images, ``(B, D)``; see ``representations.representation``."""
        with frozen(matched.model), torch.no_grad():
            return self._passed(representation(matched.model, layer), x)

    def logits(self, matched: MatchedModel, x: Tensor) -> Tensor:
        """Of the images' classes, ``(B, K)``."""
        with frozen(matched.model), torch.no_grad():
            return self._passed(matched.model, x)[:, matched.outputs]

    def accuracy(self, matched: MatchedModel, x: Tensor, y: Tensor) -> float:
        """The share of images that a model classifies as ``y``, int64 ``(B,)``."""
        return mean(self.logits(matched, x).argmax(1) == y)


def select(
    images: Images, n: int, *, positions: Sequence[int] | None = None, name: str = "", within: bool = False, **how: Any
) -> Selection:
    """Some of the images.

    Args:
        images: a labelled set.
        n: how many: the first image of each class, then the second of each, and so on.
        positions: work on the images at these places of their whole split instead.
        name: how a message calls the set; its own name where left out.
        within: positions are counted within ``images``, see ``Selection``.
        how: further attributes of a ``Selection``.

    Raises:
        UserError: a position where there is no image.
    """
    if positions is None:
        return Selection(images, in_turn(images.labels.cpu(), n), within=within, **how)
    places = range(len(images)) if within else positions_of(images).tolist()
    rows = {place: row for row, place in reversed(list(enumerate(places)))}
    wrong = [position for position in positions if position not in rows]
    if wrong:
        has = f"has {len(images)}, from 0 on" if rows.keys() == set(range(len(images))) else f"is {len(images)} of a split, without it"
        raise UserError(f"there is no image at position {wrong[0]}: {name or images.name} {has}")
    return Selection(images, torch.tensor([rows[position] for position in positions], dtype=torch.int64), within=within, **how)


def in_turn(labels: Tensor, n: int) -> Tensor:
    """Positions of the first image of each class, then of the second of each, and so on: int64, at most ``n``."""
    if not len(labels):
        return labels
    classes = int(labels.max()) + 1
    rank = F.one_hot(labels, classes).cumsum(0).gather(1, labels[:, None])[:, 0] - 1
    return (rank * classes + labels).argsort()[:n]


def mean(values: Tensor) -> float:
    """The average, in float64."""
    return float(values.double().mean())
