"""Faster stand-ins for a model, for searching: BatchNorm folded into convolutions, channels_last, bfloat16, compiled.

What is found on a stand-in counts only after a float32 forward pass of the model itself, see ``robustlab.evaluation``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from robustlab.models.folding import Folded, structure


def accelerate(model: nn.Module, *, dtype: torch.dtype | None = None, channels_last: bool = True, compile: bool = False) -> StandIn:
    """A copy of ``model`` that runs faster in evaluation mode; the model itself is not touched.

    Args:
        dtype: ``torch.bfloat16`` computes in it; images and logits stay in the caller's dtype.
        channels_last: keep images in the memory layout that convolutions like best.
        compile: pass the copy through ``torch.compile``; the first calls then take much longer.

    Raises:
        UserError: the model cannot be copied.
    """
    return StandIn(model, dtype=dtype, channels_last=channels_last, compile=compile)


class StandIn(nn.Module):
    """A faster copy of a model, see ``accelerate``; it casts images on the way in and logits on the way out.

    It knows nothing of what becomes of the model: after its weights have changed, ``refresh`` takes them up.
    """

    def __init__(self, model: nn.Module, *, dtype: torch.dtype | None, channels_last: bool, compile: bool) -> None:
        super().__init__()
        self.dtype, self.channels_last, self.compiled = dtype, channels_last, compile
        self._build(model)

    @torch.inference_mode(False)
    def _build(self, model: nn.Module) -> None:
        self._structure = structure(model)
        self._folded = Folded(model)
        fast = self._folded.network
        for parameter in fast.parameters():
            parameter.requires_grad_(False)
        if self.channels_last:
            fast = fast.to(memory_format=torch.channels_last)
        if self.dtype is not None:
            fast = fast.to(self.dtype)
        self.inner: Any = torch.compile(fast) if self.compiled else fast

    @property
    def folds(self) -> int:
        """How many layers of BatchNorm are folded; 0 where the model could not be traced."""
        return len(self._folded.folds)

    def refresh(self, model: nn.Module) -> None:
        """Take up the weights and buffers of the model that this is a stand-in for: the same, bit by bit, as a fresh stand-in.

        Nothing is traced, but where the model has other layers, settings or hooks than before, or tensors that are computed from
        others while it is traced; what such a setting refers to is not looked into.

        Args:
            model: the one that this was made of.

        Raises:
            UserError: the model cannot be copied any more.
        """
        if self._folded.follows and structure(model) == self._structure:
            self._folded.refill(model)
        else:
            self._build(model)

    def forward(self, x: Tensor) -> Tensor:
        asked = x.dtype
        x = _GradientAsInput.apply(x)
        if self.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.inner(x.to(self.dtype or asked)).to(asked)


class _GradientAsInput(torch.autograd.Function):
    """The identity, whose gradient lies in memory as the input does, whatever the layout that layers behind it compute in.

    A gradient in another layout fails at ``grad.view(...)``, and slows what is computed with it and with the input.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.x = torch.empty_like(inputs[0], device="meta")  # sizes and strides alone

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        if grad.stride() == ctx.x.stride():
            return grad
        return torch.empty_strided(ctx.x.shape, ctx.x.stride(), dtype=grad.dtype, device=grad.device).copy_(grad)
