"""Datasets by name, for the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from robustlab.data.cifar import FOLDERS, open_cifar
from robustlab.data.constructed import is_constructed, open_constructed
from robustlab.data.folder import PARTS, TREE, Progress, open_folder, split_folder
from robustlab.data.imageset import Images, ImageSet, hold_out
from robustlab.data.npz import open_npz
from robustlab.data.released import is_released, open_released
from robustlab.data.shapes import shapes
from robustlab.data.tensors import open_safetensors
from robustlab.errors import UserError, unknown

DATASETS = ("shapes", "cifar10", "cifar100", "folder", "npz", "safetensors", "constructed", "released")
ONE_FILE: dict[str, Callable[[Path], ImageSet]] = {"npz": open_npz, "safetensors": open_safetensors}  # by ending
ONLY_FOR_TRAINING = ("constructed", "released")
SPLITS = tuple(PARTS)
DOWNLOADS = Path("datasets")  # where CIFAR is looked for when no place is named
SHAPES_SIZE = {"train": 20_000, "test": 2_000, "val": 2_000}
UNDIVIDED_TEST = 0.1  # share of each class that is the test split of images stored without splits


def open_dataset(
    name: str | None = None,
    root: str | Path | None = None,
    split: str = "train",
    *,
    image_size: int | None = None,
    download: bool = False,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    memory_limit: int = 4 << 30,
    progress: Progress | None = None,
) -> Images:
    """One split of a dataset.

    Images stored without splits (class folders directly in ``root``, a single ``.npz`` or ``.safetensors`` file) are cut: a fixed tenth of
    each class is the test split, the rest is the training split.

    Args:
        name: one of ``DATASETS``; without it the kind of data at ``root`` decides, and without that it is ``shapes``.
        root: where the data lie.
        split: ``train``, ``test`` or ``val``; the last means the test images where the data have no third part.
        image_size: for folders: shorter side after resizing, then centre-cropped.
        download: fetch CIFAR where it is missing.
        seed: of the generated images, and of the choice that ``limit`` makes.
        classes: only the images of these classes, which become classes 0, 1, ... in the order given.
        limit: at most so many images, with the same share of each class.
        memory_limit: bytes of pixels above which a folder's images are read on demand.
        progress: told how many of a folder's images are decoded, and of how many.

    Raises:
        UserError: an unknown name, data missing or damaged.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if limit is not None and limit < 0:
        raise UserError(f"the number of images must not be negative, got {limit}")
    path = None if root is None else Path(root).expanduser()
    name = name or _kind(path)
    if name == "shapes":
        images: Images = shapes(SHAPES_SIZE[split] if limit is None or classes else limit, split, seed)
    elif name in FOLDERS:
        images = open_cifar(name, path or DOWNLOADS, split, download)
    elif name not in DATASETS:
        raise unknown("dataset", name, DATASETS)
    elif path is None:
        raise UserError(f"the dataset {name!r} needs the place of its images: --data PATH")
    elif name in ONE_FILE:
        images = _open_file(path, split, name)
    elif name in ONLY_FOR_TRAINING:
        images = _open_trained_on(name, path, split, memory_limit, progress)
    else:
        images = _open_folder(path, split, image_size=image_size, memory_limit=memory_limit, progress=progress)
    _, height, width = images.shape
    if image_size is not None and not height == width == image_size:
        raise UserError(f"{images.name} has images of {width}x{height} pixels, and --image-size changes only image folders")
    if classes:
        images = images.only_classes(classes)
    return images if limit is None or limit >= len(images) else images.subset(hold_out(images, limit, seed)[1])


def only_for_training(name: str | None, root: str | Path | None) -> bool:
    """Whether a dataset, named as for ``open_dataset``, has no test images of its own."""
    return (name or _kind(None if root is None else Path(root).expanduser())) in ONLY_FOR_TRAINING


def _kind(path: Path | None) -> str:
    """Which dataset lies at a path."""
    if path is None:
        return "shapes"
    if not path.exists():
        raise UserError(f"there is nothing at {path}; expected {TREE}, an .npz or .safetensors file, or a CIFAR folder")
    for name, folder in FOLDERS.items():
        if path.name == folder or (path / folder).is_dir():
            return name
    if path.is_file():
        if path.suffix[1:] not in ONE_FILE:
            raise UserError(f"{path} is neither a folder nor an .npz file nor a .safetensors file")
        return path.suffix[1:]
    if is_constructed(path):
        return "constructed"
    if is_released(path):
        return "released"
    return next((kind for kind in ONE_FILE for part in PARTS if (path / f"{part}.{kind}").is_file()), "folder")


def _open_folder(path: Path, split: str, **settings: Any) -> Images:
    """The split that the folder holds, or a cut where it holds class folders directly."""
    images = open_folder(path, split, **settings)
    return _cut(images, split) if split_folder(path, split) == path else images


def _open_file(path: Path, split: str, kind: str) -> Images:
    """``path`` is a file without splits, or a folder with ``train.npz`` and ``test.npz`` (or ``val.npz``)."""
    if not path.is_dir():
        return _cut(ONE_FILE[kind](path), split)
    files = [path / f"{name}.{kind}" for name in PARTS[split]]
    found = [file for file in files if file.is_file()]
    if not found:
        raise UserError(f"{path} has no {' or '.join(file.name for file in files)}")
    return ONE_FILE[kind](found[0])


def _open_trained_on(name: str, path: Path, split: str, memory_limit: int, progress: Progress | None) -> Images:
    """A constructed or released set is for training; what it teaches is tested on the original test images."""
    if split != "train":
        raise UserError(f"the {name} set in {path} has no {split} images: name the original data by --data or --test-data")
    return open_released(path) if name == "released" else open_constructed(path, memory_limit=memory_limit, progress=progress)


def _cut(images: Images, split: str) -> Images:
    train, test = hold_out(images, UNDIVIDED_TEST, seed=0)
    return images.subset(train if split == "train" else test)
