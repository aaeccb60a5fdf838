"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in their official files, read and checked by torchvision."""

from __future__ import annotations

from http.client import HTTPException
from pathlib import Path

import torch

from robustlab.data.imageset import ImageSet
from robustlab.errors import UserError

FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}


def open_cifar(name: str, root: Path, split: str, download: bool = False) -> ImageSet:
    """The 50,000 training or 10,000 test images of ``cifar10`` or ``cifar100``.

    Args:
        root: the folder that holds, or will hold, the official folder; or that folder itself.
        split: ``train``, else the test images.
        download: fetch what is missing.

    Raises:
        UserError: files missing or damaged, or the download failed.
    """
    from torchvision.datasets import CIFAR10, CIFAR100

    folder = FOLDERS[name]
    parent = root.parent if root.name == folder else root
    if not download and not (parent / folder).is_dir():
        raise UserError(f"{name} is not at hand: expected the folder {parent / folder}; add `download=True` to fetch it")
    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    try:
        data = kind(str(parent), train=split == "train", download=download)
    except RuntimeError as error:  # a file missing or of another checksum
        advice = "the download did not pass its checksum, try again" if download else "add `download=True` to fetch them anew"
        raise UserError(f"the files of {name} in {parent / folder} are incomplete or damaged; {advice}") from error
    except (OSError, HTTPException) as error:  # no network, no disk
        raise UserError(f"cannot {'download' if download else 'read'} {name} in {parent}: {error}") from error
    pixels = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return ImageSet(pixels, torch.tensor(data.targets), tuple(data.classes), name)
