"""Image sets written in layouts that others read.

    folder       SPLIT/CLASS/NNNNN.png, 8 bit; the number is the image's position in the set
    huggingface  the same, with SPLIT/metadata.jsonl and a README.md that Hugging Face's ``imagefolder`` loader reads
    npz          SPLIT.npz with x (N, H, W, C), y and classes; pixels as they are
    safetensors  SPLIT.safetensors with x (N, C, H, W), y, and the classes in its metadata; pixels as they are
    released     NAME_ims and NAME_lab, see ``robustlab.data.released``; pixels as float32 in [0, 1]

Beside them lies ``export.json``: where the images come from, the classes by number, and what rounding changed. Each
opens again by ``--data``. Where a class cannot be the name of a folder, the folder has a name like it (``folder_names``)
and ``export.json`` and ``metadata.jsonl`` have the true one. A folder's classes are numbered by their sorted names, and
classes without images have no folder.

Images are fetched a few at a time, so memory does not depend on how many there are; only ``released`` holds them all,
since its two files are written in one piece.
"""

from __future__ import annotations

import io
import json
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from robustlab import files
from robustlab.checks import check_distinct
from robustlab.data.imageset import Images
from robustlab.data.released import released_name
from robustlab.data.tensors import head
from robustlab.errors import UserError, unknown
from robustlab.markup import markdown_text, yaml_text
from robustlab.pixels import rounding_error, to_float, to_uint8

FORMAT = "robustlab-export-1"
FACTS = "export.json"
CHUNK = 512  # images fetched at a time
BLOCK = 4096  # bytes; a small file takes this much of most disks
NAME_BYTES = 100  # of a class's folder, in UTF-8; file systems allow 255
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}  # on Windows

OnImages = Callable[[int], object]  # called with the number of images that were written since its last call


@dataclass(frozen=True)
class Rounding:
    """How far rounding to 8 bits moved the images: their mean and largest distance, L2 norm in units of [0, 1] pixels."""

    mean: float
    largest: float


