"""Optimizers as step rules for ``minimize``, for many seeds or step sizes at once; and the bridge to ``torch.optim``, in both directions.

Gradient, coordinate, sign and spectral descent are ``steps.Steepest`` in L2, L1, Linf and ``Spectral``; around them stand ``Decaying``,
``Relative`` and ``RunningMean``. Here is what needs a state of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.constraints import ConstraintSet, Everywhere
from robustlab.errors import UserError
from robustlab.linear_bias.potentials import Potential
from robustlab.norms import L1, Linf, per_example
from robustlab.optimize import StepRule
from robustlab.steps import Steepest
from robustlab.subsets import restricted


@dataclass(frozen=True)
class MirrorDescent:
    """``grad psi(w) <- grad psi(w) - step_size * g`` (Nemirovski and Yudin 1983).

    The dual variable is the state. It is never worked out again from the weights, which would lose digits, and signs at zero.
    With ``steps.RunningMean`` around it the momentum is in the dual.

    Attributes:
        potential: ``psi``.
        step_size: a number or one per seed ``(S,)``.
    """

    potential: Potential
    step_size: float | Tensor

    def init(self, x: Tensor, steps: int) -> Tensor:
        """The dual variable of the start.

        Raises:
            UserError: a start outside the potential's domain.
        """
        self.potential.check(x)
        return self.potential.dual(x)

    def step(self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: Tensor) -> tuple[Tensor, Tensor]:
        z = state - per_example(self.step_size, x) * grad
        return constraint.project(self.potential.inverse(z)), z

    def at(self, index: Tensor) -> MirrorDescent:
        return replace(self, step_size=restricted(self.step_size, index))


@dataclass(frozen=True)
class PrimalMomentum:
    """Mirror descent with momentum of the weights (Gunasekar et al. 2018, equation 9), for which the limit is *not* the one of mirror
    descent: ``grad psi(w_next) = grad psi(w + beta dw) - step_size * grad L(w + gamma dw)``.

    The points of ``minimize`` are ``w + gamma dw``, at which gradients are taken; where the weights come to rest, they are the same.

    Attributes:
        beta: momentum.
        gamma: how far ahead the gradient is taken.
    """

    potential: Potential
    step_size: float | Tensor
    beta: float = 0.0
    gamma: float = 0.0

    def init(self, x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """The last weights and those before them.

        Raises:
            UserError: a start outside the potential's domain.
        """
        self.potential.check(x)
        return x, x

    def step(
        self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        w, before = state
        z = self.potential.dual(w + self.beta * (w - before)) - per_example(self.step_size, x) * grad
        after = self.potential.inverse(z)
        return constraint.project(after + self.gamma * (after - w)), (after, w)

    def at(self, index: Tensor) -> PrimalMomentum:
        return replace(self, step_size=restricted(self.step_size, index))


@dataclass(frozen=True)
class NaturalGradient:
    """``w <- w - step_size * (psi'')^-1 g`` (Amari 1998): mirror descent to the first order only, so its limit depends on the step."""

    potential: Potential
    step_size: float | Tensor

    def init(self, x: Tensor, steps: int) -> None:
        """There is no state.

        Raises:
            UserError: a start outside the potential's domain.
        """
        self.potential.check(x)

    def step(self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: None) -> tuple[Tensor, None]:
        natural = self.potential.inverse_slope(self.potential.dual(x)) * grad
        return constraint.project(x - per_example(self.step_size, x) * natural), None

    def at(self, index: Tensor) -> NaturalGradient:
        return replace(self, step_size=restricted(self.step_size, index))


@dataclass(frozen=True)
class AdaBoost:
    """AdaBoost (Freund and Schapire 1997): one coordinate at a time, as far as the exponential loss falls along it.

    For linear models under ``LogExponential`` whose signed examples, the votes of the weak learners, are -1 and 1: the step
    ``atanh(‖g‖_inf)`` minimizes the loss exactly. It need not go to the largest L1 margin (Rudin et al. 2004).
    """

    def init(self, x: Tensor, steps: int) -> None:
        """There is no state."""
        return None

    def step(self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: None) -> tuple[Tensor, None]:
        return Steepest(L1(), Linf().measure(grad).atanh()).step(x, value, grad, constraint, None)


@dataclass(frozen=True)
class DualAcceleration:
    """Nesterov's acceleration in the dual of the largest L2 margin (Ji, Srebro and Telgarsky 2021): the margin's gap falls like ``1/t^2``.

    For linear models under ``LogExponential``. ``step_size`` is one over the largest L2 norm of an example, squared; a number or one per
    seed ``(S,)``. The weights are a sum of steps, and only their direction has a meaning.
    """

    step_size: float | Tensor

    def init(self, x: Tensor, steps: int) -> tuple[Tensor, int]:
        """The accumulated gradient, which is zero at first, and the number of steps."""
        return torch.zeros_like(x), 0

    def step(
        self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: tuple[Tensor, int]
    ) -> tuple[Tensor, tuple[Tensor, int]]:
        summed, t = state
        scaled = per_example(self.step_size, x) * grad
        summed = (summed + scaled) * (t / (t + 1))
        return constraint.project(x - summed - scaled), (summed, t + 1)

    def at(self, index: Tensor) -> DualAcceleration:
        return replace(self, step_size=restricted(self.step_size, index))


@dataclass(frozen=True)
class TorchRule:
    """Any ``torch.optim.Optimizer`` as a step rule: one optimizer, with a parameter for each seed.

    Attributes:
        make: from a list of parameters to an optimizer: ``lambda parameters: torch.optim.Adam(parameters, lr=0.01)``.
    """

    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]

    def init(self, x: Tensor, steps: int) -> tuple[Any, list[nn.Parameter]]:
        """The optimizer and its parameters, copies of the start."""
        parameters = [nn.Parameter(one.clone()) for one in x.detach()]
        return self.make(parameters), parameters

    def step(
        self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: tuple[Any, list[nn.Parameter]]
    ) -> tuple[Tensor, tuple[Any, list[nn.Parameter]]]:
        optimizer, parameters = state
        for parameter, here, g in zip(parameters, x, grad, strict=True):
            parameter.data.copy_(here)
            parameter.grad = g.clone()
        optimizer.step()
        return constraint.project(torch.stack([parameter.detach() for parameter in parameters])), state


class RuleOptimizer(torch.optim.Optimizer):
    """Any step rule as a ``torch.optim.Optimizer``, for any model.

        optimizer = RuleOptimizer(model.parameters(), Steepest(Linf(), 0.01))

    Args:
        params: parameters, or groups of them, as torch takes them.
        rule: a step rule; every parameter is one example to it.
        jointly: all parameters of a group are one vector to the rule, so that a norm or a step is one of them all.

    Raises:
        UserError: a closure that ``step`` cannot use.
    """

    def __init__(self, params: Iterable[Any], rule: StepRule, *, jointly: bool = False) -> None:
        super().__init__(params, {"rule": rule, "jointly": jointly})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move all parameters that have a gradient; ``closure`` is called first where there is one, and its value returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None]
            for some in [moving] if group["jointly"] and moving else [[p] for p in moving]:
                self._move(some, group["rule"])
        return loss

    def _move(self, parameters: list[Tensor], rule: StepRule) -> None:
        joined = len(parameters) > 1
        point = torch.cat([p.flatten() for p in parameters])[None] if joined else parameters[0][None]
        grad = torch.cat([p.grad.flatten() for p in parameters])[None] if joined else parameters[0].grad[None]  # type: ignore[union-attr, index]
        known = self.state[parameters[0]]
        if "rule" not in known:
            known["rule"] = rule.init(point, 0)
        moved, known["rule"] = rule.step(point, point.new_zeros(1), grad, Everywhere(), known["rule"])
        for parameter, part in zip(parameters, moved[0].split([p.numel() for p in parameters]) if joined else [moved[0]], strict=True):
            parameter.copy_(part.reshape(parameter.shape))


def as_rule(optimizer: Any) -> Any:
    """A step rule from itself, or from a function that makes a torch optimizer of parameters.

    Raises:
        UserError: neither.
    """
    if hasattr(optimizer, "step") and hasattr(optimizer, "init"):
        return optimizer
    if callable(optimizer):
        return TorchRule(optimizer)
    raise UserError(f"an optimizer must be a step rule, or a function from parameters to a torch optimizer, got {optimizer!r:.60}")
