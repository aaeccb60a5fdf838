"""*Shapes*: an endless ten-class set in which the truth about features is known, after the model of Ilyas et al. (2019).

The class of a picture can be read from two features: a large visible shape, which no small perturbation can change
(robust), and a faint pattern at the finest scales that pixels can hold, which a small one erases (non-robust). Dials say
how often each feature tells the truth. A picture depends on nothing but the seed, the split and its own position.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.data.drawing import SHAPES, SIZE, attributes, draw, silhouette
from robustlab.data.imageset import ImageSet
from robustlab.errors import UserError
from robustlab.seeding import example_keys, fold, integers, uniform

CLASSES = tuple(SHAPES)


@dataclass(frozen=True)
class ShapesConfig:
    """How well each feature predicts the class.

    A feature shows the true class with the probability given, else one of the others, all equally likely; at 0.1 it is
    independent of the class.

    With the defaults the two ways of training part. A six-layer convolutional network, 8,000 pictures, 6 epochs, one
    seed, 1,000 test pictures: standard training reaches 94.5 % (PGD-20 at L2 0.5: 0.3 %), adversarial training at L2 0.5
    reaches 87.1 % (79.6 %). Where the features disagree, the first follows the faint one in 84 % of the pictures and the
    shape in 16 %, the second the shape in 97 % and the faint one in 10 %, which is chance.
    """

    visible_accuracy: float = 0.9
    faint_accuracy: float = 0.97
    faint_amplitude: float = 5 / 255  # root mean square of the pattern, in pixel units

    def __post_init__(self) -> None:
        for name in ("visible_accuracy", "faint_accuracy"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not 0 <= self.faint_amplitude <= 0.1:
            raise UserError(f"faint_amplitude must lie in [0, 0.1], got {self.faint_amplitude}")


DEFAULT = ShapesConfig()


def shapes(n: int, split: str = "train", seed: int = 0, config: ShapesConfig = DEFAULT) -> ImageSet:
    """The first ``n`` pictures of a split. Classes take turns, so any ten in a row hold each once.

    Args:
        n: how many.
        split: ``train``, ``test``, ``val`` or any other word: each has pictures of its own.
        seed: of all draws.
        config: how well each feature predicts the class.
    """
    index = torch.arange(n)
    return ImageSet(pixels_at(index, split, seed, config), index % len(CLASSES), CLASSES, "shapes")


def pixels_at(index: Tensor, split: str = "train", seed: int = 0, config: ShapesConfig = DEFAULT) -> Tensor:
    """The pictures at ``index``: uint8, shape ``(B, 3, 32, 32)``.

    Args:
        index: positions in the split, int64, shape ``(B,)``.
        split, seed, config: as for ``shapes``.
    """
    facts = truth(index, split, seed, config)
    return render(facts["visible_class"], facts["faint_class"], index, split, seed, config)


def truth(index: Tensor, split: str = "train", seed: int = 0, config: ShapesConfig = DEFAULT) -> dict[str, Tensor]:
    """What is in the pictures at ``index``.

    Args:
        index: positions in the split, int64, shape ``(B,)``.
        split, seed, config: as for ``shapes``.

    Returns:
        ``visible_class`` and ``faint_class``, int64, and the ``ATTRIBUTES``, bool; each of shape ``(B,)``.
    """
    keys = _keys(index, split, seed)
    label = index % len(CLASSES)
    return {
        "visible_class": _shown(label, config.visible_accuracy, fold(keys, "visible")),
        "faint_class": _shown(label, config.faint_accuracy, fold(keys, "faint")),
        **attributes(keys),
    }


def render(
    visible: Tensor, faint: Tensor, index: Tensor, split: str = "train", seed: int = 0, config: ShapesConfig = DEFAULT, chunk: int = 128
) -> Tensor:
    """The pictures at ``index`` with both features chosen freely.

    Args:
        visible, faint: classes to show, int64, shape ``(B,)``.
        index: positions, int64, shape ``(B,)``; all but the two features stays what it is in the dataset.
        split, seed, config: as for ``shapes``.
        chunk: how many to draw at a time.

    Returns:
        Pixels, uint8, shape ``(B, 3, 32, 32)``.
    """
    pattern = config.faint_amplitude * templates()
    pixels = torch.empty(len(index), 3, SIZE, SIZE, dtype=torch.uint8)
    keys = _keys(index, split, seed)
    for part in torch.arange(len(index)).split(chunk):
        picture = draw(visible[part], keys[part]) + pattern[faint[part]]
        pixels[part] = (picture * 255).round_().clamp_(0, 255).to(torch.uint8)
    return pixels


def contradictions(n: int, config: ShapesConfig = DEFAULT) -> tuple[Tensor, Tensor, Tensor]:
    """The first ``n`` test pictures, drawn with the shape of one class and the faint pattern of another.

    Returns:
        Pixels, uint8 ``(N, 3, 32, 32)``; the class of the shape and that of the pattern, int64 ``(N,)`` each.
    """
    shape, pattern = two_classes(n)
    return render(shape, pattern, torch.arange(n), "test", config=config), shape, pattern


def two_classes(n: int) -> tuple[Tensor, Tensor]:
    """The classes of the first ``n`` pictures, and for each picture another class: int64 ``(N,)`` both."""
    index = torch.arange(n)
    own = index % len(CLASSES)
    return own, (own + 1 + integers(fold(example_keys(0, index), "contradiction"), len(CLASSES) - 1)) % len(CLASSES)


def silhouettes(index: Tensor, split: str = "train", seed: int = 0, config: ShapesConfig = DEFAULT) -> Tensor:
    """Where the visible shape is in the pictures at ``index``: bool, shape ``(B, 32, 32)``.

    Args:
        index: positions in the split, int64, shape ``(B,)``.
        split, seed, config: as for ``shapes``.
    """
    return silhouette(truth(index, split, seed, config)["visible_class"], _keys(index, split, seed))


def templates() -> Tensor:
    """The faint pattern of each class: float32, ``(10, 3, 32, 32)``, mean 0, root mean square 1, orthogonal to each other.

    Five gratings of 2 or 4 pixels' period, each in grey and in red against green. Shifted or mirrored, a grating
    stays one of its own class, so cropping and flipping keep the label right.
    """
    row, column = torch.arange(SIZE)[:, None], torch.arange(SIZE)
    quarter_turns = torch.stack([2 * row + 0 * column, 0 * row + 2 * column, 2 * row + 2 * column, row + 2 * column, 2 * row + column])
    gratings = 1.0 - (quarter_turns // 2 % 2) * 2  # (5, H, W), +1 or -1
    grey, red_green = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([1.0, -1.0, 0.0]) * 1.5**0.5
    return torch.cat([grating[None] * color[:, None, None] for grating in gratings for color in (grey, red_green)]).view(-1, 3, SIZE, SIZE)


def _keys(index: Tensor, split: str, seed: int) -> Tensor:
    return fold(example_keys(seed, index), "shapes", split)


def _shown(label: Tensor, accuracy: float, keys: Tensor) -> Tensor:
    """The label with probability ``accuracy``, else another class."""
    honest = uniform(fold(keys, "honest"), ()) < accuracy
    other = label + 1 + integers(fold(keys, "other"), len(CLASSES) - 1)
    return torch.where(honest, label, other % len(CLASSES))
