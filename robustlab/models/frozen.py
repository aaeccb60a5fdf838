"""Borrow a model and give it back as it was, also with several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TypeVar

import torch
from torch import nn

from robustlab.errors import UserError

Model = TypeVar("Model", bound=Callable[..., object])
Restore = Callable[[], None]


@contextmanager
def frozen(model: Model, *, training: bool = False) -> Iterator[Model]:
    """Inside, the model is in evaluation mode and builds no parameter gradients; afterwards all is as before.

    Restored, also after an exception: every submodule's own mode, ``requires_grad`` of every parameter, all buffers
    (BatchNorm statistics, say), and the global random state of the CPU and of the model's devices. ``.grad`` is never touched.

    Threads may borrow one model together, also only a part of it: the first saves what it was, the last puts it back. In training mode
    a thread has the model for itself: it waits for the others, and the others wait for it. What another thread draws from
    the global random state in the meantime is put back with it, since the state does not say who drew.

    Args:
        model: a module; of any other callable nothing but the random state is known, so it is called as it is.
        training: run the model in training mode instead; the statistics that it updates are still put back.

    Raises:
        UserError: weights that were made in ``torch.inference_mode``; no gradient can pass through them.
    """
    module = model if isinstance(model, nn.Module) else nn.Module()
    parts, parameters = list(module.modules()), list(module.parameters())  # a walk through a large network takes its time
    if any(tensor.is_inference() for tensor in parameters):
        raise UserError("the model's weights were made in torch.inference_mode, so no gradient can pass through them: make them outside")
    borrower = _Borrower(threading.get_ident(), exclusive=training)
    try:
        with _TURN:
            _await_turn(parts, borrower)
            for part in parts:
                _borrow(id(part), borrower, _state_of(part))
            for device in _devices(parameters):
                _borrow(device, borrower, _random_state(device))
            if not all(_stays(part, training) for part in parts):
                module.train(training)
            for parameter in parameters:
                parameter.requires_grad_(False)
        yield model
    finally:
        with _TURN:
            for key in borrower.keys:
                _return(key, borrower)
            _TURN.notify_all()


@contextmanager
def frozen_both(model: Model, stand_in: Callable[..., object] | None, *, training: bool = False) -> Iterator[Model]:
    """``frozen`` for a model and, where there is one, what is searched in its place; each is borrowed once."""
    with frozen(model, training=training), nullcontext() if stand_in is None or stand_in is model else frozen(stand_in, training=training):
        yield model


class _Borrower:
    """One use of a model, by the thread that began it."""

    def __init__(self, thread: int, exclusive: bool) -> None:
        self.thread, self.exclusive = thread, exclusive
        self.keys: list[Hashable] = []  # of what it has


class _Loan:
    """Who has a thing at the moment, in the order in which they came, and how each puts it back as they found it."""

    def __init__(self) -> None:
        self.holders: list[tuple[_Borrower, Restore]] = []
        self.original: Restore = lambda: None


_TURN = threading.Condition()  # guards all below
_LOANS: dict[Hashable, _Loan] = {}  # by the ``id`` of a model's part, which its loan keeps alive, or by the device of a random state
_WAITING: set[int] = set()  # threads that wait for their turn, so that what they hold stands still


def _await_turn(parts: Sequence[nn.Module], borrower: _Borrower) -> None:
    """Wait until nobody else trains any of the parts; to train them, until every other thread that has one waits as well."""

    def is_free() -> bool:
        holders = [holder for part in parts for holder, _ in _holders(id(part)) if holder.thread != borrower.thread]
        return not any(holder.exclusive or borrower.exclusive and holder.thread not in _WAITING for holder in holders)

    if not is_free():
        _WAITING.add(borrower.thread)
        _TURN.notify_all()
        try:
            _TURN.wait_for(is_free)
        finally:
            _WAITING.discard(borrower.thread)


def _holders(key: Hashable) -> list[tuple[_Borrower, Restore]]:
    loan = _LOANS.get(key)
    return loan.holders if loan else []


def _borrow(key: Hashable, borrower: _Borrower, restore: Restore) -> None:
    loan = _LOANS.setdefault(key, _Loan())
    if not loan.holders:
        loan.original = restore
    loan.holders.append((borrower, restore))
    borrower.keys.append(key)


def _return(key: Hashable, borrower: _Borrower) -> None:
    """Put a thing back: as it was at first where nobody else has it, as it was found where the others are one's own or stand still."""
    loan = _LOANS[key]
    place = next(i for i, (holder, _) in enumerate(loan.holders) if holder is borrower)
    latest = place == len(loan.holders) - 1
    _, restore = loan.holders.pop(place)
    if not loan.holders:
        del _LOANS[key]
        loan.original()
    elif latest and (borrower.exclusive or all(holder.thread == borrower.thread for holder, _ in loan.holders)):
        restore()


def _stays(part: nn.Module, training: bool) -> bool:
    """Whether a module is in a mode already and knows no more of modes than torch, or, being frozen TorchScript, has none."""
    return not hasattr(part, "training") or (part.training == training and type(part).train is nn.Module.train)


def _state_of(part: nn.Module) -> Restore:
    """How to put one module back, without its children."""
    mode = getattr(part, "training", None)
    # Not by `parameters` and `named_buffers`, which take longer than all else here.
    wanted = [parameter for parameter in part._parameters.values() if parameter is not None and parameter.requires_grad]
    buffers = [(name, buffer, buffer.detach().clone()) for name, buffer in part._buffers.items() if buffer is not None]

    def restore() -> None:
        if mode is not None and part.training != mode:
            part.training = mode
        for parameter in wanted:
            parameter.requires_grad_(True)
        # Past the version counter, which BatchNorm's updates do not move either: graphs that were built before stay valid.
        for name, buffer, before in buffers:
            buffer.data.copy_(before)
            if getattr(part, name, None) is not buffer:
                setattr(part, name, buffer)

    return restore


def _devices(parameters: Sequence[nn.Parameter]) -> list[torch.device]:
    """Those whose random states a model can draw from."""
    own = {parameter.device for parameter in parameters if parameter.device.type in ("cuda", "xpu")}
    return [torch.device("cpu"), *sorted(own, key=str)]


def _random_state(device: torch.device) -> Restore:
    if device.type == "cpu":
        state = torch.get_rng_state()
        return lambda: torch.set_rng_state(state)
    backend = getattr(torch, device.type)
    found = backend.get_rng_state(device)
    return lambda: backend.set_rng_state(found, device)
