"""What an evaluation found: one record per example, and the numbers that are counted from them."""

from __future__ import annotations

import html
import math
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from robustlab import pictures
from robustlab.errors import UserError, unknown
from robustlab.evaluation.adversarial import AdversarialImages, saving
from robustlab.evaluation.grids import adversarial_grid
from robustlab.evaluation.rates import Rate


@dataclass(frozen=True)
class Attacked:
    """What one attack did to one example that was classified correctly.

    Attributes:
        prediction: the class predicted after the attack, by a forward pass of the model itself in evaluation mode.
        distance: ``‖x_adv - x‖`` in the attack's norm, in pixel units, measured in float64.
        by: of a line-up, the attack that changed the prediction; None where none did.
        passes: forward passes that it took, where the attack says so.
    """

    prediction: int
    distance: float
    by: str | None = None
    passes: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Values that JSON holds, without what there is not."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Record:
    """One example, and what each attack made of it.

    Attributes:
        index: its position in the whole split of the data, whatever was chosen of it.
        label: its class, as the model numbers them.
        prediction: the class predicted before any attack.
        attacks: by name, what attacks within a threat model did; empty where the prediction was wrong already.
        nearest: by name, what minimum-norm attacks found.
        votes: how many passes of the model each prediction is the most frequent answer of; 1 unless its answers change between calls.
        proved: threat models, by their names, in which interval bounds prove that no attack changes the prediction.
        single: whether the model gave one class only a logit that is finite, so that no attack can reach another.
        file: the name of its file within the data's folder; None where it comes from no file of its own.
    """

    index: int
    label: int
    prediction: int
    attacks: Mapping[str, Attacked]
    nearest: Mapping[str, Attacked] = field(default_factory=dict)
    single: bool = False
    file: str | None = None
    votes: int = 1
    proved: tuple[str, ...] = ()

    @property
    def broken_by(self) -> str | None:
        """The first attack within a threat model that changed a correct prediction.

        ``"clean"`` if there was no correct prediction; None if all attacks failed.
        """
        if self.prediction != self.label:
            return "clean"
        return next((name for name, found in self.attacks.items() if found.prediction != self.label), None)

    def distance(self, attack: str) -> float:
        """How far the nearest adversarial image is that a minimum-norm attack found, in pixel units.

        0 where the prediction was wrong already, infinity where the attack found nothing.
        """
        if self.prediction != self.label:
            return 0.0
        found = self.nearest[attack]
        return found.distance if found.prediction != self.label else math.inf

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Record:
        """The record that ``to_json`` gave."""
        attacks, nearest = ({name: Attacked(**one) for name, one in found.get(each, {}).items()} for each in ("attacks", "nearest"))
        single, file, votes = found.get("single", False), found.get("file"), found.get("votes", 1)
        proved = tuple(found.get("proved", ()))
        return cls(found["index"], found["label"], found["prediction"], attacks, nearest, single, file, votes, proved)

    def to_json(self) -> dict[str, Any]:
        """Values that JSON holds; ``nearest`` only after a minimum-norm attack, ``single`` where true, ``file`` where there is one,
        ``votes`` where there are several, ``proved`` where something is."""
        found: dict[str, Any] = {"index": self.index} if self.file is None else {"index": self.index, "file": self.file}
        found |= {"label": self.label, "prediction": self.prediction, "broken_by": self.broken_by}
        found["attacks"] = {name: attacked.to_json() for name, attacked in self.attacks.items()}
        found |= {"nearest": {name: attacked.to_json() for name, attacked in self.nearest.items()}} if self.nearest else {}
        found |= {"single": True} if self.single else {}
        found |= {"proved": list(self.proved)} if self.proved else {}
        return found | ({"votes": self.votes} if self.votes > 1 else {})


