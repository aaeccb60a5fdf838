"""Pictures from outside, read with care: few formats, and the size before the pixels."""

from __future__ import annotations

import warnings

from PIL import Image, ImageOps

from robustlab.data.picturefiles import Unreadable, on_white, opened
from robustlab.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


def decode_upload(content: bytes, size: int) -> bytes:
    """A picture file as ``size * size`` RGB pixels: its middle square, on white where it is transparent.

    Raises:
        UserError: none of ``FORMATS``, damaged, or more pixels than can be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow thinks of a file's metadata
            with opened(content, "the picture", FORMATS) as image:
                image.draft("RGB", (2 * size, 2 * size))  # a JPEG can be read at a fraction of its size
                return _square(ImageOps.exif_transpose(image), size).tobytes()
    except Unreadable as error:
        raise UserError(f"this is no picture that can be read; known formats: {', '.join(FORMATS)}") from error


def _square(image: Image.Image, size: int) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = image.point(lambda level: level / 256).convert("L")
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if (factor := min(image.size) // (4 * size)) > 1:
        image = image.reduce(factor)  # takes far less memory than what follows
    return ImageOps.fit(on_white(image), (size, size), Image.Resampling.LANCZOS)
