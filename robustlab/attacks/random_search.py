"""Random search on logits alone: change something, keep the change where the loss falls or the goal is achieved, again and again."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.attacks.protocols import Asked, Checked
from robustlab.attacks.starts import Starts, believed, first_else_best
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.goals import margin
from robustlab.norms import expanded
from robustlab.objectives import Objective, evaluate_objective
from robustlab.optimize import Solution
from robustlab.subsets import Indivisible, restricted

_LOOK = 10  # queries between two looks at who is done


@dataclass(frozen=True, eq=False)
class Proposal:
    """New values at some places of each image; all others stay.

    Attributes:
        patches: pairs of places, int64 ``(B, n)``, and values ``(B, n)``; where patches overlap the later one counts.
        spent: what the moves remember then, see ``Moves``.
    """

    patches: tuple[tuple[Tensor, Tensor], ...]
    spent: Tensor


class Moves(Protocol):
    """Where a random search starts and what it tries next, for each example by itself."""

    @property
    def draws(self) -> int:
        """How many uniform numbers one move takes."""
        ...

    def start(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        """The first points ``(B, D)`` for keys ``(B,)``, and what is remembered of them, ``(B, ...)``: what they have spent of their
        radius, say, or where they differ from the images."""
        ...

    def propose(self, x: Tensor, spent: Tensor, share: float, draws: Tensor) -> Proposal:
        """A change.

        Args:
            x: the points, shape ``(B, D)``.
            spent: what is remembered of them.
            share: how much is to change: of the pixels, or of those that are changed.
            draws: uniform in [0, 1), float64 ``(B, draws)``.
        """
        ...

    def at(self, index: Tensor) -> Moves:
        """The moves of some of the examples."""
        ...


@dataclass(frozen=True)
class RandomSearch(Checked):
    """An attack by random search. Every draw belongs to an example and the number of the query.

    Of each image the first point is returned that achieves the goal, else the best one.

    A call costs an example that withstands, for each start, ``queries`` forward passes and one for the start. An example that is fooled
    stays as it is; the device is asked every 10 queries who is, and they leave the batch then.

    Attributes:
        threat: what the adversary may do.
        queries: changes to try from each start.
        restarts: independent starts; each further one runs only the examples that withstood all before it.
    """

    threat: ThreatModel
    queries: int = 5000
    restarts: int = 1
    label: ClassVar[str]  # without the threat model

    def __post_init__(self) -> None:
        if self.queries < 0 or self.restarts < 1:
            raise UserError(f"{self.label} needs queries >= 0 and restarts >= 1, got {self.queries} and {self.restarts}")

    def __str__(self) -> str:
        many = f"x{self.restarts}" if self.restarts > 1 else ""
        numbers = f"-{self.queries}{many}" if (self.queries, self.restarts) != (5000, 1) else ""
        return f"{self.label}{numbers} ({self.threat})"

    @abstractmethod
    def share(self, query: int) -> float:
        """How much a query is to change; queries count from 0."""

    @abstractmethod
    def _moves(self, x: Tensor) -> Moves:
        """How the images ``x`` may change."""

    @property
    def passes_in_a_row(self) -> int:
        return self.queries

    @torch.no_grad()
    def _solve(self, asked: Asked) -> Solution:
        objectives, judges = asked.objectives((asked.goal(margin),))
        x = asked.x
        run = Starts(objectives, judges, self.threat.around(x), self._moves(x), x, self.threat.radius(x), asked.keys)
        return first_else_best(run, self.restarts, self._start)

    def _start(self, run: Starts, number: int) -> Solution:
        search = _Search.started(run, seeding.fold(run.keys, self.label.lower(), number))
        for first in range(0, self.queries if run.x.numel() else 0, _LOOK):
            if not search.let_go():
                break
            draws = seeding.uniform(seeding.fold(search.keys, first), (_LOOK, search.moves.draws), torch.float64)
            for query in range(first, min(first + _LOOK, self.queries)):
                search.ask(self.share(query), draws[:, query - first])
        return believed(run, search.whole(), 0, self._start, number)


@dataclass
class _Search:
    """The examples under way, and what became of the others.

    Attributes:
        x: their best points, ``(B, D)``; those that are fooled move no more.
        spent: see ``Moves``.
        keys: their keys for this start.
        index: their positions among all the examples.
        ended: all the examples, those that have left as they ended.
        passes: how often the objective was asked.
    """

    objective: Objective
    moves: Moves
    shape: tuple[int, ...]  # of an image
    x: Tensor
    spent: Tensor
    keys: Tensor
    value: Tensor
    achieved: Tensor
    finite: Tensor
    index: Tensor
    ended: Solution
    passes: int = 1

    @classmethod
    def started(cls, run: Starts, keys: Tensor) -> _Search:
        moves: Moves = run.rule
        x, spent = moves.start(keys)
        images = x.reshape(run.x.shape)
        value, achieved = evaluate_objective(run.objectives[0], images) if len(x) else (x.new_zeros(0), keys.bool())
        assert achieved is not None
        finite = ~value.isnan()
        achieved = achieved & finite
        index = torch.arange(len(x), device=x.device)
        ended = Solution(images, value, achieved, finite, torch.ones_like(index))
        # The search writes into its points.
        return cls(run.objectives[0], moves, tuple(run.x.shape[1:]), x.clone(), spent, keys, value, achieved, finite, index, ended)

    def ask(self, share: float, draws: Tensor) -> None:
        """One query for each example: write the change into its point, and where it is not kept, what was there before."""
        proposal = self.moves.propose(self.x, self.spent, share, draws)
        before = [self.x.gather(1, places) for places, _ in proposal.patches]
        for places, values in proposal.patches:
            self.x.scatter_(1, places, values)
        value, achieved = evaluate_objective(self.objective, self.x.reshape(-1, *self.shape))
        assert achieved is not None
        self.passes += 1
        under_way = ~self.achieved & self.finite
        achieved = achieved & ~value.isnan()
        kept = under_way & (achieved | (value < self.value))
        for (places, values), old in zip(proposal.patches, before, strict=True):
            self.x.scatter_(1, places, torch.where(kept[:, None], values, old))
        self.spent = torch.where(expanded(kept, self.spent), proposal.spent, self.spent)
        self.value = torch.where(kept, value, self.value)
        self.finite = self.finite & ~(under_way & value.isnan())
        self.achieved = self.achieved | (kept & achieved)

    def let_go(self) -> bool:
        """Let the examples leave that are done; whether any is left."""
        stay = (~self.achieved & self.finite).nonzero()[:, 0]
        if not 0 < len(stay) < len(self.x):
            return len(stay) > 0
        try:
            objective = restricted(self.objective, stay)
        except Indivisible:
            return True  # all are asked about, and what has ended stays as it is
        self.ended = self.whole()
        self.objective, self.moves = objective, self.moves.at(stay)
        own = self.x, self.spent, self.keys, self.value, self.achieved, self.finite, self.index
        self.x, self.spent, self.keys, self.value, self.achieved, self.finite, self.index = restricted(own, stay)
        return True

    def whole(self) -> Solution:
        """All the examples."""
        passes = torch.full_like(self.index, self.passes)
        here = Solution(self.x.reshape(-1, *self.shape), self.value, self.achieved, self.finite, passes)
        return self.ended.put(self.index, here)
