"""How near parameters of a homogeneous model are to a stationary point of ``min ‖theta‖`` over ``y_n f(theta; x_n) >= 1``.

There may be many such points, so there is no solution to compare with: what is measured are the conditions of Karush, Kuhn and Tucker
themselves (Lyu and Li 2020; in norms other than L2 Tsilivis et al. 2025).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.linear_bias.certificates import margins
from robustlab.linear_bias.parametrizations import Model
from robustlab.linear_bias.problems import Problem
from robustlab.linear_bias.separators import separator
from robustlab.linear_bias.solvers import scipy_optimize
from robustlab.norms import L2, Norm


def tangent(model: Model, theta: Tensor, problem: Problem) -> Problem:
    """The linear problem of a model at a point: its examples are the gradients of the outputs by the parameters, ``(S, n, P)``."""
    X = problem.X.expand(len(theta), -1, -1)
    rows = [model.pulled_back(theta, X[:, n : n + 1], theta.new_ones(len(theta), 1)) for n in range(problem.n)]
    return Problem(torch.stack(rows, 1), problem.y.expand(len(theta), -1))


def normalized_margin(model: Model, theta: Tensor, problem: Problem, norm: Norm | None = None) -> Tensor:
    """``min_n y_n f(theta; x_n) / ‖theta‖^L``, ``(S,)``.

    Args:
        model: of degree L.
        theta: ``(S, P)``.
        problem: two classes, labelled -1 and 1.
        norm: of the parameters; L2 if left out.
    """
    smallest = (model.outputs(theta, problem.X) * problem.y).amin(1)
    return smallest / (norm or L2()).measure(theta) ** model.degree


def smoothed_margin(model: Model, theta: Tensor, problem: Problem, norm: Norm | None = None) -> Tensor:
    """``log(1 / loss) / ‖theta‖^L`` of the exponential loss, ``(S,)``: at most the normalized margin. Where the loss is below 1, steepest
    descent of small steps never lowers it (Lyu and Li 2020, theorem 4.1; for any norm Tsilivis et al. 2025).

    Args:
        model, theta, problem, norm: as in ``normalized_margin``.
    """
    log_loss = torch.logsumexp(-model.outputs(theta, problem.X) * problem.y, 1)
    return -log_loss / (norm or L2()).measure(theta) ** model.degree


def kkt_residual(model: Model, theta: Tensor, problem: Problem, *, band: float = 0.02, radius: float = 0.0, draws: int = 64) -> Tensor:
    """``min ‖theta - sum_n a_n y_n grad f(x_n)‖ / ‖theta‖`` over ``a >= 0``, ``(S,)``: zero at stationary points in L2, at most 1.

    Args:
        band: the sum is over support vectors, the examples of a margin at most that share above the smallest.
        radius: of a ball around ``theta``, as a share of its norm. Where it is above 0, an example's gradient may be any mixture of those
            met in the ball, Goldstein's subdifferential. A ReLU network comes to rest on its kinks, where one gradient is not enough.
        draws: of points in the ball.

    Raises:
        UserError: parameters that do not separate the classes.
    """
    outputs = model.outputs(theta, problem.X) * problem.y
    refuse_unseparated(outputs)
    support = outputs <= (1 + band) * outputs.amin(1, keepdim=True)
    near = [theta] if not radius else [theta, *_around(theta, radius, draws)]
    rows = torch.stack([tangent(model, point, problem).signed for point in near], 1)  # (S, points, n, P)
    units = theta / L2().measure(theta)[:, None]
    found = []
    for G, on, unit in zip(rows, support, units, strict=True):
        columns = G[:, on].flatten(0, 1).T.numpy()
        columns = columns / np.linalg.norm(columns, axis=0).clip(min=np.finfo(float).tiny)
        found.append(scipy_optimize().nnls(columns, unit.numpy(), maxiter=100 * columns.shape[1])[1])
    return torch.tensor(found, dtype=theta.dtype)


def _around(theta: Tensor, radius: float, draws: int) -> Tensor:
    """Points at the distance ``radius ‖theta‖``, ``(draws, S, P)``."""
    keys = seeding.example_keys(0, torch.arange(draws))
    step = L2().steepest(seeding.normal(seeding.fold(keys, "around"), (theta.shape[1],), torch.float64))
    return theta + radius * L2().measure(theta)[:, None] * step[:, None]


def tangent_gap(model: Model, theta: Tensor, problem: Problem, norm: Norm, *, radius: float = 0.0, draws: int = 64) -> Tensor:
    """By which share the smallest margin would grow, to the first order, at the best other parameters of the same norm, ``(S,)``: the gap
    of ``theta`` to the largest margin of ``tangent`` in ``norm``. Zero exactly at stationary points, in any norm; it needs no band.

    Args:
        radius, draws: of points whose gradients count too, see ``kkt_residual``.

    Raises:
        UserError: parameters that do not separate the classes; a norm without a solver.
    """
    refuse_unseparated(model.outputs(theta, problem.X) * problem.y)
    linear = tangent(model, theta, problem)
    reached = margins(linear, theta, norm)
    if radius:
        every = [linear, *(tangent(model, point, problem) for point in _around(theta, radius, draws))]
        linear = Problem(torch.cat([one.X for one in every], 1), torch.cat([one.y for one in every], 1))
    return 1 - reached / separator(linear, norm).margin


def rank_one_defect(matrix: Tensor) -> Tensor:
    """``1 - s_1^2 / sum s^2`` of the singular values of matrices ``(S, rows, columns)``: zero at rank one, ``(S,)``."""
    squares = torch.linalg.svdvals(matrix).square()
    return squares[:, 1:].sum(1) / squares.sum(1)


def refuse_unseparated(margins: Tensor) -> None:
    """Refuse margins ``(S, n)`` of which one is not above zero.

    Raises:
        UserError: with the smallest margin.
    """
    smallest = margins.amin(1)
    if not (smallest > 0).all():
        which = int(smallest.argmin())
        count = int((~(smallest > 0)).sum())
        raise UserError(
            f"{count} of {len(smallest)} models do not separate their classes yet (model {which} has the margin {smallest[which]:.3g}): "
            "more steps, or a larger start"
        )
