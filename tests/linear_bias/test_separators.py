"""Separators of largest margin: proven by their own mixtures, against closed forms and each other; paths, tails, and what is refused."""

from __future__ import annotations

import re

import pytest
import torch
from laws import drawn

pytest.importorskip("scipy")
pytest.importorskip("cvxpy")

from robustlab.errors import UserError  # noqa: E402
from robustlab.linear_bias import (  # noqa: E402
    L1,
    L2,
    Cosh,
    Entropy,
    FourierL1,
    FourierLinf,
    HypEntropy,
    LinearObjective,
    Linf,
    LogExponential,
    Logistic,
    Lp,
    Nuclear,
    PNorm,
    Problem,
    Quadratic,
    Shaped,
    Spectral,
    Steepest,
    descend,
    largest,
    margin_path,
    margins,
    max_margin,
    multiclass_max_margin,
    problem,
    regression,
    separable,
    separator,
    split_nonseparable,
    zeros,
)
from robustlab.linear_bias.certificates import mixed  # noqa: E402
from robustlab.linear_bias.separators import logistic_minimizer, tail_direction  # noqa: E402

DATA = separable(3, 8, 12)
SHAPE = (3, 4)
SOLVED = [L1(), L2(), Linf(), Lp(1.5), Lp(4.0), FourierL1(), FourierLinf(), Shaped(Spectral(), SHAPE), Shaped(Nuclear(), SHAPE)]
every_solved_norm = pytest.mark.parametrize("norm", SOLVED, ids=repr)


def products(data: Problem, w: torch.Tensor) -> torch.Tensor:
    return data.outputs(w) * data.y


@every_solved_norm
def test_a_separator_is_proven_by_its_own_mixture(norm):
    found = separator(DATA, norm)
    torch.testing.assert_close(products(DATA, found.w).amin(1), torch.ones(3).double())
    torch.testing.assert_close(found.margin, margins(DATA, found.w, norm))
    torch.testing.assert_close(found.margin, 1 / norm.measure(found.w))
    assert (found.mixture >= 0).all()
    torch.testing.assert_close(found.mixture.sum(1), torch.ones(3).double())
    torch.testing.assert_close(mixed(DATA, found.mixture, norm), found.margin, rtol=1e-5, atol=0)


@every_solved_norm
def test_a_separator_meets_the_conditions_of_kuhn_and_tucker(norm):
    found = separator(DATA, norm)
    # Complementary slackness: weight on support vectors only. Alignment: <mixed row, w> is the product of their norms.
    slack = products(DATA, found.w) - 1
    assert (found.mixture * slack).amax() < 1e-4
    row = DATA.pulled_back(found.mixture * DATA.y)
    torch.testing.assert_close((row * found.w).sum(1), norm.dual.measure(row) * norm.measure(found.w), rtol=1e-4, atol=0)


