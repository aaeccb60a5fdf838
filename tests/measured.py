"""What tests of evaluation measure: some images in batches, labels of which three in four are right, and attacks that are watched."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from laws import images
from torch import Tensor, nn

from robustlab.attacks import PGD
from robustlab.norms import Norm
from robustlab.seeding import example_keys

X = images(24, 3, 8, 8)
INDEX = torch.arange(100, 124)


@dataclass(frozen=True)
class Batch:
    x: Tensor
    y: Tensor
    index: Tensor
    keys: Tensor


def cut(x: Tensor, y: Tensor, size: int = 10) -> list[Batch]:
    index, keys = INDEX[: len(x)], example_keys(0, INDEX[: len(x)])
    return [Batch(*columns) for columns in zip(x.split(size), y.split(size), index.split(size), keys.split(size), strict=True)]


def labelled(model: nn.Module) -> Tensor:
    """The model's predictions, every fourth one made wrong."""
    with torch.no_grad():
        y = model.eval()(X).argmax(1)
    return torch.where(torch.arange(len(X)) % 4 == 3, (y + 1) % 10, y)


def remembering(attack: PGD):
    """The attack, with a note of what it was asked and what it gave back."""
    calls = []

    class Remembering:
        threat = attack.threat

        def __call__(self, model, x, y, *, keys=None, fast_model=None):
            x_adv = attack(model, x, y, keys=keys, fast_model=fast_model)
            calls.append((x, y, keys, x_adv))
            return x_adv

        def __str__(self) -> str:
            return str(attack)

    return Remembering(), calls


@dataclass(frozen=True)
class Across:
    """The nearest adversarial image of a linear model of two classes, known in closed form, or the image itself where it fails."""

    norm: Norm
    fails: bool = False

    def __str__(self) -> str:
        return f"across ({type(self.norm).__name__})"

    def __call__(self, model, x, y, *, keys=None, fast_model=None):
        w = model.w.detach()[None].expand(len(x), -1)
        length = model.advantage(x, y).detach() / self.norm.dual.measure(w) * (1 + 1e-9)
        x_adv = x - ((2 * y - 1) * length)[:, None] * self.norm.steepest(w)
        return torch.where(self.kept(x), x, x_adv)

    def kept(self, x: Tensor) -> Tensor:
        """Which examples the attack fails on: known by their pixels, whatever the batch."""
        return (x[:, :1] * 1e6).floor() % 3 == 0 if self.fails else torch.zeros(len(x), 1, dtype=torch.bool)
