"""How Square Attack changes images: windows of one colour in Linf, bumps that move from window to window in L2 and L1.

An image is a row of its values here, ``(B, D)``, and a window a list of places in it, so that what a query costs beside the forward
pass goes with the window, not with the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.attacks.random_search import Moves, Proposal
from robustlab.constraints import Ball, Box, ConstraintSet, ThreatModel, round_towards
from robustlab.norms import L1, AttackNorm, per_example
from robustlab.subsets import restricted

_SLACK = 1e-9  # of the radius, which sums of squares that are carried along do not reach in any number of queries
_FAR = 1e4  # no value is that far from another, and float16 still holds it


def moves_for(threat: ThreatModel, x: Tensor) -> Moves:
    """The moves of Square Attack for images ``(B, ...)`` in Linf, L2 or L1."""
    frame, allowed = Frame.of(x), threat.around(x)
    if not isinstance(allowed, Ball):
        return Colours(frame, ends(allowed, x))
    kind = ProjectedBumps if isinstance(threat.norm, L1) else Bumps
    return kind(frame, x, threat.norm, allowed, threat.radius(x), threat.box)


def ends(box: Box, x: Tensor) -> Tensor:
    """The lowest value of each place of images ``(B, ...)``, and behind them the highest: ``(B, 2 D)``."""
    return torch.cat([box.project(x.new_full((), side).expand_as(x)).flatten(1) for side in (-_FAR, _FAR)], 1)


@dataclass(frozen=True, eq=False)
class Frame:
    """The shape of an image, with the windows in it: the last two dimensions are height and width, all before them channels. A
    vector is one row.

    Attributes:
        made: what was worked out for one size of windows in this call.
    """

    channels: int
    height: int
    width: int
    made: dict[object, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, x: Tensor) -> Frame:
        *channels, height, width = (1, 1, *x.shape[1:])
        return cls(math.prod(channels), height, width)

    def window(self, share: float, *, odd: bool = False) -> tuple[int, int]:
        """Rows and columns of a window that takes up ``share`` of the pixels: a square, at least 3 wide and odd for bumps. Where the
        image is too narrow for that, it is longer instead."""
        area = share * self.height * self.width
        side = max(round(math.sqrt(area)), 3 if odd else 1)
        side += odd and side % 2 == 0
        rows, columns = min(side, self.height), min(side, self.width)
        if rows < side:
            columns = min(max(columns, round(area / rows)), self.width)
        elif columns < side:
            rows = min(max(rows, round(area / columns)), self.height)
        return rows, columns

    def corners(self, size: tuple[int, int], u: Tensor) -> tuple[Tensor, Tensor]:
        """First row and first column of windows, int64 ``(B,)`` each, from uniform numbers ``(B, 2)``: every place in the image alike."""
        return (u[:, 0] * (self.height - size[0] + 1)).long(), (u[:, 1] * (self.width - size[1] + 1)).long()

    def places(self, size: tuple[int, int], corner: tuple[Tensor, Tensor]) -> Tensor:
        """The places of windows in all channels, int64 ``(B, channels * rows * columns)``."""
        if size not in self.made:
            steps = [torch.arange(n, device=corner[0].device) for n in (self.channels, *size)]
            plane = self.height * self.width
            self.made[size] = (steps[0][:, None, None] * plane + steps[1][:, None] * self.width + steps[2]).flatten()
        return (corner[0] * self.width + corner[1])[:, None] + self.made[size]


@dataclass(frozen=True, eq=False)
class Colours:
    """Linf: every value lies at one end of its range. It starts with vertical stripes; a move gives one window one end per channel.

    Attributes:
        ends: the lowest value of each place, and behind them the highest: ``(B, 2 D)``.
    """

    frame: Frame
    ends: Tensor

    @property
    def draws(self) -> int:
        return 2 + self.frame.channels

    def start(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        frame, size = self.frame, self.ends.shape[1] // 2
        up = seeding.uniform(keys, (frame.channels, 1, frame.width)) < 0.5
        up = up.expand(-1, -1, frame.height, -1).reshape(len(keys), size)
        return torch.where(up, self.ends[:, size:], self.ends[:, :size]), torch.zeros(len(keys), dtype=torch.float64, device=keys.device)

    def propose(self, x: Tensor, spent: Tensor, share: float, draws: Tensor) -> Proposal:
        size = self.frame.window(share)
        index = self.frame.places(size, self.frame.corners(size, draws))
        up = (draws[:, 2:] < 0.5).long().mul_(x.shape[1]).repeat_interleave(size[0] * size[1], 1)
        return Proposal(((index, self.ends.gather(1, up.add_(index))),), spent)

    def at(self, index: Tensor) -> Colours:
        return replace(self, ends=self.ends[index])


@dataclass(frozen=True, eq=False)
class Bumps:
    """L2: a move empties one window and spends what was in it, with what is left of the radius, on a bump in another.

    ``spent`` is the square of the distance. Values are computed in float64 and rounded towards the image: every point is within eps.
    """

    frame: Frame
    center: Tensor  # (B, ...)
    norm: AttackNorm
    allowed: ConstraintSet
    eps: float | Tensor
    box: Box

    power = 2  # of the norm
    decay = 2  # how steep a bump is
    gain = 1  # what a channel may spend, in units of its share

    @property
    def draws(self) -> int:
        return 5 + self.frame.channels

    @property
    def budget(self) -> float | Tensor:
        """What may be spent, a number or ``(B,)``."""
        eps = self.eps.clamp(max=1e6) if isinstance(self.eps, Tensor) else min(self.eps, 1e6)
        return (eps * (1 - _SLACK)) ** self.power

    def start(self, keys: Tensor) -> tuple[Tensor, Tensor]:
        delta = self._tiles(keys).reshape(self.center.shape)
        x = self.allowed.project((self.center.double() + self._scaled(delta).clamp_(-_FAR, _FAR)).to(self.center.dtype))
        return x.flatten(1), (x.double() - self.center.double()).flatten(1).abs().pow(self.power).sum(1)

    def _scaled(self, delta: Tensor) -> Tensor:
        length = self.norm.measure(delta)
        return delta * per_example(self.budget ** (1 / self.power) / torch.where(length > 0, length, 1), delta)

    def _tiles(self, keys: Tensor) -> Tensor:
        """A bump of unit length in each of about 5 x 5 tiles, each of a sign and a direction of its own: float64 ``(B, C, H, W)``."""
        frame, n = self.frame, len(keys)
        size = max(frame.height // 5, 1), max(frame.width // 5, 1)
        rows, columns = frame.height // size[0], frame.width // size[1]
        u = seeding.uniform(keys, (1 + frame.channels, rows, columns))[:, :, :, :, None, None]
        bumps = self._bumps(size, keys.device).reshape(2, *size)
        tiles = torch.where(u[:, :1] < 0.5, bumps[0], bumps[1]) * torch.where(u[:, 1:] < 0.5, 1, -1)
        tiles = tiles.transpose(3, 4).reshape(n, frame.channels, rows * size[0], columns * size[1])
        top, left = (frame.height - tiles.shape[2]) // 2, (frame.width - tiles.shape[3]) // 2
        edges = left, frame.width - left - tiles.shape[3], top, frame.height - top - tiles.shape[2]
        return torch.nn.functional.pad(tiles, edges)

    def propose(self, x: Tensor, spent: Tensor, share: float, draws: Tensor) -> Proposal:
        frame, size = self.frame, self.frame.window(share, odd=True)
        filled, emptied = frame.corners(size, draws), frame.corners(size, draws[:, 2:])
        first, second = frame.places(size, filled), frame.places(size, emptied)
        center = self.center.flatten(1)
        here, there = center.gather(1, first), center.gather(1, second)
        old = self._by_channel(x.gather(1, first).double() - here)
        other = self._by_channel(x.gather(1, second).double() - there) * ~_inside(size, emptied, filled)
        held, free = self._power(old), self._power(old) + self._power(other)  # (B, C, 1)
        chosen = self._bumps(size, x.device)[(draws[:, 4] < 0.5).long()][:, None]
        bump = chosen * torch.where(draws[:, 5:] < 0.5, 1, -1)[:, :, None] + old / (held ** (1 / self.power) + 1e-12)
        pays = ((self.budget - spent)[:, None, None] / frame.channels + free).clamp_min(0)
        delta = bump * ((pays ** (1 / self.power)) * self.gain / (self._power(bump) ** (1 / self.power) + 1e-12))
        return self._settled(x, spent - free.sum((1, 2)), (second, there), (first, here, delta.flatten(1).clamp_(-_FAR, _FAR)))

    def _settled(self, x: Tensor, spent: Tensor, emptied: tuple[Tensor, Tensor], filled: tuple[Tensor, Tensor, Tensor]) -> Proposal:
        """The proposal, from what is spent outside the windows; windows are places, the image's values and the new changes of them."""
        index, center, delta = filled
        values = self._sides(index).project(round_towards(center, delta, x.dtype))
        spent = spent.clamp_min(0) + (values.double() - center).pow_(2).sum(1)
        return Proposal((emptied, (index, values)), spent)

    def _sides(self, index: Tensor) -> Box:
        """The box at some places."""
        lo, hi = (
            side.expand_as(self.center).flatten(1).gather(1, index) if isinstance(side, Tensor) else side
            for side in (self.box.lo, self.box.hi)
        )
        return Box(lo, hi)

    def _by_channel(self, v: Tensor) -> Tensor:
        return v.reshape(len(v), self.frame.channels, -1)

    def _power(self, v: Tensor) -> Tensor:
        return v.abs().pow(self.power).sum(2, keepdim=True)

    def _bumps(self, size: tuple[int, int], device: torch.device) -> Tensor:
        """The bump of a window, up against down and left against right, of unit length: float64 ``(2, rows * columns)``."""
        if ("bumps", size) not in self.frame.made:
            rows, columns = size
            ways = [_bump(rows, columns, self.decay, self.power), _bump(columns, rows, self.decay, self.power).T]
            ways = ways[:1] * 2 if columns == 1 else ways[1:] * 2 if rows == 1 else ways
            self.frame.made["bumps", size] = torch.stack([way.flatten() for way in ways]).to(device)
        return self.frame.made["bumps", size]

    def at(self, index: Tensor) -> Bumps:
        box = self.box.at(index, self.center)
        allowed = restricted(self.allowed, index, self.center)
        return replace(self, center=self.center[index], allowed=allowed, eps=restricted(self.eps, index), box=box)


