"""What lies where in an image folder: its parts, their class folders and their files, before any of them is decoded.

    ROOT/train/CLASS/*.jpg        beside test/, val/, valid/ or validation/, in any case of letters
    ROOT/CLASS/*.jpg              class folders without parts; one of them may be called ``train``
    ROOT/val/images/*.jpg         with ROOT/val/val_annotations.txt, as tiny-imagenet has it

Pictures may lie in further folders within a class folder, as for torchvision's ``ImageFolder``, and come in its order. What lies
there and is not read is counted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from robustlab.data.classes import composed, folder_classes
from robustlab.data.picturefiles import SUFFIXES
from robustlab.errors import UserError, in_one_line
from robustlab.paths import shown

PARTS = {"train": ("train",), "test": ("test", "val"), "val": ("val", "test")}  # where a split lies: the first that is there
SPELLED = {"train": ("train",), "test": ("test",), "val": ("val", "valid", "validation")}
TREE = "ROOT/train/CLASS/*.jpg with ROOT/test/CLASS/*.jpg (or val/) beside it, or ROOT/CLASS/*.jpg"
ANNOTATIONS = "val_annotations.txt"  # lines of a file's name, a tab and its class
SYSTEM = ("__MACOSX", "__pycache__")
# What usually lies beside pictures and is none: no word about it.
NOTES = (".txt", ".md", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".html", ".pdf", ".ini", ".db", ".log", ".lock", ".py")
NAMED = 3  # files that are left out and named


@dataclass
class Found:
    """The files of one split.

    Attributes:
        root: the folder that was named.
        folder: the part in which the split lies; ``root`` itself where there are no parts.
        classes: their names, by number.
        paths: of the pictures.
        labels: the class of each.
        left_out: files that were not read, within ``root``.
        notes: what else is worth a sentence.
    """

    root: Path
    folder: Path
    classes: tuple[str, ...] = ()
    paths: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def sentences(self) -> list[str]:
        """What to tell the user."""
        if not self.left_out:
            return self.notes
        names = ", ".join(shown(name, 100) for name in self.left_out[:NAMED]) + (", ..." if len(self.left_out) > NAMED else "")
        s = "" if len(self.left_out) == 1 else "s"
        return [
            *self.notes,
            f"{shown(self.folder)}: {len(self.left_out):,} file{s} left out, not in a class or of no known format: {names}",
        ]


def find(root: Path, split: str) -> Found:
    """The files of a split, and what was left out.

    Args:
        root: the folder.
        split: ``train``, ``test`` or ``val``; the last two stand in for each other where one is missing.

    Raises:
        UserError: no such tree, an empty class folder, class folders that differ between parts or only in how their names are written.
    """
    notes: list[str] = []
    folder = split_folder(root, split, notes)
    found = Found(root, folder, notes=notes)
    if (folder / ANNOTATIONS).is_file():
        _annotated(found)
        return found
    names = class_names(folder)
    found.classes = folder_classes(shown(folder), names)
    if folder != root:
        for other in _parts(root).values():
            if other != folder and _is_labelled(root, other):
                _same_classes(folder, found.classes, other)
    elif len(names) == 1:
        _check_no_wrapping(root / names[0])
    for label, name in enumerate(names):
        before = len(found.paths)
        for path, is_picture in _files(os.path.join(folder, name)):
            if is_picture:
                found.paths.append(path)
                found.labels.append(label)
            else:
                found.left_out.append(os.path.relpath(path, folder))
        if len(found.paths) == before:
            raise UserError(f"the class folder {shown(folder / name)} holds no images ({', '.join(SUFFIXES)})")
    found.left_out += [name for name in _entries(folder)[1] if name.lower().endswith(SUFFIXES) and not name.startswith(".")]
    return found


def split_folder(root: Path, split: str, notes: list[str] | None = None) -> Path:
    """The folder that holds a split's class folders; ``root`` itself where it has no parts.

    Args:
        root: the folder.
        split: ``train``, ``test`` or ``val``.
        notes: takes sentences about what was passed over.

    Raises:
        UserError: no such folder, or other parts only.
    """
    if not root.is_dir():
        raise UserError(f"there is no folder {shown(root)}; expected {TREE}")
    parts = _parts(root)
    others = [name for name in _folders(root) if root / name not in parts.values()]
    if not parts or (others and not any(_folders(part) for part in _trained_on(parts)) and any(map(_holds_pictures, _paths(root, others)))):
        return root
    passed: list[Path] = []
    for name in PARTS[split]:
        if name in parts and _is_labelled(root, parts[name]):
            if notes is not None:
                _note(notes, root, parts, others, passed, parts[name])
            return parts[name]
        passed += [parts[name]] if name in parts else []
    if passed:
        raise UserError(f"{shown(passed[0])} holds no class folders; expected {TREE}")
    raise UserError(f"{shown(root)} has no {' or '.join(f'{name}/' for name in PARTS[split])} folder; expected {TREE}")


def _trained_on(parts: dict[str, Path]) -> list[Path]:
    """The training part; where there is none the others, which may hold all there is."""
    return [parts["train"]] if "train" in parts else list(parts.values())


def _note(notes: list[str], root: Path, parts: dict[str, Path], others: list[str], passed: list[Path], chosen: Path) -> None:
    for part in passed:
        notes.append(f"{shown(part)} has no class folders of the training images, so {shown(chosen)} is read in its place")
    alike = [name for name in _folders(root) if name.casefold() in sum(SPELLED.values(), ()) and root / name not in parts.values()]
    beside = [name for name in others if _holds_pictures(os.path.join(root, name), directly=True) or name in alike]
    if beside:
        names = ", ".join(shown(name, 100) for name in beside[:NAMED]) + (", ..." if len(beside) > NAMED else "")
        notes.append(f"{shown(root)} is read as a folder of parts, from {shown(chosen.name)}; left out beside it: {names}")


def class_names(folder: Path) -> tuple[str, ...]:
    """Sorted names of the class folders in ``folder``, hidden ones left out.

    Raises:
        UserError: there are none, or names that are not UTF-8 or hold control characters, or two that differ only in their form.
    """
    names = _folders(folder)
    if not names:
        raise UserError(f"{shown(folder)} holds no class folders; expected {TREE}")
    folder_classes(shown(folder), names)
    return tuple(names)


def split_file(folder: Path, split: str, ending: str) -> Path | None:
    """The file of a split in a folder with ``train.npz`` and ``test.npz``, say; None where there is none."""
    names = _entries(folder)[1]
    for part in PARTS[split]:
        for spelled in SPELLED[part]:
            for name in sorted(names, reverse=True):  # small letters first
                if name.casefold() == f"{spelled}.{ending}":
                    return folder / name
    return None


# What is there


def _entries(folder: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Sorted names of the folders and of the other files in a folder."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError as error:
        raise UserError(f"cannot read the folder {shown(folder)}: {in_one_line(error)}") from error
    return [name for name, is_dir in found if is_dir], [name for name, is_dir in found if not is_dir]


def _folders(folder: Path) -> list[str]:
    """Sorted names of the folders in a folder, without hidden ones."""
    return [name for name in _entries(folder)[0] if not name.startswith((".", "__"))]


def _paths(root: Path, names: list[str]) -> list[str]:
    return [os.path.join(root, name) for name in names]


def _parts(root: Path) -> dict[str, Path]:
    """The folders that are parts by their names; of several for one part the usual spelling."""
    names, found = _folders(root), {}
    for part, spelled in SPELLED.items():
        fitting = [name for word in spelled for name in sorted(names, reverse=True) if name.casefold() == word]
        if fitting:
            found[part] = root / fitting[0]
    return found


def _is_labelled(root: Path, part: Path) -> bool:
    """Whether a part says which class its pictures are of: a test set without labels lies flat, or in one folder that is no class."""
    if (part / ANNOTATIONS).is_file():
        return True
    names, train = _folders(part), _parts(root).get("train")
    known = set() if train is None or train == part else set(map(composed, _folders(train)))
    return bool(names) and not (len(names) == 1 and known and composed(names[0]) not in known)


def _files(folder: str) -> Iterator[tuple[str, bool]]:
    """Paths of the files in a folder and in those within, in ``ImageFolder``'s order, and whether each is a picture by its name."""
    found: list[tuple[str, list[str]]] = []
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    while waiting:
        here, above = waiting.pop()
        status = os.stat(here)
        own = (status.st_dev, status.st_ino)
        if own in above:  # a link to a folder that it lies in
            continue
        folders, names = _entries(here)
        found.append((here, names))
        waiting += [(os.path.join(here, name), above | {own}) for name in folders if not name.startswith(".") and name not in SYSTEM]
    for here, names in sorted(found):
        for name in names:
            lower = name.lower()
            if lower.endswith(SUFFIXES) and not name.startswith("."):
                yield os.path.join(here, name), True
            elif not name.startswith(".") and not lower.endswith(NOTES):
                yield os.path.join(here, name), False


