"""Decoded images of a folder, kept in a file so that the folder opens at once the next time.

One safetensors file holds the pixels; its metadata hold a key made of the names, sizes and times of the image files and of
the size they are brought to, and the SHA-256 of the pixels. A file whose key or hash is another is as good as none.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import PIL
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from robustlab import files
from robustlab.errors import UserError

FORMAT = "robustlab-decoded-1"
HIDDEN = ".robustlab"  # listings of classes pass over it
WORTH_KEEPING = 8 << 20  # bytes of pixels; fewer are decoded in about a second


def place(folder: Path, image_size: int | None, cache: str | os.PathLike[str] | None = None) -> Path:
    """The file for the decoded images of a folder of class folders.

    Args:
        folder: holds the class folders.
        image_size: what the images are brought to, in pixels; None for their own size.
        cache: the folder for the file; None is the hidden folder ``.robustlab`` beside ``folder``.
    """
    folder = Path(os.path.abspath(folder))
    size = "" if image_size is None else f"-{image_size}"
    if cache is None:
        return folder.parent / HIDDEN / f"{folder.name}{size}.safetensors"
    which = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]
    return Path(cache).expanduser() / f"{folder.name}-{which}{size}.safetensors"


def key(folder: Path, paths: Sequence[str], image_size: int | None) -> str:
    """What decoding some files depends on, as a hash; the same after their folder was moved, or copied with its times.

    Args:
        folder: holds the class folders; of a path only what follows it counts.
        paths: of all the files, in order.
        image_size: what the images are brought to.
    """
    found = hashlib.sha256(f"{FORMAT} {PIL.__version__} {image_size}".encode())
    prefix = os.path.join(folder, "")
    for path in paths:
        name = os.fsencode(path.removeprefix(prefix))
        try:
            about = os.stat(path)
            found.update(b"%s %d %d\0" % (name, about.st_size, about.st_mtime_ns))
        except OSError:  # a link to nowhere, say: decoding will tell of it
            found.update(b"%s missing\0" % name)
    return found.hexdigest()


def read(place: Path, key: str) -> Tensor | None:
    """The pixels kept there under that key, uint8 ``(N, C, H, W)``; None where there are none, or where they are damaged."""
    try:
        with safe_open(place, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT or about.get("key") != key:
                return None
            pixels = file.get_tensor("x")
    except (OSError, SafetensorError):
        return None
    return pixels if about.get("sha256") == _digest(pixels) else None


def write(place: Path, key: str, pixels: Tensor) -> None:
    """Keep the pixels; where the place cannot be written, nothing happens."""
    about = {"format": FORMAT, "key": key, "sha256": _digest(pixels)}
    with suppress(UserError, SafetensorError), files.atomic_write(place) as temporary:
        save_file({"x": pixels}, temporary, metadata=about)
        temporary.chmod(0o644)  # safetensors makes files that nobody else can read


def _digest(pixels: Tensor) -> str:
    return hashlib.sha256(pixels.contiguous().numpy().data).hexdigest()
