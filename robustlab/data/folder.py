"""Image folders: ``ROOT/train/CLASS/*.jpg`` with ``test/`` or ``val/`` beside, or class folders directly in ``ROOT``.

``robustlab.data.tree`` says what lies where. Decoded into memory where they fit, and kept in a file for the next time
(``robustlab.data.decoded``); else read on demand. Classes and files are in sorted order.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from robustlab.data import decoded, tree
from robustlab.data.classes import check_names
from robustlab.data.imageset import Images, ImageSet, described, described_html, mean_std, readable_name, relabelled
from robustlab.data.picturefiles import decode
from robustlab.errors import UserError
from robustlab.progress import Progress

CHUNK = 256  # images that one thread decodes before it takes others


@dataclass(frozen=True, eq=False, repr=False)
class FolderStream:
    """Images that are decoded whenever they are fetched; it travels to DataLoader workers.

    Attributes:
        paths: N files.
        labels: int64, shape ``(N,)``.
        shape: ``(C, H, W)`` of each decoded image.
        image_size: what they are resized and cropped to, in pixels; None leaves them as they are.
        root: the folder in which the files lie, for their short names.
        positions: their places in the whole split, int64, shape ``(N,)``; None where they are all of it.
    """

    paths: tuple[str, ...]
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    shape: tuple[int, int, int]
    image_size: int | None
    root: str = ""
    positions: Tensor | None = None

    __repr__ = described
    _repr_html_ = described_html

    def __post_init__(self) -> None:
        check_names(self.name, self.classes)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def files(self) -> tuple[str, ...]:
        """The files' names within ``root``."""
        prefix = os.path.join(self.root, "")
        return tuple(path.removeprefix(prefix) for path in self.paths)

    def fetch(self, index: Tensor) -> Tensor:
        pixels = torch.empty(len(index), *self.shape, dtype=torch.uint8)
        for slot, i in zip(pixels, index.tolist(), strict=True):
            decode_into(slot, self.paths[i], self.image_size)
        return pixels

    def subset(self, index: Tensor) -> Self:
        index = index.cpu()
        positions = index if self.positions is None else self.positions[index]
        return replace(self, paths=tuple(self.paths[i] for i in index.tolist()), labels=self.labels[index], positions=positions)

    def only_classes(self, names: Sequence[str]) -> Self:
        index, labels = relabelled(self, names)
        return replace(self.subset(index), labels=labels, classes=tuple(names))

    def mean_std(self) -> tuple[Tensor, Tensor]:
        return mean_std(self, chunk=64)


def open_folder(
    root: Path,
    split: str,
    *,
    image_size: int | None = None,
    memory_limit: int = 4 << 30,
    cache: str | os.PathLike[str] | bool | None = None,
    choose: Callable[[FolderStream], FolderStream] | None = None,
    progress: bool = True,
) -> Images:
    """The images of one split of a folder.

    Class folders directly in ``root`` count as every split: cutting them is the caller's choice.

    Args:
        root: the folder, laid out as the module says.
        split: ``train``, ``test`` or ``val``; the last two stand in for each other where one is missing.
        image_size: shorter side in pixels after resizing, then centre-cropped to a square; without it all images must be of
            one size.
        memory_limit: bytes of decoded pixels above which the images are read on demand.
        cache: the folder in which decoded images are kept; None is a hidden folder beside the data, and only for more than a
            few megabytes of pixels; False keeps nothing.
        choose: picks some of the images before any of them is decoded.
        progress: show how far decoding is.

    Raises:
        UserError: no such tree, an empty class folder, classes that differ between splits, an image that cannot be
            read or is of another size.

    Warns:
        UserWarning: files were left out, or another part was read than the split's own.
    """
    found = tree.find(root, split)
    for sentence in found.sentences:
        warnings.warn(sentence, stacklevel=3)
    if not found.paths:
        raise UserError(f"{root} holds no images for the split {split}; expected {tree.TREE}")
    paths, labels = tuple(found.paths), torch.tensor(found.labels)
    height, width, channels = decode(paths[0], image_size).shape
    name, shape = readable_name(root.resolve().name), (channels, height, width)
    everything = FolderStream(paths, labels, found.classes, name, shape, image_size, os.fspath(root))
    chosen = choose(everything) if choose else everything
    return kept_or_read(everything, chosen, found.folder, split, memory_limit=memory_limit, cache=cache, progress=progress)


