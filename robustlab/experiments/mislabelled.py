"""Non-robust features suffice (Ilyas et al. 2019, section 3.2): a network that only ever saw images labelled wrongly, by the
perturbations that they carry, classifies ordinary images.

D_rand: the target is drawn, so only the perturbation tells the label. D_det: the target follows from the class, so the
robust features tell the label as well, and tell it wrongly for ordinary images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from robustlab.constraints import ThreatModel
from robustlab.construction import Relabelled, next_class, random_target
from robustlab.construction.relabelled import Targets
from robustlab.data.imageset import Images, hold_out
from robustlab.evaluation import Rate
from robustlab.experiments.cache import ExperimentCache, Measurement, NetworkTraining, Values, rate, trained_here
from robustlab.experiments.finding import Finding
from robustlab.norms import L2
from robustlab.reports.tables import Table, over_seeds, percent

TARGETS = {"D_rand": random_target, "D_det": next_class}
PUBLISHED = {"D_rand": "63.3", "D_det": "43.7"}


@dataclass(frozen=True)
class Config:
    """Attributes:
    source: the model through which images are perturbed, see ``ExperimentCache.source``.
    n: images that the grid of lr and augmentation trains on.
    also: further sets and sources, of ``n`` images, trained on at the first lr, augmented.
    more: sets of which ``times`` as many images are also trained on, at the first lr, augmented.
    """

    source: str = "cifar10-small-standard"
    sets: tuple[str, ...] = ("D_rand", "D_det")
    n: int = 8000
    eps: float = 2.0
    steps: int = 10
    arch: str = "small"
    epochs: int = 10
    lrs: tuple[float, ...] = (0.1, 0.02)
    augments: tuple[bool, ...] = (True, False)
    seeds: int = 2
    also: tuple[tuple[str, str], ...] = (
        ("D_rand", "cifar10-small-l2"),
        ("D_det", "cifar10-small-l2"),
        ("D_det", "standard:2:10000"),
    )
    more: tuple[str, ...] = ("D_rand",)
    times: float = 3.75


FULL = Config(source="standard:30", n=50_000, eps=0.5, steps=100, arch="resnet18", epochs=60, lrs=(0.01, 0.05, 0.1), also=(), more=())


def relabelled_set(
    cache: ExperimentCache, kind: str, source: str, arch: str, images: Images, eps: float, steps: int
) -> tuple[Images, dict]:
    """D_rand or D_det of some images, from the cache or made now; the name of the set tells how it was made.

    Args:
        cache: where sets are kept.
        kind: ``D_rand`` or ``D_det``.
        source: the model behind it, see ``ExperimentCache.source``; with its architecture ``arch`` where it is trained here.
        images: the originals.
        eps: L2 radius in pixel units.
        steps: gradient steps.

    Returns:
        The set, and what is known of it as a whole.
    """
    construction = relabelling(TARGETS[kind], eps, steps)
    return cache.constructed(
        construction, images, cache.source(source, arch), f"{kind} {source_name(source, arch)} eps {eps:g} n {len(images)}"
    )


def relabelling(targets: Targets, eps: float, steps: int) -> Relabelled:
    """How experiments relabel: L2, in the published steps of ``eps / 5`` or, where these are few, in steps that can cross the ball."""
    threat = ThreatModel(L2(), eps)
    return Relabelled(targets, threat, steps, min(eps / 5, float(threat.default_step_size(steps))))


def source_name(source: str, arch: str) -> str:
    """A source's name, with its architecture where that does not go without saying."""
    return f"{source}:{arch}" if trained_here(source) and arch != "small" else source


def train_and_test(cache: ExperimentCache, made: Images, name: str, training: NetworkTraining, test: Images) -> Values:
    """Train on a relabelled set and test on ordinary images.

    Args:
        cache: where networks are kept.
        made: the relabelled set, called ``name``.
        training: how to train.
        test: ordinary images.

    Returns:
        Counts of images classified as their label (``clean``), as the class after it (``following``), and of training images
        classified as their new label (``own``).
    """
    model = cache.trained(made, training, name)
    report = cache.tested(model, test)
    after = sum(r.prediction == (r.label + 1) % len(test.classes) for r in report.records)
    own = cache.tested(model, made.subset(torch.arange(min(1000, len(made)))))
    return {"clean": rate(report.clean), "following": rate(Rate(after, report.clean.n)), "own": rate(own.clean)}


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Run the experiment, or what is missing of it, and put its numbers into tables."""
    test = cache.images("test")
    measurements, facts, keys = [], {}, []
    plans = [(kind, source, False) for kind, source in config.also] + [(kind, config.source, True) for kind in config.sets]
    for kind, source, grid in plans:
        images = cache.images("train", limit=round(config.n * config.times) if grid and kind in config.more else config.n)
        made, facts[f"{kind} {source}"] = relabelled_set(cache, kind, source, config.arch, images, config.eps, config.steps)
        some = made if len(made) <= config.n else made.subset(hold_out(made, config.n, seed=0)[1])
        trainings = [(some, lr, augment) for lr in config.lrs for augment in config.augments] if grid else [(made, config.lrs[0], True)]
        if len(made) > len(some):
            trainings.insert(0, (made, config.lrs[0], True))
        for chosen, lr, augment in trainings:
            keys.append((kind, source, len(chosen), lr, augment))
            name = f"{kind} {source_name(source, config.arch)} eps {config.eps:g} n {len(chosen)} of {len(made)} steps {config.steps}"
            for seed in range(config.seeds):
                training = NetworkTraining(config.arch, epochs=config.epochs, lr=lr, augment=augment, seed=seed)
                settings = {"set": name, "test": len(test), **vars(training)}
                title = f"{kind} n {len(chosen)} lr {lr:g} {'augmented' if augment else 'plain'} seed {seed}"
                measurements.append(Measurement(title, settings, partial(train_and_test, cache, chosen, name, training, test)))
    found = iter(cache.measured("mislabelled", measurements))
    rows, numbers = [], []
    for kind, source, n, lr, augment in keys:
        here = [next(found) for _ in range(config.seeds)]
        numbers.append({"set": kind, "source": source, "n": n, "lr": lr, "augment": augment, "seeds": here})
        shown = [over_seeds([Rate(**h[what]) for h in here]) for what in ("clean", "following", "own")]
        fooled = percent(facts[f"{kind} {source}"]["taken_for_label"])
        rows.append((kind, source, fooled, f"{n:,}", f"{lr:g}", "yes" if augment else "no", *shown, PUBLISHED[kind]))
    measured = ("accuracy", "classified as the class after", "accuracy on its own images")
    table = Table(
        "Training on mislabelled adversarial examples",
        f"L2 eps {config.eps:g}, {config.steps} steps. {config.arch}, {config.epochs} epochs. Percent of {len(test):,} ordinary test "
        "images classified as their label (accuracy), and as the class after it, which D_det's robust features mean; chance is "
        f"{100 / len(test.classes):.0f}.",
        ("set", "source", "targeted success rate", "images", "lr", "augmented", *measured, "published"),
        tuple(rows),
    )
    return Finding((table,), {"facts": facts, "measurements": numbers})
