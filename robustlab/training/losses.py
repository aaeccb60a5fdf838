"""Training losses: standard, adversarial (Madry et al. 2018), TRADES (Zhang et al. 2019), MART (Wang et al. 2020), and three for
smoothed classifiers.

A loss is called with the network as it is trained (a DistributedDataParallel wrapper, perhaps), but attacks the module
inside, so an attack never synchronizes processes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from robustlab import seeding
from robustlab.attacks.protocols import Attack, Unchecked
from robustlab.errors import UserError
from robustlab.goals import Away, Goal, divergence
from robustlab.models.frozen import frozen
from robustlab.models.stand_ins import refreshed


@dataclass(frozen=True)
class Outcome:
    """What a loss found on a batch of ``B`` examples.

    Attributes:
        loss: per example, shape ``(B,)``, to be averaged and differentiated.
        metrics: per example too, ``(B,)`` each, by name; their means over an epoch are reported.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageOutcome(Outcome):
    """What a loss found on a batch of images; ``accuracy`` is among its metrics.

    Attributes:
        logits: on the images that were trained on, shape ``(B, K)``; of several noisy copies the logarithms of their average probabilities.
        x: those images, before noise is added to them, shape ``(B, C, H, W)``.
    """

    logits: Tensor = field(kw_only=True)
    x: Tensor = field(kw_only=True)

    @classmethod
    def of(cls, loss: Tensor, logits: Tensor, x: Tensor, y: Tensor) -> ImageOutcome:
        """With the accuracy, from labels ``y``, shape ``(B,)``."""
        return cls(loss, {"accuracy": logits.detach().argmax(1) == y}, logits=logits, x=x)


class ImageBatch(Protocol):
    """Images ``x`` in [0, 1], ``(B, C, H, W)``, with labels ``y`` and random ``keys``, ``(B,)`` each."""

    @property
    def x(self) -> Tensor: ...
    @property
    def y(self) -> Tensor: ...
    @property
    def keys(self) -> Tensor: ...


class TrainingLoss(Protocol):
    """What training makes small; the batch is whatever the loss expects."""

    def __call__(self, model: nn.Module, batch: Any) -> Outcome: ...


def adversarial_images(
    attack: Attack, model: nn.Module, x: Tensor, y: Tensor | Goal, keys: Tensor, fast_model: nn.Module | None = None
) -> Tensor:
    """Attacked images ``(B, C, H, W)`` of ``x``, without the checks of the attack's call where it has a door for that.

    Args:
        attack: within a threat model.
        model: the module to attack, not a wrapper of several processes.
        y: labels to leave, int64 ``(B,)``, or a goal.
        keys: one per example.
        fast_model: a stand-in to search on.

    Images and labels are for whoever reads the training set to check, and a loss that is no number ends the training anyway.
    """
    options: dict[str, Any] = {"keys": keys} if fast_model is None else {"keys": keys, "fast_model": fast_model}
    return attack.solve(model, x, y, **options).x if isinstance(attack, Unchecked) else attack(model, x, y, **options)


def inner(model: nn.Module) -> nn.Module:
    """The module inside a DistributedDataParallel wrapper."""
    return model.module if isinstance(model, DistributedDataParallel) else model


@dataclass(frozen=True)
class Standard:
    """Cross-entropy on the images as they are."""

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check(self.label_smoothing)

    def __call__(self, model: nn.Module, batch: ImageBatch) -> ImageOutcome:
        return _cross_entropy(model, batch.x, batch.y, self.label_smoothing)


