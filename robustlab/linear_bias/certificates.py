"""Numbers that need no solver: margins, how far at most a separator is from the best one, and how a path grows."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustlab.errors import UserError
from robustlab.linear_bias.descent import Path
from robustlab.linear_bias.losses import MarginLoss
from robustlab.linear_bias.problems import Problem
from robustlab.norms import Norm


def largest(problem: Problem, norm: Norm) -> Tensor:
    """The largest *dual* norm of an example, ``B``, shape ``(S,)`` or ``(1,)``: scaled steepest descent in ``norm`` on the logarithm of the
    exponential loss may take steps of ``1 / B^2``."""
    return problem.sizes(norm.dual).amax(1)


def margins(problem: Problem, w: Tensor, norm: Norm) -> Tensor:
    """The smallest margin ``min_n y_n <w, x_n> / ‖w‖`` of each seed, ``(S,)``; negative where ``w`` does not separate, zero for ``w = 0``.

    Args:
        w: ``(S, d)``.
    """
    size = norm.measure(w)
    return (problem.outputs(w) * problem.y).amin(1) / torch.where(size > 0, size, 1)


def mixed(problem: Problem, mixture: Tensor, norm: Norm) -> Tensor:
    """The dual norm of a mixture of the rows ``y_n x_n``, ``(S,)``: no margin in ``norm`` exceeds it.

    Args:
        mixture: weights of the examples, ``(S, n)``, at least 0 and of sum 1.
    """
    return norm.dual.measure(problem.pulled_back(mixture * problem.y))


def bound(problem: Problem, w: Tensor, norm: Norm) -> Tensor:
    """A number that no margin in ``norm`` exceeds, ``(S,)``: the dual norm of a mixture of the rows ``y_n x_n``, for every mixture.

    The mixture is the one on which descent puts its weight at ``w``, ``softmax(-margins)``, the best of several sharpnesses. In L1 and
    Linf, where the weight moves from example to example for ever, the mean of what descent met is better by far: ``MeanMixture``.
    """
    outputs = problem.outputs(w) * problem.y
    sharpnesses = torch.logspace(-3, 3, 25, dtype=w.dtype)
    return torch.stack([mixed(problem, torch.softmax(-sharpness * outputs, 1), norm) for sharpness in sharpnesses]).amin(0)


def certified_gap(problem: Problem, w: Tensor, norm: Norm, mixture: Tensor | None = None) -> Tensor:
    """How far the margin of ``w`` is at most below the largest one, as a share of it: ``1 - margin / bound``, shape ``(S,)``.

    No solver is asked, so this holds for problems of any size. Where there is no separator, bounds are as small as rounding and the number
    means nothing.

    Args:
        w: ``(S, d)``.
        mixture: weights of the examples, ``(S, n)``, at least 0 and of sum 1, if better ones than ``bound`` tries are known, such as
            ``MeanMixture.mean``.
    """
    best = bound(problem, w, norm)
    if mixture is not None:
        best = torch.minimum(best, mixed(problem, mixture, norm))
    return 1 - margins(problem, w, norm) / best


@dataclass(eq=False)
class MeanMixture:
    """The objective of linear models that remembers, for a certificate, on which examples descent put its weight.

    The gradient of a loss of margins is a mixture of rows, times a number. Their mean, in which the step with the number t counts t times,
    so that the first ones are forgotten, is the mixture of a tight bound, in L1 and Linf too.

    Attributes:
        problem: with two classes.
        loss: of margins.
    """

    problem: Problem
    loss: MarginLoss
    _total: Tensor | None = field(default=None, repr=False)
    _steps: int = field(default=0, repr=False)

    def __call__(self, w: Tensor) -> Tensor:
        return self.loss.value(self.problem.outputs(w), self.problem.y)

    def with_gradient(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and its gradient by the weights; adds to the mean."""
        outputs, y = self.problem.outputs(w), self.problem.y
        value, rise = self.loss.of_and_rise(outputs * y)
        self._steps += 1
        added = rise * (-self._steps / rise.sum(1, keepdim=True).abs())
        self._total = added if self._total is None else self._total + added
        return value, self.problem.pulled_back(rise * y)

    @property
    def mean(self) -> Tensor:
        """The mean mixture so far, ``(S, n)``.

        Raises:
            UserError: no step was taken.
        """
        if self._total is None:
            raise UserError("no step was taken yet: give the objective to `descend` first")
        return self._total / self._total.sum(1, keepdim=True)


def log_slope(path: Path, first: int, last: int | None = None) -> Tensor:
    """``(w(last) - w(first)) / log(last / first)``, ``(S, d)``: where weights grow like ``w* log t``, this is ``w*`` long before the
    direction of the weights is (Soudry et al. 2018, theorem 3).

    Args:
        first, last: numbers of steps at which the path was kept; the end if ``last`` is left out.

    Raises:
        UserError: numbers that were not kept, or in another order.
    """
    last = path.moments[-1] if last is None else last
    for moment in (first, last):
        if moment not in path.moments:
            raise UserError(f"the path was not kept after {moment} steps: name it in `keep` of `descend`")
    if not 0 < first < last:
        raise UserError(f"a slope needs a first number of steps above 0 and a larger last one, got {first} and {last}")
    start, end = (path.points[path.moments.index(moment)] for moment in (first, last))
    return (end - start) / math.log(last / first)


def path_length(path: Path) -> Tensor:
    """How long each path is at least up to each moment, ``(T, S)``: the L2 length of the line through the points that were kept."""
    steps = torch.linalg.vector_norm(path.points.diff(dim=0).flatten(2), dim=2)
    return torch.cat([steps.new_zeros(1, steps.shape[1]), steps.cumsum(0)])
