"""Stand-ins that are kept, one for each model and precision, for as long as the model lives."""

from __future__ import annotations

import threading
import weakref

import torch
from torch import nn

from robustlab.models.accelerate import StandIn, accelerate

_TURN = threading.RLock()  # guards all below
_KEPT: dict[tuple[int, torch.dtype | None], StandIn] = {}  # by the ``id`` of a model, which leaves with it


def refreshed(model: nn.Module, dtype: torch.dtype | None = None) -> StandIn:
    """The kept stand-in of a model, with the weights that the model has now; made at the first call.

    It is kept beside the model, not in it: no copy, pickle or ``state_dict`` of the model has it, and it goes when the model goes.

    Args:
        dtype: as for ``accelerate``.

    Raises:
        UserError: the model cannot be copied.
    """
    with _TURN:
        kept = _KEPT.get((id(model), dtype))
        if kept is None:
            kept = accelerate(model, dtype=dtype)
            weakref.finalize(model, _forget, id(model), dtype).atexit = False
            _KEPT[id(model), dtype] = kept
        else:
            kept.refresh(model)
        return kept


def _forget(model: int, dtype: torch.dtype | None) -> None:
    with _TURN:
        _KEPT.pop((model, dtype), None)
