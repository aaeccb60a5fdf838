"""Images in other sizes and scales: what a gradient is averaged over, so that it carries over to other networks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.norms import expanded
from robustlab.objectives import Objective, mean_of, through
from robustlab.subsets import restricted


def over_scales(objective: Objective, scales: int) -> Objective:
    """The mean of an objective over the images divided by 1, 2, 4, ... (SI, Lin et al. 2020).

    As in the public code the gradient is that of the mean with respect to the images, so that copies count less the darker they are. The
    code divides values from -1 to 1, which makes images grey; here values from 0 to 1 are divided, which makes them dark.

    Args:
        objective: of images with values in [0, 1].
        scales: how many, the paper's m; with one it is the objective itself.
    """
    return mean_of((objective, *(through(objective, _Scale(0.5**i)) for i in range(1, scales))))


@dataclass(frozen=True)
class _Scale:
    factor: float

    def __call__(self, x: Tensor) -> Tensor:
        return x * self.factor

    def at(self, index: Tensor) -> _Scale:
        return self


@dataclass(frozen=True, eq=False)
class Diverse:
    """An objective of images that are, at each step anew, made smaller at random and padded with zeros (DI, Xie et al. 2019).

    A draw belongs to an example and a step: all that is asked of the objective in one step sees the same sizes. Public code draws one size
    for the whole batch, and another one for each gradient. The paper makes images larger, for networks that take any size; here they keep
    their size, as in torchattacks.

    Attributes:
        objective: of images ``(B, C, H, W)``.
        keys: int64 ``(B,)``.
        probability: of an example to be changed at a step, the paper's p.
        resize_rate: height and width are at least this share of the image's, rounded down, and at least a pixel smaller than it.
    """

    objective: Objective
    keys: Tensor
    probability: float
    resize_rate: float = 0.9

    def at_step(self, step: int) -> Objective:
        """The objective with the draws of this step."""
        draws = seeding.uniform(seeding.fold(self.keys, "diversity", step), (4,), torch.float64)
        return through(self.objective, Resized(draws, self.probability, self.resize_rate))

    def at(self, index: Tensor) -> Diverse:
        return replace(self, objective=restricted(self.objective, index), keys=self.keys[index])


@dataclass(frozen=True, eq=False)
class Resized:
    """Images made smaller by bilinear interpolation, at a random place between zeros. Their shape stays.

    Attributes:
        draws: uniform in [0, 1), float64 ``(B, 4)``: whether, how small, how far down and how far to the right.
        probability: of an example to be changed; others stay exactly as they are.
        resize_rate: see ``Diverse``.
    """

    draws: Tensor
    probability: float
    resize_rate: float = 0.9

    def __call__(self, x: Tensor) -> Tensor:
        rows, columns = (self._placed(n, self.draws[:, 2 + i]).to(x)[:, None] for i, n in enumerate(x.shape[2:]))
        return torch.where(expanded(self.draws[:, 0] < self.probability, x), rows @ x @ columns.mT, x)

    def size(self, n: int) -> Tensor:
        """How long a side of n pixels becomes, int64 ``(B,)``."""
        least = max(int(self.resize_rate * n), 1)
        return least + (self.draws[:, 1] * max(n - least, 1)).long()

    def _placed(self, n: int, where: Tensor) -> Tensor:
        """The matrices ``(B, n, n)`` that interpolate a side; rows beyond the smaller image are zero."""
        size, places = self.size(n), torch.arange(n, device=where.device)
        inside = places - (where * (n - size + 1)).long()[:, None]
        source = ((inside.double() + 0.5) * n / size[:, None] - 0.5).clamp(0, n - 1)
        weights = (1 - (source[:, :, None] - places).abs()).clamp_min(0)
        return weights * ((inside >= 0) & (inside < size[:, None]))[:, :, None]

    def at(self, index: Tensor) -> Resized:
        return replace(self, draws=self.draws[index])
