"""Ring-GNN: equivariant layers that are multiplied as matrices (Chen, Villar, Chen and Bruna 2019).

B1 = rho(L_a(A)),   B2 = rho(L_b(A) L_g(A)),   A' = k1 B1 + k2 B2
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustlab import seeding
from robustlab.errors import UserError, unknown
from robustlab.gnn.equivariant import EquivariantLinear
from robustlab.gnn.ign import TensorNetwork
from robustlab.gnn.layers import drawn_linear
from robustlab.gnn.networks import NETWORKS

READOUTS = ("moments", "eigenvalues")


class RingLayer(nn.Module):
    """``k1 rho(L_a(A)) + k2 rho(L_b(A) L_g(A) / n)``, the product taken for each channel; 17 parameters in each L for a pair of channels.

    The product is a sum over n nodes. Divided by n, its weights suit every size; the paper has k2 = 0.5 over the mean size, too.

    Args:
        fan_in, fan_out: channels.
        source: random numbers of the first weights.

    Raises:
        UserError: no channels, or weights that do not fit memory.
    """

    def __init__(self, fan_in: int, fan_out: int, *, source: torch.Generator | None = None) -> None:
        super().__init__()
        self.alone, self.left, self.right = (EquivariantLinear(2, 2, fan_in, fan_out, source=source) for _ in range(3))
        self.k1, self.k2 = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """From ``(B, fan_in, n, n)`` to ``(B, fan_out, n, n)``."""
        product = self.left(x) @ self.right(x) / x.shape[-1]
        return self.k1 * self.alone(x).relu() + self.k2 * product.relu()


def sums(x: Tensor) -> Tensor:
    """Of each matrix the mean of all entries and of the diagonal: from ``(B, C, n, n)`` to ``(B, C, 2)``."""
    return torch.stack([x.mean((2, 3)), x.diagonal(dim1=2, dim2=3).mean(2)], 2)


def moments(x: Tensor, most: int) -> Tensor:
    """Moments of the spectra of matrices A, centred as ``P A P`` with P = I - 1/n, of which the largest eigenvalue would say all else:
    ``arsinh(tr (P A P / s)^t / n)`` for t = 2 to ``most``, with ``s^2 = (|P A P|^2 + 1e-6 |A|^2) / n``, so that rounding does not pass for
    a spectrum; and first ``s / sqrt(n)``. ``(B, C, most)``.

    Each trace is the sum over the eigenvalues of one function, so its gradient is defined where eigenvalues coincide, and it exists for
    every n. A need not be symmetric.
    """
    centred, n = x - x.mean(2, keepdim=True), x.shape[-1]
    centred = centred - centred.mean(3, keepdim=True)
    square = centred.square().mean((2, 3), keepdim=True) + 1e-6 * x.square().mean((2, 3), keepdim=True)
    size = (square + torch.finfo(x.dtype).eps ** 2).sqrt()
    powers = [centred / (size * math.sqrt(n))]
    while 2 * len(powers) < most:
        powers.append(powers[-1] @ powers[0])
    pairs = [(powers[t // 2 - 1], powers[t - t // 2 - 1]) for t in range(2, most + 1)]
    traces = [((a * b.transpose(2, 3)).sum((2, 3)) / n).asinh() for a, b in pairs]
    return torch.stack([size[:, :, 0, 0], *traces], 2)


def sorted_eigenvalues(x: Tensor) -> Tensor:
    """Eigenvalues of ``(A + A^T) / 2`` over n, the smallest first: ``(B, C, n)``. The gradient of one of them is not defined where it
    coincides with another: which one is found depends on the numbers of the nodes."""
    return torch.linalg.eigvalsh((x + x.transpose(2, 3)) / 2) / x.shape[-1]


class RingGNN(TensorNetwork):
    """Ring layers, and a linear map of what is read from the last matrices ``A``; values of graphs, ``(B, out)``.

    ``eigenvalues`` is the published readout: ``theta_S sum A + theta_D tr A + sum_i theta_i lambda_i``, over n^2, n and n. A weight for
    each eigenvalue fixes the number of nodes, and its gradient is not defined where eigenvalues coincide. A need not be symmetric: the
    eigenvalues are those of ``(A + A^T) / 2``. ``moments`` has the function ``moments`` in place of them, for graphs of every size.

    Args:
        out: values of each graph.
        width: channels of each layer.
        readout: ``moments`` or ``eigenvalues``.
        powers: largest power of ``moments``, 2 to 20.
        nodes: of every graph, where the readout is ``eigenvalues``; else 0.
        features: of each node, on diagonals beside the adjacency matrix; with 0 that alone goes in.
        seed: of the first weights.

    Raises:
        UserError: a size below 1, another readout, or ``nodes`` where the readout has none or the other way round.
    """

    of_graphs = True

    def __init__(
        self,
        out: int,
        *,
        width: Sequence[int] = (64, 64),
        readout: str = "moments",
        powers: int = 6,
        nodes: int = 0,
        features: int = 0,
        seed: int = 0,
    ) -> None:
        width = tuple(width)
        for each in width or (0,):
            super().__init__({"out": out, "features": features, "width": each, "depth": len(width)})
        _check_readout(readout, powers, nodes)
        del self.settings["depth"]
        self.settings |= {"width": width, "readout": readout, "powers": powers, "nodes": nodes}
        source, widths = seeding.generator(seed, "weights"), [1 + features, *width]
        self.layers = nn.ModuleList(RingLayer(a, b, source=source) for a, b in zip(widths, widths[1:], strict=False))
        self.last = drawn_linear((2 + (powers if readout == "moments" else nodes)) * width[-1], out, source)

    def on_tensors(self, x: Tensor) -> Tensor:
        nodes, n = self.settings["nodes"], x.shape[-1]
        if nodes and n != nodes:
            raise UserError(f"the readout `eigenvalues` was made for graphs of {nodes} nodes, got one of {n}: `moments` takes every size")
        for layer in self.layers:
            x = layer(x)
        read = sorted_eigenvalues(x) if nodes else moments(x, self.settings["powers"])
        found: Tensor = self.last(torch.cat([sums(x), read], 2).flatten(1))
        return found


def _check_readout(readout: str, powers: int, nodes: int) -> None:
    if readout not in READOUTS:
        raise unknown("readout", readout, READOUTS)
    if not 2 <= powers <= 20:
        raise UserError(f"`powers` must be 2 to 20, got {powers}")
    if readout == "eigenvalues" and not 1 <= nodes <= 10_000:
        raise UserError(f"the readout `eigenvalues` wants the `nodes` of every graph, 1 to 10,000, got {nodes}")
    if readout == "moments" and nodes:
        raise UserError(f"the readout `moments` takes graphs of every size: leave out `nodes`, got {nodes}")


NETWORKS["ring"] = RingGNN
