"""The shortest way onto a hyperplane inside a box: exact in Linf, L2 and L1, by one sort."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.errors import UserError
from robustlab.norms import L1, L2, Linf, Norm, expanded
from robustlab.sorting import rows_in_order


def shortest_move(w: Tensor, rise: Tensor, norm: Norm, low: Tensor, high: Tensor) -> Tensor:
    """The shortest ``d`` with ``<w, d> = rise`` and ``low <= d <= high`` (Croce and Hein 2020, section 3.1), up to rounding.

    Every value moves the way that helps until its room ends: in Linf all at one pace, in L2 each at the pace of its weight, in L1 those
    of the largest weights first. What they gain together is piecewise linear in how far they have gone; sorts the ends of the pieces,
    O(D log D). Where the box holds no such point, every value goes as far as it can.

    Args:
        w: normals, shape ``(B, ...)``, float32 or float64.
        rise: ``(B,)``.
        norm: ``Linf()``, ``L2()`` or ``L1()``.
        low: at most 0, shape of ``w``.
        high: at least 0, shape of ``w``.

    Raises:
        UserError: another norm.
    """
    if not isinstance(norm, Linf | L2 | L1):
        raise UserError(f"the way onto a hyperplane is known in Linf(), L2() and L1(), got {norm!r}")
    if w[0:1].numel() == 0:
        return torch.zeros_like(w)
    largest = Linf().measure(w)
    largest = torch.where(largest > 0, largest, 1)
    pull = (w * expanded(torch.where(rise < 0, -1, 1) / largest, w)).flatten(1)
    room = torch.where(pull > 0, high.flatten(1), -low.flatten(1))
    size = pull.abs()
    # Weights that are this small among the others gain nothing that could be measured, and their paces overflow.
    size = torch.where(size > torch.finfo(size.dtype).tiny ** 0.5, size, 0)
    wanted = (rise.abs() / largest).double()[:, None]
    length = _largest_first(size, room, wanted) if isinstance(norm, L1) else _at_once(size, room, wanted, isinstance(norm, L2))
    return (pull.sign() * length).reshape(w.shape)


def _at_once(size: Tensor, room: Tensor, wanted: Tensor, weighted: bool) -> Tensor:
    """How far each value goes, ``(B, D)``, where all start together: ``min(t pace, room)`` with the first ``t`` that gains ``wanted``."""
    moves = size > 0
    pace = size if weighted else moves.to(size)
    end, order = rows_in_order(torch.where(moves, room / torch.where(moves, pace, 1), 0))
    gain = (size * pace).gather(1, order).double()  # of each value per unit of t, before its end
    stopped = torch.where(moves, size * room, 0).gather(1, order).double()  # what it has gained at its end
    settled = stopped.cumsum(1)
    running = gain.flip(1).cumsum(1).flip(1)  # of the values that have not stopped before this one
    first = (settled - stopped + end * running < wanted).sum(1, keepdim=True)  # where the gain at its end reaches what is wanted
    place = first.clamp(max=size.shape[1] - 1)
    missing = wanted - (settled - stopped).gather(1, place)
    t = (missing / running.gather(1, place).clamp_min(torch.finfo(torch.float64).tiny)).clamp_min(0).to(size)
    return torch.where(moves & (first < size.shape[1]), torch.minimum(t * pace, room), torch.where(moves, room, 0))


def _largest_first(size: Tensor, room: Tensor, wanted: Tensor) -> Tensor:
    """How far each value goes, ``(B, D)``, where the largest weight goes first, to its end, and then the next."""
    falling, order = rows_in_order(size, descending=True)
    space = torch.where(falling > 0, room.gather(1, order), 0)
    gained = (falling * space).double()
    missing = (wanted - (gained.cumsum(1) - gained)).clamp_min(0).to(size)
    length = torch.minimum(missing / torch.where(falling > 0, falling, 1), space)
    return torch.zeros_like(size).scatter_(1, order, length)
