"""BatchNorm folded into convolutions: a copy of a network that is traced once and can take up the network's weights again.

A graph knows only what the network does with tensors. Where it would lose something else, the network is copied as it is.
"""

from __future__ import annotations

import copy
import operator
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node, Tracer

from robustlab.errors import UserError, in_one_line

Norm2d = nn.BatchNorm2d | nn.SyncBatchNorm  # in evaluation mode the second does what the first does
_PLAIN = (bool, int, float, str, type(None))
_HOOKS = tuple(name for name in vars(nn.Module()) if name.endswith("_hooks"))
_REGISTERED = ("_parameters", "_buffers", "_modules", "training", "_non_persistent_buffers_set", *_HOOKS)


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode with each BatchNorm that follows a convolution alone folded into it, and ReLUs in place.

    Exact up to rounding. A model that cannot be traced is copied without folding: one whose path depends on values, that draws random
    numbers, or that has its own gradients (``torch.no_grad``, ``torch.autograd.Function``) or its own precision (``torch.autocast``).

    Raises:
        UserError: the model cannot be copied.
    """
    return Folded(model).network


class Folded:
    """What ``fold_batch_norm`` makes of a model, and how its weights follow from the model's.

    Attributes:
        network: the copy.
        folds: paths of the convolutions that took up a BatchNorm, each with the path of that.
        follows: whether ``refill`` can take up all of the model's weights; not where something was computed from tensors while tracing.
    """

    def __init__(self, model: nn.Module) -> None:
        """Copy and trace ``model``.

        Raises:
            UserError: the model cannot be copied.
        """
        own = _copied(model).eval()
        traced = _traced(own)
        self.network: nn.Module = own if traced is None else traced
        self.folds = () if traced is None else tuple(_fold_all(traced))
        live = dict(model.named_modules(remove_duplicate=False))
        self._others = list(self._tensors())
        self.follows = all(path in live and hasattr(live[path], name) for path, _, name in self._others)
        if self.folds:
            self._refold(live)

    def refill(self, model: nn.Module) -> None:
        """Take up the weights and buffers of ``model``, which has the ``structure`` that it had when it was traced; nothing is traced."""
        live = dict(model.named_modules(remove_duplicate=False))
        with torch.inference_mode(False), torch.no_grad():
            self._refold(live)
            for path, module, name in self._others:
                getattr(module, name).copy_(getattr(live[path], name))

    def _tensors(self) -> Iterator[tuple[str, nn.Module, str]]:
        """Where the tensors are that are the model's own: path and name, and the module of the copy that has them."""
        folded = {conv for conv, _ in self.folds}
        for path, module in self.network.named_modules():
            if path not in folded:
                for names in (module._parameters, module._buffers, vars(module)):
                    yield from ((path, module, name) for name, value in names.items() if isinstance(value, Tensor))

    @torch.no_grad()
    def _refold(self, live: dict[str, nn.Module]) -> None:
        """Weights of the convolutions that took up a BatchNorm, which in evaluation mode is a factor and a shift for each channel."""
        for path, norm_path in self.folds:
            conv, norm, folded = (one for one in (live[path], live[norm_path], self.network.get_submodule(path)))
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, Norm2d) and isinstance(folded, nn.Conv2d)
            assert norm.running_mean is not None and norm.running_var is not None and folded.bias is not None
            factor = torch.rsqrt(norm.running_var + norm.eps)
            factor = factor if norm.weight is None else factor * norm.weight
            shift = -norm.running_mean if conv.bias is None else conv.bias - norm.running_mean
            folded.weight.copy_(conv.weight * factor.view(-1, 1, 1, 1))
            folded.bias.copy_(shift * factor if norm.bias is None else torch.addcmul(norm.bias, shift, factor))


def structure(model: nn.Module) -> object:
    """All of a model but the values of its tensors: its modules, their settings and hooks, and of each tensor which one it is and its form.

    Of models with an equal one ``Folded.refill`` can take up the weights. What a setting refers to is not looked into.
    """
    return tuple((path, *_outline(module)) for path, module in model.named_modules(remove_duplicate=False))


def _outline(module: nn.Module) -> Iterator[object]:
    yield type(module)
    yield type(module).forward
    yield tuple(id(hook) for name in _HOOKS for hook in (vars(module).get(name) or {}).values())
    for tensors in (module._parameters, module._buffers):
        yield tuple((name, _form(tensor)) for name, tensor in tensors.items())
    yield tuple((name, _setting(value)) for name, value in vars(module).items() if name not in _REGISTERED)


def _form(tensor: Tensor | None) -> object:
    return None if tensor is None else (id(tensor), tensor.dtype, tensor.device, tensor.shape, tensor.stride())


def _setting(value: object) -> object:
    if isinstance(value, _PLAIN):
        return type(value), value
    if type(value) is tuple:
        return tuple(map(_setting, value))
    return _form(value) if isinstance(value, Tensor) else id(value)


