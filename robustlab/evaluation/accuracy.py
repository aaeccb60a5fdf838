"""Accuracy under attack, with one record per example and an interval around every number."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from robustlab.attacks import PGD, Attack
from robustlab.checks import check_images, check_labels, with_logit_checks
from robustlab.errors import UserError
from robustlab.models.frozen import frozen


class Examples(Protocol):
    """A batch: ``x`` in [0, 1], ``y``, positions ``index`` in the dataset, and random ``keys``."""

    @property
    def x(self) -> Tensor: ...
    @property
    def y(self) -> Tensor: ...
    @property
    def index(self) -> Tensor: ...
    @property
    def keys(self) -> Tensor: ...


@dataclass(frozen=True)
class Rate:
    """A share of ``n`` examples, with Wilson's 95 % interval (Wilson 1927)."""

    count: int
    n: int

    @property
    def value(self) -> float:
        """``count / n``; 0 for no examples."""
        return self.count / self.n if self.n else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end; (0, 1) for no examples."""
        if not self.n:
            return 0.0, 1.0
        z2 = 1.959963984540054**2
        middle = (self.count + z2 / 2) / (self.n + z2)
        half = math.sqrt(z2 * (self.value * (1 - self.value) * self.n + z2 / 4)) / (self.n + z2)
        return max(middle - half, 0.0), min(middle + half, 1.0)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.2f} % [{100 * low:.2f}, {100 * high:.2f}] (n = {self.n})"

    def to_json(self) -> dict[str, Any]:
        return {"accuracy": self.value, "interval95": list(self.interval), "n": self.n}


@dataclass(frozen=True)
class Attacked:
    """What one attack did to one example that was classified correctly.

    Attributes:
        prediction: the class predicted after the attack, by a forward pass of the model itself in evaluation mode.
        distance: ``‖x_adv - x‖`` in the attack's norm, in pixel units, measured in float64.
    """

    prediction: int
    distance: float


@dataclass(frozen=True)
class Record:
    """One example: its position in the dataset, label, prediction, and what each attack made of it."""

    index: int
    label: int
    prediction: int
    attacks: dict[str, Attacked]

    @property
    def broken_by(self) -> str | None:
        """The first attack that changed a correct prediction; ``"clean"`` if there was none; None if all failed."""
        if self.prediction != self.label:
            return "clean"
        return next((name for name, found in self.attacks.items() if found.prediction != self.label), None)

    def to_json(self) -> dict[str, Any]:
        attacks = {name: vars(found) for name, found in self.attacks.items()}
        return {"index": self.index, "label": self.label, "prediction": self.prediction, "broken_by": self.broken_by, "attacks": attacks}


@dataclass(frozen=True)
class Report:
    """All examples of an evaluation. Every accuracy under attack bears the name of the attacks that made it."""

    attacks: tuple[str, ...]
    records: tuple[Record, ...]

    @property
    def clean(self) -> Rate:
        return Rate(sum(r.prediction == r.label for r in self.records), len(self.records))

    def under(self, attack: str) -> Rate:
        """Accuracy under one attack: correct before it and after it."""
        return Rate(sum(attack in r.attacks and r.attacks[attack].prediction == r.label for r in self.records), len(self.records))

    @property
    def worst(self) -> Rate:
        """Accuracy under the worst of all the attacks, example by example."""
        return Rate(sum(r.broken_by is None for r in self.records), len(self.records))

    def rates(self) -> dict[str, Rate]:
        """Clean, under each attack, and with several attacks under the worst of them."""
        worst = {"worst of " + ", ".join(self.attacks): self.worst} if len(self.attacks) > 1 else {}
        return {"clean": self.clean, **{name: self.under(name) for name in self.attacks}, **worst}


def evaluate(
    model: nn.Module,
    batches: Iterable[Examples],
    attacks: Sequence[Attack] = (),
    *,
    fast_model: nn.Module | None = None,
    on_batch: Callable[[list[Record]], object] = lambda records: None,
) -> Report:
    """Attack every correctly classified example with every attack.

    Success is judged by the model itself, in evaluation mode and its own precision, on the very image that the attack
    returned, whatever ``fast_model`` believed. The model is left as it was.

    Args:
        model: maps images in [0, 1] to logits.
        batches: examples; each one's random draws follow its ``keys``, not its batch.
        attacks: names (``str``) must differ.
        fast_model: a faster stand-in for the attacks' steps, see ``robustlab.models.accelerate``.
        on_batch: called with the records of each batch, for a progress bar.

    Raises:
        UserError: images outside [0, 1], wrong labels, NaN logits, or an attack that left its threat model.
    """
    names = tuple(str(attack) for attack in attacks)
    if len(set(names)) != len(names):
        raise UserError(f"two attacks have the same name: {', '.join(names)}")
    records: list[Record] = []
    with frozen(model):
        for batch in batches:
            found = _evaluate_batch(model, batch, dict(zip(names, attacks, strict=True)), fast_model)
            on_batch(found)
            records += found
    return Report(names, tuple(records))


def _evaluate_batch(model: nn.Module, batch: Examples, attacks: dict[str, Attack], fast_model: nn.Module | None) -> list[Record]:
    x, y = batch.x, batch.y
    check_images(x)
    highest = check_labels(y, x)
    predicted = predictions(model, x, highest)
    right = (predicted == y).nonzero()[:, 0]
    rows: list[dict[str, Attacked]] = [{} for _ in range(len(x))]
    for name, attack in attacks.items() if len(right) else ():
        x_adv = attack(model, x[right], y[right], keys=batch.keys[right], fast_model=fast_model)
        distance = _distance_within(attack, x[right], x_adv, name)
        after = predictions(model, x_adv, highest)
        for row, prediction, far in zip(right.tolist(), after.tolist(), distance.tolist(), strict=True):
            rows[row][name] = Attacked(prediction, far)
    return [
        Record(index, label, prediction, row)
        for index, label, prediction, row in zip(batch.index.tolist(), y.tolist(), predicted.tolist(), rows, strict=True)
    ]


def _distance_within(attack: Attack, x: Tensor, x_adv: Tensor, name: str) -> Tensor:
    """Distances in the attack's norm; an attack that cheats is refused, with no tolerance."""
    distance = attack.threat.norm.measure(x_adv.double() - x.double())
    check_images(x_adv)
    if (distance > attack.threat.eps).any():
        raise UserError(f"{name} returned an image at distance {float(distance.max())!r}, farther than eps = {attack.threat.eps!r}")
    return distance


