"""What smoothing found: one record per image, and the numbers that are counted from them."""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from robustlab.errors import UserError
from robustlab.evaluation.rates import Rate
from robustlab.smoothing.bounds import certified_radius, lower_bound


@dataclass(frozen=True)
class Prediction:
    """What the smoothed classifier answers for one image.

    Attributes:
        index: its position in the whole split of the data.
        label: its class, as the model numbers them.
        prediction: the class that is predicted; None where the draws do not tell, so that the classifier abstains.
        counts: how often each class was predicted in the n draws; those that never were are left out.
        file: the name of its file within the data's folder; None where it comes from no file of its own.
    """

    index: int
    label: int
    prediction: int | None
    counts: Mapping[int, int]
    file: str | None = None

    @property
    def is_right(self) -> bool:
        """Whether the label is predicted; abstaining is wrong."""
        return self.prediction == self.label

    def to_json(self) -> dict[str, Any]:
        """Values that JSON holds; ``file`` only where there is one."""
        found: dict[str, Any] = {"index": self.index} if self.file is None else {"index": self.index, "file": self.file}
        return found | {"label": self.label, "prediction": self.prediction, "counts": {str(k): n for k, n in self.counts.items()}}

    @staticmethod
    def _values(found: Mapping[str, Any]) -> dict[str, Any]:
        return {**found, "counts": {int(k): n for k, n in found["counts"].items()}}


@dataclass(frozen=True)
class Certificate(Prediction):
    """What the smoothed classifier answers for one image, and how far that is proved.

    Attributes:
        candidate: the class that the n0 draws chose, of which the n draws bound the probability.
        p: that bound; it is too high with probability alpha at most.
        radius: no change of a smaller L2 norm changes the prediction, in pixel units; 0 where the classifier abstains.
    """

    candidate: int = -1
    p: float = 0.0
    radius: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"candidate": self.candidate, "p": self.p, "radius": self.radius}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Certificate:
        """The certificate that ``to_json`` gave."""
        return cls(**cls._values(found))


@dataclass(frozen=True, repr=False)
class Predictions:
    """The answers of a smoothed classifier.

    Attributes:
        records: one for each image, in the data's order.
        sigma: standard deviation of the noise, in pixel units.
        n: draws for each image.
        alpha: how often an answer may be another than the class that is truly most likely under noise.
        classes: names of the classes; empty where they have none.
    """

    records: Sequence[Prediction]
    sigma: float
    n: int
    alpha: float
    classes: tuple[str, ...] = ()

    @property
    def accuracy(self) -> Rate:
        """The share of images whose label is predicted; abstaining is wrong."""
        return Rate(sum(record.is_right for record in self.records), len(self.records))

    @property
    def abstained(self) -> Rate:
        """The share of images without an answer."""
        return Rate(sum(record.prediction is None for record in self.records), len(self.records))

    def rows(self) -> list[tuple[str, str]]:
        """The lines of a table: a name and a number with its interval."""
        return [("accuracy", repr(self.accuracy)), ("abstained", repr(self.abstained))]

    @property
    def notes(self) -> list[str]:
        """What limits the numbers, in sentences."""
        return []

    def __repr__(self) -> str:
        return self.lines(self.rows())

    def lines(self, rows: Sequence[tuple[str, str]]) -> str:
        """Rows and notes as text."""
        width = max(len(name) for name, _ in rows)
        return "\n".join([*(f"{name:<{width}}  {number}" for name, number in rows), *(f"note: {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        lines = "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(number)}</td></tr>" for name, number in self.rows())
        return f"<table>{lines}</table>" + "".join(f"<p>note: {html.escape(note)}</p>" for note in self.notes)


@dataclass(frozen=True, repr=False)
class Certificates(Predictions):
    """The answers of a smoothed classifier, each with the radius within which it is proved; for the attributes see ``Predictions``.

    Attributes:
        records: one for each image, in the data's order.
        n0: draws that chose the class of each image.
    """

    records: Sequence[Certificate]
    n0: int = 0

    def at(self, radii: Iterable[float]) -> dict[float, Rate]:
        """Certified accuracy: the share of images that are predicted right, and proved to be at every L2 distance up to a radius.

        Args:
            radii: in pixel units.

        Returns:
            From radius to accuracy, ascending; never increasing. At 0 it is the accuracy.

        Raises:
            UserError: a radius that is negative or not finite.
        """
        radii = sorted(set(radii))
        for radius in radii:
            if not 0 <= radius < math.inf:
                raise UserError(f"a radius must be a finite number >= 0 in pixel units of [0, 1] images, got {radius}")
        right = [record.radius if record.is_right else 0.0 for record in self.records]
        return {radius: Rate(sum(far > radius for far in right), len(right)) for radius in radii}

    @property
    def median_radius(self) -> float:
        """The median over all images, in pixel units; those without the right answer count as 0. NaN for no images."""
        return statistics.median([r.radius if r.is_right else 0.0 for r in self.records]) if self.records else math.nan

    @property
    def largest_radius(self) -> float:
        """What an image gets whose n draws all agree: no more can be proved by so many."""
        return certified_radius(lower_bound(self.n, self.n, self.alpha), self.sigma)

    @property
    def radii(self) -> list[float]:
        """Multiples of sigma below the largest radius, for a table."""
        return [k * self.sigma for k in range(math.ceil(self.largest_radius / self.sigma))]

    def rows(self, radii: Iterable[float] | None = None) -> list[tuple[str, str]]:
        """The lines of a table: a name and a number with its interval.

        Args:
            radii: of the certified accuracies, in pixel units; those of ``radii`` where left out.
        """
        certified = [(f"certified at {radius:g}", repr(rate)) for radius, rate in self.at(self.radii if radii is None else radii).items()]
        return [*certified, ("abstained", repr(self.abstained)), ("median radius", f"{self.median_radius:.4g}")]

    @property
    def notes(self) -> list[str]:
        most = max((record.radius for record in self.records), default=0.0)
        if most < self.largest_radius:
            return []
        return [f"{self.n:,} draws can prove no radius above {self.largest_radius:.4g}, which some images reach: more may prove more"]

    def to_json(self, radii: Iterable[float] | None = None) -> dict[str, Any]:
        """The numbers and what they depend on, in values that JSON holds.

        Args:
            radii: of the certified accuracies, in pixel units; those of ``radii`` where left out.
        """
        certified = [{"radius": radius, **rate.to_json()} for radius, rate in self.at(self.radii if radii is None else radii).items()]
        how = {"sigma": self.sigma, "n0": self.n0, "n": self.n, "alpha": self.alpha}
        found = {"certified": certified, "abstained": self.abstained.count, "images": len(self.records)}
        median = self.median_radius if self.records else None
        return {**how, **found, "median_radius": median, "largest_radius": self.largest_radius, "notes": self.notes}
