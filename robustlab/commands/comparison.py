"""What ``quickstart`` finds out about a standard and a robust model: accuracies under attack, pictures, and who follows which feature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustlab import pictures
from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.data.batches import Batches
from robustlab.data.imageset import Images, hold_out
from robustlab.data.shapes import CLASSES, render, templates
from robustlab.evaluation import Rate, Report, curve, evaluate, predictions
from robustlab.experiments.known_features import contradictions, follows
from robustlab.goals import Targeted
from robustlab.models.accelerate import accelerate
from robustlab.models.frozen import frozen
from robustlab.norms import L2, Linf
from robustlab.objectives import goal_objective, value_and_gradient
from robustlab.pixels import to_float

ATTACK = PGD(ThreatModel(L2(), 0.5), steps=20)
RADII = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)
CURVE_IMAGES = 400
COLUMNS = 6  # images on the page


@dataclass(frozen=True)
class Measured:
    """Numbers of one model.

    Attributes:
        report: the test images, clean and under ``ATTACK``.
        curve: from eps to accuracy on some of them.
        follows: of images whose two features disagree, how many are classified by each; empty unless the data are shapes.
    """

    report: Report
    curve: dict[float, Rate]
    follows: dict[str, Rate]


@dataclass(frozen=True)
class Cell:
    """An image with what stands under it; without a picture, words only."""

    picture: Tensor | None  # (C, H, W) in [0, 1]
    caption: str
    alt: str = ""
    tone: str = ""  # "right", "wrong", "shape" or "pattern": how the caption is coloured


@dataclass(frozen=True)
class Row:
    """Cells beside each other; rows of one section stand in the same columns."""

    title: str
    cells: tuple[Cell, ...]


def measure(
    model: nn.Module, test: Images, *, features_known: bool, bfloat16: bool, on_images: Callable[[int], object], **batches: Any
) -> Measured:
    """Attack one model.

    Args:
        features_known: the images are *shapes*, so ask also which feature the model follows.
        bfloat16: search in bfloat16; success is judged in float32 all the same.
        on_images: told how many more images are done, of ``len(test) + min(CURVE_IMAGES, len(test))``.
        batches: how to cut the images, see ``Batches``.
    """
    fast_model = accelerate(model, dtype=torch.bfloat16 if bfloat16 else None)
    everything = Batches(test, 250, **batches)
    some = Batches(test.subset(hold_out(test, min(CURVE_IMAGES, len(test)), seed=0)[1]), 200, **batches)
    report = evaluate(model, everything.epoch(0), [ATTACK], fast_model=fast_model, on_batch=lambda found: on_images(len(found)))
    rates = curve(model, lambda: some.epoch(0), ATTACK, RADII, fast_model=fast_model, on_batch=on_images)
    return Measured(report, rates, follows(model, len(test), some.device) if features_known else {})


def columns(labels: Tensor, recognized: Tensor, num_classes: int) -> Tensor:
    """Which images to show: classes spread evenly, and of each class the first image that is ``recognized``, bool ``(N,)``, if any."""
    left = [*recognized.nonzero()[:, 0].tolist(), *(~recognized).nonzero()[:, 0].tolist()]
    chosen = []
    for place in range(min(COLUMNS, len(left))):
        args = place * num_classes // COLUMNS if num_classes > COLUMNS else place % num_classes
        chosen.append(next((i for i in left if labels[i] == args), left[0]))
        left.remove(chosen[-1])
    return torch.tensor(chosen, dtype=torch.int64)


def attack_rows(models: Mapping[str, nn.Module], x: Tensor, y: Tensor, keys: Tensor, classes: tuple[str, ...]) -> list[Row]:
    """The images; and for each model the attacked images with its predictions, and the differences."""
    rows = [_images(x, y, classes)]
    for name, model in models.items():
        x_adv = ATTACK(model, x, y, keys=keys)
        with frozen(model):
            found = predictions(model, x_adv)
        says = [
            Cell(
                picture,
                classes[k],
                f"the image of {classes[label]} after the attack, which the {name} model takes for {classes[k]}",
                "right" if k == label else "wrong",
            )
            for picture, k, label in zip(x_adv, found.tolist(), y.tolist(), strict=True)
        ]
        delta = x_adv - x
        factors = (0.5 / Linf().measure(delta).clamp_min(1e-12)).tolist()
        changed = [
            Cell(picture, f"\N{MULTIPLICATION SIGN}{factor:.0f}" if factor < 1e6 else "none", "the change alone, amplified around grey")
            for picture, factor in zip(pictures.amplified(delta), factors, strict=True)
        ]
        rows += [Row(f"Attacked; what the {name} model says now", tuple(says)), Row("That change, amplified", tuple(changed))]
    return rows


def gradient_rows(models: Mapping[str, nn.Module], x: Tensor, y: Tensor, classes: tuple[str, ...]) -> list[Row]:
    """The images, and for each model the gradient of its loss with respect to them."""
    rows = [_images(x, y, classes)]
    for name, model in models.items():
        with frozen(model):
            _, _, grad = value_and_gradient(goal_objective(model, Targeted(y)), x)
        cells = [
            Cell(picture, "", f"input gradient of the {name} model for an image of {classes[label]}")
            for picture, label in zip(pictures.gradient_picture(grad), y.tolist(), strict=True)
        ]
        rows.append(Row(f"Input gradient of the {name} model", tuple(cells)))
    return rows


def contradiction_rows(models: Mapping[str, nn.Module], device: torch.device) -> list[Row]:
    """Pictures whose two features disagree, the patterns in them, and whom each model believes."""
    pixels, shape, pattern = contradictions(5 * len(CLASSES))
    # Every seventh: each class of shape appears once before any appears twice.
    index = torch.arange(COLUMNS) * 7
    x, shapes, patterns = to_float(pixels[index]).to(device), shape[index].tolist(), pattern[index].tolist()
    drawn = 0.5 + 0.4 * templates()[patterns].clamp(-1, 1)
    seen = [Cell(picture, CLASSES[k], f"a picture of {CLASSES[k]}", "shape") for picture, k in zip(x, shapes, strict=True)]
    hidden = [Cell(picture, CLASSES[k], f"the pattern of {CLASSES[k]}", "pattern") for picture, k in zip(drawn, patterns, strict=True)]
    rows = [Row("What you see", tuple(seen)), Row("The faint pattern in it, made visible", tuple(hidden))]
    for name, model in models.items():
        with frozen(model):
            found = predictions(model, x).tolist()
        tones = ["shape" if k == s else "pattern" if k == p else "" for k, s, p in zip(found, shapes, patterns, strict=True)]
        rows.append(Row(f"The {name} model says", tuple(Cell(None, CLASSES[k], tone=tone) for k, tone in zip(found, tones, strict=True))))
    return rows


def exchange_lengths(n: int = 200) -> dict[str, float]:
    """How far a picture of *shapes* moves in L2, in the median, when its shape or its pattern becomes another class's."""
    index = torch.arange(n)
    own = index % len(CLASSES)
    _, _, other = contradictions(n)
    both, shape, pattern = (to_float(render(a, b, index, "test")) for a, b in ((own, own), (other, own), (own, other)))
    return {"shape": float(L2().measure(shape - both).median()), "pattern": float(L2().measure(pattern - both).median())}


def _images(x: Tensor, y: Tensor, classes: tuple[str, ...]) -> Row:
    return Row("Image", tuple(Cell(p, classes[k], f"test image of {classes[k]}") for p, k in zip(x, y.tolist(), strict=True)))


def sheet(rows: list[Row]) -> Tensor:
    """The pictures of the rows as one, float ``(3, H, W)``."""
    pictured = [torch.stack([cell.picture.cpu() for cell in row.cells if cell.picture is not None]) for row in rows if _shows(row)]
    return pictures.sheet(pictured, max(1, 96 // pictured[0].shape[-1]))


def _shows(row: Row) -> bool:
    return all(cell.picture is not None for cell in row.cells)
