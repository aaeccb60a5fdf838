"""Losses of outputs, and the objectives that they make of a problem: what an optimizer of weights minimizes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from robustlab import seeding
from robustlab.errors import UserError, unknown
from robustlab.linear_bias.problems import Problem


class Loss(ABC):
    """What a model pays for its outputs, ``(S, n)``, where the targets are ``y``, ``(S, n)``: one number for each seed.

    Differentiable, so that any model can be trained with it; its slope is known too, which spares linear models the differentiation.
    """

    @abstractmethod
    def value(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss, ``(S,)``: a sum over the examples, or the logarithm of one."""

    @abstractmethod
    def slope(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Its derivative by the outputs, ``(S, n)``."""

    def value_and_slope(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Both; a loss may know a way to share work between them."""
        return self.value(outputs, y), self.slope(outputs, y)


@dataclass(frozen=True)
class Squared(Loss):
    """``sum (f - y)^2``."""

    def value(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (outputs - y).square().sum(1)

    def slope(self, outputs: Tensor, y: Tensor) -> Tensor:
        return 2 * (outputs - y)

    def value_and_slope(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        residual = outputs - y
        return (residual * residual).sum(1), 2 * residual


class MarginLoss(Loss):
    """A loss of the margins ``m = y f`` of two classes, labelled -1 and 1."""

    @abstractmethod
    def of(self, margins: Tensor) -> Tensor:
        """From margins ``(S, n)`` to ``(S,)``."""

    @abstractmethod
    def rise(self, margins: Tensor) -> Tensor:
        """The derivative by the margins, ``(S, n)``; never positive."""

    def of_and_rise(self, margins: Tensor) -> tuple[Tensor, Tensor]:
        """Both; a loss may know a way to share work between them."""
        return self.of(margins), self.rise(margins)

    def value(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.of(outputs * y)

    def slope(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self.rise(outputs * y) * y

    def value_and_slope(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        value, rise = self.of_and_rise(outputs * y)
        return value, rise * y


@dataclass(frozen=True)
class Exponential(MarginLoss):
    """``sum exp(-m)``. It overflows where margins are far below zero, and its gradient vanishes where they are far above."""

    def of(self, margins: Tensor) -> Tensor:
        return (-margins).exp().sum(1)

    def rise(self, margins: Tensor) -> Tensor:
        return -(-margins).exp()

    def of_and_rise(self, margins: Tensor) -> tuple[Tensor, Tensor]:
        each = (-margins).exp()
        return each.sum(1), -each


@dataclass(frozen=True)
class LogExponential(MarginLoss):
    """The logarithm of the exponential loss. A constant step on it is a step on the exponential loss divided by the loss itself, and
    nothing overflows or vanishes, however long the descent."""

    def of(self, margins: Tensor) -> Tensor:
        return torch.logsumexp(-margins, 1)

    def rise(self, margins: Tensor) -> Tensor:
        return -torch.softmax(-margins, 1)

    def of_and_rise(self, margins: Tensor) -> tuple[Tensor, Tensor]:
        least = margins.amin(1, keepdim=True)
        each = (least - margins).exp()
        total = each.sum(1, keepdim=True)
        return (total.log() - least)[:, 0], -each / total


@dataclass(frozen=True)
class Logistic(MarginLoss):
    """``sum log(1 + exp(-m))``."""

    def of(self, margins: Tensor) -> Tensor:
        return softplus(-margins).sum(1)

    def rise(self, margins: Tensor) -> Tensor:
        return -torch.sigmoid(-margins)


@dataclass(frozen=True)
class LogLogistic(MarginLoss):
    """The logarithm of the logistic loss, which neither overflows nor vanishes."""

    def of(self, margins: Tensor) -> Tensor:
        # Far above zero log(1 + exp(-m)) is exp(-m) to the last digit.
        near = margins.clamp(max=30)
        return torch.logsumexp(torch.where(margins > 30, -margins, softplus(-near).log()), 1)

    def rise(self, margins: Tensor) -> Tensor:
        return self.of_and_rise(margins)[1]

    def of_and_rise(self, margins: Tensor) -> tuple[Tensor, Tensor]:
        value = self.of(margins)
        return value, -(logsigmoid(-margins) - value[:, None]).exp()


@dataclass(frozen=True)
class PolynomialTail(MarginLoss):
    """``sum (1 + m)^-power`` for margins above zero, and its tangent ``1 - power m`` below: a tail that is not exponential."""

    power: float = 1.0

    def of(self, margins: Tensor) -> Tensor:
        above = (1 + margins.clamp(min=0)) ** -self.power
        return torch.where(margins > 0, above, 1 - self.power * margins).sum(1)

    def rise(self, margins: Tensor) -> Tensor:
        return -self.power * (1 + margins.clamp(min=0)) ** (-self.power - 1)


@dataclass(frozen=True)
class SquaredHinge(MarginLoss):
    """``sum max(0, 1 - m)^2``: zero as soon as all margins are 1, so that descent stops."""

    def of(self, margins: Tensor) -> Tensor:
        return (1 - margins).clamp(min=0).square().sum(1)

    def rise(self, margins: Tensor) -> Tensor:
        return -2 * (1 - margins).clamp(min=0)


LOSSES: dict[str, Loss] = {
    "squared": Squared(),
    "exponential": Exponential(),
    "log-exponential": LogExponential(),
    "logistic": Logistic(),
    "log-logistic": LogLogistic(),
    "polynomial": PolynomialTail(),
    "squared-hinge": SquaredHinge(),
}


@dataclass(frozen=True, eq=False)
class LinearObjective:
    """The loss of linear models on a problem, as a function of their weights ``(S, d)``; see ``objectives.KnowsGradient``."""

    problem: Problem
    loss: Loss

    def __call__(self, w: Tensor) -> Tensor:
        return self.loss.value(self.problem.outputs(w), self.problem.y)

    def with_gradient(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and its gradient by the weights."""
        value, slope = self.loss.value_and_slope(self.problem.outputs(w), self.problem.y)
        return value, self.problem.pulled_back(slope)

    def at(self, index: Tensor) -> LinearObjective:
        return replace(self, problem=self.problem.at(index))


class Predicts(Protocol):
    """A model with all its parameters in one row for each seed; see ``robustlab.linear_bias.parametrizations``."""

    def outputs(self, theta: Tensor, X: Tensor) -> Tensor:
        """From parameters ``(S, P)`` and examples ``(S, n, d)`` or ``(1, n, d)`` to outputs ``(S, n)``."""
        ...


@runtime_checkable
class PullsBack(Predicts, Protocol):
    """A model that knows its gradient, which is faster than automatic differentiation."""

    def pulled_back(self, theta: Tensor, X: Tensor, slope: Tensor) -> Tensor:
        """The gradient by the parameters, ``(S, P)``, of a loss whose derivative by the outputs is ``slope``, ``(S, n)``."""
        ...


@dataclass(frozen=True, eq=False)
class ModelObjective:
    """The loss of models on a problem, as a function of their parameters ``(S, P)``; see ``objectives.KnowsGradient``."""

    problem: Problem
    loss: Loss
    model: Predicts

    def __call__(self, theta: Tensor) -> Tensor:
        return self.loss.value(self.model.outputs(theta, self.problem.X), self.problem.y)

    def with_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and its gradient by the parameters: the model's own where it has a method ``pulled_back``, else an automatic one."""
        X, y = self.problem.X, self.problem.y
        if hasattr(self.model, "pulled_back"):
            value, slope = self.loss.value_and_slope(self.model.outputs(theta, X), y)
            return value, cast(PullsBack, self.model).pulled_back(theta, X, slope)
        with torch.inference_mode(False), torch.enable_grad():
            leaf = theta.detach().clone().requires_grad_()
            value = self(leaf)
            (grad,) = torch.autograd.grad(value.sum(), leaf)
        return value.detach(), grad

    def at(self, index: Tensor) -> ModelObjective:
        return replace(self, problem=self.problem.at(index))


@dataclass(frozen=True)
class CrossEntropy:
    """``sum log(1 + sum_k exp(f_k - f_y))``, ``k`` over the other classes, of outputs ``(S, n, K)`` and class numbers ``(S, n)``.

    Attributes:
        logarithm: of the sum, which neither overflows nor vanishes: a constant step on it is a step on the sum divided by the sum.
    """

    logarithm: bool = True

    def value(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The loss, ``(S,)``."""
        return self._of.of(self.margins(outputs, y))

    def slope(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Its derivative by the outputs, ``(S, n, K)``."""
        return self.value_and_slope(outputs, y)[1]

    def value_and_slope(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Both, with the margins worked out once."""
        own = _own(outputs, y)
        others = outputs.masked_fill(own, -torch.inf)
        total = torch.logsumexp(others, 2)
        value, rise = self._of.of_and_rise(outputs[own].reshape(total.shape) - total)
        return value, rise[..., None] * (own.to(outputs) - (others - total[..., None]).exp())

    @staticmethod
    def margins(outputs: Tensor, y: Tensor) -> Tensor:
        """``f_y - log sum_k exp(f_k)``, over the other classes, ``(S, n)``: what the logistic loss of two classes calls a margin."""
        own = _own(outputs, y)
        return outputs[own].reshape(outputs.shape[:2]) - torch.logsumexp(outputs.masked_fill(own, -torch.inf), 2)

    @property
    def _of(self) -> MarginLoss:
        return LogLogistic() if self.logarithm else Logistic()


def _own(outputs: Tensor, y: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(y.long(), outputs.shape[2]).bool().expand(outputs.shape)


@dataclass(frozen=True, eq=False)
class MulticlassObjective:
    """The cross-entropy of linear models of several classes, as a function of their weights ``(S, K, d)``.

    Attributes:
        problem: targets are class numbers from 0.
    """

    problem: Problem
    loss: CrossEntropy = CrossEntropy()

    def __call__(self, w: Tensor) -> Tensor:
        return self.loss.value(self.problem.X @ w.mT, self.problem.y)

    def with_gradient(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and its gradient by the weights."""
        value, slope = self.loss.value_and_slope(self.problem.X @ w.mT, self.problem.y)
        return value, slope.mT @ self.problem.X

    def at(self, index: Tensor) -> MulticlassObjective:
        return replace(self, problem=self.problem.at(index))


@dataclass(frozen=True, eq=False)
class OneExample:
    """The loss of linear models on one example at each step, drawn at random or in turn: stochastic descent with batches of one.

    An ``objectives.PerStep``. The draws belong to seed and step, whatever the other seeds are.

    Attributes:
        in_turn: the examples one after the other instead of at random.
        seed: of the draws.
    """

    problem: Problem
    loss: Loss
    in_turn: bool = False
    seed: int = 0

    def at_step(self, step: int) -> LinearObjective:
        """The objective of a step: the one example."""
        X, y = self.problem.X, self.problem.y
        if self.in_turn:
            row = step % self.problem.n
            return LinearObjective(_Rows(X[:, row : row + 1], y[:, row : row + 1]), self.loss)
        keys = seeding.example_keys(self.seed, torch.arange(len(X)))
        rows = seeding.integers(seeding.fold(keys, "example of a step", step), self.problem.n)
        each = torch.arange(len(X))
        return LinearObjective(_Rows(X[each, rows][:, None], y[each, rows][:, None]), self.loss)


class _Rows(Problem):
    """Rows of a problem that was checked before."""

    def __post_init__(self) -> None:
        pass


def as_loss(loss: Loss | str) -> Loss:
    """A loss from itself or its name.

    Raises:
        UserError: a name that is not known.
    """
    if isinstance(loss, str):
        if loss not in LOSSES:
            raise unknown("loss", loss, LOSSES)
        return LOSSES[loss]
    if not isinstance(loss, Loss):
        raise UserError(f"a loss must be a name or a Loss, got {loss!r:.60}")
    return loss
