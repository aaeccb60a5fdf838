"""Margins at size: sparse examples by the ten thousand, in the optimizers and certificates of small problems.

    from robustlab import linear_bias as lb

    data = lb.text_like(10_000, 100_000)
    objective = lb.MeanMixture(data, lb.LogExponential())
    path = lb.descend(objective, lb.zeros(data), lb.DualAcceleration(1 / lb.largest(data, lb.L2()) ** 2), 2_000, keep=())
    print(lb.certified_gap(data, path.last, lb.L2(), objective.mean))

A step costs one product with the matrix and one with its transpose, which is kept too: both are read along their rows.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustlab import seeding
from robustlab.constraints import ConstraintSet
from robustlab.errors import UserError
from robustlab.linear_bias.problems import Problem, labels
from robustlab.norms import L1, L2, Linf, Lp, Norm

LARGEST_INDEX = 2**31 - 1  # indices of 32 bits make products twice as fast


@dataclass(frozen=True, eq=False, repr=False)
class SparseProblem(Problem):
    """One problem with sparse examples; objectives, optimizers and certificates take it as they take any other.

    Attributes:
        X: examples, float64 ``(n, d)`` in torch's layout ``sparse_csr``; ``sparse_problem`` makes it.
        y: targets, float64 ``(1, n)``.

    Raises:
        UserError: other shapes, no examples, or a number that is not finite.
    """

    _transposed: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.X.layout != torch.sparse_csr or self.X.ndim != 2 or self.y.shape != (1, self.X.shape[0]):
            shapes = f"{tuple(self.X.shape)} and {tuple(self.y.shape)}"
            raise UserError(f"a sparse problem needs X of shape (n, d) in the layout sparse_csr and y of shape (1, n), got {shapes}")
        if 0 in self.X.shape:
            raise UserError(f"a problem needs at least one example of one value, got X of shape {tuple(self.X.shape)}")
        for name, values in (("X", self.X.values()), ("y", self.y)):
            if not values.isfinite().all():
                raise UserError(f"{name} must be finite")
        object.__setattr__(self, "_transposed", _transposed(self.X))

    @property
    def n(self) -> int:
        return self.X.shape[0]

    @property
    def d(self) -> int:
        return self.X.shape[1]

    @property
    def nonzeros(self) -> int:
        """How many values are kept."""
        return len(self.X.values())

    @property
    def nbytes(self) -> int:
        """What the examples take in memory, once: values and indices, without the transpose."""
        return sum(part.nbytes for part in (self.X.values(), self.X.col_indices(), self.X.crow_indices()))

    @property
    def zeros(self) -> Tensor:
        return self.X.values().new_zeros(1, self.d)

    @property
    def digest(self) -> str:
        parts = (self.X.crow_indices(), self.X.col_indices(), self.X.values(), self.y)
        return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts) + repr(tuple(self.X.shape)).encode()).hexdigest()

    @property
    def signed(self) -> Tensor:
        """The rows ``y_n x_n`` of a problem with two classes, sparse ``(n, d)``.

        Raises:
            UserError: labels other than -1 and 1, one class only, or an example that is all zero.
        """
        self.check_labels()
        rows, values = _rows(self.X), self.X.values()
        empty = torch.zeros(self.n, dtype=torch.bool).index_fill_(0, rows[values != 0], True).logical_not_().nonzero()
        if len(empty):
            raise UserError(f"example {int(empty[0])} is all zero: no separator has a margin there")
        return _csr(self.X.crow_indices(), self.X.col_indices(), values * self.y[0, rows], self.X.shape)

    def at(self, index: Tensor) -> SparseProblem:
        return self

    def outputs(self, w: Tensor) -> Tensor:
        return (self.X @ w[0])[None] if w.shape[0] == 1 else (self.X @ w.T).T

    def pulled_back(self, slope: Tensor) -> Tensor:
        return (self._transposed @ slope[0])[None] if slope.shape[0] == 1 else (self._transposed @ slope.T).T

    def sizes(self, norm: Norm) -> Tensor:
        """The norm of each example, ``(1, n)``.

        Raises:
            UserError: a norm that is not one of the values alone, in any order.
        """
        if not isinstance(norm, (L1, L2, Linf, Lp)):
            raise UserError(f"sparse examples can be measured in L1, L2, Linf and Lp, got {norm!r}")
        counts = self.X.crow_indices().diff().tolist()
        return torch.cat([norm.measure(row[None]) for row in self.X.values().split(counts)])[None]


def sparse_problem(X: Any, y: Any) -> SparseProblem:
    """One problem from sparse examples.

    Args:
        X: ``(n, d)``, a sparse tensor or a sparse matrix of scipy.
        y: targets, ``(n,)``; see ``linear_bias.problem``.

    Raises:
        UserError: examples that are not sparse, other shapes, no examples, too many of them, or a number that is not finite.
    """
    if hasattr(X, "tocsr"):
        found = X.tocsr().sorted_indices()
        parts = (torch.as_tensor(found.indptr), torch.as_tensor(found.indices), torch.as_tensor(found.data))
    elif isinstance(X, Tensor) and X.layout != torch.strided and X.ndim == 2:
        with _csr_is_known():
            found = X.to_sparse_csr()
        parts = (found.crow_indices(), found.col_indices(), found.values())
    else:
        raise UserError("X must be a sparse tensor of two dimensions or a sparse matrix of scipy")
    try:
        targets = torch.as_tensor(y if isinstance(y, Tensor) else np.asarray(y))  # torch would make float32 of lists
    except (TypeError, ValueError, RuntimeError):
        raise UserError("y must be an array of numbers") from None
    if max(len(parts[1]), *X.shape) > LARGEST_INDEX:
        raise UserError(f"at most {LARGEST_INDEX} values can be kept, got {len(parts[1])}")
    return SparseProblem(_csr(*parts, X.shape), labels(targets)[None])


def text_like(n: int = 10_000, d: int = 100_000, *, words: int = 80, noise: float = 0.05, seed: int = 0) -> SparseProblem:
    """Documents of two classes as bags of words: separable by construction, about 6.5e5 non-zeros at the default size.

    A document has one word of its own, and others of frequencies like 1 / rank (Zipf 1949). Some words belong to a class: a document of the
    other class replaces half of them. Values are ``log(1 + count)`` times the inverse document frequency, in rows of L2 norm 1. The
    words of their own separate all documents, also those whose label is wrong.

    Args:
        n: documents; half of them of each class.
        d: words, more than documents.
        words: the mean length of a document; the lengths are exponentially distributed, up to four times that.
        noise: the share of documents whose label is wrong.
        seed: of all draws.

    Raises:
        UserError: no two documents, or no words to share.
    """
    if n < 2 or d <= n:
        raise UserError(f"at least two documents and more words than documents are needed, got {n} and {d}")
    y = torch.where(torch.arange(n) % 2 == 0, 1.0, -1.0).double()
    counts = _counts(y, d - n, words, seed)
    row, word, count = counts
    row = torch.cat([row, torch.arange(n)])
    word = torch.cat([word, d - n + torch.arange(n)])
    values = torch.log1p(torch.cat([count, torch.ones(n, dtype=count.dtype)]).double())
    values = values * (n / torch.bincount(word, minlength=d)[word]).log1p()
    length = torch.zeros(n, dtype=torch.float64).index_add_(0, row, values.square()).sqrt()
    keys = seeding.example_keys(seed, torch.arange(n))
    wrong = seeding.uniform(seeding.fold(keys, "wrong"), (), torch.float64) < noise
    with _csr_is_known():
        X = torch.sparse_coo_tensor(torch.stack([row, word]), values / length[row], (n, d), check_invariants=True)
        return sparse_problem(X, torch.where(wrong, -y, y))


def _counts(y: Tensor, d: int, words: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Document, word and count of all words that are shared."""
    keys = seeding.example_keys(seed, torch.arange(len(y)))
    belongs = seeding.integers(seeding.fold(seeding.example_keys(seed, torch.arange(d)), "class"), 3) - 1  # -1, 0 or 1
    longest = 4 * words
    length = (-words * torch.log1p(-seeding.uniform(seeding.fold(keys, "length"), (), torch.float64))).clamp(5, longest)
    word = _zipf(seeding.uniform(seeding.fold(keys, "word"), (longest,), torch.float64), d)
    other = _zipf(seeding.uniform(seeding.fold(keys, "other word"), (longest,), torch.float64), d)
    replaced = (belongs[word] == -y[:, None]) & (seeding.uniform(seeding.fold(keys, "replaced"), (longest,)) < 0.5)
    word = torch.where(replaced, other, word)
    kept = torch.arange(longest) < length[:, None]
    place = (torch.arange(len(y))[:, None] * d + word)[kept]
    place, count = place.unique(return_counts=True)
    return place // d, place % d, count


