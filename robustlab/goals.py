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

Surrogate = Callable[[Tensor, Tensor], Tensor]


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
