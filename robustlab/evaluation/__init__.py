"""Measuring: accuracy under attack per example, and over radii."""

from robustlab.evaluation.accuracy import evaluate, predictions
from robustlab.evaluation.adversarial import AdversarialImages, saving
from robustlab.evaluation.curves import curve
from robustlab.evaluation.rates import Rate
from robustlab.evaluation.report import Attacked, Record, Report, save_adversarial

__all__ = [
    "AdversarialImages",
    "Attacked",
    "Rate",
    "Record",
    "Report",
    "curve",
    "evaluate",
    "predictions",
    "save_adversarial",
    "saving",
]
