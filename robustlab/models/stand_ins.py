"""Stand-ins that are kept, one for each model and precision, for as long as the model lives; and a search on one that nobody asked for.

A stand-in is kept beside its model, not in it: no copy, pickle or ``state_dict`` of the model has it. It takes as much memory as the model.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from robustlab.models.accelerate import StandIn, accelerate
from robustlab.models.folding import structure
from robustlab.models.frozen import frozen

Found = TypeVar("Found")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
FEW = 4  # images on which a model and its stand-in are compared


@dataclass(eq=False)
class _Kept:
    """What is known of a model.

    Attributes:
        stand_in: None before the first look, and where there can be none.
        structure: of the model when it was last looked at, and precision and device of the images.
        marks: of its weights then.
        trusted: whether the two agreed then.
    """

    stand_in: StandIn | None = None
    structure: object = None
    marks: list[int] = field(default_factory=list)
    trusted: bool = False


_TURN = threading.RLock()  # guards all below; who waits for it holds no model that another thread waits for in ``frozen``
_KEPT: dict[tuple[int, torch.dtype | None], _Kept] = {}  # by the ``id`` of a model, which leaves with it


def refreshed(model: nn.Module, dtype: torch.dtype | None = None) -> StandIn:
    """The kept stand-in of a model, with the weights that the model has now; made at the first call.

    Args:
        dtype: as for ``accelerate``.

    Raises:
        UserError: the model cannot be copied.
    """
    with _TURN:
        return _refreshed(_kept(model, dtype), model, dtype)


def on_stand_in(
    model: Callable[[Tensor], Tensor], x: Tensor, search: Callable[[StandIn | None], Found], found: Callable[[Found], Tensor]
) -> Found:
    """What a search finds on the kept float32 stand-in of a model, where that is the same function and faster; else on the model itself.

    A stand-in serves where some BatchNorm of the model is folded into a convolution; not for a model that has hooks, computed weights,
    a forward pass of its own on an instance, or parts that are compiled, nor within ``torch.autocast``. It is the same function as long as
    the model has the same modules, settings and weights, by a checksum of their bits; where these are others, logits and gradients on a
    few images are compared again, up to rounding. What it found is never believed blindly: its logits on a few of the images found
    must be the model's own. If they are not, as where the model looks at something outside itself, the model is searched again, itself.

    Asks the device twice, and a few times more where the model is new or has changed.

    Args:
        model: any function; it is searched as ``frozen`` lends it.
        x: images, shape ``(B, ...)``.
        search: from the stand-in, or None for the model itself, to what it finds.
        found: from that to the images found, shape ``(B, ...)``.
    """
    if not isinstance(model, nn.Module) or not len(x) or _is_elsewhere(x):
        return search(None)
    with frozen(model):
        stand_in = _trusted(model, x)
        if stand_in is not None:
            result = search(stand_in)
            if _same_logits(model, stand_in, found(result)[:FEW]):
                return result
            _distrust(model)
    return search(None)


def _kept(model: nn.Module, dtype: torch.dtype | None) -> _Kept:
    key = id(model), dtype
    if key not in _KEPT:
        weakref.finalize(model, _forget, key).atexit = False
        _KEPT[key] = _Kept()
    return _KEPT[key]


def _forget(key: tuple[int, torch.dtype | None]) -> None:
    with _TURN:
        _KEPT.pop(key, None)


def _refreshed(kept: _Kept, model: nn.Module, dtype: torch.dtype | None = None) -> StandIn:
    if kept.stand_in is None:
        kept.stand_in = accelerate(model, dtype=dtype)
    else:
        kept.stand_in.refresh(model)
    return kept.stand_in


def _trusted(model: nn.Module, x: Tensor) -> StandIn | None:
    """The kept stand-in of a model that ``frozen`` lends, if it is the same function."""
    with _TURN:
        kept = _kept(model, None)
        now, marks = (structure(model), x.dtype, x.device), []
        if now != kept.structure or kept.trusted:
            marks = checksums(model)
        if now != kept.structure or kept.trusted and marks != kept.marks:
            kept.structure, kept.marks, kept.trusted = now, marks, _suits(model, x) and _agrees(kept, model, x[:FEW])
            if not kept.trusted:
                kept.stand_in = None
        return kept.stand_in if kept.trusted else None


def _distrust(model: nn.Module) -> None:
    with _TURN:
        kept = _kept(model, None)
        kept.stand_in, kept.trusted = None, False


def _agrees(kept: _Kept, model: nn.Module, x: Tensor) -> bool:
    """Make or refresh the stand-in, and compare it with the model; False where that cannot be done."""
    with torch.no_grad():
        model(x.clone())  # images that the model itself cannot read are no fault of the stand-in
    try:
        stand_in = _refreshed(kept, model)
        return stand_in.folds > 0 and _same_logits(model, stand_in, x) and _same_gradient(model, stand_in, x)
    except Exception:  # whatever a module of somebody's raises, or there is no memory: the model itself can still be searched
        return False


# Which models


def _is_elsewhere(x: Tensor) -> bool:
    """Whether something else decides what a model computes: a precision that is not the images' own, or hooks of all modules."""
    everywhere = any(getattr(nn.modules.module, f"_global{name}") for name in _HOOKS)
    return x.dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled(x.device.type) or everywhere


