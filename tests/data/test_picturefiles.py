"""Picture files: every format that is listed, none that is not, and one sentence for whatever is wrong with a file."""

from __future__ import annotations

import ast
import io
import os
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustlab.data.picturefiles import FORMATS, LONGEST, MOST_PIXELS, SUFFIXES, decode, opened
from robustlab.errors import UserError

Image.init()
WRITTEN = [name for name in FORMATS if name in Image.SAVE and name in Image.OPEN]


def content(format: str, size: tuple[int, int] = (9, 7)) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, format)
    return stream.getvalue()


@pytest.mark.parametrize("format", WRITTEN)
def test_every_listed_format_is_read_under_each_of_its_names(tmp_path, format):
    for suffix in FORMATS[format]:
        for name in (f"a{suffix}", f"B{suffix.upper()}"):
            (tmp_path / name).write_bytes(content(format))
            assert decode(str(tmp_path / name)).shape == (7, 9, 3)
    assert set(FORMATS[format]) <= set(SUFFIXES)


@pytest.mark.parametrize("format", ["EPS", "PDF", "ICO"])
def test_no_other_format_is_read_whatever_a_file_is_called(tmp_path, format):
    (tmp_path / "a.png").write_bytes(content(format, (16, 16)))
    with pytest.raises(UserError, match="cannot read the image .*a.png: it is damaged, or none of JPEG, PNG") as caught:
        decode(str(tmp_path / "a.png"))
    assert "\n" not in str(caught.value)


def test_pillow_s_door_is_used_in_one_place_only():
    """No other module opens pictures, so that none can forget the formats and the limits."""
    package = Path(__file__).parents[2] / "robustlab"
    found = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "open" and ast.unparse(node.value) in ("Image", "PIL.Image")
    ]
    assert found == ["data/picturefiles.py"]


# Damaged files


def mutated(original: bytes, seed: int) -> bytes:
    """Some bytes changed, cut off, doubled or exchanged; most often near the beginning, where the heads are."""
    draw, found = random.Random(seed), bytearray(original)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        place = draw.randrange(min(len(found), draw.choice((16, 64, len(found)))) or 1)
        kind = draw.randrange(5)
        if kind == 0:
            found[place : place + 1] = bytes([draw.randrange(256)])
        elif kind == 1:
            found[place : place + 4] = draw.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x01"))
        elif kind == 2:
            del found[place : place + draw.randrange(1, 9)]
        elif kind == 3:
            found[place:place] = found[place : place + draw.randrange(1, 20)]
        else:
            del found[place + len(found) // 2 :]
    return bytes(found)


@pytest.mark.parametrize("format", WRITTEN)
def test_a_damaged_file_is_read_or_refused_in_one_sentence_that_names_it(tmp_path, format):
    path, original, refused = tmp_path / f"a{FORMATS[format][0]}", content(format), 0
    for seed in range(120):
        path.write_bytes(mutated(original, seed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow thinks of a file's metadata
            try:
                pixels = decode(str(path), upright=seed % 2 == 0)
                assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
            except UserError as error:
                refused += 1
                assert str(path) in str(error) and "\n" not in str(error) and str(error).isprintable()
    assert refused


@pytest.mark.parametrize(
    "raised", [SyntaxError, ValueError, struct.error, OverflowError, KeyError, zlib.error, EOFError, RuntimeError, TypeError]
)
def test_whatever_pillow_raises_is_a_sentence(tmp_path, monkeypatch, raised):
    (tmp_path / "a.png").write_bytes(content("PNG"))

    def broken(self, *args, **options):
        raise raised("two\nlines")

    monkeypatch.setattr(Image.Image, "convert", broken)
    with pytest.raises(UserError, match=r"cannot read the image .*a\.png: .*two") as caught:
        decode(str(tmp_path / "a.png"))
    assert "\n" not in str(caught.value)


def png_that_claims(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(MOST_PIXELS // 1000 + 1, 1000), (LONGEST + 1, 1), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_a_picture_that_would_fill_memory_is_refused_by_its_size(tmp_path, size):
    (tmp_path / "a.png").write_bytes(png_that_claims(*size))
    with pytest.raises(UserError, match=r"the image .*a\.png is too large: at most 40 million pixels, 20,000 along a side"):
        decode(str(tmp_path / "a.png"))


def test_what_is_no_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png", "gone.png", "a\0b.png", "x" * 300 + ".png", "/dev/zero"):
        with pytest.raises(UserError, match="cannot read the image") as caught:
            decode(str(tmp_path / name))
        assert str(caught.value).isprintable()


def test_bytes_are_read_as_files_are():
    with opened(content("PNG"), "the picture") as image:
        assert image.size == (9, 7)
