"""A standard and a robust model side by side: accuracies under attack, pictures, and which of two known features each model follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from robustlab import pictures
from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.data.batches import Batches
from robustlab.data.imageset import Images, hold_out
from robustlab.data.shapes import CLASSES, contradictions, render, templates, two_classes
from robustlab.evaluation import Rate, Report, curve, evaluate, predictions
from robustlab.evaluation.features import follows
from robustlab.goals import Targeted
from robustlab.models.accelerate import accelerate
from robustlab.models.frozen import frozen
from robustlab.norms import L2, Linf
from robustlab.objectives import goal_objective, value_and_gradient
from robustlab.pixels import to_float

ATTACK = PGD(ThreatModel(L2(), 0.5), steps=20)
RADII = (0.0, 0.125, 0.25, 0.5, 0.75, 1.0)
CURVE_IMAGES = 400
COLUMNS = 6  # images that are shown
UNCLEAR = "too little training, too few test images, or changes too small to matter on these data"


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
class CaptionedPicture:
    """A picture with the words under it; without a picture, words only.

    Attributes:
        picture: float ``(C, H, W)`` in [0, 1].
        alt: what a screen reader says instead of the picture.
        tone: how the caption is coloured: ``right``, ``wrong``, ``shape``, ``pattern``, or as all text.
    """

    picture: Tensor | None
    caption: str
    alt: str = ""
    tone: str = ""


@dataclass(frozen=True)
class PictureRow:
    """Pictures beside each other; rows of one section stand in the same columns."""

    title: str
    pictures: tuple[CaptionedPicture, ...]


def measure(
    model: nn.Module,
    test: Images,
    *,
    features_known: bool,
    bfloat16: bool,
    seed: int = 0,
    device: torch.device | str = "cpu",
    workers: int = 0,
    on_images: Callable[[int], object] = lambda n: None,
) -> Measured:
    """Attack one model.

    Args:
        model: maps images in [0, 1] to logits; it is left as it was.
        test: images that it was not trained on.
        features_known: the images are *shapes*, so ask also which feature the model follows.
        bfloat16: attack in bfloat16; success is judged in the model's own precision all the same.
        seed: of the attack's random starts.
        device: where the model is.
        workers: processes that read images ahead.
        on_images: told how many more images are done, of ``len(test) + min(CURVE_IMAGES, len(test))``.
    """
    fast_model = accelerate(model, dtype=torch.bfloat16 if bfloat16 else None)
    options: dict[str, Any] = {"seed": seed, "device": device, "workers": workers}
    everything = Batches(test, 250, **options)
    some = Batches(test.subset(hold_out(test, min(CURVE_IMAGES, len(test)), seed=0)[1]), 200, **options)
    report = evaluate(model, everything.epoch(0), [ATTACK], fast_model=fast_model, on_batch=lambda found: on_images(len(found)))
    rates = curve(model, lambda: some.epoch(0), ATTACK, RADII, fast_model=fast_model, on_batch=on_images)
    return Measured(report, rates, follows(model, len(test), device) if features_known else {})


def clear(models: Mapping[str, Any], attack: str) -> bool:
    """Whether the robust model is better under attack beyond doubt: the 95 % intervals do not touch.

    Args:
        models: ``standard`` and ``robust``, as in ``results.json``.
        attack: the name of its accuracies there.
    """
    standard, robust = (models[name]["accuracies"][attack]["interval95"] for name in ("standard", "robust"))
    return robust[0] > standard[1]


def summary(results: Mapping[str, Any]) -> str:
    """What ``results.json`` holds as a table for the terminal, a line for each measurement and a column for each model."""
    models, attack = results["models"], results["attack"]
    lines = [("clean", "accuracies", "clean"), (f"attacked: {attack}", "accuracies", attack)]
    lines += [(f"follows the {feature}", "follows", feature) for feature in models["standard"]["follows"]]
    told = [f"{'':<32}" + "".join(f"{name:<26}" for name in models).rstrip()]
    for title, kind, name in lines:
        told.append(f"{title:<32}" + "".join(f"{_with_interval(model[kind][name]):<26}" for model in models.values()).rstrip())
    n = models["standard"]["accuracies"]["clean"]["n"]
    told.append(f"accuracy on {n} test images of {results['dataset']}, with 95 % intervals")
    if models["standard"]["follows"]:
        told.append("follows: of as many pictures with the shape of one class and the faint pattern of another")
    if not clear(models, attack):
        told.append(f"under attack the two do not differ beyond doubt: {UNCLEAR}")
    return "\n".join(told)


def _with_interval(rate: Mapping[str, Any]) -> str:
    low, high = rate["interval95"]
    return f"{100 * rate['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def columns(labels: Tensor, recognized: Tensor, num_classes: int) -> Tensor:
    """Which images to show: classes spread evenly, and of each class the first image that is ``recognized``, if any.

    Args:
        labels: int64 ``(N,)``.
        recognized: bool ``(N,)``.

    Returns:
        At most ``COLUMNS`` different positions, int64.
    """
    left = [*recognized.nonzero()[:, 0].tolist(), *(~recognized).nonzero()[:, 0].tolist()]
    chosen = []
    for place in range(min(COLUMNS, len(left))):
        label = place * num_classes // COLUMNS if num_classes > COLUMNS else place % num_classes
        chosen.append(next((i for i in left if labels[i] == label), left[0]))
        left.remove(chosen[-1])
    return torch.tensor(chosen, dtype=torch.int64)


def attack_rows(models: Mapping[str, nn.Module], x: Tensor, y: Tensor, keys: Tensor, classes: Sequence[str]) -> list[PictureRow]:
    """The images; and for each model the attacked images with its predictions, and the changes alone.

    Args:
        x: images in [0, 1], ``(B, C, H, W)``.
        y: labels, int64 ``(B,)``.
        keys: random keys of the images, see ``robustlab.seeding``.
        classes: their names.
    """
    rows = [_images(x, y, classes)]
    for name, model in models.items():
        x_adv = ATTACK(model, x, y, keys=keys)
        with frozen(model):
            found = predictions(model, x_adv)
        attacked = [
            CaptionedPicture(
                picture,
                classes[k],
                f"the image of {classes[label]} after the attack, which the {name} model classifies as {classes[k]}",
                "right" if k == label else "wrong",
            )
            for picture, k, label in zip(x_adv, found.tolist(), y.tolist(), strict=True)
        ]
        delta = x_adv - x
        factors = (0.5 / Linf().measure(delta).clamp_min(1e-12)).tolist()
        changes = [
            CaptionedPicture(
                picture,
                f"\N{MULTIPLICATION SIGN}{factor:.0f}" if factor < 1e6 else "none",
                "the change alone, amplified around grey",
            )
            for picture, factor in zip(pictures.amplified(delta), factors, strict=True)
        ]
        rows += [PictureRow(f"Attacked; what the {name} model says now", tuple(attacked))]
        rows += [PictureRow("That change, amplified", tuple(changes))]
    return rows


def gradient_rows(models: Mapping[str, nn.Module], x: Tensor, y: Tensor, classes: Sequence[str]) -> list[PictureRow]:
    """The images, and for each model the gradient of its loss with respect to them; for the arguments see ``attack_rows``."""
    rows = [_images(x, y, classes)]
    for name, model in models.items():
        with frozen(model):
            _, _, grad = value_and_gradient(goal_objective(model, Targeted(y)), x)
        gradients = [
            CaptionedPicture(picture, "", f"input gradient of the {name} model for an image of {classes[label]}")
            for picture, label in zip(pictures.gradient_picture(grad), y.tolist(), strict=True)
        ]
        rows.append(PictureRow(f"Input gradient of the {name} model", tuple(gradients)))
    return rows


def contradiction_rows(models: Mapping[str, nn.Module], device: torch.device | str) -> list[PictureRow]:
    """Pictures of *shapes* whose two features disagree, the patterns in them, and which of the two each model follows."""
    pixels, shape, pattern = contradictions(5 * len(CLASSES))
    # Every seventh: each class of shape appears once before any appears twice.
    index = torch.arange(COLUMNS) * 7
    x, shapes, patterns = to_float(pixels[index]).to(device), shape[index].tolist(), pattern[index].tolist()
    drawn = 0.5 + 0.4 * templates()[patterns].clamp(-1, 1)
    seen = [CaptionedPicture(picture, CLASSES[k], f"a picture of {CLASSES[k]}", "shape") for picture, k in zip(x, shapes, strict=True)]
    hidden = [
        CaptionedPicture(picture, CLASSES[k], f"the pattern of {CLASSES[k]}", "pattern") for picture, k in zip(drawn, patterns, strict=True)
    ]
    rows = [PictureRow("What you see", tuple(seen)), PictureRow("The faint pattern in it, made visible", tuple(hidden))]
    for name, model in models.items():
        with frozen(model):
            found = predictions(model, x).tolist()
        tones = ["shape" if k == s else "pattern" if k == p else "" for k, s, p in zip(found, shapes, patterns, strict=True)]
        answers = [CaptionedPicture(None, CLASSES[k], tone=tone) for k, tone in zip(found, tones, strict=True)]
        rows.append(PictureRow(f"The {name} model says", tuple(answers)))
    return rows


def exchange_lengths(n: int = 200) -> dict[str, float]:
    """How far ``n`` pictures of *shapes* move when their shape, or their pattern, becomes another class's: median L2, in pixel units."""
    index = torch.arange(n)
    own, other = two_classes(n)
    both, shape, pattern = (to_float(render(a, b, index, "test")) for a, b in ((own, own), (other, own), (own, other)))
    return {"shape": float(L2().measure(shape - both).median()), "pattern": float(L2().measure(pattern - both).median())}


def sheet_of_rows(rows: Sequence[PictureRow]) -> Tensor:
    """The pictures of the rows as one, float ``(3, H, W)`` in [0, 1]; rows of words are left out."""
    shown = [[each.picture.cpu() for each in row.pictures if each.picture is not None] for row in rows]
    pictured = [torch.stack(row) for row in shown if row]
    return pictures.sheet(pictured, max(1, 96 // pictured[0].shape[-1]))


def _images(x: Tensor, y: Tensor, classes: Sequence[str]) -> PictureRow:
    shown = (CaptionedPicture(p, classes[k], f"test image of {classes[k]}") for p, k in zip(x, y.tolist(), strict=True))
    return PictureRow("Image", tuple(shown))
