"""The data that users have, as batches to measure on (``as_batches``) and as images to train on (``as_images``).

Both take

    our own ``Images``, or ``Batches`` of them
    a path, see ``open_dataset``
    a ``Dataset`` or ``DataLoader`` of torch, and whatever is indexed like a dataset
    an iterable of batches ``(x, y)``, or of single examples
    a pair of tensors or arrays ``(x, y)``

where ``x`` holds images, uint8 or floats in [0, 1], as tensors, arrays or PIL images, and ``y`` class numbers. Instead of a
pair there may be a dictionary, such as ``{"image": x, "label": y}``; what follows ``y`` in a longer tuple is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    default_collate,
)

from robustlab.checks import check_set_labels
from robustlab.data import examples
from robustlab.data.batches import Batch, Batches, or_mistake, without_mistakes
from robustlab.data.catalog import open_dataset
from robustlab.data.classes import check_names, numbers, told_apart
from robustlab.data.imageset import Images, ImageSet, described, described_html, files_of, mean_std, relabelled, spread
from robustlab.errors import UserError
from robustlab.pixels import to_float
from robustlab.progress import Progress
from robustlab.seeding import content_keys, example_keys, fold, generator

Data = Images | Batches | str | os.PathLike[str] | Dataset[Any] | Iterable[Any]

LOOKED_AT = 16  # images of a set
KINDS = "images of robustlab, a path, a torch Dataset or DataLoader, an iterable of pairs (x, y), or a pair of tensors or arrays"


@dataclass(frozen=True, eq=False)
class BatchStream:
    """Batches made while they are read, and what is known of them beforehand.

    Attributes:
        make: begins to read.
        n: how many images there are; None where nobody knows.
        classes: the names of the classes; empty where they have none.
        name: what to call the data.
        files: the names of the files that the images come from, in order; None where there are none.
    """

    make: Callable[[], Iterator[Batch]]
    n: int | None = None
    classes: tuple[str, ...] = ()
    name: str = "the data"
    files: tuple[str, ...] | None = None

    def __iter__(self) -> Iterator[Batch]:
        return self.make()


def as_batches(
    data: Data,
    *,
    batch_size: int = 250,
    seed: int = 0,
    device: torch.device | str | None = "cpu",
    workers: int = 0,
    split: str = "test",
) -> BatchStream:
    """Batches of any data, in the data's own order; no more than a few are in memory beside what was there before.

    Each example's random draws follow its position, so that they depend on nothing else: that in the whole split, or in the dataset
    behind a ``Subset``, so that a choice of images leaves each of them its number and its draws. A ``DataLoader`` that shuffles, or
    chooses in another way, says nothing of positions: there equal images get equal draws, and ``index`` counts the images as
    they come.

    Args:
        data: see the module. Batches that have ``x``, ``y``, ``index`` and ``keys`` already are taken as they are.
        batch_size: images in a batch, where the data do not come in batches.
        seed: of the random draws.
        device: where the batches go; None leaves them where they are.
        workers: processes that read images which are not in memory; a ``DataLoader`` has its own.
        split: which part of a path's data.

    Returns:
        An iterable of ``Batch``: ``x`` float32 in [0, 1], shape ``(B, C, H, W)``; ``y``, ``index`` and ``keys`` int64, ``(B,)``.
        It can be read again if ``data`` can.

    Raises:
        UserError: something else than the above, also while reading: images outside [0, 1] or of different sizes, labels
            that are no class numbers.
    """
    if isinstance(data, str | os.PathLike):
        data = open_dataset(data, split=split)
    named = None
    if _is_images(data):
        named = files_of(data)
        data = Batches(data, batch_size, seed=seed, device=device or "cpu", workers=workers, of_split=True)
    source = _source(data, batch_size, workers)
    return BatchStream(lambda: _batches(source, seed, device), source.n, source.classes, source.name, named)


def as_images(data: Data, *, name: str | None = None, classes: Sequence[str] | None = None, split: str = "train") -> Images:
    """Images that can be fetched in any order, of any data: for training, and for making new ones of them.

    A dataset is read whenever its images are fetched, so that its random transforms stay random; so is the dataset behind a
    ``DataLoader`` that gives each image once, whose batches and order are not used. Everything else that is no ``Images`` is
    read once, into memory.

    Args:
        data: see the module. ``Images`` are given back as they are, after a look at some of them. The labels of a dataset are its
            ``targets`` or ``labels``; else each item is read once for them.
        name: what reports call the set.
        classes: names of the classes; else those that the data have, else 0, 1, ... up to the largest label.
        split: which part of a path's data.

    Raises:
        UserError: something else than the above, no images, images outside [0, 1] or of different sizes, labels that are no
            class numbers.
    """
    if isinstance(data, str | os.PathLike):
        data = open_dataset(data, split=split)
    if isinstance(data, Batches):
        data = data.images
    if _is_images(data):
        return _looked_at(data)
    if isinstance(data, DataLoader) and _gives_its_dataset(data):
        data = data.dataset
    if _is_dataset(data) and not isinstance(data, TensorDataset):
        return _dataset_images(data, name, classes)
    # A batch of everything leaves tensors where they are; what comes in batches of its own is put together.
    source = _source(data, batch_size=1 << 62, workers=0)
    parts = [(batch.x, batch.y) if _is_batch(batch) else batch for batch in source.read()]
    if not sum(len(y) for _, y in parts):
        raise UserError(f"{name or source.name} holds no images")
    pixels = examples.joined([examples.in_range(x).cpu() for x, _ in parts])
    labels = torch.cat([y.cpu() for _, y in parts])
    called = name or source.name
    return ImageSet(pixels, labels, tuple(classes) if classes else source.classes or numbers(called, labels), called)


@dataclass(frozen=True, eq=False, repr=False)
class DatasetImages:
    """Items of a dataset as images, read whenever they are fetched; they travel to DataLoader workers if the dataset does.

    Attributes:
        dataset: anything with a length whose items are ``(x, y)`` or dictionaries.
        index: which items these are, int64, shape ``(N,)``.
        labels: int64, shape ``(N,)``.
        shape: ``(C, H, W)`` of each image.
        dtype: of their pixels.
    """

    dataset: Any
    index: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    shape: tuple[int, int, int]
    dtype: torch.dtype

    __repr__ = described
    _repr_html_ = described_html

    def __post_init__(self) -> None:
        check_names(self.name, self.classes)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def positions(self) -> Tensor:
        """The places in the dataset; of a ``Subset`` those in the dataset behind it."""
        behind = _places(self.dataset)
        return self.index if behind is None else behind[self.index]

    def fetch(self, index: Tensor) -> Tensor:
        if len(index) == 0:
            return torch.empty(0, *self.shape, dtype=self.dtype)
        pixels = examples.joined([examples.image(examples.pair(self.dataset[i])[0])[None] for i in self.index[index.cpu()].tolist()])
        if pixels.shape[1:] != self.shape:
            raise UserError(f"{self.name} has images of shape {tuple(pixels.shape[1:])} beside {self.shape}: bring them to one size")
        return examples.in_range(pixels)

    def subset(self, index: Tensor) -> DatasetImages:
        index = index.cpu()
        return replace(self, index=self.index[index], labels=self.labels[index])

    def only_classes(self, names: Sequence[str]) -> DatasetImages:
        index, labels = relabelled(self, names)
        return replace(self.subset(index), labels=labels, classes=tuple(names))

    def mean_std(self) -> tuple[Tensor, Tensor]:
        return mean_std(self, chunk=64)


# What a source is


@dataclass(frozen=True, eq=False)
class _Source:
    """Where examples come from: ``read`` begins anew and gives batches ``(x, y)``, pixels as they are stored, or a ``Batch``."""

    read: Callable[[], Iterator[Any]]
    in_order: bool = True
    n: int | None = None
    classes: tuple[str, ...] = ()
    name: str = "the data"
    places: Tensor | None = None  # of the images, where they are not counted from 0


def _source(data: Any, batch_size: int, workers: int) -> _Source:
    if batch_size < 1:
        raise UserError(f"the batch size must be at least 1, got {batch_size}")
    if isinstance(data, Batches):
        return _Source(partial(data.epoch, 0), n=len(data.images), classes=data.images.classes, name=data.images.name)
    pair = _as_pair(data)
    if pair is not None:
        return _Source(lambda: _cut(*pair, batch_size), n=len(pair[0]))
    if isinstance(data, DataLoader):
        name = type(data.dataset).__name__
        read, in_order = partial(_grouped, data, batch_size), _is_in_order(data)
        return _Source(read, in_order, _length(data), _class_names(data), name, _places(data.dataset) if in_order else None)
    if _is_dataset(data):
        loader = DataLoader(
            data, batch_size, num_workers=workers, collate_fn=partial(or_mistake, examples.stacked), generator=generator(0, "loader")
        )
        read = partial(without_mistakes, loader)
        return _Source(read, True, len(data), _class_names(data), type(data).__name__, _places(data))
    if isinstance(data, Iterable) and not isinstance(data, Tensor | np.ndarray | Mapping):
        return _Source(lambda: _grouped(data, batch_size), classes=_class_names(data))
    if isinstance(data, Tensor | np.ndarray):
        raise UserError("labels are missing: give a pair (x, y) of images and class numbers")
    raise UserError(f"data must be {KINDS}, got {type(data).__name__}")


def _is_images(data: Any) -> TypeGuard[Images]:
    return all(hasattr(data, name) for name in ("fetch", "labels", "classes", "shape", "mean_std"))


def _is_batch(data: Any) -> bool:
    return all(hasattr(data, name) for name in ("x", "y", "index", "keys"))


def _is_dataset(data: Any) -> bool:
    """Whether items are read by their positions: a map-style dataset, of torch or of its kind."""
    if isinstance(data, IterableDataset | DataLoader | Tensor | np.ndarray | list | tuple | Mapping):
        return False
    return hasattr(data, "__getitem__") and hasattr(data, "__len__")


def _as_pair(data: Any) -> tuple[Tensor | np.ndarray, Tensor] | None:
    """All the images, as they come, and all the labels, if that is what the data are."""
    if isinstance(data, TensorDataset):
        data = data.tensors[:2]
    if isinstance(data, Mapping):
        data = examples.pair(data)
    if not (isinstance(data, tuple | list) and len(data) == 2 and isinstance(data[0], Tensor | np.ndarray)):
        return None
    return data[0], examples.labels(data[1], len(data[0]))


def _is_in_order(loader: DataLoader[Any]) -> bool:
    """Whether a loader gives its dataset from first to last."""
    if isinstance(loader.dataset, IterableDataset):
        return True
    return type(_sampler(loader)) is SequentialSampler


def _gives_its_dataset(loader: DataLoader[Any]) -> bool:
    """Whether a loader gives each item of a dataset once, as the dataset has it, in whatever order."""
    if not _is_dataset(loader.dataset) or loader.collate_fn is not default_collate:
        return False
    sampler = _sampler(loader)
    everything = type(sampler) is RandomSampler and not sampler.replacement and sampler.num_samples == len(sampler.data_source)
    return everything or type(sampler) is SequentialSampler


def _sampler(loader: DataLoader[Any]) -> Any:
    """What chooses the positions; None where that is nothing of torch's own."""
    if loader.batch_sampler is None:
        return loader.sampler
    return loader.batch_sampler.sampler if type(loader.batch_sampler) is BatchSampler else None


