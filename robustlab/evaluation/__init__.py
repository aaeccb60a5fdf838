"""Measuring: accuracy under attack per example, and over radii; and reasons not to believe it."""

from robustlab.evaluation.accuracy import evaluate, predictions
from robustlab.evaluation.adversarial import AdversarialImages, saving
from robustlab.evaluation.aftermath import after_attacks
from robustlab.evaluation.curves import curve
from robustlab.evaluation.diagnostics import diagnose
from robustlab.evaluation.findings import Finding
from robustlab.evaluation.optimality import optimality
from robustlab.evaluation.rates import Rate
from robustlab.evaluation.report import Attacked, Record, Report, save_adversarial
from robustlab.evaluation.traces import Trace, attack_failures

__all__ = [
    "AdversarialImages",
    "Attacked",
    "Finding",
    "Rate",
    "Record",
    "Report",
    "Trace",
    "after_attacks",
    "attack_failures",
    "curve",
    "diagnose",
    "evaluate",
    "optimality",
    "predictions",
    "save_adversarial",
    "saving",
]
