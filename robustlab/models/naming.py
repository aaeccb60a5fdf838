"""Short names for models that are given by their names or paths."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from pathlib import Path

from robustlab.models.others import is_other
from robustlab.models.zoo import ENDINGS


def short_names(names: Iterable[str]) -> dict[str, str]:
    """For each model a word: the file's name without its ending, and of the folders before it as many as tell it from the others.

    Args:
        names: names of pretrained models, or paths of checkpoints; all different.

    Returns:
        Different words, by the names.
    """
    paths = {name: Path(name.replace(":", "-") if is_other(name) else name) for name in names}
    stems = {name: path.with_suffix("") if path.suffix in ENDINGS else path for name, path in paths.items()}
    parts = {name: [part for part in stem.parts if part.strip("/\\.")] for name, stem in stems.items()}

    def tail(name: str, length: int) -> str:
        return "-".join(parts[name][-length:])

    def word(name: str) -> str:
        lengths = range(1, len(parts[name]) + 1)
        alone = (tail(name, k) for k in lengths if sum(tail(other, k) == tail(name, k) for other in parts) == 1)
        return next(alone, "-".join(parts[name]))

    found: dict[str, str] = {}
    for name in parts:
        found[name] = next(one for k in count(1) if (one := word(name) if k == 1 else f"{word(name)}-{k}") not in found.values())
    return found