def _copied(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except MemoryError:
        raise
    except Exception as error:  # whatever a module of somebody's raises
        raise UserError(f"the model cannot be copied, so there is no stand-in for it: {in_one_line(error)}") from error


def _fold_all(traced: GraphModule) -> Iterator[tuple[str, str]]:
    """Take each BatchNorm out of the graph that can be folded; convolutions get new parameters for what is to come."""
    for node in list(traced.graph.nodes):
        pair = _fold(traced, node)
        if pair:
            yield pair
    for node in traced.graph.nodes:
        _overwrite(traced, node)
    traced.graph.lint()
    traced.recompile()


def _fold(traced: GraphModule, node: Node) -> tuple[str, str] | None:
    norm, before = _called(traced, node), node.args[0] if node.args else None
    conv = _called(traced, before)
    if norm is None or not _is_norm(norm) or norm.running_mean is None or type(conv) is not nn.Conv2d or not isinstance(before, Node):
        return None
    if len(before.users) > 1 or _uses(traced, before) > 1 or _uses(traced, node) > 1:
        return None  # a layer used twice cannot carry one of its uses' BatchNorm
    wanted = conv.weight.requires_grad
    conv.weight = nn.Parameter(torch.empty_like(conv.weight), requires_grad=wanted)  # a new one: another layer may have the old one too
    conv.bias = nn.Parameter(conv.weight.new_empty(conv.out_channels), requires_grad=wanted)
    node.replace_all_uses_with(before)
    traced.graph.erase_node(node)
    traced.delete_submodule(str(node.target))
    return str(before.target), str(node.target)


def _overwrite(traced: GraphModule, node: Node) -> None:
    """Let a ReLU write over its input, which saves the time of fresh memory, where no other layer and no gradient reads that."""
    relu, before = _called(traced, node), node.args[0] if node.args else None
    if type(relu) is not nn.ReLU or _uses(traced, node) > 1 or not isinstance(before, Node) or len(before.users) > 1:
        return
    # The gradients of these need what went in, not what came out.
    layer = _called(traced, before)
    if before.target is operator.add or type(layer) is nn.Conv2d or layer is not None and _is_norm(layer):
        relu.inplace = True


def _uses(traced: GraphModule, node: Node) -> int:
    """How often the layer that a node calls is called, or one of its weights read."""
    used = [str(n.target) for n in traced.graph.nodes if n.op == "call_module"]
    used += [str(n.target).rpartition(".")[0] for n in traced.graph.nodes if n.op == "get_attr"]
    return used.count(str(node.target))


def _called(traced: GraphModule, node: object) -> nn.Module | None:
    """The layer that a node calls, where it has no hooks and no forward pass of its own, which would undo new weights."""
    if not isinstance(node, Node) or node.op != "call_module":
        return None
    layer = traced.get_submodule(str(node.target))
    return None if layer._forward_pre_hooks or layer._forward_hooks or "forward" in vars(layer) else layer


def _is_norm(layer: nn.Module) -> TypeGuard[Norm2d]:
    """Whether it is BatchNorm and nothing else, at least in evaluation mode; a class that is so says it by ``batch_norm_in_evaluation``."""
    kind = type(layer)
    return kind in (nn.BatchNorm2d, nn.SyncBatchNorm) or issubclass(kind, nn.BatchNorm2d) and "batch_norm_in_evaluation" in vars(kind)


# Tracing


class Untraceable(TypeError):
    """A graph would not do what the model does."""


def _traced(model: nn.Module) -> GraphModule | None:
    """The model as a graph; None where ``torch.fx`` cannot trace it, or where a graph would not do the same."""
    try:
        with torch.inference_mode(False), torch.enable_grad(), _drawing_nothing():
            tracer = _Tracer()
            return GraphModule(model, tracer.trace(model))
    except MemoryError:
        raise
    except Exception:  # torch.fx documents no common base for what tracing raises
        return None


class _Tracer(Tracer):
    """Refuses operations whose gradient or precision the model chooses by itself: a graph records neither.

    ``torch.fx`` patches ``nn.Module`` as a whole while it traces; what other threads compute in the meantime is none of its business.
    """

    proxy_buffer_attributes = True  # a number computed from a buffer is to be computed at each call

    def __init__(self) -> None:
        super().__init__()
        self._thread, self._modes = threading.get_ident(), _modes()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or _is_norm(m)

    def create_node(self, *args: Any, **kwargs: Any) -> Node:
        if _modes() != self._modes:  # torch runs the forward pass of a torch.autograd.Function without gradients, so that shows here too
            raise Untraceable("the model has gradients or a precision of its own")
        return super().create_node(*args, **kwargs)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def _modes() -> object:
    """Whether gradients are recorded, and what autocast does."""
    kinds = ("cpu", "cuda")
    return torch.is_grad_enabled(), *((torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds)


@contextmanager
def _drawing_nothing() -> Iterator[None]:
    """Refuse random numbers that are drawn inside, which a graph would repeat at each call, and put the generators back."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    yield
    drawn = not torch.equal(states[0], torch.get_rng_state()) or states[1] != random.getstate()
    drawn |= any(not np.array_equal(a, b) for a, b in zip(states[2], np.random.get_state(), strict=True))
    if drawn:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
        raise Untraceable("the model draws random numbers")
