"""What is minimized: functions of the input with one value per example."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustlab.errors import UserError
from robustlab.goals import Goal, recordable

# (B, ...) -> (B,), lower is better; or a pair of that and a bool (B,): whether the example is where it should be.
Objective = Callable[[Tensor], Tensor | tuple[Tensor, Tensor]]


def goal_objective(model: Callable[[Tensor], Tensor], goal: Goal) -> Objective:
    """The goal's loss at the model's logits, and whether the goal is achieved there."""

    def objective(x: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return goal.loss(logits), goal.achieved(logits.detach())

    return objective


def feature_distance(features: Callable[[Tensor], Tensor], target: Tensor) -> Objective:
    """``‖g(x) - target‖ / ‖target‖`` in L2, each example against its own row (the inversion loss of Engstrom et al. 2019).

    Args:
        features: ``g``, from images to ``(B, D)``.
        target: shape ``(B, D)``; taken as constant. Where it is zero, the distance is not divided.
    """
    with torch.inference_mode(False):
        target = recordable(target.detach())
        size = torch.linalg.vector_norm(target, dim=1)
        size = torch.where(size > 0, size, 1)

    def objective(x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(features(x).to(target.dtype) - target, dim=1) / size

    return objective


def evaluate_objective(objective: Objective, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The objective's value, shape ``(B,)``, and its verdict, bool ``(B,)``, where it gives one.

    Raises:
        ValueError: the objective does not return one value per example.
    """
    result = objective(x)
    value, achieved = result if isinstance(result, tuple) else (result, None)
    if value.shape != (len(x),):
        raise ValueError(f"objective must return shape ({len(x)},), got {tuple(value.shape)}")
    return value, achieved


def value_and_gradient(objective: Objective, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Value and verdict as ``evaluate_objective`` gives them, and the value's gradient, shape of ``x``.

    The values are summed, never averaged, before differentiation: each example's gradient is its own, whatever the
    batch. Differentiates with respect to ``x`` alone.

    Raises:
        UserError: nothing to differentiate, as with a model that rounds its input or runs under ``no_grad``.
    """
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone() if x.is_inference() else x.detach()
        x.requires_grad_()
        value, achieved = evaluate_objective(objective, x)
        if not value.requires_grad:
            raise UserError("the objective has no gradient with respect to its input: the model is constant, or cuts the gradient")
        (grad,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), achieved, grad
