"""A share of examples, with the interval that belongs to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        low, high = self.interval
        return f"{100 * self.value:.1f} % [{100 * low:.1f}, {100 * high:.1f}], n = {self.n}"

    def _repr_html_(self) -> str:
        low, high = self.interval
        return f"<b>{100 * self.value:.1f} %</b> [{100 * low:.1f}, {100 * high:.1f}], n = {self.n}"

    def to_json(self) -> dict[str, Any]:
        """The value, the interval and ``n``."""
        return {"accuracy": self.value, "interval95": list(self.interval), "n": self.n}
