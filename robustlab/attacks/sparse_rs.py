"""Sparse-RS (Croce et al. 2022): few pixels, found by random search that asks for logits alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.attacks.random_search import Moves, Proposal, RandomSearch
from robustlab.attacks.windows import ends
from robustlab.errors import UserError
from robustlab.norms import L0

# After these queries of 10,000, alpha is divided by the number at its place.
_LAST, _DIVIDED = (0, 50, 200, 500, 1000, 2000, 4000, 6000, 8000), (1, 2, 4, 5, 6, 8, 10, 12, 15, 20)


@dataclass(frozen=True)
class SparseRS(RandomSearch):
    """Sparse-RS for L0: k pixels at the corners of the colour cube; some of them move to other places and get other colours.

    PixelMoves that move are as the image has them again, and as many new ones get random colours, each channel the lowest or the highest
    value. How many move falls with the queries, by the published schedule for L0. The change is kept where the margin falls or the
    example is fooled. Settings are those of the public code, where schedules follow the number of queries.

    Two things differ from the public code. There the order numbers of the pixels that move are drawn for the whole batch; here every draw
    belongs to an example and the number of the query. The code counts the start as a query; here ``queries`` are those after it.

    Of each image the first point is returned that fools, else the one of the best margin. With a goal in place of labels its own loss is
    followed: ``Targeted`` with the cross-entropy is what the code does for targets.

    A call costs an example that withstands, for each start, ``queries`` forward passes and one for the start. An example that is
    fooled stays as it is; the device is asked every 10 queries who is, and they leave the batch then.

    Attributes:
        threat: what the adversary may do: ``ThreatModel(L0(), k)`` for k pixels. Radii for each image are not known.
        queries: changes to try from each start; the paper uses 10,000.
        restarts: independent starts; each further one runs only the examples that withstood all before it.
        alpha_init: share of the pixels that move at first.
        rescale_schedule: let alpha fall over these ``queries`` as it is published for 10,000, not at the published queries.
    """

    alpha_init: float = 0.8
    rescale_schedule: bool = True
    label: ClassVar[str] = "Sparse-RS"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.alpha_init <= 1:
            raise UserError(f"alpha_init is a share of the k pixels, above 0 and at most 1, got {self.alpha_init}")
        if not (isinstance(self.threat.norm, L0) and self.threat.norm.pixels):
            raise UserError(f"Sparse-RS attacks in L0, a number of pixels, not in {self.threat}")
        if isinstance(self.threat.eps, Tensor):
            raise UserError("Sparse-RS changes the same number of pixels in all images: give one eps")

    def share(self, query: int) -> float:
        """The share alpha of the k pixels that a query moves; queries count from 0, for the start."""
        place = int(query / self.queries * 10_000) if self.rescale_schedule else query
        return self.alpha_init / _DIVIDED[sum(place > last for last in _LAST)]

    def _moves(self, x: Tensor) -> Moves:
        assert not isinstance(self.threat.eps, Tensor)
        units = self.threat.norm.units(x) if isinstance(self.threat.norm, L0) else x[:, None]
        return PixelMoves(units, min(int(self.threat.eps), units.shape[2]), ends(self.threat.box, x))


@dataclass(frozen=True, eq=False)
class PixelMoves:
    """k pixels, each with random ends of the range in its channels. What is remembered is where they are, int64 ``(B, k)``.

    Attributes:
        center: the images, shape ``(B, C, P)`` with P pixels.
        count: k.
        ends: the lowest value of each place and behind them the highest, ``(B, 2 C P)``.
    """

    center: Tensor
    count: int
    ends: Tensor

    @property
    def draws(self) -> int:
        return (2 + self.center.shape[1]) * self.count

    def start(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        draws = seeding.uniform(keys, (self.draws,), torch.float64)
        nowhere = torch.empty(len(keys), 0, dtype=torch.int64, device=keys.device)
        pixels = free_pixels(nowhere, self.center.shape[2], draws[:, : self.count])
        x = self.center.flatten(1)
        places, values = self._coloured(pixels, draws[:, 2 * self.count :])
        return x.scatter(1, places, values), pixels

    def propose(self, x: Tensor, spent: Tensor, share: float, draws: Tensor) -> Proposal:
        most = min(self.count, self.center.shape[2] - self.count)  # there may be no more free pixels than these
        moved = min(max(int(share * self.count), 1), most)
        order = draws[:, : self.count].argsort(1)
        left, stay = spent.gather(1, order[:, :moved]), spent.gather(1, order[:, moved:])
        new = free_pixels(spent, self.center.shape[2], draws[:, self.count : self.count + moved])
        taken_back = self._places(left)
        colours = draws[:, 2 * self.count :].reshape(len(x), self.center.shape[1], self.count)[:, :, :moved].flatten(1)
        patches = (taken_back, self.center.flatten(1).gather(1, taken_back)), self._coloured(new, colours)
        return Proposal(patches, torch.cat([stay, new], 1))

    def _places(self, pixels: Tensor) -> Tensor:
        """Where all channels of some pixels are: ``(B, n) -> (B, C n)``."""
        channels, size = self.center.shape[1:]
        return (pixels[:, None] + size * torch.arange(channels, device=pixels.device)[:, None]).flatten(1)

    def _coloured(self, pixels: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        places = self._places(pixels)
        return places, self.ends.gather(1, places + (draws < 0.5) * self.center[0].numel())

    def at(self, index: Tensor) -> PixelMoves:
        return replace(self, center=self.center[index], ends=self.ends[index])


def free_pixels(taken: Tensor, size: int, draws: Tensor) -> Tensor:
    """Different pixels of each image that are not taken, every choice alike.

    Args:
        taken: different ones in each row, int64 ``(B, k)``.
        size: how many pixels there are.
        draws: uniform in [0, 1), float64 ``(B, n)`` with ``k + n`` at most ``size``.

    Returns:
        int64 ``(B, n)``.
    """
    found = []
    for draw in draws.unbind(1):
        among = taken.sort(1).values
        free = size - among.shape[1]
        rank = (draw * free).long().clamp(max=free - 1)[:, None]
        # The pixel of that rank among the free ones: before it lie as many taken ones as have no more free ones before them.
        before = among - torch.arange(among.shape[1], device=among.device)
        place = rank + (before <= rank).sum(1, keepdim=True)
        taken = torch.cat([taken, place], 1)
        found.append(place)
    return torch.cat(found, 1) if found else taken[:, :0]