def _length(loader: DataLoader[Any]) -> int | None:
    """How many images a loader gives; None where it does not say."""
    counted: Any = loader.dataset if isinstance(loader.dataset, IterableDataset) else _sampler(loader)
    try:
        return len(counted)
    except TypeError:
        return None


def _class_names(data: Any) -> tuple[str, ...]:
    """The names of the classes of a dataset, also of the one behind a subset or a loader; empty where there are none."""
    names = getattr(data, "classes", None)
    if isinstance(names, list | tuple):
        joined = [", ".join(map(str, name)) if isinstance(name, list | tuple) else name for name in names]  # ImageNet has synonyms
        return told_apart(type(data).__name__, joined)
    inner = getattr(data, "dataset", None)
    return () if inner is None else _class_names(inner)


def _places(data: Any) -> Tensor | None:
    """Where the items of a ``Subset``, also of one within another, lie in the dataset behind it; None where it is no subset."""
    if not isinstance(data, Subset):
        return None
    here = torch.as_tensor(list(data.indices), dtype=torch.int64)
    inner = _places(data.dataset)
    if inner is not None:
        return inner[here]
    return torch.where(here < 0, here + len(data.dataset), here) if (here < 0).any() else here  # type: ignore[arg-type]


# Reading


def _batches(source: _Source, seed: int, device: torch.device | str | None) -> Iterator[Batch]:
    first = 0
    for raw in source.read():
        if _is_batch(raw):
            yield raw if device is None else Batch(*(getattr(raw, name).to(device) for name in ("x", "y", "index", "keys")))
            continue
        x, y = to_float(examples.in_range(raw[0])), raw[1]
        index = torch.arange(first, first + len(x), device=x.device)
        if source.places is not None:
            index = source.places[first : first + len(x)].to(x.device)
        first += len(x)
        keys = fold(example_keys(seed, index), "epoch", 0) if source.in_order else content_keys(x, seed)  # as ``Batches`` does
        yield Batch(*((x, y, index, keys) if device is None else (part.to(device) for part in (x, y, index, keys))))