def _zipf(u: Tensor, d: int) -> Tensor:
    """Ranks from 0 with a frequency of ``log(1 + 1 / (rank + 1))``, nearly ``1 / rank``, from uniform numbers."""
    return ((u * math.log(d + 1)).exp().long() - 1).clamp(0, d - 1)


@dataclass(frozen=True)
class GameAcceleration:
    """The largest L1 margin as a game, accelerated: the gap falls like ``1/t`` (Wang et al. 2023, after Rakhlin and Sridharan 2013).

    One player mixes examples, the other values with signs, and both weigh exponentially what they met. For linear models under
    ``LogExponential``, whose gradient is the first player's mixture if the weights are the sum of the second one's plays; that the last
    play comes again is what the first one expects. ``MeanMixture`` keeps its mean for the certificate.

    Attributes:
        step_size: of the weights, for the player of examples.
        rate: of the player of values. The product of both is safe at one over the largest value of an example, squared. Where no value
            is large in many examples far more is faster: on ``text_like()`` 1e5 times that, while 2e5 times finds no separator.
    """

    step_size: float
    rate: float

    def init(self, x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """The sum of the gradients, and of the plays; zero at first."""
        return torch.zeros_like(x), torch.zeros_like(x)

    def step(
        self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        summed, played = state[0] + grad, state[1]
        play = self.step_size * hedged(-self.rate * summed)
        played = played + play
        return constraint.project(played + play), (summed, played)


def hedged(gains: Tensor) -> Tensor:
    """Exponential weights of all values with both signs, as one vector of L1 norm at most 1: ``sinh(gains) / sum cosh(gains)``, by row."""
    largest = gains.abs().amax(1, keepdim=True)
    up, down = (gains - largest).exp(), (-gains - largest).exp()
    return (up - down) / (up + down).sum(1, keepdim=True)


def _csr(starts: Tensor, columns: Tensor, values: Tensor, shape: Any) -> Tensor:
    with _csr_is_known():
        return torch.sparse_csr_tensor(starts.int(), columns.int(), values.double(), tuple(shape), check_invariants=True)


def _rows(X: Tensor) -> Tensor:
    return torch.repeat_interleave(torch.arange(X.shape[0]), X.crow_indices().diff())


def _transposed(X: Tensor) -> Tensor:
    order = X.col_indices().sort(stable=True).indices
    starts = torch.bincount(X.col_indices(), minlength=X.shape[1]).cumsum(0)
    starts = torch.cat([starts.new_zeros(1), starts])
    return _csr(starts, _rows(X)[order], X.values()[order], X.shape[::-1])


class _csr_is_known(warnings.catch_warnings):
    """Torch calls the layout beta, once."""

    def __enter__(self) -> Any:
        found = super().__enter__()
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return found
