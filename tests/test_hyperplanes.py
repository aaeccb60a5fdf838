"""The shortest way onto a hyperplane in a box: against solvers, and at the corners."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from laws import drawn, every_norm, images
from scipy.optimize import linprog, minimize_scalar
from torch import Tensor

from robustlab.errors import UserError
from robustlab.hyperplanes import shortest_move
from robustlab.norms import L1, L2, AttackNorm, Linf, Lp


def solved(w: np.ndarray, rise: float, norm: AttackNorm, low: np.ndarray, high: np.ndarray) -> float:
    """The length of the shortest move, by a linear program, or for L2 by its dual, which is a concave function of one number."""
    d = len(w)
    if isinstance(norm, L2):  # the inner minimum over a box is a clipped multiple of w
        top = 4 * abs(rise) / float(w @ w) + 4 * float(np.max(np.where(w != 0, 1 / np.maximum(abs(w), 1e-12), 0)))

        def dual(m: float) -> float:
            move = np.clip(m * w, low, high)
            return -(0.5 * float(move @ move) + m * (rise - float(w @ move)))

        best = minimize_scalar(dual, bounds=(-top, top), method="bounded", options={"xatol": 1e-14, "maxiter": 10_000})
        return float(np.sqrt(2 * -best.fun))
    if isinstance(norm, L1):  # d = p - q
        found = linprog(np.ones(2 * d), A_eq=np.r_[w, -w][None], b_eq=[rise], bounds=[(0, h) for h in high] + [(0, -v) for v in low])
    else:  # |d_i| <= t
        eye, one = np.eye(d), np.ones((d, 1))
        above = np.block([[eye, -one], [-eye, -one]])
        bounds = [*zip(low, high, strict=True), (0, None)]
        found = linprog(np.r_[np.zeros(d), 1], A_ub=above, b_ub=np.zeros(2 * d), A_eq=np.r_[w, 0][None], b_eq=[rise], bounds=bounds)
    assert found.success
    return float(found.fun)


def problem(count: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Normals with zeros and equal entries, images with pixels at both ends, and shares of the reach of the box."""
    w = drawn(count, size)
    w[:, ::5], w[:, 1::5] = 0, w[:, 2:3]
    x = images(count, size, dtype=torch.float64)
    x[:, ::3], x[:, 1::7] = x[:, ::3].round(), 0.5
    return w, x, torch.linspace(-0.98, 0.98, count, dtype=torch.float64)


def reach(w: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """How far ``<w, x>`` can fall and rise in the box."""
    down = torch.where(w > 0, -x, 1 - x) * w
    return down.sum(1), (torch.where(w > 0, 1 - x, -x) * w).sum(1)


@every_norm
def test_it_is_the_shortest_move_that_a_solver_finds(norm):
    w, x, share = problem(24, 11)
    fall, climb = reach(w, x)
    rise = torch.where(share < 0, -share * fall, share * climb)
    move = shortest_move(w, rise, norm, -x, 1 - x)
    assert ((x + move >= -1e-15) & (x + move <= 1 + 1e-15)).all()
    torch.testing.assert_close((w * move).sum(1), rise, rtol=1e-10, atol=1e-12)
    best = [solved(*(v.numpy() for v in (a,)), float(r), norm, -b.numpy(), 1 - b.numpy()) for a, r, b in zip(w, rise, x, strict=True)]
    torch.testing.assert_close(norm.measure(move), torch.tensor(best, dtype=torch.float64), rtol=1e-6, atol=1e-9)


@every_norm
def test_where_the_box_is_far_it_is_the_closed_form(norm):
    w, x = drawn(6, 3, 4, 4), torch.full((6, 3, 4, 4), 0.5, dtype=torch.float64)
    rise = norm.dual.measure(w) * torch.tensor([0.0, 1e-9, 0.1, -0.2, 0.3, -0.4], dtype=torch.float64)
    move = shortest_move(w, rise, norm, -x, 1 - x)
    torch.testing.assert_close(move, norm.steepest(w) * (rise / norm.dual.measure(w))[:, None, None, None], rtol=1e-9, atol=1e-18)


@every_norm
def test_out_of_reach_everything_goes_as_far_as_it_can_and_no_slope_goes_nowhere(norm):
    w, x, _ = problem(6, 11)
    w[0], (fall, climb) = 0, reach(w, x)
    for rise in (2 * fall - 1, 2 * climb + 1):
        move = shortest_move(w, rise, norm, -x, 1 - x)
        torch.testing.assert_close((w * move).sum(1), torch.where(rise < 0, fall, climb) * (w != 0).any(1))
        assert (move[w == 0] == 0).all()
    assert (shortest_move(w, torch.zeros(6, dtype=torch.float64), norm, -x, 1 - x) == 0).all()


@every_norm
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_in_float32_it_arrives_whatever_the_scale(norm, scale):
    w, x, share = (v.float() for v in problem(8, 3072))
    fall, climb = reach(w, x)
    rise = torch.where(share < 0, -share * fall, share * climb)
    move = shortest_move(w * scale, rise * scale, norm, -x, 1 - x)
    torch.testing.assert_close((w.double() * move.double()).sum(1).float(), rise, rtol=1e-5, atol=0)
    assert shortest_move(w[:0], rise[:0], norm, -x[:0], 1 - x[:0]).shape == (0, 3072)


def test_other_norms_are_refused():
    with pytest.raises(UserError, match=r"^the way onto a hyperplane is known in Linf\(\), L2\(\) and L1\(\), got Lp\(p=3"):
        shortest_move(torch.ones(1, 2), torch.ones(1), Lp(3.0), -torch.ones(1, 2), torch.ones(1, 2))


def test_the_solver_knows_what_it_does():
    """One value may go .1, so the other goes the rest: by hand."""
    w, low, high = np.array([2.0, 1.0]), np.array([-1.0, -1.0]), np.array([0.1, 1.0])
    assert solved(w, 0.5, Linf(), low, high) == pytest.approx(0.3)
    assert solved(w, 0.5, L1(), low, high) == pytest.approx(0.4)
    assert solved(w, 0.5, L2(), low, high) == pytest.approx(np.hypot(0.1, 0.3))
