"""Linear models written in other parameters, and a network that is not linear: the same functions, other paths of descent.

Every model keeps all parameters of a seed in one row, ``(S, P)``, so that one step rule moves them all.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.errors import UserError


class Model(ABC):
    """A homogeneous model of one output: ``f(c theta; x) = c^L f(theta; x)`` for ``c > 0``."""

    @property
    @abstractmethod
    def size(self) -> int:
        """``P``, the number of parameters."""

    @property
    @abstractmethod
    def degree(self) -> int:
        """``L``, the degree in the parameters."""

    @abstractmethod
    def outputs(self, theta: Tensor, X: Tensor) -> Tensor:
        """From parameters and examples ``(S, n, d)`` or ``(1, n, d)`` to outputs ``(S, n)``."""

    def pulled_back(self, theta: Tensor, X: Tensor, slope: Tensor) -> Tensor:
        """The gradient by the parameters, ``(S, P)``, of a loss whose derivative by the outputs is ``slope``, ``(S, n)``."""
        return _gradient(lambda leaf: self.outputs(leaf, X), theta, slope)

    def random(self, seeds: int, scale: float, first: int = 0) -> Tensor:
        """Normal parameters of standard deviation ``scale``, ``(seeds, P)``, float64; those of a seed are its own."""
        keys = seeding.example_keys(0, torch.arange(first, first + seeds))
        return scale * seeding.normal(seeding.fold(keys, "parameters"), (self.size,), torch.float64)


class Parametrization(Model):
    """Parameters of linear models: from ``theta``, ``(S, P)``, to weights, ``(S, d)``."""

    @abstractmethod
    def weights(self, theta: Tensor) -> Tensor:
        """The linear model's weights, ``(S, d)``; ``weights(c theta) = c^L weights(theta)``."""

    def back(self, theta: Tensor, slope: Tensor) -> Tensor:
        """The gradient by the parameters, ``(S, P)``, of a function whose gradient by the weights is ``slope``, ``(S, d)``."""
        return _gradient(self.weights, theta, slope)

    def outputs(self, theta: Tensor, X: Tensor) -> Tensor:
        w = self.weights(theta)
        return w @ X[0].T if len(X) == 1 else torch.bmm(X, w[:, :, None])[:, :, 0]

    def pulled_back(self, theta: Tensor, X: Tensor, slope: Tensor) -> Tensor:
        return self.back(theta, slope @ X[0] if len(X) == 1 else torch.bmm(slope[:, None], X)[:, 0])


@dataclass(frozen=True)
class Direct(Parametrization):
    """The weights themselves."""

    d: int

    @property
    def size(self) -> int:
        return self.d

    @property
    def degree(self) -> int:
        return 1

    def weights(self, theta: Tensor) -> Tensor:
        return theta

    def back(self, theta: Tensor, slope: Tensor) -> Tensor:
        return slope


@dataclass(frozen=True)
class Difference(Parametrization):
    """``w = u^k - v^k`` value by value: the diagonal network of depth k, which can take both signs (Woodworth et al. 2020)."""

    d: int
    depth: int = 2

    def __post_init__(self) -> None:
        check_depth(self.depth)

    @property
    def size(self) -> int:
        return 2 * self.d

    @property
    def degree(self) -> int:
        return self.depth

    def weights(self, theta: Tensor) -> Tensor:
        u, v = theta.split(self.d, 1)
        return u**self.depth - v**self.depth

    def back(self, theta: Tensor, slope: Tensor) -> Tensor:
        return self.depth * theta ** (self.depth - 1) * torch.cat([slope, -slope], 1)

    def start(self, seeds: int, alpha: float) -> Tensor:
        """``u = v = alpha``, so that the weights begin at zero: ``(seeds, P)``, float64."""
        return torch.full((seeds, self.size), alpha, dtype=torch.float64)


@dataclass(frozen=True)
class Product(Parametrization):
    """``w = u_1 u_2 ... u_k`` value by value."""

    d: int
    depth: int = 2

    def __post_init__(self) -> None:
        check_depth(self.depth)

    @property
    def size(self) -> int:
        return self.depth * self.d

    @property
    def degree(self) -> int:
        return self.depth

    def weights(self, theta: Tensor) -> Tensor:
        return self._factors(theta).prod(1)

    def back(self, theta: Tensor, slope: Tensor) -> Tensor:
        return (_others(self._factors(theta)) * slope[:, None]).flatten(1)

    def conserved(self, theta: Tensor) -> Tensor:
        """What gradient flow leaves as it is: ``u_l^2 - u_(l+1)^2``, ``(S, (k - 1) d)``."""
        return self._factors(theta).square().diff(dim=1).neg().flatten(1)

    def start(self, seeds: int, first: float, others: float) -> Tensor:
        """One factor at ``first`` and all others at ``others``: ``(seeds, P)``, float64. With both equal and above zero the weights
        never change their sign."""
        theta = torch.full((seeds, self.depth, self.d), others, dtype=torch.float64)
        theta[:, 0] = first
        return theta.flatten(1)

    def _factors(self, theta: Tensor) -> Tensor:
        return theta.reshape(len(theta), self.depth, self.d)


