"""Robustness and data (Tsipras et al. 2019, figure 1; Schmidt et al. 2018): with few images robust training can help ordinary
accuracy, with many it costs some, and robust accuracy wants more data than ordinary accuracy does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.data.imageset import Images
from robustlab.evaluation import Rate
from robustlab.experiments.cache import ExperimentCache, Measurement, NetworkTraining, Values, rate
from robustlab.experiments.finding import Finding
from robustlab.norms import L2
from robustlab.reports.tables import Table, over_seeds

ATTACK = PGD(ThreatModel(L2(), 0.5), steps=20)


@dataclass(frozen=True)
class Config:
    """Attributes:
    updates: steps of each training, whatever the number of images: epochs are chosen accordingly, within ``epochs``.
    shipped: models trained on all images, put beside the others; each must have been trained by its recipe.
    """

    sizes: tuple[int, ...] = (500, 2000, 8000)
    recipes: tuple[str, ...] = ("standard", "fast-l2")
    shipped: tuple[str, ...] = ("cifar10-small-standard", "cifar10-small-l2")
    arch: str = "small"
    updates: int = 600
    epochs: tuple[int, int] = (9, 60)
    lr: float = 0.1
    seeds: int = 1
    test: int = 1000


FULL = Config((1000, 3000, 10_000, 30_000, 50_000), shipped=(), arch="resnet18", updates=12_000, epochs=(30, 200), test=10_000)


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Run the experiment, or what is missing of it, and put its numbers into tables."""
    test = cache.images("test", limit=config.test)
    measurements = []
    for size in config.sizes:
        for recipe in config.recipes:
            for seed in range(config.seeds):
                epochs = min(max(config.updates * 128 // size, config.epochs[0]), config.epochs[1])
                training = NetworkTraining(config.arch, recipe, epochs=epochs, lr=config.lr, seed=seed)
                settings = {"size": size, "test": len(test), "attack": str(ATTACK), **vars(training)}
                measurements.append(
                    Measurement(f"{recipe} n {size} seed {seed}", settings, partial(_measured, cache, size, training, test))
                )
    whole = [
        Measurement(f"{name}", {"shipped": name, "test": len(test), "attack": str(ATTACK)}, partial(_tested, cache, name, test))
        for name in config.shipped
    ]
    found = iter(cache.measured("data-size", [*measurements, *whole]))
    rows, numbers = [], []
    for size in config.sizes:
        for recipe in config.recipes:
            here = [next(found) for _ in range(config.seeds)]
            numbers.append({"size": size, "recipe": recipe, "seeds": here})
            rows.append((f"{size:,}", recipe, *(over_seeds([Rate(**h[what]) for h in here]) for what in ("clean", "attacked"))))
    for name in config.shipped:
        here = [next(found)]
        numbers.append({"shipped": name, "seeds": here})
        rows.append(("all", name, *(over_seeds([Rate(**h[what]) for h in here]) for what in ("clean", "attacked"))))
    table = Table(
        "Robustness and the number of training images",
        f"{config.arch}, about {config.updates:,} updates of 128 images each ({config.epochs[0]} to {config.epochs[1]} epochs), "
        f"lr {config.lr:g}; fast-l2 is N-FGSM at L2 0.5. Percent of {len(test):,} test images.",
        ("images", "training", "clean", f"under {ATTACK}"),
        tuple(rows),
        (
            "Published (Tsipras et al. 2019, figures): on MNIST adversarial training raises ordinary accuracy where images are few; on "
            "CIFAR-10 and with all images it lowers it. All of CIFAR-10, ResNet-50: "
            "95.3 standard, 90.8 trained at L2 .5 (a price of 4.4 points).",
        ),
    )
    return Finding((table,), {"measurements": numbers})


def _measured(cache: ExperimentCache, size: int, training: NetworkTraining, test: Images) -> Values:
    images = cache.images("train", limit=size)
    report = cache.tested(cache.trained(images, training, f"original n {len(images)}"), test, [ATTACK])
    return {"clean": rate(report.clean), "attacked": rate(report.under(str(ATTACK)))}


def _tested(cache: ExperimentCache, name: str, test: Images) -> Values:
    report = cache.tested(cache.source(name), test, [ATTACK])
    return {"clean": rate(report.clean), "attacked": rate(report.under(str(ATTACK)))}
