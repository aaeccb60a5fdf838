"""Settings of the searches: those that were published for a task, and those tuned at 32 pixels.

Standard library only, so that ``--help`` answers at once; ``robustlab.synthesis.budget`` makes searches of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from robustlab.options import count, option, radius, weight

TUNED_SIZE = 32  # pixels


class Steps(NamedTuple):
    """Settings of a search.

    Attributes:
        eps: L2 radius around the start, in pixel units of [0, 1] images; None leaves only the pixel box.
        step_size: L2 length of a step, in the same units.
        steps: number of steps.
    """

    eps: float | None
    step_size: float
    steps: int


@dataclass(frozen=True)
class Presets:
    """The settings of one task, and the options that change them; the help of these shows the defaults.

    Attributes:
        published: by the size of the images, in pixels.
        tuned: at ``TUNED_SIZE`` pixels, where the published ones, scaled, do something else or take hours on a CPU; None
            where the published ones serve.
        weights: of changes outside a mask, tuned and published; None where there is no mask.
    """

    published: Mapping[int, Steps]
    tuned: Steps | None = None
    weights: tuple[float, float] | None = None

    def eps(self, around: str) -> Any:
        """The option of the radius; ``around`` says of what."""
        help = f"L2 radius around {around} in which to search, in pixel units of [0, 1] images"
        return option(None, help, radius, shown=self._length("eps"))

    def step_size(self, more: str = "") -> Any:
        """The option of the length of a step; ``more`` ends its help."""
        return option(None, f"L2 length of a step of the search, in pixel units{more}", radius, shown=self._length("step_size"))

    def steps(self) -> Any:
        """The option of the number of steps."""
        tuned, published = self._at_tuned_size()
        return option(None, "gradient steps of the search", count, shown=_shown(f"{tuned.steps:,}", f"{published.steps:,}"))

    def weight(self) -> Any:
        """The option of the weight of changes outside the mask."""
        assert self.weights is not None
        tuned, published = self.weights
        help = "weight of the mean squared change outside the mask; inf allows no change"
        return option(None, help, weight, shown=_shown(f"{tuned:g}", f"{published:g}"))

    def switch(self) -> Any:
        """The option to take the published settings."""
        if self.tuned is None:
            return option(False, "take the published settings, scaled to the images' size: they are the default of this task", None)
        return option(False, f"take the published settings, scaled to the images' size, not those tuned at {TUNED_SIZE} pixels", None)

    def _length(self, name: str) -> str:
        """The default of a length, which grows with the images."""
        tuned, published = (getattr(steps, name) for steps in self._at_tuned_size())
        if tuned is None or published is None:
            return "none, all of the pixel box"
        tuned, published = f"{tuned:.3g}", f"{published:.3g}"
        return _shown(f"{tuned} at {TUNED_SIZE} pixels, in proportion to the images' size", published if published != tuned else None)

    def _at_tuned_size(self) -> tuple[Steps, Steps]:
        """The tuned settings and the published ones, both at ``TUNED_SIZE`` pixels."""
        size = min(self.published)
        eps, step_size, steps = self.published[size]
        factor = TUNED_SIZE / size
        published = Steps(None if eps is None else eps * factor, step_size * factor, steps)
        return self.tuned or published, published


def _shown(tuned: str, published: str | None) -> str:
    """A default as the help writes it."""
    return tuned if published in (None, tuned) else f"{tuned}; {published} with --published"
