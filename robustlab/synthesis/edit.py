"""Images made and edited by raising a class score within a ball around where they start (Santurkar et al. 2019).

Every task is an objective and a constraint set. It gives back float images in [0, 1] within ``search.eps`` of its start, whose
objective is no higher than there, and leaves the model as it was. ``model`` maps images ``x``, float ``(B, C, H, W)`` in [0, 1], to
logits; ``search`` says how far and in which steps; ``on_step`` is called with (step, images, value) at each of them.

Raises:
    UserError: images, labels or masks that are none, or of other shapes than the function says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.checks import check_labels, with_logit_checks
from robustlab.errors import UserError
from robustlab.goals import Targeted
from robustlab.models.frozen import frozen
from robustlab.objectives import goal_objective
from robustlab.optimize import OnStep
from robustlab.synthesis.budget import Search
from robustlab.synthesis.features import activation
from robustlab.synthesis.fills import check_mask, checked, enlarged, fill


def generate(model: nn.Module, y: Tensor, seeds: Tensor, search: Search, *, on_step: OnStep | None = None) -> Tensor:
    """Images of the classes ``y``, int64 ``(B,)``, grown from seeds: class-conditional generation.

    Args:
        seeds: where to start, shape ``(B, C, H, W)``, such as draws of ``seeds.ClassGaussians``.
    """
    return translate(model, seeds, y, search, on_step=on_step)


def translate(model: nn.Module, x: Tensor, y: Tensor, search: Search, *, on_step: OnStep | None = None) -> Tensor:
    """Images ``(B, C, H, W)`` turned into the classes ``y``, int64 ``(B,)``: image-to-image, and sketch-to-image."""
    x = checked(x)
    with frozen(model):
        return search(class_loss(model, x, y), x, on_step=on_step).x


def super_resolve(
    model: nn.Module,
    small: Tensor,
    y: Tensor,
    size: int | tuple[int, int],
    search: Search,
    start: str = "nearest",
    consistency: float = 0.0,
    *,
    on_step: OnStep | None = None,
) -> Tensor:
    """Enlarged images of the classes ``y``, int64 ``(B,)``, with the detail that the classifier expects.

    Args:
        small: shape ``(B, C, h, w)``.
        size: height and width of the result, one number for a square; any factor of at least 1.
        start: how to enlarge them at first, see ``fills.enlarged``.
        consistency: weight of the mean squared difference between the result, averaged down to their size, and the small images.
    """
    x, there = enlarged(small, size, start), small.detach()
    if not (math.isfinite(consistency) and consistency >= 0):
        raise UserError(f"consistency must be a finite weight >= 0, got {consistency}")

    def apart(z: Tensor) -> Tensor:
        return consistency * (F.adaptive_avg_pool2d(z, (there.shape[2], there.shape[3])) - there).square().flatten(1).mean(1)

    with frozen(model):
        return search(class_loss(model, x, y), x, penalty=apart if consistency else None, on_step=on_step).x


def inpaint(
    model: nn.Module,
    x: Tensor,
    mask: Tensor,
    y: Tensor,
    search: Search,
    weight: float = 10.0,
    start: str = "mean",
    *,
    on_step: OnStep | None = None,
) -> Tensor:
    """Images whose missing part is made up as the classes ``y``, int64 ``(B,)``, would have it.

    Minimizes the cross-entropy plus ``weight`` times the mean squared change outside the mask, starting from, and within
    ``search.eps`` of, the images with the missing part filled in by ``fills.fill``. So that mean is at most the cross-entropy at
    the start divided by ``weight``; with ``math.inf`` nothing outside changes at all.

    Args:
        x: shape ``(B, C, H, W)``; what lies inside the mask is not looked at.
        mask: bool, shape ``(B, 1, H, W)``, true where a pixel is missing.
        start: how to fill the part at first, see ``fills.fill``.
    """
    filled = fill(x, mask, start)
    with frozen(model):
        return search(class_loss(model, filled, y), filled, **held(filled, mask, weight), on_step=on_step).x


def paint(
    model: nn.Module,
    x: Tensor,
    mask: Tensor,
    unit: int | Tensor,
    search: Search,
    layer: str | None = None,
    weight: float = 900.0,
    *,
    on_step: OnStep | None = None,
) -> Tensor:
    """Images with a feature painted into the mask: the unit's activation is raised, less ``weight`` times the mean squared change outside.

    The default weight is the ratio of the published terms, 0.1 times the activation and 90 times the change. With ``math.inf``
    nothing outside changes at all.

    Args:
        x: shape ``(B, C, H, W)``.
        mask: bool, shape ``(B, 1, H, W)``, true where to paint.
        unit: a feature of ``layer``, one for all images, or int64 ``(B,)``.
        layer: see ``representations.representation``.
    """
    x = checked(x)
    check_mask(mask, x)
    active = activation(model, unit, x, layer)
    with frozen(model):
        return search(lambda z: -active(z), x, **held(x, mask, weight), on_step=on_step).x


def class_loss(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
    """The cross-entropy to the classes ``y``, one for each image of ``x``; lower looks more like the class."""
    loss = goal_objective(with_logit_checks(model, check_labels(y, x)), Targeted(y))
    return lambda z: loss(z)[0]  # Without the verdict: a lower loss is better, also where the class is reached.


def held(start: Tensor, mask: Tensor, weight: float) -> dict[str, Any]:
    """What a search is told so that images stay at ``start`` outside ``mask``: its ``seen`` or its ``penalty``.

    Args:
        start: images, ``(B, C, H, W)``.
        mask: bool, ``(B, 1, H, W)``, true where images may change for nothing.
        weight: of the mean squared change outside the mask, >= 0; infinity lets nothing else be seen there.
    """
    if not weight >= 0:
        raise UserError(f"the weight of changes outside the mask must be >= 0, got {weight}")
    if math.isinf(weight):  # No gradient outside: no step and no projection moves a value there.
        return {"seen": lambda x: torch.where(mask, x, start)}
    return {"penalty": lambda x: weight * ((x - start) * ~mask).square().flatten(1).mean(1)}
