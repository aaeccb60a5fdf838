"""Adversarial images: as floats, exactly as the attack returned them, and as 8-bit images, and how they are written to a folder.

    ATTACK/records.jsonl          one line per image: file, position, label, what the model predicts and how surely, distances
    ATTACK/test/CLASS/00012.png   8 bits per channel, rounded so that the image stays within eps of an 8-bit original
    ATTACK/test.safetensors       x float32 and y, not rounded, in the order of the lines

Only images that the model classified correctly are attacked. ``open_dataset("FOLDER/ATTACK", split="test")`` opens the exact
floats, ``open_dataset("folder", "FOLDER/ATTACK", "test")`` the 8-bit images: so another model can be measured on them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import torch
from PIL import Image
from torch import Tensor

from robustlab import files
from robustlab.data.exports import folder_names
from robustlab.data.tensors import head
from robustlab.errors import UserError
from robustlab.norms import Norm
from robustlab.pixels import measured, to_float, to_uint8, to_uint8_within


@dataclass(frozen=True, eq=False, repr=False)
class AdversarialImages:
    """What one attack returned for M images, all of them classified correctly before; on the CPU.

    Attributes:
        attack: its name.
        norm: the norm of all distances.
        classes: names of the classes, as the model numbers them; empty where they have none.
        index: positions in the data, int64, shape ``(M,)``.
        label: the images' classes, which the model also predicted, int64, shape ``(M,)``.
        x: the images, float32 in [0, 1], shape ``(M, C, H, W)``.
        confidence: the model's probability of ``label`` before the attack, ``(M,)``.
        x_adv: what the attack returned, float32, shape of ``x``.
        prediction_adv: the class predicted for ``x_adv``, int64, ``(M,)``.
        confidence_adv: the model's probability of it, ``(M,)``.
        distance: ``‖x_adv - x‖`` in pixel units, float64, ``(M,)``.
        pixels_adv: ``x_adv`` as 8-bit values, rounded within eps, uint8, shape of ``x``. Where ``x`` is not made of 8-bit
            values itself, within eps of ``x`` rounded to 8 bits.
        prediction_8bit: the class predicted for these, int64, ``(M,)``.
        distance_8bit: their distance from ``x``, float64, ``(M,)``.
        sources: the files that the images come from, M names; empty where there are none.
    """

    attack: str
    norm: Norm
    classes: tuple[str, ...]
    index: Tensor
    label: Tensor
    x: Tensor
    confidence: Tensor
    x_adv: Tensor
    prediction_adv: Tensor
    confidence_adv: Tensor
    distance: Tensor
    pixels_adv: Tensor
    prediction_8bit: Tensor
    distance_8bit: Tensor
    sources: tuple[str, ...] = ()

    @classmethod
    def joined(cls, parts: Sequence[AdversarialImages]) -> AdversarialImages:
        """One after another, what the same attack returned for several batches."""
        columns: dict[str, Any] = {
            each.name: torch.cat([getattr(part, each.name) for part in parts])
            for each in fields(cls)
            if isinstance(getattr(parts[0], each.name), Tensor)
        }
        return replace(parts[0], sources=tuple(chain.from_iterable(part.sources for part in parts)), **columns)

    def tensors(self) -> dict[str, Tensor]:
        """All that is known of the images, by the names of the attributes."""
        return {each.name: value for each in fields(self) if isinstance(value := getattr(self, each.name), Tensor)}

    def __len__(self) -> int:
        return len(self.index)

    @property
    def broken(self) -> Tensor:
        """Which images are no longer classified as their label, bool, ``(M,)``."""
        return self.prediction_adv != self.label

    @property
    def are_pictures(self) -> bool:
        """Whether ``x`` holds images that can be shown: ``(M, C, H, W)`` with 1 or 3 channels."""
        return self.x.ndim == 4 and self.x.shape[1] in (1, 3)

    def class_name(self, number: int) -> str:
        """The name of a class; its number where it has none."""
        return self.classes[number] if self.classes else str(number)

    def records(self) -> Iterator[dict[str, Any]]:
        """What is known of each image, in values that JSON holds."""
        columns = {
            "index": self.index,
            "label": self.label,
            "prediction": self.label,
            "confidence": self.confidence,
            "prediction_adv": self.prediction_adv,
            "confidence_adv": self.confidence_adv,
            "distance": self.distance,
            "prediction_8bit": self.prediction_8bit,
            "distance_8bit": self.distance_8bit,
        }
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        for row, source in zip(rows, self.sources or [None] * len(self), strict=True):
            yield dict(zip(columns, row, strict=True)) | ({} if source is None else {"source": source})

    def __repr__(self) -> str:
        return f"{self.attack}: {len(self)} images attacked, {int(self.broken.sum())} of them no longer classified as their label"


def rounded(x: Tensor, x_adv: Tensor, eps: float | Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """Adversarial images as 8-bit values that lie within eps of their 8-bit originals.

    Args:
        x: originals in [0, 1], shape ``(B, ...)``. Where they are not 8-bit values divided by 255, the ball is the one
            around the nearest 8-bit image.
        x_adv: shape of ``x``, within ``eps``.
        eps: in pixel units, a number or ``(B,)``.

    Returns:
        uint8, shape of ``x``; and the distance from ``x`` in pixel units, float64, ``(B,)``.
    """
    center = to_uint8(x)
    pixels = to_uint8_within(x_adv, center, eps, norm)
    levels = center.double() if torch.equal(to_float(center), x.float()) else x.double() * 255
    return pixels, measured(pixels.double() - levels, norm)


# Writing


@contextmanager
def saving(folder: str | os.PathLike[str]) -> Iterator[Callable[[AdversarialImages], None]]:
    """Yield a function that writes adversarial images, batch by batch, into a new folder; all of it or nothing is there afterwards.

        with saving("adversarial") as save:
            report = evaluate(model, data, attacks, on_adversarial=save)

    Memory does not grow with the number of images.

    Raises:
        UserError: the folder is not empty or cannot be written, or images that have neither 1 nor 3 channels.
    """
    with files.atomic_folder(folder) as temporary, saving_within(temporary) as save:
        yield save


@contextmanager
def saving_within(folder: Path) -> Iterator[Callable[[AdversarialImages], None]]:
    """``saving`` into an empty folder that is there; what is written stays there after an exception too."""
    with ExitStack() as opened:
        writers: dict[str, _Writer] = {}

        def save(found: AdversarialImages) -> None:
            if found.attack not in writers:
                name = _folder_name(found.attack, [writer.folder.name for writer in writers.values()])
                writers[found.attack] = opened.enter_context(_writer(folder / name, found))
            writers[found.attack].write(found)

        yield save


def _folder_name(attack: str, taken: Sequence[str]) -> str:
    """``PGD-20 (L2 eps=0.5)`` as ``PGD-20-L2-eps=0.5``."""
    name = re.sub(r"[^A-Za-z0-9=.+]+", "-", attack).strip("-.") or "attack"
    return name if name not in taken else f"{name}-{len(taken)}"


@contextmanager
def _writer(folder: Path, first: AdversarialImages) -> Iterator[_Writer]:
    """Open the files of one attack; at the end the floats move into their safetensors file, whose head needs their number."""
    if not first.are_pictures:
        raise UserError(f"only images of 1 or 3 channels can be written as PNG files, got shape {tuple(first.x.shape[1:])}")
    folder.mkdir()
    raw = folder / "x_adv.raw"
    with open(folder / "records.jsonl", "w", encoding="utf-8") as lines, open(raw, "wb") as floats:
        writer = _Writer(folder, lines, floats)
        yield writer
    writer.finish(raw, first)
    raw.unlink()


class _Writer:
    """The open files of one attack."""

    def __init__(self, folder: Path, lines: TextIO, floats: BinaryIO) -> None:
        self.folder, self.lines, self.floats = folder, lines, floats
        self.labels: list[int] = []

    def write(self, found: AdversarialImages) -> None:
        """Add a batch."""
        names = folder_names(found.classes or [str(k) for k in range(int(found.label.max()) + 1)])
        for record, pixels in zip(found.records(), found.pixels_adv, strict=True):
            file = f"test/{names[record['label']]}/{record['index']:05}.png"
            if (self.folder / file).exists():  # two images of one position, from data put together
                file = f"{file.removesuffix('.png')}-{len(self.labels)}.png"
            (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.permute(1, 2, 0).squeeze(2).numpy()).save(self.folder / file)
            self.lines.write(json.dumps({"file": file, **record}) + "\n")
            self.labels.append(record["label"])
        self.floats.write(found.x_adv.contiguous().numpy().tobytes())

    def finish(self, raw: Path, first: AdversarialImages) -> None:
        """Write ``test.safetensors`` without having all the floats in memory."""
        names = first.classes or [str(k) for k in range(max(self.labels, default=-1) + 1)]
        with open(self.folder / "test.safetensors", "wb") as file, open(raw, "rb") as floats:
            file.write(head(self.labels, first.x.shape[1:], torch.float32, names, name=first.attack))
            shutil.copyfileobj(floats, file, 1 << 20)
