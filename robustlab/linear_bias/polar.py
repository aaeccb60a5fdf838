"""The polar factor of a matrix by a few products: what Muon takes in place of ``U V^T``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.errors import UserError, unknown

# From singular values s to a s + b s^3 + c s^5. Muon's quintic brings small ones up fast and never settles; the cubic converges to 1.
COEFFICIENTS = {"quintic": (3.4445, -4.7750, 2.0315), "cubic": (1.5, -0.5, 0.0)}


@dataclass(frozen=True)
class NewtonSchulz:
    """Directions for ``Steepest`` near those of ``Spectral()``: the gradient over its Frobenius norm, after some Newton-Schulz steps, each
    of which turns every singular value ``s`` into ``a s + b s^3 + c s^5`` (Jordan et al. 2024, Muon).

    Attributes:
        steps: how many.
        coefficients: "quintic", Muon's, which leaves singular values between .7 and 1.2; or "cubic", which converges to 1, slowly where
            they are small.

    Raises:
        UserError: a name that is not known, or a number of steps below 0.
    """

    steps: int = 5
    coefficients: str = "quintic"

    def __post_init__(self) -> None:
        if self.coefficients not in COEFFICIENTS:
            raise unknown("set of coefficients", self.coefficients, COEFFICIENTS)
        if self.steps < 0:
            raise UserError(f"`steps` must be at least 0, got {self.steps}")

    def steepest(self, g: Tensor) -> Tensor:
        """From gradients ``(B, rows, columns)`` to approximate polar factors; zero stays zero."""
        if g.ndim != 3:
            raise UserError(f"a polar factor needs one matrix for each example, (B, rows, columns), got shape {tuple(g.shape)}")
        a, b, c = COEFFICIENTS[self.coefficients]
        scale = g.abs().amax((1, 2), keepdim=True)
        x = g / torch.where(scale > 0, scale, 1)  # so that no square underflows
        length = torch.linalg.matrix_norm(x, keepdim=True)
        x = x / torch.where(length > 0, length, 1)
        wide = x if g.shape[1] <= g.shape[2] else x.mT
        for _ in range(self.steps):
            square = wide @ wide.mT
            wide = a * wide + (b * square + c * square @ square) @ wide
        return wide if g.shape[1] <= g.shape[2] else wide.mT