def _holds_pictures(folder: str, directly: bool = False) -> bool:
    if directly:
        return any(name.lower().endswith(SUFFIXES) for name in _entries(folder)[1])
    return any(is_picture for _, is_picture in _files(folder))


def _same_classes(folder: Path, classes: tuple[str, ...], other: Path) -> None:
    if (other / ANNOTATIONS).is_file():
        return
    odd = sorted(set(classes) ^ set(map(composed, class_names(other))))
    if odd:
        raise UserError(f"{shown(folder)} and {shown(other)} must hold the same class folders, but only one of them has {odd[0]!r}")


def _check_no_wrapping(only: Path) -> None:
    """Refuse a folder that holds nothing but the folder with the data: its parts or classes would be read as one class."""
    inner = _folders(only)
    if not _holds_pictures(os.fspath(only), directly=True) and (len(inner) > 1 or _parts(only)):
        raise UserError(f"{shown(only.parent)} holds a single folder, {shown(only.name)}, with folders in it: name {shown(only)} instead")


def _annotated(found: Found) -> None:
    """Pictures in one folder, with their classes in a file beside it."""
    path, train = found.folder / ANNOTATIONS, _parts(found.root).get("train")
    try:
        lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{shown(path)} cannot be read as lines of a file's name and its class: {in_one_line(error)}") from error
    if not lines or any(len(line) < 2 for line in lines):
        raise UserError(f"{shown(path)} should hold lines of a file's name, a tab and its class")
    if found.folder == found.root or train is None:
        found.classes = folder_classes(shown(path), sorted({composed(line[1]) for line in lines}))
    else:
        found.classes = tuple(map(composed, class_names(train)))
    number = {name: label for label, name in enumerate(found.classes)}
    known = {}
    for name, label, *_ in lines:
        if composed(label) not in number:
            raise UserError(f"{shown(path)}: {shown(name)} is of the class {label!r}, which the training images do not have")
        known[name] = number[composed(label)]
    pictures = [(known.get(os.path.basename(one)), one) for one, is_picture in _files(os.fspath(found.folder)) if is_picture]
    found.left_out += [os.path.relpath(one, found.folder) for label, one in pictures if label is None]
    chosen = sorted((label, one) for label, one in pictures if label is not None)
    missing = len(known) - len({os.path.basename(one) for _, one in chosen})
    if missing:
        raise UserError(f"{shown(path)} names {missing:,} pictures that are not in {shown(found.folder)}")
    found.labels, found.paths = [label for label, _ in chosen], [one for _, one in chosen]
