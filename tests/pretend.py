"""A second device that is not there, for tests of what an accelerator sees.

Tensors on it say ``pretend:0`` and compute on the CPU, so results must be those of the CPU. Like an accelerator it refuses a tensor of
the CPU beside one of its own, and it notes where a program stops it (a value is read, a size depends on values) and where something
is copied to it.

    with pretending() as device:
        model, x, y = model.to(device.name), x.to(device.name), y.to(device.name)
        device.forget()
        x_adv = attack(model, x, y)
        assert sum(device.stops.values()) <= 2, device.stops

By its name it is a device like any other: ``train(..., device="pretend")``, ``robustlab train --device pretend``.

It stands on torch's support for backends written in Python, which is younger than the oldest torch that the project allows; where that
is missing, or where there is a real accelerator, whose place it would take, the test is skipped. The device is made known when this
module is imported, as long as nothing was differentiated in the process: autograd counts the devices only once.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "pretend"
PACKAGE = Path(__file__).parents[1] / "robustlab"

# Operators that hand a value to Python, whose result is as large as values say, and that may take tensors of both devices.
READS = {"aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero"}
SIZES = {
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::repeat_interleave",
}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
COPIES = {"aten::copy_", "aten::_to_copy", "aten::set_"}


@dataclass
class Device:
    """The device, and what was seen of it: from an operator and the place in the package that called it to how often.

    Attributes:
        stops: the host waited for a value, a size or a copy from the device.
        copies: something was copied from the host to the device, which is slow from ordinary memory.
    """

    name: str = f"{NAME}:0"
    stops: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)

    def forget(self) -> None:
        """Begin to count anew."""
        self.stops.clear()
        self.copies.clear()


_device: Device | None = None


@contextmanager
def pretending() -> Iterator[Device]:
    """Inside, tensors and modules can be moved to the device; on leaving, what lies there is of no use any more."""
    global _device
    if _LIBRARY is None:
        pytest.skip("this torch knows no devices written in Python, or has a real one")
    before, overwrite = _device, torch.__future__.get_overwrite_module_params_on_conversion()
    _device = Device()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # module.to() cannot put such a tensor into a plain parameter
    try:
        with pytest.MonkeyPatch.context() as patch, _Everywhere():
            tolist = Tensor.tolist  # reads memory past the dispatcher
            patch.setattr(Tensor, "tolist", lambda self: tolist(self.cpu() if isinstance(self, _Pretended) else self))
            yield _device
    finally:
        _device = before
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)


class _Pretended(Tensor):
    """A tensor of the device around the tensor of the CPU that has its values."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> _Pretended:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, strides=inner.stride(), storage_offset=0, dtype=inner.dtype, layout=inner.layout, device=f"{NAME}:0"
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __repr__(self, **options: Any) -> str:
        return f"{self.inner!r} on {NAME}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.__reduce_ex__(protocol)  # a file holds what is read from it on the CPU

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    __torch_function__ = torch._C._disabled_torch_function_impl


class _Everywhere(TorchDispatchMode):
    """Sees also the operators that have no tensor of the device yet: those that make one."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What every operator goes through: refused, noted, computed on the CPU, and put on the device where it belongs there."""
    name = func._schema.name
    if name in {"aten::_pin_memory", "aten::pin_memory"}:
        return args[0]
    tensors = [leaf for leaf in _leaves([*args, *kwargs.values()]) if isinstance(leaf, Tensor)]
    there = any(isinstance(t, _Pretended) for t in tensors)
    target = torch.device(kwargs["device"]).type if kwargs.get("device") is not None else None
    if not there and target != NAME:
        return func(*args, **kwargs)
    if there:
        _refuse_mixture(name, tensors)
    _note(name, args, there, target)
    elsewhere = {"device": torch.device("cpu")} if target == NAME else {}
    unpinned = {"pin_memory": False} if "pin_memory" in kwargs else {}
    out = func(*_mapped(_inner, args), **{key: _mapped(_inner, value) for key, value in (kwargs | elsewhere | unpinned).items()})
    if name in READS or target == "cpu":
        return out
    if name == "aten::copy_" and not isinstance(args[0], _Pretended):
        return args[0]
    written = _written(func, args)
    if isinstance(written, _Pretended) and isinstance(out, Tensor):
        if (written.shape, written.stride()) != (written.inner.shape, written.inner.stride()):
            written.data = _Pretended(written.inner)  # changes what it says of its shape
        return written
    return _mapped(_outer, out)


