"""What an attack is: settings that you call."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from robustlab import seeding
from robustlab.checks import attack_inputs, with_logit_checks
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.goals import Goal, Surrogate, Untargeted, cross_entropy
from robustlab.models.frozen import frozen_both
from robustlab.models.stand_ins import on_stand_in
from robustlab.norms import Norm
from robustlab.objectives import Objective, goal_objective
from robustlab.optimize import Solution, refuse_nonfinite

Model = Callable[[Tensor], Tensor]
Found = TypeVar("Found")
MakeObjective = Callable[[Model, Goal], Objective]
WORTH = 5  # steps for which it pays to compare a stand-in with its model


class _Call(Protocol):
    def __call__(self, model: Model, x: Tensor, y: Tensor | Goal, *, keys: Tensor | None = None, fast_model: Model | None = None) -> Tensor:
        """Attack each image of a batch by itself.

        Args:
            model: maps images in [0, 1], shape ``(B, ...)``, to logits ``(B, K)``. Left exactly as it was.
            x: images in [0, 1], shape ``(B, ...)``.
            y: labels to leave, int64 ``(B,)``, or any goal.
            keys: one key per example from ``robustlab.seeding``, int64 ``(B,)``; without them each image's own pixels give its key.
            fast_model: a faster stand-in for ``model`` to take the steps on, see ``robustlab.models.accelerate``.

        Returns:
            Attacked images in [0, 1]; shape and dtype of ``x``.

        Raises:
            UserError: images, labels or logits that are none.
        """
        ...


class Attack(_Call, Protocol):
    """An attack within a fixed budget; its ``str`` is the name that its numbers carry."""

    @property
    def threat(self) -> ThreatModel:
        """What it returns lies within this, exactly."""
        ...


Bounded = TypeVar("Bounded", bound=Attack)


def with_eps(attack: Bounded, eps: Any) -> Bounded:
    """The same attack with another radius, for example at several: ``{eps: with_eps(attack, eps)(model, x, y) for eps in (0.25, 0.5)}``.

    Args:
        attack: a dataclass with a field ``threat``, as ours are, or with a method ``with_eps`` of its own, as line-ups. A ``step_size`` of
            None scales along; any other stays as it is.
        eps: as for ``ThreatModel``, in pixel units: a number, or one for each image, ``(B,)``.

    Raises:
        UserError: an attack of another kind, or no radius.
    """
    own = getattr(attack, "with_eps", None)
    if own is not None:
        return own(eps)
    try:
        return dataclasses.replace(attack, threat=dataclasses.replace(attack.threat, eps=eps))  # type: ignore[type-var]
    except TypeError as error:
        raise UserError(f"only an attack that is a dataclass with a field 'threat' can have another eps, which {attack} is not") from error


@dataclass(frozen=True, eq=False)
class Asked:
    """What one call of an attack is about. Its models are lent by ``frozen`` and look at their logits.

    Attributes:
        model: the one to be fooled.
        stepped: what steps are taken on: a stand-in, or the very same model.
        x: images, shape ``(B, ...)``, without a graph.
        y: labels to leave, int64 ``(B,)``, or any goal.
        keys: int64 ``(B,)``.
    """

    model: Model
    stepped: Model
    x: Tensor
    y: Tensor | Goal
    keys: Tensor

    def goal(self, surrogate: Surrogate = cross_entropy) -> Goal:
        """The goal; labels are left by a loss."""
        return Untargeted(self.y, surrogate) if isinstance(self.y, Tensor) else self.y

    def objectives(
        self, goals: Sequence[Goal], make: MakeObjective = goal_objective
    ) -> tuple[tuple[Objective, ...], tuple[Objective, ...]]:
        """What leads to each of some goals, and the same of the model itself where a stand-in searches, else none."""
        judged = () if self.stepped is self.model else goals
        return tuple(make(self.stepped, goal) for goal in goals), tuple(make(self.model, goal) for goal in judged)


def searched(
    model: Model,
    x: Tensor,
    search: Callable[[Model | None], Found],
    found: Callable[[Found], Tensor],
    *,
    fast_model: Model | None,
    own: bool,
) -> Found:
    """What a search finds on the stand-in that is given, or on one of its own; see ``robustlab.models.stand_ins.on_stand_in``.

    Args:
        model, x, search, found: as for ``on_stand_in``.
        fast_model: the stand-in that is given; the model itself, for none at all.
        own: without a ``fast_model`` search on a kept stand-in, where there can be one.
    """
    if fast_model is None and own:
        return on_stand_in(model, x, search, found)
    return search(None if fast_model is model else fast_model)


class Checked(ABC):
    """An attack with two doors: ``solve``, which checks nothing, and the call, which looks at what comes in and at what was found."""

    def solve(
        self,
        model: Model,
        x: Tensor,
        y: Tensor | Goal,
        *,
        keys: Tensor | None = None,
        fast_model: Model | None = None,
        highest_label: int = -1,
    ) -> Solution:
        """The attack without its checks, and with what is known of the images that it found.

        Args:
            model, x, y, keys, fast_model: as in a call, but tensors only; steps are taken on the ``fast_model``, where there is one.
            highest_label: to be compared with the number of classes; -1 where it is not known.

        Returns:
            The attacked images. ``achieved``, where it is known, is the verdict of the model itself; of PGD from one start on a stand-in
            it is the stand-in's. ``finite`` tells which have only numbers as logits and gradients, see ``minimize``.

        Raises:
            UserError: logits that are none; radii for another number of images; a goal where the attack chooses its own.
        """
        x = x.detach()
        keys = seeding.content_keys(x) if keys is None else keys
        with frozen_both(model, fast_model, training=getattr(self, "training_mode", False)):
            itself = with_logit_checks(model, highest_label)
            stepped = itself if fast_model is None else with_logit_checks(fast_model, highest_label)
            return self._solve(Asked(itself, stepped, x, y, keys))

    @abstractmethod
    def _solve(self, asked: Asked) -> Solution:
        """The attack, on what is lent to it."""

    def __call__(
        self,
        model: Model,
        x: Tensor,
        y: Tensor | Goal,
        *,
        keys: Tensor | None = None,
        fast_model: Model | None = None,
        accelerate: bool = True,
    ) -> Tensor:
        """Attack each image of a batch by itself.

        Args:
            model: maps images in [0, 1], shape ``(B, ...)``, to logits ``(B, K)``. Left exactly as it was.
            x: images in [0, 1], shape ``(B, ...)``; a numpy array will do.
            y: labels to leave, int64 ``(B,)``, a numpy array or a list of them, or any goal, where the attack does not choose its own.
            keys: one key per example from ``robustlab.seeding``; without them each image's own pixels give its key.
            fast_model: a faster stand-in for ``model`` to search on, see ``robustlab.models.accelerate``; the model itself, for none.
            accelerate: without a ``fast_model`` search on a copy of the model with BatchNorm folded in, where there is one that is the same
                function up to rounding; it is kept for the next call, see ``robustlab.models.stand_ins.on_stand_in``.

        Returns:
            Images in [0, 1], shape and dtype of ``x``. Where the attack has a threat model, they lie within it, exactly.

        Raises:
            UserError: images, labels or logits that are none; radii for another number of images; a goal where the attack chooses its own.
        """
        x, y, highest = attack_inputs(model, x, y)

        def search(stand_in: Model | None) -> Solution:
            return self.solve(model, x, y, keys=keys, fast_model=stand_in, highest_label=highest)

        own = accelerate and self.passes_in_a_row >= WORTH
        found = searched(model, x, search, lambda solution: solution.x, fast_model=fast_model, own=own)
        refuse_nonfinite(found)
        return found.x

    @property
    def passes_in_a_row(self) -> int:
        """How many passes of a batch a stand-in could serve, each of which needs the one before; 0 for a model in training mode."""
        return 0 if getattr(self, "training_mode", False) else int(getattr(self, "steps", 0))


class MinimumNormAttack(_Call, Protocol):
    """An attack that looks for the nearest adversarial image, however far; its ``str`` is the name that its numbers carry.

    Where it finds none, it returns the image itself.
    """

    @property
    def norm(self) -> Norm:
        """What distances are measured in."""
        ...


@runtime_checkable
class Unchecked(Protocol):
    """An attack with a door for training, where nothing is checked and the device is asked for nothing."""

    def solve(self, model: Model, x: Tensor, y: Tensor | Goal, *, keys: Tensor | None = None, fast_model: Model | None = None) -> Solution:
        """As the call, but the attacked images come with what is known of them; ``Solution.finite`` tells where logits are no numbers."""
        ...


@runtime_checkable
class Solving(Attack, Protocol):
    """An attack within a threat model that says what it found and what that cost: what a line-up is made of."""

    def solve(
        self,
        model: Model,
        x: Tensor,
        y: Tensor | Goal,
        *,
        keys: Tensor | None = None,
        fast_model: Model | None = None,
        highest_label: int = -1,
    ) -> Solution:
        """As ``Unchecked.solve``; ``highest_label`` is compared with the number of classes, and -1 where it is not known."""
        ...
