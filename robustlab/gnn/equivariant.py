"""Linear layers that treat all nodes alike (Maron et al. 2019): from tensors with k indices of nodes to tensors with l.

A partition of the k + l indices is one such map. Input entries whose indices in a block differ are passed over, blocks of input indices
alone are averaged away, blocks with indices of both carry over, and output entries whose indices in a block differ get zero. All linear
maps that commute with renumbering are sums of these; where n < k + l, the partitions of more than n blocks depend on the others.

    layer = EquivariantLinear(2, 2, 1, 64)
    y = layer(adjacency[:, None])            # (B, 1, n, n) -> (B, 64, n, n), for every n
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache, reduce
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robustlab.data.limits import memory_bytes, readable
from robustlab.errors import UserError

MOST = 10  # indices whose partitions are listed: 115,975 of them

Partition = tuple[int, ...]  # the block of each index; blocks are numbered as they come


@lru_cache
def set_partitions(m: int) -> tuple[Partition, ...]:
    """All partitions of ``m`` things, each as the block of every thing: ``(0, 0, 1)`` puts the third apart.

    Raises:
        UserError: m below 0, or above 10.
    """
    if m < 0:
        raise UserError(f"a set of {m} things has no partitions: 0 or more are meant")
    if m > MOST:
        raise UserError(f"{dimension(m, 0):,} partitions of {m} things are too many to list: at most {MOST} things")
    return tuple(_grown((), m))


def _grown(begin: Partition, m: int) -> Iterator[Partition]:
    if len(begin) == m:
        yield begin
        return
    for block in range(max(begin, default=-1) + 2):
        yield from _grown((*begin, block), m)


def dimension(order_in: int, order_out: int, n: int | None = None) -> int:
    """How many independent linear maps of tensors commute with renumbering ``n`` nodes: the partitions into at most ``n`` blocks.

    Args:
        order_in, order_out: indices of the tensors that go in and come out.
        n: nodes; as many as there are indices, or more, if left out.

    Raises:
        UserError: an order below 0, orders above 200 together, or no nodes.
    """
    _check_orders(order_in, order_out)
    m = order_in + order_out
    if n is not None and n < 1:
        raise UserError(f"tensors need at least one node, got n = {n}")
    row = [1]  # Stirling numbers: partitions of as many things into 0, 1, ... blocks
    for _ in range(m):
        row = [0, *(blocks * there + fewer for blocks, there, fewer in zip(range(1, len(row) + 1), [*row[1:], 0], row, strict=True))]
    return sum(row if n is None else row[: n + 1])


def partitions(order_in: int, order_out: int, n: int | None = None) -> tuple[Partition, ...]:
    """The partitions of at most ``n`` blocks, whose maps are independent and make all others.

    Args:
        order_in, order_out, n: as in ``dimension``.

    Raises:
        UserError: an order below 0, orders above 10 together, or no nodes.
    """
    _check_listed(order_in, order_out, n)
    found = set_partitions(order_in + order_out)
    return found if n is None else tuple(one for one in found if max(one, default=-1) < n)


def basis(order_in: int, order_out: int, n: int) -> Tensor:
    """The maps of ``partitions`` as dense matrices, float64 ``(D, n^order_out, n^order_in)``: small cases only, to compare with.

    Args:
        order_in, order_out, n: as in ``dimension``.

    Raises:
        UserError: matrices that do not fit memory, an order below 0, orders above 10 together, or no nodes.
    """
    _check_listed(order_in, order_out, n)
    found, m = partitions(order_in, order_out, n), order_in + order_out
    _check_memory(order_in, order_out, len(found), 8 * len(found) * n**m, "their dense matrices", n)
    maps = torch.zeros(len(found), 1, *[n] * m, dtype=torch.float64)
    for one, place in zip(found, maps, strict=True):
        averaged = set(one[:order_in]) - set(one[order_in:])
        diagonal(place[None], one).fill_(float(n) ** -len(averaged))
    return maps.reshape(len(found), n**order_in, n**order_out).transpose(1, 2)


def diagonal(x: Tensor, pattern: Partition) -> Tensor:
    """The entries whose indices in a block agree, as a view: from ``(B, C, n, ..., n)`` to ``(B, C)`` and an index of each block."""
    axes = list(pattern)
    while len(axes) > len(set(axes)):
        block = next(block for block in axes if axes.count(block) > 1)
        first = axes.index(block)
        second = axes.index(block, first + 1)
        x = x.diagonal(dim1=2 + first, dim2=2 + second)
        axes = [*axes[:first], *axes[first + 1 : second], *axes[second + 1 :], block]
    return x.permute(0, 1, *(2 + axes.index(block) for block in range(len(axes))))


class Piece(NamedTuple):
    """A contraction of the input: its ``diagonal``, averaged over all blocks but the ``kept``. Of the output, where it is written."""

    pattern: Partition
    kept: Partition


class Route(NamedTuple):
    """How an input piece reaches all output pieces of as many indices.

    Attributes:
        piece: the input's.
        turn: which of its indices each index of the output piece is.
        numbers: the partition for each output piece.
    """

    piece: Piece
    turn: Partition
    numbers: tuple[int, ...]


@lru_cache
def _routes(order_in: int, order_out: int) -> tuple[tuple[tuple[Piece, ...], tuple[Route, ...]], ...]:
    """For each number of indices that carry over: the output pieces, and the routes to them."""
    found: dict[int, dict[tuple[Piece, Partition], dict[Piece, int]]] = {}
    for number, one in enumerate(set_partitions(order_in + order_out)):
        inner, outer = one[:order_in], one[order_in:]
        names = list(dict.fromkeys(outer))
        mixed = [block for block in names if block in inner]
        kept = tuple(sorted(mixed))
        source = Piece(inner, kept), tuple(kept.index(block) for block in mixed)
        target = Piece(tuple(names.index(block) for block in outer), tuple(names.index(block) for block in mixed))
        found.setdefault(len(kept), {}).setdefault(source, {})[target] = number
    steps = []
    for routes in found.values():
        targets = tuple(next(iter(routes.values())))
        steps.append((targets, tuple(Route(*source, tuple(there[one] for one in targets)) for source, there in routes.items())))
    return tuple(steps)


class EquivariantLinear(nn.Module):
    """Any linear map from ``(B, fan_in, n, ..., n)`` to ``(B, fan_out, n, ..., n)`` that commutes with renumbering the nodes, and a bias.

    The same weights serve every n: sums over nodes are means. Where n is below the number of indices, the partitions of more than n blocks
    are left out. Each contraction of the input is made once, the weights act on it, and the result is spread: no tensor holds all maps.
    First weights are those of He et al. 2015 for layers with ReLU, as no norm follows.

    Attributes:
        weight: of each partition of the indices, in the order of ``set_partitions``: ``(D, fan_out, fan_in)``.
        bias: of each partition of the output's indices: ``(D', fan_out)``; zero where the output's indices in a block differ. Or None.

    Args:
        order_in, order_out: indices of the tensors.
        fan_in, fan_out: channels.
        bias: have one.
        source: random numbers of the first weights.

    Raises:
        UserError: orders below 0 or above 10 together, channels below 1, or weights that do not fit memory.
    """

    def __init__(
        self, order_in: int, order_out: int, fan_in: int, fan_out: int, *, bias: bool = True, source: torch.Generator | None = None
    ) -> None:
        super().__init__()
        _check_listed(order_in, order_out)
        if min(fan_in, fan_out) < 1:
            raise UserError(f"a layer needs at least one channel, got {fan_in} and {fan_out}")
        count, biases = dimension(order_in, order_out), dimension(0, order_out)
        _check_memory(order_in, order_out, count, 4 * count * fan_in * fan_out, f"the weights of {fan_in} x {fan_out} channels")
        self.order_in, self.order_out, self.fan_in, self.fan_out = order_in, order_out, fan_in, fan_out
        self.weight = drawn((count, fan_out, fan_in), math.sqrt(6 / (count * fan_in)), source)
        self.bias = drawn((biases, fan_out), 1 / math.sqrt(count * fan_in), source) if bias else None

    def extra_repr(self) -> str:
        return f"{self.order_in}, {self.order_out}, {self.fan_in}, {self.fan_out}, bias={self.bias is not None}"

    def forward(self, x: Tensor, n: int | None = None) -> Tensor:
        """From ``(B, fan_in, n, ..., n)`` to ``(B, fan_out, n, ..., n)``.

        Args:
            x: values.
            n: nodes, where ``order_in`` is 0 and the input does not say.

        Raises:
            UserError: another shape, no nodes, or an output that does not fit memory.
        """
        n = self._nodes(x, n)
        if (self.order_in, self.order_out) == (2, 2):
            bias = x.new_zeros(2, self.fan_out) if self.bias is None else self._bias(n)
            found: Tensor = _TwoToTwo.apply(x, self._weight(n)[list(TWO_TO_TWO)], bias)
            return found
        return self.general(x, n)

    def general(self, x: Tensor, n: int | None = None) -> Tensor:
        """The same for any orders, without the faster way from 2 to 2."""
        n = self._nodes(x, n)
        weight = self._weight(n)
        known: dict[Piece, Tensor] = {}
        spread: dict[Partition, Tensor] = {}
        for targets, routes in _routes(self.order_in, self.order_out):
            routed = (_routed(_piece(x, route.piece, known), weight[list(route.numbers)], route.turn) for route in routes)
            for target, part in zip(targets, reduce(torch.add, routed).unbind(1), strict=True):
                shape = [n if block in target.kept else 1 for block in range(_blocks(target.pattern))]
                here = part.reshape(*part.shape[:2], *shape)
                spread[target.pattern] = spread[target.pattern] + here if target.pattern in spread else here
        finest = max(spread, key=_blocks)
        out = spread.pop(finest).expand(len(x), self.fan_out, *[n] * self.order_out)
        out = out.clone(memory_format=torch.contiguous_format)
        for pattern, values in spread.items():
            diagonal(out, pattern).add_(values)
        if self.bias is None:
            return out
        for pattern, values in zip(set_partitions(self.order_out), self._bias(n), strict=True):
            diagonal(out, pattern).add_(values.reshape(1, -1, *[1] * _blocks(pattern)))
        return out

    def _nodes(self, x: Tensor, n: int | None) -> int:
        sizes = {*x.shape[2:], *([] if n is None else [n])}
        if x.ndim != 2 + self.order_in or x.shape[1] != self.fan_in or len(sizes) > 1:
            shape = ", ".join(["B", str(self.fan_in), *["n"] * self.order_in])
            raise UserError(f"the layer wants values of the shape ({shape}), got {tuple(x.shape)}")
        if not sizes and self.order_out:
            raise UserError("the layer wants to be told `n`, as its input has no index of nodes")
        n = sizes.pop() if sizes else 1
        if n < 1:
            raise UserError("the layer wants at least one node, got a tensor without any")
        needed = 2 * len(x) * self.fan_out * n**self.order_out * x.element_size()
        _check_memory(self.order_in, self.order_out, self.weight.shape[0], needed, "what comes out", n, x.device)
        return n

    def _weight(self, n: int) -> Tensor:
        """The weights, with zeros for the partitions of more blocks than nodes."""
        if n >= self.order_in + self.order_out:
            return self.weight
        return self.weight * _at_most(self.order_in + self.order_out, n, self.weight)[:, None, None]

    def _bias(self, n: int) -> Tensor:
        """The biases, with zeros for the partitions of more blocks than nodes."""
        assert self.bias is not None
        return self.bias if n >= self.order_out else self.bias * _at_most(self.order_out, n, self.bias)[:, None]


def drawn(shape: tuple[int, ...], bound: float, source: torch.Generator | None = None) -> nn.Parameter:
    """A parameter uniform within ``bound``, from a generator. On the meta device it has a shape only."""
    if torch.get_default_device().type == "meta":
        return nn.Parameter(torch.empty(shape))
    return nn.Parameter(torch.empty(shape, device="cpu").uniform_(-bound, bound, generator=source))


def _blocks(pattern: Partition) -> int:
    return max(pattern, default=-1) + 1


def _at_most(m: int, n: int, like: Tensor) -> Tensor:
    """One for the partitions of ``m`` things into at most ``n`` blocks, else zero."""
    return torch.tensor([float(_blocks(one) <= n) for one in set_partitions(m)], dtype=like.dtype, device=like.device)


def _piece(x: Tensor, piece: Piece, known: dict[Piece, Tensor]) -> Tensor:
    """A contraction of the input, by way of those with one index more."""
    if piece not in known:
        left = [block for block in range(_blocks(piece.pattern)) if block not in piece.kept]
        if left:
            more = Piece(piece.pattern, tuple(sorted((*piece.kept, left[-1]))))
            known[piece] = _piece(x, more, known).mean(2 + more.kept.index(left[-1]))
        else:
            known[piece] = diagonal(x, piece.pattern)
    return known[piece]


def _routed(piece: Tensor, weight: Tensor, turn: Partition) -> Tensor:
    """The weights ``(Q, fan_out, fan_in)`` on a piece ``(B, fan_in, n, ...)``, its indices turned: ``(B, Q, fan_out, n, ...)``."""
    values = weight.flatten(0, 1) @ piece.reshape(*piece.shape[:2], math.prod(piece.shape[2:]))
    values = values.reshape(len(piece), *weight.shape[:2], *piece.shape[2:])
    return values.permute(0, 1, 2, *(3 + a for a in turn))


# From 2 to 2: A and its transpose; rows, columns and the diagonal, each from the means of rows and of columns and from the diagonal;
# all and the diagonal, each from the total and the trace. The numbers are those of ``set_partitions(4)``.
TWO_TO_TWO = (6, 8, 7, 10, 1, 11, 12, 2, 5, 9, 0, 14, 4, 13, 3)


class _Means(NamedTuple):
    """Of a tensor ``(B, C, n, n)``: means of rows and of columns and the diagonal, ``(B, 3 C, n)``; total and trace, ``(B, 2 C)``."""

    vectors: Tensor
    scalars: Tensor

    @classmethod
    def of(cls, x: Tensor) -> _Means:
        rows, straight = x.mean(3), x.diagonal(dim1=2, dim2=3)
        return cls(torch.cat([rows, x.mean(2), straight], 1), torch.cat([rows.mean(2), straight.mean(2)], 1))


class _TwoToTwo(torch.autograd.Function):
    """The fifteen maps from 2 to 2 in one pass each way. What the layer makes of a gradient is such a layer again, with the weights
    transposed; nothing is kept for it but the input and the weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """``weight`` is ``(15, fan_out, fan_in)`` in the order of ``TWO_TO_TWO``, ``bias`` ``(2, fan_out)``: the diagonal, and all."""
        ctx.save_for_backward(x, weight)
        return _two_to_two(x, weight, _Means.of(x), bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        means, n = _Means.of(grad), grad.shape[-1]
        back = _two_to_two(grad, _adjoint(weight, n), means) if ctx.needs_input_grad[0] else None
        every, trace = means.scalars.sum(0).chunk(2)
        return back, _weight_gradient(x, grad, means) if ctx.needs_input_grad[1] else None, torch.stack([n * trace, n * n * every])


def _two_to_two(x: Tensor, weight: Tensor, means: _Means, bias: Tensor | None = None) -> Tensor:
    count, (_, fan_out, fan_in), n = len(x), weight.shape, x.shape[-1]
    flat = x.reshape(count, fan_in, n * n)
    vectors = weight[2:11].reshape(3, 3, fan_out, fan_in).transpose(1, 2).reshape(3 * fan_out, 3 * fan_in)
    scalars = weight[11:].reshape(2, 2, fan_out, fan_in).transpose(1, 2).reshape(2 * fan_out, 2 * fan_in)
    rows, columns, straight = (vectors @ means.vectors).split(fan_out, 1)
    every, trace = (means.scalars @ scalars.T).split(fan_out, 1)
    if bias is not None:
        every, trace = every + bias[1], trace + bias[0]
    out = (weight[0] @ flat).reshape(count, fan_out, n, n)
    out += (weight[1] @ flat).reshape(count, fan_out, n, n).transpose(2, 3)
    out += (rows + every[..., None])[..., None]
    out += columns[:, :, None]
    out.diagonal(dim1=2, dim2=3).add_(straight + trace[..., None])
    return out


TRANSPOSED = (0, 1, 2, 5, 8, 3, 6, 9, 4, 7, 10, 11, 13, 12, 14)  # where the weights of ``TWO_TO_TWO`` stand in those of the transposed map


def _adjoint(weight: Tensor, n: int) -> Tensor:
    """The weights of the transposed map: what was a mean over nodes is spread to them, and what was spread is summed."""
    vectors, scalars = (n, n, 1), (n * n, n)  # entries over which the parts of ``_Means`` are means
    ratios = [1.0, 1.0, *(a / b for b in vectors for a in vectors), *(a / b for b in scalars for a in scalars)]
    scale = torch.tensor(ratios, dtype=weight.dtype, device=weight.device)
    return weight[list(TRANSPOSED)].transpose(1, 2) * scale[:, None, None]


def _weight_gradient(x: Tensor, grad: Tensor, means: _Means) -> Tensor:
    count, fan_in, n, _ = x.shape
    fan_out, theirs = grad.shape[1], _Means.of(x)
    flat, seen = grad.reshape(count, fan_out, -1), x.reshape(count, fan_in, -1)
    turned = grad.transpose(2, 3).reshape(count, fan_out, -1)
    matrices = torch.stack([(one @ seen.transpose(1, 2)).sum(0) for one in (flat, turned)])
    spread = torch.tensor([n, n, 1], dtype=grad.dtype, device=grad.device)[:, None, None, None]
    vectors = (means.vectors @ theirs.vectors.transpose(1, 2)).sum(0).reshape(3, fan_out, 3, fan_in).transpose(1, 2) * spread
    spread = torch.tensor([n * n, n], dtype=grad.dtype, device=grad.device)[:, None, None, None]
    scalars = (means.scalars.T @ theirs.scalars).reshape(2, fan_out, 2, fan_in).transpose(1, 2) * spread
    return torch.cat([matrices, vectors.flatten(0, 1), scalars.flatten(0, 1)])


def _check_orders(order_in: int, order_out: int) -> None:
    if min(order_in, order_out) < 0 or order_in + order_out > 200:
        raise UserError(f"orders of tensors must be 0 or more, and 200 at most together, got {order_in} and {order_out}")


def _check_listed(order_in: int, order_out: int, n: int | None = None) -> None:
    count = dimension(order_in, order_out, n)
    if order_in + order_out > MOST:
        raise UserError(
            f"the maps from order {order_in} to order {order_out} have dimension {count:,}, too many to list: "
            f"orders of at most {MOST} together"
        )


def _check_memory(
    order_in: int, order_out: int, count: int, needed: int, what: str, n: int | None = None, device: torch.device | None = None
) -> None:
    on_gpu = device is not None and device.type == "cuda"
    memory = torch.cuda.get_device_properties(device).total_memory if on_gpu else memory_bytes()
    if memory is not None and needed > memory:
        where = "" if n is None else f" at n = {n}"
        raise UserError(
            f"the maps from order {order_in} to order {order_out} have dimension {count:,}, and {what}{where} would take "
            f"{readable(needed)}: this machine has {readable(memory)} of memory"
        )
