"""Two Gaussian classes: what maximum likelihood learns with and without an adversary, in closed form (Ilyas et al. 2019, section 4).

Labels are -1 and 1, and ``x | y ~ N(y mean, covariance)``; what is learned classifies by the sign of ``<x, covariance^-1 mean>``. With
``z = y x`` there is one Gaussian only. Everything is float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.linear_bias.problems import problem


@dataclass(frozen=True, eq=False)
class Gaussian:
    """``z ~ N(mean, covariance)``, a model of both classes.

    Attributes:
        mean: ``(d,)``.
        covariance: symmetric and positive definite, ``(d, d)``.

    Raises:
        UserError: other shapes, or no covariance.
    """

    mean: Tensor
    covariance: Tensor

    def __post_init__(self) -> None:
        d = len(self.mean)
        shapes = f"{tuple(self.mean.shape)} and {tuple(self.covariance.shape)}"
        if self.mean.ndim != 1 or self.covariance.shape != (d, d):
            raise UserError(f"a Gaussian needs a mean (d,) and a covariance (d, d), got shapes {shapes}")
        if not torch.allclose(self.covariance, self.covariance.T) or not (torch.linalg.eigvalsh(self.covariance) > 0).all():
            raise UserError("a covariance must be symmetric and positive definite")

    @classmethod
    def fit(cls, X: Any, y: Any) -> Gaussian:
        """Maximum likelihood for examples: mean and covariance of ``y x``. ``robust_likelihood`` of it is the exact fit to these examples
        under an adversary.

        Args:
            X: examples, ``(n, d)``: a tensor, an array or nested lists.
            y: labels -1 and 1, or False and True, or 0 and 1 of an integer type, ``(n,)``.

        Raises:
            UserError: other shapes or labels, a number that is not finite, or too few examples for a covariance.
        """
        data = problem(X, y)
        if not (data.y.abs() == 1).all():
            raise UserError(f"two classes need the labels -1 and 1, got {sorted(set(data.y.flatten().tolist()))[:5]}")
        z = data.X[0] * data.y[0][:, None]
        mean, covariance = z.mean(0), z.T.cov(correction=0).reshape(data.d, data.d)
        values = torch.linalg.eigvalsh(covariance)
        if not values[0] > 1e-12 * values[-1]:
            raise UserError(f"{data.n} examples of {data.d} values have no covariance that can be inverted: more examples, or fewer values")
        return cls(mean, covariance)

    @classmethod
    def from_axes(cls, mean: list[float], variances: list[float], angle: float = 0.0) -> Gaussian:
        """In the plane, from the variances along its axes and the angle of the first axis in radians."""
        turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
        covariance = turn @ torch.diag(torch.tensor(variances, dtype=torch.float64)) @ turn.T
        return cls(torch.tensor(mean, dtype=torch.float64), covariance)

    @property
    def weights(self) -> Tensor:
        """The classifier's weights ``covariance^-1 mean``, ``(d,)``: its gradient by the input, everywhere."""
        return torch.linalg.solve(self.covariance, self.mean)

    @property
    def alignment(self) -> float:
        """The cosine between the gradient and the mean, from one class to the other."""
        return float(self.weights @ self.mean / (self.weights.norm() * self.mean.norm()))

    @property
    def condition(self) -> float:
        """The largest eigenvalue of the covariance over the smallest."""
        values = torch.linalg.eigvalsh(self.covariance)
        return float(values[-1] / values[0])

    @property
    def worst_alignment(self) -> float:
        """The smallest cosine between a mean and the gradient that it leads to, over all means: ``2 sqrt(c) / (1 + c)`` with the condition
        number ``c`` (Kantorovich's inequality)."""
        return 2 * math.sqrt(self.condition) / (1 + self.condition)

    def draw(self, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """``n`` examples ``(n, d)`` with labels -1 and 1, ``(n,)``, each as likely."""
        coins = seeding.uniform(seeding.fold(seeding.example_keys(seed, torch.arange(n)), "label"), (1,), torch.float64)[:, 0]
        y = torch.where(coins < 0.5, -1.0, 1.0).double()
        return self.sample(n, seed) * y[:, None], y

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """``n`` draws of ``z = y x``, ``(n, d)``."""
        noise = seeding.normal(seeding.example_keys(seed, torch.arange(n)), (len(self.mean),), torch.float64)
        return self.mean + noise @ torch.linalg.cholesky(self.covariance).T

    def accuracy(self, weights: Tensor, eps: float = 0.0) -> float:
        """The share of examples that a linear classifier gets right when each is moved by ``eps`` in L2 against it."""
        return linear_accuracy(weights @ self.mean - eps * weights.norm(), (weights @ self.covariance @ weights).sqrt())

    def smoothed(self, sigma: float) -> Gaussian:
        """What maximum likelihood learns when noise of standard deviation ``sigma`` is added to the examples: the covariance blends with
        the identity, as it does under an adversary. That is why randomized smoothing works here."""
        return Gaussian(self.mean, self.covariance + sigma**2 * torch.eye(len(self.mean), dtype=torch.float64))


def linear_accuracy(margin: Tensor, deviation: Tensor) -> float:
    """The share of positive draws from a normal distribution."""
    return float(torch.special.ndtr(margin / deviation))


@dataclass(frozen=True, eq=False)
class RobustFit:
    """What is learned under an adversary.

    Attributes:
        learned: mean and covariance.
        multiplier: the adversary's price of a squared step.
    """

    learned: Gaussian
    multiplier: float


def robust_likelihood(true: Gaussian, eps: float) -> RobustFit:
    """Maximum likelihood against an adversary with the *average* budget ``E ‖delta‖^2 <= eps^2``, in closed form (theorem 2).

    The mean stays, and every eigenvalue s of the covariance becomes ``s/2 + 1/m + sqrt(s/m + s^2/4)`` with the multiplier m at which the
    budget is spent: ``sum s / (m s' - 1)^2 = eps^2``. The covariance blends with the identity as eps grows.

    Args:
        true: the distribution.
        eps: in units of the data. The paper's theorem 2 states ranges for m in which its eps stands for a squared budget.

    Raises:
        UserError: a negative eps.
    """
    if eps < 0:
        raise UserError(f"eps must be at least 0, got {eps:g}")
    if eps == 0:
        return RobustFit(true, math.inf)
    values, axes = torch.linalg.eigh(true.covariance)
    spectrum = values.tolist()

    def too_much(exponent: float) -> bool:
        # Every m s' - 1 is m (s/2 + sqrt(s/m + s^2/4)).
        m = math.exp(exponent)
        return sum(s / (m * (s / 2 + math.sqrt(s / m + s * s / 4))) ** 2 for s in spectrum) > eps**2

    multiplier = math.exp(_bisect(too_much, -200.0, 200.0))
    learned = axes @ torch.diag(blended(values, multiplier)) @ axes.T
    return RobustFit(Gaussian(true.mean, (learned + learned.T) / 2), multiplier)


def blended(variances: Tensor, multiplier: Tensor | float) -> Tensor:
    """What becomes of variances under an adversary who pays ``multiplier`` for a squared step: ``s/2 + 1/m + sqrt(s/m + s^2/4)``."""
    return variances / 2 + 1 / multiplier + (variances / multiplier + variances**2 / 4).sqrt()


def pointwise_likelihood(z: Tensor, eps: float) -> Gaussian:
    """Maximum likelihood against an adversary that moves *every* example by ``eps``.

    What is learned are the mean and the covariance of the moved examples themselves (Danskin's theorem). There is no closed form; that of
    ``robust_likelihood`` with another multiplier comes near. The loss has a kink wherever an example passes the mean across a thin axis, so
    the answer is exact to about ``eps`` over the number of examples.

    Args:
        z: examples times their labels, ``(n, d)``, float64; see ``Gaussian.sample``.
        eps: in units of the data.

    Raises:
        UserError: a negative eps, or too few examples for a covariance.
    """
    if eps < 0:
        raise UserError(f"eps must be at least 0, got {eps:g}")
    found = Gaussian.fit(z, torch.ones(len(z)))
    if not eps:
        return found
    here, share = _Attacked.at(z, found, eps), 1.0
    while share > 1e-4:
        there = here.model.mean + share * here.off, here.model.covariance + share * (here.wanted - here.model.covariance)
        tried = _Attacked.at(z, Gaussian(*there), eps)
        if tried.loss < here.loss - 1e-12:
            here, share = tried, min(1.0, 2 * share)
        else:
            share /= 2
    return here.model


@dataclass(frozen=True, eq=False)
class _Attacked:
    """A model, what it loses when every example is moved by eps against it, and what the moved examples have themselves: how far their mean
    is off the model's, and their covariance around it. The step from the one to the other is the natural gradient: it leads down."""

    model: Gaussian
    loss: float
    off: Tensor
    wanted: Tensor

    @classmethod
    def at(cls, z: Tensor, model: Gaussian, eps: float) -> _Attacked:
        values, axes = torch.linalg.eigh(model.covariance)
        centred = (z - model.mean) @ axes
        moved = centred + strongest_step(centred, values, eps)
        loss = float((moved.square() / values).sum(1).mean() + values.log().sum()) / 2
        wanted = axes @ (moved.T @ moved / len(z)) @ axes.T
        return cls(model, loss, axes @ moved.mean(0), (wanted + wanted.T) / 2)


def strongest_step(centred: Tensor, variances: Tensor, eps: float) -> Tensor:
    """The step of L2 length ``eps`` that raises ``sum (x_i + delta_i)^2 / variances_i`` the most, ``(n, d)``: a trust-region problem,
    solved by Newton's method for its multiplier (Moré and Sorensen 1983).

    Args:
        centred: examples around the mean, in the axes of the covariance, ``(n, d)``; no value of the first axis is zero.
        variances: along the axes, ``(d,)``.
        eps: the length.
    """
    if eps == 0:
        return torch.zeros_like(centred)
    metric = 1 / variances
    pull, below = metric * centred, metric.amax() - metric
    # Of the multiplier the part above the largest of the metric: it cannot be less than where that axis alone has the length.
    extra = (pull[:, metric.argmax()].abs() / eps)[:, None]
    for _ in range(30):
        step = pull / (extra + below)
        length = step.norm(dim=1, keepdim=True)
        slope = (step.square() / (extra + below)).sum(1, keepdim=True) / length**2
        change = (length - eps) / eps / slope
        extra = extra + change
        if float((change / extra).abs().amax()) < 1e-14:
            break
    return pull / (extra + below)


def lagrangian_excess(true: Gaussian, price: float) -> float:
    """How much an adversary who pays ``price * ‖delta‖^2`` raises the expected Mahalanobis distance of what standard maximum likelihood
    learned, and so twice its loss: ``tr (I + (price Sigma - I)^-1)^2 - d`` (theorem 1). Of all covariances of one trace, a multiple of
    the identity has the least.

    Raises:
        UserError: a price at which no step is too long to pay off: it must exceed one over the smallest eigenvalue.
    """
    values = torch.linalg.eigvalsh(true.covariance)
    if not price * float(values[0]) > 1:
        raise UserError(f"the price must exceed one over the smallest eigenvalue, {1 / float(values[0]):.4g}, got {price:g}")
    return float(((1 + 1 / (price * values - 1)) ** 2 - 1).sum())


def lagrangian_step(true: Gaussian, price: float, z: Tensor) -> Tensor:
    """The steps of that adversary: ``(price Sigma - I)^-1 (z - mean)``, for examples ``(n, d)``."""
    eye = torch.eye(len(true.mean), dtype=torch.float64)
    return torch.linalg.solve(price * true.covariance - eye, (z - true.mean).T).T


def best_robust_weights(true: Gaussian, eps: float) -> Tensor:
    """The linear classifier of the largest accuracy when every example is moved by ``eps`` in L2 (Bhagoji et al. 2019; Dan et al. 2020):
    that of the mean moved as far as it may be towards zero, in the metric of the covariance.

    Raises:
        UserError: eps reaches from the mean to zero, where no classifier is better than chance.
    """
    if eps >= float(true.mean.norm()):
        raise UserError(f"eps must be smaller than the length of the mean, {float(true.mean.norm()):.4g}, got {eps:g}")
    values, axes = torch.linalg.eigh(true.covariance)
    mean = axes.T @ true.mean

    def too_long(exponent: float) -> bool:
        return float((mean / (1 + math.exp(exponent) * values)).norm()) > eps

    moved = mean / (1 + math.exp(_bisect(too_long, -200.0, 200.0)) * values) if eps else torch.zeros_like(mean)
    return axes @ ((mean - moved) / values)


def averaging_accuracy(d: int, shift: float, eps: float = 0.0) -> float:
    """In the example of Tsipras et al. 2019, the accuracy of the mean of ``d`` features ``N(y shift, 1)``, each moved by ``eps``."""
    return linear_accuracy(torch.tensor((shift - eps) * math.sqrt(d)).double(), torch.tensor(1.0).double())


def one_and_average_accuracy(strength: float, sure: float, d: int, shift: float, eps: float = 0.0) -> float:
    """In the example of Tsipras et al. 2019, the accuracy of a linear classifier of one strong feature and of the mean of the weak ones.

    Args:
        strength: weight of the strong feature; ``sqrt(d)`` times the mean of the weak ones has the weight 1.
        sure: the probability that the strong feature is ``y``; else it is ``-y``.
        d, shift: number of weak features ``N(y shift, 1)``, and their shift.
        eps: how far every feature is moved.
    """
    one = torch.tensor([strength * (1 - eps), -strength * (1 + eps)], dtype=torch.float64)
    right = torch.special.ndtr(one + (shift - eps) * math.sqrt(d))
    return float(sure * right[0] + (1 - sure) * right[1])


def sampled_mean_accuracy(d: int, sigma: float, n: int, eps: float = 0.0) -> float:
    """In the model of Schmidt et al. 2018, ``N(y theta, sigma^2 I)`` with ``theta`` of entries 1 and -1, the accuracy of the mean of ``n``
    examples of ``d`` values and deviation ``sigma`` when each value is moved by ``eps``: in the limit of many values, where norms are
    what they are on average."""
    s = sigma / math.sqrt(n)
    folded = s * math.sqrt(2 / math.pi) * math.exp(-1 / (2 * s * s)) + math.erf(1 / (s * math.sqrt(2)))  # E |1 + s g|
    return linear_accuracy(torch.tensor(d - eps * d * folded).double(), torch.tensor(sigma * math.sqrt(d * (1 + s * s))).double())


def examples_needed(d: int, sigma: float, eps: float = 0.0, accuracy: float = 0.99) -> int:
    """The smallest number of examples whose mean reaches an ``accuracy``; for the other arguments see ``sampled_mean_accuracy``.

    Raises:
        UserError: no number does.
    """
    if not sampled_mean_accuracy(d, sigma, 10**9, eps) >= accuracy:
        raise UserError(f"no number of examples reaches an accuracy of {accuracy:g} at d = {d}, sigma = {sigma:g}, eps = {eps:g}")
    low, high = 0, 1
    while sampled_mean_accuracy(d, sigma, high, eps) < accuracy:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if sampled_mean_accuracy(d, sigma, middle, eps) >= accuracy else (middle, high)
    return high


def _bisect(too_small: Callable[[float], bool], low: float, high: float) -> float:
    """The point up to which a condition is true, to the last digit."""
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if too_small(middle) else (low, middle)
    return (low + high) / 2
