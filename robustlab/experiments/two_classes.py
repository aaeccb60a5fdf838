"""The talk's simple experiment: every training image of a dog perturbed towards "cat" and labelled cat, and the reverse.

A network that learns from these alone has seen nothing but wrong labels; published: 78 % of ordinary test images classified correctly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from robustlab.evaluation import Rate
from robustlab.experiments.cache import ExperimentCache, Measurement, NetworkTraining
from robustlab.experiments.finding import Finding
from robustlab.experiments.mislabelled import relabelled_set, source_name, train_and_test
from robustlab.reports.tables import Table, over_seeds, percent


@dataclass(frozen=True)
class Config:
    """Attributes:
    sources: models through which images are perturbed, see ``ExperimentCache.source``.
    """

    sources: tuple[str, ...] = ("cifar10-small-standard", "cifar10-small-l2")
    classes: tuple[str, ...] = ("dog", "cat")
    n: int = 5000
    eps: tuple[float, ...] = (1.0, 2.0)
    steps: int = 20
    arch: str = "small"
    epochs: int = 12
    lrs: tuple[float, ...] = (0.05,)
    augments: tuple[bool, ...] = (True,)
    seeds: int = 2


FULL = Config(
    sources=("standard:30",), n=10_000, eps=(0.5, 1.0), steps=100, arch="resnet18", epochs=60, lrs=(0.01, 0.05, 0.1), augments=(True, False)
)


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Run the experiment, or what is missing of it, and put its numbers into tables."""
    images = cache.images("train", config.classes, config.n)
    test = cache.images("test", config.classes)
    pair = " and ".join(config.classes)
    measurements, keys = [], []
    for source in config.sources:
        for eps in config.eps:
            made, facts = relabelled_set(cache, "D_det", source, config.arch, images, eps, config.steps)
            name = f"D_det {pair} {source_name(source, config.arch)} eps {eps:g} n {len(images)} steps {config.steps}"
            for lr in config.lrs:
                for augment in config.augments:
                    keys.append({"source": source, "eps": eps, "lr": lr, "augment": augment, "fooled": facts["taken_for_label"]})
                    for seed in range(config.seeds):
                        training = NetworkTraining(config.arch, epochs=config.epochs, lr=lr, augment=augment, seed=seed)
                        settings = {"set": name, "test": len(test), **vars(training)}
                        title = f"{source} eps {eps:g} lr {lr:g} {'augmented' if augment else 'plain'} seed {seed}"
                        measurements.append(Measurement(title, settings, partial(train_and_test, cache, made, name, training, test)))
    found = iter(cache.measured("two-classes", measurements))
    rows, numbers = [], []
    for key in keys:
        here = [next(found) for _ in range(config.seeds)]
        numbers.append({**key, "seeds": here})
        shown = [over_seeds([Rate(**h[what]) for h in here]) for what in ("clean", "own")]
        augmented = "yes" if key["augment"] else "no"
        rows.append((key["source"], f"{key['eps']:g}", percent(key["fooled"]), f"{key['lr']:g}", augmented, *shown, "78"))
    table = Table(
        f"{pair.capitalize()}, every label wrong",
        f"{len(images):,} images of {pair}, each perturbed towards the other class in {config.steps} L2 steps through the source, and "
        f"labelled as it. {config.arch}, {config.epochs} epochs. Accuracy in percent on {len(test):,} ordinary test images; chance is 50.",
        ("source", "eps", "targeted success rate", "lr", "augmented", "accuracy", "accuracy on its training images", "published"),
        tuple(rows),
    )
    return Finding((table,), {"measurements": numbers})
