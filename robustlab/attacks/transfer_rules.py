"""Gradients that carry over to other networks: taken ahead of the point, smoothed, or corrected by those around it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.constraints import ConstraintSet
from robustlab.norms import L1, AttackNorm, per_example
from robustlab.objectives import Objective, value_and_gradient
from robustlab.optimize import StepRule, look
from robustlab.steps import Momentum
from robustlab.subsets import restricted


@dataclass(frozen=True)
class Nesterov:
    """Momentum that takes its gradients ahead of the point, where the last velocity would lead (NI-FGSM, Lin et al. 2020).

    The paper scales each gradient to unit L1 norm, its public code to values of mean size 1, which is larger by the number of values. The
    code is followed: by the paper's letter the way ahead would be so short that nothing changes. So the way is ``step_size * decay`` times
    the velocity that gradients would have if each had the L1 norm of the velocity's own steepest direction: in Linf the code's, in L2
    gradients of about unit length. As in the code the point ahead is not projected.

    Attributes:
        rule: what is done with the gradients.
    """

    rule: Momentum

    def init(self, x: Tensor, steps: int) -> Tensor:
        """The velocity, which is zero at first."""
        return self.rule.init(x, steps)

    def look(self, objective: Objective, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """Value, verdict and gradient at the point ahead, and the velocity as it was."""
        return *value_and_gradient(objective, self.ahead(x, state)), state

    def ahead(self, x: Tensor, velocity: Tensor) -> Tensor:
        """The point that the velocity leads to, shape of ``x``."""
        size = L1().measure(self.rule.norm.steepest(velocity)) * self.rule.decay
        return x - velocity * per_example(self.rule.step_size, x) * per_example(size, x)

    def step(self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: Tensor) -> tuple[Tensor, Tensor]:
        return self.rule.step(x, value, grad, constraint, state)

    def at(self, index: Tensor) -> Nesterov:
        return Nesterov(restricted(self.rule, index))


@dataclass(frozen=True)
class Smoothed:
    """A rule that is handed the gradient smoothed by a Gaussian: near the mean of the gradients at shifted images (TI, Dong et al. 2019).

    Attributes:
        rule: any step rule, for images ``(B, C, H, W)``.
        kernel: width of the kernel in pixels, see ``smooth``.
    """

    rule: StepRule
    kernel: int

    def init(self, x: Tensor, steps: int) -> Any:
        """The rule's own state."""
        return self.rule.init(x, steps)

    def look(self, objective: Objective, x: Tensor, state: Any) -> tuple[Tensor, Tensor | None, Tensor, Any]:
        """What the rule looks at."""
        return look(self.rule, objective, x, state)

    def step(self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: Any) -> tuple[Tensor, Any]:
        return self.rule.step(x, value, smooth(grad, self.kernel), constraint, state)

    def at(self, index: Tensor) -> Smoothed:
        return replace(self, rule=restricted(self.rule, index))


def smooth(images: Tensor, kernel: int) -> Tensor:
    """Each channel convolved with a Gaussian, as if the images were zero beyond their sides.

    Args:
        images: shape ``(B, C, H, W)``.
        kernel: width and height of the kernel in pixels, odd. From the middle of its first pixel to that of its last they are six standard
            deviations, as in the public code of Dong et al. (2019): with 3 hardly anything is smoothed, with 1 nothing.
    """
    places = torch.linspace(-3, 3, kernel, dtype=torch.float64, device=images.device)
    weights = (-places.square() / 2).exp() if kernel > 1 else torch.ones_like(places)
    weights = (weights / weights.sum()).to(images)
    planes = images.flatten(0, 1)[:, None]  # (B C, 1, H, W)
    planes = torch.nn.functional.conv2d(planes, weights.reshape(1, 1, -1, 1), padding=(kernel // 2, 0))
    return torch.nn.functional.conv2d(planes, weights.reshape(1, 1, 1, -1), padding=(0, kernel // 2)).reshape(images.shape)


@dataclass(frozen=True, eq=False)
class Tuned:
    """A rule that is handed the gradient plus the last step's variance (VMI-FGSM and VNI-FGSM, Wang and He 2021).

    The variance is the mean gradient at random neighbours of the point minus the gradient that the step took, which for Nesterov's is that
    ahead of the point, as in the public code. It is zero at first, and not worked out at the last step, since no step uses it then.
    Neighbours are not projected. Their draws belong to an example, a step and the number of the neighbour.

    Attributes:
        rule: any step rule.
        norm: neighbours are drawn uniformly from its ball: in Linf each value by itself, as published.
        radius: of the ball, the paper's ``beta * eps``; in pixel units, a number or one per example ``(B,)``.
        neighbours: how many, the paper's N.
        keys: int64 ``(B,)``.
    """

    rule: StepRule
    norm: AttackNorm
    radius: float | Tensor
    neighbours: int
    keys: Tensor

    def init(self, x: Tensor, steps: int) -> tuple[Any, Tensor, int, int]:
        """The rule's own state, the variance, steps taken and steps in all."""
        return self.rule.init(x, steps), torch.zeros_like(x), 0, steps

    def look(
        self, objective: Objective, x: Tensor, state: tuple[Any, Tensor, int, int]
    ) -> tuple[Tensor, Tensor | None, Tensor, tuple[Any, Tensor, int, int]]:
        """What the rule looks at, its gradient with the variance added, and the next variance in the state."""
        inner, variance, t, steps = state
        value, verdict, grad, inner = look(self.rule, objective, x, inner)
        last = t + 1 == steps
        later = variance if last else self._mean_gradient(objective, x, t) - grad
        return value, verdict, grad + variance, (inner, later, t + 1, steps)

    def _mean_gradient(self, objective: Objective, x: Tensor, t: int) -> Tensor:
        total = torch.zeros_like(x)
        for number in range(self.neighbours):
            noise = self.norm.sample(seeding.fold(self.keys, "neighbour", t, number), x.shape[1:], self.radius)
            total += value_and_gradient(objective, x + noise.to(x))[2]
        return total / self.neighbours

    def step(
        self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: tuple[Any, Tensor, int, int]
    ) -> tuple[Tensor, tuple[Any, Tensor, int, int]]:
        x, inner = self.rule.step(x, value, grad, constraint, state[0])
        return x, (inner, *state[1:])

    def at(self, index: Tensor) -> Tuned:
        return replace(self, rule=restricted(self.rule, index), radius=restricted(self.radius, index), keys=self.keys[index])
