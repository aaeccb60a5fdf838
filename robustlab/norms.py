"""Norms and their geometry: the ground floor of attacks, certificates and theorems.

The PGD step in a norm is steepest descent in that norm; the dual norm gives a linear model's worst case under attack
and defines its max margin. One object serves all three.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.errors import UserError, unknown
from robustlab.sorting import rows_in_order, sorted_rows


def expanded(values: Tensor, like: Tensor) -> Tensor:
    """One value per example, ``(B,)``, shaped to broadcast against ``like``, shape ``(B, ...)``."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def per_example(value: float | Tensor, like: Tensor) -> float | Tensor:
    """A number, or one number per example ``(B,)``, ready to multiply ``like``, shape ``(B, ...)``, in its dtype."""
    return expanded(value.to(like), like) if isinstance(value, Tensor) and value.ndim else value


class Norm(ABC):
    """A norm on the values of one example, with what an optimizer needs. Every method treats the first dimension as the batch."""

    @property
    @abstractmethod
    def dual(self) -> Norm:
        """The norm ``‖g‖* = max <u, g> over ‖u‖ <= 1``."""

    @abstractmethod
    def measure(self, v: Tensor) -> Tensor:
        """The norm of each example: ``(B, ...) -> (B,)``, in the dtype of ``v``."""

    @abstractmethod
    def steepest(self, g: Tensor) -> Tensor:
        """A ``u`` of unit norm that maximizes ``<u, g>``, shape of ``g``; zero where the whole gradient is zero."""

    def scaled(self, g: Tensor) -> Tensor:
        """The ``steepest`` direction of each example times the dual norm of ``g``, shape of ``g``: in L2 that is ``g`` itself."""
        return self.steepest(g) * expanded(self.dual.measure(g), g)


class AttackNorm(Norm):
    """A norm with what an attack needs beside that: a way into its ball, and draws from it.

    Attributes:
        exact: whether ``measure`` is free of rounding, so that a point at the very radius is known to be inside.
    """

    exact: ClassVar[bool] = False

    @abstractmethod
    def project(self, v: Tensor, radius: float | Tensor) -> Tensor:
        """The Euclidean projection of ``v`` onto the ball of ``radius`` (a number or ``(B,)``), up to rounding."""

    @abstractmethod
    def sample(self, keys: Tensor, shape: Sequence[int], radius: float | Tensor) -> Tensor:
        """A point drawn uniformly from the ball, one for each key of ``robustlab.seeding``: float32, ``(B, *shape)``."""


@dataclass(frozen=True)
class Linf(AttackNorm):
    """The largest absolute value."""

    @property
    def dual(self) -> Norm:
        return L1()

    def measure(self, v: Tensor) -> Tensor:
        if v[0:1].numel() == 0:
            return v.new_zeros(len(v))
        return v.flatten(1).abs().amax(1)

    def steepest(self, g: Tensor) -> Tensor:
        return g.sign()

    def scaled(self, g: Tensor) -> Tensor:
        return g.sign().mul_(expanded(self.dual.measure(g), g))  # in place: a large gradient costs memory traffic

    def project(self, v: Tensor, radius: float | Tensor) -> Tensor:
        bound = _bound(radius, v)
        return v.clamp(-bound, bound)

    def sample(self, keys: Tensor, shape: Sequence[int], radius: float | Tensor) -> Tensor:
        u = seeding.uniform(keys, shape).mul_(2).sub_(1)
        return u * per_example(radius, u)


@dataclass(frozen=True)
class L2(AttackNorm):
    """The Euclidean norm."""

    @property
    def dual(self) -> Norm:
        return self

    def measure(self, v: Tensor) -> Tensor:
        return torch.linalg.vector_norm(v.flatten(1), dim=1)

    def steepest(self, g: Tensor) -> Tensor:
        # Dividing by the largest entry first keeps the squares of tiny gradients from underflowing.
        unit = _unit_scale(g)
        length = expanded(self.measure(unit), g)
        return unit / torch.where(length > 0, length, 1)

    def scaled(self, g: Tensor) -> Tensor:
        return g

    def project(self, v: Tensor, radius: float | Tensor) -> Tensor:
        length = self.measure(v)
        return v * per_example((_bound(radius, length) / length.clamp_min(torch.finfo(v.dtype).tiny)).clamp(max=1), v)

    def sample(self, keys: Tensor, shape: Sequence[int], radius: float | Tensor) -> Tensor:
        v = seeding.normal(seeding.fold(keys, "direction"), shape)
        share = seeding.uniform(seeding.fold(keys, "radius"), ()) ** (1 / max(math.prod(shape), 1))
        return self.steepest(v) * per_example(share * radius, v)


