"""The same on *shapes*, where the features are known: D_det teaches the faint pattern, D_R the visible shape.

Two models of *shapes*, standard and robust, make the sets. What a network learned from them is measured on pictures whose shape
and pattern disagree, and by changing one of the two while all else stays. The pattern's L2 norm is within what robust training
resists, so a robust model cannot use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from robustlab.constraints import ThreatModel
from robustlab.construction import Construction, Inverted, Relabelled, next_class, random_target
from robustlab.data.imageset import Images
from robustlab.data.shapes import ShapesConfig, shapes
from robustlab.evaluation import Rate
from robustlab.evaluation.features import FEATURES, follows, moved_by
from robustlab.experiments.cache import ExperimentCache, Measurement, NetworkTraining, Values, rate
from robustlab.experiments.finding import Finding
from robustlab.models.classifier import Classifier
from robustlab.norms import L2
from robustlab.reports.tables import Table, over_seeds


@dataclass(frozen=True)
class Config:
    """Attributes:
    faint_amplitude: of the pattern, see ``ShapesConfig``.
    source_n, n: pictures that the sources are trained on, and that each set is made of.
    eps: of D_rand and D_det.
    steps, inversion_steps: of D_rand and D_det, and of D_R and D_NR.
    """

    sets: tuple[str, ...] = ("original", "D_rand", "D_det", "D_R", "D_NR")
    faint_amplitude: float = 2.5 / 255
    source_n: int = 4000
    source_epochs: int = 8
    n: int = 3000
    eps: float = 0.5
    steps: int = 10
    inversion_steps: int = 60
    inversion_step: float = 0.5
    arch: str = "small"
    epochs: int = 10
    lr: float = 0.1
    seeds: int = 2
    test: int = 1000

    @property
    def pictures(self) -> ShapesConfig:
        """How the pictures of *shapes* are drawn."""
        return ShapesConfig(faint_amplitude=self.faint_amplitude)

    def training(self, seed: int) -> NetworkTraining:
        """On a set; without augmentation, as pictures are endless."""
        return NetworkTraining(self.arch, epochs=self.epochs, lr=self.lr, augment=False, seed=seed)

    def source(self, recipe: str) -> NetworkTraining:
        return NetworkTraining(self.arch, recipe, self.source_epochs, 0.2, augment=False)


FULL = Config(source_n=20_000, source_epochs=30, n=20_000, steps=100, inversion_steps=1000, arch="resnet18", epochs=30, test=2000)


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Run the experiment, or what is missing of it, and put its numbers into tables."""
    images = shapes(config.source_n, "train", config=config.pictures)
    name = f"shapes {255 * config.faint_amplitude:g} n {config.source_n}"
    standard, robust = (cache.trained(images, config.source(recipe), name) for recipe in ("standard", "fast-l2"))
    some = images.subset(torch.arange(config.n))
    relabelled = partial(Relabelled, threat=ThreatModel(L2(), config.eps), steps=config.steps, step_size=None)
    inverted = Inverted(config.inversion_steps, config.inversion_step)
    plans: dict[str, tuple[Construction, Classifier]] = {
        "D_rand": (relabelled(random_target), standard),
        "D_det": (relabelled(next_class), standard),
        "D_R": (inverted, robust),
        "D_NR": (inverted, standard),
    }
    sets: dict[str, Images] = {"original": some} if "original" in config.sets else {}
    facts = {}
    for kind in (kind for kind in config.sets if kind in plans):
        construction, model = plans[kind]
        sets[kind], facts[kind] = cache.constructed(construction, some, model, f"{kind} {name} n {config.n}")
    measurements = []
    for kind, made in sets.items():
        for seed in range(config.seeds):
            settings = {**vars(config), "sets": kind, **vars(config.training(seed))}
            measurements.append(Measurement(f"{kind} seed {seed}", settings, partial(_measured, cache, config, made, kind, seed)))
    found = iter(cache.measured("known-features", measurements))
    rows, numbers = [], {}
    whats = ("clean", *FEATURES, *(f"moved_by_{feature}" for feature in FEATURES))
    for kind in sets:
        here = numbers[kind] = [next(found) for _ in range(config.seeds)]
        rows.append((kind, *(over_seeds([Rate(**h[what]) for h in here]) for what in whats)))
    table = Table(
        "Known features: which one each set teaches",
        f"Shapes, the pattern of {255 * config.faint_amplitude:g}/255 (root mean square); sets of {config.n:,} pictures, L2 eps "
        f"{config.eps:g} in {config.steps} steps, inversion in {config.inversion_steps} steps of {config.inversion_step:g}; {config.arch}, "
        f"{config.epochs} epochs, no augmentation. Percent of {config.test:,} test pictures.",
        ("training set", "accuracy", "follows the shape", "follows the pattern", "moved by another shape", "moved by another pattern"),
        tuple(rows),
        (
            "Accuracy: of ordinary test pictures. Follows: of pictures with the shape of one class and the faint pattern of another, how "
            "many are classified as the class of that feature. Moved by: of pictures in which one feature was exchanged for another "
            "class's, how many are classified as that class.",
        ),
    )
    return Finding((table,), {"facts": facts, "measurements": numbers})


def _measured(cache: ExperimentCache, config: Config, made: Images, kind: str, seed: int) -> Values:
    name = f"{kind} {' '.join(f'{value:g}' for value in vars(config).values() if isinstance(value, int | float))}"
    model = cache.trained(made, config.training(seed), name)
    clean = cache.tested(model, shapes(config.test, "test", config=config.pictures)).clean
    followed = follows(model, config.test, cache.device, config.pictures)
    moved = moved_by(model, config.test, cache.device, config.pictures)
    found = {"clean": clean, **followed, **{f"moved_by_{feature}": value for feature, value in moved.items()}}
    return {what: rate(value) for what, value in found.items()}
