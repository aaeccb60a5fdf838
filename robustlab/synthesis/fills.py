"""Where pictures with something missing begin: a hole filled, a small image enlarged."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.checks import check_images
from robustlab.errors import UserError, unknown

ROUNDS = 10  # of back-projection, after which hardly anything is missing
TOLERANCE = 1e-9  # of the harmonic fill, relative to the first residual


def fill(x: Tensor, mask: Tensor, how: str = "mean") -> Tensor:
    """Images with their missing pixels filled in.

    Args:
        x: images in [0, 1], shape ``(B, C, H, W)``; what lies inside the mask is not looked at.
        mask: bool, shape ``(B, 1, H, W)``, true where a pixel is missing.
        how: ``mean``, with the mean of its channel over the pixels that are there; or ``harmonic``: each missing pixel is the mean of
            its neighbours, as a soap film hangs in the hole, which solves Laplace's equation.

    Raises:
        UserError: no images, another mask, or one that leaves no pixel of an image.
    """
    if how not in FILLS:
        raise unknown("fill", how, FILLS)
    x = checked(x)
    check_mask(mask, x)
    there = (~mask).sum((2, 3), keepdim=True)  # (B, 1, 1, 1)
    if (there == 0).any():
        empty = (there.flatten() == 0).nonzero().flatten().tolist()
        raise UserError(f"the mask must leave some pixels to continue from, but all are missing in the image at position {empty[0]}")
    mean = x.masked_fill(mask, 0).sum((2, 3), keepdim=True) / there
    flat = torch.where(mask, mean.clamp(0, 1), x)
    return FILLS[how](flat, mask)


def _harmonic(x: Tensor, mask: Tensor) -> Tensor:
    """The solution of Laplace's equation under the mask, by conjugate gradients in float64, from ``x``; nothing passes an image's edge.

    The equations are those of a symmetric positive matrix, as every hole touches a pixel that is there. An image whose residual is
    small enough stands still, so that its solution does not depend on the others.
    """
    u, inside = x.double(), mask.expand_as(x)
    degree = _neighbours(torch.ones_like(u))

    def applied(v: Tensor) -> Tensor:
        return torch.where(inside, degree * v - _neighbours(v), 0)

    residual = -applied(u)  # the right side comes from the pixels that are there, as values of ``u``
    direction, size = residual, _square(residual)
    enough = TOLERANCE**2 * size
    for _ in range(int(mask.flatten(1).sum(1).max()) if len(x) else 0):  # in as many steps at most, but for rounding
        if (size <= enough).all():
            break
        along = applied(direction)
        step = torch.where(size > enough, size / _square(direction, along), 0)
        u, residual = u + step * direction, residual - step * along
        before, size = size, torch.where(size > enough, _square(residual), size)
        direction = residual + torch.where(before > 0, size / before, 0) * direction
    return torch.where(mask, u.to(x.dtype).clamp(0, 1), x)


def _neighbours(v: Tensor) -> Tensor:
    """The sum of each pixel's upper, lower, left and right neighbour, as far as they are in the image."""
    v = F.pad(v, (1, 1, 1, 1))
    return v[..., :-2, 1:-1] + v[..., 2:, 1:-1] + v[..., 1:-1, :-2] + v[..., 1:-1, 2:]


def _square(a: Tensor, b: Tensor | None = None) -> Tensor:
    """The inner product of each channel, ``(B, C, 1, 1)``."""
    return (a * (a if b is None else b)).sum((2, 3), keepdim=True)


def enlarged(small: Tensor, size: int | tuple[int, int], how: str = "nearest") -> Tensor:
    """Images ``(B, C, h, w)`` at height and width ``size``, one number for a square.

    Args:
        small: images in [0, 1].
        size: at least that of ``small``.
        how: ``nearest``: each pixel is that of the nearest one of ``small``; ``bicubic``: smoothly; ``projected``: so, and then
            corrected until it averages back to the small image, nearly (iterative back-projection, Irani and Peleg 1991).

    Raises:
        UserError: no images, a smaller size, or no such way.
    """
    if how not in ENLARGEMENTS:
        raise unknown("enlargement", how, ENLARGEMENTS)
    small = checked(small)
    height, width = (size, size) if isinstance(size, int) else size
    if height < small.shape[2] or width < small.shape[3]:
        raise UserError(f"the size must be at least that of the images, {small.shape[2]}x{small.shape[3]}, got {height}x{width}")
    return ENLARGEMENTS[how](small, (height, width))


def bicubic(small: Tensor, size: tuple[int, int]) -> Tensor:
    """Images ``(B, C, h, w)`` enlarged by bicubic interpolation, clipped to [0, 1]."""
    return F.interpolate(small, size=size, mode="bicubic").clamp(0, 1)


def projected(small: Tensor, size: tuple[int, int]) -> Tensor:
    """``bicubic``, with what the average of the large image misses of the small one added again, enlarged as well."""
    large = bicubic(small, size)
    for _ in range(ROUNDS):
        missing = small - F.adaptive_avg_pool2d(large, (small.shape[2], small.shape[3]))
        large = (large + F.interpolate(missing, size=size, mode="bicubic")).clamp(0, 1)
    return large


def checked(x: Tensor) -> Tensor:
    """Images ``(B, C, H, W)`` in [0, 1], without a graph.

    Raises:
        UserError: they are none.
    """
    check_images(x)
    if x.ndim != 4:
        raise UserError(f"images must have shape (B, C, H, W), got {tuple(x.shape)}")
    return x.detach()


def check_mask(mask: Tensor, x: Tensor) -> None:
    """Refuse a mask that does not say of each pixel of images ``(B, C, H, W)`` whether it is meant.

    Raises:
        UserError: another type or shape.
    """
    wanted = (len(x), 1, *x.shape[2:])
    if mask.dtype != torch.bool or mask.shape != wanted:
        raise UserError(f"the mask must be bool of shape {wanted}, got {mask.dtype} of shape {tuple(mask.shape)}")


FILLS = {"mean": lambda x, mask: x, "harmonic": _harmonic}
ENLARGEMENTS = {
    "nearest": lambda small, size: F.interpolate(small, size=size, mode="nearest-exact"),
    "bicubic": bicubic,
    "projected": projected,
}
