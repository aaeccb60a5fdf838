"""How useful the features of a network are, without an adversary and with one (Ilyas et al. 2019, section 2).

A feature is one number that the last layer reads. Its usefulness for telling a class from all others is its correlation with the label
``y``, +1 for the class and -1 for the others, each of the two weighing one half: ``E[y f(x)]`` for a feature of mean 0 and variance 1. Its
robust usefulness is ``E[min over allowed images of y f]``: every image is changed against its own label, for this feature alone.
A feature with the first above 0 and the second not is *useful and non-robust*.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.data.batches import Batches
from robustlab.data.imageset import Images
from robustlab.errors import UserError
from robustlab.models.classifier import Classifier
from robustlab.models.frozen import frozen
from robustlab.pixels import to_float
from robustlab.progress import Progress


@dataclass(frozen=True)
class Usefulness:
    """What was measured for D features; those that are the same for all training images are left out.

    Attributes:
        feature: their numbers, int64 ``(D,)``.
        label: the class that each tells best from the others on the training images, int64 ``(D,)``.
        clean: usefulness, float64 ``(D,)``, a correlation.
        attacked: robust usefulness, float64 ``(D,)``; PGD finds what it finds, so it is an upper bound.
        n: images that each feature was measured on, half of them of its class.
    """

    feature: Tensor
    label: Tensor
    clean: Tensor
    attacked: Tensor
    n: int


def usefulness(
    model: Classifier,
    train: Images,
    test: Images,
    threat: ThreatModel,
    *,
    steps: int = 20,
    per_class: int = 50,
    batch_size: int = 250,
    seed: int = 0,
    progress: bool = True,
) -> Usefulness:
    """Measure how useful each feature of a classifier is, with and without an adversary.

    Mean, deviation, class and sign of a feature come from the training images, the correlations from test images.

    Args:
        model: its features are those of ``model.features``; left as it was.
        train, test: of the same classes.
        threat: what the adversary may do to an image.
        steps: of PGD, for each feature and image.
        per_class: test images of a feature's class, and as many of all the others.
        batch_size: training images that pass through the model at a time.
        seed: of the random starts.
        progress: show how far it is.

    Raises:
        UserError: other classes, fewer than two of them, or a class with fewer than ``per_class`` test images.
    """
    classes = len(train.classes)
    if classes < 2 or train.classes != test.classes:
        raise UserError(f"training and test images must have the same two classes or more, got {train.classes} and {test.classes}")
    few = [test.classes[k] for k in range(classes) if int((test.labels == k).sum()) < per_class]
    if few or per_class < 1:
        raise UserError(f"per_class must be from 1 to the test images of a class; {', '.join(few) or 'it'} has fewer than {per_class}")
    with frozen(model):
        label, sign, mean, deviation = _best(*_moments(model, train, batch_size))
        alive = (deviation > 0).nonzero()[:, 0]
        found = []
        with Progress("features", len(alive), "feature", shown=progress) as shown:
            for i in alive.tolist():
                index, y = _balanced(test.labels, int(label[i]), per_class)
                x = to_float(test.fetch(index)).to(model.mean.device)
                goal = _Against(i, (y * sign[i]).to(x.device))
                keys = seeding.fold(seeding.example_keys(seed, index), "feature", i).to(x.device)
                x_adv = PGD(threat, steps)(model.features, x, goal, keys=keys)
                clean, changed = (goal.agreement(model, images, float(mean[i]), float(deviation[i])) for images in (x, x_adv))
                found.append([float(clean.mean()), float(torch.minimum(clean, changed).mean())])  # no change is allowed too
                shown.update(1)
    both = torch.tensor(found, dtype=torch.float64).reshape(-1, 2)
    return Usefulness(alive, label[alive], both[:, 0], both[:, 1], 2 * per_class)


@dataclass(frozen=True, eq=False)
class _Against:
    """Make a feature small where ``towards`` is 1, and large where it is -1."""

    feature: int
    towards: Tensor  # (B,)

    def loss(self, features: Tensor) -> Tensor:
        return self.towards.to(features) * features[:, self.feature]

    def achieved(self, features: Tensor) -> Tensor:
        return torch.zeros(len(features), dtype=torch.bool, device=features.device)

    def at(self, index: Tensor) -> _Against:
        return _Against(self.feature, self.towards[index])

    @torch.no_grad()
    def agreement(self, model: Classifier, x: Tensor, mean: float, deviation: float) -> Tensor:
        """The feature, shifted and scaled, times ``towards``: float64 ``(B,)``."""
        return self.towards * (model.features(x)[:, self.feature].double() - mean) / deviation


@torch.no_grad()
def _moments(model: Classifier, images: Images, batch_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """How many images each class has ``(K, 1)``, and the sums of its features and of their squares, float64 ``(K, D)``."""
    count = torch.bincount(images.labels, minlength=len(images.classes)).double()[:, None]
    sums: list[Tensor] = []
    for batch in Batches(images, batch_size, device=model.mean.device).epoch(0):
        values = model.features(batch.x).double()
        if not sums:
            sums = [torch.zeros(len(count), values.shape[1], dtype=torch.float64, device=values.device) for _ in range(2)]
        for total, power in zip(sums, (values, values.square()), strict=True):
            total.index_add_(0, batch.y, power)
    if not sums:
        raise UserError(f"{images.name} has no images to measure features on")
    return count, sums[0].cpu(), sums[1].cpu()


def _best(count: Tensor, total: Tensor, squares: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each feature the class that it tells best from the others, the sign of the correlation, and its mean and deviation there.

    Mean and deviation are those where the class and all others weigh one half each; the deviation of a constant feature is 0.
    """
    others = (count.sum() - count).clamp(min=1)
    here, there = total / count.clamp(min=1), (total.sum(0) - total) / others
    mean = (here + there) / 2
    square = (squares / count.clamp(min=1) + (squares.sum(0) - squares) / others) / 2
    variance = (square - mean.square()).clamp(min=0)
    deviation = torch.where(variance > 1e-12 * square, variance.sqrt(), 0)
    correlation = torch.where(deviation > 0, (here - there) / 2 / deviation.clamp(min=1e-300), 0)
    label = correlation.abs().argmax(0)
    features = torch.arange(label.shape[0])
    return label, correlation[label, features].sign(), mean[label, features], deviation[label, features]


def _balanced(labels: Tensor, label: int, per_class: int) -> tuple[Tensor, Tensor]:
    """Positions of ``per_class`` images of a class and of as many others, spread over them; and +1 for the first, -1 for the second."""
    ours, others = (labels == label).nonzero()[:, 0], (labels != label).nonzero()[:, 0]
    spread = torch.arange(per_class) * len(others) // per_class
    y = torch.ones(2 * per_class, dtype=torch.float64)
    y[per_class:] = -1
    return torch.cat([ours[:per_class], others[spread]]), y
