"""Labelled images: what every dataset promises, and the set that lies in memory.

Photographs are kept as uint8, a quarter of their size as floats and exact; constructed images may be floats in [0, 1].
``robustlab.pixels.to_float`` makes the float32 in [0, 1] that models see of either.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from robustlab import pictures
from robustlab.checks import check_set_labels, check_set_pixels
from robustlab.data.classes import check_names, composed
from robustlab.errors import UserError, unknown
from robustlab.paths import shown
from robustlab.pixels import to_float
from robustlab.seeding import permutation

PIXEL_DTYPES = (torch.uint8, torch.float16, torch.float32)
SHOWN = 10  # images, one of each class, in a notebook


class Images(Protocol):
    """Labelled images of one size, in memory or read on demand.

    A set may also have ``positions``, the places of its images in their whole split, int64 ``(N,)``, and ``files``, their names;
    see ``positions_of`` and ``files_of``.
    """

    @property
    def name(self) -> str:
        """What reports call the set."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by number."""

    @property
    def labels(self) -> Tensor:
        """int64, shape ``(N,)``, on the CPU or where the pixels are."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of each image."""

    def __len__(self) -> int: ...

    def fetch(self, index: Tensor) -> Tensor:
        """Pixels of the images at ``index``, shape ``(B, C, H, W)``: uint8, or float16 or float32 in [0, 1]."""

    def subset(self, index: Tensor) -> Self:
        """The images at ``index``, in that order, with all the classes."""

    def only_classes(self, names: Sequence[str]) -> Self:
        """The images of the named classes, which become classes 0, 1, ... in the order given."""

    def mean_std(self) -> tuple[Tensor, Tensor]:
        """Per-channel mean and standard deviation in [0, 1] units, float32, shape ``(C,)`` each."""


Some = TypeVar("Some", bound=Images)


def described(images: Images) -> str:
    """What a set holds, in one line."""
    channels, height, width = images.shape
    size = f"{width}x{height} pixels, {'RGB' if channels == 3 else 'grey' if channels == 1 else f'{channels} channels'}"
    listed = images.classes if len(images.classes) <= SHOWN else [*images.classes[: SHOWN - 1], "..."]
    names = ", ".join(shown(name, 100) for name in listed)
    return f"{images.name}: {len(images):,} images, {size}, {len(images.classes)} classes ({names})"


def described_html(images: Images) -> str:
    """What a set holds, with an image of each of its first classes, for a notebook."""
    text = html.escape(described(images))
    labels = images.labels.cpu()
    first = [int((labels == label).nonzero()[0]) for label in labels.unique().tolist()[:SHOWN]]
    if not first or images.shape[0] not in (1, 3):
        return f"<p>{text}</p>"
    names = [images.classes[label] for label in labels[first].tolist()]
    row = pictures.Row("", to_float(images.fetch(torch.tensor(first)).cpu()), names)
    return pictures.as_html(pictures.captioned([row], pictures.fitting_scale(images.shape[2])), text)


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Images in memory.

    Args:
        pixels: uint8, or float16 or float32 in [0, 1], shape ``(N, C, H, W)``.
        labels: int64, shape ``(N,)``, each in ``[0, len(classes))``.
        classes: the classes' names, all different.
        name: what reports call the set.
        positions: the images' places in the whole split, int64, shape ``(N,)``; None where they are all of it, in order.
        files: the names of the files that they come from, if any.

    Raises:
        UserError: other shapes or types, values or labels out of range, two classes of one name.
    """

    pixels: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    positions: Tensor | None = None
    files: tuple[str, ...] | None = None

    __repr__ = described
    _repr_html_ = described_html

    def __post_init__(self) -> None:
        if self.pixels.dtype not in PIXEL_DTYPES or self.pixels.ndim != 4:
            allowed = "uint8, float16 or float32 (N, C, H, W)"
            raise UserError(f"{self.name}: images must be {allowed}, got {self.pixels.dtype} {tuple(self.pixels.shape)}")
        if len(self.pixels) and not self.pixels.numel():
            raise UserError(f"{self.name}: images must have pixels, got shape {tuple(self.pixels.shape)}")
        check_names(self.name, self.classes)
        check_set_pixels(self.name, self.pixels)
        check_set_labels(self.name, self.labels, len(self.pixels), len(self.classes))

    @property
    def shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.pixels.shape
        return channels, height, width

    def __len__(self) -> int:
        return len(self.pixels)

    def fetch(self, index: Tensor) -> Tensor:
        return self.pixels.index_select(0, index.to(self.pixels.device))

    def subset(self, index: Tensor) -> ImageSet:
        return self._some(index, self.labels[index.to(self.labels.device)], self.classes)

    def only_classes(self, names: Sequence[str]) -> ImageSet:
        return self._some(*relabelled(self, names), tuple(names))

    def _some(self, index: Tensor, labels: Tensor, classes: tuple[str, ...]) -> ImageSet:
        here = torch.arange(len(self))[index.cpu()]
        positions = here if self.positions is None else self.positions[here]
        files = None if self.files is None else tuple(self.files[i] for i in here.tolist())
        return ImageSet(self.pixels[index.to(self.pixels.device)], labels, classes, self.name, positions, files)

    def mean_std(self) -> tuple[Tensor, Tensor]:
        return mean_std(self)

    def to(self, device: torch.device | str) -> ImageSet:
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))


def positions_of(images: Images) -> Tensor:
    """The places of images in their whole split, int64 ``(N,)``, on the CPU: ``--limit`` and ``--classes`` do not change them.

    Records name an image by its place, and its random draws in an evaluation follow it.
    """
    found = getattr(images, "positions", None)
    return torch.arange(len(images)) if found is None else found.cpu()


def files_of(images: Images) -> tuple[str, ...] | None:
    """The names of the files that images come from; None where there are none."""
    return getattr(images, "files", None)


def whole(images: Some) -> Some:
    """The same images as a split of their own: their places are counted from 0."""
    return replace(images, positions=None) if is_dataclass(images) and hasattr(images, "positions") else images


def readable_name(text: str) -> str:
    """A place's name as that of a set, which reports write: without control characters and in letters that UTF-8 has."""
    text = composed(text.encode("utf-8", "replace").decode())
    return "".join(c if c.isprintable() else "?" for c in text)


