"""Endless supplies of graphs to train and to test on, drawn at random or a finite set over and over: a graph is a function of the source
and the graph's number."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.gnn.generators import signal_to_noise, stochastic_block_model
from robustlab.gnn.graphs import GraphBatch, side_by_side


class Source(Protocol):
    """A frozen dataclass of settings that JSON holds; called with the first number and a count."""

    def __call__(self, first: int, count: int) -> GraphBatch: ...


def described(source: Any) -> dict[str, Any]:
    """A source's kind and settings, in values that JSON holds."""
    settings = source.settings if isinstance(source, GivenGraphs) else asdict(source)
    return {"kind": type(source).__name__, **settings}


@dataclass(frozen=True)
class BlockModels:
    """Graphs of one stochastic block model; see ``stochastic_block_model`` for the attributes."""

    n: int
    k: int
    inside: float
    between: float
    seed: int = 0

    def __call__(self, first: int, count: int) -> GraphBatch:
        """Graphs number ``first`` to ``first + count - 1``."""
        return stochastic_block_model(self.n, self.k, inside=self.inside, between=self.between, graphs=count, seed=self.seed, first=first)


@dataclass(frozen=True)
class Mixture:
    """Graphs of two communities with one mean degree ``c``, each of a block model of its own: the difference ``a - b`` is drawn uniformly
    from those with a signal-to-noise ratio of at least ``least``, and its sign by a fair coin (the second scenario of Chen, Li and Bruna
    2019).

    Attributes:
        n: nodes.
        degree: the mean degree, above ``least``.
        least: the smallest signal-to-noise ratio.
        seed: of all graphs.
    """

    n: int
    degree: float = 3.0
    least: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.least < self.degree:
            raise UserError(f"a mean degree of {self.degree:g} gives signal-to-noise ratios below it, so not {self.least:g}")

    def parameters(self, first: int, count: int) -> list[tuple[float, float]]:
        """The pairs ``(a, b)`` of some graphs: ``inside = a / n``, ``between = b / n``."""
        draws = seeding.uniform(seeding.fold(seeding.example_keys(self.seed, torch.arange(first, first + count)), "mixture"), (2,))
        # With a + b = 2 c the ratio is (a - b)^2 / (4 c).
        smallest = (4 * self.degree * self.least) ** 0.5
        found = []
        for share, coin in draws.double().tolist():
            half = (smallest + share * (2 * self.degree - smallest)) / 2 * (1 if coin < 0.5 else -1)
            found.append((self.degree + half, self.degree - half))
        return found

    def __call__(self, first: int, count: int) -> GraphBatch:
        """Graphs number ``first`` to ``first + count - 1``."""
        pairs = enumerate(self.parameters(first, count), first)
        graphs = [
            stochastic_block_model(self.n, 2, inside=a / self.n, between=b / self.n, seed=self.seed, first=number)
            for number, (a, b) in pairs
        ]
        return side_by_side(graphs)


@dataclass(frozen=True, eq=False)
class GivenGraphs:
    """A finite set of graphs, over and over: each pass has every graph once, in an order of its own. A batch at the end of a pass goes on
    with the next one, so that all batches are of one size; a graph can be in it twice.

    Attributes:
        graphs: the set, such as ``graphs.some(which)``.
        seed: of the orders.
    """

    graphs: GraphBatch
    seed: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """In values that JSON holds: of the graphs a fingerprint."""
        return {"graphs": fingerprint(self.graphs), "count": len(self.graphs), "seed": self.seed}

    def __call__(self, first: int, count: int) -> GraphBatch:
        """Graphs number ``first`` to ``first + count - 1``: of ``n`` graphs, number ``i`` is in pass ``i // n``."""
        n, numbers = len(self.graphs), torch.arange(first, first + count)
        passes = numbers // n
        orders = {one: seeding.permutation(self.seed, n, "pass", one) for one in passes.unique().tolist()}
        return self.graphs.some(torch.cat([order[numbers[passes == one] % n] for one, order in orders.items()]))


def fingerprint(graphs: GraphBatch) -> str:
    """SHA-256 of all that is known of some graphs, in hexadecimal."""
    digest = hashlib.sha256()
    for name in ("edge_index", "sizes", "x", "y", "keys"):
        value = getattr(graphs, name)
        if value is not None:
            array = value.cpu().contiguous().numpy()
            digest.update(f"{name} {array.dtype.str} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def dissociative_five(n: int = 400, seed: int = 0) -> BlockModels:
    """The 5-community graphs of Chen, Li and Bruna 2019: no edge within a community, ``18 / n`` from one to another, signal-to-noise ratio
    0.9."""
    return BlockModels(n, 5, 0.0, 18 / n, seed)


def ratio_of(source: BlockModels) -> float:
    """The signal-to-noise ratio of a source."""
    return signal_to_noise(source.n * source.inside, source.n * source.between, source.k)
