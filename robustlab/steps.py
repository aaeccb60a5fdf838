"""How to move: step rules for ``minimize``."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from robustlab.constraints import Box, ConstraintSet
from robustlab.errors import UserError
from robustlab.norms import L0, L1, L2, Linf, Norm, expanded, per_example
from robustlab.sorting import sorted_rows
from robustlab.subsets import restricted


class Directions(Protocol):
    """Where to go: a norm, for its steepest descent, ``Sparse`` or ``Proportional``."""

    def steepest(self, g: Tensor) -> Tensor:
        """From a gradient, shape ``(B, ...)``, to directions of unit length and the same shape."""
        ...


@dataclass(frozen=True)
class Sparse:
    """Directions of unit L1 norm along the ``share`` of values with the largest gradients (Tramèr and Boneh 2019, SLIDE).

    The steepest direction of L1 itself moves one value, and that is soon at the end of its pixel range. Measured with
    PGD-10 and eps 12 on a standard CIFAR-10 network: of 60 examples 32 withstood it along one value, none along these.
    """

    share: float = 0.01

    def steepest(self, g: Tensor) -> Tensor:
        flat = g.flatten(1)
        count = min(max(int(self.share * flat.shape[1]), 1), flat.shape[1])
        top = flat.abs().topk(count, 1).indices
        return torch.zeros_like(flat).scatter_(1, top, flat.gather(1, top).sign() / max(count, 1)).reshape(g.shape)


@dataclass(frozen=True)
class Proportional:
    """The gradient itself, scaled to values of mean size 1: for L0, where the projection chooses the pixels (Croce and Hein 2019)."""

    def steepest(self, g: Tensor) -> Tensor:
        size = L1().measure(g) / max(g[0:1].numel(), 1)
        return g / expanded(torch.where(size > 0, size, 1), g)


def attack_directions(norm: Norm) -> Directions:
    """The directions of attacks in a norm: its steepest ones, but sparse ones for L1, and for L0 the gradient's own."""
    return Sparse() if isinstance(norm, L1) else Proportional() if isinstance(norm, L0) else norm


@dataclass(frozen=True)
class Steepest:
    """Projected steepest descent in a norm: every step has length ``step_size`` in it. The step of PGD.

    A zero gradient moves nothing.

    Attributes:
        norm: where to go.
        step_size: in pixel units, a number or one per example ``(B,)``.
        scaled: multiply each step by the dual norm of the gradient, as the steepest descent of optimization theory does: in L2 that is
            gradient descent. Needs a ``Norm``.
    """

    norm: Directions
    step_size: float | Tensor
    scaled: bool = False

    def __post_init__(self) -> None:
        if self.scaled and not isinstance(self.norm, Norm):
            raise UserError(f"a scaled step needs a norm that has a dual, such as L2(), got {self.norm!r}")

    def init(self, x: Tensor, steps: int) -> None:
        """There is no state."""
        return None

    def step(self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: None) -> tuple[Tensor, None]:
        # A sign is each value's own, and the projection onto a box puts back what leaves it: the same points at half the cost.
        alone = isinstance(self.norm, Linf) and not self.scaled and isinstance(constraint, Box)
        moved = self._direction(grad if alone else constraint.tangent(x, grad)) * per_example(self.step_size, x)
        return constraint.project(moved.neg_().add_(x)), None  # in place: at 100,000 values memory costs more than arithmetic

    def _direction(self, g: Tensor) -> Tensor:
        return self.norm.scaled(g) if self.scaled and isinstance(self.norm, Norm) else self.norm.steepest(g)

    def at(self, index: Tensor) -> Steepest:
        return replace(self, step_size=restricted(self.step_size, index))


@dataclass(frozen=True)
class Momentum:
    """Steepest descent along a decaying sum of gradients, each scaled to unit L1 norm (MI-FGSM, Dong et al. 2018).

    ``step_size`` is in pixel units, a number or one per example ``(B,)``; ``decay`` multiplies the sum before each step.
    """

    norm: Directions
    step_size: float | Tensor
    decay: float = 1.0

    def init(self, x: Tensor, steps: int) -> Tensor:
        """The velocity, which is zero at first."""
        return torch.zeros_like(x)

    def step(self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: Tensor) -> tuple[Tensor, Tensor]:
        size = L1().measure(grad)
        velocity = self.decay * state + grad / per_example(torch.where(size > 0, size, 1), grad)
        return constraint.project(x - per_example(self.step_size, x) * self.norm.steepest(constraint.tangent(x, velocity))), velocity

    def at(self, index: Tensor) -> Momentum:
        return replace(self, step_size=restricted(self.step_size, index))


