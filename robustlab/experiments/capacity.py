"""Capacity and robustness (Madry et al. 2018, figure 4): a robust network must be larger than a standard one. Width raises ordinary
accuracy a little and robust accuracy more, and a network that is too narrow learns little under an adversary."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.data.imageset import Images
from robustlab.evaluation import Rate
from robustlab.experiments.cache import ExperimentCache, Measurement, NetworkTraining, Values, rate
from robustlab.experiments.finding import Finding, LinePlot
from robustlab.models.architectures import meta_network
from robustlab.norms import L2
from robustlab.reports.plots import Axes, spread_line
from robustlab.reports.tables import Table, over_seeds

ATTACK = PGD(ThreatModel(L2(), 0.5), steps=20)


@dataclass(frozen=True)
class Config:
    """Attributes:
    archs: from narrow to wide; ``small-W`` is ``small`` with W channels in its first stage.
    n: training images.
    test: test images.
    """

    archs: tuple[str, ...] = ("small-4", "small-8", "small-16", "small-32")
    recipes: tuple[str, ...] = ("standard", "fast-l2")
    n: int = 10_000
    epochs: int = 15
    lr: float = 0.1
    seeds: int = 2
    test: int = 2000


FULL = Config(("small-8", "small-16", "small-32", "small-64", "small-128"), n=50_000, epochs=30, lr=0.2, seeds=3, test=10_000)


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Run the experiment, or what is missing of it, and put its numbers into tables."""
    train, test = cache.images("train", limit=config.n), cache.images("test", limit=config.test)
    cases = [(arch, recipe, seed) for arch in config.archs for recipe in config.recipes for seed in range(config.seeds)]
    measurements = []
    for arch, recipe, seed in cases:
        training = NetworkTraining(arch, recipe, epochs=config.epochs, lr=config.lr, seed=seed)
        settings = {"n": config.n, "test": len(test), "attack": str(ATTACK), **vars(training)}
        measurements.append(Measurement(f"{arch} {recipe} seed {seed}", settings, partial(_measured, cache, train, training, test)))
    found = dict(zip(cases, cache.measured("capacity", measurements), strict=True))
    sizes = {arch: _parameters(arch, train) for arch in config.archs}
    rows, numbers = [], []
    for arch in config.archs:
        for recipe in config.recipes:
            here = [found[arch, recipe, seed] for seed in range(config.seeds)]
            numbers.append({"arch": arch, "parameters": sizes[arch], "recipe": recipe, "seeds": here})
            rows.append(
                (arch, f"{sizes[arch]:,}", recipe, *(over_seeds([Rate(**h[what]) for h in here]) for what in ("clean", "attacked")))
            )
    table = Table(
        "Capacity and robustness",
        f"Networks of rising width, {config.n:,} training images, {config.epochs} epochs, lr {config.lr:g}; fast-l2 is N-FGSM at L2 0.5. "
        f"Percent of {len(test):,} test images.",
        ("network", "parameters", "training", "clean", f"under {ATTACK}"),
        tuple(rows),
        (
            "Published (Madry et al. 2018, figure 4: CIFAR-10, Linf 8/255, all images): a ResNet, clean 92.7 with standard training; 79.4 "
            "clean and 43.7 under PGD with robust training. Ten times as wide: 95.2; 87.3 and 45.8.",
        ),
    )
    return Finding((table,), {"measurements": numbers}, lines={"capacity": _plot(config, found, sizes)})


def _plot(config: Config, found: dict[tuple[str, str, int], Values], sizes: dict[str, int]) -> LinePlot:
    lines = [
        spread_line(
            f"{recipe}, {what}",
            [sizes[arch] for arch in config.archs],
            [[Rate(**found[arch, recipe, seed][what]).value for arch in config.archs] for seed in range(config.seeds)],
        )
        for recipe in config.recipes
        for what in ("clean", "attacked")
    ]
    return LinePlot(f"Accuracy and width, {ATTACK}", tuple(lines), Axes("parameters", "test accuracy", log_x=True, percent=True))


def _parameters(arch: str, images: Images) -> int:
    network = meta_network(arch, num_classes=len(images.classes), channels=images.shape[0])
    return sum(parameter.numel() for parameter in network.parameters())


def _measured(cache: ExperimentCache, train: Images, training: NetworkTraining, test: Images) -> Values:
    report = cache.tested(cache.trained(train, training, f"original n {len(train)}"), test, [ATTACK])
    return {"clean": rate(report.clean), "attacked": rate(report.under(str(ATTACK)))}