@dataclass(frozen=True)
class AttackedLoss(ABC):
    """A loss in two stages, so that one attack can serve several passes of the weights, as adversarial weight perturbation has it.

    Attributes:
        stand_in: the precision of a copy of the network, with BatchNorm folded in, that the attack searches on: ``torch.float32`` or
            ``torch.bfloat16``. The copy takes up the network's weights at each step. None searches on the network itself, as an attack
            in training mode must.
    """

    stand_in: torch.dtype | None = field(default=None, kw_only=True)

    @abstractmethod
    def attacked(self, model: nn.Module, batch: ImageBatch) -> Tensor:
        """The images that the attack finds, ``(B, C, H, W)``; the model is left as it was."""

    @abstractmethod
    def at(self, model: nn.Module, batch: ImageBatch, x_adv: Tensor) -> ImageOutcome:
        """The loss at attacked images, which count as constants."""

    def __call__(self, model: nn.Module, batch: ImageBatch) -> ImageOutcome:
        return self.at(model, batch, self.attacked(model, batch))

    def searched(self, network: nn.Module) -> nn.Module | None:
        """What the attack searches on in place of the network, with the weights that this has now; None where it is the network itself.

        Raises:
            UserError: the attack is one in training mode.
        """
        if self.stand_in is not None and getattr(getattr(self, "attack", None), "training_mode", False):
            raise UserError("BatchNorm is folded in evaluation mode only: leave out `stand_in`, or the attack's `training_mode`")
        return None if self.stand_in is None else refreshed(network, self.stand_in)


@dataclass(frozen=True)
class Adversarial(AttackedLoss):
    """Cross-entropy on attacked images. With ``NFGSM`` as the attack: fast adversarial training."""

    attack: Attack
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check(self.label_smoothing)

    def attacked(self, model: nn.Module, batch: ImageBatch) -> Tensor:
        network = inner(model)
        return adversarial_images(self.attack, network, batch.x, batch.y, batch.keys, self.searched(network))

    def at(self, model: nn.Module, batch: ImageBatch, x_adv: Tensor) -> ImageOutcome:
        return _cross_entropy(model, x_adv, batch.y, self.label_smoothing)


@dataclass(frozen=True)
class TRADES(AttackedLoss):
    """Cross-entropy on clean images plus ``beta`` times the divergence from the clean to the attacked prediction.

    The attack starts from its random point in the ball, not from the original code's Gaussian of width 0.001: at the
    image itself the divergence is stationary, and either start leaves it.
    """

    attack: Attack
    beta: float = 6.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check(self.label_smoothing)

    def attacked(self, model: nn.Module, batch: ImageBatch) -> Tensor:
        network = inner(model)
        with frozen(network) as still, torch.no_grad():
            goal: Goal = Away(still(batch.x.clone()).float())  # a model may write over its input
        return adversarial_images(self.attack, network, batch.x, goal, batch.keys, self.searched(network))

    def at(self, model: nn.Module, batch: ImageBatch, x_adv: Tensor) -> ImageOutcome:
        clean, attacked = _both(model, batch.x, x_adv)
        natural = F.cross_entropy(clean, batch.y, reduction="none", label_smoothing=self.label_smoothing)
        return ImageOutcome.of(natural + self.beta * divergence(clean, attacked), attacked, x_adv, batch.y)


@dataclass(frozen=True)
class MART(AttackedLoss):
    """Misclassification-aware training (Wang et al. 2020, eq. 11): boosted cross-entropy plus ``beta`` times a weighted divergence.

    The boosted cross-entropy (eq. 8) is that of the attacked images plus ``-log(1 - p)`` of their likeliest wrong class. The divergence
    from the clean to the attacked prediction weighs ``1 - p_y``, of the clean image: more where the network is wrong already. Through
    that weight, too, gradients flow, as in the source. The attack is PGD on the cross-entropy.
    """

    attack: Attack
    beta: float = 5.0
    label_smoothing: float = 0.0  # of the cross-entropy in it; the source has none

    def __post_init__(self) -> None:
        _check(self.label_smoothing)

    def attacked(self, model: nn.Module, batch: ImageBatch) -> Tensor:
        network = inner(model)
        return adversarial_images(self.attack, network, batch.x, batch.y, batch.keys, self.searched(network))

    def at(self, model: nn.Module, batch: ImageBatch, x_adv: Tensor) -> ImageOutcome:
        y = batch.y
        clean, attacked = _both(model, batch.x, x_adv)
        own = F.one_hot(y, clean.shape[1]).bool()
        wrong = attacked.softmax(1).masked_fill(own, 0).amax(1)
        boosted = F.cross_entropy(attacked, y, reduction="none", label_smoothing=self.label_smoothing) - (1.0001 - wrong).log()
        unsure = 1 - clean.softmax(1).gather(1, y[:, None])[:, 0]
        return ImageOutcome.of(boosted + self.beta * divergence(clean, attacked) * unsure, attacked, x_adv, y)


