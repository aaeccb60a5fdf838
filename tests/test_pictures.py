"""Laws of pictures: values in [0, 1], grey where nothing happened, every pixel where it belongs."""

from __future__ import annotations

import base64
import io
import re

import pytest
import torch
from laws import drawn, images, small_files
from PIL import Image, ImageFont

from robustlab import pictures
from robustlab.errors import UserError


@pytest.mark.parametrize("channels", [1, 3])
def test_a_perturbation_is_grey_where_nothing_changed_and_spans_the_range(channels):
    delta = drawn(4, channels, 5, 6) * torch.tensor([1e-3, 1.0, 0.0, 5.0]).reshape(4, 1, 1, 1)
    delta[:, :, 0] = 0
    shown = pictures.amplified(delta)
    assert ((shown >= 0) & (shown <= 1)).all() and (shown[:, :, 0] == 0.5).all() and (shown[2] == 0.5).all()
    furthest = (shown - 0.5).abs().flatten(1).amax(1)
    torch.testing.assert_close(furthest, torch.tensor([0.5, 0.5, 0.0, 0.5]).double())
    assert ((shown - 0.5) * delta >= 0).all()


def test_a_gradient_is_shown_on_the_scale_of_its_own_deviation():
    grad = drawn(3, 3, 8, 8)
    grad[2] = 0
    shown = pictures.gradient_picture(grad)
    assert ((shown >= 0) & (shown <= 1)).all() and (shown[2] == 0.5).all()
    torch.testing.assert_close(pictures.gradient_picture(1e-6 * grad), shown)
    inside = grad[0].abs() < 3 * grad[0].std()
    torch.testing.assert_close((shown[0][inside] - 0.5) * 6 * grad[0].std(), grad[0][inside])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 3])
def test_a_sheet_has_a_row_per_batch_and_every_image_in_its_place(channels, scale):
    rows = [images(4, channels, 5, 7, seed=s) for s in range(2)]
    grid = pictures.sheet(rows, scale, pad=2)
    assert grid.shape == (3, 2 * (5 * scale + 2) + 2, 4 * (7 * scale + 2) + 2)
    for r, row in enumerate(rows):
        for c, image in enumerate(row):
            top, left = 2 + r * (5 * scale + 2), 2 + c * (7 * scale + 2)
            cell = grid[:, top : top + 5 * scale : scale, left : left + 7 * scale : scale]
            assert torch.equal(cell, image.expand(3, 5, 7))
    assert (grid[:, :2] == 1).all()


def test_a_sheet_clips_what_does_not_fit():
    grid = pictures.sheet([torch.tensor([-1.0, 2.0]).reshape(2, 1, 1, 1)])
    assert ((grid >= 0) & (grid <= 1)).all()


def test_a_saved_picture_is_read_back_to_the_nearest_of_256_steps(tmp_path):
    picture = images(3, 9, 4)
    pictures.save(tmp_path / "new" / "p.png", picture)
    read = Image.open(tmp_path / "new" / "p.png")
    back = torch.tensor(list(read.tobytes()), dtype=torch.float64).reshape(9, 4, 3).permute(2, 0, 1) / 255
    assert read.format == "PNG" and read.mode == "RGB" and read.size == (4, 9)
    assert (back - picture).abs().max() <= 0.5 / 255 + 1e-7


def test_a_full_disk_leaves_no_half_picture(tmp_path):
    with small_files(500), pytest.raises(UserError, match="cannot write .*p.png: File too large"):
        pictures.save(tmp_path / "p.png", images(3, 64, 64))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("feet", [(), ("0", "1", "2")])
def test_a_titled_sheet_is_the_sheet_with_words_around_it(scale, feet):
    rows = [images(3, 3, 12, 16, seed=s) for s in range(2)]
    shown = pictures.titled([("above", rows[0]), ("below", rows[1])], ["a", "b", "c"], feet, scale)
    grid = pictures.to_image(pictures.sheet(rows, scale, 4))
    top, left = 18, shown.shape[2] - grid.width
    inside = shown[:, top : top + grid.height, left:]
    assert shown.shape[1] == grid.height + 36 and left > 100
    assert pictures.to_image(inside).tobytes() == grid.tobytes()
    assert (shown[:, :top, left:] < 1).any() and (shown[:, :, :left] < 1).any()
    assert bool((shown[:, top + grid.height :] < 1).any()) == bool(feet)
    assert ((shown >= 0) & (shown <= 1)).all()


def test_the_words_of_a_row_or_a_column_stand_beside_it():
    """Blank words leave white; each word darkens its own row's or column's margin only."""
    rows = [images(3, 1, 20, 20, seed=s) for s in range(3)]
    shown = pictures.titled([("", rows[0]), ("row", rows[1]), ("", rows[2])], ["", "col", ""], ["", "", "foot"])
    left = shown.shape[2] - (3 * 24 + 4)
    dark = (shown < 1).any(0)
    assert set((dark[:, : left - 4].any(1).nonzero()[:, 0] - 18 - 4).tolist()) <= set(range(24, 24 + 20))
    assert set((dark[:18].any(0).nonzero()[:, 0] - left - 4).tolist()) <= set(range(24 - 4, 24 + 24))
    assert set((dark[-18:].any(0).nonzero()[:, 0] - left - 4).tolist()) <= set(range(48 - 4, 48 + 24))
    assert dark[:, : left - 4].any() and dark[:18].any() and dark[-18:].any()


