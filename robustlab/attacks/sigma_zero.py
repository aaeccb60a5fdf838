"""sigma-zero (Cinà et al. 2025): few pixels or values changed, by a smooth stand-in for their number and a threshold that adapts."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustlab.attacks.fmn import falling
from robustlab.attacks.nearest import Nearest
from robustlab.constraints import ConstraintSet, Everywhere
from robustlab.errors import UserError
from robustlab.norms import L0, Linf, Norm, expanded
from robustlab.optimize import StepRule
from robustlab.steps import Adam


@dataclass(frozen=True)
class SigmaZero(Nearest):
    """Adam on the margin plus ``sum d²/(d² + sigma) / D``; after each step changes below a threshold are taken back; L0 only.

    The threshold rises while a point fools and falls while it does not. The paper counts values, as ``L0(pixels=False)`` does. ``L0()``
    counts pixels: then ``d`` is the L2 norm of a pixel's change and ``D`` the number of pixels, and a change is as large as its largest
    value. With one channel that is the same.

    Costs an example ``steps`` forward and backward passes and one forward pass.

    Attributes:
        norm: ``L0()`` or ``L0(pixels=False)``.
        steps: gradient steps.
        step_size: of Adam, first; along a cosine it falls to a tenth.
        sigma: how sharply the stand-in counts.
        threshold: the first, the paper's tau.
        threshold_step: by how much it changes, in units of the step size, the paper's t.
        enough: see ``Nearest``.
    """

    norm: Norm = L0()
    steps: int = 1000
    step_size: float = field(default=1.0, kw_only=True)
    sigma: float = field(default=1e-3, kw_only=True)
    threshold: float = field(default=0.3, kw_only=True)
    threshold_step: float = field(default=0.01, kw_only=True)
    norms: ClassVar[tuple[type[Norm], ...]] = (L0,)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0 or not (self.step_size >= 0 and self.sigma > 0 and 0 <= self.threshold <= 1):
            found = f"{self.steps}, {self.step_size}, {self.sigma} and {self.threshold}"
            raise UserError(f"sigma-zero needs steps >= 0, step_size >= 0, sigma > 0 and threshold from 0 to 1, got {found}")

    @property
    def label(self) -> str:
        return f"sigma-zero-{self.steps}"

    def _rule(self, x: Tensor) -> StepRule:
        assert isinstance(self.norm, L0)
        return SigmaZeroStep(x, self.norm, self.step_size, self.sigma, self.threshold, self.threshold_step)


@dataclass(frozen=True, eq=False)
class SigmaZeroStep:
    """The step of sigma-zero. The objective's value tells where a point fools, by being at most 0.

    Attributes:
        image: shape ``(B, ...)``.
        norm: what is counted.
        step_size, sigma, threshold, threshold_step: see ``SigmaZero``.
    """

    image: Tensor
    norm: L0 = L0()
    step_size: float = 1.0
    sigma: float = 1e-3
    threshold: float = 0.3
    threshold_step: float = 0.01

    def init(self, x: Tensor, steps: int) -> tuple[Any, ...]:
        """What Adam remembers, steps taken and steps in all, and the threshold ``(B,)``."""
        return Adam(1.0).init(x, steps), 0, steps, torch.full((len(x),), self.threshold, dtype=x.dtype, device=x.device)

    def step(
        self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: tuple[Any, ...]
    ) -> tuple[Tensor, tuple[Any, ...]]:
        memory, t, steps, threshold = state
        stands, delta = value > 0, x - self.image
        units = self.norm.units(delta)
        count = 2 * units * self.sigma / (units.square().sum(1, keepdim=True) + self.sigma).square() / max(units.shape[2], 1)
        slope = torch.where(expanded(stands, grad), grad, 0) + count.reshape(grad.shape)
        slope = slope / expanded(Linf().measure(slope).clamp_min(1e-12), slope)
        rate = falling(self.step_size, self.step_size / 10, t, steps)
        delta, memory = Adam(rate).step(delta, value, slope, Everywhere(), memory)
        moved = constraint.project(self.image + delta)
        threshold = (threshold + torch.where(stands, -1, 1) * self.threshold_step * rate).clamp(0, 1)
        small = self.norm.units(moved - self.image).abs().amax(1, keepdim=True) < threshold[:, None, None]
        moved = torch.where(small.expand_as(units).reshape(x.shape), self.image, moved)
        return moved, (memory, t + 1, steps, threshold)

    def at(self, index: Tensor) -> SigmaZeroStep:
        return replace(self, image=self.image[index])
