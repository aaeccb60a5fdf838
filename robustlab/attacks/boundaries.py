"""The nearest of several decision boundaries, each taken as a plane: what untargeted FAB and DeepFool move towards."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robustlab.attacks.protocols import Model
from robustlab.goals import clearly, likeliest_others, signed
from robustlab.norms import Norm


@dataclass(frozen=True, eq=False)
class NearestBoundary:
    """An objective that knows its gradient: ``z_y - z_c`` for the class ``c`` whose boundary is the nearest by linearization.

    Where another class than ``y`` is predicted, ``c`` is that class; the value is at most 0 exactly where that is clear, see
    ``goals.clearly``. One forward pass, and one backward pass for each class: on a CPU one after another, elsewhere all at once where the
    model's operations can be batched.

    Attributes:
        model: from images to logits ``(B, K)``.
        y: labels to leave, int64 ``(B,)``.
        norm: what distances are measured in.
        classes: how many of the other classes are looked at, the likeliest at the point.
    """

    model: Model
    y: Tensor
    norm: Norm
    classes: int

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = self._logits(x)
        ahead = self._ahead(logits, likeliest_others(logits, self.y, 1))[:, 0]
        achieved = clearly(logits.argmax(1) != self.y, ahead, logits)
        return signed(ahead, achieved), achieved

    def with_gradient(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Value, gradient and verdict."""
        with torch.inference_mode(False), torch.enable_grad():
            x = (x.clone() if x.is_inference() else x.detach()).requires_grad_()
            logits = self._logits(x)
            ahead = self._ahead(logits, likeliest_others(logits.detach(), self.y.clone(), self.classes))
            slopes = _each_gradient(ahead, x)
        ahead, logits = ahead.detach(), logits.detach()
        crossed = logits.argmax(1) != self.y
        steep = self.norm.dual.measure(slopes.flatten(0, 1)).reshape(ahead.shape)
        distance = ahead.abs() / torch.where(steep > 0, steep, torch.finfo(steep.dtype).tiny)
        which = torch.where(crossed, 0, distance.argmin(1))  # the likeliest comes first
        row = torch.arange(len(x), device=x.device)
        achieved = clearly(crossed, ahead[row, which], logits)
        return signed(ahead[row, which], achieved), slopes[row, which], achieved

    def _logits(self, x: Tensor) -> Tensor:
        logits = self.model(x)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def _ahead(self, logits: Tensor, others: Tensor) -> Tensor:
        """How far ``y`` is ahead of other classes: ``(B, K), (B, C) -> (B, C)``."""
        return logits.gather(1, self.y.clone()[:, None]) - logits.gather(1, others)

    def at(self, index: Tensor) -> NearestBoundary:
        return replace(self, y=self.y[index])


def _each_gradient(values: Tensor, x: Tensor) -> Tensor:
    """The gradients of several values of each example: ``(B, C), (B, ...) -> (B, C, ...)``.

    On a CPU batched passes took 1.4 to 2.3 times as long as one after another (a small convolutional network, batches of 4 to 100).
    """
    if values.device.type == "cpu":
        return torch.stack([torch.autograd.grad(value.sum(), x, retain_graph=True)[0] for value in values.unbind(1)], 1)
    count = values.shape[1]
    picks = torch.eye(count, dtype=values.dtype, device=values.device)[:, None].expand(count, len(values), count)
    try:
        (slopes,) = torch.autograd.grad(values, x, picks, is_grads_batched=True, retain_graph=True)
    except RuntimeError:  # an operation that cannot be batched: one after another
        slopes = torch.stack([torch.autograd.grad(values, x, pick, retain_graph=True)[0] for pick in picks])
    return slopes.transpose(0, 1)
