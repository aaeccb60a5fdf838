"""Datasets by name, for the command line: ``shapes``, ``cifar10``, ``cifar100``, ``folder``, ``npz``."""

from __future__ import annotations

from pathlib import Path

from robustlab.data.folder import Progress, open_folder
from robustlab.data.imageset import Images, hold_out
from robustlab.errors import UserError, unknown

DATASETS = ("shapes", "cifar10", "cifar100", "folder", "npz")
SPLITS = ("train", "test", "val")


def open_dataset(
    name: str | None = None,
    root: str | Path | None = None,
    split: str = "train",
    *,
    image_size: int | None = None,
    download: bool = False,
    seed: int = 0,
    limit: int | None = None,
    memory_limit: int = 4 << 30,
    progress: Progress | None = None,
) -> Images:
    return open_folder(Path(root), split, image_size=image_size, memory_limit=memory_limit, progress=progress)