@torch.no_grad()
def predictions(model: nn.Module, x: Tensor, highest_label: int = -1) -> Tensor:
    """The predicted class of each image, int64 ``(B,)``.

    Raises:
        UserError: logits that are NaN: their largest entry would mean nothing.
    """
    if len(x) == 0:
        return torch.zeros(0, dtype=torch.int64, device=x.device)
    logits = with_logit_checks(model, highest_label)(x)
    if logits.isnan().any():
        raise UserError(f"the model returned NaN logits for {int(logits.isnan().any(1).sum())} of {len(x)} images")
    return logits.argmax(1)


def curve(
    model: nn.Module,
    batches: Callable[[], Iterable[Examples]],
    attack: PGD,
    radii: Sequence[float],
    *,
    fast_model: nn.Module | None = None,
    on_batch: Callable[[int], object] = lambda n: None,
) -> dict[float, Rate]:
    """Accuracy over radii, in one pass: an example broken at a radius is broken at every larger one, and not run again.

    Args:
        batches: gives the examples anew at each call.
        attack: its threat's eps is replaced by each radius; a ``step_size`` of None scales along.
        radii: eps values in pixel units, >= 0.
        on_batch: called with the number of examples done.

    Returns:
        From eps to accuracy, ascending; never increasing.
    """
    sized = {eps: replace(attack, threat=replace(attack.threat, eps=eps)) for eps in sorted(set(radii))}
    standing, n = dict.fromkeys(sized, 0), 0
    with frozen(model):
        for batch in batches():
            check_images(batch.x)
            alive = (predictions(model, batch.x, check_labels(batch.y, batch.x)) == batch.y).nonzero()[:, 0]
            for eps, attack in sized.items():
                if eps > 0 and len(alive):
                    x, y = batch.x[alive], batch.y[alive]
                    x_adv = attack(model, x, y, keys=batch.keys[alive], fast_model=fast_model)
                    _distance_within(attack, x, x_adv, str(attack))
                    alive = alive[predictions(model, x_adv) == y]
                standing[eps] += len(alive)
            n += len(batch.x)
            on_batch(len(batch.x))
    return {eps: Rate(count, n) for eps, count in standing.items()}
