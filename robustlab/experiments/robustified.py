"""Robust features can be put into a dataset (Ilyas et al. 2019, section 3.1): standard training on D_R gives a model that is
robust, on D_NR one that is not, though both classify ordinary images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.construction import Inverted
from robustlab.data.imageset import Images
from robustlab.evaluation import Rate
from robustlab.experiments.cache import ExperimentCache, Measurement, NetworkTraining, Values, rate
from robustlab.experiments.finding import Finding
from robustlab.experiments.mislabelled import source_name
from robustlab.norms import L2
from robustlab.reports.tables import Table, over_seeds

ATTACK = PGD(ThreatModel(L2(), 0.25), steps=20)
PUBLISHED = {"original": "95.3 / 4.5", "D_R": "84.1 / 48.3", "D_NR": "87.7 / 0.8"}


@dataclass(frozen=True)
class Config:
    """Attributes:
    robust, standard: the models whose features D_R and D_NR have, see ``ExperimentCache.source``.
    test: images that are tested, clean and under attack.
    """

    robust: str = "cifar10-small-l2"
    standard: str = "cifar10-small-standard"
    n: int = 5000
    steps: int = 80
    step_size: float = 0.5
    arch: str = "small"
    epochs: int = 30
    lr: float = 0.1
    seeds: int = 2
    test: int = 1000


FULL = Config("madry-l2:30", "standard:30", n=50_000, steps=1000, step_size=0.1, arch="resnet18", epochs=60, test=10_000)


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Run the experiment, or what is missing of it, and put its numbers into tables."""
    images, test = cache.images("train", limit=config.n), cache.images("test", limit=config.test)
    sets: dict[str, Images] = {"original": images}
    facts = {}
    for kind, source in (("D_R", config.robust), ("D_NR", config.standard)):
        construction = Inverted(config.steps, config.step_size)
        model = cache.source(source, config.arch)
        sets[kind], facts[kind] = cache.constructed(
            construction, images, model, f"{kind} {source_name(source, config.arch)} n {len(images)}"
        )
    measurements = []
    for kind, made in sets.items():
        source = {"D_R": config.robust, "D_NR": config.standard}.get(kind, "")
        made_by = f"{source_name(source, config.arch)} steps {config.steps} of {config.step_size:g}"
        name = f"{kind} {made_by} n {len(images)}" if source else f"original n {len(images)}"
        for seed in range(config.seeds):
            training = NetworkTraining(config.arch, epochs=config.epochs, lr=config.lr, seed=seed)
            settings = {"set": name, "test": len(test), "attack": str(ATTACK), **vars(training)}
            measurements.append(Measurement(f"{kind} seed {seed}", settings, partial(_measured, cache, made, name, training, test)))
    found = iter(cache.measured("robustified", measurements))
    rows, numbers = [], {}
    for kind in sets:
        here = numbers[kind] = [next(found) for _ in range(config.seeds)]
        distance = f"{facts[kind]['distance']['mean']:.3f}" if kind in facts else "-"
        rows.append((kind, distance, *(over_seeds([Rate(**h[what]) for h in here]) for what in ("clean", "attacked")), PUBLISHED[kind]))
    table = Table(
        "Robustness from the data alone",
        f"{len(images):,} training images; D_R from {config.robust}, D_NR from {config.standard}, {config.steps} steps of "
        f"{config.step_size:g}. Standard training of {config.arch}, {config.epochs} epochs, augmented. Percent of {len(test):,} "
        "ordinary test images.",
        ("training set", "relative feature distance", "clean", f"under {ATTACK}", "published (clean / L2 .25)"),
        tuple(rows),
    )
    return Finding((table,), {"facts": facts, "measurements": numbers})


def _measured(cache: ExperimentCache, made: Images, name: str, training: NetworkTraining, test: Images) -> Values:
    report = cache.tested(cache.trained(made, training, name), test, [ATTACK])
    return {"clean": rate(report.clean), "attacked": rate(report.under(str(ATTACK)))}