class ProjectedBumps(Bumps):
    """L1 (Croce and Hein 2021): a bump of more than is left of the radius, projected onto ball and box together, which takes a little
    from all values that have moved. These are few, and only they are looked at; the device is asked how many, in each query.

    ``spent`` is the distance.
    """

    power = 1
    decay = 4

    @property
    def gain(self) -> int:  # type: ignore[override]
        return self.frame.channels

    def _scaled(self, delta: Tensor) -> Tensor:
        return delta

    def _settled(self, x: Tensor, spent: Tensor, emptied: tuple[Tensor, Tensor], filled: tuple[Tensor, Tensor, Tensor]) -> Proposal:
        first, here, delta = filled
        rest, moved = _listed(x.scatter(1, *emptied).scatter_(1, first, here) != self.center.flatten(1), first[:, :1])
        still = self.center.flatten(1).gather(1, rest)
        index, center = torch.cat([rest, first], 1), torch.cat([still, here], 1)
        delta = torch.cat([(x.gather(1, rest).double() - still) * moved, delta], 1)
        box = self._sides(index)
        delta = L1().project_in_box(delta, self.budget, box.lo - center.double(), box.hi - center.double())
        values = box.project(round_towards(center, delta, x.dtype))
        old, new = values.tensor_split([rest.shape[1]], 1)
        return Proposal((emptied, (rest, old), (first, new)), (values.double() - center).abs_().sum(1))