def test_words_that_are_too_long_are_cut_to_their_column():
    row = [("", images(2, 3, 30, 30))]
    shown, short = (pictures.titled(row, [word, ""], scale=1) for word in ("a word that is far too long", "a w"))
    right = shown.shape[2] - 34
    assert (shown[:, :18, : right - 34] == 1).all() and (shown[:, :18, right:] == 1).all()
    assert (shown[:, :18] < 1).any() and not torch.equal(shown, short)


def test_the_amplification_is_that_of_the_picture():
    delta = drawn(3, 3, 5, 6)
    delta[2] = 0
    factor = pictures.amplification(delta)
    torch.testing.assert_close(pictures.amplified(delta), 0.5 + delta * factor.reshape(3, 1, 1, 1))
    assert factor[2] == 0.5


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("titles", [("", ""), ("one", "another")])
def test_every_image_has_its_own_words_below_it(channels, titles):
    rows = [pictures.Row(title, images(2, channels, 20, 30, seed=s), ["a", ""]) for s, title in enumerate(titles)]
    shown = pictures.captioned(rows, 2)
    left = shown.shape[2] - 2 * 68 - 4
    assert ((shown >= 0) & (shown <= 1)).all() and bool((shown[:, :, : left - 4] < 1).any()) == any(titles)
    for i, row in enumerate(rows):
        for j, image in enumerate(row.images):
            top, at = 4 + i * 62, left + j * 68 + 4
            cell = shown[:, top : top + 40 : 2, at : at + 60 : 2]
            assert (cell - image).abs().max() <= 0.5 / 255 + 1e-6
            assert bool((shown[:, top + 40 : top + 58, at : at + 60] < 1).any()) == (j == 0), "words below the first only"


def test_words_have_colours():
    row = pictures.Row("", images(2, 3, 30, 30), ["dog", "dog"], [pictures.ALARM, pictures.INK])
    words = pictures.captioned([row])[:, -18 - 4 : -4]
    red = (words[0] - words[2]) > 0.3
    assert red[:, : words.shape[2] // 2].any() and not red[:, words.shape[2] // 2 :].any()


@pytest.mark.parametrize(("width", "scale"), [(1, 96), (32, 3), (33, 3), (95, 2), (96, 1), (300, 1)])
def test_images_are_enlarged_until_words_fit(width, scale):
    assert pictures.fitting_scale(width) == scale


def test_a_picture_travels_within_html():
    text = pictures.as_html(images(3, 4, 5), "<b>bold</b>")
    source = re.search(r'src="data:image/png;base64,([^"]+)"', text)
    assert source and "<b>bold</b>" in text
    assert Image.open(io.BytesIO(base64.b64decode(source[1]))).size == (5, 4)


MARKS = ("Möwe", "chaîne", "čáp", "łoś", "ñandú", "Ångström", "ёж", "δέλτα")


@pytest.mark.parametrize("name", MARKS)
def test_letters_with_accents_are_drawn_and_not_boxes(name):
    """A box stands for every letter that a font lacks, so two names that differ in one such letter would look the same."""
    x = images(1, 3, 8, 8)
    drawn_as = {
        letters: pictures.captioned([pictures.Row("", x, [letters])], 12)
        for letters in (name, *(name.replace(letter, "\N{LATIN SMALL LETTER THORN}") for letter in set(name) if not letter.isascii()))
    }
    shown = list(drawn_as.values())
    assert not any(torch.equal(shown[0], other) for other in shown[1:])
    titled = [pictures.titled([(letters, x)], [letters], [letters], 12) for letters in drawn_as]
    assert not any(torch.equal(titled[0], other) for other in titled[1:])


@pytest.mark.parametrize("name", ["truck", "label: dog\n99 %", "a \N{HORIZONTAL ELLIPSIS}", "\N{PLUS-MINUS SIGN}3\N{DEGREE SIGN}", ""])
def test_plain_words_keep_the_font_that_they_had(name):
    plain = ImageFont.load_default(12)
    assert pictures._font(name).getname() == plain.getname() and pictures._font(name).size == plain.size


def test_a_name_with_accents_is_shortened_to_its_image_too():
    x = images(1, 3, 96, 96)
    assert pictures.captioned([pictures.Row("", x, ["é" * 200])]).shape == pictures.captioned([pictures.Row("", x, ["e"])]).shape


def test_where_matplotlib_brings_no_font_pillows_own_is_taken(monkeypatch):
    monkeypatch.setattr(pictures, "_wide_font", lambda: None)
    assert pictures._font("Möwe").getname() == ImageFont.load_default(12).getname()
