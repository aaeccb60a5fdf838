"""Sparse problems: the numbers of dense ones, text that is separable, and the L1 margin as a game."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustlab import linear_bias as lb
from robustlab.errors import UserError
from robustlab.linear_bias.at_size import GameAcceleration, SparseProblem, hedged, sparse_problem, text_like
from robustlab.linear_bias.certificates import bound

SMALL = text_like(60, 300, words=20)
RULES = [
    lb.DualAcceleration(1.0),
    lb.Steepest(lb.L1(), 1.0, scaled=True),
    lb.Steepest(lb.L2(), 1.0, scaled=True),
    lb.Steepest(lb.Linf(), 0.01, scaled=True),
    GameAcceleration(1.0, 1.0),
]


def dense(data: SparseProblem) -> lb.Problem:
    return lb.Problem(data.X.to_dense()[None], data.y)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_a_sparse_descent_is_the_dense_one(rule):
    paths = [lb.descend(lb.MeanMixture(data, lb.LogExponential()), lb.zeros(data), rule, 50) for data in (SMALL, dense(SMALL))]
    torch.testing.assert_close(paths[0].last, paths[1].last)


@pytest.mark.parametrize("norm", [lb.L1(), lb.L2(), lb.Linf(), lb.Lp(3.0)], ids=repr)
def test_sparse_certificates_are_the_dense_ones(norm):
    w = torch.linspace(-1, 1, SMALL.d, dtype=torch.float64)[None]
    for number in (lb.largest, lambda data, norm: lb.margins(data, w, norm), lambda data, norm: bound(data, w, norm)):
        torch.testing.assert_close(number(SMALL, norm), number(dense(SMALL), norm))


def test_signed_rows_are_the_dense_ones():
    assert torch.equal(SMALL.signed.to_dense(), dense(SMALL).signed[0])


def test_text_is_separable_whatever_the_labels_and_has_rows_of_length_one():
    own = torch.zeros(1, SMALL.d, dtype=torch.float64)
    own[0, -SMALL.n :] = 1e6 * SMALL.y[0]
    assert float(lb.margins(SMALL, own, lb.L2())) > 0
    torch.testing.assert_close(SMALL.sizes(lb.L2()), torch.ones(1, SMALL.n, dtype=torch.float64))
    assert text_like(60, 300, words=20).digest == SMALL.digest != text_like(60, 300, words=20, seed=1).digest


def test_dual_acceleration_certifies_its_margin_on_sparse_examples():
    objective = lb.MeanMixture(SMALL, lb.LogExponential())
    path = lb.descend(objective, lb.zeros(SMALL), lb.DualAcceleration(1.0), 3000, keep=())
    assert 0 <= float(lb.certified_gap(SMALL, path.last, lb.L2(), objective.mean)) < 0.01


def test_the_game_finds_the_largest_l1_margin():
    pytest.importorskip("scipy")
    _, exact = lb.max_margin(dense(SMALL), lb.L1())
    objective = lb.MeanMixture(SMALL, lb.LogExponential())
    scale = 10 / float(lb.largest(SMALL, lb.L1()))
    path = lb.descend(objective, lb.zeros(SMALL), GameAcceleration(scale, scale), 10_000, keep=())
    margin = float(lb.margins(SMALL, path.last, lb.L1()))
    best = float(exact)
    assert 0.97 * best < margin <= best * (1 + 1e-9)
    assert float(lb.certified_gap(SMALL, path.last, lb.L1(), objective.mean)) >= 1 - margin / best - 1e-9


def test_exponential_weights_stay_finite():
    gains = torch.tensor([[1e5, -1e5, 0.0], [1.0, 0.0, -2.0]], dtype=torch.float64)
    torch.testing.assert_close(hedged(gains)[0], torch.tensor([0.5, -0.5, 0], dtype=torch.float64))
    torch.testing.assert_close(hedged(gains)[1], gains[1].sinh() / gains[1].cosh().sum())


def of_scipy(data: SparseProblem) -> object:
    sparse = pytest.importorskip("scipy.sparse")
    return sparse.coo_matrix(data.X.to_dense().numpy())


@pytest.mark.parametrize("made", [of_scipy, lambda data: data.X, lambda data: data.X.to_dense().to_sparse_coo()])
def test_examples_come_from_scipy_and_torch(made):
    labels: Tensor = SMALL.y[0] > 0
    assert sparse_problem(made(SMALL), labels).digest == SMALL.digest


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda: sparse_problem(SMALL.X.to_dense(), SMALL.y[0]), "X must be a sparse"),
        (lambda: sparse_problem(SMALL.X, SMALL.y[0, 1:]), "a sparse problem needs X"),
        (lambda: sparse_problem(SMALL.X, "words"), "y must be an array"),
        (lambda: sparse_problem(SMALL.X, SMALL.y[0] / 0), "y must be finite"),
        (lambda: sparse_problem(SMALL.X, torch.ones(SMALL.n)).signed, "one class only"),
        (
            lambda: sparse_problem((SMALL.X.to_dense() * (torch.arange(60) > 0)[:, None]).to_sparse_coo(), SMALL.y[0]).signed,
            "example 0 is all zero",
        ),
        (lambda: SMALL.sizes(lb.FourierL1()), "measured in L1"),
        (lambda: text_like(5, 5), "more words than documents"),
    ],
)
def test_mistakes_are_one_sentence(make, says):
    with pytest.raises(UserError, match=says):
        make()
