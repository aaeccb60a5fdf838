"""Random numbers that belong to an example, not to a batch.

Every draw is a pure function of a *key*, one int64 per example, in the manner of JAX's key splitting. The bits come
from SplitMix64 (Steele, Lea, Flood 2014) used as a counter-based generator (Salmon et al. 2011): integer arithmetic
only, so an example gets the same draw alone or in a batch, in any order, in any number of processes, after a restart,
and on a GPU as on a CPU. Nothing here reads or changes a global random state.

    keys = example_keys(seed, index)             # (B,)  one stream per example
    start = uniform(fold(keys, "start"), (3, 32, 32))
    again = uniform(fold(keys, "start", 1), (3, 32, 32))   # an independent draw
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robustlab.errors import UserError

# The odd constants of SplitMix64, as the signed integers that torch's int64 arithmetic (modulo 2^64) wants.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX2 = 0x94D049BB133111EB - (1 << 64)


def example_keys(seed: int, index: Tensor) -> Tensor:
    """One key per example, from a run's seed and each example's position in its dataset.

    Args:
        seed: the run's seed.
        index: positions in the dataset, int64, shape ``(B,)``; not positions in the batch.

    Returns:
        Keys, int64, shape ``(B,)``.
    """
    return fold(index.to(torch.int64), "example", _checked(seed))


def content_keys(x: Tensor, seed: int = 0) -> Tensor:
    """One key per example from its own pixels, for callers that know no dataset positions: equal images, equal keys.

    Args:
        x: examples, shape ``(B, ...)``, any floating dtype.
        seed: changes all the keys.
    """
    values = x.detach().reshape(len(x), math.prod(x.shape[1:])).float() + 0.0  # -0.0 becomes the 0.0 that it equals
    bits = values.contiguous().view(torch.int32).to(torch.int64)
    place = torch.arange(bits.shape[1], device=x.device)
    return fold(_mix(bits + place.mul_(_GOLDEN)).sum(1), "content", _checked(seed))


def fold(keys: Tensor, *names: str | int) -> Tensor:
    """New, independent keys for a named purpose: ``fold(keys, "start", restart)``; shape ``(B,)`` as ``keys``."""
    for name in names:
        salt = int.from_bytes(hashlib.blake2b(f"{type(name).__name__}:{name}".encode(), digest_size=8).digest(), "big", signed=True)
        keys = _mix((keys ^ salt) + _GOLDEN)
    return keys


def uniform(keys: Tensor, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Independent uniform numbers in [0, 1) for each key: multiples of 2^-24, shape ``(B, *shape)``."""
    size = math.prod(shape)
    words = _words(keys, (size + 1) // 2)
    halves = torch.stack([(words >> 40) & 0xFFFFFF, (words >> 8) & 0xFFFFFF], -1).flatten(1)[:, :size]
    return (halves.to(dtype) * 2.0**-24).reshape(len(keys), *shape)


def normal(keys: Tensor, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Independent standard normal numbers for each key (Box and Muller 1958), shape ``(B, *shape)``."""
    size = math.prod(shape)
    words = _words(keys, (size + 1) // 2)
    u = (((words >> 32) & 0xFFFFFFFF).to(torch.float64) + 0.5) * 2.0**-32
    v = (words & 0xFFFFFFFF).to(torch.float64) * (2.0**-32 * 2 * math.pi)
    radius = (-2 * u.log()).sqrt()
    pairs = torch.stack([radius * v.cos(), radius * v.sin()], -1).flatten(1)[:, :size]
    return pairs.to(dtype).reshape(len(keys), *shape)


def integers(keys: Tensor, high: int, shape: Sequence[int] = ()) -> Tensor:
    """Independent integers in [0, high) for each key, int64, shape ``(B, *shape)``; bias below ``high / 2^53``."""
    words = _words(keys, math.prod(shape))
    unit = ((words >> 11) & ((1 << 53) - 1)).to(torch.float64) * 2.0**-53
    return (unit * high).to(torch.int64).clamp_(max=high - 1).reshape(len(keys), *shape)


def permutation(seed: int, n: int, *names: str | int) -> Tensor:
    """A random order of ``range(n)`` for a named purpose, such as ``permutation(seed, n, "epoch", 3)``; on the CPU."""
    keys = fold(torch.tensor([_checked(seed)]), "permutation", *names)
    return _words(keys, n)[0].argsort()


def generator(seed: int, *names: str | int) -> torch.Generator:
    """A CPU ``torch.Generator`` for a named purpose, where a library wants one (weight initialization, say)."""
    key = fold(torch.tensor([_checked(seed)], device="cpu"), "generator", *names)  # also where the default device is another
    return torch.Generator().manual_seed(int(key) & ((1 << 63) - 1))


def _checked(seed: int) -> int:
    """The seed, unless it is no whole number of 64 bits."""
    if isinstance(seed, bool | float) or not hasattr(seed, "__index__") or not -(1 << 63) <= int(seed) < 1 << 63:
        raise UserError(f"a seed must be a whole number from {-(1 << 63)} to {(1 << 63) - 1}, got {seed!r:.60}")
    return seed


def _words(keys: Tensor, count: int) -> Tensor:
    """``count`` 64-bit words per key, shape ``(B, count)``: SplitMix64 started at the key."""
    counter = torch.arange(1, count + 1, device=keys.device).mul_(_GOLDEN)
    return _mix(keys[:, None] + counter)


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's finalizer, a bijection of 64-bit words. ``>>`` keeps the sign, hence the masks."""
    z = (z ^ ((z >> 30) & ((1 << 34) - 1))) * _MIX1
    z = (z ^ ((z >> 27) & ((1 << 37) - 1))) * _MIX2
    return z ^ ((z >> 31) & ((1 << 33) - 1))