@every_solved_norm
def test_one_by_one_as_in_a_batch_and_larger_for_larger_data(norm):
    w, margin = max_margin(DATA, norm)
    for seed in range(3):
        alone = max_margin(Problem(DATA.X[seed : seed + 1], DATA.y[seed : seed + 1]), norm)
        torch.testing.assert_close(alone[0][0], w[seed], rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(max_margin(Problem(1e3 * DATA.X, DATA.y), norm)[1], 1e3 * margin, rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", [L1(), Linf(), Lp(1.5), FourierL1(), Shaped(Spectral(), SHAPE)], ids=repr)
def test_descent_approaches_the_margin_and_never_exceeds_it(norm):
    _, best = max_margin(DATA, norm)
    rule = Steepest(norm, 1 / largest(DATA, norm) ** 2, scaled=True)
    reached = margins(DATA, descend(LinearObjective(DATA, LogExponential()), zeros(DATA), rule, 3000).last, norm)
    assert (reached <= best * (1 + 1e-6)).all() and (reached > 0.95 * best).all()


def test_one_example_of_each_class_against_each_other():
    # y x = (3, 4) twice: the best mixture is that row, and the L2 separator lies along it.
    data = problem([[3.0, 4.0], [-3.0, -4.0]], [1.0, -1.0])
    for norm, margin in ((L2(), 5.0), (L1(), 4.0), (Linf(), 7.0)):
        assert max_margin(data, norm)[1].item() == pytest.approx(margin)
    torch.testing.assert_close(max_margin(data, L2())[0][0], torch.tensor([3.0, 4.0]).double() / 25)


def test_norms_of_powers_come_close_to_their_ends():
    assert (max_margin(DATA, Lp(1.01))[1] / max_margin(DATA, L1())[1] - 1).abs().max() < 0.05
    assert (max_margin(DATA, Lp(2.0))[1] / max_margin(DATA, L2())[1] - 1).abs().max() < 1e-6


def test_several_classes_and_two_of_them():
    X, y = drawn(2, 12, 8), torch.arange(12).expand(2, -1) % 3
    for norm in (Spectral(), Nuclear(), Linf(), L2()):
        W, margin = multiclass_max_margin(X, y, norm)
        own = torch.einsum("sd,sdk->sk", X.flatten(0, 1), W.mT.repeat_interleave(12, 0)).reshape(2, 12, 3)
        correct = own.gather(2, y[..., None])
        apart = (correct - own).masked_fill(torch.nn.functional.one_hot(y, 3).bool(), torch.inf)
        torch.testing.assert_close(apart.flatten(1).amin(1), torch.ones(2).double(), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(margin, 1 / norm.measure(W))
    # Of two classes W_1 = -W_0 = w / 2 is the shortest, and w the separator.
    W, margin = multiclass_max_margin(DATA.X, (DATA.y > 0).long(), L2())
    w, binary = max_margin(DATA, L2())
    torch.testing.assert_close(W[:, 1] - W[:, 0], w)
    torch.testing.assert_close(margin, binary * 2**0.5)


@pytest.mark.parametrize("X, y, said", [(drawn(1, 3, 2), [[0, 0, 0]], "one class only"), (drawn(1, 3, 2), [[0.5, 1, 0]], "whole numbers")])
def test_classes_that_are_none_are_refused(X, y, said):
    with pytest.raises(UserError, match=said):
        multiclass_max_margin(X, torch.tensor(y), L2())


@pytest.mark.parametrize("norm", SOLVED[:5], ids=repr)
def test_data_that_cannot_be_separated_are_refused_with_the_proof(norm):
    X = drawn(1, 4, 3)
    data = Problem(torch.cat([X, 2 * X], 1), torch.tensor([[1.0, 1, 1, 1, -1, -1, -1, -1]]).double())
    with pytest.raises(UserError, match=re.escape("the problem cannot be separated: the mixture ")) as error:
        max_margin(data, norm)
    found = re.search(r"of the rows y x has the dual norm (\S+), where the longest row has (\S+),", str(error.value))
    assert found and float(found[1]) < 1e-9 * float(found[2])


def test_a_norm_without_a_solver_is_refused():
    with pytest.raises(UserError, match=re.escape("write Shaped(Spectral(), (rows, columns))")):
        max_margin(DATA, Spectral())
    with pytest.raises(UserError, match="no solver for margins in"):
        max_margin(DATA, Shaped(L1(), SHAPE))


@pytest.mark.parametrize("potential", [Quadratic(), PNorm(1.5), PNorm(3.0), Cosh(), HypEntropy(0.1)], ids=repr)
def test_a_point_of_the_margin_path_is_a_minimizer(potential):
    gammas = [0.5, 5.0, 50.0]
    for gamma, w in zip(gammas, margin_path(DATA, potential, gammas), strict=True):
        m = products(DATA, w) / gamma
        assert (m.amin(1) - 1).abs().max() < 1e-5
        # grad psi(w) is a combination of the support vectors' rows, with weights above zero.
        for seed in range(3):
            rows = DATA.signed[seed][m[seed] < 1 + 1e-5]
            z = potential.dual(w)[seed]
            weights = torch.linalg.lstsq(rows.T, z[:, None], driver="gelsd").solution[:, 0]
            assert (rows.T @ weights - z).norm() < 1e-4 * z.norm() and (weights > -1e-6 * weights.max()).all()


def test_the_margin_path_ends_where_the_potential_says():
    def gap(potential, gamma, norm):
        return 1 - margins(DATA, margin_path(DATA, potential, [gamma])[0], norm) / max_margin(DATA, norm)[1]

    assert (gap(Cosh(), 30.0, Linf()) < gap(Cosh(), 3.0, Linf())).all() and (gap(Cosh(), 30.0, Linf()) < 0.2).all()
    assert (gap(HypEntropy(0.01), 1e6, L1()) < gap(HypEntropy(0.01), 1.0, L1())).all()
    torch.testing.assert_close(margin_path(DATA, PNorm(1.5), [2.0])[0], 2 * max_margin(DATA, Lp(1.5))[0])


def test_paths_that_are_not_there_are_refused():
    with pytest.raises(UserError, match=r"no weights with margin 1000 on the path of Cosh\(\) were found: .* or the numbers are too large"):
        margin_path(DATA, Cosh(), [1000.0])
    with pytest.raises(UserError, match="gammas must be finite and above 0, got -1"):
        margin_path(DATA, Cosh(), [1.0, -1.0])
    against = problem([[-1.0, -2.0], [1.0, 2.0]], [1.0, -1.0])  # separable, but by no positive weights
    with pytest.raises(UserError, match="none in its domain separate the data"):
        margin_path(against, Entropy(), [1.0])
    positive = problem([[1.0, 2.0], [-1.0, -2.0]], [1.0, -1.0])
    assert (margin_path(positive, Entropy(), [100.0]) > 0).all()


def test_a_problem_is_split_into_a_bounded_and_a_separable_part():
    pairs = torch.cat([drawn(1, 4, 2), torch.zeros(1, 4, 3)], 2)
    free = torch.cat([drawn(1, 5, 2, seed=1), separable(1, 5, 3, margin=0.5).signed], 2)
    signed = torch.cat([pairs, -0.7 * pairs, free], 1).double()
    y = torch.tensor([[1.0, -1] * 6 + [1]]).double()
    split = split_nonseparable(Problem(signed * y[..., None], y))
    assert split.separable.tolist() == [[False] * 8 + [True] * 5]
    assert split.basis[0].shape == (2, 5)
    direction = split.direction
    torch.testing.assert_close(L2().measure(direction), torch.ones(1).double())
    assert split.within(direction).abs().max() < 1e-9 and (signed[0, 8:] @ direction[0] > 0).all()


def test_what_is_separable_or_bounded_as_a_whole():
    whole = split_nonseparable(DATA)
    assert whole.separable.all() and all(basis.shape == (0, 12) for basis in whole.basis)
    torch.testing.assert_close(whole.direction, max_margin(DATA, L2())[0] * max_margin(DATA, L2())[1][:, None])
    X = drawn(1, 6, 2)
    nothing = split_nonseparable(Problem(torch.cat([X, X], 1), torch.tensor([[1.0] * 6 + [-1.0] * 6]).double()))
    assert not nothing.separable.any() and not nothing.direction.any()


def test_the_minimizer_of_a_bounded_part_is_where_descent_ends():
    rows = drawn(8, 3)
    rows = torch.cat([rows, -0.5 * rows])
    w = logistic_minimizer(rows)
    assert (torch.sigmoid(-rows @ w) @ rows).abs().max() < 1e-9
    y = torch.tensor([[1.0, -1] * 8]).double()
    data = Problem(rows[None] * y[..., None], y)
    step = 4 / torch.linalg.matrix_norm(data.X, ord=2) ** 2
    path = descend(LinearObjective(data, Logistic()), zeros(data), Steepest(L2(), step, scaled=True), 3000)
    torch.testing.assert_close(path.last[0], w, rtol=1e-6, atol=1e-8)
    with pytest.raises(UserError, match="has no minimizer: 8 of 8 examples can be separated beside the rest"):
        logistic_minimizer(DATA.signed[0])


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0])
def test_the_end_of_a_polynomial_tail_is_stationary_on_the_sphere(power):
    w = tail_direction(DATA, power)
    m = products(DATA, w)
    assert (m > 0).all()
    slope = DATA.pulled_back(m ** (-power - 1) * DATA.y)
    across = slope - (slope * w).sum(1, keepdim=True) * w
    assert (across.norm(dim=1) < 1e-7 * slope.norm(dim=1)).all()


def test_a_steep_tail_is_nearly_the_separator():
    w, _ = max_margin(DATA, L2())
    cosines = [torch.cosine_similarity(tail_direction(DATA, power), w, dim=1) for power in (1.0, 10.0, 100.0)]
    assert (cosines[0] < cosines[1]).all() and (cosines[1] < cosines[2]).all() and (cosines[2] > 0.999).all()
    with pytest.raises(UserError, match="the power of a tail must be above 0, got 0"):
        tail_direction(DATA, 0.0)


def test_numbers_are_no_classes():
    with pytest.raises(UserError, match="two classes need the labels -1 and 1"):
        max_margin(regression(2, 4, 6), L2())
