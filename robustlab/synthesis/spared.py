"""Networks that write over what they are given must not write over a person's images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from robustlab.models.classifier import Classifier


@contextmanager
def spared(models: Iterable[nn.Module]) -> Iterator[None]:
    """Inside, networks work on a copy of their input, which they may write over: ``x.sub_(mean).div_(std)``, or a first ReLU in place.

    Args:
        models: any networks; a ``Classifier`` normalizes into a tensor of its own, and is left as it is.
    """
    handles = [model.register_forward_pre_hook(_copy) for model in models if not isinstance(model, Classifier)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _copy(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(each.clone() if isinstance(each, Tensor) else each for each in inputs)
