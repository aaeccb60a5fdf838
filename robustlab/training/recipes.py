"""Named ways to train, each with what it is for. Settings from the command line replace a recipe's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from robustlab.attacks import NFGSM, PGD
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError, unknown
from robustlab.norms import L2, Linf
from robustlab.training.fit import Optimization
from robustlab.training.losses import MART, TRADES, Adversarial, Consistency, Noise, SmoothAdv, Standard, TrainingLoss
from robustlab.training.schedules import cosine, steps


@dataclass(frozen=True)
class Recipe:
    """A loss and how to optimize it.

    Attributes:
        summary: one line, with the source.
        optimization: epochs, learning rate and so on.
        threat: what the model is trained against; None for standard training.
        steps: attack steps.
        make: the loss, from threat, steps, step size (None: the method's own), label smoothing, and whether the attack
            runs the model in training mode.
        noise: settings of the loss that belong to Gaussian noise, by their names; empty where there is none.
    """

    summary: str
    optimization: Optimization
    threat: ThreatModel | None
    steps: int
    make: Callable[[ThreatModel | None, int, float | None, float, bool], TrainingLoss]
    noise: Mapping[str, float] = field(default_factory=dict)


def _standard(threat: ThreatModel | None, steps: int, step_size: float | None, smoothing: float, training: bool) -> TrainingLoss:
    return Standard(smoothing)


def _pgd(threat: ThreatModel | None, steps: int, step_size: float | None, smoothing: float, training: bool) -> TrainingLoss:
    assert threat is not None
    return Adversarial(PGD(threat, steps, step_size, keep_best=False, training_mode=training), smoothing)


def _trades(threat: ThreatModel | None, steps: int, step_size: float | None, smoothing: float, training: bool) -> TrainingLoss:
    assert threat is not None
    return TRADES(PGD(threat, steps, step_size, keep_best=False, training_mode=training), label_smoothing=smoothing)


def _mart(threat: ThreatModel | None, steps: int, step_size: float | None, smoothing: float, training: bool) -> TrainingLoss:
    assert threat is not None
    return MART(PGD(threat, steps, step_size, keep_best=False, training_mode=training), label_smoothing=smoothing)


def _nfgsm(threat: ThreatModel | None, steps: int, step_size: float | None, smoothing: float, training: bool) -> TrainingLoss:
    assert threat is not None
    if steps != 1:
        raise UserError(f"the fast recipes attack in one single step, not in {steps}: leave `steps` out, or take a madry recipe")
    step = 1.0 if step_size is None or threat.eps == 0 else step_size / float(threat.eps)
    return Adversarial(NFGSM(threat, step=step, training_mode=training), smoothing)


def _noise(threat: ThreatModel | None, steps: int, step_size: float | None, smoothing: float, training: bool) -> TrainingLoss:
    return Noise(label_smoothing=smoothing)


def _smoothadv(threat: ThreatModel | None, steps: int, step_size: float | None, smoothing: float, training: bool) -> TrainingLoss:
    assert threat is not None
    attack = PGD(threat, steps, step_size, reach=2, random_start=False, keep_best=False, training_mode=training)
    return SmoothAdv(attack, label_smoothing=smoothing)


def _consistency(threat: ThreatModel | None, steps: int, step_size: float | None, smoothing: float, training: bool) -> TrainingLoss:
    return Consistency(label_smoothing=smoothing)


_LINF, _L2 = ThreatModel(Linf(), 8 / 255), ThreatModel(L2(), 0.5)
_LONG = Optimization(epochs=200, batch_size=128, lr=0.1, schedule=steps)
_SHORT = Optimization(epochs=30, batch_size=128, lr=0.2, amp=True)

_TRADES = Optimization(epochs=100, batch_size=128, lr=0.1, schedule=cosine)
# Its own schedule has the tenth at epoch 75 and the hundredth at 90, and at 100 a thousandth, which ours leaves out.
_MART = Optimization(epochs=120, batch_size=128, lr=0.01, weight_decay=3.5e-3, schedule=steps)
_AVERAGED = Optimization(epochs=100, batch_size=128, lr=0.1, ema=0.9995, amp=True)
_NOISY = Optimization(epochs=90, batch_size=128, lr=0.1, schedule=steps)
_PAIRS = {"sigma": 0.25, "noises": 2}

RECIPES: dict[str, Recipe] = {
    "standard": Recipe("cross-entropy on the images, one cycle of 30 epochs", _SHORT, None, 0, _standard),
    "madry-linf": Recipe("PGD-10 training, 200 epochs (Rice et al. 2020)", _LONG, _LINF, 10, _pgd),
    "madry-l2": Recipe("PGD-10 training, 200 epochs (Rice et al. 2020)", _LONG, _L2, 10, _pgd),
    "fast-linf": Recipe("N-FGSM, one step, one cycle (de Jorge et al. 2022)", _SHORT, _LINF, 1, _nfgsm),
    "fast-l2": Recipe("N-FGSM in L2, one step, one cycle (de Jorge et al. 2022)", _SHORT, _L2, 1, _nfgsm),
    "ema-linf": Recipe("PGD-10 training with averaged weights, 100 epochs", _AVERAGED, _LINF, 10, _pgd),
    "trades-linf": Recipe("TRADES, beta 6, 10 steps (Zhang et al. 2019)", _TRADES, _LINF, 10, _trades),
    "trades-l2": Recipe("TRADES, beta 6, 10 steps (Zhang et al. 2019)", _TRADES, _L2, 10, _trades),
    "mart-linf": Recipe("MART, beta 5, 10 steps, 120 epochs (Wang et al. 2020)", _MART, _LINF, 10, _mart),
    "noise": Recipe("Gaussian noise, sigma 0.25, 90 epochs (Cohen et al. 2019)", _NOISY, None, 0, _noise, {"sigma": 0.25, "noises": 1}),
    "smoothadv-l2": Recipe("PGD-10 against the smoothed classifier (Salman et al. 2019)", _NOISY, _L2, 10, _smoothadv, _PAIRS),
    "consistency": Recipe(
        "noise, and noisy copies predicted alike (Jeong and Shin 2020)",
        _NOISY,
        None,
        0,
        _consistency,
        {**_PAIRS, "consistency": 20.0, "entropy": 0.5},
    ),
}


def recipe(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UserError: no such recipe; names the nearest.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]
