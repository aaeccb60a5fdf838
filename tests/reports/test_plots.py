"""Grids of shares as PNG files: every cell has its colour, and one where nothing was measured is grey."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from robustlab.commands.plots import save_heatmap
from robustlab.experiments.table import Heatmap


def drawn(path: Path, values: tuple[tuple[float | None, ...], ...], neutral: float = 0.1) -> Image.Image:
    """The picture of a grid, which must be a PNG file."""
    columns, rows = tuple("abcdefghij"[: len(values[0])]), tuple("xyz"[: len(values)])
    save_heatmap(path, Heatmap("Title", "eps", "source", columns, rows, values, neutral))
    with Image.open(path) as image:
        assert image.format == "PNG"
        return image.convert("RGB")


def colours(image: Image.Image) -> set[tuple[int, ...]]:
    """The colours of whole areas, letters and edges left out."""
    return {colour for count, colour in image.getcolors(1 << 20) if count > 1000}


def test_above_the_neutral_share_is_blue_and_below_it_orange(tmp_path: Path) -> None:
    (above,) = colours(drawn(tmp_path / "a.png", ((0.9,),))) - {(255, 255, 255)}
    (below,) = colours(drawn(tmp_path / "b.png", ((0.01,),))) - {(255, 255, 255)}
    assert above[2] > above[0] and below[0] > below[2]


def test_the_neutral_share_is_white_and_nothing_measured_is_grey(tmp_path: Path) -> None:
    assert colours(drawn(tmp_path / "a.png", ((0.1,),))) == {(255, 255, 255)}
    assert colours(drawn(tmp_path / "b.png", ((None,),))) == {(255, 255, 255), (243, 244, 246)}


@pytest.mark.parametrize("neutral", [0.1, 0.5])
def test_every_share_from_none_to_all_can_be_drawn(tmp_path: Path, neutral: float) -> None:
    assert len(colours(drawn(tmp_path / "a.png", ((0.0, neutral, 1.0), (None, 0.05, 0.6)), neutral))) == 6


def test_a_larger_grid_is_a_larger_picture(tmp_path: Path) -> None:
    small, large = drawn(tmp_path / "a.png", ((0.2,),)), drawn(tmp_path / "b.png", ((0.2,) * 9,) * 3)
    assert large.width > small.width and large.height > small.height


def test_rows_that_do_not_fit_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        save_heatmap(tmp_path / "a.png", Heatmap("T", "x", "y", ("a",), ("r", "s"), ((0.5,),), 0.1))
    assert not list(tmp_path.iterdir())
