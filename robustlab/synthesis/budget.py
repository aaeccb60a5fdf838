"""How far a search may go and in which steps, with the settings tuned and published for each task."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robustlab.checks import check_images
from robustlab.constraints import PIXELS, ConstraintSet, ThreatModel
from robustlab.errors import UserError, unknown
from robustlab.norms import L2, AttackNorm
from robustlab.objectives import Objective, PerStep
from robustlab.optimize import OnStep, Solution, minimize
from robustlab.seeding import content_keys
from robustlab.steps import Steepest, attack_directions
from robustlab.synthesis.natural import Naturally, Seen
from robustlab.synthesis.parameters import Fourier, Parameters, Pixels
from robustlab.synthesis.presets import TUNED_SIZE, Steps
from robustlab.synthesis.tasks import TASKS


@dataclass(frozen=True)
class Search:
    """Projected steepest descent with steps of one length, as in every task of Santurkar et al. (2019).

    Attributes:
        eps: radius around the centre, in pixel units of a [0, 1] image; None leaves only the pixel box.
        step_size: length of a step, in the same units.
        steps: number of steps.
        norm: of radius and steps.
        tv: weight of the images' total variation, see ``natural.variation``, beside the objective.
        jitter: at each step the network sees every image shifted at random, by up to so many pixels.
        flips: and mirrored with this probability. Both are drawn for each image by itself, from its start.
        parameters: what the steps move; others than pixels have no ball, and ``step_size`` is then in their units.
    """

    eps: float | None
    step_size: float
    steps: int
    norm: AttackNorm = L2()
    tv: float = 0.0
    jitter: int = 0
    flips: float = 0.0
    parameters: Parameters = Pixels()

    def __post_init__(self) -> None:
        if not (math.isfinite(self.tv) and self.tv >= 0 and self.jitter >= 0 and 0 <= self.flips <= 1):
            raise UserError(f"tv and jitter must be >= 0 and flips a share from 0 to 1, got {self.tv}, {self.jitter} and {self.flips}")
        if self.eps is not None:
            ThreatModel(self.norm, self.eps)  # refuses a radius without meaning
        if self.steps < 0 or not (math.isfinite(self.step_size) and self.step_size >= 0):
            raise UserError(f"a search needs steps >= 0 and a finite step_size >= 0, got {self.steps} and {self.step_size}")

    def __call__(
        self,
        objective: Objective | PerStep,
        x0: Tensor,
        *,
        center: Tensor | None = None,
        on_step: OnStep | None = None,
        keep_best: bool = True,
        parameters: Parameters | None = None,
        seen: Seen | None = None,
        penalty: Seen | None = None,
    ) -> Solution:
        """Minimize ``objective`` over images from ``x0``; without steps, or where the gradient is zero, ``x0`` comes back.

        Where ``jitter`` or ``flips`` show other views at each step, the values of different views are compared as they are.

        Args:
            objective: from images ``(B, C, H, W)`` to ``(B,)``, lower is better; or one such function for each step.
            x0: images in [0, 1], shape ``(B, C, H, W)``; brought into the ball first where they lie outside.
            center: of the ball, images like ``x0``; None is ``x0``.
            on_step: called with (step, images, value), see ``optimize.minimize``.
            keep_best: return the best image met rather than the last.
            parameters: in place of the search's own.
            seen: what of an image counts, such as its part inside a mask on the rest of ``x0``; the result is that too. None for all.
            penalty: added to the objective, of images as they are, never shifted or mirrored: ``(B, C, H, W)`` to ``(B,)``.

        Raises:
            UserError: images that are not in [0, 1] or not of one shape; a radius with parameters that have none.
        """
        check_images(x0)
        parameters = parameters or self.parameters

        def shown(z: Tensor) -> Tensor:
            x = parameters.decode(z)
            return x if seen is None else seen(x)

        found = minimize(
            Naturally(objective, parameters, content_keys(x0), seen, penalty, self.tv, self.jitter, self.flips),
            parameters.encode(x0),
            self._set(x0 if center is None else center, x0, parameters),
            Steepest(attack_directions(self.norm), self.step_size),
            steps=self.steps,
            keep_best=keep_best,
            on_step=on_step and (lambda t, z, value: on_step(t, shown(z), value)),
        )
        return replace(found, x=shown(found.x))

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
        at all. Jitter grows with the side.
        """
        if min(from_size, to_size) < 1:
            raise UserError(f"image sizes must be at least one pixel, got {from_size} and {to_size}")
        sizes = (self.norm.measure(torch.ones(1, size, size, dtype=torch.float64)) for size in (from_size, to_size))
        before, after = (float(size) for size in sizes)
        factor = after / before
        jitter = round(self.jitter * to_size / from_size)
        return replace(self, eps=None if self.eps is None else self.eps * factor, step_size=self.step_size * factor, jitter=jitter)


