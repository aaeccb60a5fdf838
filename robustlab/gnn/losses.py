"""Losses of graph networks that do not depend on how communities are called."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import torch
from torch import Tensor

from robustlab.errors import UserError
from robustlab.extras import scipy_module
from robustlab.gnn.graphs import GraphBatch

ENUMERATED = 6  # communities up to which all ways to name them are looked at, k! of them


def best_names(costs: Tensor) -> Tensor:
    """The permutation with the smallest sum ``costs[b, a, names[b, a]]`` over ``a``: an assignment for each of ``B`` matrices.

    All permutations are tried for up to ``ENUMERATED`` rows, on the device; above that linear assignments are solved by scipy, on the CPU.

    Args:
        costs: ``(B, k, k)``.

    Returns:
        int64 ``(B, k)``.
    """
    k = costs.shape[1]
    if k <= ENUMERATED:
        every = _permutations(k).to(costs.device)
        sums = costs.detach()[:, torch.arange(k, device=costs.device), every].sum(2)  # (B, k!)
        return every[sums.argmin(1)]
    solve = scipy_module("optimize").linear_sum_assignment
    found = [torch.from_numpy(solve(matrix)[1]) for matrix in costs.detach().double().cpu().numpy()]
    return torch.stack(found).to(costs.device)


@cache
def _permutations(k: int) -> Tensor:
    return torch.tensor(list(permutations(range(k))))


def per_label(graphs: GraphBatch, values: Tensor) -> Tensor:
    """Sums over the nodes of each true label of each graph: from ``(N, k)`` to ``(B, k, k)``, the true label first.

    Raises:
        UserError: no label for each node, or a label outside 0 to ``k - 1``.
    """
    k = values.shape[1]
    if graphs.y is None or len(graphs.y) != graphs.n:
        raise UserError("the loss on communities needs the true label of each node in `y`")
    if graphs.y.device.type == "cpu" and len(graphs.y) and not (0 <= int(graphs.y.min()) and int(graphs.y.max()) < k):
        raise UserError(f"labels of {k} communities are 0 to {k - 1}, got {int(graphs.y.min())} to {int(graphs.y.max())}")
    sums = values.new_zeros(len(graphs) * k, k).index_add(0, graphs.graph * k + graphs.y, values)
    return sums.reshape(len(graphs), k, k)


def invariant_cross_entropy(graphs: GraphBatch, logits: Tensor) -> Tensor:
    """The cross-entropy of each graph's nodes, smallest over the ways to name the communities (Chen, Li and Bruna 2019, equation 3): as it
    sums over the nodes of each true label, the best names are a linear assignment.

    Args:
        graphs: with true labels ``y``, ``(N,)``, below ``k``.
        logits: ``(N, k)``.

    Returns:
        The mean over each graph's nodes, ``(B,)``.

    Raises:
        UserError: see ``per_label``.
    """
    costs = -per_label(graphs, logits.log_softmax(1))
    names = best_names(costs)
    return costs.gather(2, names[:, :, None]).sum((1, 2)) / graphs.sizes.clamp(min=1)


def invariant_overlap(graphs: GraphBatch, logits: Tensor) -> Tensor:
    """The overlap of each graph, as ``gnn.overlap`` has it, of the labels with the largest ``logits``: ``(B,)``, on their device.

    Raises:
        UserError: see ``per_label``.
    """
    k = logits.shape[1]
    hits = per_label(graphs, torch.nn.functional.one_hot(logits.detach().argmax(1), k).to(torch.float64))
    right = hits.gather(2, best_names(-hits)[:, :, None]).sum((1, 2)) / graphs.sizes.clamp(min=1)
    return (right - 1 / k) / (1 - 1 / k)