# Checkpoints of Auto-PGD in percent of the steps: p <- p + max(last gap - 3, 6), from 0 and 22.
_CHECKPOINTS = (22, 41, 57, 70, 80, 87, 93, 99)


def checkpoints(steps: int) -> frozenset[int]:
    """After how many of ``steps`` steps Auto-PGD looks back (Croce and Hein 2020): of 100 after 22, 41, 57, 70, 80, 87, 93 and 99."""
    return frozenset(-(-percent * steps // 100) for percent in _CHECKPOINTS)


@dataclass(frozen=True)
class Best:
    """The best points so far, shape ``(B, ...)``, with their gradients and values, ``(B,)``."""

    x: Tensor
    grad: Tensor
    value: Tensor

    @classmethod
    def none(cls, x: Tensor) -> Best:
        """Before anything was evaluated."""
        return cls(x, torch.zeros_like(x), torch.full((len(x),), torch.inf, dtype=torch.float64, device=x.device))

    def or_here(self, x: Tensor, value: Tensor, grad: Tensor) -> Best:
        """With the points that are being looked at, where they are better."""
        better = value < self.value
        here = expanded(better, x)
        return Best(torch.where(here, x, self.x), torch.where(here, grad, self.grad), torch.where(better, value.double(), self.value))

    def at(self, index: Tensor) -> Best:
        return Best(*restricted((self.x, self.grad, self.value), index))


@dataclass(frozen=True)
class AutoStep:
    """The step of Auto-PGD (Croce and Hein 2020, algorithm 1): steepest, with momentum, and of a size that each example finds by itself.

    At a checkpoint an example halves its step and goes on from its best point, where since the last one at most a share ``rho``
    of its steps improved the value, or where it kept its step and its best value stayed as it was. Momentum does not start anew there.
    Where paper and public code differ: checkpoints for other than 100 steps are the paper's; that exactly ``rho`` is too few and that
    the second condition needs a checkpoint before it is the code's.

    Attributes:
        norm: where to go.
        step_size: of the first step, the paper's ``2 eps``; in pixel units, a number or one per example ``(B,)``.
        alpha: share of the new step; ``1 - alpha`` of the last move is added.
        rho: the share of steps that must improve the value.
    """

    norm: Directions
    step_size: float | Tensor
    alpha: float = 0.75
    rho: float = 0.75

    def init(self, x: Tensor, steps: int) -> Course:
        """Nothing is known; as if the step had been halved just now."""
        best = Best.none(x)
        rows = torch.ones_like(best.value)
        return Course(0, 0, steps, rows * self.step_size, x, best, best.value, rows * 0, best.value, rows.bool())

    def step(self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: Course) -> tuple[Tensor, Course]:
        course = state.seen(x, value, grad)
        if course.taken in checkpoints(course.steps):
            course = course.checked(self.rho)
            again = expanded(course.halved, x)
            x, grad = torch.where(again, course.best.x, x), torch.where(again, course.best.grad, grad)
        moved = constraint.project(x - per_example(course.size, x) * self.norm.steepest(grad))
        if course.taken:
            moved = constraint.project(x + self.alpha * (moved - x) + (1 - self.alpha) * (x - course.previous))
        return moved, replace(course, taken=course.taken + 1, since=course.since + 1, previous=x)

    def at(self, index: Tensor) -> AutoStep:
        return replace(self, step_size=restricted(self.step_size, index))


@dataclass(frozen=True)
class Course:
    """What Auto-PGD remembers.

    Attributes:
        taken, since, steps: steps taken, steps since the last checkpoint, steps in all.
        size: of the next step, ``(B,)``.
        previous: the point before this one, shape ``(B, ...)``.
        best: the best point so far.
        value: at the last point, ``(B,)``.
        improved: how many steps since the last checkpoint improved the value, ``(B,)``.
        best_then: the best value at the last checkpoint, ``(B,)``.
        halved: whether the step was halved there, bool ``(B,)``.
    """

    taken: int
    since: int
    steps: int
    size: Tensor
    previous: Tensor
    best: Best
    value: Tensor
    improved: Tensor
    best_then: Tensor
    halved: Tensor

    def seen(self, x: Tensor, value: Tensor, grad: Tensor) -> Course:
        """With the value and gradient of the current point."""
        value = value.double()
        at_first = self.taken == 0
        improved = self.improved if at_first else self.improved + (value < self.value)
        return replace(self, best=self.best.or_here(x, value, grad), value=value, improved=improved)

    def checked(self, rho: float) -> Course:
        """At a checkpoint: with half the step where it is too long."""
        stuck = ~self.halved & (self.best.value >= self.best_then)
        halved = (self.improved <= rho * self.since) | stuck
        size = torch.where(halved, self.size / 2, self.size)
        return replace(self, since=0, size=size, improved=self.improved * 0, best_then=self.best.value, halved=halved)

    def at(self, index: Tensor) -> Course:
        return Course(*restricted(tuple(getattr(self, field.name) for field in fields(self)), index))


@dataclass(frozen=True)
class SparseAutoStep:
    """The step of APGD-L1 (Croce and Hein 2021, algorithm 1): along the largest values of the gradient, as many as the best point needs.

    A step moves a share of the values, all by the same length. At every checkpoint that share becomes the share of values in which the
    best point so far differs from the image, divided by 1.5. Where that number fell by more than 5 % since the last checkpoint, the
    example goes on from its best point with the first step; else its step is divided by 1.5, down to a tenth.

    Attributes:
        center: the images, shape ``(B, ...)``.
        step_size: of the first step, the paper's ``eps``; in pixel units, a number or one per example ``(B,)``.
        share: of the values in the first step; None is the share in which the start differs from the image, divided by 1.5.
    """

    center: Tensor
    step_size: float | Tensor
    share: float | None = 0.2

    def init(self, x: Tensor, steps: int) -> SparseCourse:
        """Nothing is known but the start."""
        best = Best.none(x)
        rows = torch.ones_like(best.value)
        moved = self._moved(x) if self.share is None else rows * x[0].numel()
        share = moved / (1.5 * x[0].numel()) if self.share is None else rows * self.share
        return SparseCourse(0, max(steps // 25, 1), rows * self.step_size, share, moved, best)

    def step(self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: SparseCourse) -> tuple[Tensor, SparseCourse]:
        course = replace(state, best=state.best.or_here(x, value, grad))
        if course.taken and course.taken % course.every == 0:
            moved = self._moved(course.best.x)
            sparser = moved < 0.95 * course.moved
            first = torch.ones_like(course.size) * self.step_size
            size = torch.where(sparser, first, torch.maximum(course.size / 1.5, first / 10))
            course = replace(course, size=size, share=moved / (1.5 * x[0].numel()), moved=moved)
            again = expanded(sparser, x)
            x, grad = torch.where(again, course.best.x, x), torch.where(again, course.best.grad, grad)
        direction = _along_largest(grad, course.share)
        return constraint.project(x - per_example(course.size, x) * direction), replace(course, taken=course.taken + 1)

    def _moved(self, x: Tensor) -> Tensor:
        return (x != self.center).flatten(1).sum(1).double()

    def at(self, index: Tensor) -> SparseAutoStep:
        return replace(self, center=self.center[index], step_size=restricted(self.step_size, index))


@dataclass(frozen=True)
class SparseCourse:
    """What APGD-L1 remembers.

    Attributes:
        taken, every: steps taken, steps between two checkpoints.
        size: of the next step, ``(B,)``.
        share: of the values that it moves, ``(B,)``.
        moved: in how many values the best point differed from the image at the last checkpoint, ``(B,)``.
        best: the best point so far.
    """

    taken: int
    every: int
    size: Tensor
    share: Tensor
    moved: Tensor
    best: Best

    def at(self, index: Tensor) -> SparseCourse:
        return SparseCourse(*restricted(tuple(getattr(self, field.name) for field in fields(self)), index))


def _along_largest(g: Tensor, share: Tensor) -> Tensor:
    """Directions of unit L1 norm along a share ``(B,)`` of values with the largest gradients, and along those that are as large."""
    size = g.flatten(1).abs()
    if size.numel() == 0:
        return g.clone()
    place = ((1 - share) * size.shape[1]).long().clamp(0, size.shape[1] - 1)
    signs = g.flatten(1).sign() * (size >= sorted_rows(size).gather(1, place[:, None]))
    return (signs / signs.abs().sum(1, keepdim=True).clamp_min(1)).reshape(g.shape)


@dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015) on the input, value by value, followed by the projection.

    ``step_size`` is in pixel units, a number or one per example ``(B,)``.
    """

    step_size: float | Tensor
    beta1: float = 0.9
    beta2: float = 0.999
    tiny: float = 1e-8

    def init(self, x: Tensor, steps: int) -> tuple[Tensor, Tensor, int]:
        """The running means of the gradient and of its square, and the number of steps."""
        return torch.zeros_like(x), torch.zeros_like(x), 0

    def step(
        self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: tuple[Tensor, Tensor, int]
    ) -> tuple[Tensor, tuple[Tensor, Tensor, int]]:
        mean, square, t = state[0].lerp(grad, 1 - self.beta1), state[1].lerp(grad * grad, 1 - self.beta2), state[2] + 1
        direction = (mean / (1 - self.beta1**t)) / ((square / (1 - self.beta2**t)).sqrt() + self.tiny)
        return constraint.project(x - per_example(self.step_size, x) * direction), (mean, square, t)

    def at(self, index: Tensor) -> Adam:
        return replace(self, step_size=restricted(self.step_size, index))


class Sized(Protocol):
    """A rule with a step size, for ``Decaying`` and ``Relative``: any dataclass of this module that has the field."""

    @property
    def step_size(self) -> float | Tensor: ...

    def init(self, x: Tensor, steps: int) -> Any: ...

    def step(self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: Any) -> tuple[Tensor, Any]: ...


@dataclass(frozen=True)
class Decaying:
    """A rule whose step size falls with the number of steps taken, t: by the factor ``(offset / (t + offset))^power``.

    Attributes:
        rule: a dataclass with a field ``step_size``, which is the size of the first step.
        power: 0.5 falls like the root of t, 1 like t.
        offset: after that many steps more the size has fallen by ``2^-power``; above 0.
    """

    rule: Sized
    power: float = 0.5
    offset: float = 1.0

    def init(self, x: Tensor, steps: int) -> tuple[Any, int]:
        """The rule's own state, and the number of steps."""
        return self.rule.init(x, steps), 0

    def step(
        self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: tuple[Any, int]
    ) -> tuple[Tensor, tuple[Any, int]]:
        inner, t = state
        smaller = _resized(self.rule, (self.offset / (t + self.offset)) ** self.power)
        x, inner = smaller.step(x, value, grad, constraint, inner)
        return x, (inner, t + 1)

    def at(self, index: Tensor) -> Decaying:
        return replace(self, rule=restricted(self.rule, index))


@dataclass(frozen=True)
class Relative:
    """A rule whose step size is a share of the point's own L2 norm, so that it grows with what it moves. For homogeneous networks.

    Attributes:
        rule: a dataclass with a field ``step_size``, which is the share.
        power: of the norm. On the logarithm of the loss of a network of degree L scaled steps of ``2 - 2 L`` are safe: as fast as the
            curvature grows, they become shorter.
    """

    rule: Sized
    power: float = 1.0

    @property
    def step_size(self) -> float | Tensor:
        """The share."""
        return self.rule.step_size

    def init(self, x: Tensor, steps: int) -> Any:
        """The rule's own state."""
        return self.rule.init(x, steps)

    def step(self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: Any) -> tuple[Tensor, Any]:
        return _resized(self.rule, L2().measure(x) ** self.power).step(x, value, grad, constraint, state)

    def at(self, index: Tensor) -> Relative:
        return replace(self, rule=restricted(self.rule, index))


def _resized(rule: Any, factor: float | Tensor) -> Any:
    """The same rule with its step size multiplied; through ``Relative`` to the rule inside."""
    if isinstance(rule, Relative):
        return replace(rule, rule=_resized(rule.rule, factor))
    return replace(rule, step_size=rule.step_size * factor)


@dataclass(frozen=True)
class RunningMean:
    """A rule that is handed the running mean of the gradients, ``m <- momentum m + (1 - momentum) g``, in place of the gradient.

    Around scaled steepest descent in L2 it is the heavy ball, around ``Steepest(Linf())`` Signum, around ``Steepest(Spectral())`` Muon
    without its short cut. Around mirror descent it is momentum in the dual.

    Attributes:
        rule: any step rule.
        momentum: share of the past, in [0, 1).
        nesterov: hand on ``momentum m + (1 - momentum) g`` instead of the new mean ``m``, which looks one step ahead.
    """

    rule: Any
    momentum: float = 0.9
    nesterov: bool = False

    def init(self, x: Tensor, steps: int) -> tuple[Any, Tensor]:
        """The rule's own state, and the mean, which is zero at first."""
        return self.rule.init(x, steps), torch.zeros_like(x)

    def step(
        self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: tuple[Any, Tensor]
    ) -> tuple[Tensor, tuple[Any, Tensor]]:
        inner, mean = state[0], state[1].lerp(grad, 1 - self.momentum)
        handed = mean.lerp(grad, 1 - self.momentum) if self.nesterov else mean
        x, inner = self.rule.step(x, value, handed, constraint, inner)
        return x, (inner, mean)

    def at(self, index: Tensor) -> RunningMean:
        return replace(self, rule=restricted(self.rule, index))
