"""``robustlab models``: what can be built and what can be loaded."""

from __future__ import annotations

from robustlab.commands import settings
from robustlab.models import zoo


def run(args: settings.Models) -> None:
    """Print both lists."""
    print(zoo.list_models())
