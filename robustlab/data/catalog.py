"""Opening data: by what lies at a path, or by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from robustlab.data.celeba import is_celeba, open_celeba
from robustlab.data.cifar import FOLDERS, open_cifar
from robustlab.data.classes import with_commas
from robustlab.data.constructed import is_constructed, open_constructed
from robustlab.data.folder import FolderStream, open_folder
from robustlab.data.imageset import Images, ImageSet, Some, hold_out, whole
from robustlab.data.npz import has_parts, open_npz
from robustlab.data.released import is_released, open_released
from robustlab.data.shapes import CLASSES, pixels_at
from robustlab.data.tensors import open_safetensors
from robustlab.data.tree import PARTS, TREE, split_file, split_folder
from robustlab.errors import UserError, unknown
from robustlab.paths import place_of, shown

DATASETS = ("shapes", "cifar10", "cifar100", "folder", "npz", "safetensors", "constructed", "released", "celeba")
ONE_FILE: dict[str, Callable[[Path], ImageSet]] = {"npz": open_npz, "safetensors": open_safetensors}  # by ending
ONLY_FOR_TRAINING = ("constructed", "released")
SPLITS = tuple(PARTS)
DOWNLOADS = Path("datasets")  # where CIFAR is looked for when no place is named
SHAPES_SIZE = {"train": 20_000, "test": 2_000, "val": 2_000}
UNDIVIDED_TEST = 0.1  # share of each class that is the test split of images stored without splits


def open_dataset(
    name: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    split: str = "train",
    *,
    image_size: int | None = None,
    download: bool = False,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    memory_limit: int = 4 << 30,
    cache: str | os.PathLike[str] | bool | None = None,
    progress: bool = True,
) -> Images:
    """One split of a dataset: ``open_dataset("pets/")`` finds out what lies there, ``open_dataset("shapes")`` makes images.

    Images stored without splits (class folders directly in a folder, a single ``.npz`` or ``.safetensors`` file) are cut: a fixed
    tenth of each class is the test split, the rest is the training split.

    Args:
        name: one of ``DATASETS``, or where the data lie; without it the kind of data at ``root`` decides, and without that it
            is ``shapes``.
        root: where the data lie, if ``name`` says what they are.
        split: ``train``, ``test`` or ``val``; the last means the test images where the data have no third part.
        image_size: for picture files: shorter side in pixels after resizing, then centre-cropped to a square.
        download: fetch CIFAR where it is missing.
        seed: of the generated images, and of the choice that ``limit`` makes.
        classes: only the images of these classes, which become classes 0, 1, ... in the order given.
        limit: at most so many images, with the same share of each class.
        memory_limit: bytes of pixels above which images are read on demand.
        cache: the folder in which decoded images of image folders are kept for the next time. None is a hidden folder
            ``.robustlab`` beside the class folders' folder, and only for more than a few megabytes of pixels; False keeps
            nothing. What is kept is used only while the image files are the same; where it cannot be written, nothing is kept.
        progress: show how far reading is.

    Returns:
        Images of one size, in memory or read on demand.

    Raises:
        UserError: an unknown name, data missing or damaged.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if limit is not None and limit < 0:
        raise UserError(f"the number of images must not be negative, got {limit}")
    word, path = _name_and_path(name, root)

    def chosen(images: Some) -> Some:
        images = images.only_classes(with_commas(classes, images.classes)) if classes else images
        return images if limit is None or limit >= len(images) else images.subset(hold_out(images, limit, seed)[1])

    where: dict[str, Any] = {"image_size": image_size, "memory_limit": memory_limit, "cache": cache, "progress": progress}
    made = {"n": SHAPES_SIZE[split] if limit is None or classes else limit, "seed": seed}
    return _of_size(_images(word or _kind(path), path, split, chosen, made, download, where), image_size)


def _images(
    name: str, path: Path | None, split: str, chosen: Callable[[Any], Any], made: dict[str, int], download: bool, where: dict[str, Any]
) -> Images:
    """The chosen images of a dataset; ``made`` says how many *shapes* are drawn, ``where`` how files are read."""
    if name == "shapes":
        return _some_shapes(made["n"], split, made["seed"], chosen)
    if name in FOLDERS:
        return chosen(open_cifar(name, path or DOWNLOADS, split, download))
    if name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    if path is None:
        raise UserError(f"the dataset {name!r} needs the place of its images, `root=PATH`")
    if name == "folder":
        return _open_folder(path, split, chosen, **where)
    if name == "celeba":
        return chosen(open_celeba(path, split, image_size=where["image_size"]))
    return chosen(_open_stored(name, path, split, where["memory_limit"], where["progress"]))


