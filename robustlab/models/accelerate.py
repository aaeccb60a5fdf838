"""Faster stand-ins for a model, for searching: BatchNorm folded into convolutions, channels_last, bfloat16, compiled.

What is found on a stand-in counts only after a float32 forward pass of the model itself, see ``robustlab.evaluation``.
"""

from __future__ import annotations

import copy
import operator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node, symbolic_trace
from torch.nn.utils.fusion import fuse_conv_bn_eval

Layer = TypeVar("Layer", bound=nn.Module)


def accelerate(model: nn.Module, *, dtype: torch.dtype | None = None, channels_last: bool = True, compile: bool = False) -> nn.Module:
    """A copy of ``model`` that runs faster in evaluation mode; the model itself is not touched.

    Args:
        dtype: ``torch.bfloat16`` computes in it; images and logits stay in the caller's dtype.
        channels_last: keep images in the memory layout that convolutions like best.
        compile: pass the copy through ``torch.compile``; the first calls then take much longer.
    """
    fast = fold_batch_norm(model)
    for parameter in fast.parameters():
        parameter.requires_grad_(False)
    if channels_last:
        fast = fast.to(memory_format=torch.channels_last)
    if dtype is not None:
        fast = fast.to(dtype)
    if compile:
        fast = torch.compile(fast)  # type: ignore[assignment]
    return _Adapted(fast, dtype, channels_last)


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode with each BatchNorm that follows a convolution alone folded into it, and ReLUs in place.

    Exact up to rounding. A model that ``torch.fx`` cannot trace is copied without folding.
    """
    model = copy.deepcopy(model).eval()
    try:
        traced = symbolic_trace(model)
    except Exception as error:  # torch.fx documents no common base for what tracing raises
        if isinstance(error, MemoryError):
            raise
        return model
    for node in list(traced.graph.nodes):
        _fold(traced, node)
    for node in traced.graph.nodes:
        _overwrite(traced, node)
    traced.graph.lint()
    traced.recompile()
    return traced


def _fold(traced: GraphModule, node: Node) -> None:
    norm = _plain(traced, node, nn.BatchNorm2d)
    before = node.args[0] if node.args else None
    conv = _plain(traced, before, nn.Conv2d)
    if norm is None or norm.running_mean is None or conv is None or not isinstance(before, Node) or len(before.users) > 1:
        return
    if _uses(traced, before) > 1 or _uses(traced, node) > 1:
        return  # a layer used twice cannot carry one of its uses' BatchNorm
    traced.set_submodule(str(before.target), fuse_conv_bn_eval(conv, norm))
    node.replace_all_uses_with(before)
    traced.graph.erase_node(node)
    traced.delete_submodule(str(node.target))


def _overwrite(traced: GraphModule, node: Node) -> None:
    """Let a ReLU write over its input, which saves the time of fresh memory, where no other layer and no gradient reads that."""
    relu = _plain(traced, node, nn.ReLU)
    before = node.args[0] if node.args else None
    if relu is None or _uses(traced, node) > 1 or not isinstance(before, Node) or len(before.users) > 1:
        return
    # The gradients of these need what went in, not what came out.
    if before.target is operator.add or any(_plain(traced, before, kind) for kind in (nn.Conv2d, nn.BatchNorm2d)):
        relu.inplace = True


def _uses(traced: GraphModule, node: Node) -> int:
    """How often the layer that a node calls is called, or one of its weights read."""
    used = [str(n.target) for n in traced.graph.nodes if n.op == "call_module"]
    used += [str(n.target).rpartition(".")[0] for n in traced.graph.nodes if n.op == "get_attr"]
    return used.count(str(node.target))


def _plain(traced: GraphModule, node: object, kind: type[Layer]) -> Layer | None:
    """The layer that a node calls, if it is of that very kind: hooks and parametrizations would undo new weights."""
    if not isinstance(node, Node) or node.op != "call_module":
        return None
    layer = traced.get_submodule(str(node.target))
    return layer if type(layer) is kind and not layer._forward_pre_hooks and not layer._forward_hooks else None


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


class _Adapted(nn.Module):
    """Casts images on the way in and logits on the way out."""

    def __init__(self, inner: nn.Module, dtype: torch.dtype | None, channels_last: bool) -> None:
        super().__init__()
        self.inner, self.dtype, self.channels_last = inner, dtype, channels_last

    def forward(self, x: Tensor) -> Tensor:
        asked = x.dtype
        x = _GradientAsInput.apply(x)
        if self.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        return self.inner(x.to(self.dtype or asked)).to(asked)