def relabelled(images: Images, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Where the images of the named classes lie, and their labels in the order of ``names``: two int64 ``(M,)``.

    Raises:
        UserError: a class that the images do not have, or one named twice.
    """
    for name in names:
        if name not in images.classes:
            raise unknown("class", name, images.classes)
    if len(set(names)) != len(names):
        raise UserError(f"a class is named twice in {', '.join(names)}")
    table = torch.full((len(images.classes),), -1)
    table[[images.classes.index(name) for name in names]] = torch.arange(len(names))
    labels = table.to(images.labels.device)[images.labels]
    index = (labels >= 0).nonzero()[:, 0]
    return index, labels[index]


def mean_std(images: Images, chunk: int = 1024) -> tuple[Tensor, Tensor]:
    """Per-channel mean and standard deviation in [0, 1] units, float32 ``(C,)`` each; of 8-bit pixels summed exactly in integers.

    The deviation is at least one grey level, so that dividing by it is safe also for a constant channel.

    Args:
        images: at least one.
        chunk: how many to fetch at a time.

    Raises:
        UserError: no images.
    """
    if not len(images):
        raise UserError(f"{images.name}: no images to take the mean of")
    sums = [_sums(images.fetch(index)) for index in torch.arange(len(images)).split(chunk)]
    total = torch.stack(sums).sum(0)
    count = len(images) * images.shape[1] * images.shape[2]
    mean, square = total.double() / count
    std = (square - mean * mean).clamp_min(1).sqrt()
    return (mean / 255).float(), (std / 255).float()


def _sums(pixels: Tensor) -> Tensor:
    """Per channel the sum of grey levels, 0 to 255, and that of their squares: ``(2, C)``, int64, of floats float64."""
    if pixels.is_floating_point():
        values = pixels.double() * 255
        return torch.stack([values.sum((0, 2, 3)), (values * values).sum((0, 2, 3))]).cpu()
    levels = pixels.to(torch.int32)
    return torch.stack([v.sum((0, 2, 3), dtype=torch.int64) for v in (levels, levels * levels)]).cpu()


def spread(n: int, most: int) -> Tensor:
    """At most ``most`` of ``n`` positions, evenly spread from the first to the last, int64."""
    return torch.linspace(0, n - 1, min(most, n)).round().long()


def first_of_each_class(images: Images, most: int = 12) -> Tensor:
    """Positions of the first image of each class, int64, of at most ``most`` classes spread over all; a class without images has none."""
    labels = images.labels.cpu()
    classes = spread(len(images.classes), most).tolist()
    return torch.cat([(labels == k).nonzero()[:1, 0] for k in classes])


def hold_out(images: Images, amount: int | float, seed: int) -> tuple[Tensor, Tensor]:
    """Cut a validation part with the same share of each class; it depends on the labels and the seed only.

    Args:
        amount: how many images (int), or which fraction of them (float), go to the validation part.
        seed: of the choice.

    Returns:
        Sorted positions ``(train, validation)``, int64, which together are ``range(len(images))``.

    Raises:
        UserError: more images than there are, or fewer than 0.
    """
    n = len(images)
    count = round(amount * n) if isinstance(amount, float) else amount
    if not 0 <= count <= n:
        raise UserError(f"{images.name}: cannot hold out {amount} of {n} images")
    order = permutation(seed, n, "hold out")
    labels = images.labels.cpu()
    by_class = order[labels[order].argsort(stable=True)]
    sizes = labels.bincount(minlength=len(images.classes))
    chosen = torch.zeros(n, dtype=torch.bool)
    for members, take in zip(by_class.split(sizes.tolist()), _shares(sizes, count).tolist(), strict=True):
        chosen[members[:take]] = True
    return (~chosen).nonzero()[:, 0], chosen.nonzero()[:, 0]


def _shares(sizes: Tensor, count: int) -> Tensor:
    """``count`` split in proportion to ``sizes``, in whole numbers, by largest remainder."""
    exact = sizes.double() * count / max(1, int(sizes.sum()))
    shares = exact.floor().long()
    rest = count - int(shares.sum())
    shares[(shares - exact).argsort(stable=True)[:rest]] += 1
    return shares
