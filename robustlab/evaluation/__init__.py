"""Measuring: accuracy under attack per example, and over radii."""

from robustlab.evaluation.accuracy import Rate, Record, Report, curve, evaluate, predictions

__all__ = ["Rate", "Record", "Report", "curve", "evaluate", "predictions"]