def _leaves(values: Any) -> Iterator[Any]:
    """Of the arguments of an operator, which may be lists."""
    for value in values:
        yield from value if isinstance(value, list | tuple) else (value,)


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    return type(value)(_mapped(change, part) for part in value) if type(value) in (list, tuple) else change(value)


def _inner(leaf: Any) -> Any:
    return leaf.inner if isinstance(leaf, _Pretended) else leaf


def _outer(leaf: Any) -> Any:
    return _Pretended(leaf) if isinstance(leaf, Tensor) and not isinstance(leaf, _Pretended) else leaf


def _written(func: Any, args: Any) -> Any:
    """The argument that an operator in place writes to and returns."""
    marked = zip(args, func._schema.arguments, strict=False)
    return next((value for value, about in marked if about.alias_info is not None and about.alias_info.is_write), None)


def _refuse_mixture(name: str, tensors: list[Tensor]) -> None:
    """Of the CPU's tensors only those without dimensions, which torch takes for numbers, may stand beside the device's."""
    strangers = [tuple(t.shape) for t in tensors if not isinstance(t, _Pretended) and t.ndim]
    if strangers and name not in INDEXING | COPIES:
        raise RuntimeError(f"{name}: tensors on {NAME}:0 and on the CPU, {strangers}, at {_place()}")


def _note(name: str, args: Any, there: bool, target: str | None) -> None:
    assert _device is not None, "the device is used outside of pretending()"
    if there and name in READS | SIZES:
        _device.stops[f"{name} at {_place()}"] += 1
    if name in INDEXING and there:
        indices = [i for i in args[1] if isinstance(i, Tensor)]
        if any(i.dtype in (torch.bool, torch.uint8) for i in indices):
            _device.stops[f"{name} by a mask at {_place()}"] += 1
        if any(not isinstance(i, _Pretended) for i in indices):
            _device.copies[f"{name} by an index of the host at {_place()}"] += 1
    if name == "aten::copy_" and isinstance(args[0], _Pretended) != isinstance(args[1], _Pretended):
        (_device.copies if isinstance(args[0], _Pretended) else _device.stops)[f"{name} at {_place()}"] += 1
    if name == "aten::_to_copy" and target == "cpu" and there:
        _device.stops[f"{name} at {_place()}"] += 1
    if name == "aten::_to_copy" and target == NAME and not there:
        _device.copies[f"{name} at {_place()}"] += 1


def _place() -> str:
    """The innermost line of the package that is being run; of the test, where the package is not."""
    frames = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_stack()[::-1] if frame.filename != __file__]
    for folder in (PACKAGE, Path(__file__).parent):
        for file, line in frames:
            if folder in file.parents:
                return f"{file.relative_to(folder)}:{line}"
    return "an unknown place"


class _Module:
    """What ``torch.pretend`` is: a module for a kind of device, there only inside ``pretending()``."""

    bfloat16 = False  # whether the device says that it is fast at it

    def is_available(self) -> bool:
        return _device is not None

    def is_initialized(self) -> bool:
        return True

    def is_bf16_supported(self, including_emulation: bool = True) -> bool:
        return self.bfloat16

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def set_device(self, device: Any) -> None:
        assert torch.device(NAME, device).index == 0

    def manual_seed_all(self, seed: int) -> None:
        """There are no random numbers of its own."""

    def _is_in_bad_fork(self) -> bool:
        return False


# torch.tensor and its like leave Python's dispatch out; for a device of one's own they arrive here.
_PAST_DISPATCH: dict[str, Callable[..., Any]] = {
    "empty_strided": torch.ops.aten.empty_strided.default,
    "empty.memory_format": torch.ops.aten.empty.memory_format,
    "_to_copy": torch.ops.aten._to_copy.default,
    "copy_": torch.ops.aten.copy_.default,
}


def _registered() -> torch.library.Library | None:
    """Tell torch of the device; None where that cannot be. What is returned must stay alive."""
    try:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend as set_up
    except ImportError:
        return None
    if torch.accelerator.is_available():
        return None
    set_up(NAME, _Module())
    library = torch.library.Library("aten", "IMPL")
    for name, operator in _PAST_DISPATCH.items():
        library.impl(name, partial(_arrived, operator), "PrivateUse1")
    return library


def _arrived(operator: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return _run(operator, args, kwargs)


_LIBRARY = _registered()
