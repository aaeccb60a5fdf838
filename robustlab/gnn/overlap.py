"""How well found communities agree with true ones: the overlap, its chance level, and the best matching of names."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.extras import scipy_module
from robustlab.gnn.graphs import GraphBatch


def confusion(found: Tensor, true: Tensor, k: int) -> Tensor:
    """How many nodes have each pair of a found and a true label: int64 ``(k, k)``.

    Raises:
        UserError: another number of labels, or a label outside 0 to ``k - 1``.
    """
    if found.shape != true.shape:
        raise UserError(f"found and true labels must be as many, got {len(found)} and {len(true)}")
    for labels in (found, true):
        if len(labels) and not (0 <= int(labels.min()) and int(labels.max()) < k):
            raise UserError(f"labels of {k} communities are 0 to {k - 1}, got {int(labels.min())} to {int(labels.max())}")
    return torch.bincount(found * k + true, minlength=k * k).reshape(k, k)


def agreement(found: Tensor, true: Tensor, k: int) -> float:
    """The share of nodes with the right label when the found labels are renamed as well as can be: a linear assignment."""
    counts = confusion(found, true, k)
    rows, columns = scipy_module("optimize").linear_sum_assignment(counts.numpy(), maximize=True)
    return float(counts[rows, columns].sum()) / max(len(true), 1)


def overlap(graphs: GraphBatch, found: Tensor, k: int) -> Tensor:
    """``(agreement - 1/k) / (1 - 1/k)`` for each graph, float64 ``(B,)``: 1 for the true communities, about 0 for one community only.

    Labels at random score above 0, since names are chosen afterwards: see ``chance``.

    Args:
        graphs: with true labels ``y``, ``(N,)``.
        found: labels, int64 ``(N,)``.
        k: communities, at least 2.

    Raises:
        UserError: no true labels, or labels that do not fit.
    """
    if k < 2:
        raise UserError(f"the overlap needs at least two communities, got {k}")
    if graphs.y is None or len(graphs.y) != graphs.n:
        raise UserError("the overlap needs the true label of each node in `y`")
    bounds = graphs.starts.tolist()
    shares = [agreement(found[low:high], graphs.y[low:high], k) for low, high in zip(bounds, bounds[1:], strict=False)]
    return (torch.tensor(shares, dtype=torch.float64) - 1 / k) / (1 - 1 / k)


def chance(graphs: GraphBatch, k: int, draws: int = 20, seed: int = 0) -> float:
    """The mean overlap of ``k`` labels drawn at random, over ``graphs`` and ``draws`` from a ``seed``: what no method should be praised
    for."""
    keys = seeding.example_keys(seed, torch.arange(draws))
    found = [overlap(graphs, seeding.integers(key.reshape(1), k, (graphs.n,))[0], k).mean() for key in keys]
    return float(torch.stack(found).mean())
