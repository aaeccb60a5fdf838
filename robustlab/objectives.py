"""What is minimized: functions of the input with one value per example."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor

from robustlab.errors import UserError
from robustlab.goals import Goal, recordable
from robustlab.subsets import restricted

# (B, ...) -> (B,), lower is better; or a pair of that and a bool (B,): whether the example is where it should be.
# An objective that can be restricted to some of the examples has a method at(index), see robustlab.subsets.
Objective = Callable[[Tensor], Tensor | tuple[Tensor, Tensor]]


@runtime_checkable
class PerStep(Protocol):
    """An objective for each step: the expectation over a random transformation, say, by one sample a step (Athalye et al. 2018).

    Values of different steps are compared as they are.
    """

    def at_step(self, step: int) -> Objective:
        """The objective of the step with this number, from 0; the last point is evaluated at the number of steps taken."""
        ...


@runtime_checkable
class KnowsGradient(Protocol):
    """An objective that computes its gradient by itself, faster than automatic differentiation would.

    It is callable too, for the value alone.
    """

    def with_gradient(self, x: Tensor) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]:
        """The value, shape ``(B,)``, and its gradient, shape of ``x``; for each example its own. A verdict may come after them."""
        ...


def at_step(objective: Objective | PerStep, step: int) -> Objective:
    """The objective of a step: the same at every step unless it is ``PerStep``."""
    # Asked in every step, where `isinstance` with a protocol would take a fifth of a small problem's time.
    return cast(PerStep, objective).at_step(step) if hasattr(objective, "at_step") else objective


def goal_objective(model: Callable[[Tensor], Tensor], goal: Goal) -> Objective:
    """The goal's loss at the model's logits, and whether the goal is achieved there.

    Can be restricted to some of the examples if the goal can.

    Args:
        model: from ``(B, ...)`` to logits ``(B, K)``; those below float32 are taken as float32.
        goal: for the same examples.
    """
    return _GoalObjective(model, goal)


@dataclass(frozen=True, eq=False)
class _GoalObjective:
    model: Callable[[Tensor], Tensor]
    goal: Goal

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(x)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return self.goal.loss(logits), self.goal.achieved(logits.detach())

    def at(self, index: Tensor) -> _GoalObjective:
        return replace(self, goal=restricted(self.goal, index))


def value_only(objective: Objective) -> Objective:
    """The same objective without its verdict: its best point is the one of the lowest value."""
    return _ValueOnly(objective)


@dataclass(frozen=True, eq=False)
class _ValueOnly:
    objective: Objective

    def __call__(self, x: Tensor) -> Tensor:
        value = self.objective(x)
        return value[0] if isinstance(value, tuple) else value

    def at(self, index: Tensor) -> _ValueOnly:
        return _ValueOnly(restricted(self.objective, index))


def expected(objective: Objective, draws: int) -> Objective:
    """The mean of a random objective over some draws: expectation over transformation (Athalye et al. 2018), for any random model.

    Its gradient is the mean gradient, its verdict that of more than half of the draws. Takes the memory of one draw.

    Args:
        objective: has another value at every call.
        draws: how many; with one it is the objective itself.
    """
    return mean_of((objective,) * draws)


def mean_of(objectives: tuple[Objective, ...]) -> Objective:
    """The mean of several objectives, at least one.

    Its gradient is the mean gradient, its verdict that of more than half of them. Takes the memory of one.
    """
    return objectives[0] if len(objectives) == 1 else _Mean(objectives)


@dataclass(frozen=True, eq=False)
class _Mean:
    objectives: tuple[Objective, ...]

    def __call__(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        value, achieved, _ = self._mean(lambda objective: (*evaluate_objective(objective, x), None))
        return value if achieved is None else (value, achieved)

    def with_gradient(self, x: Tensor) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]:
        value, achieved, grad = self._mean(lambda objective: value_and_gradient(objective, x))
        assert grad is not None
        return (value, grad) if achieved is None else (value, grad, achieved)

    def _mean(self, draw: Callable[[Objective], tuple[Any, ...]]) -> tuple[Any, ...]:
        """The means of value and gradient, and the verdict of most; what a draw does not give stays None."""
        value, achieved, grad = draw(self.objectives[0])
        votes = None if achieved is None else achieved.int()
        for objective in self.objectives[1:]:
            more = draw(objective)
            value = value + more[0]
            votes = None if votes is None else votes + more[1].int()
            grad = None if grad is None else grad + more[2]
        count = len(self.objectives)
        verdict = None if votes is None else 2 * votes > count
        return value / count, verdict, None if grad is None else grad / count

    def at(self, index: Tensor) -> _Mean:
        return _Mean(restricted(self.objectives, index))


def through(objective: Objective, change: Callable[[Tensor], Tensor]) -> Objective:
    """The objective of a changed input: its value and verdict at ``change(x)``, its gradient with respect to ``x``.

    Can be restricted to some of the examples if both can.

    Args:
        objective: of what ``change`` returns.
        change: differentiable, ``(B, ...) -> (B, ...)``, each example by itself.
    """
    return _Through(objective, change)


@dataclass(frozen=True, eq=False)
class _Through:
    objective: Objective
    change: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return self.objective(self.change(x))

    def with_gradient(self, x: Tensor) -> tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]:
        with torch.inference_mode(False), torch.enable_grad():
            x = (x.clone() if x.is_inference() else x.detach()).requires_grad_()
            changed = self.change(x)
            value, achieved, grad = value_and_gradient(self.objective, changed.detach())
            (grad,) = torch.autograd.grad(changed, x, grad)
        return (value, grad) if achieved is None else (value, grad, achieved)

    def at(self, index: Tensor) -> _Through:
        return _Through(*restricted((self.objective, self.change), index))


def feature_distance(features: Callable[[Tensor], Tensor], target: Tensor) -> Objective:
    """``‖g(x) - target‖ / ‖target‖`` in L2, each example against its own row (the inversion loss of Engstrom et al. 2019).

    Can be restricted to some of the examples.

    Args:
        features: ``g``, from images to ``(B, D)``.
        target: shape ``(B, D)``; taken as constant. Where it is zero, the distance is not divided.
    """
    with torch.inference_mode(False):
        target = recordable(target.detach())
        size = torch.linalg.vector_norm(target, dim=1)
        return _FeatureDistance(features, target, torch.where(size > 0, size, 1))


@dataclass(frozen=True, eq=False)
class _FeatureDistance:
    features: Callable[[Tensor], Tensor]
    target: Tensor
    size: Tensor  # (B,)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(self.features(x).to(self.target.dtype) - self.target, dim=1) / self.size

    def at(self, index: Tensor) -> _FeatureDistance:
        return replace(self, target=self.target[index], size=self.size[index])


def evaluate_objective(objective: Objective, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """The objective's value, shape ``(B,)``, and its verdict, bool ``(B,)``, where it gives one.

    ``x`` stays as it is, also where the model writes over its input.

    Raises:
        ValueError: the objective does not return one value per example.
    """
    result = _with_gradient(objective, x) if x.requires_grad else objective(x.clone())
    value, achieved = result if isinstance(result, tuple) else (result, None)
    if value.shape != (len(x),):
        raise ValueError(f"objective must return shape ({len(x)},), got {tuple(value.shape)}")
    return value, achieved


def _with_gradient(objective: Objective, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """The objective at a leaf; torch lets nobody write over one, so a model that does so is given a copy."""
    try:
        return objective(x)
    except RuntimeError as error:
        if "leaf Variable that requires grad is being used in an in-place operation" not in str(error):
            raise
    warnings.warn("the model writes over its input (an in-place operation, perhaps inplace=True): it is given a copy", stacklevel=2)
    return objective(x.clone())


def value_and_gradient(objective: Objective, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor]:
    """Value and verdict as ``evaluate_objective`` gives them, and the value's gradient, shape of ``x``.

    The values are summed, never averaged, before differentiation: each example's gradient is its own, whatever the
    batch. Differentiates with respect to ``x`` alone.

    Raises:
        UserError: nothing to differentiate, as with a model that rounds its input or runs under ``no_grad``.
    """
    if hasattr(objective, "with_gradient"):
        with torch.no_grad():
            value, grad, *verdict = cast(KnowsGradient, objective).with_gradient(x)
        return value, verdict[0] if verdict else None, grad
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone() if x.is_inference() else x.detach()
        x.requires_grad_()
        value, achieved = evaluate_objective(objective, x)
        if not value.requires_grad:
            raise UserError("the objective has no gradient with respect to its input: the model is constant, or cuts the gradient")
        (grad,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), achieved, grad
