"""What keeps made pictures natural: a price for variation, and networks that look at them shifted and mirrored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.objectives import Objective, PerStep
from robustlab.objectives import at_step as objective_at
from robustlab.seeding import fold, integers, uniform
from robustlab.synthesis.parameters import Parameters

Seen = Callable[[Tensor], Tensor]


def variation(x: Tensor) -> Tensor:
    """Total variation of images ``(B, C, H, W)``, shape ``(B,)``: the mean absolute difference of neighbours, horizontal plus vertical.

    Zero for an even image; 0.12 on average for the training images of CIFAR-10. An image one pixel wide has no horizontal neighbours.
    """
    along = (x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :])
    return sum((d.abs().flatten(1).mean(1) for d in along if d.numel()), x.new_zeros(len(x)))


def viewed(x: Tensor, keys: Tensor, jitter: int, flips: float) -> Tensor:
    """Each image shifted by up to ``jitter`` pixels in both directions, and mirrored with probability ``flips``.

    What comes into sight beyond an edge repeats the edge. Differentiable.

    Args:
        x: images, shape ``(B, C, H, W)``.
        keys: one per image, int64 ``(B,)``; see ``robustlab.seeding``.
        jitter: pixels, >= 0.
        flips: share of the images that are mirrored, from 0 to 1.
    """
    height, width = x.shape[2:]
    down, right = (integers(fold(keys, "jitter", axis), 2 * jitter + 1)[:, None] - jitter for axis in ("y", "x"))
    rows = (torch.arange(height, device=x.device) + down).clamp(0, height - 1)  # (B, H)
    columns = (torch.arange(width, device=x.device) + right).clamp(0, width - 1)
    columns = torch.where(uniform(fold(keys, "flip"), (1,)) < flips, columns.flip(1), columns)
    x = x.gather(2, rows[:, None, :, None].expand_as(x))
    return x.gather(3, columns[:, None, None, :].expand_as(x))


@dataclass(frozen=True, eq=False)
class Naturally:
    """An objective of images as one of parameters, with what keeps the images natural; one for each step, see ``objectives.PerStep``.

    Attributes:
        objective: of what the network sees, ``(B, C, H, W)`` to ``(B,)``.
        parameters: how images are written down.
        keys: one per image, int64 ``(B,)``.
        seen: what the network sees of an image, before it is shifted; all of it where None.
        penalty: added to the objective, of images as they are.
        tv, jitter, flips: see ``budget.Search``.
    """

    objective: Objective | PerStep
    parameters: Parameters
    keys: Tensor
    seen: Seen | None
    penalty: Seen | None
    tv: float
    jitter: int
    flips: float

    def at_step(self, step: int) -> Objective:
        objective = objective_at(self.objective, step)

        def value(z: Tensor) -> Tensor | tuple[Tensor, Tensor]:
            x = self.parameters.decode(z)
            shown = x if self.seen is None else self.seen(x)
            moving = self.jitter > 0 or self.flips > 0
            found = objective(viewed(shown, fold(self.keys, "view", step), self.jitter, self.flips) if moving else shown)
            total, *verdict = found if isinstance(found, tuple) else (found,)
            if self.tv:
                total = total + self.tv * variation(shown)
            if self.penalty:
                total = total + self.penalty(x)
            return (total, *verdict) if verdict else total  # type: ignore[return-value]

        return value
