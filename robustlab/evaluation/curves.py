"""Accuracy over radii: a security curve."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor

from robustlab.attacks.protocols import Attack, MinimumNormAttack, Model, with_eps
from robustlab.checks import check_images, check_labels
from robustlab.constraints import ThreatModel
from robustlab.data.adapt import Data
from robustlab.data.batches import Batch
from robustlab.errors import UserError
from robustlab.evaluation.accuracy import AnyAttack, attacks_of, checked_distance, predictions, prepared, threat_of
from robustlab.evaluation.rates import Rate
from robustlab.models.frozen import frozen
from robustlab.progress import Progress


def curve(
    model: Model,
    data: Data | Callable[[], Iterable[Batch]],
    attack: str | AnyAttack,
    radii: Sequence[float],
    *,
    threat: ThreatModel | None = None,
    batch_size: int = 250,
    seed: int = 0,
    device: torch.device | str | None = None,
    workers: int = 0,
    fast_model: Model | None = None,
    progress: bool | None = None,
    on_batch: Callable[[int], object] | None = None,
    on_standing: Callable[[int, list[int]], object] | None = None,
) -> dict[float, Rate]:
    """Accuracy over radii, in one pass over the data.

    An attack within a threat model is run anew at each radius, on the examples that stand: an example broken at a radius is
    broken at every larger one. A minimum-norm attack is run once and gives the whole curve.

    Args:
        model: maps images in [0, 1], shape ``(B, ...)``, to logits ``(B, K)``; an ``nn.Module`` or any other function.
        data: as for ``evaluate``; or a function that gives it.
        attack: an attack or its name. Within a threat model: a dataclass whose ``threat`` is replaced for each radius; a
            ``step_size`` of None scales along.
        radii: in pixel units, in the attack's norm, >= 0.
        threat: the norm of an attack that is given by name; its eps does not matter.
        batch_size, seed, device, workers, fast_model: as for ``evaluate``.
        progress: show how far it is; where left out, unless ``on_batch`` is given.
        on_batch: called with the number of examples in each batch.
        on_standing: called with that number and how many of them stand at each radius, ascending.

    Returns:
        From radius to accuracy, ascending; never increasing.

    Raises:
        UserError: a radius that is negative or not finite; and as for ``evaluate``.
    """
    chosen, *others = attacks_of(attack, threat).values()
    if others:
        raise UserError(f"a curve is of one attack, got {1 + len(others)}")
    ascending = _ascending(radii)
    count = _counter(chosen, ascending)
    found = data() if callable(data) else data
    stream = prepared(model, found, batch_size=batch_size, seed=seed, device=device, workers=workers)
    standing, n = dict.fromkeys(ascending, 0), 0
    with frozen(model), Progress("curve", stream.n, "img", shown=on_batch is None if progress is None else progress) as shown:
        for batch in stream:
            check_images(batch.x)
            right = (predictions(model, batch.x, check_labels(batch.y, batch.x)) == batch.y).nonzero()[:, 0]
            counted = count(model, batch, right, fast_model)
            for eps, left in zip(ascending, counted, strict=True):
                standing[eps] += left
            if on_standing:
                on_standing(len(batch.x), counted)
            n += len(batch.x)
            shown.update(len(batch.x))
            if on_batch:
                on_batch(len(batch.x))
    return {eps: Rate(count, n) for eps, count in standing.items()}


def _counter(attack: AnyAttack, radii: Sequence[float]) -> Callable[[Model, Batch, Tensor, Model | None], list[int]]:
    """How to count the examples of a batch that stand at each radius."""
    if threat_of(attack):
        return partial(_standing, [with_eps(cast(Attack, attack), eps) for eps in radii])
    return partial(_farther, cast(MinimumNormAttack, attack), radii)


def _ascending(radii: Iterable[float]) -> list[float]:
    """The radii in order, each once."""
    ascending = sorted(set(radii))
    for radius in ascending:
        if not (math.isfinite(radius) and radius >= 0):
            raise UserError(f"a radius must be a finite number >= 0 in pixel units of [0, 1] images, got {radius}")
    return ascending


def _standing(attacks: Sequence[Attack], model: Model, batch: Batch, right: Tensor, fast_model: Model | None) -> list[int]:
    """How many examples stand after each attack, of rising radius; what is broken is not attacked again."""
    counts = []
    for attack in attacks:
        if attack.threat.eps > 0 and len(right):
            x, y = batch.x[right], batch.y[right]
            x_adv = attack(model, x, y, keys=batch.keys[right], fast_model=fast_model)
            checked_distance(attack, x, x_adv)
            right = right[predictions(model, x_adv) == y]
        counts.append(len(right))
    return counts


def _farther(
    attack: MinimumNormAttack, radii: Sequence[float], model: Model, batch: Batch, right: Tensor, fast_model: Model | None
) -> list[int]:
    """How many correctly classified examples have no adversarial image within each radius that the attack found."""
    if not len(right):
        return [0] * len(radii)
    x, y = batch.x[right], batch.y[right]
    x_adv = attack(model, x, y, keys=batch.keys[right], fast_model=fast_model)
    distance = checked_distance(attack, x, x_adv)
    stands = predictions(model, x_adv) == y
    return [int((stands | (distance > radius)).sum()) for radius in radii]