@dataclass(frozen=True, eq=False)
class _Export:
    """One set on its way into a folder.

    Attributes:
        images: the set.
        split: which part of the data it is: train, test or val.
        on_images: called with the number of images that were written since its last call.
        about: what is known of the source, in Markdown.
    """

    images: Images
    split: str
    on_images: OnImages
    about: str

    @property
    def dtype(self) -> torch.dtype:
        """Of the pixels in the set."""
        return self.images.fetch(torch.arange(0)).dtype

    def chunks(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Positions, pixels and labels, on the CPU."""
        labels = self.images.labels.cpu()
        for index in torch.arange(len(self.images)).split(CHUNK):
            yield index, self.images.fetch(index).cpu(), labels[index]
            self.on_images(len(index))

    def facts(self, stored: torch.dtype, **more: Any) -> dict[str, Any]:
        """What every export says of itself, in values that JSON holds.

        Args:
            stored: dtype of the pixels in the export.
            more: what this layout alone says.
        """
        return {
            "format": FORMAT,
            "source": self.images.name,
            "split": self.split,
            "n": len(self.images),
            "shape": list(self.images.shape),
            "classes": list(self.images.classes),
            "source_dtype": _short(self.dtype),
            "dtype": _short(stored),
            "rounding": None,
            **more,
        }


def export(
    images: Images, split: str, out: Path, layout: str, on_images: OnImages = lambda n: None, about: str = ""
) -> tuple[dict[str, Any], Rounding | None]:
    """Write a set into a new folder, all of it or nothing.

    Args:
        images: the set.
        split: which part of the data it is: train, test or val.
        out: the folder; it does not exist, or is empty.
        layout: one of ``LAYOUTS``.
        on_images: called with the number of images that were written since its last call.
        about: what is known of the source, in Markdown, for layouts that have a page of text.

    Returns:
        What ``export.json`` says, and what rounding changed; None where no pixel lost anything.

    Raises:
        UserError: a layout that is not known, no images, channels or classes that the layout cannot hold, a folder in
            use, no room on the disk.
    """
    if layout not in LAYOUTS:
        raise unknown("layout", layout, LAYOUTS)
    if not len(images):
        raise UserError(f"{images.name} has no images to export")
    if images.shape[0] not in (1, 3):
        raise UserError(f"{images.name} has images of {images.shape[0]} channels, and other programs read those with 1 or 3")
    check_distinct(images.classes, images.name)
    write, bytes_of = LAYOUTS[layout]
    one = _Export(images, split, on_images, about)
    files.check_space(out, bytes_of(one))
    with files.atomic_folder(out) as folder:
        facts, rounding = write(one, folder)
        facts = {"layout": layout, **facts}
        (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n")
    return facts, rounding


def folder_names(classes: Sequence[str]) -> tuple[str, ...]:
    """A folder name for each class: safe on every system and unlike all others, also where case does not count.

    A safe name stays what it is. Another one loses what is not a letter, a digit or one of ``-_. +``, is shortened, and gets
    its class's number: ``a/b`` becomes ``a_b-0``. The first of several that differ in case only keeps its name.
    """
    found: dict[int, str] = {}
    taken: set[str] = set()
    for label, name in enumerate(classes):
        if _safe(name) == name and name.casefold() not in taken:
            found[label] = name
            taken.add(name.casefold())
    for label, name in enumerate(classes):
        if label not in found:
            found[label] = f"{_safe(name)}-{label}"
            while found[label].casefold() in taken:
                found[label] += f"-{label}"
            taken.add(found[label].casefold())
    return tuple(found[label] for label in range(len(classes)))


def _safe(name: str) -> str:
    """A name like it that may be a file's."""
    kept = "".join(c if unicodedata.category(c)[0] in "LMN" or c in "-_. +" else "_" for c in unicodedata.normalize("NFC", name))
    short = kept.encode()[:NAME_BYTES].decode(errors="ignore").strip(" .")
    # What begins with two underscores is no class folder to our reader, and nothing at all to Hugging Face's.
    short = short.lstrip("_ .") if short.startswith("__") else short
    return f"class {short}".strip() if not short or short.partition(".")[0].casefold() in RESERVED else short


# Writers. Each returns the facts and what rounding changed.


Written = tuple[dict[str, Any], Rounding | None]


def _write_folder(export: _Export, folder: Path) -> Written:
    return _write_pictures(export, folder, lambda line: None)


def _write_huggingface(export: _Export, folder: Path) -> Written:
    (folder / export.split).mkdir()
    with open(folder / export.split / "metadata.jsonl", "w", encoding="utf-8") as lines:
        facts, rounding = _write_pictures(export, folder, lambda line: lines.write(json.dumps(line) + "\n"))
    (folder / "README.md").write_text(_page(export, facts), encoding="utf-8")
    return facts, rounding


def _write_pictures(export: _Export, folder: Path, on_file: Callable[[dict[str, Any]], object]) -> Written:
    """Class folders of PNG files; ``on_file`` is called with the name and label of each."""
    names, classes = folder_names(export.images.classes), export.images.classes
    for label in export.images.labels.unique().tolist():
        (folder / export.split / names[label]).mkdir(parents=True)
    width = max(5, len(str(len(export.images) - 1)))
    total, largest = 0.0, 0.0
    for index, pixels, labels in export.chunks():
        rounded, added = to_uint8(pixels), rounding_error(pixels)
        total, largest = total + float(added.sum()), max(largest, float(added.max()))
        for position, image, label in zip(index.tolist(), rounded.permute(0, 2, 3, 1).numpy(), labels.tolist(), strict=True):
            file = f"{names[label]}/{position:0{width}}.png"
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(folder / export.split / file)
            on_file({"file_name": file, "label": label, "label_name": classes[label]})
    rounding = Rounding(total / len(export.images), largest) if export.dtype != torch.uint8 else None
    lost = rounding and {"norm": "L2", "mean": rounding.mean, "largest": rounding.largest}
    return export.facts(torch.uint8, folders=list(names), rounding=lost), rounding


def _write_npz(export: _Export, folder: Path) -> Written:
    channels, height, width = export.images.shape
    dtype = np.dtype(_short(export.dtype))
    header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (len(export.images), height, width, channels)}
    with zipfile.ZipFile(folder / f"{export.split}.npz", "w") as archive:
        with archive.open("x.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_2_0(file, header)
            for _, pixels, _ in export.chunks():
                file.write(pixels.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
        arrays = {"y": export.images.labels.cpu().numpy(), "classes": np.array(export.images.classes, dtype=np.str_)}
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return export.facts(export.dtype), None


def _write_safetensors(export: _Export, folder: Path) -> Written:
    images = export.images
    with open(folder / f"{export.split}.safetensors", "wb") as file:
        file.write(head(images.labels, images.shape, export.dtype, images.classes, name=images.name, split=export.split))
        for _, chunk, _ in export.chunks():
            file.write(chunk.contiguous().numpy().tobytes())
    return export.facts(export.dtype), None


def _write_released(export: _Export, folder: Path) -> Written:
    """Lists of tensors, as those files hold them: their readers say ``torch.cat(torch.load(...))``."""
    name = released_name(export.images, _safe(export.images.name))
    chunks = [(to_float(pixels), labels) for _, pixels, labels in export.chunks()]
    for ending, tensors in (("ims", [x for x, _ in chunks]), ("lab", [y for _, y in chunks])):
        content = io.BytesIO()  # torch.save itself does not say when a disk is full
        torch.save(tensors, content)
        (folder / f"{name}_{ending}").write_bytes(content.getbuffer())
    return export.facts(torch.float32), None


def _raw_size(export: _Export) -> int:
    channels, height, width = export.images.shape
    return len(export.images) * channels * height * width * export.dtype.itemsize


def _tensor_bytes(export: _Export) -> int:
    return _raw_size(export) + 8 * len(export.images) + 400 * len(export.images.classes) + BLOCK


def _released_bytes(export: _Export) -> int:
    return _raw_size(export) // export.dtype.itemsize * 4 + 8 * len(export.images) + BLOCK


def _picture_bytes(export: _Export) -> int:
    """At most: PNG files of noise, which are a little larger than its pixels, and a line of text for each."""
    pixels = _raw_size(export) // export.dtype.itemsize // len(export.images)
    blocks = (pixels + pixels // 100 + 300) // BLOCK + 1
    return len(export.images) * (blocks * BLOCK + 2 * NAME_BYTES)


LAYOUTS: dict[str, tuple[Callable[[_Export, Path], Written], Callable[[_Export], int]]] = {
    "folder": (_write_folder, _picture_bytes),
    "huggingface": (_write_huggingface, _picture_bytes),
    "npz": (_write_npz, _tensor_bytes),
    "safetensors": (_write_safetensors, _tensor_bytes),
    "released": (_write_released, _released_bytes),
}


# Hugging Face's page


def _page(export: _Export, facts: dict[str, Any]) -> str:
    """A dataset card: the header says where the split's files lie, the text what they are."""
    split = {"val": "validation"}.get(export.split, export.split)
    header = [
        "---",
        f"pretty_name: {yaml_text(export.images.name)}",
        "task_categories:",
        "- image-classification",
        "size_categories:",
        f"- {_size_category(len(export.images))}",
        "configs:",
        "- config_name: default",
        "  data_files:",
        f"  - split: {split}",
        f"    path: {export.split}/**",
        "---",
    ]
    channels, height, width = export.images.shape
    lost = facts["rounding"]
    pixels = (
        f"rounded from {facts['source_dtype']} to 8 bits, which added {lost['mean']:.4g} to an image on average and at most "
        f"{lost['largest']:.4g}, in L2 norm of pixels in [0, 1]"
        if lost
        else "8 bit, as in the source"
    )
    counts = export.images.labels.cpu().bincount(minlength=len(export.images.classes)).tolist()
    text = [
        f"# {markdown_text(export.images.name)}",
        "",
        f"{len(export.images):,} images ({split}) of {width}x{height} pixels and {channels} channel{'s' * (channels > 1)}. "
        f"Pixels: {pixels}.",
        "",
        "| label | label_name | images |",
        "| --- | --- | --- |",
        *(f"| {k} | {markdown_text(name)} | {n} |" for k, (name, n) in enumerate(zip(export.images.classes, counts, strict=True))),
        "",
    ]
    about = ["The card of the set that these images come from:", "", export.about] if export.about else []
    return "\n".join([*header, *text, *about])


def _size_category(n: int) -> str:
    """Hugging Face's word for so many images."""
    bounds = {"1K": 10**3, "10K": 10**4, "100K": 10**5, "1M": 10**6, "10M": 10**7, "100M": 10**8}
    below = "0"
    for name, bound in bounds.items():
        if n < bound:
            return "n<1K" if below == "0" else f"{below}<n<{name}"
        below = name
    return "100M<n<1B"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
