"""What is odd about a model, or about attacks on it, as data and in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """A reason not to believe an accuracy under attack as it stands.

    Attributes:
        name: what it is, one word or a few joined by hyphens: ``"zero-gradient"``.
        sentence: what was seen, what that means for the accuracy under attack, and what to do.
        numbers: what was counted or measured, in values that JSON holds.
    """

    name: str
    sentence: str
    numbers: Mapping[str, float | str]

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence}"

    def to_json(self) -> dict[str, Any]:
        """The same in values that JSON holds."""
        return {"name": self.name, "sentence": self.sentence, "numbers": dict(self.numbers)}


def short(value: float) -> float:
    """Four digits are enough to read, and few enough to be the same on every machine."""
    return float(f"{value:.4g}")