class Chain(Parametrization):
    """A product of matrices, ``W_1 W_2 ... W_k``, whose values row by row are the weights."""

    @property
    @abstractmethod
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each factor."""

    @property
    def size(self) -> int:
        return sum(rows * columns for rows, columns in self.shapes)

    @property
    def degree(self) -> int:
        return len(self.shapes)

    def factors(self, theta: Tensor) -> list[Tensor]:
        """The matrices, each ``(S, rows, columns)``."""
        parts = theta.split([math.prod(shape) for shape in self.shapes], 1)
        return [part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def weights(self, theta: Tensor) -> Tensor:
        return list(accumulate(self.factors(theta), torch.bmm))[-1].flatten(1)

    def back(self, theta: Tensor, slope: Tensor) -> Tensor:
        factors = self.factors(theta)
        before = list(accumulate(factors[:-1], torch.bmm))
        onwards, grads = slope.reshape(len(theta), self.shapes[0][0], self.shapes[-1][1]), []
        for factor, left in zip(factors[:0:-1], before[::-1], strict=True):
            grads.append(torch.bmm(left.mT, onwards).flatten(1))
            onwards = torch.bmm(onwards, factor.mT)
        return torch.cat([onwards.flatten(1), *grads[::-1]], 1)

    def conserved(self, theta: Tensor) -> Tensor:
        """What gradient flow leaves as it is: ``W_l^T W_l - W_(l+1) W_(l+1)^T``, all values in a row for each seed."""
        factors = self.factors(theta)
        pairs = zip(factors[:-1], factors[1:], strict=True)
        parts = [(a.mT @ a - b @ b.mT).flatten(1) for a, b in pairs]
        return torch.cat(parts, 1) if parts else theta.new_zeros(len(theta), 0)


@dataclass(frozen=True)
class MatrixProduct(Chain):
    """A matrix as a product: ``U V^T`` at depth 2 (Gunasekar et al. 2017), more factors beyond (Arora et al. 2019).

    The weights are its values, row by row.

    Attributes:
        rows, columns: of the matrix.
        depth: number of factors.
        inner: columns of all factors but the last, the largest rank that the product can have; no limit if left out.
    """

    rows: int
    columns: int
    depth: int = 2
    inner: int | None = None

    def __post_init__(self) -> None:
        check_depth(self.depth)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        sizes = [self.rows, *[self.inner or min(self.rows, self.columns)] * (self.depth - 1), self.columns]
        return tuple(zip(sizes[:-1], sizes[1:], strict=True))

    def matrix(self, theta: Tensor) -> Tensor:
        """The product, ``(S, rows, columns)``."""
        return self.weights(theta).reshape(-1, self.rows, self.columns)

    def start(self, seeds: int, alpha: float) -> Tensor:
        """Every factor ``alpha`` times the identity, as far as its shape goes: ``(seeds, P)``, float64. On symmetric examples the two
        factors of depth 2 stay each other's transpose, so the product never has a negative eigenvalue."""
        eyes = [alpha * torch.eye(*shape, dtype=torch.float64).flatten() for shape in self.shapes]
        return torch.cat(eyes).expand(seeds, -1).clone()


@dataclass(frozen=True)
class LinearNetwork(Chain):
    """A fully connected network without activations: ``w^T = W_L ... W_1``.

    Attributes:
        widths: of the inputs and of each hidden layer; one number is the linear model itself.
    """

    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1:
            raise UserError(f"a linear network needs the widths of its inputs and hidden layers, each at least 1, got {self.widths}")

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        sizes = [1, *self.widths[::-1]]
        return tuple(zip(sizes[:-1], sizes[1:], strict=True))


