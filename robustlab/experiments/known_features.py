"""The same on *shapes*, where the features are known: D_det teaches the faint pattern, D_R the visible shape.

Two models of *shapes*, standard and robust, make the sets. What a network learned from them is measured on pictures whose shape
and pattern disagree, and by changing one of the two while all else stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from robustlab.constraints import ThreatModel
from robustlab.construction import Construction, Inverted, Relabelled, drawn, following
from robustlab.data.imageset import Images, to_float
from robustlab.data.shapes import CLASSES, render, shapes
from robustlab.evaluation import Rate, predictions
from robustlab.experiments.table import Finding, Table, over_seeds
from robustlab.experiments.workshop import Cell, Measurement, Training, Workshop, rate
from robustlab.models.classifier import Classifier
from robustlab.models.frozen import frozen
from robustlab.norms import L2
from robustlab.seeding import example_keys, fold, integers

FOLLOWED = ("shape", "pattern")


@dataclass(frozen=True)
class Config:
    """Attributes:
    source_n, n: pictures that the sources are trained on, and that each set is made of.
    eps: of D_rand and D_det.
    steps, inversion_steps: of D_rand and D_det, and of D_R and D_NR.
    """

    source_n: int = 6000
    source_epochs: int = 6
    n: int = 3000
    eps: float = 0.5
    steps: int = 10
    inversion_steps: int = 60
    arch: str = "small"
    epochs: int = 8
    lr: float = 0.1
    seeds: int = 2
    test: int = 1000


FULL = Config(source_n=20_000, source_epochs=30, n=20_000, steps=100, inversion_steps=1000, arch="resnet18", epochs=30, test=2000)


def run(workshop: Workshop, config: Config) -> Finding:
    images = shapes(config.source_n, "train")
    source_training = Training(config.arch, epochs=config.source_epochs, lr=0.2)
    standard = workshop.trained(images, source_training, f"shapes n {config.source_n}")
    robust = workshop.trained(images, Training(config.arch, "fast-l2", config.source_epochs, 0.2), f"shapes n {config.source_n}")
    some = images.subset(torch.arange(config.n))
    threat = ThreatModel(L2(), config.eps)
    plans: dict[str, tuple[Construction, Classifier]] = {
        "D_rand": (Relabelled(drawn, threat, config.steps, None), standard),
        "D_det": (Relabelled(following, threat, config.steps, None), standard),
        "D_R": (Inverted(config.inversion_steps), robust),
        "D_NR": (Inverted(config.inversion_steps), standard),
    }
    sets: dict[str, Images] = {"original": some}
    facts = {}
    for kind, (construction, model) in plans.items():
        sets[kind], facts[kind] = workshop.constructed(construction, some, model, f"{kind} shapes n {config.n}")
    cells = []
    for kind, made in sets.items():
        for seed in range(config.seeds):
            training = Training(config.arch, epochs=config.epochs, lr=config.lr, seed=seed)
            settings = {**vars(config), "set": kind, **vars(training)}
            cells.append(Cell(f"{kind} seed {seed}", settings, partial(_measured, workshop, config, made, kind, training)))
    found = iter(workshop.measured("known-features", cells))
    rows, numbers = [], {}
    whats = ("clean", *FOLLOWED, "moved_by_shape", "moved_by_pattern")
    for kind in sets:
        here = numbers[kind] = [next(found) for _ in range(config.seeds)]
        rows.append((kind, *(over_seeds([Rate(**h[what]) for h in here]) for what in whats)))
    table = Table(
        "Known features: which one each set teaches",
        f"Shapes; sets of {config.n:,} pictures, L2 eps {config.eps:g} in {config.steps} steps, inversion in {config.inversion_steps}; "
        f"{config.arch}, {config.epochs} epochs. Percent of {config.test:,} test pictures.",
        ("training set", "right", "goes by the shape", "goes by the pattern", "moved by another shape", "moved by another pattern"),
        tuple(rows),
        (
            "Right: of ordinary test pictures. Goes by: of pictures with the shape of one class and the faint pattern of another. "
            "Moved by: of "
            "pictures whose features agree, how many are taken for the class of the one feature that was exchanged.",
        ),
    )
    return Finding((table,), {"facts": facts, "cells": numbers})


def _measured(workshop: Workshop, config: Config, made: Images, kind: str, training: Training) -> Measurement:
    steps = config.inversion_steps if kind in ("D_R", "D_NR") else config.steps
    name = f"shapes {kind} n {config.n} eps {config.eps:g} steps {steps} source {config.source_n} {config.source_epochs}"
    model = workshop.trained(made, training, name)
    clean = workshop.tested(model, shapes(config.test, "test")).clean
    followed = {feature: rate(value) for feature, value in follows(model, config.test, workshop.device).items()}
    return {"clean": rate(clean), **followed, **_moved(model, config.test, workshop.device)}


def contradictions(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """The first ``n`` test pictures of *shapes*, drawn with the shape of one class and the faint pattern of another.

    Returns:
        Pixels, uint8 ``(N, 3, 32, 32)``; the class of the shape and that of the pattern, int64 ``(N,)`` each.
    """
    shape, pattern = _two_classes(n)
    return render(shape, pattern, torch.arange(n), "test"), shape, pattern


def _two_classes(n: int) -> tuple[Tensor, Tensor]:
    index = torch.arange(n)
    own = index % len(CLASSES)
    return own, (own + 1 + integers(fold(example_keys(0, index), "contradiction"), len(CLASSES) - 1)) % len(CLASSES)


def follows(model: nn.Module, n: int, device: torch.device | str) -> dict[str, Rate]:
    """Of ``n`` contradictory pictures, how many a model classifies by each feature."""
    pixels, shape, pattern = contradictions(n)
    found = _predicted(model, pixels, device)
    return {"shape": Rate(int((found == shape).sum()), n), "pattern": Rate(int((found == pattern).sum()), n)}


def _moved(model: Classifier, n: int, device: torch.device) -> Measurement:
    """Exchange one feature at a time, from pictures in which both show the same class."""
    own, other = _two_classes(n)
    index = torch.arange(n)
    swapped = {"shape": render(other, own, index, "test"), "pattern": render(own, other, index, "test")}
    return {f"moved_by_{name}": rate(Rate(int((_predicted(model, pixels, device) == other).sum()), n)) for name, pixels in swapped.items()}


def _predicted(model: nn.Module, pixels: Tensor, device: torch.device | str) -> Tensor:
    with frozen(model):
        return torch.cat([predictions(model, to_float(part.to(device))).cpu() for part in pixels.split(250)])
