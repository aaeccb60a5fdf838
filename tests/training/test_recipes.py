"""Recipes: each makes the loss that it is named after, with its own numbers or the caller's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustlab.attacks import NFGSM, PGD
from robustlab.constraints import ThreatModel
from robustlab.data.batches import Batches
from robustlab.data.imageset import ImageSet
from robustlab.errors import UserError
from robustlab.norms import L2, Linf
from robustlab.training import MART, RECIPES, TRADES, Adversarial, Standard, TrainingState, fit, recipe

THREATS = {"linf": ThreatModel(Linf(), 8 / 255), "l2": ThreatModel(L2(), 0.5)}


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains(name: str) -> None:
    chosen = recipe(name)
    loss = chosen.make(chosen.threat, chosen.steps, None, 0.1, False)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (8, 3, 8, 8), generator=generator, dtype=torch.uint8)
    batches = Batches(ImageSet(pixels, torch.arange(8) % 2, ("a", "b"), "noise"), 8, shuffle=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    before = model[0].weight.detach().clone()
    epoch = next(fit(TrainingState.fresh(model, chosen.optimization), batches, loss, chosen.optimization))
    assert 0 < epoch.loss < 20
    assert not torch.equal(model[0].weight, before)


@pytest.mark.parametrize("name", [name for name, one in RECIPES.items() if one.threat and not one.noise])
def test_a_recipe_is_named_after_its_norm_and_method(name: str) -> None:
    method, norm = name.split("-")
    chosen = recipe(name)
    assert chosen.threat == THREATS[norm]
    loss = chosen.make(chosen.threat, chosen.steps, None, 0.0, False)
    assert isinstance(loss, {"trades": TRADES, "mart": MART}.get(method, Adversarial))
    assert isinstance(loss.attack, NFGSM if method == "fast" else PGD)
    assert loss.attack.threat == chosen.threat
    assert (chosen.optimization.ema > 0) == (method == "ema")


def test_standard_training_has_no_threat() -> None:
    assert recipe("standard").threat is None
    assert recipe("standard").make(None, 0, None, 0.2, False) == Standard(0.2)


@pytest.mark.parametrize("name", ["madry-linf", "trades-l2", "mart-linf"])
def test_iterated_attacks_take_the_caller_s_numbers_and_return_the_last_point(name: str) -> None:
    threat = ThreatModel(L2(), 0.25)
    loss = recipe(name).make(threat, 7, 0.05, 0.1, True)
    assert isinstance(loss, Adversarial | TRADES | MART)
    assert loss.attack == PGD(threat, 7, 0.05, keep_best=False, training_mode=True)
    assert loss.label_smoothing == 0.1


def test_the_single_step_takes_its_size_in_pixel_units() -> None:
    threat = ThreatModel(Linf(), 8 / 255)
    assert recipe("fast-linf").make(threat, 1, 10 / 255, 0.0, True).attack == NFGSM(threat, step=1.25, training_mode=True)
    assert recipe("fast-linf").make(threat, 1, None, 0.0, False).attack == NFGSM(threat)
    nothing = ThreatModel(Linf(), 0.0)
    assert recipe("fast-linf").make(nothing, 1, 10 / 255, 0.0, False).attack == NFGSM(nothing)


def test_the_published_schedule_of_pgd_training() -> None:
    """Rice et al. 2020: 200 epochs at 0.1, a tenth of it from epoch 100 and a hundredth from epoch 150 on, weight decay 5e-4."""
    optimization = recipe("madry-linf").optimization
    assert (optimization.epochs, optimization.batch_size, optimization.weight_decay, optimization.ema) == (200, 128, 5e-4, 0.0)
    rates = [optimization.learning_rate(epoch, 0, 390) for epoch in (0, 99, 100, 149, 150, 199)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_the_published_settings_of_mart() -> None:
    """Wang et al. 2020, section 4: 120 epochs at 0.01, weight decay 3.5e-3, beta 5."""
    optimization = recipe("mart-linf").optimization
    assert (optimization.epochs, optimization.lr, optimization.weight_decay, optimization.momentum) == (120, 0.01, 3.5e-3, 0.9)
    assert MART(PGD(THREATS["linf"])).beta == 5


def test_a_name_that_is_not_known_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="unknown recipe 'madry-l3'. Did you mean 'madry-l2'"):
        recipe("madry-l3")