@dataclass(frozen=True)
class CircularConvolution(Parametrization):
    """A convolutional network without activations, with filters as long as the input and ends that meet (Gunasekar et al. 2018b):
    ``h_l[i] = d^-1/2 sum_k w_l[k] h_(l-1)[(i + k) mod d]``, the last layer fully connected.

    Its weights have the spectrum ``w_1^ w_2^ ... w_L^``, of discrete Fourier transforms that keep lengths.
    """

    d: int
    depth: int = 2

    def __post_init__(self) -> None:
        check_depth(self.depth)

    @property
    def size(self) -> int:
        return self.depth * self.d

    @property
    def degree(self) -> int:
        return self.depth

    def spectra(self, theta: Tensor) -> Tensor:
        """Of each layer, at frequencies from zero: complex, ``(S, L, d // 2 + 1)``."""
        return torch.fft.rfft(theta.reshape(len(theta), self.depth, self.d), norm="ortho")

    def weights(self, theta: Tensor) -> Tensor:
        return torch.fft.irfft(self.spectra(theta).prod(1), self.d, norm="ortho")

    def back(self, theta: Tensor, slope: Tensor) -> Tensor:
        others = _others(self.spectra(theta)).conj()
        return torch.fft.irfft(others * torch.fft.rfft(slope, norm="ortho")[:, None], self.d, norm="ortho").flatten(1)

    def conserved(self, theta: Tensor) -> Tensor:
        """What gradient flow leaves as it is: ``|w_l^|^2 - |w_(l+1)^|^2`` at each frequency, in a row for each seed."""
        return self.spectra(theta).abs().square().diff(dim=1).neg().flatten(1)


@dataclass(frozen=True)
class Homogeneous(Parametrization):
    """Any function from parameters to weights with ``w(c theta) = c^L w(theta)``, differentiated automatically.

    Attributes:
        function: from ``(S, P)`` to ``(S, d)``, differentiable, each seed by itself.
        parameters: ``P``.
        power: ``L``.

    Raises:
        UserError: the function is not homogeneous of that degree.
    """

    function: Callable[[Tensor], Tensor]
    parameters: int
    power: int

    def __post_init__(self) -> None:
        check_depth(self.power)
        theta = self.random(3, 1.0)
        once, doubled = self.function(theta), self.function(2 * theta)
        if not torch.allclose(doubled, 2**self.power * once, rtol=1e-6, atol=1e-6 * float(once.abs().max())):
            raise UserError(f"the function is not homogeneous of degree {self.power}: doubled parameters must give {2**self.power} times w")

    @property
    def size(self) -> int:
        return self.parameters

    @property
    def degree(self) -> int:
        return self.power

    def weights(self, theta: Tensor) -> Tensor:
        return self.function(theta)


@dataclass(frozen=True)
class ReLUNetwork(Model):
    """``f(x) = sum_j a_j max(0, <w_j, x>)``: two layers without biases, homogeneous of degree 2 and not linear in ``x``.

    A row of parameters holds all ``w_j``, then all ``a_j``.
    """

    d: int
    width: int

    @property
    def size(self) -> int:
        return self.width * (self.d + 1)

    @property
    def degree(self) -> int:
        return 2

    def outputs(self, theta: Tensor, X: Tensor) -> Tensor:
        hidden, a = self._hidden(theta, X)
        return torch.bmm(hidden.clamp(min=0), a[:, :, None])[:, :, 0]

    def pulled_back(self, theta: Tensor, X: Tensor, slope: Tensor) -> Tensor:
        hidden, a = self._hidden(theta, X)
        by_a = torch.bmm(slope[:, None], hidden.clamp(min=0))[:, 0]
        by_hidden = slope[:, :, None] * a[:, None] * (hidden > 0)
        return torch.cat([torch.bmm(by_hidden.mT, X.expand(len(theta), -1, -1)).flatten(1), by_a], 1)

    def _hidden(self, theta: Tensor, X: Tensor) -> tuple[Tensor, Tensor]:
        w, a = theta.split([self.width * self.d, self.width], 1)
        return torch.bmm(X.expand(len(theta), -1, -1), w.reshape(-1, self.width, self.d).mT), a


def check_depth(depth: int) -> None:
    """Refuse a depth below 1.

    Raises:
        UserError: with the value.
    """
    if depth < 1:
        raise UserError(f"the depth must be at least 1, got {depth}")


def _others(factors: Tensor) -> Tensor:
    """For each of some factors, ``(S, k, d)``, the product of all the others; nothing is divided, so zeros do no harm."""
    if factors.shape[1] == 2:
        return factors.flip(1)
    ones = torch.ones_like(factors[:, :1])
    before = torch.cat([ones, factors[:, :-1]], 1).cumprod(1)
    after = torch.cat([ones, factors.flip(1)[:, :-1]], 1).cumprod(1).flip(1)
    return before * after


def _gradient(function: Callable[[Tensor], Tensor], theta: Tensor, slope: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        leaf = theta.detach().clone().requires_grad_()
        (grad,) = torch.autograd.grad(function(leaf), leaf, slope)
    return grad