def kept_or_read(
    everything: FolderStream,
    chosen: FolderStream,
    folder: Path,
    what: str,
    *,
    memory_limit: int,
    cache: str | os.PathLike[str] | bool | None = None,
    progress: bool = True,
) -> Images:
    """The chosen images in memory, out of a file that keeps them or decoded; as they are where they take too much.

    Args:
        everything: what is kept in the file.
        chosen: some of them, or the same object.
        folder: holds the files.
        what: is read, for the progress.
        memory_limit, cache, progress: see ``open_folder``.
    """
    if _size(chosen) > memory_limit:
        return chosen
    if cache is False or (cache in (None, True) and _size(everything) < decoded.WORTH_KEEPING):
        return _load(chosen, what, progress)
    image_size = everything.image_size
    place = decoded.place(folder, image_size, None if isinstance(cache, bool) else cache)
    return _load_kept(everything, chosen, place, decoded.key(folder, everything.paths, image_size), what, progress)


def _size(stream: FolderStream) -> int:
    """Bytes of its decoded pixels."""
    return len(stream) * math.prod(stream.shape)


def _load_kept(everything: FolderStream, chosen: FolderStream, place: Path, key: str, split: str, progress: bool) -> ImageSet:
    """The chosen images out of the kept ones, or decoded; all of them are kept for the next time."""
    kept = decoded.read(place, key)
    if kept is None or kept.shape != (len(everything), *everything.shape):
        images = _load(chosen, split, progress)
        if chosen is everything:
            decoded.write(place, key, images.pixels)
        return images
    if chosen is not everything:
        position = {path: i for i, path in enumerate(everything.paths)}
        kept = kept[torch.tensor([position[path] for path in chosen.paths], dtype=torch.int64)]
    return _in_memory(kept, chosen)


def _in_memory(pixels: Tensor, stream: FolderStream) -> ImageSet:
    return ImageSet(pixels, stream.labels, stream.classes, stream.name, positions=stream.positions, files=stream.files)


def open_pictures(paths: Sequence[str], classes: Sequence[str], *, image_size: int | None = None) -> ImageSet:
    """Picture files of a person's own, upright, and on white where they are transparent. What they show is not known: all labels are 0.

    Args:
        paths: at least one file.
        classes: the names that labels may have.
        image_size: as for ``open_folder``; without it all pictures must be of one size.

    Raises:
        UserError: a file that is not there, cannot be read, or is of another size.
    """
    read = [decode(path, image_size, upright=True) for path in paths]
    for path, picture in zip(paths, read, strict=True):
        _same_size(path, picture.shape[:2], read[0].shape[:2])
    pixels = torch.from_numpy(np.stack(read)).permute(0, 3, 1, 2).contiguous()
    return ImageSet(pixels, torch.zeros(len(read), dtype=torch.int64), tuple(classes), "your own")


def _load(stream: FolderStream, what: str = "images", progress: bool = True) -> ImageSet:
    """Decode a stream into memory, several images at a time.

    Args:
        what: what is read, for the progress that is shown.
        progress: show it.
    """
    n = len(stream)
    pixels = torch.empty(n, *stream.shape, dtype=torch.uint8)

    def fill(start: int) -> int:
        end = min(start + CHUNK, n)
        for i in range(start, end):
            decode_into(pixels[i], stream.paths[i], stream.image_size)
        return end - start

    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        with Progress(f"reading {what}", n, "img", shown=progress) as shown:
            for count in pool.map(fill, range(0, n, CHUNK)):
                shown.update(count)
    finally:
        pool.shutdown(cancel_futures=True)
    return _in_memory(pixels, stream)


def decode_into(slot: Tensor, path: str, image_size: int | None) -> None:
    """Decode an image into ``slot``, uint8, shape ``(3, H, W)``.

    Raises:
        UserError: it cannot be read, or is of another size.
    """
    pixels = decode(path, image_size)
    _same_size(path, pixels.shape[:2], tuple(slot.shape[1:]))
    slot.copy_(torch.from_numpy(pixels.transpose(2, 0, 1).copy()))


def _same_size(path: str, found: Sequence[int], others: Sequence[int]) -> None:
    """Heights and widths."""
    if tuple(found) != tuple(others):
        own, before = (f"{width}x{height}" for height, width in (found, others))
        raise UserError(f"the image {path} is {own} but the images before it are {before}; give `image_size` to bring them to one size")
