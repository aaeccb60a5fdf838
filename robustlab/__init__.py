"""robustlab: attack, train, evaluate and look at image classifiers under bounded perturbations.

The names below are loaded when first used, so that ``import robustlab`` and ``robustlab --help`` need not wait for torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "L1": "robustlab.norms",
    "L2": "robustlab.norms",
    "Linf": "robustlab.norms",
    "ThreatModel": "robustlab.constraints",
    "Untargeted": "robustlab.goals",
    "Targeted": "robustlab.goals",
    "Away": "robustlab.goals",
    "minimize": "robustlab.optimize",
    "PGD": "robustlab.attacks.pgd",
    "load": "robustlab.models.zoo",
    "evaluate": "robustlab.evaluation",
    "synthesize": "robustlab.synthesis.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
