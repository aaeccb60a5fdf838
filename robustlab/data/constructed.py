"""Constructed sets read back: a folder of shards, in float or 8-bit pixels, verified by hash before anything is used.

    settings.json      what was asked
    manifest.json      written last: classes, shapes, the shards with their hashes, and what is known of the set as a whole
    shards/NNNNN.safetensors   x, y and the facts of each image

``robustlab.construction`` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from robustlab import files
from robustlab.checks import check_set_labels
from robustlab.data.classes import check_names
from robustlab.data.imageset import Images, ImageSet, described, described_html, mean_std, readable_name, relabelled
from robustlab.data.tensors import WORDS
from robustlab.errors import UserError
from robustlab.progress import Progress

FORMAT = "robustlab-constructed-1"
DTYPES = {"uint8": torch.uint8, "float16": torch.float16, "float32": torch.float32}
MANIFEST = "manifest.json"
OnImages = Callable[[int, int], object]  # images done, images in all


def is_constructed(path: Path) -> bool:
    """Whether a folder is a constructed set, or one that is not finished."""
    return (path / MANIFEST).is_file() or ((path / "settings.json").is_file() and (path / "shards").is_dir())


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a finished set.

    Raises:
        UserError: the set is not finished, or the file is not a manifest.
    """
    if not (path / MANIFEST).is_file():
        raise UserError(f"the constructed set in {path} is not finished: run the same `robustlab construct` again, and it goes on")
    manifest = files.read_json(path / MANIFEST, "the manifest of a constructed set")
    if manifest.get("format") != FORMAT:
        raise UserError(f"{path / MANIFEST} is not the manifest of a constructed set (it has no format {FORMAT!r})")
    lacking = [name for name in KNOWN if name not in manifest]
    if lacking:
        raise UserError(f"{path / MANIFEST} lacks {', '.join(lacking)}: run the set's `robustlab construct` again to mend it")
    for name, (fits, wanted) in KNOWN.items():
        if not fits(manifest[name]):
            raise UserError(f"{path / MANIFEST}: {name} must be {wanted}, got {manifest[name]!a:.60}")
    if sum(shard["n"] for shard in manifest["shards"]) != manifest["n"]:
        raise UserError(f"{path / MANIFEST} says that there are {manifest['n']} images, and its shards hold another number")
    check_names(str(path / MANIFEST), manifest["classes"])
    return manifest


def _is_count(value: object, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 1 << 48


def _is_shard(value: object) -> bool:
    """Whether it has the name of a file within the folder, and that file's hash."""
    if not isinstance(value, dict) or not _is_count(value.get("n")) or not isinstance(value.get("sha256"), str):
        return False
    file = value.get("file")
    return isinstance(file, str) and file == Path(file).name and file not in ("", "..") and "\0" not in file and "\\" not in file


# What a manifest must hold: how to know it, and in words.
KNOWN: dict[str, tuple[Callable[[Any], bool], str]] = {
    "n": (_is_count, "the number of images"),
    "shape": (lambda value: isinstance(value, list) and len(value) == 3 and all(_is_count(v, 1) for v in value), "(C, H, W)"),
    "classes": (lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value), "a list of names"),
    "dtype": (lambda value: isinstance(value, str) and value in DTYPES, f"one of {', '.join(DTYPES)}"),
    "shards": (lambda value: isinstance(value, list) and all(map(_is_shard, value)), "a list of files with n and sha256"),
}


def damaged(path: Path, manifest: dict[str, Any], progress: OnImages | None = None) -> list[str]:
    """The shards that are missing, or whose bytes are not those that were written.

    Args:
        path: the set's folder.
        manifest: see ``read_manifest``.
        progress: called after each shard with the images read, and those in all.
    """
    found, done = [], 0
    for shard in manifest["shards"]:
        file = path / "shards" / shard["file"]
        if not file.is_file() or files.sha256(file) != shard["sha256"]:
            found.append(shard["file"])
        done += shard["n"]
        if progress:
            progress(done, manifest["n"])
    return found


def facts(path: Path) -> dict[str, Tensor]:
    """What is known of each image of a finished set: tensors ``(N,)`` by name, among them ``index`` and ``label`` in the source data."""
    shards = [shard["file"] for shard in read_manifest(path)["shards"]]
    return facts_of([path / "shards" / file for file in shards])


def facts_of(shards: Sequence[Path]) -> dict[str, Tensor]:
    """The facts in some shards, one after another, ``y`` among them."""
    columns: dict[str, list[Tensor]] = {}
    for path in shards:
        with _opened(path) as shard:
            for name in shard.keys():  # noqa: SIM118, not a dict
                if name != "x":
                    columns.setdefault(name, []).append(shard.get_tensor(name))
    return {name: torch.cat(parts) for name, parts in columns.items()}


