"""Plain arrays in an ``.npz`` file, read with care: what an array's head declares is compared with the file before anything is made of
it, and pickled objects are never loaded."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Self

import numpy as np

from robustlab import files
from robustlab.data.limits import check_expansion
from robustlab.errors import UserError
from robustlab.paths import shown

ENDING = ".npy"


class Archive:
    """The arrays of an open file, by name; each is read when it is asked for.

    Attributes:
        names: of its arrays, sorted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        with files.reading(self.path, "an .npz file of plain arrays"):
            self.stream = files.open_regular(self.path)
            try:
                self.zip = zipfile.ZipFile(self.stream)
            except BaseException:
                self.stream.close()
                raise
        members = [info.filename for info in self.zip.infolist() if info.filename.endswith(ENDING)]
        self.names = sorted(name.removesuffix(ENDING) for name in members)
        return self

    def __exit__(self, *error: object) -> None:
        self.zip.close()
        self.stream.close()

    def called(self, names: Sequence[str]) -> str | None:
        """How the archive spells the first of these names that it has."""
        return next((own for name in names for own in self.names if own.casefold() == name), None)

    def first(self, names: Sequence[str]) -> np.ndarray:
        """The array of one of these names, whatever their case.

        Raises:
            UserError: there is none, or it cannot be read.
        """
        own = self.called(names)
        if own is None:
            wanted = " or ".join(map(repr, names[:3]))
            raise UserError(f"{self.path} has no array {wanted}; it has {', '.join(map(shown, self.names)) or 'none'}")
        return self.read(own)

    def read(self, name: str) -> np.ndarray:
        """An array, once its head agrees with its size.

        Raises:
            UserError: it is damaged, far larger than the file, or holds objects.
        """
        with files.reading(self.path, "an .npz file of plain arrays"):
            info = self.zip.getinfo(f"{name}{ENDING}")
            check_expansion(self.path, f"the array {name!r}", info.file_size, min(info.compress_size, self.path.stat().st_size))
            with self.zip.open(info) as member:
                shape, dtype = _head(member)
                size, body = math.prod(shape) * dtype.itemsize, info.file_size - member.tell()
            if dtype.hasobject:
                raise UserError(f"cannot read {self.path} as an .npz file of plain arrays: {name!r} holds pickled objects")
            if size != body:
                raise UserError(f"{self.path}: the array {name!r} says that it has {size:,} bytes, {dtype} {shape}, and has {body:,}")
            with self.zip.open(info) as member:
                return np.lib.format.read_array(member, allow_pickle=False)


def _head(member: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of an array, as its file declares them."""
    version = np.lib.format.read_magic(member)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array of version {version[0]}.{version[1]}")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    return shape, dtype
