"""Pictures with attributes in the form of CelebA, made so that the attributes are known in the pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

NAMES = ("Bright_Top", "Red")  # the upper half is lighter; the picture is redder


def facts(n: int, seed: int = 0) -> Tensor:
    """Which picture has which attribute, bool ``(n, 2)``: independent coins."""
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(seed)) < 0.5


def pixels(has: Tensor, height: int = 30, width: int = 24, seed: int = 0) -> np.ndarray:
    """Noise with the attributes, uint8 ``(n, height, width, 3)``."""
    noise = np.random.default_rng(seed).normal(110, 30, (len(has), height, width, 3))
    noise[:, : height // 2] += 70 * has[:, 0].numpy()[:, None, None, None]
    noise[..., 0] += 60 * has[:, 1].numpy()[:, None, None]
    return noise.clip(0, 255).astype(np.uint8)


def write_celeba(
    root: Path, n: int = 60, *, form: str = ".txt", parts: Sequence[int] | None = None, names: Sequence[str] = NAMES, inner: str = ""
) -> Tensor:
    """A set of ``n`` pictures in torchvision's (``.txt``) or Kaggle's (``.csv``) form; more names than two get random values.

    Returns:
        The facts, bool ``(n, len(names))``.
    """
    has = torch.cat([facts(n), facts(n, 1), facts(n, 2)], 1)[:, : len(names)]
    folder = root / "img_align_celeba" / inner
    folder.mkdir(parents=True)
    files = [f"{k + 1:06}.jpg" for k in range(n)]
    for file, picture in zip(files, pixels(has), strict=True):
        Image.fromarray(picture).save(folder / file, quality=95)
    rows = [[file, *("1" if value else "-1" for value in row)] for file, row in zip(files, has.tolist(), strict=True)]
    if form == ".txt":
        lines = [str(n), " ".join(names) + " ", *(row[0] + " " + " ".join(f"{value:>2}" for value in row[1:]) for row in rows)]
    else:
        lines = [",".join(["image_id", *names]), *map(",".join, rows)]
    (root / f"list_attr_celeba{form}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if parts is not None:
        between, head = (" ", []) if form == ".txt" else (",", ["image_id,partition"])
        lines = [*head, *(f"{file}{between}{part}" for file, part in zip(files, parts, strict=True))]
        (root / f"list_eval_partition{form}").write_text("\n".join(lines) + "\n")
    return has