@dataclass(frozen=True, repr=False)
class Report:
    """All examples of an evaluation. Every accuracy under attack bears the name of the attack that made it.

    Attributes:
        attacks: names of the attacks within a threat model.
        records: one for each example, in the data's order.
        minimum_norm: names of the attacks that looked for the nearest adversarial image.
        classes: names of the classes, as the model numbers them; empty where they have none.
        adversarial: what the attacks returned, by the attack's name, if ``evaluate`` was told to keep it.
        stages: of each line-up among ``attacks`` the attacks that it is made of.
    """

    attacks: tuple[str, ...]
    records: tuple[Record, ...]
    minimum_norm: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    adversarial: Mapping[str, AdversarialImages] | None = field(default=None, compare=False)
    stages: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def clean(self) -> Rate:
        """Accuracy before any attack."""
        return Rate(sum(r.prediction == r.label for r in self.records), len(self.records))

    def under(self, attack: str) -> Rate:
        """Accuracy under one attack within a threat model: correct before it and after it.

        Raises:
            UserError: a minimum-norm attack, which needs a radius: see ``at``.
        """
        if attack in self.minimum_norm:
            raise UserError(f"accuracy under {attack} needs a radius: use report.at({attack!r}, [0.5])")
        return Rate(sum(attack in r.attacks and r.attacks[attack].prediction == r.label for r in self.records), len(self.records))

    @property
    def worst(self) -> Rate:
        """Accuracy under the worst of all attacks within a threat model, example by example."""
        return Rate(sum(r.broken_by is None for r in self.records), len(self.records))

    def rates(self) -> dict[str, Rate]:
        """Clean, under each attack within a threat model, and with several such attacks under the worst of them."""
        worst = {"worst of " + ", ".join(self.attacks): self.worst} if len(self.attacks) > 1 else {}
        return {"clean": self.clean, **{name: self.under(name) for name in self.attacks}, **worst}

    def after(self, lineup: str) -> dict[str, Rate]:
        """Accuracy after each attack of a line-up, in their order: the share that none so far has broken.

        Raises:
            UserError: no line-up of that name.
        """
        if lineup not in self.stages:
            raise unknown("line-up", lineup, self.stages)
        names, found = self.stages[lineup], [r.attacks[lineup] for r in self.records if lineup in r.attacks]
        broken = [sum(one.by == name for one in found) for name in names]
        unsure = len(found) - sum(broken) - self.under(lineup).count  # broken by rounding alone
        standing = [self.clean.count - unsure - sum(broken[: k + 1]) for k in range(len(names))]
        return {name: Rate(count, len(self.records)) for name, count in zip(names, standing, strict=True)}

    @property
    def proved(self) -> dict[str, Rate]:
        """By threat model the share of images whose right prediction interval bounds prove; without those where they prove nothing.

        Bounds are computed for a batch only if they prove something for some of its images, so a share is at least what it says.
        """
        names = dict.fromkeys(name for record in self.records for name in record.proved)
        return {name: Rate(sum(name in record.proved for record in self.records), len(self.records)) for name in names}

    def passes(self, attack: str) -> float:
        """Forward passes that an attack took for an image, in the mean over those that it attacked; NaN where it does not say so."""
        found = [r.attacks[attack].passes for r in self.records if attack in r.attacks]
        known = [count for count in found if count is not None]
        return statistics.mean(known) if known else math.nan

    @property
    def headline(self) -> str | None:
        """The robust accuracy in one line; without AutoAttack it is called the upper bound that it is. None where nothing attacked."""
        if not self.attacks:
            return None
        names = [name.partition(" (")[0] for name in self.attacks]
        believed = any(name.startswith("AutoAttack") for name in names)
        shown = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
        return f"robust accuracy {self.worst!r} ({shown if believed else f'upper bound, {shown} only'})"

    def at(self, attack: str, radii: Iterable[float]) -> dict[float, Rate]:
        """Accuracy at radii, from one run of a minimum-norm attack: the share whose nearest adversarial image is farther.

        Args:
            attack: the attack's name.
            radii: in pixel units, in the attack's norm.

        Returns:
            From radius to accuracy, ascending; never increasing.
        """
        distances = self._distances(attack)
        return {radius: Rate(sum(distance > radius for distance in distances), len(distances)) for radius in sorted(set(radii))}

    def median_distance(self, attack: str) -> float:
        """Median distance to the nearest adversarial image that a minimum-norm attack found, over all examples, in pixel units.

        Examples that are misclassified without an attack count as 0, and those where the attack found nothing as infinity, so
        it is the radius at which the accuracy falls to one half. NaN for no examples.
        """
        distances = self._distances(attack)
        return statistics.median(distances) if distances else math.nan

    def _distances(self, attack: str) -> list[float]:
        if attack not in self.minimum_norm:
            raise unknown("minimum-norm attack", attack, self.minimum_norm)
        return [record.distance(attack) for record in self.records]

    def grid(self, attack: str | None = None, images: int = 6) -> Image.Image:
        """Some images before and after an attack, see ``robustlab.evaluation.grids``; needs ``evaluate(..., keep=True)``.

        Args:
            attack: its name; the first one where left out.
            images: at most so many.

        Raises:
            UserError: nothing was kept, or an attack that there was not.
        """
        kept = self._kept()
        name = next(iter(kept), "none") if attack is None else attack
        if name not in kept:
            raise unknown("attack", name, kept) if kept else UserError("there is nothing to show: no image was attacked")
        return pictures.to_image(adversarial_grid(kept[name], images))

    def save_adversarial(self, folder: str | os.PathLike[str]) -> None:
        """Write what the attacks returned into a new folder, see ``robustlab.evaluation.adversarial``; needs ``evaluate(..., keep=True)``.

        Raises:
            UserError: nothing was kept, the folder is not empty, or it cannot be written.
        """
        kept = self._kept()
        with saving(folder) as save:
            for found in kept.values():
                save(found)

    def _kept(self) -> Mapping[str, AdversarialImages]:
        if self.adversarial is None:
            raise UserError("the adversarial images were not kept: call evaluate(..., keep=True)")
        return self.adversarial

    @property
    def notes(self) -> list[str]:
        """Why a number may say nothing about robustness, in sentences: nothing was attacked, or an attack could not do anything."""
        notes = []
        single = sum(record.single for record in self.records)
        if single:
            notes.append(
                f"for {single} of {len(self.records)} images the model gives one class only a finite logit, so no attack can change it"
            )
        if self.attacks and self.records and not self.clean.count:
            notes.append("no image was attacked: the model was wrong for all of them already")
        votes = max((record.votes for record in self.records), default=1)
        if votes > 1:
            notes.append(f"the model's answers change between calls: each prediction is the most frequent one of {votes}")
        impossible = sum(f"({name})" in attack for r in self.records for name in r.proved for attack in r.attacks if _broke(r, attack))
        if impossible:
            notes.append(
                f"{impossible} images were broken although interval bounds prove that nothing can: the model's numbers are too rough"
            )
        for name in self.attacks:
            moved = [record.attacks[name].distance > 0 for record in self.records if name in record.attacks]
            if moved and not any(moved):
                notes.append(f"{name} changed no image, so its number is the clean accuracy and says nothing about robustness")
        return notes

    def lines(self) -> list[tuple[str, Rate]]:
        """As ``rates``, with the accuracies after each attack of a line-up behind its own."""
        lines = []
        for name, rate in self.rates().items():
            lines.append((name, rate))
            lines += [(f"  after {stage}", left) for stage, left in (self.after(name) if name in self.stages else {}).items()]
        return lines + [(f"proved by interval bounds ({name})", rate) for name, rate in self.proved.items()]

    def rows(self) -> list[tuple[str, str]]:
        """The lines of a table: a name and a number with its interval."""
        distances = [(name, f"median distance {self.median_distance(name):.4g}") for name in self.minimum_norm]
        return [(name, repr(rate)) for name, rate in self.lines()] + distances

    def __repr__(self) -> str:
        rows = self.rows()
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:<{width}}  {number}" for name, number in rows]
        return "\n".join([*lines, *filter(None, [self.headline]), *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        lines = "".join(
            f'<tr><td style="text-align:left">{html.escape(name)}</td><td style="text-align:left">{html.escape(number)}</td></tr>'
            for name, number in self.rows()
        )
        kept = next(iter(self.adversarial.values()), None) if self.adversarial else None
        shown = pictures.as_html(adversarial_grid(kept)) if kept and kept.are_pictures else ""
        notes = "".join(f"<p>note: {html.escape(note)}</p>" for note in self.notes)
        return f"<table>{lines}</table>{notes}{shown}"


def _broke(record: Record, attack: str) -> bool:
    """Whether an attack changed a right prediction."""
    return record.attacks[attack].prediction != record.label


def save_adversarial(report: Report, folder: str | os.PathLike[str]) -> None:
    """Write what the attacks of an evaluation returned into a new folder; see ``Report.save_adversarial``."""
    report.save_adversarial(folder)


def join_batches(parts: Mapping[str, Sequence[AdversarialImages]]) -> dict[str, AdversarialImages]:
    """The adversarial images of all batches, by attack; without the attacks that had nothing to attack."""
    return {name: AdversarialImages.joined(some) for name, some in parts.items() if some}
