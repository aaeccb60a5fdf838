"""Linear problems to learn from, one for each seed: examples, targets, and where they come from."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustlab import seeding
from robustlab.data.archive import Archive
from robustlab.errors import UserError
from robustlab.norms import Norm
from robustlab.paths import place_of
from robustlab.subsets import restricted


@dataclass(frozen=True, eq=False)
class Problem:
    """Examples and targets, one problem for each seed.

    Attributes:
        X: examples, float64 ``(S, n, d)``; ``(1, n, d)`` where all seeds share them.
        y: targets, float64 ``(S, n)`` or ``(1, n)``: real numbers to fit, labels -1 and 1, or class numbers from 0.

    Raises:
        UserError: other shapes, no examples, or a number that is not finite.
    """

    X: Tensor
    y: Tensor

    def __post_init__(self) -> None:
        if self.X.ndim != 3 or self.y.shape != self.X.shape[:2]:
            shapes = f"{tuple(self.X.shape)} and {tuple(self.y.shape)}"
            raise UserError(f"a problem needs X of shape (seeds, n, d) and y of shape (seeds, n), got {shapes}")
        if 0 in self.X.shape:
            raise UserError(f"a problem needs at least one example of one value, got X of shape {tuple(self.X.shape)}")
        for name, values in (("X", self.X), ("y", self.y)):
            if not values.isfinite().all():
                seed, row = (~values.isfinite()).nonzero()[0, :2].tolist()
                raise UserError(f"{name} must be finite, but example {self._place(seed, row)} is not")

    def __repr__(self) -> str:
        count = self.y.shape[0]
        return f"{type(self).__name__}({f'{count} of ' * (count > 1)}{self.n} examples of {self.d} values)"

    def _place(self, seed: int, row: int) -> str:
        """Which example, in words."""
        return f"{row} of problem {seed}" if len(self.y) > 1 else f"{row}"

    @property
    def n(self) -> int:
        """The number of examples."""
        return self.X.shape[1]

    @property
    def d(self) -> int:
        """The number of values of an example."""
        return self.X.shape[2]

    @property
    def two_classes(self) -> bool:
        """Whether the targets are labels -1 and 1, and every problem has both."""
        return bool((self.y.abs() == 1).all() and ((self.y == 1).any(1) & (self.y == -1).any(1)).all())

    @property
    def signed(self) -> Tensor:
        """The rows ``y_n x_n`` of a problem with two classes, ``(S, n, d)``: a separator has a positive product with each.

        Raises:
            UserError: labels other than -1 and 1, one class only, or an example that is all zero.
        """
        self.check_labels()
        if not self.X.any(2).all():
            seed, row = (~self.X.any(2)).nonzero()[0].tolist()
            raise UserError(f"example {self._place(seed, row)} is all zero: no separator has a margin there")
        return self.X * self.y[..., None]

    def check_labels(self) -> None:
        """Refuse targets that are not those of two classes.

        Raises:
            UserError: labels other than -1 and 1, or one class only.
        """
        if not (self.y.abs() == 1).all():
            raise UserError(f"two classes need the labels -1 and 1, got {sorted(set(self.y.flatten().tolist()))[:5]}")
        if not ((self.y == 1).any(1) & (self.y == -1).any(1)).all():
            raise UserError("a margin needs examples of both classes, and a problem has one class only")

    @property
    def digest(self) -> str:
        """Hexadecimal SHA-256 of all numbers."""
        return hashlib.sha256(self.X.numpy().tobytes() + self.y.numpy().tobytes() + repr(tuple(self.X.shape)).encode()).hexdigest()

    def at(self, index: Tensor) -> Problem:
        """The problems of some of the seeds."""
        return self if len(self.X) == 1 else Problem(*restricted((self.X, self.y), index))

    @property
    def zeros(self) -> Tensor:
        """Weights of zero, ``(S, d)``."""
        return self.X.new_zeros(len(self.X), self.d)

    def sizes(self, norm: Norm) -> Tensor:
        """The norm of each example, ``(S, n)``."""
        return norm.measure(self.X.flatten(0, 1)).reshape(self.X.shape[:2])

    def outputs(self, w: Tensor) -> Tensor:
        """``X w`` for each seed: from weights ``(S, d)`` to ``(S, n)``."""
        if len(self.X) == 1:
            return w @ self.X[0].T
        return torch.bmm(self.X, w[:, :, None])[:, :, 0]

    def pulled_back(self, slope: Tensor) -> Tensor:
        """``X^T slope`` for each seed: from ``(S, n)`` to ``(S, d)``."""
        if len(self.X) == 1:
            return slope @ self.X[0]
        return torch.bmm(slope[:, None], self.X)[:, 0]


def problem(X: Any, y: Any) -> Problem:
    """One problem from arrays of one's own.

    Args:
        X: examples, ``(n, d)``: a tensor, an array or nested lists.
        y: targets, ``(n,)``. Labels of two classes may also be False and True, or 0 and 1 if they are whole numbers of an integer type;
            they become -1 and 1. All other values stay as they are.

    Raises:
        UserError: values that are not numbers, other shapes, no examples, or a number that is not finite.
    """
    try:
        examples, targets = _tensor(X), _tensor(y)
    except (TypeError, ValueError, RuntimeError):
        raise UserError("X and y must be arrays of numbers") from None
    if examples.ndim != 2 or targets.shape != examples.shape[:1]:
        raise UserError(f"X must have the shape (n, d) and y (n,), got {tuple(examples.shape)} and {tuple(targets.shape)}")
    return Problem(examples.double()[None], labels(targets)[None])


def labels(targets: Tensor) -> Tensor:
    """Targets in float64; labels False and True, or 0 and 1 of an integer type, become -1 and 1."""
    whole = not targets.is_floating_point()
    targets = targets.double()
    return 2 * targets - 1 if whole and set(targets.tolist()) == {0.0, 1.0} else targets


def zeros(problem: Problem) -> Tensor:
    """Weights to start from, all zero: ``(S, d)``."""
    return problem.zeros


def _tensor(values: Any) -> Tensor:
    """Through NumPy, whose numbers in lists are float64, where torch's are float32."""
    return values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))


