"""Equivariant layers: as many maps as partitions, by rank; equal to dense matrices; and what is refused."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustlab import gnn
from robustlab.errors import UserError
from robustlab.gnn import equivariant
from robustlab.gnn.equivariant import EquivariantLinear, basis, diagonal, dimension, partitions, set_partitions

SMALL = [(k, to, n) for k, to, n in itertools.product(range(4), range(4), range(1, 7)) if n ** (k + to) <= 1300]


def randomly(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def layer_of(k: int, to: int, seed: int = 0, fan_in: int = 2, fan_out: int = 3) -> EquivariantLinear:
    return EquivariantLinear(k, to, fan_in, fan_out, source=torch.Generator().manual_seed(seed)).double()


def values(k: int, n: int, seed: int = 0, count: int = 2, channels: int = 2) -> Tensor:
    return randomly(count, channels, *[n] * k, seed=seed)


def renumbered(x: Tensor, order: Tensor) -> Tensor:
    """The tensor with node ``i`` in the place of ``order[i]``."""
    for dim in range(2, x.ndim):
        x = x.index_select(dim, order)
    return x


def told(k: int, n: int) -> int | None:
    return None if k else n


def dense(layer: EquivariantLinear, x: Tensor, n: int) -> Tensor:
    """The layer by the matrices of ``basis``, one for each pair of channels."""
    k, to = layer.order_in, layer.order_out
    known, biases = partitions(k, to, n), partitions(0, to, n)
    weight = layer.weight[[set_partitions(k + to).index(one) for one in known]]
    found = torch.einsum("doc,dyx,bcx->boy", weight, basis(k, to, n), x.reshape(*x.shape[:2], -1))
    if layer.bias is not None:
        bias = layer.bias[[set_partitions(to).index(one) for one in biases]]
        found = found + torch.einsum("do,dy->oy", bias, basis(0, to, n)[..., 0])
    return found.reshape(len(x), layer.fan_out, *[n] * to)


def test_partitions_are_counted_by_bell_and_stirling() -> None:
    assert [len(set_partitions(m)) for m in range(8)] == [1, 1, 2, 5, 15, 52, 203, 877]
    assert set_partitions(2) == ((0, 0), (0, 1))
    assert [dimension(k, m - k) for m in range(8) for k in (m // 2,)] == [1, 1, 2, 5, 15, 52, 203, 877]
    assert [dimension(2, 2, n) for n in range(1, 6)] == [1, 8, 14, 15, 15] and dimension(3, 3, 5) == 202 and dimension(3, 3, 6) == 203
    assert dimension(6, 6) == 4_213_597


@pytest.mark.parametrize("k, to, n", SMALL)
def test_the_dimension_is_the_rank_of_the_basis(k: int, to: int, n: int) -> None:
    maps = basis(k, to, n)
    assert len(maps) == dimension(k, to, n) == torch.linalg.matrix_rank(maps.flatten(1))


@pytest.mark.parametrize("k, to, n", [(1, 1, 1), (1, 1, 3), (1, 2, 2), (1, 2, 3), (2, 2, 2), (2, 2, 3), (2, 2, 4), (3, 0, 4)])
def test_there_are_no_other_maps(k: int, to: int, n: int) -> None:
    """Random maps averaged over all renumberings span all that commute; the basis spans the same."""
    maps = randomly(dimension(k, to) + 3, 1, *[n] * (k + to))
    means = sum(renumbered(maps, torch.tensor(order)) for order in itertools.permutations(range(n)))
    means = means.reshape(len(maps), n**k, n**to).transpose(1, 2).flatten(1)
    both = torch.cat([means / means.abs().max(), basis(k, to, n).flatten(1)])
    assert torch.linalg.matrix_rank(means) == torch.linalg.matrix_rank(both) == dimension(k, to, n)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(SMALL), st.integers(0, 2**31))
def test_a_layer_is_its_dense_matrices(case: tuple[int, int, int], seed: int) -> None:
    k, to, n = case
    layer, x = layer_of(k, to, seed), values(k, n, seed)
    wanted = dense(layer, x, n)
    torch.testing.assert_close(layer(x, told(k, n)), wanted, rtol=0, atol=1e-10)
    torch.testing.assert_close(layer.general(x, told(k, n)), wanted, rtol=0, atol=1e-10)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 3), st.integers(0, 3), st.integers(1, 6), st.integers(0, 2**31), st.sampled_from([torch.float32, torch.float64]))
def test_renumbering_before_is_renumbering_after(k: int, to: int, n: int, seed: int, dtype: torch.dtype) -> None:
    layer, x = layer_of(k, to, seed).to(dtype), values(k, n, seed).to(dtype)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    for act in (layer, layer.general):
        apart = act(renumbered(x, order), told(k, n)) - renumbered(act(x, told(k, n)), order)
        assert apart.abs().max() <= (1e-5 if dtype == torch.float32 else 1e-10)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 3), st.integers(0, 3), st.integers(1, 5), st.integers(0, 2**31))
def test_a_batch_is_taken_one_by_one(k: int, to: int, n: int, seed: int) -> None:
    layer, x = layer_of(k, to, seed), values(k, n, seed, count=3)
    torch.testing.assert_close(layer(x), torch.cat([layer(one[None]) for one in x]))
    assert layer(x[:0]).shape == (0, 3, *[n] * to)


@pytest.mark.parametrize("fan_in, fan_out", [(1, 1), (3, 5), (5, 3), (16, 16)])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 11])
def test_the_faster_way_is_the_general_one_with_its_gradients(fan_in: int, fan_out: int, n: int) -> None:
    for dtype, bound in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        layer = layer_of(2, 2, fan_in=fan_in, fan_out=fan_out).to(dtype)
        x = values(2, n, channels=fan_in).to(dtype).requires_grad_()
        towards = values(2, n, 1, channels=fan_out).to(dtype)
        found = [act(x) for act in (layer, layer.general)]
        assert (found[0] - found[1]).abs().max() <= bound
        grads = [torch.autograd.grad((one * towards).mean(), (x, layer.weight, layer.bias)) for one in found]
        assert max(float((a - b).abs().max()) for a, b in zip(*grads, strict=True)) <= bound


@pytest.mark.parametrize("k, to, n", [(2, 2, 2), (2, 2, 4), (1, 2, 3), (2, 1, 3), (2, 0, 3), (0, 2, 3), (3, 1, 2), (1, 1, 4)])
def test_gradients_are_right(k: int, to: int, n: int) -> None:
    layer, x = layer_of(k, to), values(k, n).requires_grad_()

    def act(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x, told(k, n)))

    leaves = (x, layer.weight.detach().requires_grad_(), layer.bias.detach().requires_grad_())
    assert torch.autograd.gradcheck(act, leaves)
    assert (k, to) != (2, 2) or torch.autograd.gradgradcheck(act, leaves)


def test_weights_do_not_depend_on_n() -> None:
    """A constant tensor has the same means at every size, so it becomes the same numbers."""
    layer = layer_of(2, 2)
    first, second = (layer(torch.ones(1, 2, n, n, dtype=torch.float64)) for n in (4, 9))
    torch.testing.assert_close(first[..., 0, 1], second[..., 0, 1])
    torch.testing.assert_close(first[..., 0, 0], second[..., 0, 0])


def test_a_layer_without_a_bias_is_linear() -> None:
    for k, to in ((2, 2), (1, 2), (2, 1)):
        layer = EquivariantLinear(k, to, 2, 3, bias=False).double()
        x, y = values(k, 4), values(k, 4, 1)
        torch.testing.assert_close(layer(x - 2 * y), layer(x) - 2 * layer(y))
        assert layer.bias is None and not layer(torch.zeros_like(x)).any()


def test_no_tensor_holds_all_the_maps() -> None:
    """Of all that is made in a step, nothing is larger than what comes in or goes out, by more than the two ways that A goes."""
    sizes: list[int] = []

    class Watched(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            sizes.extend([found.numel()] if isinstance(found, Tensor) and found.untyped_storage().nbytes() > 0 else [])
            return found

    layer, x = EquivariantLinear(2, 2, 4, 4), values(2, 20, count=1, channels=4).float()
    with torch.no_grad(), Watched():
        layer(x)
        layer.general(x)
    assert max(sizes) == 4 * 20 * 20


def test_the_diagonal_is_a_view() -> None:
    x = values(3, 4)
    assert diagonal(x, (0, 1, 0)).tolist() == torch.einsum("bciji->bcij", x).tolist()
    assert diagonal(x, (0, 1, 0)).data_ptr() == x.data_ptr()


@pytest.mark.parametrize(
    "act, message",
    [
        (lambda: set_partitions(-1), "a set of -1 things has no partitions"),
        (lambda: set_partitions(11), "678,570 partitions of 11 things are too many to list: at most 10"),
        (lambda: dimension(-1, 2), "orders of tensors must be 0 or more, .* got -1 and 2"),
        (lambda: dimension(150, 150), "200 at most together, got 150 and 150"),
        (lambda: dimension(1, 1, 0), "at least one node, got n = 0"),
        (lambda: basis(2, 2, 100), "from order 2 to order 2 have dimension 15, and their dense matrices at n = 100 would take 12 GB"),
        (lambda: EquivariantLinear(6, 6, 1, 1), "from order 6 to order 6 have dimension 4,213,597, too many to list"),
        (lambda: EquivariantLinear(2, -2, 1, 1), "got 2 and -2"),
        (lambda: EquivariantLinear(5, 5, 64, 64), "dimension 115,975, and the weights of 64 x 64 channels would take 1.9 GB"),
        (lambda: EquivariantLinear(2, 2, 0, 1), "at least one channel, got 0 and 1"),
        (lambda: EquivariantLinear(1, 3, 1, 8)(torch.zeros(1, 1, 900)), "dimension 15, and what comes out at n = 900 would take 46.7 GB"),
        (lambda: EquivariantLinear(2, 2, 1, 1)(torch.zeros(1, 1, 3, 4)), r"the shape \(B, 1, n, n\), got \(1, 1, 3, 4\)"),
        (lambda: EquivariantLinear(2, 2, 2, 1)(torch.zeros(1, 1, 3, 3)), r"the shape \(B, 2, n, n\), got \(1, 1, 3, 3\)"),
        (lambda: EquivariantLinear(1, 1, 1, 1)(torch.zeros(1, 1, 0)), "at least one node"),
        (lambda: EquivariantLinear(0, 1, 1, 1)(torch.zeros(1, 1)), "to be told `n`"),
    ],
)
def test_what_cannot_be_is_refused_with_its_dimension_first(act, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equivariant, "memory_bytes", lambda: 10**9)
    with pytest.raises(UserError, match=message):
        act()


def test_the_package_has_them() -> None:
    assert gnn.EquivariantLinear is EquivariantLinear and gnn.dimension(2, 2) == 15
