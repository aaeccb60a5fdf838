"""``robustlab models``: what can be built and what can be loaded."""

from __future__ import annotations

from robustlab.commands import settings
from robustlab.models import zoo


def run(args: settings.Models) -> None:
    """Print both lists."""
    print("architectures:", ", ".join(zoo.architectures()), "and torchvision:NAME, timm:NAME")
    print("pretrained models:")
    for name, record in zoo.pretrained().items():
        numbers = ", ".join(f"{what} {value:.2f} %" for what, value in record["accuracies"].items())
        print(f"  {name:<24}{record['arch']}, {record['dataset']}, trained against {record['threat']}: {numbers} (n = {record['n']})")