def _both(model: nn.Module, x: Tensor, x_adv: Tensor) -> tuple[Tensor, Tensor]:
    """Logits on clean and attacked images, float32 ``(B, K)`` each.

    One pass over both halves: BatchNorm then sees clean and attacked images together, and DDP one backward pass.
    """
    clean, attacked = model(torch.cat([x, x_adv])).float().chunk(2)
    return clean, attacked


@dataclass(frozen=True)
class Noise:
    """Cross-entropy on images with Gaussian noise (Cohen et al. 2019), for a classifier that is to be smoothed.

    Noisy images leave [0, 1], in training as in certification: a clipped image has less noise where it is black or white.

    Attributes:
        sigma: standard deviation of the noise, in pixel units.
        noises: noisy copies of each image in a step; the loss is their average.
    """

    sigma: float = 0.25
    noises: int = 1
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check(self.label_smoothing)
        _check_noise(self.sigma, self.noises)

    def __call__(self, model: nn.Module, batch: ImageBatch) -> ImageOutcome:
        return _noisy_cross_entropy(_Noisy(model, batch, self.sigma, self.noises), batch.x, batch.y, self.label_smoothing)[0]


@dataclass(frozen=True)
class SmoothAdv(AttackedLoss):
    """Cross-entropy on noisy copies of images that are attacked for what the smoothed classifier makes of them (Salman et al. 2019).

    The attack makes the average probability of the label small, over the very copies that the step then trains on. As in the authors'
    code it starts at the image; unlike there, eps does not grow over the first epochs.

    Attributes:
        attack: within a threat model; it must keep a batch whole, as PGD with one start does.
        sigma: standard deviation of the noise, in pixel units.
        noises: noisy copies of each image, m in the paper.
    """

    attack: Attack
    sigma: float = 0.25
    noises: int = 2
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check(self.label_smoothing)
        _check_noise(self.sigma, self.noises)

    def attacked(self, model: nn.Module, batch: ImageBatch) -> Tensor:
        searched = self.searched(inner(model))
        itself, fast = (None if one is None else _Noisy(one, batch, self.sigma, self.noises) for one in (inner(model), searched))
        assert itself is not None
        return adversarial_images(self.attack, itself, batch.x, batch.y, batch.keys, fast)

    def at(self, model: nn.Module, batch: ImageBatch, x_adv: Tensor) -> ImageOutcome:
        noisy = _Noisy(model, batch, self.sigma, self.noises)  # the very copies that were attacked: draws belong to images
        return _noisy_cross_entropy(noisy, x_adv, batch.y, self.label_smoothing)[0]


