"""Batches of an epoch, the same ones however they are made: in memory or streamed, on one process or several, resumed or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from robustlab.data.augment import Augment
from robustlab.data.imageset import Images, ImageSet, positions_of
from robustlab.errors import UserError
from robustlab.pixels import to_float
from robustlab.seeding import example_keys, fold, generator, permutation

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Batch:
    """This process's share of one batch, all on one device."""

    x: Tensor  # float32 in [0, 1], (B, C, H, W)
    y: Tensor  # int64, (B,)
    index: Tensor  # positions in the images, or in their whole split, int64, (B,)
    keys: Tensor  # this epoch's random keys of the examples, int64, (B,)


@dataclass(frozen=True, eq=False)
class Batches:
    """How images are cut into batches.

    The order is drawn from ``(seed, epoch)`` and every other number from ``(seed, position of the image, epoch)``,
    so nothing depends on the batch size, the number of processes, or where a run was resumed.

    Args:
        images: an ``ImageSet`` is moved to ``device`` once and stays there; others are read by DataLoader workers.
        batch_size: images in a batch over all processes together.
        seed: of the order and the keys.
        augment: changes the pixels on the device, as they are stored, see ``crop_flip``.
        shuffle: a new order every epoch, instead of the images' own.
        device: where the batches go.
        rank, world_size: this process gets slice ``rank`` of each batch, cut into ``world_size`` consecutive ones.
        drop_last: leave out a last batch that is not full; otherwise its slices differ in size by at most one.
        workers: processes that read images not in memory; 0 reads them in this one.
        channels_last: lay the images out as convolutions like best; the values are the same.
        of_split: let ``index`` and ``keys`` follow the images' places in their whole split, see ``positions_of``, in place of those in
            ``images``. So evaluations do; training counts the images that it trains on.
    """

    images: Images
    batch_size: int
    seed: int = 0
    augment: Augment | None = None
    shuffle: bool = False
    device: torch.device | str = "cpu"
    rank: int = 0
    world_size: int = 1
    drop_last: bool = False
    workers: int = 0
    channels_last: bool = False
    of_split: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.world_size:
            raise UserError(f"the batch size must be a positive multiple of the {self.world_size} processes, got {self.batch_size}")
        if self.drop_last and len(self.images) < self.batch_size:
            raise UserError(f"{self.images.name}: {len(self.images)} images do not fill one batch of {self.batch_size}")
        if isinstance(self.images, ImageSet):
            object.__setattr__(self, "images", self.images.to(self.device))

    def __len__(self) -> int:
        """Batches per epoch."""
        full, rest = divmod(len(self.images), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def epoch(self, n: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``n``, the first ``start`` of them skipped unread."""
        order = permutation(self.seed, len(self.images), "epoch", n) if self.shuffle else torch.arange(len(self.images))
        if isinstance(self.images, ImageSet):
            order = order.to(self.device)  # at once, rather than batch by batch
        slices = [
            order[b * self.batch_size : (b + 1) * self.batch_size].tensor_split(self.world_size)[self.rank] for b in range(start, len(self))
        ]
        labels = self.images.labels.to(self.device)
        places = positions_of(self.images).to(self.device) if self.of_split else None
        for index, pixels in zip(slices, self._pixels(slices), strict=True):
            index, pixels = index.to(self.device), pixels.to(self.device)
            place = index if places is None else places[index]
            keys = fold(example_keys(self.seed, place), "epoch", n)
            if self.augment:
                pixels = self.augment(pixels, keys)
            x = to_float(pixels)
            yield Batch(x.contiguous(memory_format=torch.channels_last) if self.channels_last else x, labels[index], place, keys)

    def _pixels(self, slices: list[Tensor]) -> Iterator[Tensor]:
        if isinstance(self.images, ImageSet):
            return map(self.images.fetch, slices)
        # The loader draws its workers' seeds even where nobody uses them: not from the global generator.
        loader = DataLoader(
            _Reads(self.images, slices), batch_size=None, num_workers=self.workers, generator=generator(self.seed, "loader")
        )
        return without_mistakes(loader)


@dataclass(frozen=True, eq=False)
class _Reads(Dataset[Any]):
    """Item ``i`` is batch ``i``'s pixels, or the mistake in them."""

    images: Images
    slices: list[Tensor]

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, i: int) -> Tensor | UserError:
        return or_mistake(self.images.fetch, self.slices[i])


def or_mistake(read: Callable[[Any], T], which: Any) -> T | UserError:
    """What is read, or the user's mistake that was found: to its one sentence a DataLoader would add where its worker stood."""
    try:
        return read(which)
    except UserError as mistake:
        return mistake


def without_mistakes(items: Iterable[T | UserError]) -> Iterator[T]:
    """The items, as far as they are no mistakes.

    Raises:
        UserError: the first that is one.
    """
    for item in items:
        if isinstance(item, UserError):
            raise item
        yield item
