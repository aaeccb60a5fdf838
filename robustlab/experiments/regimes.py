"""Where robust features win and where non-robust ones do: D_det over eps, the source's accuracy, and augmentation.

In D_det the robust features of an image and the non-robust ones of its perturbation tell the same label; on an ordinary image they
differ. So a trained network shows which of the two it learned: by the non-robust ones the image's class, by the robust ones the class
after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from robustlab.construction import next_class
from robustlab.data.imageset import Images
from robustlab.evaluation import Rate
from robustlab.experiments.cache import ExperimentCache, Measurement, NetworkTraining, Values
from robustlab.experiments.finding import Finding
from robustlab.experiments.mislabelled import relabelling, source_name, train_and_test
from robustlab.reports.plots import HeatMap
from robustlab.reports.tables import Table, percent


@dataclass(frozen=True)
class Config:
    """Attributes:
    sources: from weak to strong, see ``ExperimentCache.source``.
    """

    sources: tuple[str, ...] = ("standard:2:10000", "standard:10:10000", "cifar10-small-standard")
    eps: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    augments: tuple[bool, ...] = (True, False)
    n: int = 4000
    steps: int = 10
    arch: str = "small"
    epochs: int = 10
    lr: float = 0.05

    def training(self, augment: bool) -> NetworkTraining:
        return NetworkTraining(self.arch, epochs=self.epochs, lr=self.lr, augment=augment)


FULL = Config(
    ("standard:2:10000", "standard:10:10000", "standard:30"), (0.25, 0.5, 1.0, 2.0), n=50_000, steps=100, arch="resnet18", epochs=30
)


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Run the experiment, or what is missing of it, and put its numbers into tables."""
    test = cache.images("test")
    measurements = [
        Measurement(
            f"source {source} eps {eps:g} {'augmented' if augment else 'plain'}",
            {"source": source, "eps": eps, "n": config.n, "steps": config.steps, "test": len(test), **vars(config.training(augment))},
            partial(_measured, cache, config, source, eps, augment, test),
        )
        for source in config.sources
        for eps in config.eps
        for augment in config.augments
    ]
    found = iter(cache.measured("regimes", measurements))
    rows, numbers, maps = [], [], {}
    accuracy: dict[bool, list[list[float]]] = {augment: [] for augment in config.augments}
    names: list[str] = []
    for source in config.sources:
        for augment in config.augments:
            accuracy[augment].append([])
        for eps in config.eps:
            for augment in config.augments:
                here = next(found)
                clean, after = Rate(**here["clean"]), Rate(**here["following"])
                accuracy[augment][-1].append(clean.value)
                low, high = clean.interval
                rows.append(
                    (
                        percent(here["source"]),
                        f"{eps:g}",
                        percent(here["fooled"]),
                        "yes" if augment else "no",
                        f"{100 * clean.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
                        f"{100 * after.value:.1f}",
                        "non-robust" if clean.value > after.value else "robust",
                    )
                )
                numbers.append({**here, "source": source, "source_accuracy": here["source"], "eps": eps, "augment": augment})
        names.append(percent(here["source"]))
    for augment, grid in accuracy.items():
        kind = "augmented" if augment else "plain"
        maps[f"regimes-{kind}"] = HeatMap(
            f"D_det, {kind}: ordinary test images classified as their label",
            "L2 eps of the construction",
            "source's test accuracy",
            tuple(f"{eps:g}" for eps in config.eps),
            tuple(names),
            tuple(tuple(line) for line in grid),
            1 / len(test.classes),
        )
    table = Table(
        "Where robust features win, and where non-robust ones do",
        f"D_det from {config.n:,} images, {config.steps} L2 steps; {config.arch}, {config.epochs} epochs, lr {config.lr:g}, one seed. "
        f"Percent of {len(test):,} ordinary test images: more are classified as their label where the non-robust features won, more as the "
        "class after it where the robust ones did.",
        ("source's accuracy", "eps", "targeted success rate", "augmented", "classified as their label", "as the class after it", "won"),
        tuple(rows),
    )
    return Finding((table,), {"measurements": numbers}, maps)


def _measured(cache: ExperimentCache, config: Config, source: str, eps: float, augment: bool, test: Images) -> Values:
    model = cache.source(source, config.arch)
    construction = relabelling(next_class, eps, config.steps)
    images = cache.images("train", limit=config.n)
    name = f"D_det {source_name(source, config.arch)} eps {eps:g} n {len(images)} steps {config.steps}"
    made, facts = cache.constructed(construction, images, model, name)
    found = train_and_test(cache, made, name, config.training(augment), test)
    return {**found, "fooled": facts["taken_for_label"], "source": cache.tested(model, test).clean.value}
