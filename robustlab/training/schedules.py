"""Learning rates as functions of how far training has come: nothing to save, nothing to resume wrongly."""

from __future__ import annotations

import math
from collections.abc import Callable

Schedule = Callable[[float], float]  # progress in [0, 1) -> factor of the peak learning rate


def one_cycle(progress: float, warm_up: float = 0.2) -> float:
    """Up in a straight line, then down in one (Smith 2018)."""
    return progress / warm_up if progress < warm_up else (1 - progress) / (1 - warm_up)


def cosine(progress: float, warm_up: float = 0.05) -> float:
    """A short rise in a straight line, then half a cosine down to zero."""
    if progress < warm_up:
        return progress / warm_up
    return 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))


def steps(progress: float) -> float:
    """A tenth after half of training, a hundredth after three quarters (Rice et al. 2020: 100 and 150 of 200 epochs)."""
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


SCHEDULES: dict[str, Schedule] = {"one-cycle": one_cycle, "cosine": cosine, "steps": steps}
