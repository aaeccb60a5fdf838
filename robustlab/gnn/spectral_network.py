"""A network on the eigenvalues of the adjacency matrix, which treats them as a set."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import silu

from robustlab import seeding
from robustlab.gnn.ign import TensorNetwork
from robustlab.gnn.layers import drawn_linear
from robustlab.gnn.networks import NETWORKS


class SpectralNetwork(TensorNetwork):
    """``g(mean over i of f(lambda_i), 1 / n)`` with two linear maps in each of f and g, ``(B, out)``: a symmetric function of the
    eigenvalues of the adjacency matrix, over the root of n. It takes every size, and its gradient is defined where eigenvalues coincide.
    Between the maps of f is SiLU: with ReLU, f is linear between few bends, and spectra that differ there only would have one mean.

    Args:
        out: values of each graph.
        width: channels.
        seed: of the first weights.

    Raises:
        UserError: a size below 1.
    """

    of_graphs = True

    def __init__(self, out: int, *, width: int = 64, seed: int = 0) -> None:
        super().__init__({"out": out, "features": 0, "width": width, "depth": 1})
        del self.settings["depth"]
        source = seeding.generator(seed, "weights")
        self.inner = torch.nn.ModuleList([drawn_linear(1, width, source), drawn_linear(width, width, source)])
        self.outer, self.last = drawn_linear(width + 1, width, source), drawn_linear(width, out, source)

    def on_tensors(self, x: Tensor) -> Tensor:
        values = torch.linalg.eigvalsh(x[:, 0])[:, :, None] / x.shape[-1] ** 0.5
        each = self.inner[1](silu(self.inner[0](values)))
        size = each.new_full((len(each), 1), 1 / x.shape[-1])
        found: Tensor = self.last(self.outer(torch.cat([each.mean(1), size], 1)).relu())
        return found


NETWORKS["spectral"] = SpectralNetwork
