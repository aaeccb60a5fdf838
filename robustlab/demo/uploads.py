"""Pictures from outside, read with care: few formats, the size before the pixels, and memory that is given back; films of runs."""

from __future__ import annotations

import contextlib
import ctypes
import io
import sys
import warnings

from PIL import Image, ImageOps

from robustlab.data.picturefiles import Unreadable, on_white, opened
from robustlab.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MOST_OF_WEBP = 16_000_000  # pixels; its reader takes four times the memory of others
STRIP = 2_000_000  # pixels that are converted at a time
MOST_FRAMES = 120  # of a film
WIDE = 256  # pixels, of a film at least
FRAME_MS = 60


def decode_upload(content: bytes, size: int, part: tuple[float, float, float] | None = None) -> bytes:
    """A picture file as ``size * size`` RGB pixels: a square of it, on white where it is transparent.

    Args:
        content: the file.
        size: height and width of the result.
        part: which square: its left and top as shares of the picture's width and height, and its side as a share of the shorter one,
            moved and cut as far as it must be to lie inside. The middle one where None.

    Raises:
        UserError: none of ``FORMATS``, damaged, or more pixels than can be read.
    """
    try:
        return _decoded(content, size, part)
    finally:
        _give_back_memory()


def _decoded(content: bytes, size: int, part: tuple[float, float, float] | None) -> bytes:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow thinks of a file's metadata
            with opened(content, "the picture", FORMATS) as image:
                if image.format == "WEBP" and image.width * image.height > MOST_OF_WEBP:
                    raise UserError(f"the picture is too large: at most {MOST_OF_WEBP // 10**6} million pixels of WEBP")
                share = 1.0 if part is None else part[2]
                image.draft("RGB", (round(2 * size / share), round(2 * size / share)))  # a JPEG can be read at a fraction of its size
                return _square(image, size, part).tobytes()
    except Unreadable as error:
        raise UserError(f"this is no picture that can be read; known formats: {', '.join(FORMATS)}") from error


def _square(image: Image.Image, size: int, part: tuple[float, float, float] | None) -> Image.Image:
    share = 1.0 if part is None else part[2]
    factor = int(min(image.size) * share) // (4 * size)
    # First a small picture, a strip at a time: what follows makes several copies. Turned only then, so that ``part`` still fits.
    image = ImageOps.exif_transpose(_reduced(image, factor) if factor > 1 else _converted(image))
    if part is not None:
        side = min(max(round(part[2] * min(image.size)), 1), *image.size)
        left, top = min(part[0] * image.width, image.width - side), min(part[1] * image.height, image.height - side)
        # Cut out first: within a box, the filter would also read pixels beside it.
        cut = on_white(image).crop((round(left), round(top), round(left + side), round(top + side)))
        return cut.resize((size, size), Image.Resampling.LANCZOS)
    return ImageOps.fit(on_white(image), (size, size), Image.Resampling.LANCZOS)


def _reduced(image: Image.Image, factor: int) -> Image.Image:
    """The picture with each square of ``factor`` pixels averaged."""
    rows = max(1, STRIP // image.width // factor) * factor
    strips = [
        _converted(image.crop((0, top, image.width, min(top + rows, image.height)))).reduce(factor) for top in range(0, image.height, rows)
    ]
    whole = Image.new(strips[0].mode, (strips[0].width, sum(strip.height for strip in strips)))
    top = 0
    for strip in strips:
        whole.paste(strip, (0, top))
        top += strip.height
    whole.info = dict(image.info)
    exif = image.getexif()
    if exif:
        whole.info["exif"] = exif.tobytes()
    return whole


def _converted(image: Image.Image) -> Image.Image:
    """The picture in 8-bit colours, with its transparency where it has some."""
    if image.mode.startswith("I;16"):
        image = image.point(lambda level: level / 256).convert("L")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _give_back_memory() -> None:
    """Let the system have the memory of a large picture again, which the C library keeps otherwise."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def animated(content: bytes, size: int) -> bytes:
    """Pictures one after the other, as a GIF that goes on for ever, enlarged in whole pixels.

    Args:
        content: RGB pixels of one picture after the other, ``3 * size * size`` bytes each.
        size: their height and width.

    Raises:
        UserError: no whole number of pictures from 1 to ``MOST_FRAMES``.
    """
    each = 3 * size * size
    if not content or len(content) % each or len(content) > MOST_FRAMES * each:
        raise UserError(f"a film needs 1 to {MOST_FRAMES} pictures of {each} bytes each, got {len(content)} bytes")
    scale = max(1, -(-WIDE // size))
    frames = [Image.frombytes("RGB", (size, size), content[at : at + each]) for at in range(0, len(content), each)]
    large = [frame.quantize(256).resize((size * scale, size * scale), Image.Resampling.NEAREST) for frame in frames]
    stream = io.BytesIO()
    pauses = [FRAME_MS] * (len(large) - 1) + [1000]  # it rests on the last
    large[0].save(stream, "GIF", save_all=True, append_images=large[1:], duration=pauses, loop=0)
    return stream.getvalue()
