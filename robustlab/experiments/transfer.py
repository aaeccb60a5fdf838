"""Why adversarial examples transfer (Ilyas et al. 2019, section 3.3): networks that learn the same non-robust features are fooled
by the same perturbations. Architectures that learn more from one model's D_det are fooled more often by its adversarial examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.data.batches import Batches
from robustlab.data.imageset import Images
from robustlab.evaluation import Rate, predictions
from robustlab.experiments.cache import ExperimentCache, Measurement, NetworkTraining, Values, rate
from robustlab.experiments.finding import Finding
from robustlab.experiments.mislabelled import relabelled_set, source_name, train_and_test
from robustlab.goals import Targeted
from robustlab.models.frozen import frozen
from robustlab.norms import L2
from robustlab.reports.tables import Table, over_seeds


@dataclass(frozen=True)
class Config:
    """Attributes:
    archs: the first of them is the source's, where that is trained here.
    attacked: test images that are perturbed through the source.
    """

    source: str = "cifar10-small-standard"
    archs: tuple[str, ...] = ("small", "preact_small", "vgg_small", "mlp")
    n: int = 8000
    eps: float = 2.0
    steps: int = 10
    attacked: int = 1000
    epochs: int = 10
    lr: float = 0.1
    augment: bool = True


FULL = Config("standard:30", ("resnet18", "resnet50", "preact_resnet18", "vgg_small", "torchvision:densenet121"), 50_000, 0.5, 100)


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Run the experiment, or what is missing of it, and put its numbers into tables."""
    images, test = cache.images("train", limit=config.n), cache.images("test")
    made, facts = relabelled_set(cache, "D_det", config.source, config.archs[0], images, config.eps, config.steps)
    name = f"D_det {source_name(config.source, config.archs[0])} eps {config.eps:g} n {config.n} steps {config.steps}"
    measurements = []
    for arch in config.archs:
        training = NetworkTraining(arch, epochs=config.epochs, lr=config.lr, augment=config.augment)
        settings = {**vars(config), "archs": arch, "source": source_name(config.source, config.archs[0]), "test": len(test)}
        measurements.append(Measurement(f"{arch} on D_det", settings, partial(train_and_test, cache, made, name, training, test)))
        measurements.append(Measurement(f"{arch} fooled", settings, partial(_fooled, cache, config, images, training, test)))
    found = cache.measured("transfer", measurements)
    rows = []
    for arch, taught, fooled in zip(config.archs, found[::2], found[1::2], strict=True):
        rows.append((arch, *(over_seeds([Rate(**value)]) for value in (taught["clean"], fooled["clean"], fooled["fooled"]))))
    success = [Rate(**f["fooled"]).value for f in found[1::2]]
    accuracy = [Rate(**f["clean"]).value for f in found[::2]]
    rank = rank_correlation(accuracy, success)
    correlation = "none" if rank is None else f"{rank:.2f}"
    table = Table(
        "Transfer",
        f"Targeted adversarial examples (class + 1, L2 eps {config.eps:g}, {config.steps} steps) for {config.attacked:,} test images "
        f"through {config.source}, shown to networks trained on {config.n:,} original images; beside it what the same architecture "
        f"learns from D_det. {config.epochs} epochs, lr {config.lr:g}, one seed.",
        ("architecture", "trained on D_det: test accuracy", "trained on originals: test accuracy", "transfer: targeted success rate"),
        tuple(rows),
        (
            f"Rank correlation between the second and the last column: {correlation} over {len(rows)} architectures. Published "
            "(ResNet-50 source, five architectures): positive, transfer about 60 to 100 %, accuracy on D_det about 25 to 50 %.",
        ),
    )
    return Finding((table,), {"facts": facts, "accuracy": accuracy, "transfer": success, "rank_correlation": rank})


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's, ties sharing the mean of their ranks; None where one of the two is constant."""
    values = torch.tensor([a, b], dtype=torch.float64)
    ranks = (values[:, :, None] > values[:, None]).sum(2) + (values[:, :, None] == values[:, None]).sum(2) / 2
    ranks = ranks - ranks.mean(1, keepdim=True)
    length = ranks.norm(dim=1).prod()
    return float((ranks[0] @ ranks[1]) / length) if length > 0 else None


def _fooled(cache: ExperimentCache, config: Config, images: Images, training: NetworkTraining, test: Images) -> Values:
    """Train on original images, and attack the source: how often is the other network fooled as well?"""
    model = cache.trained(images, training, f"original n {len(images)}")
    source = cache.source(config.source, config.archs[0])
    attack = PGD(ThreatModel(L2(), config.eps), config.steps, random_start=False)
    some = cache.images("test", limit=config.attacked)
    count = 0
    with frozen(model):
        for batch in Batches(some, 250, device=cache.device).epoch(0):
            target = (batch.y + 1) % len(some.classes)
            x_adv = attack(source, batch.x, Targeted(target), keys=batch.keys)
            count += int((predictions(model, x_adv) == target).sum())
    return {"clean": rate(cache.tested(model, test).clean), "fooled": rate(Rate(count, len(some)))}
