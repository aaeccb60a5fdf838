"""Laws of pictures: values in [0, 1], grey where nothing happened, every pixel where it belongs."""

from __future__ import annotations

import pytest
import torch
from laws import drawn, images, small_files
from PIL import Image

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
