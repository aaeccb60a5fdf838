"""What several commands do: open data, show progress, give models short names; and doors to what the library does for them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from tqdm import tqdm

from robustlab.data.catalog import open_dataset
from robustlab.data.imageset import Images
from robustlab.devices import choose_device as choose_device
from robustlab.devices import computes_bfloat16 as computes_bfloat16
from robustlab.interrupts import interruptible as interruptible
from robustlab.models.matching import check_fits as check_fits
from robustlab.models.matching import check_reads as check_reads
from robustlab.models.zoo import ENDINGS
from robustlab.models.zoo import load_model as load_model
from robustlab.models.zoo import normalization_of as normalization_of
from robustlab.progress import Progress
from robustlab.settings import Data
from robustlab.threats import norm_name as norm_name
from robustlab.threats import threat_of as threat_of


def short_names(names: Iterable[str]) -> dict[str, str]:
    """For each model, given by its name or path, a word: the file's name without its ending, and of the folders before it as many as
    tell it from the others."""
    paths = {name: Path(name) for name in names}
    stems = {name: path.with_suffix("") if path.suffix in ENDINGS else path for name, path in paths.items()}
    parts = {name: [part for part in stem.parts if part.strip("/\\.")] for name, stem in stems.items()}

    def tail(name: str, length: int) -> str:
        return "-".join(parts[name][-length:])

    def word(name: str) -> str:
        lengths = range(1, len(parts[name]) + 1)
        alone = (tail(name, k) for k in lengths if sum(tail(other, k) == tail(name, k) for other in parts) == 1)
        return next(alone, "-".join(parts[name]))

    found: dict[str, str] = {}
    for name in parts:
        found[name] = next(one for k in count(1) if (one := word(name) if k == 1 else f"{word(name)}-{k}") not in found.values())
    return found


def open_images(data: Data, split: str, *, limit: int | None = None) -> Images:
    """The images that settings name, with a progress bar while they are read.

    Args:
        split: ``train``, ``test`` or ``val``.
        limit: in place of the settings' own.
    """
    with Progress(f"reading {split}", unit="img") as shown:
        return open_dataset(
            data.dataset,
            data.path,
            split,
            image_size=data.image_size,
            download=data.download,
            classes=data.classes,
            limit=data.limit if limit is None else limit,
            progress=shown.at,
        )


def open_data(
    dataset: str | None,
    data: str | None,
    split: str,
    *,
    image_size: int | None,
    download: bool = False,
    classes: Sequence[str] | None = None,
    limit: int | None = None,
) -> Images:
    """The images, with a progress bar while they are read."""
    options: dict[str, Any] = {"image_size": image_size, "download": download, "classes": classes, "limit": limit}
    with bar(None, f"reading {split}", "img") as shown:
        return open_dataset(dataset, data, split, progress=_to(shown), **options)


def _to(shown: tqdm) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        shown.total = total
        shown.update(done - shown.n)

    return progress


def bar(total: int | None, title: str, unit: str, *, leads: bool = True) -> tqdm:
    """The one progress bar: on a terminal only, gone when done."""
    return tqdm(total=total, desc=title, unit=unit, leave=False, disable=None if leads else True, file=sys.stderr, dynamic_ncols=True)
