"""The protocol of BREC (Wang and Zhang 2024): a network is trained to answer differently for renumbered copies of two graphs, and a test
says whether it does, beside the numerical noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from robustlab import seeding
from robustlab.gnn.generators import renumbered
from robustlab.gnn.graphs import GraphBatch, side_by_side
from robustlab.gnn.networks import GraphNetwork
from robustlab.gnn.sources import fingerprint
from robustlab.training.graphs import GraphTraining, train_graphs
from robustlab.training.losses import Outcome

COPIES, EPOCHS, BATCH, LR = 32, 20, 16, 1e-4
THRESHOLD = 72.34  # of T^2, the paper's


@dataclass(frozen=True, eq=False)
class Copies:
    """Renumbered copies of two graphs in turn, over and over.

    Attributes:
        pair: two graphs.
        count: copies of each.
        seed: of their numbers.
    """

    pair: GraphBatch
    count: int = COPIES
    seed: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """In values that JSON holds."""
        return {"pair": fingerprint(self.pair), "count": self.count, "seed": self.seed}

    def __call__(self, first: int, count: int) -> GraphBatch:
        """Graphs number ``first`` to ``first + count - 1``: copy ``i // 2`` of graph ``i % 2``."""
        numbers = torch.arange(first, first + count) % (2 * self.count)
        one, other = self.pair.one(0), self.pair.one(1)
        many = side_by_side([(one, other)[int(number) % 2] for number in numbers])
        return renumbered(replace(many, keys=seeding.example_keys(self.seed, numbers)))[0]


def alike(model: nn.Module, batch: GraphBatch) -> Outcome:
    """The cosine of the angle between the answers to graphs 2 i and 2 i + 1, where it is positive: a loss for each graph."""
    answers = model(batch)
    loss = cosine_similarity(answers[::2], answers[1::2]).clamp(min=0)
    return Outcome(loss.repeat_interleave(2), {})


def t_squared(network: GraphNetwork, copies: Copies) -> float:
    """Hotelling's T^2 of the differences between the answers to both graphs, over copies, without the factor of their number, as in the
    published code."""
    with torch.no_grad():
        answers = network(copies(0, 2 * copies.count))
    apart: Tensor = (answers[::2] - answers[1::2]).T
    mean = apart.mean(1)
    return float(mean @ torch.linalg.pinv(torch.cov(apart)) @ mean)


def judged_pair(network: GraphNetwork, pair: GraphBatch, *, seed: int = 0, stop: Callable[[], bool] = lambda: False) -> tuple[bool, bool]:
    """Whether a network that is trained for it tells two graphs apart, and whether it claims to tell one of them from itself.

    The published code also lets weights decay by 1e-4 and ends early at a loss of 0.2.

    Args:
        network: to begin with.
        pair: two graphs.
        seed: of the copies.
        stop: asked after every step.

    Raises:
        Stopped: ``stop`` gave a true answer.
    """
    copies = Copies(pair, seed=seed)
    training = GraphTraining(EPOCHS * 2 * COPIES, EPOCHS, BATCH, lr=LR, optimizer="adam")
    trained = train_graphs(network, copies, alike, training, stop=stop).network
    same = Copies(side_by_side([pair.one(0), pair.one(0)]), seed=seed + 1_000_000)
    found, noise = t_squared(trained, copies), t_squared(trained, same)
    return found > THRESHOLD and abs(found - noise) > 1e-6, noise > THRESHOLD
