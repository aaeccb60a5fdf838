"""Defences that look robust and are not, each planted in a network that is known, and plain models beside them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustlab.models.zoo import load

CLASSES = 10
PATTERNS = 0.2 + 0.6 * torch.rand(CLASSES, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def draw(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images of 8-bit values, ``(n, 3, 8, 8)``: the pattern of a class in noise; and their labels."""
    y = torch.arange(n) % CLASSES
    x = PATTERNS[y] + 0.1 * torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return (255 * x.clamp(0, 1)).round() / 255, y


def untrained() -> nn.Sequential:
    """A small network with BatchNorm, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = [nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()]
        return nn.Sequential(*first, nn.Conv2d(12, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, CLASSES)).eval()


@lru_cache(1)
def weights() -> dict[str, Tensor]:
    """Of the same network, trained for a third of a second: it is right on all images of ``draw`` and not robust."""
    network, (x, y) = untrained().train(), draw(600, seed=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for rows in torch.arange(600).split(60) * 3:
        optimizer.zero_grad()
        F.cross_entropy(network(x[rows]), y[rows], label_smoothing=0.1).backward()
        optimizer.step()
    return network.state_dict()


def standard() -> nn.Module:
    """The trained network, each time another one."""
    network = untrained()
    network.load_state_dict(weights())
    return network


PLAIN = ("trained", "untrained", "linear")


def plain() -> dict[str, nn.Module]:
    """Models of ``draw`` that hide nothing."""
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES))
    linear[1].weight.data = (PATTERNS - PATTERNS.mean(0)).flatten(1)  # the nearest pattern, nearly
    return {"trained": standard(), "untrained": untrained(), "linear": linear}


def released() -> dict[str, nn.Module]:
    """Three that ship with the project."""
    return {name: load(name) for name in ("cifar10-small-standard", "cifar10-small-l2", "cifar10-preact-standard")}


class Around(nn.Module):
    """A network with something done before and after it; the network alone is in ``state_dict``."""

    def __init__(self, before: Callable[[Tensor], Tensor] = lambda x: x, after: Callable[[Tensor], Tensor] = lambda z: z) -> None:
        super().__init__()
        self.network, self.before, self.after = standard(), before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.network(self.before(x)))


class Table(nn.Module):
    """Knows some images, and answers them from a table."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__()
        self.network, self.x, self.y = standard(), x.clone(), y.clone()

    def forward(self, x: Tensor) -> Tensor:
        same = (x[:, None] == self.x[None].to(x)).flatten(2).all(2)  # (B, known)
        answer = 20.0 * F.one_hot(self.y, 10)[same.float().argmax(1)]
        return torch.where(same.any(1)[:, None], answer, self.network(x))


class Forgiving(Table):
    """Answers from its table what is near enough to an image in it."""

    def forward(self, x: Tensor) -> Tensor:
        far, nearest = (x[:, None] - self.x[None]).abs().amax((2, 3, 4)).min(1)
        return torch.where((far < 0.02)[:, None], 20.0 * F.one_hot(self.y, 10)[nearest], self.network(x))


class Remembering(nn.Module):
    """Takes the mean of all that it has answered so far from its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.mean = standard(), torch.zeros(10)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x)
        self.mean = 0.5 * self.mean + 0.5 * logits.detach().mean(0)
        return logits - self.mean


class OnGridOnly(nn.Module):
    """Whole 8-bit values are answered, all others with NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.network = standard()

    def forward(self, x: Tensor) -> Tensor:
        off = ((255 * x - (255 * x).round()).abs() > 1e-3).flatten(1).any(1)
        return self.network(x).masked_fill(off[:, None], torch.nan)


class BatchStatistics(nn.Module):
    """BatchNorm in training mode, whatever mode is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.network = standard()

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        for part in self.network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.training = True
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class InnerLoop(nn.Module):
    """Moves its input before it answers: a purification by gradient descent."""

    def __init__(self) -> None:
        super().__init__()
        self.network = standard()

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            inner = x.detach().requires_grad_()
            (grad,) = torch.autograd.grad(self.network(inner).logsumexp(1).sum(), inner)
        return self.network(x + 0.01 * grad.sign())


def noise(x: Tensor) -> Tensor:
    return x + 0.05 * torch.randn_like(x)


def numpy_noise(x: Tensor) -> Tensor:
    return x + 0.05 * torch.from_numpy(np.random.standard_normal(x.shape)).to(x)


def defences(x: Tensor, y: Tensor) -> dict[str, tuple[str, Callable[[], nn.Module]]]:
    """By what they are: the finding that must name them, and how to make the model: nothing is trained before it is asked for.

    Args:
        x, y: images that one of them learns by heart, and their labels.
    """
    return {
        "quantized logits": ("quantized-logits", lambda: Around(after=lambda z: (10 * z).round() / 10)),
        "quantized input": ("quantized-input", lambda: Around(before=lambda x: (15 * x).round() / 15)),
        "quantized input by floor": ("quantized-input", lambda: Around(before=lambda x: (255 * x).floor() / 255)),
        "dropout at test time": ("random", lambda: Around(after=lambda z: F.dropout(z, 0.2, training=True))),
        "a noise layer": ("random", lambda: Around(before=noise)),
        "noise from numpy": ("random", lambda: Around(before=numpy_noise)),
        "saturated softmax": ("saturated", lambda: Around(after=lambda z: 1000 * z)),
        "detached preprocessing": ("no-gradient", lambda: Around(before=lambda x: x.detach())),
        "preprocessing by numpy": ("no-gradient", lambda: Around(before=lambda x: torch.from_numpy(x.detach().numpy()))),
        "whole numbers as logits": ("no-gradient", lambda: Around(after=lambda z: (10 * z).long())),
        "NaN off the grid": ("not-finite", lambda: OnGridOnly()),
        "infinite logits": ("not-finite", lambda: Around(after=lambda z: z.masked_fill(z == z.amax(1, keepdim=True), torch.inf))),
        "a table of test images": ("known-images", lambda: Table(x, y)),
        "a table of test images and their neighbours": ("quantized-input", lambda: Forgiving(x, y)),
        "whole numbers": ("quantized-logits", lambda: Around(after=lambda z: z.round())),
        "a memory": ("remembers", lambda: Remembering()),
        "BatchNorm in training mode": ("batch", lambda: BatchStatistics()),
        "softmax as logits": ("probabilities", lambda: Around(after=lambda z: z.softmax(1))),
        "an inner loop": ("dynamic", lambda: InnerLoop()),
        "values of 0 to 255": ("scaling", lambda: Around(before=lambda x: x / 255)),
        "normalization left out": ("scaling", lambda: Around(before=lambda x: 0.25 * x + 0.5)),
        "one answer": ("constant", lambda: Around(after=lambda z: 0 * z)),
        "zero gradients": ("zero-gradient", lambda: Around(before=lambda x: x.round())),
    }