def _some_shapes(n: int, split: str, seed: int, chosen: Callable[[ImageSet], ImageSet]) -> ImageSet:
    """Some of the first ``n`` *shapes*: they are chosen by their labels, before any is drawn."""
    blank = ImageSet(torch.zeros(n, 1, 1, 1, dtype=torch.uint8), torch.arange(n) % len(CLASSES), CLASSES, "shapes")
    some = chosen(blank)
    index = torch.arange(n) if some.positions is None else some.positions
    return replace(some, pixels=pixels_at(index, split, seed))


def _of_size(images: Images, image_size: int | None) -> Images:
    _, height, width = images.shape
    if image_size is not None and not height == width == image_size:
        raise UserError(f"{images.name} has images of {width}x{height} pixels, and `image_size` changes only image folders")
    return images


def _open_folder(path: Path, split: str, chosen: Callable[[FolderStream], FolderStream], **how: Any) -> Images:
    """Some images of an image folder, whose classes and files are chosen before any of them is decoded."""
    undivided = path.is_dir() and split_folder(path, split) == path

    def choose(images: FolderStream) -> FolderStream:
        return chosen(_cut(images, split) if undivided else images)

    return open_folder(path, split, choose=choose, **how)


def _open_stored(name: str, path: Path, split: str, memory_limit: int, progress: bool) -> Images:
    """All the images of a split that lie as arrays in files."""
    if name in ONE_FILE:
        return _open_file(path, split, name)
    return _open_for_training(name, path, split, memory_limit, progress)


def _name_and_path(name: str | os.PathLike[str] | None, root: str | os.PathLike[str] | None) -> tuple[str | None, Path | None]:
    """A dataset's name and its place, where the first word may be either."""
    if root is not None:
        return None if name is None else os.fspath(name), place_of(root)
    if name is None or (isinstance(name, str) and name in DATASETS):
        return name, None
    path = place_of(name)
    if isinstance(name, str) and len(path.parts) == 1 and not path.suffix and not path.exists():
        raise UserError(f"there is nothing at {name}, and it names no dataset: {unknown('dataset', name, DATASETS)}")
    return None, path


def _kind(path: Path | None) -> str:
    """Which dataset lies at a path."""
    if path is None:
        return "shapes"
    if not path.exists():
        known = fetchable(path.name)
        fetch = f"; {known} with `download` is fetched there" if known else ""
        raise UserError(f"there is nothing at {shown(path)}; expected {TREE}, an .npz or .safetensors file, or a CIFAR folder{fetch}")
    for name, folder in FOLDERS.items():
        if path.name == folder or (path / folder).is_dir():
            return name
    if not path.is_dir():
        ending = path.suffix[1:].lower()
        if ending not in ONE_FILE or not path.is_file():
            raise UserError(f"{shown(path)} is neither a folder nor an .npz file nor a .safetensors file")
        return ending
    if is_constructed(path):
        return "constructed"
    if is_released(path):
        return "released"
    if is_celeba(path):
        return "celeba"
    return next((kind for kind in ONE_FILE for part in PARTS if split_file(path, part, kind)), "folder")


def fetchable(words: str) -> str | None:
    """Which dataset that can be fetched is meant: ``cifar10`` by ``CIFAR-10 (JPEG copy)``; None where it is none."""
    plain = words.lower().replace("-", "").replace("_", "").replace(" ", "")
    return next((name for name in sorted(FOLDERS, key=len, reverse=True) if plain.startswith(name)), None)


def _open_file(path: Path, split: str, kind: str) -> Images:
    """``path`` is a file with or without splits, or a folder with ``train.npz`` and ``test.npz`` (or ``val.npz``)."""
    if path.is_dir():
        found = split_file(path, split, kind)
        if found is None:
            raise UserError(f"{path} has no {' or '.join(f'{name}.{kind}' for name in PARTS[split])}")
        return ONE_FILE[kind](found)
    if kind == "npz" and has_parts(path):
        return open_npz(path, split)
    return _cut(ONE_FILE[kind](path), split)


def _open_for_training(name: str, path: Path, split: str, memory_limit: int, progress: bool) -> Images:
    """A constructed or released set is for training; what it teaches is tested on the original test images."""
    if split != "train":
        raise UserError(f"the {name} set in {path} has no {split} images: name the original data, `root` or `test_data`")
    return open_released(path) if name == "released" else open_constructed(path, memory_limit=memory_limit, progress=progress)


def _cut(images: Some, split: str) -> Some:
    train, test = hold_out(images, UNDIVIDED_TEST, seed=0)
    return whole(images.subset(train if split == "train" else test))