def read_problem(path: str | os.PathLike[str]) -> Problem:
    """One problem from an ``.npz`` file with arrays ``X``, ``(n, d)``, and ``y``, ``(n,)``; see ``problem``.

    Raises:
        UserError: no such file, no such arrays, or others than these.
    """
    place = place_of(path)
    with Archive(place) as archive:
        X, y = archive.first(("x",)), archive.first(("y",))
    for name, values in (("X", X), ("y", y)):
        if values.dtype.kind not in "biuf":
            raise UserError(f"{place}: {name} must hold numbers, got {values.dtype}")
    try:
        return problem(X.astype(np.float64), y if y.dtype.kind in "biu" else y.astype(np.float64))
    except UserError as error:
        raise UserError(f"{place}: {error}") from None


def regression(seeds: int, n: int, d: int, *, nonzero: int | None = None, noise: float = 0.0, first: int = 0) -> Problem:
    """Normal examples and targets ``X w + noise``, one problem for each seed.

    Args:
        seeds: how many problems.
        n, d: examples, and values of each; fewer examples than values leave many solutions.
        nonzero: how many values of the true ``w`` are not zero; they are 1 or -1. All of them, from a normal distribution, if left out.
        noise: standard deviation of what is added to the targets.
        first: the first seed.
    """
    keys = seeding.example_keys(0, torch.arange(first, first + seeds))
    X = seeding.normal(seeding.fold(keys, "X"), (n, d), torch.float64)
    w = seeding.normal(seeding.fold(keys, "w"), (d,), torch.float64)
    if nonzero is not None:
        order = seeding.uniform(seeding.fold(keys, "order"), (d,), torch.float64).argsort(1)
        w = torch.zeros_like(w).scatter_(1, order[:, :nonzero], w.gather(1, order[:, :nonzero]).sign())
    y = torch.bmm(X, w[:, :, None])[:, :, 0] + noise * seeding.normal(seeding.fold(keys, "noise"), (n,), torch.float64)
    return Problem(X, y)


def separable(seeds: int, n: int, d: int, *, margin: float = 0.0, first: int = 0) -> Problem:
    """Normal examples with labels from a random direction, one problem for each seed; separable by construction.

    Args:
        seeds: how many problems.
        n, d: examples, and values of each.
        margin: how far the examples are moved apart along the direction.
        first: the first seed.
    """
    keys = seeding.example_keys(0, torch.arange(first, first + seeds))
    X = seeding.normal(seeding.fold(keys, "X"), (n, d), torch.float64)
    w = seeding.normal(seeding.fold(keys, "w"), (d,), torch.float64)
    w = w / torch.linalg.vector_norm(w, dim=1, keepdim=True)
    score = torch.bmm(X, w[:, :, None])[:, :, 0]
    # The halves of the scores around their median, so that there are always two classes.
    middle = score.sort(1).values[:, (n - 1) // 2 : (n - 1) // 2 + 2].mean(1, keepdim=True) if n > 1 else score - 1
    y = torch.where(score > middle, 1.0, -1.0).double()
    X = X - middle[..., None] * w[:, None] + margin * y[..., None] * w[:, None]
    return Problem(X, y)
