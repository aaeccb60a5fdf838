"""Several attacks, one after another, each on what those before it left; among them AutoAttack (Croce and Hein 2020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.attacks.protocols import WORTH, Model, Solving, searched, with_eps
from robustlab.checks import attack_inputs, with_logit_checks
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.goals import Goal
from robustlab.models.frozen import frozen
from robustlab.optimize import Solution, refuse_nonfinite

OnStage = Callable[[str, int], object]


@dataclass(frozen=True)
class Broken:
    """What a line-up did to a batch.

    Attributes:
        x: the attacked images, shape ``(B, ...)``; an image that withstood all is itself.
        by: which attack of the line-up broke each image, int64 ``(B,)``; -1 where none did.
        passes: forward passes that each attack spent on each image, int64 ``(B, A)``; 0 where the image was broken before it.
    """

    x: Tensor
    by: Tensor
    passes: Tensor


@dataclass(frozen=True)
class LineUp:
    """A cascade: every attack gets the images that no attack before it has broken.

    What it costs an image is what the attacks up to the one that breaks it cost, and one forward pass of the model for each: only what
    the model itself classifies wrongly counts as broken. The worst case of the attacks, image by image, costs the same or more.

    Attributes:
        attacks: within one and the same threat model, at least one.
        name: what its numbers carry.
    """

    attacks: Sequence[Solving]
    name: str = field(default="line-up")

    def __post_init__(self) -> None:
        object.__setattr__(self, "attacks", tuple(self.attacks))
        if not self.attacks:
            raise UserError("a line-up needs at least one attack")
        for attack in self.attacks:
            if not isinstance(attack, Solving):
                raise UserError(f"a line-up takes attacks within a threat model that have a method `solve`, got {attack}")
            if attack.threat != self.threat:
                raise UserError(f"the attacks of a line-up need one threat model, got {self.threat} and {attack.threat}")
        if len(set(self.stages)) < len(self.stages):
            raise UserError(f"a line-up has no use for one attack twice: {', '.join(self.stages)}")

    @property
    def threat(self) -> ThreatModel:
        """What all of them may do."""
        return self.attacks[0].threat

    @property
    def stages(self) -> tuple[str, ...]:
        """The attacks' names without the threat model: ``APGD-CE``."""
        return tuple(str(attack).partition(" (")[0] for attack in self.attacks)

    def __str__(self) -> str:
        return f"{self.name} ({self.threat})"

    def with_eps(self, eps: float | Tensor) -> LineUp:
        """The same attacks with another radius; see ``robustlab.with_eps``."""
        return replace(self, attacks=tuple(with_eps(attack, eps) for attack in self.attacks))

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
            y: labels to leave, int64 ``(B,)``, a numpy array or a list of them.
            keys: one key per example from ``robustlab.seeding``; without them each image's own pixels give its key.
            fast_model: a faster stand-in for ``model`` to search on, see ``robustlab.models.accelerate``; the model itself, for none.
            accelerate: without a ``fast_model`` search on a copy of the model with BatchNorm folded in; see ``PGD.__call__``.

        Returns:
            Images within the threat model, exactly; shape and dtype of ``x``. Those that withstood are as they were.

        Raises:
            UserError: images, labels or logits that are none; a goal in place of labels.
        """
        x, labels, highest = attack_inputs(model, x, y)
        return self.run(model, x, labels, keys=keys, fast_model=fast_model, accelerate=accelerate, highest_label=highest).x

    def run(
        self,
        model: Model,
        x: Tensor,
        y: Tensor | Goal,
        *,
        keys: Tensor | None = None,
        fast_model: Model | None = None,
        accelerate: bool = True,
        highest_label: int = -1,
        on_stage: OnStage | None = None,
        batch_size: int | None = None,
    ) -> Broken:
        """The cascade without a look at images and labels, and with what each attack did.

        Args:
            model, x, y, keys, fast_model, accelerate: as in a call, but tensors only.
            highest_label: to be compared with the number of classes; -1 where it is not known.
            on_stage: called with the name of each attack and how many images are left for it, before it begins.
            batch_size: images that an attack gets at once; all where left out. What is left of many batches fills few again.

        Raises:
            UserError: logits that are none, or NaN; a goal in place of labels.
        """
        if not isinstance(y, Tensor):
            raise UserError(f"a line-up attacks labels, not {type(y).__name__}: give its attacks the goal one by one")
        cascade = partial(self._cascade, model, x.detach(), y, seeding.content_keys(x) if keys is None else keys)
        search = partial(cascade, highest_label=highest_label, on_stage=on_stage, batch_size=batch_size)
        own = accelerate and any(getattr(attack, "passes_in_a_row", 0) >= WORTH for attack in self.attacks)
        return searched(model, x.detach(), search, lambda broken: broken.x, fast_model=fast_model, own=own)

    def _cascade(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        keys: Tensor,
        fast_model: Model | None,
        *,
        highest_label: int,
        on_stage: OnStage | None,
        batch_size: int | None,
    ) -> Broken:
        found = x.clone()
        by = torch.full((len(x),), -1, dtype=torch.int64, device=x.device)
        passes = torch.zeros(len(x), len(self.attacks), dtype=torch.int64, device=x.device)
        left = torch.arange(len(x), device=x.device)
        judge = with_logit_checks(model, highest_label)
        with frozen(model), torch.inference_mode(False):
            for stage, attack in enumerate(self.attacks):
                if not len(left):
                    break
                if on_stage:
                    on_stage(self.stages[stage], len(left))
                for some in left.split(batch_size or len(left)):
                    one = with_eps(attack, self.threat.eps[some.cpu()]) if isinstance(self.threat.eps, Tensor) else attack
                    tried = one.solve(model, x[some], y[some], keys=keys[some], fast_model=fast_model, highest_label=highest_label)
                    refuse_nonfinite(tried)
                    passes[some, stage] = 1 if tried.passes is None else tried.passes + 1
                    fooled = self._fooled(tried, judge, y[some])
                    found[some[fooled]], by[some[fooled]] = tried.x[fooled], stage
                left = left[by[left] < 0]
        return Broken(found, by, passes)

    @staticmethod
    @torch.no_grad()
    def _fooled(tried: Solution, judge: Model, y: Tensor) -> Tensor:
        """Which of the tried images the model itself classifies wrongly; asked only of those that the attack believes in, where it says."""
        fooled = torch.ones_like(y, dtype=torch.bool) if tried.achieved is None else tried.achieved.clone()
        index = fooled.nonzero()[:, 0]
        if len(index):
            logits = judge(tried.x[index].clone())
            fooled[index] = (logits.argmax(1) != y[index]) & ~logits.isnan().any(1)
        return fooled