def _listed(chosen: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """The places of each example where ``chosen``, bool ``(B, D)``, is true: int64 ``(B, n)`` with n as for the one that has most of
    them, the rows of others filled up with their place in ``other``, int64 ``(B, 1)``; and bool ``(B, n)``, which are not filling."""
    row, place = chosen.nonzero(as_tuple=True)
    count = chosen.sum(1)
    rank = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row]
    own = torch.arange(int(count.max()), device=row.device) < count[:, None]
    places = other.repeat(1, own.shape[1])
    places[row, rank] = place
    return places, own


def _inside(size: tuple[int, int], corner: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    """Which places of windows lie in the ``other`` windows as well: bool ``(B, 1, rows * columns)``."""
    within = []
    for n, mine, theirs in zip(size, corner, other, strict=True):
        offset = (mine - theirs)[:, None] + torch.arange(n, device=mine.device)
        within.append((offset >= 0) & (offset < n))
    return (within[0][:, :, None] & within[1][:, None, :]).flatten(1)[:, None]


def _bump(rows: int, columns: int, decay: int, power: int) -> Tensor:
    """Two hills side by side, one up and one down, of unit length together (Andriushchenko et al. 2020, section 3.3): float64."""
    half = rows // 2
    delta = torch.cat([_hill(half, columns, decay, power), -_hill(rows - half, columns, decay, power)])
    return delta / torch.linalg.vector_norm(delta, ord=power)


def _hill(rows: int, columns: int, decay: int, power: int) -> Tensor:
    """Rectangles one upon another around the middle, the k-th of height ``k ** -decay``; of unit length together."""
    if not rows:
        return torch.zeros(0, columns, dtype=torch.float64)
    away = [(torch.arange(n) - n // 2).abs() for n in (rows, columns)]
    ring = torch.maximum(away[0][:, None], away[1])
    count = max(rows // 2, columns // 2) + 1
    heights = torch.arange(1, count + 1, dtype=torch.float64) ** -decay
    hill = heights.flip(0).cumsum(0).flip(0)[ring]
    return hill / torch.linalg.vector_norm(hill, ord=power)
