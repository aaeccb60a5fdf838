"""Looking into a network: any layer's output as a vector per image, and ReLUs that let every gradient through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from robustlab.errors import UserError, unknown
from robustlab.models.classifier import Classifier


def layers(model: nn.Module) -> tuple[str, ...]:
    """The names of the submodules that ``representation`` can look into, in the order of the network."""
    return tuple(_modules(model))


def representation(model: nn.Module, layer: str | None = None) -> Callable[[Tensor], Tensor]:
    """A layer's output for an image, as a function from ``(B, C, H, W)`` to ``(B, D)``, float32 or wider.

    The model is left as it is: the hook on the layer is there only during a call. Modes are the caller's, so
    use it within ``models.frozen``. A module that runs more than once per image, as a shared ReLU does, counts the last time.

    Args:
        model: any network; without ``layer`` one that has ``features``, as a ``Classifier`` does.
        layer: a name of ``layers(model)``; None is the input of the classifier's last layer. Maps ``(B, D, H, W)`` are
            averaged over positions, other shapes flattened.

    Raises:
        UserError: there is no such layer, or no ``features``; in a call, the layer did not run or gave no ``(B, ...)`` tensor.
    """
    if layer is None:
        features = getattr(model, "features", None)
        if not callable(features):
            raise UserError(f"{type(model).__name__} has no features of its own: name a layer, one of {', '.join(layers(model))}")
        spared = isinstance(model, Classifier)  # which normalizes into a tensor of its own; others may write over what they are given
        return lambda x: _vectors(features(x if spared else x.clone()), len(x), "features")
    modules = _modules(model)
    if layer not in modules:
        raise unknown("layer", layer, modules)

    def vectors(x: Tensor) -> Tensor:
        outputs: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            # Made into a copy at once: a ReLU that follows may work in place.
            outputs[:] = [_vectors(output, len(x), layer)]

        handle = modules[layer].register_forward_hook(keep)
        try:
            model(x)
        finally:
            handle.remove()
        if not outputs:
            raise UserError(f"the layer {layer!r} did not run in the forward pass of {type(model).__name__}")
        return outputs[0]

    return vectors


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """The submodules with a forward pass of their own; a ``ModuleList`` has none."""
    return {name: m for name, m in model.named_modules() if name and type(m).forward is not nn.Module.forward}


def _vectors(output: Any, count: int, layer: str) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim < 2 or len(output) != count:
        what = f"a tensor of shape {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise UserError(f"the layer {layer!r} must give one value or more per image, got {what} for {count} images")
    output = output.to(torch.promote_types(output.dtype, torch.float32))
    return output.mean((2, 3)) if output.ndim == 4 else output.flatten(1).clone()


def last_relu(model: nn.Module, layer: str | None = None) -> nn.Module | None:
    """The ReLU that comes last up to a layer, or up to the features, in the order in which the modules were registered.

    For ``straight_through_relu``. None where there is none, as in a network that calls the function instead of the module.

    Raises:
        UserError: there is no such layer.
    """
    modules = _modules(model)
    if layer is not None and layer not in modules:
        raise unknown("layer", layer, modules)
    names = list(modules)
    # A layer's own parts are registered after it.
    upto = len(names) if layer is None else names.index(layer) + 1 + sum(name.startswith(f"{layer}.") for name in names)
    relus = [modules[name] for name in names[:upto] if isinstance(modules[name], nn.ReLU)]
    return relus[-1] if relus else None


@contextmanager
def straight_through_relu(within: nn.Module | None = None) -> Iterator[None]:
    """Inside, ReLUs hand every gradient back unchanged, also to the units that are off; their values stay the same.

    For searches that must wake a unit which is off at the start, where the gradient is zero. Name the ReLU behind that unit:
    with all of them open the gradient is that of another, linear network, and a search follows it nowhere. Reaches modules,
    functions and methods, in place or not, on this thread; not a graph that ``torch.compile`` made before.

    Args:
        within: only the ReLUs that run in this module, such as the last one of the body (the ``fake_relu`` of Engstrom et al.
            2019); None opens every ReLU of every network that runs inside.
    """
    mode = _StraightThrough(within is None)

    def enter(module: nn.Module, inputs: Any) -> None:
        mode.open = True

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        mode.open = False

    handles = [within.register_forward_pre_hook(enter), within.register_forward_hook(leave, always_call=True)] if within is not None else []
    try:
        with mode:
            yield
    finally:
        for handle in handles:
            handle.remove()


class _StraightThrough(TorchFunctionMode):
    def __init__(self, open: bool) -> None:
        super().__init__()
        self.open = open

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not self.open or func not in _RELUS:
            return func(*args, **(kwargs or {}))
        given = dict(zip(("input", "inplace"), args, strict=False)) | dict(kwargs or {})
        return _Through.apply(given["input"], func in _IN_PLACE or given.get("inplace", False))


_IN_PLACE = {torch.relu_, Tensor.relu_, F.relu_}
_RELUS = _IN_PLACE | {torch.relu, Tensor.relu, F.relu}


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, inplace: bool) -> Tensor:
        if not inplace:
            return x.relu()
        ctx.mark_dirty(x)
        return x.relu_()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], None