def _cut(x: Tensor | np.ndarray, y: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(x), batch_size):
        yield examples.images(x[start : start + batch_size]), y[start : start + batch_size]


def _grouped(data: Iterable[Any], batch_size: int) -> Iterator[Any]:
    """Batches of an iterable that gives batches, or single examples, which are put together."""
    waiting: list[Any] = []
    for raw in data:
        if _is_batch(raw):
            yield raw
            continue
        x, y = examples.pair(raw)
        if examples.is_single(x, y):
            waiting.append((x, y))
            if len(waiting) == batch_size:
                yield examples.stacked(waiting)
                waiting = []
        else:
            x = examples.images(x)
            yield x, examples.labels(y, len(x))
    if waiting:
        yield examples.stacked(waiting)


def _looked_at(images: Images) -> Images:
    """The images themselves, of which some, spread over the set, lie in [0, 1]: who trains on them does not look at each."""
    if isinstance(images, ImageSet | DatasetImages):  # which look for themselves
        return images
    for most in (1, LOOKED_AT):  # one says whether they are whole grey levels, which need no look
        if not examples.in_range(images.fetch(spread(len(images), most))).is_floating_point():
            break
    return images


def _dataset_images(data: Any, name: str | None, classes: Sequence[str] | None) -> DatasetImages:
    called = name or type(data).__name__
    if not len(data):
        raise UserError(f"{called} holds no images")
    labels = _labels_of(data, called)
    first = examples.in_range(examples.image(examples.pair(data[0])[0]))
    if first.ndim != 3:
        raise UserError(f"images must have the shape (C, H, W), got {tuple(first.shape)}")
    channels, height, width = first.shape
    names = tuple(classes) if classes else _class_names(data) or numbers(called, labels)
    check_set_labels(called, labels, len(data), len(names))
    return DatasetImages(data, torch.arange(len(data)), labels, names, called, (channels, height, width), first.dtype)


def _labels_of(data: Any, called: str) -> Tensor:
    """Labels as the items have them, from a list of them where a few items agree with it."""
    known, n = _listed_labels(data), len(data)
    if known is not None and all(int(known[i]) == examples.label(examples.pair(data[i])[1]) for i in {0, n // 2, n - 1}):
        return known
    found = torch.empty(n, dtype=torch.int64)
    with Progress(f"reading the labels of {called}", n, "img") as shown:
        for i in range(n):
            found[i] = examples.label(examples.pair(data[i])[1])
            shown.update()
    return found


def _listed_labels(data: Any) -> Tensor | None:
    """The list of labels that a dataset may have; None where it has none, or changes labels while it reads them."""
    if isinstance(data, Subset):
        inner = _listed_labels(data.dataset)
        return None if inner is None else inner[torch.as_tensor(data.indices, dtype=torch.int64)]
    if getattr(data, "target_transform", None) is not None:
        return None
    for name in ("targets", "labels"):
        found = getattr(data, name, None)
        if isinstance(found, Tensor | np.ndarray | list | tuple) and len(found) == len(data):
            with suppress(UserError):
                return examples.labels(found, len(found))
    return None
