"""How near attacks come to the best that is known, over all radii at once (Cinà et al. 2025, AttackBench)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from robustlab.errors import UserError


def optimality(distances: Mapping[str, Tensor]) -> dict[str, float]:
    """The local optimality of minimum-norm attacks on one model, each from 0 to 1.

    The best that is known of an image is the nearest point that any of the attacks found. Up to the radius where the best leaves no image
    standing, an attack's curve of accuracy over eps covers a part of the rectangle under the clean accuracy; its optimality is what
    it takes away of the rectangle, as a share of what the best takes away. It is 1 for an attack that finds the best of every image,
    and 0 for one that finds nothing within that radius.

    Args:
        distances: by name of an attack, how far the nearest adversarial point is that it found, float ``(N,)``, in pixel units;
            infinite where it found none. Only of the images that the model classifies correctly, in the same order.

    Returns:
        A number for each attack; where the best is equally far for all images, 1 for attacks that find it everywhere and else 0.

    Raises:
        UserError: no attack or no image; distances that are negative, NaN or of different images; no adversarial point of any image.
    """
    if not distances:
        raise UserError("optimality compares attacks: give the distances of at least one")
    shapes = {tuple(found.shape) for found in distances.values()}
    if len(shapes) > 1 or len(next(iter(shapes))) != 1 or shapes == {(0,)}:
        shown = ", ".join(f"{name}: {tuple(found.shape)}" for name, found in distances.items())
        raise UserError(f"optimality needs the distances of the same images for each attack, shape (N,) with N >= 1, got {shown}")
    for name, found in distances.items():
        if not (found >= 0).all():
            raise UserError(f"distances must be >= 0 in pixel units, or infinite where nothing was found; those of {name} are not")
    every = torch.stack([found.double().cpu() for found in distances.values()])
    best = every.min(0).values
    if not best.isfinite().any():
        raise UserError("no attack found an adversarial point of any image, so there is no best to compare with")
    reach = best[best.isfinite()].max()
    taken, most = (reach - every.clamp(max=reach)).sum(1), (reach - best.clamp(max=reach)).sum()
    shares = taken / most if most > 0 else (every <= best).all(1).double()
    return dict(zip(distances, shares.tolist(), strict=True))
