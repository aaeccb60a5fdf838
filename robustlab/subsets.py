"""Some of a batch's examples, with what belongs to them.

Examples that are done can leave a batch, so that the rest costs less. What belongs to examples is restricted with them: tensors
by their first dimension, other objects by a method ``at(index)`` of their own. What has no such method belongs to the batch as a
whole, and the batch then stays whole.
"""

from __future__ import annotations

from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


class Indivisible(TypeError):
    """Something belongs to a batch as a whole, not to its examples."""


def restricted(value: T, index: Tensor, *like: Tensor) -> T:
    """``value`` for some of the examples only.

    Args:
        value: a tensor, indexed along its first dimension; a tuple, part by part; an object with a method ``at(index, *like)``; a
            number, None or a tensor without dimensions, which are the same for all examples.
        index: positions of the examples in the batch, int64, shape ``(b,)``.
        like: passed on to ``at``. Constraint sets want the batch of points, shape ``(B, ...)``, which tells bounds for each example
            from bounds for all.

    Raises:
        Indivisible: ``value`` or a part of it is none of these.
    """
    result: Any = value
    if isinstance(value, Tensor):
        result = value[index] if value.ndim else value
    elif type(value) is tuple:
        result = tuple(restricted(part, index, *like) for part in result)
    elif hasattr(value, "at"):
        result = value.at(index, *like)
    elif value is not None and not isinstance(value, (bool, int, float)):
        raise Indivisible(f"{type(value).__name__} has no method at(index), so it cannot be restricted to some of the examples")
    return result
