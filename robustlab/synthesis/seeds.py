"""Where a generation starts: an image drawn from a Gaussian fitted to the images of its class (Santurkar et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.data.imageset import Images
from robustlab.errors import UserError
from robustlab.pixels import to_float
from robustlab.seeding import fold, normal, permutation

PUBLISHED_SIDE = 56  # pixels of a seed at 224 (Santurkar et al. 2019): squares of 4


@dataclass(frozen=True, eq=False)
class ClassGaussians:
    """For each class the normal distribution with the mean and covariance of its images, plus ``1e-4`` on the diagonal.

    A covariance of all pixels is never formed: for the ``n`` centred images ``X`` of a class, ``mu + X^T z / sqrt(n) + 0.01 e``
    with standard normal ``z`` and ``e`` has exactly the covariance ``X^T X / n + 1e-4 I``. Memory is that of the images.

    Attributes:
        mean: average of each class, ``(K, D)``.
        centred: for each class its images without the average, ``(n, D)``.
        shape: ``(C, H, W)`` of the images that are drawn.
        grain: side of the squares that have one colour.
        classes: the classes' names.
        noise: deviation of ``0.01 e``, in pixel units.
    """

    mean: Tensor
    centred: tuple[Tensor, ...]
    shape: tuple[int, int, int]
    grain: int
    classes: tuple[str, ...]
    noise: float = 0.01

    @classmethod
    def fit(cls, images: Images, per_class: int | None = None, grain: int = 1, classes: Collection[int] | None = None) -> ClassGaussians:
        """The Gaussians of a set's classes.

        Args:
            images: at least one of each class that will be drawn.
            per_class: use as many images of each class, drawn once and for all; None uses all of them.
            grain: average squares of ``grain`` pixels first, see ``default_grain``; seeds are enlarged again.
            classes: which classes will be drawn; None for all. Those of other classes are not read.
        """
        channels, height, width = images.shape
        if grain < 1 or height % grain or width % grain:
            raise UserError(f"{images.name}: grain must divide the size {height} x {width} of the images, got {grain}")
        if per_class is not None and per_class < 1:
            raise UserError(f"per_class must be at least 1, got {per_class}")
        order = permutation(0, len(images), "seeds")
        labels = images.labels.cpu()[order]
        wanted = range(len(images.classes)) if classes is None else classes
        groups = [
            _coarse(images, order[labels == label][: per_class if label in wanted else 0].sort().values, grain)
            for label in range(len(images.classes))
        ]
        mean = torch.stack([group.mean(0) if len(group) else group.new_zeros(group.shape[1]) for group in groups])
        centred = tuple(group - average for group, average in zip(groups, mean, strict=True))
        return cls(mean, centred, (channels, height, width), grain, images.classes)

    def to(self, device: torch.device | str) -> ClassGaussians:
        """The same where the draws are to be made."""
        return replace(self, mean=self.mean.to(device), centred=tuple(x.to(device) for x in self.centred))

    def sample(self, y: Tensor, keys: Tensor) -> Tensor:
        """One image for each label: float32 ``(B, C, H, W)``, clamped to [0, 1], where the Gaussians are.

        Args:
            y: classes, int64 ``(B,)``.
            keys: one per image, from ``robustlab.seeding``; an image depends on its label and key alone, bit by bit.

        Raises:
            UserError: labels and keys that do not match, a label out of range, a class without images.
        """
        if y.shape != keys.shape or y.ndim != 1:
            raise UserError(f"one key per label is needed, got labels {tuple(y.shape)} and keys {tuple(keys.shape)}")
        channels, height, width = self.shape
        keys = keys.to(self.mean.device)
        # One by one: in a product of matrices rounding would depend on the rest of the batch.
        drawn = [self._draw(label, key[None]) for label, key in zip(y.tolist(), keys, strict=True)]
        flat = torch.stack(drawn) if drawn else self.mean.new_zeros(0, self.mean.shape[1])
        coarse = flat.reshape(-1, channels, height // self.grain, width // self.grain)
        return coarse.clamp(0, 1).repeat_interleave(self.grain, 2).repeat_interleave(self.grain, 3)

    def _draw(self, label: int, key: Tensor) -> Tensor:
        if not 0 <= label < len(self.classes):
            raise UserError(f"label {label} is out of range, {len(self.classes)} classes allow 0 to {len(self.classes) - 1}")
        x = self.centred[label]
        if not len(x):
            raise UserError(f"the class {self.classes[label]!r} had no images to fit a Gaussian to")
        within, around = (normal(fold(key, "class seed", part), (size,))[0] for part, size in (("z", len(x)), ("e", x.shape[1])))
        return self.mean[label] + within @ x / len(x) ** 0.5 + self.noise * around


def default_grain(height: int, width: int) -> int:
    """The side of squares, in pixels, that keeps seeds near the published 56 pixels: 1 at 32 pixels, 4 at 224.

    At 224 pixels a thousand images then take 38 MB instead of 602. It divides both sides of the image, so it is smaller where
    these have no such divisor.
    """
    side = math.gcd(height, width)
    return max(g for g in range(1, side + 1) if side % g == 0 and g <= max(1, round(min(height, width) / PUBLISHED_SIDE)))


def _coarse(images: Images, index: Tensor, grain: int) -> Tensor:
    """The images at ``index``, averaged over squares: ``(n, D)``."""
    parts = [F.avg_pool2d(to_float(images.fetch(some)), grain).flatten(1) for some in index.split(256)]
    return torch.cat(parts)
