"""Truths that several tests assert, and the draws of hypothesis that go with them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor, nn

from robustlab.constraints import ThreatModel
from robustlab.norms import L1, L2, AttackNorm, FourierL1, FourierLinf, Linf, Lp, Norm, Nuclear, Spectral

ALL_NORMS: list[AttackNorm] = [L1(), L2(), Linf()]
# What an optimizer may move along too: no projections and no draws.
OPTIMIZER_NORMS: list[Norm] = [*ALL_NORMS, Lp(1.1), Lp(1.5), Lp(4.0), FourierL1(), FourierLinf(), Spectral(), Nuclear()]
every_norm = pytest.mark.parametrize("norm", ALL_NORMS, ids=lambda norm: type(norm).__name__)
every_optimizer_norm = pytest.mark.parametrize("norm", OPTIMIZER_NORMS, ids=repr)

# The same examples in every run, no clock, and no database beside the sources.
seeded = settings(derandomize=True, deadline=None, max_examples=60, database=None)


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers from a seed."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Uniform images in [0, 1) from a seed."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# Where rounding goes wrong: both ends of the pixel range, their neighbours, denormal numbers, and 8-bit values.
NASTY = [0.0, 1.0, 1e-45, 1e-38, 2.0**-126, 1e-7, 0.5, 1 - 2.0**-24, 2.0**-24, 1 / 255, 8 / 255, 254 / 255]
pixels = st.one_of(st.sampled_from(NASTY), st.integers(0, 255).map(lambda v: v / 255), st.floats(0, 1, width=32))
anything = st.one_of(pixels, st.floats(-4, 4, width=32), st.sampled_from([-6e4, 6e4]))
radii = st.one_of(st.sampled_from([0.0, 1e-300, 1e-45, 1e-12, 8 / 255, 0.5, 1.0, 1e6, 1e300]), st.floats(0, 3, allow_subnormal=False))


@st.composite
def batches(draw: st.DrawFn, *values: st.SearchStrategy[float], size: int = 8) -> list[Tensor]:
    """One float64 tensor ``(B, 1, D)`` for each strategy of values, all of the same shape, up to ``size`` values per example."""
    count, width = draw(st.integers(1, 3)), draw(st.integers(1, size))
    rows = [draw(st.lists(value, min_size=count * width, max_size=count * width)) for value in values]
    return [torch.tensor(row, dtype=torch.float64).reshape(count, 1, width) for row in rows]


def threat_of(norm: AttackNorm, eps: float) -> ThreatModel:
    """The threat model of that radius, in Linf of at most the whole range of pixels: no wider one can be made."""
    return ThreatModel(norm, min(eps, 1.0) if isinstance(norm, Linf) else eps)


def assert_within(threat: ThreatModel, x: Tensor, x_adv: Tensor) -> None:
    """``x_adv`` lies in the threat model around ``x``: measured in float64, forwards and backwards, without tolerance."""
    delta = x_adv.double() - x.double()
    assert (threat.norm.measure(delta) <= threat.eps).all()
    assert (threat.norm.measure(delta.flatten(1).flip(1).reshape(delta.shape)) <= threat.eps).all()
    assert 0 <= float(x_adv.min()) and float(x_adv.max()) <= 1
    assert x_adv.shape == x.shape and x_adv.dtype == x.dtype


def inventory(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that borrowing it might change, with copies of all values."""
    return {
        "modes": {name: module.training for name, module in model.named_modules()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "objects": {name: (id(p), id(p.grad)) for name, p in model.named_parameters()} | {n: id(b) for n, b in model.named_buffers()},
        "values": {name: p.detach().clone() for name, p in [*model.named_parameters(), *model.named_buffers()]},
        "grads": {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None},
        "random": torch.get_rng_state(),
    }


@contextmanager
def untouched(model: nn.Module, *tensors: Tensor) -> Iterator[None]:
    """Modes, flags, gradients, values and the global random state are bit-identical afterwards, and so are ``tensors``."""
    before, copies = inventory(model), [t.clone() for t in tensors]
    try:
        yield
    finally:
        after = inventory(model)
        for what in ("modes", "requires_grad", "objects"):
            assert after[what] == before[what], f"{what} changed"
        for what in ("values", "grads"):
            assert after[what].keys() == before[what].keys()
            changed = [name for name, value in after[what].items() if not torch.equal(value, before[what][name])]
            assert not changed, f"{what} changed: {changed}"
        assert torch.equal(after["random"], before["random"]), "the global random state changed"
        assert all(map(torch.equal, tensors, copies)), "an argument changed"


def restless(model: nn.Module) -> nn.Module:
    """A model in a state that is easy to lose: training, but for every second layer; some flags off; gradients on some parameters."""
    model.train()
    for i, module in enumerate(model.children()):
        module.train(i % 2 == 0)
    for i, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(i % 3 != 0)
        parameter.grad = torch.full_like(parameter, 0.5) if i % 2 else None
    return model


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """A real failure in the middle of a write: the operating system lets no file grow beyond ``limit`` bytes."""
    resource = pytest.importorskip("resource", reason="only POSIX systems limit the size of files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
