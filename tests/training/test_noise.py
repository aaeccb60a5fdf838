"""Losses for smoothed classifiers against their formulas, and against each other where one is a case of another."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.data.batches import Batch
from robustlab.errors import UserError
from robustlab.norms import L2
from robustlab.seeding import example_keys, fold, normal
from robustlab.settings import Training, TrainingNoise
from robustlab.training import Consistency, Noise, SmoothAdv
from robustlab.training.losses import UnderNoise
from robustlab.training.method import complete, method_of

SIGMA, KEYS = 0.3, example_keys(0, torch.arange(5))
ATTACK = PGD(ThreatModel(L2(), 0.5), steps=2, reach=2, random_start=False, keep_best=False)


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()


def batch() -> Batch:
    x = torch.rand(5, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Batch(x, torch.arange(5) % 3, torch.arange(5), KEYS)


def copies(x: Tensor, m: int) -> Tensor:
    """Of each image its noisy copies, ``(m, B, C, H, W)``, by the generator itself."""
    return torch.stack([x + SIGMA * normal(fold(KEYS, "noise", j), x.shape[1:], x.dtype) for j in range(m)])


def test_noise_is_the_mean_cross_entropy_of_copies_that_batch_norm_sees_together() -> None:
    model, shown = network().train(), batch()
    outcome = Noise(SIGMA, 3, 0.1)(model, shown)
    after = [buffer.clone() for buffer in model.buffers()]
    logits = (other := network().train())(copies(shown.x, 3).flatten(0, 1)).view(3, 5, 3)
    expected = torch.stack([F.cross_entropy(each, shown.y, reduction="none", label_smoothing=0.1) for each in logits]).mean(0)
    torch.testing.assert_close(outcome.loss, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(outcome.logits.exp(), logits.softmax(2).mean(0), rtol=0, atol=1e-12)
    assert all(map(torch.equal, after, other.buffers())) and torch.equal(outcome.x, shown.x)
    assert not torch.equal(Noise(SIGMA)(model, replace(shown, keys=KEYS + 1)).loss, Noise(SIGMA)(model, shown).loss)


def test_smoothadv_without_steps_is_noise_and_with_them_raises_the_smoothed_loss() -> None:
    model, shown = network().eval(), batch()
    still = SmoothAdv(replace(ATTACK, steps=0), SIGMA, 3)(model, shown)
    assert torch.equal(still.loss, Noise(SIGMA, 3)(model, shown).loss)
    attacked = SmoothAdv(ATTACK, SIGMA, 3)(model, shown)
    distance = (attacked.x - shown.x).flatten(1).norm(dim=1)
    assert (distance <= 0.5).all() and (distance > 0.1).all()
    before, after = (F.nll_loss(outcome.logits, shown.y, reduction="none") for outcome in (still, attacked))
    assert (after > before).all()  # over the very copies that are trained on
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_consistency_is_its_formula_and_nothing_for_a_constant_network() -> None:
    model, shown = network().eval(), batch()
    p = model(copies(shown.x, 2).flatten(0, 1)).view(2, 5, 3).softmax(2)
    mean = p.mean(0)
    apart = (mean * (mean.log() - p.log())).sum(2).mean(0)
    expected = Noise(SIGMA, 2)(model, shown).loss + 7 * apart - 0.4 * (mean * mean.log()).sum(1)
    torch.testing.assert_close(Consistency(SIGMA, 2, 7, 0.4)(model, shown).loss, expected, rtol=0, atol=1e-12)
    nn.init.zeros_(model[4].weight)
    torch.testing.assert_close(Consistency(SIGMA, 2, 7, 0)(model, shown).loss, Noise(SIGMA, 2)(model, shown).loss, rtol=0, atol=1e-12)


def test_validation_adds_the_noise_that_training_does() -> None:
    x = torch.rand(2000, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    added = UnderNoise(nn.Identity(), SIGMA)(x) - x
    assert abs(float(added.std()) / SIGMA - 1) < 4 / math.sqrt(2 * added.numel()) and torch.equal(
        UnderNoise(nn.Identity(), SIGMA)(x) - x, added
    )


def test_a_recipe_takes_the_settings_of_noise_that_it_knows() -> None:
    settings = complete(Training(recipe="consistency", noise=TrainingNoise(sigma=0.5, consistency=10)), bfloat16=False)
    method = method_of(settings)
    assert method.loss == Consistency(0.5, 2, 10, 0.5) and method.sigma == 0.5
    assert method_of(complete(Training(), bfloat16=False)).sigma is None
    smoothadv = method_of(complete(Training(recipe="smoothadv-l2", noise=TrainingNoise(noises=4)), bfloat16=False)).loss
    assert smoothadv == SmoothAdv(replace(ATTACK, steps=10), 0.25, 4)
    with pytest.raises(UserError, match="the recipe 'noise' has no `entropy`: leave it out, or take one of consistency"):
        complete(Training(recipe="noise", noise=TrainingNoise(entropy=1)), bfloat16=False)


@pytest.mark.parametrize(
    "make", [lambda: Noise(0.0), lambda: Noise(0.1, 0), lambda: Consistency(0.1, 1), lambda: Consistency(0.1, 2, -1.0)]
)
def test_numbers_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(UserError, match="`sigma`|`noises|`consistency`"):
        make()  # type: ignore[operator]