def _suits(model: nn.Module, x: Tensor) -> bool:
    """Whether a model has a BatchNorm to be folded, is where the images are and in their precision, and does what its classes say."""
    kinds, tensors = {type(module) for module in model.modules()}, (*model.parameters(), *model.buffers())
    return (
        nn.Conv2d in kinds
        and bool(kinds & {nn.BatchNorm2d, nn.SyncBatchNorm})
        and not any(_is_special(module) for module in model.modules())
        and all(tensor.dtype == x.dtype and tensor.device == x.device for tensor in tensors if tensor.is_floating_point())
    )


def _is_special(module: nn.Module) -> bool:
    """Whether a module does more than its class says, or is a wrapper of several devices, or compiled."""
    own = vars(module)
    return (
        any(own.get(name) for name in _HOOKS)
        or any(name in own for name in ("forward", "__call__", "_call_impl"))
        or own.get("_compiled_call_impl") is not None
        or "parametrizations" in module._modules
        or isinstance(module, torch.jit.ScriptModule | nn.DataParallel | nn.parallel.DistributedDataParallel)
    )


# Whether two models are the same function


@torch.no_grad()
def _same_logits(model: nn.Module, stand_in: StandIn, x: Tensor) -> bool:
    theirs, ours = model(x.clone()), stand_in(x.clone())
    if not isinstance(theirs, Tensor) or theirs.shape != ours.shape or theirs.dtype != ours.dtype:
        return False
    return bool((theirs - ours).abs().max() <= _tolerance(x) * theirs.abs().max().clamp_min(1e-3))


def _same_gradient(model: nn.Module, stand_in: StandIn, x: Tensor) -> bool:
    """Of some combination of the logits. Where an activation is nearly zero, rounding decides whether it has a gradient: so the width."""
    gradients = []
    for one in (model, stand_in):
        with torch.inference_mode(False), torch.enable_grad():
            inputs = x.clone().requires_grad_()
            logits = one(inputs.clone())
            into = torch.linspace(1, 3, logits.shape[1], dtype=logits.dtype, device=logits.device).cos()
            gradients.append(torch.autograd.grad((logits * into).sum(), inputs)[0])
    theirs, ours = gradients
    return bool((theirs - ours).norm() <= _tolerance(x) ** 0.5 * theirs.norm())


def _tolerance(x: Tensor) -> float:
    """How far logits may be apart, as a share of the largest: rounding in convolutions, in the precision that the device takes there."""
    if x.dtype == torch.float64:
        return 1e-9
    return 1e-2 if x.device.type == "cuda" and torch.backends.cudnn.allow_tf32 else 1e-4


# Checksums


def checksums(model: nn.Module) -> list[int]:
    """For each parameter and buffer a sum over its bits in which every place has an odd weight of its own, modulo 2^64.

    A change in one place is always seen, others but for one case in 2^60 or so, whatever made them: ``.data`` and fused optimizers
    move no version counter. Asks the device once.
    """
    with torch.no_grad():
        sums = [_sum(tensor) for tensor in _tensors(model)]
        return torch.stack(sums).tolist() if sums else []


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    for module in model.modules():
        for tensors in (module._parameters, module._buffers, vars(module)):
            yield from (tensor.detach() for tensor in tensors.values() if isinstance(tensor, Tensor) and tensor.numel())


def _sum(tensor: Tensor) -> Tensor:
    words = _words(tensor)
    weights = _weights(len(words), words.device)
    return torch.dot(words, weights) if words.device.type == "cpu" else (words * weights).sum()


def _words(tensor: Tensor) -> Tensor:
    """The bits of a tensor in 64-bit pieces, in the order in which they lie in memory."""
    dense = tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)
    flat = tensor.as_strided((tensor.numel(),), (1,)) if dense else tensor.flatten()
    if flat.is_complex():
        flat = torch.view_as_real(flat).flatten()
    if not flat.is_floating_point():
        return flat.to(torch.int64)
    if flat.dtype == torch.float32 and not flat.numel() % 2 and not flat.storage_offset() % 2:
        return flat.view(torch.int64)
    return flat.double().view(torch.int64)


_WEIGHTS: dict[torch.device, Any] = {}


def _weights(n: int, device: torch.device) -> Tensor:
    """Odd 64-bit numbers, always the same, ``(n,)``."""
    found = _WEIGHTS.get(device)
    if found is None or len(found) < n:
        size = max(1 << (n - 1).bit_length(), 1 << 12)
        drawn = torch.randint(-(2**63), 2**63 - 1, (size,), generator=torch.Generator().manual_seed(0))
        _WEIGHTS[device] = found = (drawn | 1).to(device)
    return found[:n]
