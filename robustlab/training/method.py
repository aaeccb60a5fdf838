"""What training settings come to: filled in from the recipe, and turned into a loss, an optimization and attacks that judge."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.models.zoo import ENDINGS, load_model
from robustlab.options import changed, flat, value_of
from robustlab.settings import Network, Training
from robustlab.threats import named_threat, norm_name
from robustlab.training.fit import Optimization
from robustlab.training.losses import TrainingLoss
from robustlab.training.recipes import RECIPES, recipe
from robustlab.training.schedules import SCHEDULES

DEFAULT_ARCH = "small"
DEFAULT_LR = {"adam": 1e-3, "adamw": 1e-3, "adamax": 2e-3}  # of Kingma and Ba 2015; a recipe's own is for SGD
FROM_RECIPE = ("epochs", "batch_size", "lr", "weight_decay", "ema", "clip")  # what a recipe decides where no setting does
NOISE = ("sigma", "noises", "consistency", "entropy")  # what a recipe decides too, if its loss knows it
NO_STAND_IN = "none"
STAND_INS = {NO_STAND_IN: None, "float32": torch.float32, "bfloat16": torch.bfloat16}
FROM_SETTINGS = (*FROM_RECIPE, "optimizer", "accumulate", "awp")


@dataclass(frozen=True)
class Method:
    """How a network is trained and judged.

    Attributes:
        threat: what it is trained against; None for standard training.
        validation_attack: on the validation part, after every epoch.
        test_attack: on the test images, once, at the end.
        sigma: of the noise under which the epoch is chosen, as a network for noise is at home there; None without noise.
    """

    loss: TrainingLoss
    optimization: Optimization
    threat: ThreatModel | None
    validation_attack: PGD
    test_attack: PGD
    sigma: float | None = None


def complete(settings: Training, *, bfloat16: bool, resumed: bool = False) -> Training:
    """The settings with all that was left to the recipe, the norm or the device filled in: a rerun needs nothing else.

    Args:
        bfloat16: whether the device is fast at it, so that a recipe may compute in it.
        resumed: the weights of ``init`` may be gone by now, so the architecture is not looked up there if it is known.

    Raises:
        UserError: an unknown recipe, settings of an attack or of noise for a recipe without, or weights to begin with that are not there.
    """
    chosen, network = recipe(settings.recipe), settings.network
    if network.init is None and (network.mean or network.std or network.trust_checkpoint):
        raise UserError("`mean`, `std` and `trust_checkpoint` say how to read the weights of `init`, which is not given")
    if chosen.threat is None and any(
        value is not None for value in (settings.attack.steps, settings.attack.step_size, settings.attack.stand_in)
    ):
        raise UserError(
            f"the recipe {settings.recipe!r} trains without an attack: leave out `steps`, `step_size` and `stand_in`, which are an attack's"
        )
    if settings.attack.attack_in_train_mode and settings.attack.stand_in not in (None, NO_STAND_IN):
        raise UserError("BatchNorm can be folded in evaluation mode only: leave out `stand_in` or `attack_in_train_mode`")
    foreign = [name for name in NOISE if name not in chosen.noise and value_of(settings, name) is not None]
    if foreign:
        knowing = ", ".join(name for name, one in RECIPES.items() if foreign[0] in one.noise)
        raise UserError(f"the recipe {settings.recipe!r} has no `{foreign[0]}`: leave it out, or take one of {knowing}")
    if chosen.threat is None and settings.optimizing.awp:
        raise UserError(f"the recipe {settings.recipe!r} trains without an attack: leave out `awp`, which perturbs weights under one")
    threat = named_threat(settings.threat.norm, settings.threat.eps, chosen.threat)
    filled: dict[str, Any] = {name: getattr(chosen.optimization, name) for name in FROM_RECIPE}
    if settings.optimizing.optimizer != chosen.optimization.optimizer:
        filled["lr"] = DEFAULT_LR.get(settings.optimizing.optimizer, filled["lr"])
    filled["schedule"] = next(name for name, schedule in SCHEDULES.items() if schedule is chosen.optimization.schedule)
    filled["amp"] = chosen.optimization.amp and bfloat16
    filled["steps"] = chosen.steps if chosen.threat else None
    filled |= chosen.noise
    said = {name: value for name, value in flat(settings).items() if value is not None}
    filled["stand_in"] = NO_STAND_IN if chosen.threat else None
    if network.init is not None:
        said["init"] = lasting(network.init)
    return changed(settings, **{**filled, "norm": norm_name(threat), "eps": threat.eps, **said, "arch": arch_of(network, resumed=resumed)})


def lasting(name_or_path: str) -> str:
    """What names a model also from another working directory: a path from the root on, a pretrained model's name as it is."""
    path = Path(name_or_path).expanduser()
    return os.path.abspath(path) if path.exists() or len(path.parts) > 1 or path.suffix in ENDINGS else name_or_path


def arch_of(network: Network, *, resumed: bool = False) -> str:
    """The architecture that is asked for, or that of the weights to begin with, which may be gone when a run is resumed.

    Raises:
        UserError: no such weights, or weights of another architecture than asked for.
    """
    if network.init is None or (network.arch is not None and resumed):
        return network.arch or DEFAULT_ARCH
    return load_model(network.init, network).arch


def method_of(settings: Training) -> Method:
    """What complete settings come to.

    Raises:
        UserError: numbers out of range, or steps that the recipe's attack does not take.
    """
    chosen = recipe(settings.recipe)
    optimization = replace(
        chosen.optimization,
        **{name: value_of(settings, name) for name in FROM_SETTINGS},
        schedule=SCHEDULES[str(settings.optimizing.schedule)],
        amp=bool(settings.optimizing.amp),
    )
    threat = named_threat(settings.threat.norm, settings.threat.eps)
    against = threat if chosen.threat else None
    attack, smoothing = settings.attack, settings.optimizing.label_smoothing
    loss = chosen.make(against, attack.steps or 0, attack.step_size, smoothing, attack.attack_in_train_mode)
    if chosen.noise:
        loss = replace(loss, **{name: value_of(settings, name) for name in chosen.noise})  # type: ignore[type-var]
    if against:
        loss = replace(loss, stand_in=STAND_INS[str(attack.stand_in)])  # type: ignore[type-var]
    return Method(loss, optimization, against, PGD(threat, steps=10), PGD(threat, steps=20), value_of(settings, "sigma"))
