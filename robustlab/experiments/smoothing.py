"""Why smoothing works: noise overwhelms the non-robust features, so that a smoothed classifier goes by the robust ones.

On *shapes* the features are known. Networks are trained with noise of each sigma, and what the smoothed classifier goes by is counted on
pictures whose shape and pattern disagree, beside the closed form of two Gaussian classes with the same two features. On images of one's
own: what noise costs in clean accuracy, what it gains under attack, and what smoothing proves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist

import torch

from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.data.imageset import ImageSet
from robustlab.data.shapes import CLASSES, ShapesConfig, contradictions, render, shapes, templates, two_classes
from robustlab.evaluation import Rate, evaluate
from robustlab.evaluation.features import FEATURES
from robustlab.experiments.cache import ExperimentCache, Measurement, NetworkTraining, Values, rate
from robustlab.experiments.finding import Finding, LinePlot
from robustlab.linear_bias.gaussian import Gaussian
from robustlab.models.classifier import Classifier
from robustlab.norms import L2
from robustlab.options import changed
from robustlab.reports.plots import Axes, Line
from robustlab.reports.tables import Table, over_seeds
from robustlab.settings import Training
from robustlab.smoothing import Certificates, predict

ALPHA = 0.001  # how often a certificate may be wrong
POINTS = 40  # of a curve of certified accuracy
RADII = (0.25, 0.5, 0.75)  # of the table, in pixel units
OF_SHAPES, OF_IMAGES = ("faint_amplitude", "test", "draws"), ("eps", "steps", "attacked", "certified", "n_draws")  # settings of one part


@dataclass(frozen=True)
class NoisyTraining(NetworkTraining):
    """Training with noise of standard deviation ``sigma``, in pixel units."""

    sigma: float = 0.25

    @property
    def settings(self) -> Training:
        """The trainer's settings, with the noise."""
        return changed(super().settings, sigma=self.sigma)


@dataclass(frozen=True)
class Config:
    """Attributes:
    sigmas: of the noise, in training and in smoothing, in pixel units; at 0 nothing is smoothed.
    faint_amplitude: of the pattern, see ``ShapesConfig``.
    n: pictures of *shapes*, and images, that networks are trained on.
    test, draws: pictures that the smoothed classifier is asked about, and draws for each.
    eps, steps, attacked: of PGD on the network alone, in L2, and on how many images.
    certified, n_draws: images that are certified, and draws for each.
    """

    sigmas: tuple[float, ...] = (0.0, 0.12, 0.25, 0.5, 1.0)
    faint_amplitude: float = 2.5 / 255
    n: int = 6000
    arch: str = "small"
    epochs: int = 15
    lr: float = 0.2
    seeds: int = 1
    test: int = 300
    draws: int = 100
    eps: float = 0.5
    steps: int = 20
    attacked: int = 300
    certified: int = 60
    n_draws: int = 1000

    @property
    def pictures(self) -> ShapesConfig:
        """How the pictures of *shapes* are drawn."""
        return ShapesConfig(faint_amplitude=self.faint_amplitude)

    def training(self, sigma: float, seed: int, augment: bool) -> NetworkTraining:
        common = {"arch": self.arch, "epochs": self.epochs, "lr": self.lr, "augment": augment, "seed": seed}
        return NoisyTraining(recipe="noise", sigma=sigma, **common) if sigma else NetworkTraining(**common)  # type: ignore[arg-type]


FULL = Config(n=50_000, arch="resnet18", epochs=60, seeds=3, test=1000, draws=1000, attacked=1000, certified=500, n_draws=100_000)


