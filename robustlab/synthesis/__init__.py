"""Pictures made with one classifier: ``synthesize`` and its tasks, and below them seeds, searches, representations and measures.

The names are loaded when first used, so that ``robustlab synthesize --help`` need not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robustlab.synthesis.budget import PUBLISHED, TUNED, Search, published_search, search_of, tuned_search
    from robustlab.synthesis.gradients import alignment, energy_inside, loss_gradient, smooth_grad
    from robustlab.synthesis.measures import diversity, frechet_distance, inception_score, psnr, ssim
    from robustlab.synthesis.parameters import Fourier, Parameters, Pixels
    from robustlab.synthesis.representations import last_relu, layers, representation, straight_through_relu
    from robustlab.synthesis.run import synthesize
    from robustlab.synthesis.seeds import ClassGaussians, default_grain
    from robustlab.synthesis.selection import MatchedModel, Selection, match, select
    from robustlab.synthesis.sheets import Pictures
    from robustlab.synthesis.tasks import TASKS

_NAMES = {
    "budget": ("PUBLISHED", "TUNED", "Search", "published_search", "search_of", "tuned_search"),
    "gradients": ("alignment", "energy_inside", "loss_gradient", "smooth_grad"),
    "measures": ("diversity", "frechet_distance", "inception_score", "psnr", "ssim"),
    "parameters": ("Fourier", "Parameters", "Pixels"),
    "representations": ("last_relu", "layers", "representation", "straight_through_relu"),
    "run": ("synthesize",),
    "seeds": ("ClassGaussians", "default_grain"),
    "selection": ("MatchedModel", "Selection", "match", "select"),
    "sheets": ("Pictures",),
    "tasks": ("TASKS",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = [
    "PUBLISHED",
    "TASKS",
    "TUNED",
    "ClassGaussians",
    "Fourier",
    "MatchedModel",
    "Parameters",
    "Pictures",
    "Pixels",
    "Search",
    "Selection",
    "alignment",
    "default_grain",
    "diversity",
    "energy_inside",
    "frechet_distance",
    "inception_score",
    "last_relu",
    "layers",
    "loss_gradient",
    "match",
    "psnr",
    "published_search",
    "representation",
    "search_of",
    "select",
    "smooth_grad",
    "ssim",
    "straight_through_relu",
    "synthesize",
    "tuned_search",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