@dataclass(frozen=True)
class L1(AttackNorm):
    """The sum of absolute values. Its steepest direction moves one coordinate."""

    @property
    def dual(self) -> Norm:
        return Linf()

    def measure(self, v: Tensor) -> Tensor:
        return v.flatten(1).abs().sum(1)

    def steepest(self, g: Tensor) -> Tensor:
        flat = g.flatten(1)
        if flat.numel() == 0:
            return g.clone()
        top = flat.abs().max(1, keepdim=True).indices  # of equal ones the first, as argmax, in half the time
        return torch.zeros_like(flat).scatter_(1, top, flat.gather(1, top).sign()).reshape(g.shape)

    def scaled(self, g: Tensor) -> Tensor:
        flat = g.flatten(1)
        if flat.numel() == 0:
            return g.clone()
        top = flat.abs().max(1, keepdim=True).indices  # of equal ones the first, as argmax, in half the time
        return torch.zeros_like(flat).scatter_(1, top, flat.gather(1, top)).reshape(g.shape)

    def project(self, v: Tensor, radius: float | Tensor) -> Tensor:
        """Soft thresholding at the level that spends the radius (Duchi et al. 2008, figure 1); sorts, O(D log D)."""
        flat = v.flatten(1)
        if flat.numel() == 0:
            return v.clone()
        size = flat.abs()
        bound = _bound(radius, flat)
        falling = sorted_rows(size, descending=True)
        excess = falling.cumsum(1) - bound
        rank = torch.arange(1, flat.shape[1] + 1, device=v.device)
        kept = (falling * rank > excess).sum(1, keepdim=True).clamp_min(1)
        level = excess.gather(1, kept - 1) / kept
        level = torch.where(size.sum(1, keepdim=True) > bound, level, 0)
        return (flat.sign() * _no_longer((size - level).clamp_min(0), bound)).reshape(v.shape)

    def project_in_box(self, v: Tensor, radius: float | Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The Euclidean projection onto ball and box together (Croce and Hein 2021, proposition 2.1), up to rounding.

        Every value shrinks by one level, down to zero, and stops at its side of the box. The length of what is left falls with the
        level, in straight pieces between the levels at which a value leaves its side or reaches zero; sorts these, O(D log D).

        Args:
            v: shape ``(B, ...)``.
            radius: of the ball, a number or ``(B,)``.
            low: lower side of the box, at most 0, broadcasts against ``v``.
            high: upper side of the box, at least 0, likewise.
        """
        flat = v.flatten(1)
        if flat.numel() == 0:
            return v.clone()
        bound, size = _bound(radius, flat), flat.abs()
        room = torch.where(v < 0, -low, high).flatten(1)
        # From the highest level down: at its size a value begins to grow, at the second level it is as long as it may be.
        levels, order = rows_in_order(torch.cat([size, (size - room).clamp_min(0)], 1), descending=True)
        growing = torch.where(order < flat.shape[1], 1, -1).cumsum(1)
        length = torch.zeros_like(levels)
        length[:, 1:] = (growing[:, :-1] * -levels.diff(dim=1)).cumsum(1)
        last = (length <= bound).sum(1, keepdim=True) - 1
        missing = (bound - length.gather(1, last)).clamp_min(0)
        level = levels.gather(1, last) - missing / growing.gather(1, last).clamp_min(1)
        level = torch.where(last < levels.shape[1] - 1, level, 0)  # the box alone is short enough
        kept = torch.minimum((size - level).clamp_min(0), room)
        return (flat.sign() * _no_longer(kept, bound)).reshape(v.shape)

    def sample(self, keys: Tensor, shape: Sequence[int], radius: float | Tensor) -> Tensor:
        # D + 1 exponentials over their sum are uniform on the simplex; the last one is the distance to the boundary.
        size = math.prod(shape)
        u = seeding.uniform(seeding.fold(keys, "size"), (size + 1,), torch.float64)
        spacings = -torch.log1p(-u)
        share = (spacings[:, :size] / spacings.sum(1, keepdim=True)).float().reshape(len(keys), *shape)
        sign = (seeding.uniform(seeding.fold(keys, "sign"), shape) < 0.5).float().mul_(2).sub_(1)
        return share * sign * per_example(radius, share)


@dataclass(frozen=True)
class L0(AttackNorm):
    """The number of pixels that are not zero, all channels of a pixel counted as one. It is no norm, since it does not scale: it has no
    dual norm and no steepest direction.

    The last two dimensions of an example are height and width, all before them channels; a vector is a row of pixels.

    Attributes:
        pixels: count pixels, as Croce and Hein (2019) and Sparse-RS do; else values, as FMN and sigma-zero are published.
    """

    pixels: bool = True
    exact: ClassVar[bool] = True

    @property
    def unit(self) -> str:
        """What is counted, as it is shown beside a number."""
        return "pixels" if self.pixels else "values"

    @property
    def dual(self) -> Norm:
        raise UserError("L0 has no dual norm: it counts and does not scale")

    def measure(self, v: Tensor) -> Tensor:
        return (self.units(v) != 0).any(1).sum(1).to(v.dtype)

    def steepest(self, g: Tensor) -> Tensor:
        raise UserError("L0 has no steepest direction: it counts and does not scale")

    def project(self, v: Tensor, radius: float | Tensor) -> Tensor:
        """The ``radius`` longest pixels of each example in L2, a number or ``(B,)``; of equal ones the first."""
        return self._longest(v, v, radius)

    def project_in_box(self, v: Tensor, radius: float | Tensor, low: Tensor, high: Tensor) -> Tensor:
        """The Euclidean projection onto ball and box together (Croce and Hein 2019): each pixel goes to its place in the box or to zero,
        and those keep their place that come nearest to ``v`` by it.

        Args:
            v: shape ``(B, ...)``.
            radius: of the ball, a number or ``(B,)``.
            low: lower side of the box, at most 0, broadcasts against ``v``.
            high: upper side of the box, at least 0, likewise.
        """
        return self._longest(v, torch.clamp(v, low, high), radius)

    def sample(self, keys: Tensor, shape: Sequence[int], radius: float | Tensor) -> Tensor:
        """Draws, uniform in [-1, 1], of which the longest pixels are kept: the ball itself has no end."""
        return self.project(seeding.uniform(keys, shape).mul_(2).sub_(1), radius)

    def units(self, v: Tensor) -> Tensor:
        """What is counted: ``(B, ...) -> (B, values of one, how many)``."""
        channels = math.prod(v.shape[1:-2]) if self.pixels else 1
        return v.reshape(len(v), channels, math.prod(v.shape[1:]) // max(channels, 1))

    def _longest(self, v: Tensor, kept: Tensor, radius: float | Tensor) -> Tensor:
        """``kept`` for the pixels where ``|v|^2 - |v - kept|^2`` is largest, and zero elsewhere."""
        if v[0:1].numel() == 0:
            return v.clone()
        scale = expanded(Linf().measure(v), v)
        scale = torch.where(scale > 0, scale, 1)
        there, here = self.units(v / scale), self.units(kept / scale)
        # What underflows still counts for more than nothing.
        gain = (here * (2 * there - here)).sum(1) + (self.units(kept) != 0).any(1).to(v.dtype) * torch.finfo(v.dtype).tiny
        rank = gain.sort(dim=1, descending=True, stable=True).indices.argsort(1)
        chosen = (rank < _bound(radius, rank.double()))[:, None].expand_as(here)
        return torch.where(chosen.reshape(v.shape), kept, 0)


@dataclass(frozen=True)
class Lp(Norm):
    """``(sum |v_i|^p)^(1/p)`` for ``p`` from 1.01 to 101; the ends are ``L1`` and ``Linf``.

    Nearer to 1 or infinity the way from a gradient to a direction is a power of more than 100, and loses all its digits.

    Raises:
        UserError: any other ``p``.
    """

    p: float
    _dual_p: float | None = field(default=None, repr=False, compare=False)  # what the dual came from, so that its dual is that again

    def __post_init__(self) -> None:
        check_p(self.p)

    @property
    def dual(self) -> Norm:
        return Lp(self._dual_p or self.p / (self.p - 1), self.p)

    def measure(self, v: Tensor) -> Tensor:
        return Linf().measure(v) * torch.linalg.vector_norm(_unit_scale(v).flatten(1), ord=self.p, dim=1)

    def steepest(self, g: Tensor) -> Tensor:
        raised = _unit_scale(g).abs() ** (1 / (self.p - 1))
        length = expanded(self.measure(raised), g)
        return g.sign() * raised / torch.where(length > 0, length, 1)


def check_p(p: float) -> None:
    """Refuse an exponent whose norm, or whose dual norm, cannot be told from L1 or Linf in float64.

    Raises:
        UserError: ``p`` is not from 1.01 to 101.
    """
    if not 1.01 <= p <= 101:
        raise UserError(f"p must lie from 1.01 to 101, got {p}: for the ends there are L1() and Linf()")


class MatrixNorm(Norm):
    """A norm of one matrix per example, of shape ``(B, rows, columns)``, that sees nothing but singular values."""

    values: Norm  # the same of the singular values

    def measure(self, v: Tensor) -> Tensor:
        return self.values.measure(torch.linalg.svdvals(_matrices(v)))

    def steepest(self, g: Tensor) -> Tensor:
        return self._direction(g)[0]

    def scaled(self, g: Tensor) -> Tensor:
        direction, singular = self._direction(g)
        return direction * expanded(self.values.dual.measure(singular) * Linf().measure(g), g)

    def _direction(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """The steepest direction, and the singular values of ``g`` over its largest entry, ``(B, min(rows, columns))``."""
        left, singular, right = torch.linalg.svd(_unit_scale(_matrices(g)), full_matrices=False)
        known = singular > singular[:, :1] * (max(g.shape[1:]) * torch.finfo(g.dtype).eps)  # smaller ones are rounding
        return (left * self.values.steepest(torch.where(known, singular, 0))[:, None]) @ right, singular


@dataclass(frozen=True)
class Spectral(MatrixNorm):
    """The largest singular value. Its steepest direction is the polar factor ``U V^T``: spectral descent, of which Muon is a cheap form."""

    values = Linf()

    @property
    def dual(self) -> Norm:
        return Nuclear()


@dataclass(frozen=True)
class Nuclear(MatrixNorm):
    """The sum of the singular values. Its steepest direction has rank one."""

    values = L1()

    @property
    def dual(self) -> Norm:
        return Spectral()


@dataclass(frozen=True)
class Shaped(Norm):
    """A norm of examples that come flat, each taken as an array of a shape: ``Shaped(Spectral(), (6, 5))`` of rows of 30 values.

    Attributes:
        norm: of the arrays.
        shape: of one of them.
    """

    norm: Norm
    shape: tuple[int, ...]

    @property
    def dual(self) -> Norm:
        return Shaped(self.norm.dual, self.shape)

    def measure(self, v: Tensor) -> Tensor:
        return self.norm.measure(self._arrays(v))

    def steepest(self, g: Tensor) -> Tensor:
        return self.norm.steepest(self._arrays(g)).reshape(g.shape)

    def scaled(self, g: Tensor) -> Tensor:
        return self.norm.scaled(self._arrays(g)).reshape(g.shape)

    def _arrays(self, v: Tensor) -> Tensor:
        if v.shape[1:].numel() != math.prod(self.shape):
            raise UserError(f"an example of shape {tuple(v.shape[1:])} is no array of shape {self.shape}")
        return v.reshape(len(v), *self.shape)


class FourierNorm(Norm):
    """A norm of the moduli of an example's discrete Fourier transform, with the factor that keeps lengths (``norm="ortho"``).

    An example is taken as one sequence of real numbers.
    """

    moduli: Norm  # the same of the moduli

    def measure(self, v: Tensor) -> Tensor:
        return self.moduli.measure(_spectrum(v).abs()) if v[0:1].numel() else v.new_zeros(len(v))

    def _back(self, spectrum: Tensor, like: Tensor) -> Tensor:
        return torch.fft.ifft(spectrum, norm="ortho").real.reshape(like.shape)


@dataclass(frozen=True)
class FourierL1(FourierNorm):
    """The sum of the moduli: small for a signal of few frequencies."""

    moduli = L1()

    @property
    def dual(self) -> Norm:
        return FourierLinf()

    def steepest(self, g: Tensor) -> Tensor:
        """A wave of the strongest frequency: half of its weight lies at the frequency below zero that a real signal has too."""
        if g[0:1].numel() == 0:
            return g.clone()
        spectrum = _spectrum(_unit_scale(g))
        top = spectrum.abs().argmax(1, keepdim=True)
        mirrored = (spectrum.shape[1] - top) % spectrum.shape[1]
        half = 0.5 * _phases(spectrum.gather(1, top))
        at_top = torch.zeros_like(spectrum).scatter_(1, top, half)
        return self._back(at_top + torch.zeros_like(spectrum).scatter_(1, mirrored, half.conj()), g)


@dataclass(frozen=True)
class FourierLinf(FourierNorm):
    """The largest modulus."""

    moduli = Linf()

    @property
    def dual(self) -> Norm:
        return FourierL1()

    def steepest(self, g: Tensor) -> Tensor:
        if g[0:1].numel() == 0:
            return g.clone()
        spectrum = _spectrum(_unit_scale(g))
        rounding = spectrum.shape[1] * torch.finfo(g.dtype).eps
        strongest = spectrum.abs().amax(1, keepdim=True)
        return self._back(_phases(torch.where(spectrum.abs() > rounding * strongest, spectrum, 0)), g)


def _matrices(v: Tensor) -> Tensor:
    if v.ndim != 3:
        raise UserError(f"a norm of matrices needs one matrix for each example, (B, rows, columns), got shape {tuple(v.shape)}")
    return v


def _spectrum(v: Tensor) -> Tensor:
    return torch.fft.fft(v.flatten(1), norm="ortho")


def _unit_scale(g: Tensor) -> Tensor:
    """Each example divided by its largest value, unless that is zero: no square of it underflows."""
    scale = expanded(Linf().measure(g), g)
    return g / torch.where(scale > 0, scale, 1)


def _phases(z: Tensor) -> Tensor:
    """Complex numbers scaled to modulus one; zero stays zero."""
    size = z.abs()
    return z / torch.where(size > 0, size, 1)


def _bound(radius: float | Tensor, v: Tensor) -> Tensor:
    """A radius, a number or ``(B,)``, ready to be compared with ``v`` in its dtype. A number is written on the device, which takes no
    copy; one that the dtype cannot hold is infinite."""
    if isinstance(radius, Tensor):
        return expanded(radius.to(v), v) if radius.ndim else radius.to(v)
    return torch.full((), radius if radius <= torch.finfo(v.dtype).max else math.inf, dtype=v.dtype, device=v.device)


def _no_longer(size: Tensor, radius: Tensor) -> Tensor:
    """Values >= 0, shape ``(B, D)``, that sum to ``radius`` at most. A level is rounded in units of the largest value, which may be
    far above the radius: this puts the sum right."""
    return size * (radius / size.sum(1, keepdim=True).clamp_min(torch.finfo(size.dtype).tiny)).clamp(max=1)


NORMS: dict[str, AttackNorm] = {"linf": Linf(), "l2": L2(), "l1": L1(), "l0": L0()}


def as_norm(norm: AttackNorm | type[AttackNorm] | str) -> AttackNorm:
    """A norm for attacks from itself, its class or its name, in any case.

    Raises:
        UserError: a name that is not known, or something without projection and draws.
    """
    if isinstance(norm, str):
        if norm.lower() not in NORMS:
            raise unknown("norm", norm, NORMS)
        return NORMS[norm.lower()]
    made = norm() if isinstance(norm, type) and issubclass(norm, Norm) else norm
    if not isinstance(made, AttackNorm):
        raise UserError(f"an attack needs a norm with a projection and draws, such as Linf(), L2() or L1(), got {norm!r}")
    return made
