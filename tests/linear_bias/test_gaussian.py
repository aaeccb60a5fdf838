"""Two Gaussian classes: closed forms against their defining equations, sampling, grids, and each other."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import drawn, seeded

from robustlab.errors import UserError
from robustlab.linear_bias.gaussian import (
    Gaussian,
    averaging_accuracy,
    best_robust_weights,
    examples_needed,
    lagrangian_excess,
    lagrangian_step,
    one_and_average_accuracy,
    pointwise_likelihood,
    robust_likelihood,
    sampled_mean_accuracy,
    strongest_step,
)

THIN = Gaussian.from_axes([3, 1.5], [4, 0.09], 0.5)


def some(d: int, seed: int = 0) -> Gaussian:
    root = drawn(d, d, seed=seed)
    return Gaussian(drawn(d, seed=seed + 1), root @ root.T + 0.1 * torch.eye(d).double())


@seeded
@given(st.integers(1, 6), st.integers(0, 20), st.floats(1e-3, 30))
def test_the_robust_fit_spends_its_budget_and_is_what_the_moved_examples_have(d, seed, eps):
    true = some(d, seed)
    fit = robust_likelihood(true, eps)
    eye = torch.eye(d, dtype=torch.float64)
    step = torch.linalg.inv(fit.multiplier * fit.learned.covariance - eye)
    assert math.isclose(float(torch.trace(step @ true.covariance @ step.T)), eps**2, rel_tol=1e-6)
    moved = (eye + step) @ true.covariance @ (eye + step).T
    torch.testing.assert_close(moved, fit.learned.covariance, rtol=1e-6, atol=1e-9)
    assert torch.equal(fit.learned.mean, true.mean)


def test_no_budget_changes_nothing_and_more_makes_rounder_metrics():
    assert robust_likelihood(THIN, 0).learned is THIN
    conditions = [robust_likelihood(THIN, eps).learned.condition for eps in (0, 0.01, 0.1, 0.5, 1, 3, 10)]
    assert conditions == sorted(conditions, reverse=True) and conditions[-1] < 1.3


@pytest.mark.parametrize("eps, accuracy, cosine", [(0.0, 0.8791, 0.557), (0.1, 0.9048, 0.755), (0.3, 0.9148, 0.925), (0.6, 0.9164, 0.980)])
def test_accuracies_and_cosines_are_those_that_another_program_found(eps, accuracy, cosine):
    learned = robust_likelihood(THIN, eps).learned
    assert THIN.accuracy(learned.weights, 0.6) == pytest.approx(accuracy, abs=6e-5)
    assert learned.alignment == pytest.approx(cosine, abs=6e-4)


def test_accuracy_under_attack_is_that_of_sampling():
    for eps in (0.0, 0.3):
        w = robust_likelihood(THIN, eps).learned.weights
        z = THIN.sample(400_000, seed=1)
        seen = ((z @ w - 0.6 * w.norm()) > 0).double().mean().item()
        assert abs(seen - THIN.accuracy(w, 0.6)) < 4 * 0.5 / 400_000**0.5


@pytest.mark.parametrize("eps", [0.1, 0.6, 2.0])
def test_the_pointwise_fit_is_what_the_moved_examples_have_and_nothing_near_is_better(eps):
    z = THIN.sample(2000)
    fit, plain = pointwise_likelihood(z, eps), Gaussian.fit(z, torch.ones(2000))
    values, axes = torch.linalg.eigh(fit.covariance)
    moved = (z - fit.mean) @ axes
    moved = moved + strongest_step(moved, values, eps)
    torch.testing.assert_close(moved.T @ moved / 2000, torch.diag(values), rtol=1e-3, atol=1e-3 * float(values[0]))
    assert float(moved.mean(0).norm()) < 4 * eps / 2000 and float((fit.mean - plain.mean).norm()) < 0.02
    torch.testing.assert_close((axes.T @ torch.linalg.eigh(plain.covariance).eigenvectors).abs(), torch.eye(2).double(), rtol=0, atol=1e-2)

    def loss(model):
        values, axes = torch.linalg.eigh(model.covariance)
        centred = (z - model.mean) @ axes
        return float(((centred + strongest_step(centred, values, eps)).square() / values).sum(1).mean() + values.log().sum())

    for seed in range(6):
        near = drawn(2, 2, seed=seed)
        turned = fit.covariance + 1e-2 * float(values[0]) * (near + near.T)
        assert loss(Gaussian(fit.mean, turned)) > loss(fit) - 1e-9
        assert loss(Gaussian(fit.mean + 1e-2 * near[0], fit.covariance)) > loss(fit) - 1e-9


@pytest.mark.parametrize("eps, deviation", [(0.1, 0.076), (0.3, 0.10), (0.6, 0.086), (1.0, 0.062), (2.0, 0.031)])
def test_the_two_budgets_differ_as_another_solver_found(eps, deviation):
    z = THIN.sample(5000)
    same = robust_likelihood(Gaussian.fit(z, torch.ones(5000)), eps).learned
    values = torch.linalg.eigvalsh(pointwise_likelihood(z, eps).covariance)
    assert float((torch.linalg.eigvalsh(same.covariance) / values - 1).abs().amax()) == pytest.approx(deviation, abs=0.02)


def test_a_fit_to_examples_is_their_mean_and_covariance():
    x, y = THIN.draw(50_000, seed=3)
    assert set(y.tolist()) == {-1.0, 1.0} and abs(float(y.mean())) < 0.02
    fit = Gaussian.fit(x, y)
    torch.testing.assert_close(x * y[:, None], THIN.sample(50_000, seed=3))
    torch.testing.assert_close(fit.mean, THIN.mean, rtol=0, atol=0.05)
    torch.testing.assert_close(fit.covariance, THIN.covariance, rtol=0.03, atol=0.01)
    again = Gaussian.fit(x.tolist(), (y > 0).tolist())
    assert torch.equal(again.mean, fit.mean) and torch.equal(again.covariance, fit.covariance)


def test_a_small_budget_has_the_multiplier_of_its_first_order():
    wanted = math.sqrt(float(torch.linalg.inv(THIN.covariance).trace()))
    assert 1e-4 * robust_likelihood(THIN, 1e-4).multiplier == pytest.approx(wanted, rel=1e-3)


def test_the_strongest_step_beats_every_other_on_a_grid():
    centred, variances = drawn(40, 2), torch.tensor([0.09, 4.0]).double()
    step = strongest_step(centred, variances, 0.6)
    torch.testing.assert_close(step.norm(dim=1), torch.full((40,), 0.6).double())
    angle = torch.linspace(0, 2 * math.pi, 4001, dtype=torch.float64)
    ring = 0.6 * torch.stack([angle.cos(), angle.sin()], 1)

    def reached(delta):
        return ((centred[:, None] + delta).square() / variances).sum(-1)

    assert (reached(step[:, None])[:, 0] >= reached(ring[None]).amax(1) - 1e-9).all()


@pytest.mark.parametrize("price", [0.375, 0.75, 5.0])
def test_the_lagrangian_gain_is_that_of_its_steps(price):
    true = Gaussian.from_axes([4, 3], [100, 4], 0.3)
    z = true.sample(100_000)
    centred, step = z - true.mean, lagrangian_step(true, price, z)
    gain = [(moved * torch.linalg.solve(true.covariance, moved.T).T).sum(1).mean().item() for moved in (centred + step, centred)]
    assert (gain[0] - gain[1]) == pytest.approx(lagrangian_excess(true, price), rel=0.02)
    leaf = step[:5].clone().requires_grad_()
    moved = centred[:5] + leaf
    value = (moved * torch.linalg.solve(true.covariance, moved.T).T).sum() - price * leaf.square().sum()
    (slope,) = torch.autograd.grad(value, leaf)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-9)
    assert lagrangian_excess(Gaussian(true.mean, 52 * torch.eye(2).double()), price) < lagrangian_excess(true, price)


@pytest.mark.parametrize("eps", [0.1, 0.6, 2.0, 3.0])
def test_no_linear_classifier_beats_the_best_robust_one(eps):
    best = THIN.accuracy(best_robust_weights(THIN, eps), eps)
    angle = torch.linspace(0, 2 * math.pi, 7201, dtype=torch.float64)
    others = [THIN.accuracy(w, eps) for w in torch.stack([angle.cos(), angle.sin()], 1)]
    assert 0 <= best - max(others) + 1e-6 < 2e-6


def test_the_worst_cosine_is_reached_and_never_beaten():
    angle = torch.linspace(0, math.pi, 20_001, dtype=torch.float64)
    cosines = [Gaussian(torch.stack([a.cos(), a.sin()]), THIN.covariance).alignment for a in angle[::10]]
    assert 0 <= min(cosines) - THIN.worst_alignment < 1e-4


def test_smoothing_is_the_fit_of_noisy_examples():
    z = THIN.sample(200_000) + 0.6 * drawn(200_000, 2)
    centred = z - THIN.mean
    torch.testing.assert_close(THIN.smoothed(0.6).covariance, centred.T @ centred / len(z), rtol=0.02, atol=0.01)


def test_the_price_of_accuracy_by_sampling():
    d = 20
    shift = 3 / math.sqrt(d)
    z = shift + drawn(100_000, d)
    for eps in (0.0, shift / 2, 2 * shift):
        seen = ((z.mean(1) - eps) > 0).double().mean().item()
        assert seen == pytest.approx(averaging_accuracy(d, shift, eps), abs=0.006)


def test_examples_needed_is_the_smallest_number_and_its_accuracy_that_of_sampling():
    d, sigma = 1000, 0.5 * 1000**0.25
    n = examples_needed(d, sigma, 0.5)
    assert sampled_mean_accuracy(d, sigma, n, 0.5) >= 0.99 > sampled_mean_accuracy(d, sigma, n - 1, 0.5)
    mean = 1 + sigma / math.sqrt(n) * drawn(400, d)
    exact = torch.special.ndtr((mean.sum(1) - 0.5 * mean.abs().sum(1)) / (sigma * mean.norm(dim=1))).mean()
    assert float(exact) == pytest.approx(sampled_mean_accuracy(d, sigma, n, 0.5), abs=0.004)
    assert examples_needed(d, sigma) == 1


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: Gaussian(torch.zeros(2), torch.zeros(3, 3)), r"a mean \(d,\) and a covariance \(d, d\), got shapes \(2,\) and \(3, 3\)"),
        (lambda: Gaussian(torch.zeros(2).double(), torch.ones(2, 2).double()), "a covariance must be symmetric and positive definite"),
        (lambda: robust_likelihood(THIN, -1), "eps must be at least 0, got -1"),
        (lambda: pointwise_likelihood(THIN.sample(9), -1), "eps must be at least 0, got -1"),
        (lambda: Gaussian.fit([[1.0, 2.0], [2.0, 1.0]], [1, -1]), "2 examples of 2 values have no covariance that can be inverted"),
        (lambda: Gaussian.fit([[1.0], [2.0]], [1.0, 2.0]), r"two classes need the labels -1 and 1, got \[1.0, 2.0\]"),
        (lambda: lagrangian_excess(THIN, 1.0), "the price must exceed one over the smallest eigenvalue, 11.11, got 1"),
        (lambda: best_robust_weights(THIN, 4.0), "eps must be smaller than the length of the mean, 3.354, got 4"),
        (lambda: examples_needed(100, 1.0, 2.0), "no number of examples reaches an accuracy of 0.99 at d = 100"),
    ],
)
def test_what_has_no_answer_is_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()


def test_a_strong_feature_beside_the_average_by_sampling():
    d, shift, sure = 10, 3 / math.sqrt(10), 0.95
    assert one_and_average_accuracy(0.0, sure, d, shift, 0.2) == pytest.approx(averaging_accuracy(d, shift, 0.2))
    assert one_and_average_accuracy(1e6, sure, d, shift, 0.2) == pytest.approx(sure)
    strong = torch.where(drawn(100_000, 1, seed=5)[:, 0] < torch.special.ndtri(torch.tensor(sure).double()), 1.0, -1.0)
    average = math.sqrt(d) * (shift + drawn(100_000, d, seed=6)).mean(1)
    for eps in (0.0, shift / 2):
        seen = ((2 * (strong - eps) + average - math.sqrt(d) * eps) > 0).double().mean().item()
        assert seen == pytest.approx(one_and_average_accuracy(2.0, sure, d, shift, eps), abs=0.006)
