"""Pictures with attributes, laid out as CelebA is (Liu et al., 2015) by torchvision or, as CSV, on Kaggle.

    PATH/img_align_celeba/*.jpg      or img_align_celeba/img_align_celeba/*.jpg
    PATH/list_attr_celeba.txt        the number of pictures; the attributes' names; for each picture its file's name and 1 or -1 each
    PATH/list_attr_celeba.csv        the same as a table whose first row is ``image_id`` and the names
    PATH/list_eval_partition.txt     or .csv: for each picture 0 (train), 1 (val) or 2 (test)

PATH may also be the folder in which ``celeba/`` lies. A set of one's own in this form is read as well.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from robustlab import files
from robustlab.data.folder import FolderStream, kept_or_read
from robustlab.data.imageset import Images, hold_out, readable_name, spread
from robustlab.data.picturefiles import decode
from robustlab.errors import UserError
from robustlab.paths import shown

PICTURES = "img_align_celeba"
ATTRIBUTES, PARTITION = "list_attr_celeba", "list_eval_partition"  # .txt or .csv
ENDINGS = (".txt", ".csv")
INNER = "celeba"  # torchvision's folder within the one that is named
TRAIN = 0  # in the partition
OTHERS = {"train": (2, 1), "val": (1, 2), "test": (2, 1)}  # what is not for training; val and test stand in for each other
CLASS = "picture"  # the one class: what is known are attributes
SHOWN_PART = 0.1  # of pictures without a partition: not learned from
LEARNED_FROM = 4000  # pictures, at most
MEMORY = 256 << 20  # bytes of pixels to learn from; more are read on demand
MOST = 1000  # attributes
LONGEST = 60  # characters of an attribute's name


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class AttributeStream(FolderStream):
    """Pictures of which attributes are known, decoded whenever they are fetched; all of one class.

    Attributes:
        attributes: their names.
        facts: which picture has which attribute, bool, shape ``(N, A)``.
        training: the pictures to learn from; None where these are such themselves.
    """

    attributes: tuple[str, ...]
    facts: Tensor
    training: AttributeStream | None = None

    def subset(self, index: Tensor) -> Self:
        return replace(super().subset(index), facts=self.facts[index.cpu()])

    def resized(self, size: int) -> AttributeStream:
        """The same pictures with the shorter side scaled to ``size`` pixels and the middle square cut out."""
        training = None if self.training is None else self.training.resized(size)
        return replace(self, image_size=size, shape=(3, size, size), training=training)

    def to_learn_from(self, most: int = LEARNED_FROM, *, progress: bool = True) -> tuple[Images, dict[str, Tensor]]:
        """Up to ``most`` training pictures, spread over all, and by name which of them have an attribute, bool ``(N,)``.

        They are decoded into memory, and kept in a file for the next time, unless they take more than ``MEMORY``.
        """
        stream = self.training or self
        some = stream.subset(spread(len(stream), most))
        facts = {name: some.facts[:, k] for k, name in enumerate(self.attributes)}
        return kept_or_read(some, some, Path(self.root), "pictures to learn from", memory_limit=MEMORY, progress=progress), facts


def is_celeba(path: Path) -> bool:
    """Whether a list of attributes lies at a path."""
    return _listed(path, ATTRIBUTES) is not None or _listed(path / INNER, ATTRIBUTES) is not None


def open_celeba(path: Path, split: str, *, image_size: int | None = None) -> AttributeStream:
    """The pictures of a split, with those to learn from.

    Without a partition, and where all pictures are of one part, a fixed tenth of them is the test split, the rest is for training.

    Args:
        path: the folder.
        split: ``train``, ``test`` or ``val``.
        image_size: shorter side in pixels after resizing, then centre-cropped to a square; None leaves them as they are.

    Raises:
        UserError: a list or a picture is missing; a line that is damaged: names the file and the line.
    """
    root = path if _listed(path, ATTRIBUTES) else path / INNER
    listed = _listed(root, ATTRIBUTES)
    if listed is None:
        raise UserError(f"{shown(path)} holds no {ATTRIBUTES}.txt or {ATTRIBUTES}.csv")
    names, lines, attributes, facts = _read_attributes(listed)
    folder = _folder_of(root, names, lines, listed)
    paths = tuple(os.path.join(folder, name) for name in names)
    height, width, channels = decode(paths[0], image_size).shape
    everything = AttributeStream(
        paths,
        torch.zeros(len(names), dtype=torch.int64),
        (CLASS,),
        readable_name(root.resolve().name),
        (channels, height, width),
        image_size,
        os.fspath(folder),
        attributes=attributes,
        facts=facts,
    )
    train, rest = _divided(everything, names, _listed(root, PARTITION), split)
    training = everything.subset(train)
    return training if split == "train" else replace(everything.subset(rest), training=training)


def _listed(folder: Path, name: str) -> Path | None:
    return next((file for ending in ENDINGS if (file := folder / f"{name}{ending}").is_file()), None)


def _folder_of(root: Path, names: Sequence[str], lines: Sequence[int], listed: Path) -> Path:
    """The folder that holds all the pictures."""
    folder = root / PICTURES
    folder = folder / PICTURES if (folder / PICTURES).is_dir() else folder
    try:
        there = set(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{shown(root)} has a list of attributes and no folder {PICTURES} of pictures: {error.strerror}") from error
    for name, line in zip(names, lines, strict=True):
        if name not in there:
            raise UserError(f"{shown(listed)}, line {line}: there is no picture {shown(name, LONGEST)} in {shown(folder)}")
    return folder


def _divided(images: FolderStream, names: Sequence[str], partition: Path | None, split: str) -> tuple[Tensor, Tensor]:
    """Places of the pictures to learn from, and of those of a split that is not for training."""
    if partition is not None:
        parts = torch.tensor(_read_partition(partition, names))
        train = (parts == TRAIN).nonzero()[:, 0]
        others = [(parts == number).nonzero()[:, 0] for number in OTHERS[split]]
        rest = next((places for places in others if len(places)), None)
        if rest is not None and len(train):
            return train, rest
    return hold_out(images, max(1, round(SHOWN_PART * len(names))), seed=0)


# The lists: rows of words, each with its line in the file, from 1.

Rows = Iterator[tuple[int, list[str]]]


def _rows(path: Path, what: str) -> Rows:
    """What a list says, line by line; blank lines are passed over."""
    lines = files.read_text(path, what).split("\n")  # not at the other ends of lines that Unicode has, so that the numbers are an editor's
    if path.suffix == ".csv":
        reader = csv.reader(lines)
        with files.reading(path, what):
            for row in reader:
                if row:
                    yield reader.line_num, [cell.strip() for cell in row]
        return
    for number, line in enumerate(lines, 1):
        row = line.split()
        if row:
            yield number, row


def _read_attributes(path: Path) -> tuple[list[str], list[int], tuple[str, ...], Tensor]:
    """Files' names, the line of each, the attributes' names, and facts, bool ``(N, A)``."""
    rows = _rows(path, "a list of attributes")
    count = _count(path, next(rows, None)) if path.suffix == ".txt" else None
    line, head = next(rows, (1, []))
    attributes = _attribute_names(path, line, head if count is not None else head[1:])
    names, lines, facts = _table(path, rows, len(attributes), {"1": 1, "-1": 0}, "1 or -1")
    if count is not None and count != len(names):
        raise UserError(f"{shown(path)}, line 1 says that there are {count:,} pictures, but {len(names):,} follow")
    if len(names) < 2:
        raise UserError(f"{shown(path)} lists one picture, and at least two are needed to tell an attribute")
    return names, lines, attributes, torch.frombuffer(facts, dtype=torch.bool).view(len(names), len(attributes))


def _count(path: Path, row: tuple[int, list[str]] | None) -> int:
    line, words = row or (1, [])
    text = " ".join(words)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UserError(f"{shown(path)}, line {line}: the number of pictures should stand here, got '{shown(text, LONGEST)}'")
    return int(text)


def _attribute_names(path: Path, line: int, words: Sequence[str]) -> tuple[str, ...]:
    """Names to show: spaces for underscores, escapes for what cannot be printed."""
    where = f"{shown(path)}, line {line}"
    found = tuple(shown(" ".join(word.replace("_", " ").split()), LONGEST) for word in words)
    if not 1 <= len(found) <= MOST:
        raise UserError(f"{where}: the names of 1 to {MOST:,} attributes should stand here, got {len(found):,}")
    if set(found) <= {"1", "-1"} or not all(found):
        raise UserError(f"{where}: the names of the attributes should stand here, got '{shown(' '.join(words), LONGEST)}'")
    double = next((name for k, name in enumerate(found) if name in found[:k]), None)
    if double is not None:
        raise UserError(f"{where}: two attributes are called '{double}'")
    return found


def _table(path: Path, rows: Rows, width: int, values: dict[str, int], allowed: str) -> tuple[list[str], list[int], bytearray]:
    """Files' names, the line of each, and their values, ``width`` bytes for each file."""
    lines: dict[str, int] = {}
    found = bytearray()
    value_of = values.__getitem__
    for line, (name, *words) in rows:
        try:
            row = bytes(map(value_of, words))
        except KeyError as error:
            raise UserError(f"{shown(path)}, line {line}: the values must be {allowed}, got '{shown(error.args[0], LONGEST)}'") from None
        if len(row) != width:
            raise UserError(f"{shown(path)}, line {line}: a picture's name and {width} values should stand here, got {len(row)} values")
        if name in lines:
            raise UserError(f"{shown(path)}, line {line}: the picture {shown(name, LONGEST)} stands in line {lines[name]} already")
        lines[name] = line
        found += row
    if not lines:
        raise UserError(f"{shown(path)} lists no pictures")
    return list(lines), list(lines.values()), found


def _read_partition(path: Path, names: Iterable[str]) -> list[int]:
    """The part of each picture; the list may name others too."""
    rows = _rows(path, "a list of parts")
    if path.suffix == ".csv":
        next(rows, None)
    found, _, parts = _table(path, rows, 1, {"0": 0, "1": 1, "2": 2}, "0, 1 or 2")
    part = dict(zip(found, parts, strict=True))
    for name in names:
        if name not in part:
            raise UserError(f"{shown(path)} does not say which part the picture {shown(name, LONGEST)} is of")
    return [part[name] for name in names]
