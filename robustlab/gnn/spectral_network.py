"""A network on the eigenvalues of the adjacency matrix, which treats them as a set."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from robustlab import seeding
from robustlab.gnn.ign import TensorNetwork
from robustlab.gnn.layers import drawn_linear, norm_of_graphs
from robustlab.gnn.networks import NETWORKS

SPREAD = 2.0  # standard deviation of the first frequencies


class SpectralNetwork(TensorNetwork):
    """``g(mean over i of cos(omega lambda_i / r + phi), r, 1 / n)`` with learned frequencies omega and phases phi, and two linear maps in
    g; values of graphs, ``(B, out)``. The scale ``r`` is the root of the mean degree and one more.

    The means are the characteristic function of the eigenvalues of the adjacency matrix, which tells all spectra apart. They are symmetric
    functions: every size of a graph will do, and gradients are defined where eigenvalues coincide.

    Args:
        out: values of each graph.
        width: channels.
        norm: of the means: ``batch`` is BatchNorm over the graphs of a batch, for graphs whose spectra differ by little; ``none``.
        seed: of the first weights.

    Raises:
        UserError: a size below 1, or another norm.
    """

    of_graphs = True

    def __init__(self, out: int, *, width: int = 64, norm: str = "none", seed: int = 0) -> None:
        super().__init__({"out": out, "features": 0, "width": width, "depth": 1})
        del self.settings["depth"]
        self.settings["norm"] = norm
        source = seeding.generator(seed, "weights")
        self.frequency = nn.Parameter(SPREAD * torch.randn(width, generator=source))
        self.phase = nn.Parameter(2 * math.pi * torch.rand(width, generator=source))
        self.norm = norm_of_graphs(norm, width + 2)
        self.outer, self.last = drawn_linear(width + 2, width, source), drawn_linear(width, out, source)

    def entries(self, n: int) -> int:
        return max(n**2, n * self.settings["width"])

    def on_tensors(self, x: Tensor) -> Tensor:
        n, adjacency = x.shape[-1], x[:, 0]
        r = (adjacency.sum((1, 2), keepdim=True) / n + 1).sqrt()[:, 0]
        values = torch.linalg.eigvalsh(adjacency) / r
        means = (values[:, :, None] * self.frequency + self.phase).cos().mean(1)
        return torch.cat([means, r, torch.full_like(r, 1 / n)], 1)

    def answers(self, read: Tensor) -> Tensor:
        found: Tensor = self.last(self.outer(self.norm(read)).relu())
        return found


NETWORKS["spectral"] = SpectralNetwork
