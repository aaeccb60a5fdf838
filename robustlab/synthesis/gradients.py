"""What a classifier looks at: gradients of the loss with respect to pixels, smoothed, and compared with directions and regions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robustlab.checks import check_images, check_labels, with_logit_checks
from robustlab.errors import UserError
from robustlab.goals import Surrogate, Targeted, cross_entropy
from robustlab.models.frozen import frozen
from robustlab.norms import L2
from robustlab.objectives import goal_objective, value_and_gradient
from robustlab.seeding import fold, normal


def loss_gradient(model: nn.Module, x: Tensor, y: Tensor, surrogate: Surrogate = cross_entropy) -> Tensor:
    """Gradient of the loss at label ``y``, of each example by itself: shape ``(B, C, H, W)``.

    Args:
        model: maps images to logits ``(B, K)``; left exactly as it was.
        x: images in [0, 1], shape ``(B, C, H, W)``.
        y: labels, int64 ``(B,)``.
        surrogate: the loss; larger is farther from predicting ``y``.
    """
    check_images(x)
    objective = goal_objective(with_logit_checks(model, check_labels(y, x)), Targeted(y, surrogate))
    with frozen(model):
        return value_and_gradient(objective, x)[2]


def smooth_grad(
    model: nn.Module, x: Tensor, y: Tensor, keys: Tensor, samples: int = 16, sigma: float = 0.1, surrogate: Surrogate = cross_entropy
) -> Tensor:
    """The average gradient at noisy copies of each image (SmoothGrad, Smilkov et al. 2017): shape ``(B, C, H, W)``.

    Args:
        model, x, y, surrogate: as for ``loss_gradient``; costs ``samples`` times as much.
        keys: one per example, from ``robustlab.seeding``.
        sigma: deviation of the noise in pixel units. Noisy copies are not clamped to [0, 1].

    Raises:
        UserError: fewer than one sample, a sigma that is negative or not finite, or images that are none.
    """
    if samples < 1 or not (math.isfinite(sigma) and sigma >= 0):
        raise UserError(f"SmoothGrad needs samples >= 1 and a finite sigma >= 0, got {samples} and {sigma}")
    check_images(x)
    objective = goal_objective(with_logit_checks(model, check_labels(y, x)), Targeted(y, surrogate))
    total = torch.zeros_like(x)
    with frozen(model):
        for i in range(samples):
            noise = normal(fold(keys.to(x.device), "smooth", i), x.shape[1:]).to(x)
            total += value_and_gradient(objective, x + sigma * noise)[2]
    return total / samples


def alignment(grad: Tensor, x: Tensor, towards: Tensor) -> Tensor:
    """Cosine between the direction of descent, ``-grad``, and the way from ``x`` to ``towards``.

    1 where descending goes straight there, as it does to the nearest image of a class where gradients are perceptually
    aligned (Ganz et al. 2023); 0 where either is zero.

    Args:
        grad: gradient of a loss at ``x``, shape ``(B, ...)``.
        towards: where descent should lead, shape of ``x``.

    Returns:
        float64 ``(B,)`` in [-1, 1].

    Raises:
        UserError: tensors of different shapes.
    """
    if not grad.shape == x.shape == towards.shape:
        raise UserError(f"gradient, images and targets must have one shape, got {[tuple(t.shape) for t in (grad, x, towards)]}")
    down, way = (L2().steepest(v).flatten(1) for v in (-grad.double(), towards.double() - x.double()))
    return (down * way).sum(1).clamp(-1, 1)


def energy_inside(grad: Tensor, mask: Tensor) -> Tensor:
    """Share of the squared gradient that lies on the mask.

    Args:
        grad: shape ``(B, C, H, W)``.
        mask: bool, true where it counts; broadcasts against ``grad``, as ``(B, 1, H, W)`` does.

    Returns:
        float64 ``(B,)`` in [0, 1]; 0 where the gradient is zero.

    Raises:
        UserError: a mask that is not bool.
    """
    if mask.dtype != torch.bool:
        raise UserError(f"a mask must be bool, got {mask.dtype}")
    return (L2().steepest(grad.double()).square() * mask).flatten(1).sum(1).clamp(max=1)
