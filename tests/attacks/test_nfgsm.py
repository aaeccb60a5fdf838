"""Laws of N-FGSM: noise, one step, the pixel box, and nothing else."""

from __future__ import annotations

import pytest
import torch
from laws import every_norm, images, restless, untouched
from oracles import Counting

from robustlab.attacks import NFGSM
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.norms import L1, L2, Linf
from robustlab.seeding import example_keys, fold

KEYS = example_keys(0, torch.arange(6))
LABELS = torch.arange(6) % 3
X = images(6, 3, 8, 8)


def test_as_published(tiny_model):
    """De Jorge et al. 2022, algorithm 1, by hand: noise of 2 eps, a signed step of eps, no projection but into the pixel range."""
    eps = 8 / 255
    noisy = (X + Linf().sample(fold(KEYS, "noise"), X.shape[1:], 2 * eps)).clamp(0, 1).requires_grad_()
    torch.nn.functional.cross_entropy(tiny_model(noisy), LABELS).backward()
    expected = (noisy + eps * noisy.grad.sign()).detach().clamp(0, 1)
    tiny_model.zero_grad()
    torch.testing.assert_close(NFGSM(ThreatModel(Linf(), eps))(tiny_model, X, LABELS, keys=KEYS), expected)


@every_norm
def test_it_stays_in_the_pixel_range_and_within_noise_and_step(norm, tiny_model):
    x = X.round()
    for noise, step in [(2.0, 1.0), (0.0, 1.0), (1.0, 0.0)]:
        x_adv = NFGSM(ThreatModel(norm, 0.5), noise, step)(tiny_model, x, LABELS, keys=KEYS)
        assert 0 <= x_adv.min() and x_adv.max() <= 1
        assert (norm.measure((x_adv - x).double()) <= 0.5 * (noise + step) * (1 + 1e-6)).all()


def test_it_may_leave_the_eps_ball_so_it_measures_nothing(tiny_model):
    x_adv = NFGSM(ThreatModel(L2(), 0.5))(tiny_model, X, LABELS, keys=KEYS)
    assert (L2().measure(x_adv - X) > 0.5).any()


def test_it_costs_one_pass_and_no_gradient_of_a_weight():
    model = Counting(192)
    NFGSM(ThreatModel(L2(), 0.5))(model, X, LABELS)
    assert model.counts == {"forward": 1, "input": 1, "weights": 0}


@pytest.mark.parametrize("training_mode", [False, True])
def test_model_arguments_and_random_state_are_bit_identical_afterwards(training_mode, tiny_model):
    model = restless(tiny_model)
    with untouched(model, X, LABELS, KEYS):
        NFGSM(ThreatModel(Linf(), 0.1), training_mode=training_mode)(model, X, LABELS, keys=KEYS)


def test_evaluation_mode_unless_training_mode_is_asked_for(tiny_model):
    attack = NFGSM(ThreatModel(Linf(), 0.1))
    expected = attack(tiny_model.eval(), X, LABELS, keys=KEYS)
    assert torch.equal(attack(tiny_model.train(), X, LABELS, keys=KEYS), expected)
    in_training = NFGSM(ThreatModel(Linf(), 0.1), training_mode=True)
    assert not torch.equal(in_training(tiny_model, X, LABELS, keys=KEYS), expected)


@every_norm
def test_an_example_gets_the_same_noise_and_step_alone_and_in_a_batch(norm, tiny_model):
    model, x, attack = tiny_model.double(), X.double(), NFGSM(ThreatModel(norm, 0.5))
    whole = attack(model, x, LABELS, keys=KEYS)
    for rows in ([4], [5, 0]):
        torch.testing.assert_close(attack(model, x[rows], LABELS[rows], keys=KEYS[rows]), whole[rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", [L1(), L2(), Linf()], ids=repr)
def test_eps_zero_returns_the_images_and_no_images_none(norm, tiny_model):
    assert torch.equal(NFGSM(ThreatModel(norm, 0.0))(tiny_model, X, LABELS), X)
    assert NFGSM(ThreatModel(norm, 0.5))(tiny_model, X[:0], LABELS[:0]).shape == (0, 3, 8, 8)


def test_what_comes_back_carries_no_graph(tiny_model):
    x = X.clone().requires_grad_()
    assert not NFGSM(ThreatModel(L2(), 0.5))(tiny_model, x, LABELS).requires_grad and x.grad is None


def test_logits_that_are_no_numbers_are_refused():
    model = Counting(192)
    model.w2.data.fill_(torch.nan)
    with pytest.raises(UserError, match="NaN or infinite for 6 of 6 examples"):
        NFGSM(ThreatModel(L2(), 0.5))(model, X, LABELS)


def test_its_name():
    assert str(NFGSM(ThreatModel(L2(), 0.5))) == "N-FGSM (L2 eps=0.5)"