def open_constructed(path: Path, *, memory_limit: int = 4 << 30, progress: bool = True, verify: bool = True) -> Images:
    """A finished set, in memory or, where its pixels take more than ``memory_limit`` bytes, read from its shards on demand.

    Args:
        path: the set's folder.
        memory_limit: bytes of pixels.
        progress: show how far checking the shards is.
        verify: compare the shards' hashes with the manifest's; False where that was done a moment ago.

    Raises:
        UserError: not finished, or a shard's hash is not the one in the manifest.
    """
    manifest = read_manifest(path)
    wrong: list[str] = []
    if verify:
        with Progress("checking shards", manifest["n"], "img", shown=progress) as shown:
            wrong = damaged(path, manifest, shown.at)
    if wrong:
        which = ", ".join(wrong[:3])
        raise UserError(f"the constructed set in {path} is damaged ({which}): run its `robustlab construct` again to mend it")
    labels = _labels(path, manifest)
    ends = torch.tensor([shard["n"] for shard in manifest["shards"]]).cumsum(0)
    stream = ShardStream(
        tuple(str(path / "shards" / shard["file"]) for shard in manifest["shards"]),
        ends,
        torch.arange(len(labels)),
        labels,
        tuple(manifest["classes"]),
        readable_name(path.resolve().name),
        tuple(manifest["shape"]),
        DTYPES[manifest["dtype"]],
    )
    channels, height, width = stream.shape
    size = len(stream) * channels * height * width * stream.dtype.itemsize
    if size > memory_limit:
        return stream
    return ImageSet(stream.fetch(torch.arange(len(stream))), labels, stream.classes, stream.name)


def _labels(path: Path, manifest: dict[str, Any]) -> Tensor:
    """The labels of all images, once the shards hold what the manifest says."""
    for shard in manifest["shards"]:
        file, wanted = path / "shards" / shard["file"], f"{WORDS[DTYPES[manifest['dtype']]]} {(shard['n'], *manifest['shape'])}"
        with files.reading(file, "a shard"), safe_open(file, framework="pt") as opened:
            pixels = opened.get_slice("x") if "x" in opened.keys() else None  # noqa: SIM118, not a dict
            found = "none" if pixels is None else f"{pixels.get_dtype()} {tuple(pixels.get_shape())}"
            if found != wanted or "y" not in opened.keys():  # noqa: SIM118
                raise UserError(f"the shard {file} should hold labels y and images x, {wanted}, found {found}")
    labels = facts(path).get("y", torch.zeros(0, dtype=torch.int64))
    check_set_labels(path.name, labels, manifest["n"], len(manifest["classes"]))
    return labels


@dataclass(frozen=True, eq=False, repr=False)
class ShardStream:
    """Images that are read from memory-mapped shards whenever they are fetched; it travels to DataLoader workers."""

    shards: tuple[str, ...]
    ends: Tensor  # images in the shards up to and with each
    index: Tensor  # which of those images these are
    labels: Tensor
    classes: tuple[str, ...]
    name: str
    shape: tuple[int, int, int]
    dtype: torch.dtype

    __repr__ = described
    _repr_html_ = described_html

    def __len__(self) -> int:
        return len(self.index)

    @property
    def positions(self) -> Tensor:
        """The places in the whole set."""
        return self.index

    def fetch(self, index: Tensor) -> Tensor:
        positions = self.index[index.cpu()]
        pixels = torch.empty(len(positions), *self.shape, dtype=self.dtype)
        shard = torch.searchsorted(self.ends, positions, right=True)
        for s in shard.unique().tolist():
            first = int(self.ends[s - 1]) if s else 0
            here = (shard == s).nonzero()[:, 0]
            pixels[here] = self._mapped[s][positions[here] - first]
        return pixels

    @cached_property
    def _mapped(self) -> list[Tensor]:
        """The pixels of all shards, mapped into memory: the system reads what is looked at."""
        return [_map(Path(path)) for path in self.shards]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_mapped"}

    def subset(self, index: Tensor) -> ShardStream:
        index = index.cpu()
        return replace(self, index=self.index[index], labels=self.labels[index])

    def only_classes(self, names: Sequence[str]) -> ShardStream:
        index, labels = relabelled(self, names)
        return replace(self.subset(index), labels=labels, classes=tuple(names))

    def mean_std(self) -> tuple[Tensor, Tensor]:
        return mean_std(self, chunk=64)


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read the shard {path}: {error}") from error


def _map(path: Path) -> Tensor:
    with _opened(path) as shard:
        return shard.get_tensor("x")
