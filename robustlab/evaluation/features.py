"""Which feature of *shapes* a model follows, the visible shape or the faint pattern: measured on pictures in which the two disagree."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from robustlab.data.shapes import DEFAULT, ShapesConfig, contradictions, render, two_classes
from robustlab.evaluation.accuracy import predictions
from robustlab.evaluation.rates import Rate
from robustlab.models.frozen import frozen
from robustlab.pixels import to_float

FEATURES = ("shape", "pattern")


def follows(model: nn.Module, n: int, device: torch.device | str, config: ShapesConfig = DEFAULT) -> dict[str, Rate]:
    """Of ``n`` pictures with the shape of one class and the pattern of another, how many a model classifies by each of ``FEATURES``.

    Args:
        model: maps images ``(B, 3, 32, 32)`` in [0, 1] to logits ``(B, 10)``; it is left as it was.
        n: number of pictures.
        device: where the model is.
        config: how the pictures are drawn.
    """
    pixels, shape, pattern = contradictions(n, config)
    found = _predicted(model, pixels, device)
    return {"shape": Rate(int((found == shape).sum()), n), "pattern": Rate(int((found == pattern).sum()), n)}


def moved_by(model: nn.Module, n: int, device: torch.device | str, config: ShapesConfig = DEFAULT) -> dict[str, Rate]:
    """Of ``n`` pictures in which one of ``FEATURES`` was exchanged for another class's, how many a model classifies as that class.

    For the arguments see ``follows``. Both features show one class before the exchange.
    """
    own, other = two_classes(n)
    swaps = {"shape": (other, own), "pattern": (own, other)}
    found = {name: _predicted(model, render(*swap, torch.arange(n), "test", config=config), device) for name, swap in swaps.items()}
    return {name: Rate(int((predicted == other).sum()), n) for name, predicted in found.items()}


def _predicted(model: nn.Module, pixels: Tensor, device: torch.device | str) -> Tensor:
    with frozen(model):
        return torch.cat([predictions(model, to_float(part.to(device))).cpu() for part in pixels.split(250)])
