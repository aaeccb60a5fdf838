"""Which solution does an optimizer pick: the nearest is the one that the theory names, and what has none is refused before the work."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("scipy")
pytest.importorskip("cvxpy")

from robustlab.errors import UserError  # noqa: E402
from robustlab.linear_bias import (  # noqa: E402
    L1,
    L2,
    Linf,
    MirrorDescent,
    PNorm,
    Problem,
    Steepest,
    largest,
    problem,
    regression,
    separable,
    which_solution,
)

CLASSES = separable(2, 10, 20)


@pytest.mark.parametrize("norm, name", [(L1(), "largest L1 margin"), (L2(), "largest L2 margin"), (Linf(), "largest Linf margin")])
def test_steepest_descent_is_told_by_its_norm(norm, name):
    answer = which_solution(CLASSES, Steepest(norm, 1 / largest(CLASSES, norm) ** 2, scaled=True), steps=3000)
    assert answer.nearest == name and (answer.gaps[name] < 0.05).all() and all((gap > -1e-6).all() for gap in answer.gaps.values())
    first = str(answer).splitlines()[2]
    assert first.startswith(f"| {name} | ") and f"Nearest: {name}." in str(answer) and "after 3000 steps, 2 problems" in str(answer)


def test_a_torch_optimizer_and_a_loss_by_name():
    answer = which_solution(CLASSES, lambda parameters: torch.optim.SGD(parameters, lr=0.05), "logistic", steps=500)
    assert answer.nearest == "largest L2 margin" and answer.path.moments[-1] == 500


def test_interpolants_where_targets_are_numbers():
    data = regression(2, 6, 20)
    step = 0.4 / torch.linalg.matrix_norm(data.X, ord=2) ** 2
    answer = which_solution(data, Steepest(L2(), step, scaled=True), steps=3000)
    assert answer.nearest == "smallest L2 norm" and (answer.gaps["smallest L2 norm"] < 1e-8).all()
    mirror = which_solution(data, MirrorDescent(PNorm(1.5), step / 10), steps=20_000)
    assert mirror.nearest == "smallest L1.5 norm" and (mirror.gaps["smallest L1.5 norm"] < 1e-4).all()


def test_no_steps_pick_nothing():
    answer = which_solution(CLASSES, Steepest(L2(), 0.1), steps=0)
    assert all((gap == 1).all() for gap in answer.gaps.values()) and "None is near" in str(answer)


def test_what_has_no_solution_is_refused_before_the_work():
    def never(parameters):
        raise AssertionError

    X = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)).double()
    twice = problem(torch.cat([X, X]), torch.tensor([1.0] * 5 + [-1.0] * 5))
    with pytest.raises(UserError, match="cannot be separated: the mixture"):
        which_solution(twice, never)
    with pytest.raises(UserError, match=r"no weights|not solve|no solution"):
        which_solution(Problem(X[None], torch.arange(5.0).double()[None]), never)
    with pytest.raises(UserError, match="unknown loss 'logstic'. Did you mean 'logistic'"):
        which_solution(CLASSES, never, "logstic")