Measure = Callable[[ExperimentCache, Config, float, int], Values]


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Run the experiment, or what is missing of it, and put its numbers into tables; images only where there are data."""
    found = {"shapes": _measured(cache.without_data(), config, "shapes", _goes_by, OF_IMAGES)}
    if cache.data is not None:
        found["images"] = _measured(cache, config, "images", _certified, OF_SHAPES)
    exact = {sigma: closed_form(config.pictures, sigma) for sigma in config.sigmas}
    tables, lines = [_shapes_table(config, found["shapes"], exact)], {"smoothing-features": _features_plot(found["shapes"], exact)}
    if "images" in found:
        tables.append(_images_table(config, found["images"]))
        lines["smoothing-certified"] = _certified_plot(found["images"])
    numbers = {part: [{"sigma": sigma, "seeds": seeds} for sigma, seeds in rows.items()] for part, rows in found.items()}
    return Finding(tuple(tables), {**numbers, "closed_form": [exact[sigma] for sigma in config.sigmas]}, lines=lines)


def _measured(cache: ExperimentCache, config: Config, part: str, measure: Measure, without: tuple[str, ...]) -> dict[float, list[Values]]:
    """What a part found for each sigma and seed; settings ``without`` which it does are not among its own."""
    own = {name: value for name, value in vars(config).items() if name not in without}
    grid = [(sigma, seed) for sigma in config.sigmas for seed in range(config.seeds)]
    measurements = [
        Measurement(f"{part} sigma {sigma:g} seed {seed}", {**own, "sigmas": sigma}, partial(measure, cache, config, sigma, seed))
        for sigma, seed in grid
    ]
    found: dict[float, list[Values]] = {sigma: [] for sigma in config.sigmas}
    for (sigma, _), values in zip(grid, cache.measured("smoothing", measurements), strict=True):
        found[sigma].append(values)
    return found


# Shapes


def _goes_by(cache: ExperimentCache, config: Config, sigma: float, seed: int) -> Values:
    """The accuracy on ordinary pictures, and what decides where shape and pattern disagree."""
    images = shapes(config.n, "train", config=config.pictures)
    model = cache.trained(images, config.training(sigma, seed, False), f"shapes {255 * config.faint_amplitude:g} n {config.n}")
    pixels, *classes = contradictions(config.test, config.pictures)
    clean = shapes(config.test, "test", config=config.pictures)
    answers = _answers(model, ImageSet(pixels, classes[0], CLASSES, "contradictions"), sigma, config)
    followed = {name: Rate(int((answers == own).sum()), config.test) for name, own in zip(FEATURES, classes, strict=True)}
    accuracy = Rate(int((_answers(model, clean, sigma, config) == clean.labels).sum()), config.test)
    return {name: rate(value) for name, value in {"clean": accuracy, **followed}.items()}


def _answers(model: Classifier, images: ImageSet, sigma: float, config: Config) -> torch.Tensor:
    """The smoothed classifier's answers, int64 ``(N,)``; -1 where it abstains. At sigma 0 they are the network's own."""
    if not sigma:
        return torch.tensor([record.prediction for record in evaluate(model, images, progress=False).records])
    found = predict(model, images, sigma, n=config.draws, alpha=0.05, progress=False)
    return torch.tensor([-1 if record.prediction is None else record.prediction for record in found.records])


def closed_form(pictures: ShapesConfig, sigma: float) -> float:
    """How often two Gaussian classes go by the shape where it contradicts the pattern, after maximum likelihood under noise.

    Each feature lies along an axis of its own. Its mean is half the L2 distance that exchanging it moves a picture, and its deviation
    is such that it tells the class as often as it does in *shapes*. Noise blends the covariance with the identity
    (``Gaussian.smoothed``): the weight of a feature is ``mean / (deviation^2 + sigma^2)``, so what is fine and near is lost first.
    """
    index = torch.arange(60)
    own, other = two_classes(len(index))
    drawn = [render(visible, own, index, "test", config=pictures).double() / 255 for visible in (own, other)]
    shape = float((drawn[1] - drawn[0]).flatten(1).norm(dim=1).mean()) / 2
    pattern = pictures.faint_amplitude * math.sqrt(templates()[0].numel() / 2)
    reliable = (pictures.visible_accuracy, pictures.faint_accuracy)
    means = torch.tensor([shape, pattern], dtype=torch.float64)
    deviations = means / torch.tensor([NormalDist().inv_cdf(share) for share in reliable], dtype=torch.float64)
    true = Gaussian(means, torch.diag(deviations**2))
    contradicting = Gaussian(means * torch.tensor([1.0, -1.0]), true.covariance)
    return contradicting.accuracy(true.smoothed(sigma).weights)


def _shapes_table(config: Config, found: dict[float, list[Values]], exact: dict[float, float]) -> Table:
    rows = []
    for sigma, seeds in found.items():
        told = [over_seeds([Rate(**one[what]) for one in seeds]) for what in ("clean", *FEATURES)]
        rows.append((f"{sigma:g}", *told, f"{100 * exact[sigma]:.1f}"))
    return Table(
        "Smoothing on shapes: what the smoothed classifier goes by",
        f"Shapes, the pattern of {255 * config.faint_amplitude:g}/255 (root mean square); {config.n:,} pictures, {config.arch}, "
        f"{config.epochs} epochs with noise, no augmentation. Percent of {config.test:,} test pictures, {config.draws:,} draws each; where "
        "the draws do not tell (alpha 0.05) the classifier abstains.",
        ("sigma", "accuracy", "goes by the shape", "goes by the pattern", "closed form: by the shape"),
        tuple(rows),
        (
            "Goes by: of pictures with the shape of one class and the faint pattern of another, how many are classified as the class of "
            "that feature. Closed form: two Gaussian classes with two features as strong and as reliable as these, maximum likelihood "
            "under the same noise; nothing is fitted.",
        ),
    )


def _features_plot(found: dict[float, list[Values]], exact: dict[float, float]) -> LinePlot:
    lines = []
    for feature in FEATURES:
        mean = [Rate(sum(one[feature]["count"] for one in seeds), sum(one[feature]["n"] for one in seeds)) for seeds in found.values()]
        low, high = ([value.interval[end] for value in mean] for end in (0, 1))
        lines.append(Line(f"by the {feature}", list(found), [value.value for value in mean], low, high))
    lines.append(Line("by the shape, closed form", list(exact), list(exact.values())))
    return LinePlot(
        "What a smoothed classifier goes by", tuple(lines), Axes("sigma of the noise, pixels in [0, 1]", "pictures", percent=True)
    )


# Images


def _certified(cache: ExperimentCache, config: Config, sigma: float, seed: int) -> Values:
    """Accuracies of the network alone; and of the smoothed classifier, with what is proved."""
    images = cache.images("train", limit=config.n)
    model = cache.trained(images, config.training(sigma, seed, True), f"original n {len(images)}")
    attack = PGD(ThreatModel(L2(), config.eps), config.steps)
    report = cache.tested(model, cache.images("test", limit=config.attacked), [attack])
    alone = {"clean": rate(report.clean), "attacked": rate(report.under(str(attack)))}
    if not sigma:
        return alone
    found = cache.certified(model, cache.images("test", limit=config.certified), sigma, config.n_draws, ALPHA)
    curve = found.at([found.largest_radius * point / POINTS for point in range(POINTS + 1)])
    at = {f"{radius:g}": rate(value) for radius, value in found.at((0.0, *RADII)).items()}
    return alone | {"at": at, "curve": [{"radius": radius, **rate(value)} for radius, value in curve.items()]}


def _images_table(config: Config, found: dict[float, list[Values]]) -> Table:
    rows = []
    for sigma, seeds in found.items():
        alone = [over_seeds([Rate(**one[what]) for one in seeds]) for what in ("clean", "attacked")]
        most = Certificates((), sigma, config.n_draws, ALPHA).largest_radius
        proved = [over_seeds([Rate(**one["at"][f"{radius:g}"]) for one in seeds]) if radius < most else "-" for radius in (0.0, *RADII)]
        rows.append((f"{sigma:g}", *alone, *proved))
    return Table(
        "Smoothing on images: what noise costs, and what it proves",
        f"{config.n:,} training images, {config.arch}, {config.epochs} epochs with noise. The network alone on {config.attacked:,} test "
        f"images, clean and under PGD-{config.steps} in L2 at {config.eps:g}; the smoothed classifier on {config.certified:,}, "
        f"{config.n_draws:,} draws each, alpha {ALPHA:g}. Percent; - where so many draws can prove no such radius.",
        ("sigma", "alone, clean", "alone, attacked", "smoothed", *(f"certified at {radius:g}" for radius in RADII)),
        tuple(rows),
        (
            "Published on CIFAR-10 (Cohen et al. 2019, ResNet-110, 100,000 draws; the table of the authors' repository), certified at "
            "0.25, 0.5 and 0.75: with sigma 0.12 59, 0 and 0; with 0.25 60, 43 and 27; with 0.5 55, 41 and 32; with 1 39, 34 and 28.",
        ),
    )


def _certified_plot(found: dict[float, list[Values]]) -> LinePlot:
    lines = []
    for sigma, seeds in found.items():
        if sigma:
            points = list(zip(*(one["curve"] for one in seeds), strict=True))
            rates = [Rate(sum(each["count"] for each in point), sum(each["n"] for each in point)) for point in points]
            low, high = ([value.interval[end] for value in rates] for end in (0, 1))
            lines.append(Line(f"sigma {sigma:g}", [point[0]["radius"] for point in points], [value.value for value in rates], low, high))
    return LinePlot("Certified accuracy", tuple(lines), Axes("L2 radius, pixels in [0, 1]", "certified accuracy", percent=True))
