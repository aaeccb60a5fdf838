"""The exact distance of a point from the decision boundary of a small ReLU network in the pixel box, by integer and quadratic programs."""

from __future__ import annotations

from functools import partial
from itertools import product

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp, nnls
from torch import Tensor, nn

from robustlab.norms import L1, L2, AttackNorm

Array = np.ndarray


class TwoLayers(nn.Module):
    """Two classes, told apart by the sign of ``<v, relu(W x + b)> + c``."""

    def __init__(self, inputs: int, hidden: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        draw = {"generator": generator, "dtype": torch.float64}
        self.w = nn.Parameter(torch.randn(hidden, inputs, **draw))
        self.b = nn.Parameter(-self.w.detach() @ torch.rand(inputs, **draw))  # each unit bends somewhere in the box
        self.v = nn.Parameter(torch.randn(hidden, **draw))
        inside = torch.rand(999, inputs, **draw)
        with torch.no_grad():
            self.c = nn.Parameter(-((inside @ self.w.T + self.b).relu() @ self.v).median())

    def score(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.w.T + self.b).relu() @ self.v + self.c

    def forward(self, x: Tensor) -> Tensor:
        score = self.score(x)
        return torch.stack([-score, score], 1)


def distance(model: TwoLayers, x: Tensor, norm: AttackNorm) -> float:
    """How far the point ``x``, shape ``(D,)``, is from the nearest of the other class."""
    w, b, v, c = (p.detach().numpy() for p in (model.w, model.b, model.v, model.c))
    sign = -1 if float(model.score(x[None]).detach()) > 0 else 1
    solve = _by_regions if isinstance(norm, L2) else partial(_by_integers, summed=isinstance(norm, L1))
    return solve(w, b, sign * v, sign * c, x.numpy())


def _by_integers(w: Array, b: Array, v: Array, c: Array, point: Array, summed: bool) -> float:
    """The nearest point where ``<v, relu(W z + b)> + c >= 0``, in L1 or Linf, by HiGHS.

    Unknown are the point ``z``, the units' values ``h`` with a 0-1 number ``on`` for each, the sizes ``t`` of the changes, and the
    distance.
    """
    units, size = w.shape
    low, high = np.minimum(w, 0).sum(1) + b, np.maximum(w, 0).sum(1) + b  # of the units before the ReLU, in the box
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    widths = {"z": size, "h": units, "on": units, "t": size, "distance": 1}

    def rows(**parts: Array) -> Array:
        count = len(next(iter(parts.values())))
        return np.hstack([parts.get(name, np.zeros((count, width))) for name, width in widths.items()])

    constraints = [
        LinearConstraint(rows(z=-w, h=np.eye(units)), b, np.inf),  # h >= W z + b
        LinearConstraint(rows(h=np.eye(units), on=-np.diag(high)), -np.inf, 0),  # h <= high on
        LinearConstraint(rows(z=-w, h=np.eye(units), on=-np.diag(low)), -np.inf, b - low),  # h <= W z + b - low (1 - on)
        LinearConstraint(rows(h=v[None]), -c, np.inf),
        *(LinearConstraint(rows(z=side * np.eye(size), t=-np.eye(size)), -np.inf, side * point) for side in (1, -1)),  # |z - x| <= t
    ]
    sums = np.ones((1, size)) if summed else np.eye(size)
    constraints.append(LinearConstraint(rows(t=sums, distance=-np.ones((len(sums), 1))), -np.inf, 0))
    kinds = rows(on=np.ones((1, units)))[0]
    box = Bounds(0 * kinds, np.r_[np.ones(size), high, np.ones(units + size), size])
    found = milp(rows(distance=np.ones((1, 1)))[0], constraints=constraints, integrality=kinds, bounds=box, options={"mip_rel_gap": 1e-9})
    assert found.success
    return float(found.fun)


def _by_regions(w: Array, b: Array, v: Array, c: Array, point: Array) -> float:
    """The same in L2: in a region where the same units are on, the nearest point is that of a quadratic program; all are solved."""
    best = np.inf
    for flips in np.array(list(product((-1, 1), repeat=len(w)))):
        on = flips > 0
        across, offset = (v * on) @ w, (v * on) @ b + c
        change = _shortest(
            np.vstack([flips[:, None] * w, across, np.eye(len(point)), -np.eye(len(point))]),
            np.r_[-flips * (w @ point + b), -offset - across @ point, -point, point - 1],
        )
        best = min(best, float(np.linalg.norm(change)))
    return best


def _shortest(a: Array, b: Array) -> Array:
    """The shortest ``u`` with ``a u >= b``, by non-negative least squares (Lawson and Hanson 1974, chapter 23); infinite where none is."""
    matrix, target = np.vstack([a.T, b]), np.r_[np.zeros(a.shape[1]), 1]
    weights, _ = nnls(matrix, target)
    rest = matrix @ weights - target
    none = np.full(a.shape[1], np.inf)
    if rest[-1] > -1e-12:
        return none
    shortest = -rest[:-1] / rest[-1]
    return shortest if (a @ shortest >= b - 1e-9).all() else none
