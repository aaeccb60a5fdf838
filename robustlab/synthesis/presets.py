"""Settings of the searches: those that were published for a task, and those tuned at 32 pixels.

Standard library only, so that ``--help`` answers at once; ``robustlab.synthesis.budget`` makes searches of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from robustlab.options import count, option, radius, share

TUNED_SIZE = 32  # pixels


class Steps(NamedTuple):
    """Settings of a search.

    Attributes:
        eps: L2 radius around the start, in pixel units of [0, 1] images; None leaves only the pixel box.
        step_size: L2 length of a step, in the same units.
        steps: number of steps.
        tv, jitter, flips: what keeps the pictures natural, see ``budget.Search``; nothing where it was published.
    """

    eps: float | None
    step_size: float
    steps: int
    tv: float = 0.0
    jitter: int = 0
    flips: float = 0.0


@dataclass(frozen=True)
class Presets:
    """The settings of one task, and the options that change them; the help of these shows the defaults.

    Attributes:
        published: by the size of the images, in pixels.
        tuned: at ``TUNED_SIZE`` pixels, where the published ones, scaled, do something else or take hours on a CPU; None
            where the published ones serve.
        choices: what else has presets, by the option's name: tuned and published, such as the weight of changes outside a mask.
    """

    published: Mapping[int, Steps]
    tuned: Steps | None = None
    choices: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

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

    def choice(self, name: str, help: str, type: Callable[[str], Any] = str, **more: Any) -> Any:
        """The option of one of ``choices``; ``help`` says what it is."""
        tuned, published = self.choices[name]
        numbers = not isinstance(tuned, str)
        return option(None, help, type, shown=_shown(*(f"{value:g}" if numbers else value for value in (tuned, published))), **more)

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
        eps, step_size, steps, *_ = self.published[size]
        factor = TUNED_SIZE / size
        published = Steps(None if eps is None else eps * factor, step_size * factor, steps)
        return self.tuned or published, published


def _shown(tuned: str, published: str | None) -> str:
    """A default as the help writes it."""
    return tuned if published in (None, tuned) else f"{tuned}; {published} with --published"


@dataclass(frozen=True, kw_only=True)
class Natural:
    """What keeps pictures natural, whatever the task."""

    tv: float | None = option(
        None,
        "weight of the total variation, the mean absolute difference of neighbouring pixels: more makes calmer pictures",
        radius,
        shown="as tuned for the task, 0 for most; 0 with --published",
    )
    jitter: int | None = option(
        None,
        "at each step show the picture to the network shifted at random, by up to so many pixels",
        count,
        shown="as tuned for the task, 0 for most; 0 with --published",
    )
    flips: float | None = option(
        None,
        "and mirrored with this probability: 0.5",
        share,
        metavar="SHARE",
        shown="as tuned for the task, 0 for most; 0 with --published",
    )
    fourier: bool = option(
        False, "move Fourier coefficients instead of pixels; --step-size is then in their units, and there is no radius", None
    )


def before_there_were(presets: Presets | None, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a replay file, with what an older one does not name as it was then.

    That is as published, with nothing to keep pictures natural.
    """
    if presets is None:
        return settings
    then = {name: published for name, (_, published) in presets.choices.items()} | {
        each.name: 0 for each in fields(Natural) if each.default is None
    }
    return settings | {name: value for name, value in then.items() if settings.get(name) is None}
