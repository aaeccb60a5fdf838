"""Pictures from outside: what is read, how, and what is not."""

from __future__ import annotations

import io
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import seeded
from PIL import Image

from robustlab.demo import uploads
from robustlab.demo.uploads import animated, decode_upload
from robustlab.errors import UserError


def content(image: Image.Image, format: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def noise(width: int, height: int) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.Random(0).randbytes(3 * width * height))


@pytest.mark.parametrize("format", uploads.FORMATS)
def test_every_format_is_read(format):
    options = {"lossless": True} if format == "WEBP" else {}
    found = decode_upload(content(Image.new("RGB", (40, 40), (200, 40, 40)), format, **options), 8)
    assert len(found) == 3 * 64 and all(abs(a - b) <= 3 for a, b in zip(found, bytes((200, 40, 40)) * 64, strict=True))


def test_a_picture_of_the_right_size_is_taken_as_it_is():
    assert decode_upload(content(noise(16, 16)), 16) == noise(16, 16).tobytes()


def test_the_middle_of_a_wide_picture_is_taken():
    image = Image.new("RGB", (48, 16), "red")
    image.paste("blue", (16, 0, 32, 16))
    found = decode_upload(content(image), 8)
    assert found[3 * 36 :][:3] == bytes((0, 0, 255)) and max(found[0::3]) < 30


def test_transparency_is_white():
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 16, 8))
    assert decode_upload(content(image), 16) == bytes((0, 0, 255)) * 128 + bytes((255, 255, 255)) * 128


@pytest.mark.parametrize(
    "mode, value, shown",
    [("L", 90, 90), ("1", 1, 255), ("I;16", 256 * 90, 90), ("P", 5, None), ("LA", (90, 255), 90), ("CMYK", (0, 0, 0, 0), 255)],
)
def test_other_modes_are_read(mode, value, shown):
    found = decode_upload(content(Image.new(mode, (16, 16), value), "JPEG" if mode == "CMYK" else "PNG"), 16)
    assert len(set(found)) == 1 or shown is None
    assert shown is None or abs(found[0] - shown) <= 1


def test_a_turned_photograph_is_turned_back():
    image = Image.new("RGB", (16, 16), "red")
    image.paste("blue", (0, 0, 16, 8))
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    assert decode_upload(content(image, exif=exif), 16)[:3] == bytes((255, 0, 0))


def test_a_large_photograph_is_read_small():
    found = decode_upload(content(Image.new("RGB", (4000, 3000), (9, 90, 200)), "JPEG"), 32)
    assert all(abs(a - b) <= 3 for a, b in zip(found[:3], (9, 90, 200), strict=True))


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(10_000, 9_000), (100_000, 2), (2**31 - 1, 2**31 - 1), (30_000, 30_000)])
def test_a_picture_that_would_fill_memory_is_refused_by_its_size(size):
    with pytest.raises(UserError, match="too large"):
        decode_upload(png_that_claims(*size), 32)


LARGE = [("RGB", "PNG", 260), ("RGBA", "PNG", 260), ("P", "PNG", 260), ("RGB", "BMP", 260)]
MEASURED = """
import ctypes, io, os, sys
from PIL import Image
from robustlab.demo.uploads import decode_upload

def kb(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))

def measure(mode, format):
    stream = io.BytesIO()
    Image.new(mode, (9000, 4000)).save(stream, format)
    content = stream.getvalue()
    del stream
    ctypes.CDLL(None).malloc_trim(0)
    open("/proc/self/clear_refs", "w").write("5")
    before = kb("VmRSS")
    decode_upload(content, 32)
    print(mode, format, kb("VmHWM") - before, kb("VmRSS") - before, flush=True)

for case in sys.argv[1:]:
    child = os.fork()
    if not child:
        measure(*case.split())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.fixture(scope="module")
def taken() -> dict[tuple[str, str], tuple[float, float]]:
    """MB that reading a large picture of each kind takes and keeps, each in a process of its own that was just forked."""
    cases = [f"{mode} {format}" for mode, format, _ in LARGE]
    told = subprocess.run([sys.executable, "-c", MEASURED, *cases], capture_output=True, text=True, check=True)
    lines = [line.split() for line in told.stdout.splitlines()]
    return {(mode, format): (int(peak) / 1024, int(kept) / 1024) for mode, format, peak, kept in lines}


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is asked of Linux")
@pytest.mark.parametrize("mode, format, most", LARGE)
def test_a_large_picture_takes_bounded_memory_and_gives_it_back(taken, mode, format, most):
    """36 million pixels are 144 MB as Pillow holds them."""
    peak, kept = taken[mode, format]
    assert peak < most and kept < 30, (peak, kept)


def test_a_part_of_a_picture_is_taken_and_lies_inside():
    image = Image.new("RGB", (48, 16), "red")
    image.paste("blue", (32, 0, 48, 16))
    blue = bytes((0, 0, 255)) * 64
    assert decode_upload(content(image), 8, (0.75, 0.1, 0.5)) == blue
    assert decode_upload(content(image), 8, (1.0, 1.0, 0.5)) == blue, "moved inside"
    assert decode_upload(content(image), 8, (0.0, 0.0, 0.5))[:3] == bytes((255, 0, 0))
    large = image.resize((4800, 1600), Image.Resampling.NEAREST)
    assert decode_upload(content(large), 8, (0.75, 0.1, 0.5)) == blue, "also of a picture that is read small"
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    assert decode_upload(content(image, exif=exif), 8, (0.0, 0.0, 1.0)) == blue, "shares are those of the picture as it is seen"
    assert decode_upload(content(large, exif=exif), 8, (0.0, 0.1, 0.5)) == blue


def test_a_film_shows_every_frame_enlarged():
    frames = [noise(16, 16).tobytes(), bytes((0, 0, 255)) * 256, noise(16, 16).transpose(Image.Transpose.ROTATE_90).tobytes()]
    with Image.open(io.BytesIO(animated(b"".join(frames), 16))) as film:
        assert film.format == "GIF" and film.n_frames == 3 and film.size == (256, 256) and film.info["loop"] == 0
        film.seek(1)
        assert film.convert("RGB").getpixel((100, 100))[2] > 240
    for wrong in (b"", b"123", bytes(3 * 256 * 121)):
        with pytest.raises(UserError, match="a film needs 1 to 120 pictures of 768 bytes each"):
            animated(wrong, 16)


def test_a_damaged_picture_is_refused():
    whole = content(noise(64, 64))
    for cut in (10, 60, len(whole) // 2):
        with pytest.raises(UserError, match="no picture"):
            decode_upload(whole[:cut], 32)


@pytest.mark.parametrize(
    "start", [b"", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"BM", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"II*\0"]
)
@seeded
@given(st.binary(max_size=80))
def test_anything_else_is_refused_in_a_sentence(start, rest):
    try:
        assert len(decode_upload(start + rest, 8)) == 192
    except UserError as error:
        assert "\n" not in str(error)
