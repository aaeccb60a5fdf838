"""Useful features and robustly useful ones (Ilyas et al. 2019, section 2): a standard network's features tell the classes apart, but an
adversary turns them around; those of a robust network stay useful under attack."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from robustlab.constraints import ThreatModel
from robustlab.evaluation.usefulness import usefulness
from robustlab.experiments.cache import ExperimentCache, Measurement, Values
from robustlab.experiments.finding import Finding, LinePlot
from robustlab.norms import L2
from robustlab.reports.plots import Axes, Line
from robustlab.reports.tables import Table, percent


@dataclass(frozen=True)
class Config:
    """Attributes:
    sources: networks, see ``ExperimentCache.source``; standard ones and robust ones.
    n: training images, which give each feature its mean, deviation and class.
    per_class: test images of a feature's class, and as many of all others.
    """

    sources: tuple[str, ...] = ("cifar10-small-standard", "cifar10-small-l2", "cifar10-small-l2-eps1")
    eps: float = 0.5
    steps: int = 20
    n: int = 10_000
    per_class: int = 50
    arch: str = "small"


FULL = Config(("standard:30", "fast-l2:30"), n=50_000, per_class=200, arch="resnet18")


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Run the experiment, or what is missing of it, and put its numbers into tables."""
    settings = {"eps": config.eps, "steps": config.steps, "n": config.n, "per_class": config.per_class}
    measurements = [
        Measurement(source, {"source": source, "arch": config.arch, **settings}, partial(_measured, cache, config, source))
        for source in config.sources
    ]
    found = cache.measured("usefulness", measurements)
    rows, lines = [], []
    for source, values in zip(config.sources, found, strict=True):
        clean, attacked = (torch.tensor(values[what], dtype=torch.float64) for what in ("clean", "attacked"))
        shares = [((clean > 0) & kept).double().mean().item() for kept in (attacked > 0, attacked <= 0)]
        rows.append((source, len(clean), f"{clean.median():.2f}", f"{attacked.median():.2f}", *map(percent, shares)))
        for what, some in ((source, clean), (f"{source}, attacked", attacked)):
            lines.append(Line(what, list(range(1, len(some) + 1)), some.sort(descending=True).values.tolist()))
    table = Table(
        "How useful features are, and how robustly",
        f"Correlation of each feature of the last layer with the class that it tells best from the others, on {2 * config.per_class} test "
        f"images (half of that class) for each feature; under attack every image is changed within L2 eps {config.eps:g} against this "
        f"feature alone ({config.steps} steps). Class, mean and deviation come from {config.n:,} training images.",
        ("network", "features", "median usefulness", "median under attack", "robustly useful", "useful, non-robust"),
        tuple(rows),
        (
            "Published (Ilyas et al. 2019): the definitions, and the claim that standard networks rest on useful, non-robust features; "
            "no numbers.",
        ),
    )
    plot = LinePlot(
        "Usefulness of features, sorted",
        tuple(lines),
        Axes("features, the most useful first", "usefulness E[y f], in deviations of the feature"),
        {"useless": 0.0},
    )
    return Finding(
        (table,), {"measurements": [{"source": s, **v} for s, v in zip(config.sources, found, strict=True)]}, lines={"usefulness": plot}
    )


def _measured(cache: ExperimentCache, config: Config, source: str) -> Values:
    model = cache.source(source, config.arch)
    train, test = cache.images("train", limit=config.n), cache.images("test")
    threat = ThreatModel(L2(), config.eps)
    found = usefulness(model, train, test, threat, steps=config.steps, per_class=config.per_class, progress=False)
    return {name: getattr(found, name).tolist() for name in ("feature", "label", "clean", "attacked")}
