"""Picture files: the one place where the project opens them, in a fixed list of formats and with a limit on their size.

Pillow knows formats that start other programs (PostScript) or reach out of the file, and takes a file's format from its first
bytes, not from its name: hence the list. Everything that Pillow raises on a damaged file becomes one sentence.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps

from robustlab import files
from robustlab.errors import UserError, in_one_line
from robustlab.paths import shown

# Pillow's name for each format, and how names of such files end.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".jif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "AVIF": (".avif",),
    "QOI": (".qoi",),
    "SGI": (".sgi",),
    "PCX": (".pcx",),
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
MOST_PIXELS = 40_000_000
LONGEST = 20_000  # pixels of a side

# What Pillow logs about a damaged file it raises too; without a handler Python would print it beside our sentence.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class Unreadable(UserError):
    """A picture that is damaged, or in none of the formats."""


@contextmanager
def opened(source: str | os.PathLike[str] | bytes, what: str, formats: Sequence[str] = tuple(FORMATS)) -> Iterator[Image.Image]:
    """An open picture that is not too large; whatever is raised over it inside becomes a sentence.

    Args:
        source: a file, or the bytes of one.
        what: what to call it in the sentence: ``"the image a.png"``.
        formats: Pillow's names of the formats that may be read; those that this Pillow lacks are passed over.

    Raises:
        Unreadable: nothing there, damaged, or none of ``formats``.
        UserError: more pixels than can be read, or than memory holds.
    """
    too_large = UserError(f"{what} is too large: at most {MOST_PIXELS // 10**6} million pixels, {LONGEST:,} along a side")
    try:
        Image.init()  # registers all formats, so that a missing one can be told
        with _stream(source) as stream, Image.open(stream, formats=[name for name in formats if name in Image.OPEN]) as image:
            if image.width * image.height > MOST_PIXELS or max(image.size) > LONGEST:
                raise too_large
            yield image
    except UserError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise too_large from None
    except MemoryError:
        raise UserError(f"{what} takes more memory than there is") from None
    except Image.UnidentifiedImageError as error:
        raise Unreadable(f"cannot read {what}: it is damaged, or none of {', '.join(formats)}") from error
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        raise Unreadable(f"cannot read {what}: {in_one_line(error)}") from error


def _stream(source: str | os.PathLike[str] | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else files.open_regular(source)


def decode(path: str, image_size: int | None = None, *, upright: bool = False) -> np.ndarray:
    """One image file as RGB, uint8, shape ``(H, W, 3)``; of several frames the first.

    Args:
        path: the file.
        image_size: shorter side in pixels after resizing, then centre-cropped to a square; None leaves it as it is.
        upright: turn it as its EXIF data say, and put it on white where it is transparent. Sets of images are read without, as
            everywhere in the field.

    Raises:
        UserError: not there, damaged, too large, or of more than 8 bits per channel.
    """
    with opened(path, f"the image {shown(path)}") as image:
        if image.mode[0] in "IF":
            raise UserError(f"the image {shown(path)} has more than 8 bits per channel, convert it to 8 bits first")
        rgb = on_white(ImageOps.exif_transpose(image)) if upright else image.convert("RGB")
        return np.asarray(rgb if image_size is None else _resized(rgb, image_size))


def on_white(image: Image.Image) -> Image.Image:
    """As RGB, with white behind what is transparent."""
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _resized(image: Image.Image, size: int) -> Image.Image:
    """The shorter side scaled to ``size``, then the central square."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    return image.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
