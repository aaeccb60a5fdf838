"""Image folders: ``ROOT/train/CLASS/*.jpg`` with ``test/`` or ``val/`` beside, or class folders directly in ``ROOT``.

Decoded into memory where they fit, and kept in a file for the next time (``robustlab.data.decoded``); else read on demand.
Classes and files are in sorted order.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from robustlab.data import decoded
from robustlab.data.imageset import Images, ImageSet, described, described_html, mean_std, relabelled
from robustlab.errors import UserError
from robustlab.progress import Progress

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
PARTS = {"train": ("train",), "test": ("test", "val"), "val": ("val", "test")}  # where a split lies: the first that is there
TREE = "ROOT/train/CLASS/*.jpg with ROOT/test/CLASS/*.jpg (or val/) beside it, or ROOT/CLASS/*.jpg"
CHUNK = 256  # images that one thread decodes before it takes others


@dataclass(frozen=True, eq=False, repr=False)
class FolderStream:
    """Images that are decoded whenever they are fetched; it travels to DataLoader workers.

    Attributes:
        paths: N files.
        labels: int64, shape ``(N,)``.
        shape: ``(C, H, W)`` of each decoded image.
        image_size: what they are resized and cropped to, in pixels; None leaves them as they are.
    """

    paths: tuple[str, ...]
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    shape: tuple[int, int, int]
    image_size: int | None

    __repr__ = described
    _repr_html_ = described_html

    def __len__(self) -> int:
        return len(self.paths)

    def fetch(self, index: Tensor) -> Tensor:
        pixels = torch.empty(len(index), *self.shape, dtype=torch.uint8)
        for slot, i in zip(pixels, index.tolist(), strict=True):
            decode_into(slot, self.paths[i], self.image_size)
        return pixels

    def subset(self, index: Tensor) -> FolderStream:
        return replace(self, paths=tuple(self.paths[i] for i in index.tolist()), labels=self.labels[index.cpu()])

    def only_classes(self, names: Sequence[str]) -> FolderStream:
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
    """
    folder = split_folder(root, split)
    classes = class_names(folder)
    for other in PARTS:
        if folder != root and (root / other).is_dir():
            _same_classes(folder, classes, root / other)
    found = [(path, label) for label, name in enumerate(classes) for path in _image_files(folder / name)]
    paths, labels = tuple(path for path, _ in found), torch.tensor([label for _, label in found])
    height, width, channels = decode(paths[0], image_size).shape
    everything = FolderStream(paths, labels, classes, root.resolve().name, (channels, height, width), image_size)
    chosen = choose(everything) if choose else everything
    if _size(chosen) > memory_limit:
        return chosen
    if cache is False or (cache in (None, True) and _size(everything) < decoded.WORTH_KEEPING):
        return load(chosen, split, progress)
    place = decoded.place(folder, image_size, None if isinstance(cache, bool) else cache)
    return _load_kept(everything, chosen, place, decoded.key(paths, image_size), split, progress)


def _size(stream: FolderStream) -> int:
    """Bytes of its decoded pixels."""
    return len(stream) * math.prod(stream.shape)


def _load_kept(everything: FolderStream, chosen: FolderStream, place: Path, key: str, split: str, progress: bool) -> ImageSet:
    """The chosen images out of the kept ones, or decoded; all of them are kept for the next time."""
    kept = decoded.read(place, key)
    if kept is None or kept.shape != (len(everything), *everything.shape):
        images = load(chosen, split, progress)
        if chosen is everything:
            decoded.write(place, key, images.pixels)
        return images
    if chosen is not everything:
        position = {path: i for i, path in enumerate(everything.paths)}
        kept = kept[torch.tensor([position[path] for path in chosen.paths], dtype=torch.int64)]
    return ImageSet(kept, chosen.labels, chosen.classes, chosen.name)


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


def load(stream: FolderStream, what: str = "images", progress: bool = True) -> ImageSet:
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
    return ImageSet(pixels, stream.labels, stream.classes, stream.name)


def decode(path: str, image_size: int | None = None, *, upright: bool = False) -> np.ndarray:
    """One image file as RGB, uint8, shape ``(H, W, 3)``.

    Args:
        path: the file.
        image_size: shorter side in pixels after resizing, then centre-cropped to a square; None leaves it as it is.
        upright: turn it as its EXIF data say, and put it on white where it is transparent. Sets of images are read without, as
            everywhere in the field.

    Raises:
        UserError: not there, damaged, or of more than 8 bits per channel.
    """
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise UserError(f"the image {path} has more than 8 bits per channel, convert it to 8 bits first")
            rgb = on_white(ImageOps.exif_transpose(image)) if upright else image.convert("RGB")
    # PIL reports broken files by any of these, depending on the format.
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read the image {path}: {error}") from error
    return np.asarray(rgb if image_size is None else _resized(rgb, image_size))


def on_white(image: Image.Image) -> Image.Image:
    """As RGB, with white behind what is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


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
        raise UserError(f"the image {path} is {own} but the images before it are {before}; give --image-size to bring them to one size")


def split_folder(root: Path, split: str) -> Path:
    """The folder that holds a split's class folders; ``root`` itself where it has no split folders.

    Raises:
        UserError: no such folder, or other splits only.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {root}; expected {TREE}")
    if not any((root / name).is_dir() for name in PARTS):
        return root
    for name in PARTS[split]:
        if (root / name).is_dir():
            return root / name
    raise UserError(f"{root} has no {' or '.join(f'{name}/' for name in PARTS[split])} folder; expected {TREE}")


def class_names(folder: Path) -> tuple[str, ...]:
    """Sorted names of the class folders in ``folder``, hidden ones left out.

    Raises:
        UserError: there are none.
    """
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__")))
    if not names:
        raise UserError(f"{folder} holds no class folders; expected {TREE}")
    return tuple(names)


def _image_files(folder: Path) -> list[str]:
    """Sorted paths of the images directly in a class folder."""
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES) and not name.startswith("."))
    if not names:
        raise UserError(f"the class folder {folder} holds no images ({', '.join(SUFFIXES)})")
    prefix = os.path.join(folder, "")
    return [prefix + name for name in names]


def _same_classes(folder: Path, classes: tuple[str, ...], other: Path) -> None:
    odd = sorted(set(classes) ^ set(class_names(other)))
    if odd:
        raise UserError(f"{folder} and {other} must hold the same class folders, but only one of them has {odd[0]!r}")


def _resized(image: Image.Image, size: int) -> Image.Image:
    """The shorter side scaled to ``size``, then the central square."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
