"""Laws of starts: a harmonic fill solves Laplace's equation, an enlargement is smooth, and neither depends on its batch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from laws import images
from torch import Tensor

from robustlab.errors import UserError
from robustlab.synthesis.fills import enlarged, fill

X = images(6, 3, 12, 10, dtype=torch.float64)


def masks() -> Tensor:
    """A square, a frame that touches every edge, single pixels, nothing, everything but one pixel, and scattered ones."""
    mask = torch.zeros(6, 1, 12, 10, dtype=torch.bool)
    mask[0, 0, 3:8, 2:7] = True
    mask[1, 0] = True
    mask[1, 0, 4:6, 4:6] = False
    mask[2, 0, ::3, ::3] = True
    mask[4, 0] = True
    mask[4, 0, 0, 0] = False
    mask[5, 0] = torch.rand(12, 10, generator=torch.Generator().manual_seed(1)) < 0.7
    return mask


MASK = masks()


def test_each_missing_pixel_is_the_mean_of_its_neighbours() -> None:
    found = fill(X, MASK, "harmonic")
    around = F.pad(torch.stack([found, torch.ones_like(found)]), (1, 1, 1, 1))
    total, count = around[..., :-2, 1:-1] + around[..., 2:, 1:-1] + around[..., 1:-1, :-2] + around[..., 1:-1, 2:]
    torch.testing.assert_close(found[MASK.expand_as(X)], (total / count)[MASK.expand_as(X)], rtol=0, atol=1e-7)
    assert torch.equal(found.masked_fill(MASK, 0), X.masked_fill(MASK, 0)), "what is there stays"
    for i in range(len(X)):
        there = X[i].masked_select(~MASK[i]).view(3, -1)
        assert (found[i].flatten(1).amax(1) <= there.amax(1) + 1e-9).all() and (found[i].flatten(1).amin(1) >= there.amin(1) - 1e-9).all()


def test_a_slope_is_filled_exactly_and_one_pixel_with_itself() -> None:
    slope = torch.linspace(0.1, 0.9, 10, dtype=torch.float64).expand(1, 1, 12, 10)
    hole = torch.zeros(1, 1, 12, 10, dtype=torch.bool)
    hole[..., 3:9, 2:7] = True
    torch.testing.assert_close(fill(slope.contiguous(), hole, "harmonic"), slope.contiguous(), rtol=0, atol=1e-9)
    one = fill(X, MASK, "harmonic")[4]
    torch.testing.assert_close(one, X[4, :, :1, :1].expand_as(one), rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["mean", "harmonic"])
def test_what_is_missing_is_not_looked_at_and_others_do_not_matter(how: str) -> None:
    found = fill(X.float(), MASK, how)
    assert torch.equal(found, fill(torch.where(MASK, images(6, 3, 12, 10, seed=3), X.float()), MASK, how))
    order = torch.tensor([4, 0, 5])
    torch.testing.assert_close(fill(X.float()[order], MASK[order], how), found[order], rtol=0, atol=1e-6)
    assert fill(X[:0], MASK[:0], how).shape == (0, 3, 12, 10)
    assert 0 <= found.min() and found.max() <= 1 and found.dtype == torch.float32


@pytest.mark.parametrize("how", ["nearest", "bicubic", "projected"])
def test_enlarged_images_have_the_size_and_are_images(how: str) -> None:
    large = enlarged(X, (25, 31), how)
    assert large.shape == (6, 3, 25, 31) and 0 <= large.min() and large.max() <= 1
    even = torch.full((1, 1, 3, 4), 0.3)
    torch.testing.assert_close(enlarged(even, 9, how), torch.full((1, 1, 9, 9), 0.3))
    torch.testing.assert_close(enlarged(X, (12, 10), how), X)


def test_bicubic_has_no_blocks() -> None:
    slope = torch.linspace(0, 1, 8).expand(1, 1, 8, 8)
    steps = enlarged(slope, 32, "bicubic")[0, 0, 16].diff()
    assert (steps[4:-4] > 0).all()


def test_a_projected_image_averages_back_to_the_small_one_better_than_bicubic_does() -> None:
    small = 0.2 + 0.6 * X[:, :, :8, :8]

    def missed(how: str, size: int) -> float:
        return float((F.adaptive_avg_pool2d(enlarged(small, size, how), 8) - small).abs().mean())

    for size in (20, 32):
        assert missed("projected", size) < 0.05 * missed("bicubic", size)


@pytest.mark.parametrize(
    "act, sentence",
    [
        (lambda: fill(X, MASK, "smooth"), "unknown fill 'smooth'"),
        (lambda: enlarged(X, 20, "bilinear"), "unknown enlargement 'bilinear'"),
        (lambda: enlarged(X, 5, "bicubic"), "size must be at least that of the images, 12x10, got 5x5"),
        (lambda: fill(X, torch.ones_like(MASK), "harmonic"), "all are missing in the image at position 0"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(act, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        act()
