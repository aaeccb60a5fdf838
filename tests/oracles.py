"""Models about which everything is known: a linear one with its closed-form worst case, and one that counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robustlab.norms import L1, L2, Norm


class Linear(nn.Module):
    """Two classes, logits ``(-s/2, s/2)`` with the score ``s = <w, x> + b``, so that the whole game is about one number.

    Args:
        w: shape ``(D,)``.
        b: puts the decision boundary ``s = 0`` where it is wanted.
    """

    def __init__(self, w: Tensor, b: float = 0.0) -> None:
        super().__init__()
        self.w = nn.Parameter(w)
        self.b = nn.Parameter(torch.tensor(b, dtype=w.dtype))

    def score(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w + self.b

    def forward(self, x: Tensor) -> Tensor:
        score = self.score(x)
        return torch.stack([-score / 2, score / 2], 1)

    def advantage(self, x: Tensor, y: Tensor) -> Tensor:
        """How far the score is on the side of ``y``: the negative margin."""
        return self.score(x) * (2 * y - 1)

    def worst_loss(self, x: Tensor, y: Tensor, norm: Norm, eps: float) -> Tensor:
        """The largest cross-entropy within ``eps`` where no box is in the way: the dual norm is what the adversary can take."""
        taken = eps * norm.dual.measure(self.w[None])
        return torch.nn.functional.softplus(-(self.advantage(x, y) - taken))

    def largest_gain(self, x: Tensor, y: Tensor, norm: Norm, eps: float) -> Tensor:
        """How much advantage an adversary in the pixel box can take, for L1 and L2."""
        room = torch.where((2 * y - 1)[:, None] * self.w > 0, x, 1 - x)  # how far each value can go the way that hurts
        size = self.w.detach().abs()
        if isinstance(norm, L1):  # the values of the largest weights first, each as far as it goes, until eps is spent
            order = size.argsort(descending=True)
            before = room[:, order].cumsum(1) - room[:, order]
            return torch.minimum(room[:, order], (eps - before).clamp_min(0)) @ size[order]
        assert isinstance(norm, L2)  # along the weights, each value until its room ends, at the pace that spends eps
        low, high = torch.zeros(len(x), 1, dtype=x.dtype), torch.full((len(x), 1), 1e3, dtype=x.dtype)
        for _ in range(100):
            pace = (low + high) / 2
            far = norm.measure(torch.minimum(pace * size, room))[:, None] > eps
            low, high = torch.where(far, low, pace), torch.where(far, pace, high)
        return torch.minimum(pace * size, room) @ size

    def distance(self, x: Tensor, norm: Norm) -> Tensor:
        """How far each example is from the decision boundary, in ``norm``."""
        return self.score(x).abs() / norm.dual.measure(self.w[None])


def halfway(images: Tensor, *, seed: int = 0) -> tuple[Linear, Tensor]:
    """A linear model whose boundary runs through the middle of the images, and its own predictions as labels."""
    w = torch.randn(images[0].numel(), generator=torch.Generator().manual_seed(seed), dtype=images.dtype)
    scores = images.flatten(1) @ w
    model = Linear(w, -float(scores.median() + scores.mean()) / 2)
    with torch.no_grad():
        return model, model(images).argmax(1)


class _Counted(torch.autograd.Function):
    """The identity, with a note for each time that a gradient passes."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, counts: dict[str, int]) -> Tensor:
        ctx.counts = counts
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        ctx.counts["input"] += 1
        return grads[0], None


class Counting(nn.Module):
    """A small network that counts its forward passes, the gradients that reach its input, and how often its weights were
    part of a graph, which costs time and memory even where nobody asks for their gradient."""

    def __init__(self, width: int, classes: int = 3) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.w1 = nn.Parameter(torch.randn(16, width, generator=generator) / width**0.5)
        self.w2 = nn.Parameter(torch.randn(classes, 16, generator=generator) / 4)
        self.counts = {"forward": 0, "input": 0, "weights": 0}

    def forward(self, x: Tensor) -> Tensor:
        self.counts["forward"] += 1
        hidden = _Counted.apply(x, self.counts).flatten(1) @ self.w1.T
        self.counts["weights"] += torch.is_grad_enabled() and self.w1.requires_grad
        return torch.tanh(hidden) @ self.w2.T