@dataclass(frozen=True)
class Consistency:
    """Cross-entropy on noisy copies that are to be predicted alike (Jeong and Shin 2020).

    To the average cross-entropy come ``consistency`` times the average divergence from the copies' mean prediction to each copy's, and
    ``entropy`` times the entropy of the mean prediction.

    Attributes:
        sigma: standard deviation of the noise, in pixel units.
        noises: noisy copies of each image, m in the paper; at least 2.
        consistency: lambda in the paper.
        entropy: eta in the paper.
    """

    sigma: float = 0.25
    noises: int = 2
    consistency: float = 20.0
    entropy: float = 0.5
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        _check(self.label_smoothing)
        _check_noise(self.sigma, self.noises)
        if self.noises < 2:
            raise UserError(f"consistency compares at least 2 noisy copies of an image, got `noises={self.noises}`")
        if not (0 <= self.consistency < math.inf and 0 <= self.entropy < math.inf):
            raise UserError(f"`consistency` and `entropy` are weights of at least 0, got {self.consistency} and {self.entropy}")

    def __call__(self, model: nn.Module, batch: ImageBatch) -> ImageOutcome:
        noisy = _Noisy(model, batch, self.sigma, self.noises)
        found, each = _noisy_cross_entropy(noisy, batch.x, batch.y, self.label_smoothing)
        mean, p = found.logits, found.logits.exp()
        apart = (p * (mean - each)).sum(2).mean(0)
        return ImageOutcome.of(found.loss + self.consistency * apart - self.entropy * (p * mean).sum(1), mean, batch.x, batch.y)


class UnderNoise(nn.Module):
    """A network whose images ``(B, ...)`` get noise of deviation ``sigma`` first: one draw for each, always the same for equal images."""

    def __init__(self, model: nn.Module, sigma: float) -> None:
        super().__init__()
        self.model, self.sigma = model, sigma

    def forward(self, x: Tensor) -> Tensor:
        noise = seeding.normal(seeding.fold(seeding.content_keys(x), "noise"), x.shape[1:], x.dtype)
        return self.model(x + self.sigma * noise)


class _Noisy(nn.Module):
    """A network on noisy copies of a batch's images, always with the same noise: the logarithms of the average probabilities."""

    def __init__(self, model: nn.Module, batch: ImageBatch, sigma: float, noises: int) -> None:
        super().__init__()
        self.model, self.noises = model, noises
        draws = [seeding.normal(seeding.fold(batch.keys, "noise", number), batch.x.shape[1:], batch.x.dtype) for number in range(noises)]
        self.noise = sigma * torch.cat(draws)

    def each(self, x: Tensor) -> Tensor:
        """Logarithms of each copy's probabilities, ``(noises, B, K)``: one pass, so that BatchNorm sees all copies together."""
        copies = torch.cat([x] * self.noises) + self.noise
        return self.model(copies).log_softmax(1).unflatten(0, (self.noises, len(x)))

    def forward(self, x: Tensor) -> Tensor:
        return averaged(self.each(x))


def averaged(each: Tensor) -> Tensor:
    """Logarithms of the average over the first axis of probabilities, from their logarithms: ``(m, B, K) -> (B, K)``."""
    return each.logsumexp(0) - math.log(len(each))


def _noisy_cross_entropy(noisy: _Noisy, x: Tensor, y: Tensor, label_smoothing: float) -> tuple[ImageOutcome, Tensor]:
    """Cross-entropy averaged over an image's copies; and the logarithms of each copy's probabilities, ``(noises, B, K)``."""
    each = noisy.each(x)
    copies = F.cross_entropy(each.flatten(0, 1), y.repeat(noisy.noises), reduction="none", label_smoothing=label_smoothing)
    return ImageOutcome.of(copies.unflatten(0, each.shape[:2]).mean(0), averaged(each), x, y), each


def _cross_entropy(model: nn.Module, x: Tensor, y: Tensor, label_smoothing: float) -> ImageOutcome:
    logits = model(x.clone())  # a model may write over its input
    return ImageOutcome.of(F.cross_entropy(logits, y, reduction="none", label_smoothing=label_smoothing), logits, x, y)


def _check(label_smoothing: float) -> None:
    if not 0 <= label_smoothing <= 1:
        raise UserError(f"label smoothing must lie in [0, 1], got {label_smoothing}")


def _check_noise(sigma: float, noises: int) -> None:
    if not 0 < sigma < math.inf:
        raise UserError(f"`sigma` is the noise's standard deviation in pixel units, above 0, got {sigma}")
    if noises < 1:
        raise UserError(f"`noises` is how many noisy copies of each image a step takes, at least 1, got {noises}")
