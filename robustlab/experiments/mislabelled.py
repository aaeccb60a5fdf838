"""Non-robust features suffice (Ilyas et al. 2019, section 3.2): a network that only ever saw images labelled wrongly, by the
perturbations that they carry, classifies ordinary images.

D_rand: the target is drawn, so only the perturbation tells the label. D_det: the target follows from the class, so the
visible features tell the label as well, and tell it wrongly for ordinary images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from robustlab.constraints import ThreatModel
from robustlab.construction import Relabelled, drawn, following
from robustlab.data.imageset import Images
from robustlab.evaluation import Rate
from robustlab.experiments.table import Finding, Table, over_seeds, percent
from robustlab.experiments.workshop import Cell, Measurement, Training, Workshop, rate
from robustlab.norms import L2

TARGETS = {"D_rand": drawn, "D_det": following}
PUBLISHED = {"D_rand": "63.3", "D_det": "43.7"}


@dataclass(frozen=True)
class Config:
    """Attributes:
    source: the model through which images are perturbed, see ``Workshop.source``.
    n: images constructed.
    """

    source: str = "cifar10-small-standard"
    sets: tuple[str, ...] = ("D_rand", "D_det")
    n: int = 10_000
    eps: float = 1.0
    steps: int = 20
    arch: str = "small"
    epochs: int = 10
    lrs: tuple[float, ...] = (0.05, 0.2)
    augments: tuple[bool, ...] = (True, False)
    seeds: int = 2


FULL = Config(source="standard:30", n=50_000, eps=0.5, steps=100, arch="resnet18", epochs=60, lrs=(0.01, 0.05, 0.1))


def relabelled(workshop: Workshop, kind: str, source: str, arch: str, images: Images, eps: float, steps: int) -> tuple[Images, dict]:
    """D_rand or D_det of some images; the name of the set tells how it was made."""
    construction = Relabelled(TARGETS[kind], ThreatModel(L2(), eps), steps, step_size=min(eps / 5, 2.5 * eps / steps))
    return workshop.constructed(construction, images, workshop.source(source, arch), f"{kind} {source} eps {eps:g} n {len(images)}")


def learned(workshop: Workshop, made: Images, name: str, training: Training, test: Images) -> Measurement:
    """Train on a relabelled set and test on ordinary images: how many are taken for their class, and how many for the one after it."""
    model = workshop.trained(made, training, name)
    report = workshop.tested(model, test)
    after = sum(r.prediction == (r.label + 1) % len(test.classes) for r in report.records)
    own = workshop.tested(model, made.subset(torch.arange(min(1000, len(made)))))
    return {"clean": rate(report.clean), "following": rate(Rate(after, report.clean.n)), "own": rate(own.clean)}


def run(workshop: Workshop, config: Config) -> Finding:
    images, test = workshop.images("train", limit=config.n), workshop.images("test")
    cells, facts = [], {}
    for kind in config.sets:
        made, facts[kind] = relabelled(workshop, kind, config.source, config.arch, images, config.eps, config.steps)
        name = f"{kind} {config.source} eps {config.eps:g} n {config.n}"
        for lr in config.lrs:
            for augment in config.augments:
                for seed in range(config.seeds):
                    training = Training(config.arch, epochs=config.epochs, lr=lr, augment=augment, seed=seed)
                    settings = {"set": name, "steps": config.steps, "test": len(test), **vars(training)}
                    title = f"{kind} lr {lr:g} {'augmented' if augment else 'plain'} seed {seed}"
                    cells.append(Cell(title, settings, partial(learned, workshop, made, name, training, test)))
    found = iter(workshop.measured("mislabelled", cells))
    rows, numbers = [], []
    for kind in config.sets:
        for lr in config.lrs:
            for augment in config.augments:
                here = [next(found) for _ in range(config.seeds)]
                numbers.append({"set": kind, "lr": lr, "augment": augment, "seeds": here})
                shown = [over_seeds([Rate(**h[what]) for h in here]) for what in ("clean", "following", "own")]
                rows.append((kind, f"{lr:g}", "yes" if augment else "no", *shown, PUBLISHED[kind]))
    chance = 1 / len(test.classes)
    fooled = ", ".join(f"{kind} {percent(known['taken_for_label'])}" for kind, known in facts.items())
    equal = facts.get("D_rand", {}).get("label_is_original")
    return Finding(
        (
            Table(
                "Training on mislabelled adversarial examples",
                f"{config.n:,} images, L2 eps {config.eps:g}, {config.steps} steps through {config.source}; fooling rate {fooled}"
                + (f"; D_rand's target is the original class for {percent(equal)}" if equal is not None else "")
                + f". {config.arch}, {config.epochs} epochs. Percent of {len(test):,} ordinary test images; chance is {100 * chance:.0f}.",
                ("set", "lr", "augmented", "taken for their class", "for the class after it", "own training images", "published"),
                tuple(rows),
            ),
        ),
        {"facts": facts, "cells": numbers},
    )
