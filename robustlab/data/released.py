"""The layout of the sets that Ilyas et al. (2019) released: ``CIFAR_ims`` and ``CIFAR_lab``, written by ``torch.save``.

Each holds a list of tensors to be put end to end: images ``(N, C, H, W)`` in [0, 1], and int64 labels ``(N,)``. A single
tensor is read too, and so are other names than CIFAR.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from robustlab import files, pickles
from robustlab.data.classes import numbers, told_apart
from robustlab.data.imageset import Images, ImageSet, readable_name
from robustlab.data.limits import check_expansion
from robustlab.errors import UserError

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR_SHAPE = (3, 32, 32)
IMAGES, LABELS = "_ims", "_lab"


def is_released(path: Path) -> bool:
    """Whether a folder holds images in this layout."""
    return any(path.glob(f"*{IMAGES}"))


def open_released(path: Path) -> ImageSet:
    """The images in a folder with one pair of files ``NAME_ims`` and ``NAME_lab``. Nothing that runs code is ever read.

    The classes are those of an ``export.json`` beside the files; else CIFAR-10's, for files called ``CIFAR...`` with images of
    3x32x32 and labels up to 9; else 0, 1, ... up to the largest label.

    Raises:
        UserError: no pair or several, a file that is damaged or holds something else, values or labels out of range.
    """
    images = sorted(path.glob(f"*{IMAGES}"))
    if len(images) != 1:
        found = f"several: {', '.join(file.name for file in images)}" if images else "none"
        raise UserError(f"{path} should hold one pair of files NAME{IMAGES} and NAME{LABELS}, and holds {found}")
    name = images[0].name.removesuffix(IMAGES)
    x, y = _tensor(images[0]), _tensor(path / f"{name}{LABELS}")
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise UserError(f"{images[0]}: images must be (N, C, H, W) with 1 or 3 channels, got shape {tuple(x.shape)}")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise UserError(f"{path / name}{LABELS}: labels must be whole numbers, got {y.dtype}")
    if x.layout != torch.strided or x.is_quantized or y.layout != torch.strided:
        raise UserError(f"{images[0]}: images and labels must be plain tensors, got {x.layout}")
    # A tensor may repeat what its file holds once, and take any memory as soon as it is copied.
    check_expansion(images[0], "the images", x.numel() * max(x.element_size(), 4), images[0].stat().st_size)
    pixels = x.float() if x.dtype in (torch.float64, torch.bfloat16) else x
    return ImageSet(pixels.contiguous(), y.long(), _classes(path, name, x, y), readable_name(path.resolve().name))


def released_name(images: Images, otherwise: str) -> str:
    """What the files of a set are called: ``CIFAR`` where its classes are CIFAR-10's."""
    return "CIFAR" if images.classes == CIFAR10 and images.shape == CIFAR_SHAPE else otherwise


def _classes(path: Path, name: str, x: Tensor, y: Tensor) -> tuple[str, ...]:
    highest = int(y.max()) if y.numel() else -1
    if (path / "export.json").is_file():
        known = files.read_json(path / "export.json", "what is known of an export").get("classes")
        if isinstance(known, list) and len(known) > highest and all(isinstance(each, str) for each in known):
            return told_apart(str(path / "export.json"), known)
    if name.startswith("CIFAR") and tuple(x.shape[1:]) == CIFAR_SHAPE and highest < len(CIFAR10):
        return CIFAR10
    return numbers(str(path), y)


def _tensor(path: Path) -> Tensor:
    """The tensor in a file, or its list of tensors end to end."""
    if path.exists() and not path.is_file():  # a pipe, say, which might keep a reader waiting for ever
        raise UserError(f"{path} is no file")
    content = pickles.load_pickle(path, "file of tensors", trust=None)
    if isinstance(content, list | tuple) and content and all(isinstance(part, Tensor) for part in content):
        try:
            content = torch.cat([part.detach() for part in content])
        except RuntimeError as error:
            raise UserError(f"the tensors in {path} do not fit together: {str(error).splitlines()[0]}") from error
    if not isinstance(content, Tensor):
        raise UserError(f"{path} should hold a tensor or a list of tensors, not a {type(content).__name__}")
    return content.detach()