# Of the tasks that search, at the sizes at which their settings were published and tuned.
PUBLISHED: dict[str, dict[int, Search]] = {
    name: {size: Search(**steps._asdict()) for size, steps in task.presets.published.items()}
    for name, task in TASKS.items()
    if task.presets
}
TUNED: dict[str, Search] = {
    name: Search(**task.presets.tuned._asdict()) for name, task in TASKS.items() if task.presets and task.presets.tuned
}


def tuned_search(task: str, size: int) -> Search:
    """What to begin with for images of ``size`` pixels: the settings tuned at 32 pixels, scaled; where there are none, the published ones.

    Raises:
        UserError: a task that does not search; a size of no pixels.
    """
    found = published_search(task, size)
    return TUNED[task].scaled(TUNED_SIZE, size) if task in TUNED else found


def published_search(task: str, size: int) -> Search:
    """The published settings of a task for images of ``size`` pixels, scaled from the nearest size that was published.

    Raises:
        UserError: a task that does not search; a size of no pixels.
    """
    if task not in PUBLISHED:
        raise unknown("task", task, PUBLISHED)
    if size < 1:
        raise UserError(f"images must be at least one pixel wide, got {size}")
    known = PUBLISHED[task]
    near = min(known, key=lambda other: abs(math.log(other / size)))
    return known[near] if near == size else known[near].scaled(near, size)


def search_of(task: str, settings: Any, size: int) -> Search:
    """The search that a task's settings ask for: what they leave open is tuned or, with ``published``, as published.

    Fourier coefficients know no radius, so that they have one only where it is given, and are then refused.

    Args:
        task: a name in ``TASKS``.
        settings: of that task, such as ``Translate(eps=3)``.
        size: height of the images, in pixels.

    Raises:
        UserError: a task that does not search; numbers without meaning.
    """
    found = (published_search if settings.published else tuned_search)(task, size)
    if settings.fourier:
        found = replace(found, eps=None, parameters=Fourier())
    return replace(found, **_given(settings, Steps._fields))


def choices_of(task: str, settings: Any) -> dict[str, Any]:
    """What a task's settings ask for beside the search, such as the weight of changes outside a mask; open ones as in ``search_of``."""
    presets = TASKS[task].presets
    assert presets is not None
    open_ = {name: values[settings.published] for name, values in presets.choices.items()}
    return open_ | _given(settings, presets.choices)


def _given(settings: Any, names: Iterable[str]) -> dict[str, Any]:
    """Those of the settings that are not left open."""
    return {name: value for name in names if (value := getattr(settings, name, None)) is not None}


def resolved(task: str, settings: Any, size: int) -> Any:
    """The settings with what they leave open filled in: radius, steps, and all else that has presets.

    Args:
        task, settings, size: as for ``search_of``; settings of a task without a search come back as they are.
    """
    if TASKS[task].presets is None:
        return settings
    search = search_of(task, settings, size)
    values: dict[str, Any] = {name: getattr(search, name) for name in Steps._fields if hasattr(settings, name)}
    return replace(settings, **values, **choices_of(task, settings))
