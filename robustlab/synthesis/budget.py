"""How far a synthesis may go and in which steps, with the settings that were published for each task."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustlab.checks import check_images
from robustlab.constraints import PIXELS, ConstraintSet, ThreatModel
from robustlab.errors import UserError, unknown
from robustlab.norms import L2, AttackNorm
from robustlab.objectives import Objective
from robustlab.optimize import OnStep, Solution, minimize
from robustlab.steps import Steepest, attack_directions
from robustlab.synthesis.parameters import Parameters, Pixels


@dataclass(frozen=True)
class Search:
    """Projected steepest descent with steps of one length, as in every task of Santurkar et al. (2019).

    Attributes:
        eps: radius around the centre, in pixel units of a [0, 1] image; None leaves only the pixel box.
        step_size: length of a step, in the same units.
        steps: number of steps.
        norm: of radius and steps.
    """

    eps: float | None
    step_size: float
    steps: int
    norm: AttackNorm = L2()

    def __post_init__(self) -> None:
        if self.eps is not None:
            ThreatModel(self.norm, self.eps)  # refuses a radius without meaning
        if self.steps < 0 or not (math.isfinite(self.step_size) and self.step_size >= 0):
            raise UserError(f"a search needs steps >= 0 and a finite step_size >= 0, got {self.steps} and {self.step_size}")

    def __call__(
        self,
        objective: Objective,
        x0: Tensor,
        *,
        center: Tensor | None = None,
        on_step: OnStep | None = None,
        keep_best: bool = True,
        parameters: Parameters | None = None,
    ) -> Solution:
        """Minimize ``objective`` over images from ``x0``; without steps, or where the gradient is zero, ``x0`` comes back.

        Args:
            objective: from images ``(B, C, H, W)`` to ``(B,)``, lower is better.
            x0: images in [0, 1], shape ``(B, C, H, W)``; brought into the ball first where they lie outside.
            center: of the ball, images like ``x0``; None is ``x0``.
            on_step: called with (step, images, value), see ``optimize.minimize``.
            keep_best: return the best image met rather than the last.
            parameters: what the steps move, None for pixels; others have no ball, and ``step_size`` is then in their units.

        Raises:
            UserError: images that are not in [0, 1] or not of one shape; a radius with parameters that have none.
        """
        check_images(x0)
        parameters = parameters or Pixels()
        found = minimize(
            lambda z: objective(parameters.decode(z)),
            parameters.encode(x0),
            self._set(x0 if center is None else center, x0, parameters),
            Steepest(attack_directions(self.norm), self.step_size),
            steps=self.steps,
            keep_best=keep_best,
            on_step=on_step and (lambda t, z, value: on_step(t, parameters.decode(z), value)),
        )
        return replace(found, x=parameters.decode(found.x))

    def _set(self, center: Tensor, x0: Tensor, parameters: Parameters) -> ConstraintSet:
        if center.shape != x0.shape:
            raise UserError(f"the centre must have the start's shape {tuple(x0.shape)}, got {tuple(center.shape)}")
        if parameters.constraint is not None:
            if self.eps is not None:
                raise UserError(f"{type(parameters).__name__} parameters know no radius around an image: set eps to None, not {self.eps}")
            return parameters.constraint
        if self.eps is None:
            return PIXELS
        check_images(center)
        return ThreatModel(self.norm, self.eps).around(center.detach())

    def scaled(self, from_size: int, to_size: int) -> Search:
        """The same search on images of another height and width, as many steps.

        Radius and step grow as the norm of an even change of all pixels does: in L2 with the side of the image, in Linf not
        at all.
        """
        if min(from_size, to_size) < 1:
            raise UserError(f"image sizes must be at least one pixel, got {from_size} and {to_size}")
        sizes = (self.norm.measure(torch.ones(1, size, size, dtype=torch.float64)) for size in (from_size, to_size))
        before, after = (float(size) for size in sizes)
        factor = after / before
        return replace(self, eps=None if self.eps is None else self.eps * factor, step_size=self.step_size * factor)


# Engstrom et al. (2019) and Santurkar et al. (2019), the released notebooks, at 224 pixels on Restricted ImageNet or pairs of
# classes. A radius of 500 or 1000 there is wider than the pixel box, whose diagonal is 388: None here.
PRESETS: dict[str, Search] = {
    "generate": Search(40, 1, 60),
    "inpaint": Search(21.6, 0.1, 720),
    "translate": Search(80, 0.5, 200),
    "sketch": Search(40, 1, 60),
    "super_resolve": Search(8, 1, 40),  # eightfold, of images like those that the model was trained on
    "super_resolve_cifar": Search(15, 1, 50),  # sevenfold, CIFAR-10 seen by a Restricted ImageNet model
    "paint": Search(70, 1, 140),
    "invert": Search(None, 1, 10_000),
    "interpolate": Search(None, 1, 10_000),
    "visualize": Search(None, 1, 200),
    "extremes": Search(None, 0.5, 1500),  # visualization from grey, shown beside the most and least activating images
    "add_feature": Search(None, 0.1, 800),
}

# The same at 32 pixels on CIFAR-10, where they were published. Inversion is that of the robust dataset (Ilyas et al. 2019).
PRESETS_CIFAR: dict[str, Search] = {
    "generate": Search(30, 0.5, 60),
    "invert": Search(None, 0.1, 1000),
    "interpolate": Search(None, 0.1, 10_000),
}

# Ours at 32 pixels, found with the models that ship (inpaint and paint on training images), where the published settings, scaled, do
# something else there or take hours on a CPU: at a radius of 30 generated images saturate, at the scaled ones holes and painted patches
# become garish, and hardly anything of an enlarged image changes.
USUAL: dict[str, Search] = {
    "generate": Search(5, 0.25, 60),
    "inpaint": Search(1.5, 0.05, 100),
    "super_resolve": Search(2.5, 0.15, 40),
    "paint": Search(5, 0.1, 100),
    "invert": Search(None, 0.1, 200),
    "interpolate": Search(None, 0.1, 200),
    "extremes": Search(None, 0.07, 200),
    "add_feature": Search(None, 0.05, 200),
}
USUAL_SIZE = 32


def usual(task: str, size: int) -> Search:
    """What to begin with for images of ``size`` pixels: our own settings where there are any, scaled, else the published ones.

    Raises:
        UserError: a task that is not in ``PRESETS``.
    """
    published = preset(task, size)
    return USUAL[task].scaled(USUAL_SIZE, size) if task in USUAL else published


def preset(task: str, size: int) -> Search:
    """The published settings of a task for images of ``size`` pixels, scaled from the nearest size that was published.

    Raises:
        UserError: a task that is not in ``PRESETS``.
    """
    if task not in PRESETS:
        raise unknown("task", task, PRESETS)
    if size < 1:
        raise UserError(f"images must be at least one pixel wide, got {size}")
    published = {224: PRESETS[task]} | ({32: PRESETS_CIFAR[task]} if task in PRESETS_CIFAR else {})
    near = min(published, key=lambda known: abs(math.log(known / size)))
    return published[near] if near == size else published[near].scaled(near, size)
