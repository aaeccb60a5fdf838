"""An attack to look at: the original with the model's answer, what was added, made visible, and the adversarial image with its answer."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab import pictures
from robustlab.errors import UserError
from robustlab.evaluation.adversarial import AdversarialImages

WIDTH = 120  # pixels: images are at least this wide


def adversarial_grid(found: AdversarialImages, images: int = 6) -> Tensor:
    """A picture ``(3, H, W)`` of some images before and after an attack, a column for each.

    Shown are images on which the attack succeeded, of as many classes as there are; only if these are too few, others too.

    Args:
        found: what the attack returned.
        images: at most so many.

    Raises:
        UserError: no image was attacked, or images have neither 1 nor 3 channels.
    """
    if not len(found):
        raise UserError("there is nothing to show: no image was attacked")
    if not found.are_pictures:
        raise UserError(f"only images of 1 or 3 channels can be shown, got shape {tuple(found.x.shape[1:])}")
    chosen = _chosen(found, images)
    x, x_adv = found.x[chosen], found.x_adv[chosen]
    enlarged = [f"enlarged {factor:.3g}x" for factor in pictures.amplification(x_adv - x).tolist()]
    colors = [pictures.ALARM if broken else pictures.INK for broken in found.broken[chosen].tolist()]
    rows = [
        pictures.Row("original", x, _answers(found, found.label[chosen], found.confidence[chosen])),
        pictures.Row("+ change", pictures.amplified(x_adv - x), enlarged, [pictures.FAINT] * len(x)),
        pictures.Row("= adversarial", x_adv, _answers(found, found.prediction_adv[chosen], found.confidence_adv[chosen]), colors),
    ]
    return pictures.captioned(rows, pictures.fitting_scale(x.shape[-1], WIDTH))


def _answers(found: AdversarialImages, classes: Tensor, confidence: Tensor) -> list[str]:
    return [f"{found.class_name(label)} {100 * sure:.0f} %" for label, sure in zip(classes.tolist(), confidence.tolist(), strict=True)]


def _chosen(found: AdversarialImages, count: int) -> Tensor:
    """Positions of broken images first; among them one of each class, then another of each, in the data's order."""
    seen: dict[tuple[bool, int], int] = {}
    ranked = []
    for position, (broken, label) in enumerate(zip(found.broken.tolist(), found.label.tolist(), strict=True)):
        turn = seen[broken, label] = seen.get((broken, label), -1) + 1
        ranked.append((not broken, turn, label, position))
    return torch.tensor([position for *_, position in sorted(ranked)[:count]], dtype=torch.int64)
