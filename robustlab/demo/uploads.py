"""Pictures from outside, read with care: few formats, and the size before the pixels."""

from __future__ import annotations

import io
import warnings

from PIL import Image, ImageOps

from robustlab.data.folder import on_white
from robustlab.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MOST_PIXELS = 40_000_000
LONGEST = 20_000  # pixels of a side


def decode_upload(content: bytes, size: int) -> bytes:
    """A picture file as ``size * size`` RGB pixels: its middle square, on white where it is transparent.

    Raises:
        UserError: none of ``FORMATS``, damaged, or more pixels than can be read.
    """
    too_large = UserError(f"the picture is too large: at most {MOST_PIXELS // 10**6} million pixels, {LONGEST} along a side")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow thinks of a file's metadata
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS or max(image.size) > LONGEST:
                    raise too_large
                image.draft("RGB", (2 * size, 2 * size))  # a JPEG can be read at a fraction of its size
                return _square(ImageOps.exif_transpose(image), size).tobytes()
    except Image.DecompressionBombError:
        raise too_large from None
    except UserError:
        raise
    except MemoryError:
        raise UserError("the picture takes more memory than there is") from None
    except Exception as error:  # Pillow's readers raise whatever they stumble over
        raise UserError(f"this is no picture that can be read; known formats: {', '.join(FORMATS)}") from error


def _square(image: Image.Image, size: int) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = image.point(lambda level: level / 256).convert("L")
    image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    if (factor := min(image.size) // (4 * size)) > 1:
        image = image.reduce(factor)  # takes far less memory than what follows
    return ImageOps.fit(on_white(image), (size, size), Image.Resampling.LANCZOS)
