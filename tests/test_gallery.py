"""The gallery: its commands are those that make its sheets, and every sheet is there."""

from __future__ import annotations

import importlib.util
import re

import documents
import pytest
import torch
from PIL import Image

from robustlab import pictures

PAGE = documents.ROOT / "docs" / "gallery.md"
LARGEST = 400_000  # bytes of a sheet


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("make_gallery", documents.ROOT / "docs" / "make_gallery.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_shows_the_commands_that_make_its_sheets(gallery):
    shown = [line for line in documents.commands(PAGE) if line[:2] == ["robustlab", "synthesize"] and "--grid" in line]
    assert shown == [gallery.command(name, "PATH") for name in gallery.SHEETS]


def test_every_sheet_is_on_the_page_and_small(gallery):
    wanted = [f"gallery-{gallery.published(name)}.png" for name in gallery.SHEETS]
    assert re.findall(r"\(images/(gallery-[^)]*)\)", PAGE.read_text(encoding="utf-8")) == wanted
    assert all((gallery.IMAGES / name).stat().st_size < LARGEST for name in wanted)


def test_a_comparison_has_the_first_pictures_of_each_model_in_order(gallery, tmp_path):
    made = torch.arange(30).reshape(30, 1, 1, 1).expand(-1, 3, 8, 8) / 255
    for task, model, first in (("inpaint-before", gallery.SMALL, 0), ("inpaint", gallery.SMALL, 10), ("inpaint", gallery.MEDIUM, 20)):
        for i in range(9):
            pictures.save(tmp_path / task / "pictures" / f"inpainted-{model}-{i:04}.png", made[first + i])
    levels = gallery.picked(tmp_path / "inpaint", "inpaint", gallery.MEDIUM)[:, 0, 0, 0] * 255
    assert levels.round().tolist() == list(range(20, 20 + gallery.SHOWN))
    gallery.compare("inpaint", tmp_path)
    sheet = Image.open(tmp_path / "inpaint-before-after.png")
    assert {level for _, (level, *_) in sheet.getcolors(2000)} >= {*range(7), *range(10, 17), *range(20, 27)}
