"""What an adversary wants. A goal keeps its loss and its test of success together, so no loop has a sign or a flag.

A *surrogate* says how far the logits are from predicting a class, larger is farther; goals turn it into a loss that is
lower nearer the goal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.subsets import restricted

Surrogate = Callable[[Tensor, Tensor], Tensor]
ROUNDING = 16  # units in the last place of the largest logit, by which the batch that an image is in may move the others


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy per example: ``(B, K), (B,) -> (B,)``."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """The best other class's logit minus the one of ``y`` (Carlini and Wagner 2017): ``(B,)``, positive when not predicted."""
    own = F.one_hot(y, logits.shape[1]).bool()
    return logits.masked_fill(own, -torch.inf).amax(1) - logits.gather(1, y[:, None])[:, 0]


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference-of-logits ratio (Croce and Hein 2020, eq. 6): the margin in units of first minus third logit.

    Unchanged when logits are shifted or scaled. With two classes there is no third: the plain margin. Flat where ``y`` is
    third, so a loss for leaving the predicted class, not for reaching another.
    """
    if logits.shape[1] < 3:
        return margin(logits, y)
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """The logit of ``target`` minus the one of ``y``, in units of first minus mean of third and fourth logit (Croce and Hein 2020, eq. 7).

    Unchanged when logits are shifted or scaled. With three classes there is no fourth: the unit is first minus mean of second and
    third, since first minus third would be flat where the target is third. With two classes it is the plain margin.

    Args:
        logits: ``(B, K)``.
        y, target: int64 ``(B,)``.
    """
    ahead = (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None]))[:, 0]
    classes = logits.shape[1]
    if classes < 3:
        return ahead
    top = logits.topk(min(classes, 4), dim=1).values
    return ahead / (top[:, 0] - (top[:, -2] + top[:, -1]) / 2 + 1e-12)


def likeliest_others(logits: Tensor, y: Tensor, count: int) -> Tensor:
    """The ``count`` classes of the largest logits beside ``y``, the largest first, or all where there are fewer: int64 ``(B, count)``."""
    own = F.one_hot(y, logits.shape[1]).bool()
    return logits.masked_fill(own, -torch.inf).topk(min(count, logits.shape[1] - 1), dim=1).indices


def recordable(constant: Tensor) -> Tensor:
    """The tensor itself, or a copy where it was made in inference mode, which autograd cannot keep for its backward pass."""
    return constant.clone() if constant.is_inference() else constant


class Goal(Protocol):
    """What to reach, for each example by itself.

    A method ``at(index)`` gives the goal of some of the examples only, see ``robustlab.subsets``; without it attacks keep their
    batches whole.
    """

    def loss(self, logits: Tensor) -> Tensor:
        """``(B, K) -> (B,)``, lower is nearer the goal."""
        ...

    def achieved(self, logits: Tensor) -> Tensor:
        """``(B, K) -> (B,)``, bool."""
        ...


@dataclass(frozen=True)
class Untargeted:
    """Any class but ``y``, int64, shape ``(B,)``."""

    y: Tensor
    surrogate: Surrogate = cross_entropy

    def loss(self, logits: Tensor) -> Tensor:
        return -self.surrogate(logits, recordable(self.y))

    def achieved(self, logits: Tensor) -> Tensor:
        return logits.argmax(1) != self.y

    def at(self, index: Tensor) -> Untargeted:
        return replace(self, y=self.y[index])


@dataclass(frozen=True)
class Targeted:
    """The class ``target``, int64, shape ``(B,)``."""

    target: Tensor
    surrogate: Surrogate = cross_entropy

    def loss(self, logits: Tensor) -> Tensor:
        return self.surrogate(logits, recordable(self.target))

    def achieved(self, logits: Tensor) -> Tensor:
        return logits.argmax(1) == self.target

    def at(self, index: Tensor) -> Targeted:
        return replace(self, target=self.target[index])


@dataclass(frozen=True)
class LeftFor:
    """Any class but ``y``, looked for in the direction of ``target``, by the targeted DLR; both int64 ``(B,)``."""

    y: Tensor
    target: Tensor

    def loss(self, logits: Tensor) -> Tensor:
        return -targeted_dlr(logits, recordable(self.y), recordable(self.target))

    def achieved(self, logits: Tensor) -> Tensor:
        return logits.argmax(1) != self.y

    def at(self, index: Tensor) -> LeftFor:
        return LeftFor(self.y[index], self.target[index])


@dataclass(frozen=True)
class CrossedTo:
    """Any class but ``y``, looked for across the boundary to ``target``; both int64 ``(B,)``.

    The loss is how far ``y`` is ahead of ``target``, or where another class is predicted, of that one.
    """

    y: Tensor
    target: Tensor

    def loss(self, logits: Tensor) -> Tensor:
        ahead = (logits.gather(1, recordable(self.y)[:, None]) - logits.gather(1, recordable(self.target)[:, None]))[:, 0]
        return torch.where(self.achieved(logits.detach()), -margin(logits, recordable(self.y)), ahead)

    def achieved(self, logits: Tensor) -> Tensor:
        return logits.argmax(1) != self.y

    def at(self, index: Tensor) -> CrossedTo:
        return CrossedTo(self.y[index], self.target[index])


@dataclass(frozen=True)
class Signed:
    """A goal that counts as achieved where that is clear, and whose loss is at most 0 exactly there. Its gradient stays as it is.

    A loss of the logits' margin stays itself, but for ties; others become their own size with that sign.
    """

    goal: Goal

    def loss(self, logits: Tensor) -> Tensor:
        value = self.goal.loss(logits)
        return value + (signed(value.detach(), self.achieved(logits.detach())) - value.detach())

    def achieved(self, logits: Tensor) -> Tensor:
        return clearly(self.goal.achieved(logits), self.goal.loss(logits), logits)

    def at(self, index: Tensor) -> Signed:
        return Signed(restricted(self.goal, index))


def clearly(achieved: Tensor, value: Tensor, logits: Tensor) -> Tensor:
    """Where a goal is achieved by more than rounding could undo, bool ``(B,)``.

    Whoever looks for the nearest point that achieves it ends at the boundary. The logits there depend on the batch in their last
    digits, so that without this some of the points found are not adversarial when they are looked at again.

    Args:
        achieved: bool ``(B,)``.
        value: by how much, in units of logits, ``(B,)``.
        logits: shape ``(B, K)``.
    """
    largest = torch.where(logits.isfinite(), logits.abs(), 0).amax(1)
    return achieved & (value.abs() > ROUNDING * torch.finfo(logits.dtype).eps * largest)


def signed(value: Tensor, achieved: Tensor) -> Tensor:
    """The size of a value, below 0 or 0 where the goal is achieved and above 0 elsewhere, ``(B,)``."""
    size = value.abs()
    return torch.where(achieved, -size, size.clamp_min(torch.finfo(value.dtype).tiny))


@dataclass(frozen=True)
class Away:
    """Away from a prediction: the largest KL divergence from it (the inner problem of TRADES, Zhang et al. 2019).

    Attributes:
        reference: logits of the prediction to leave, shape ``(B, K)``; taken as constant.
    """

    reference: Tensor

    def loss(self, logits: Tensor) -> Tensor:
        return -divergence(recordable(self.reference.detach()), logits)

    def achieved(self, logits: Tensor) -> Tensor:
        return logits.argmax(1) != self.reference.argmax(1)

    def at(self, index: Tensor) -> Away:
        return replace(self, reference=self.reference[index])


def divergence(reference: Tensor, logits: Tensor) -> Tensor:
    """KL divergence from the prediction ``reference`` to the prediction ``logits``, in nats: ``(B, K) x 2 -> (B,)``."""
    return F.kl_div(logits.log_softmax(1), reference.log_softmax(1), reduction="none", log_target=True).sum(1)
