"""FAB, the fast adaptive boundary attack (Croce and Hein 2020): from hyperplane to hyperplane, drawn back to the image."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.attacks.boundaries import NearestBoundary
from robustlab.attacks.nearest import Nearest
from robustlab.attacks.protocols import Model
from robustlab.attacks.starts import Starts
from robustlab.constraints import ConstraintSet
from robustlab.errors import UserError
from robustlab.goals import CrossedTo, Goal, Untargeted, likeliest_others, margin
from robustlab.hyperplanes import shortest_move
from robustlab.norms import L1, L2, AttackNorm, Linf, Norm, expanded, per_example
from robustlab.objectives import Objective
from robustlab.optimize import StepRule

FARTHEST: dict[type[Norm], float] = {Linf: 0.3, L2: 1.0, L1: 5.0}  # random starts are within half of this, where nothing is enough


@dataclass(frozen=True)
class FAB(Nearest):
    """FAB-T, which aims at one class after another, or with no ``targets`` FAB, which goes for the nearest boundary of all classes.

    A step takes the decision boundary as a hyperplane: the shortest move onto it from the point and the one from the image, both in the
    pixel box, are mixed and carried ``eta`` times as far. A point that fools is drawn back to the image by ``beta`` before the next step.
    Wherever paper and public code differ, the code is followed: there is no final search, and random starts are at half the distance that
    is enough, or where nothing is, half of .3 (Linf), 1 (L2), 5 (L1). Unlike it, one pass tells whether a point fools and gives the
    gradient there, so points that were drawn back are judged too; where such a point still fools, the boundary that it crossed is the
    hyperplane.

    What it costs an example is one forward and one backward pass for each step, as many for each point that fools, and a last forward
    pass; for each target and start, and for the targets one forward pass. Without targets a pass has a backward pass for each other class.

    Attributes:
        norm: ``Linf()``, ``L2()`` or ``L1()``.
        steps: hyperplanes per start, the paper's N_iter.
        restarts: starts for each target, the first at the image and the others at random around it.
        targets: how many of the other classes are aimed at, the likeliest at the image first; 0 is no target.
        alpha_max: the largest share of the move from the image.
        eta: how far moves go, in units of the way onto the hyperplane.
        beta: what is left of the way from the image when a point that fools is drawn back.
        enough: see ``Nearest``.
    """

    steps: int = 100
    restarts: int = 1
    targets: int = 9
    alpha_max: float = field(default=0.1, kw_only=True)
    eta: float = field(default=1.05, kw_only=True)
    beta: float = field(default=0.9, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 0 or self.restarts < 1 or self.targets < 0:
            found = f"{self.steps}, {self.restarts} and {self.targets}"
            raise UserError(f"FAB needs steps >= 0, restarts >= 1 and targets >= 0, got {found}")
        if not (0 <= self.alpha_max <= 1 and 0 <= self.beta <= 1 and self.eta >= 1):
            found = f"{self.alpha_max}, {self.beta} and {self.eta}"
            raise UserError(f"FAB needs alpha_max and beta from 0 to 1 and eta >= 1, got {found}")

    @property
    def label(self) -> str:
        many = f"x{self.restarts}" if self.restarts > 1 else ""
        numbers = f"-{self.steps}{many}" if (self.steps, self.restarts) != (100, 1) else ""
        aims = f" with {self.targets} targets" if self.targets not in (0, 9) else ""
        return f"FAB{'-T' if self.targets else ''}{numbers}{aims}"

    @property
    def _most(self) -> int:
        return 2 * self.steps  # every step may be followed by a way back

    @property
    def _repeats(self) -> int:
        return self.restarts

    def _goals(self, model: Model, x: Tensor, y: Tensor | Goal) -> tuple[Goal, ...]:
        if not isinstance(y, Tensor):
            raise UserError(f"FAB chooses its goals by itself: give labels, not {type(y).__name__}")
        if not self.targets:
            return (Untargeted(y, margin),)
        with torch.no_grad():
            targets = likeliest_others(model(x.clone()), y, self.targets)
        return tuple(CrossedTo(y, target) for target in targets.unbind(1))

    def _objective(self, model: Model, goal: Goal, x: Tensor) -> Objective:
        if isinstance(goal, Untargeted):
            return NearestBoundary(model, goal.y, self.norm, 250_000)
        return super()._objective(model, goal, x)

    def _rule(self, x: Tensor) -> StepRule:
        return FABStep(x, self.norm, self.steps, self.alpha_max, self.eta, self.beta)

    def _begin(self, run: Starts, number: int) -> Tensor:
        if not number % self.restarts:
            return run.x
        far = FARTHEST[type(self.norm)] if self.enough is None else run.eps
        return run.x + on_sphere(self.norm, seeding.fold(run.keys, "fab", number), run.x, 0.5 * far)


def on_sphere(norm: AttackNorm, keys: Tensor, x: Tensor, radius: float | Tensor) -> Tensor:
    """A random move of length ``radius`` for each image, shape and dtype of ``x``."""
    noise = norm.sample(keys, x.shape[1:], 1.0)
    length = norm.measure(noise)
    return (noise * per_example(radius / torch.where(length > 0, length, 1), noise)).to(x)


@dataclass(frozen=True, eq=False)
class FABStep:
    """The step of FAB. The objective's value tells where a point fools, by being at most 0.

    Attributes:
        image: where to be drawn back to, shape ``(B, ...)``.
        norm: ``Linf()``, ``L2()`` or ``L1()``.
        steps: after so many the rule is done with an example; ways back are not counted.
        alpha_max, eta, beta: see ``FAB``.
    """

    image: Tensor
    norm: Norm
    steps: int
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9

    def init(self, x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
        """The steps that were taken, and whether the last move was a way back."""
        taken = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return taken, taken.bool()

    def step(
        self, x: Tensor, value: Tensor, grad: Tensor, constraint: ConstraintSet, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        taken, was_back = state
        back = (value <= 0) & ~was_back
        here, image = (point.to(torch.promote_types(x.dtype, torch.float32)) for point in (x, self.image))
        moved = torch.where(expanded(back, x), image + self.beta * (here - image), self._onward(here, image, value, grad.to(here)))
        return constraint.project(moved.to(x.dtype)), (taken + ~back, back)

    def _onward(self, x: Tensor, image: Tensor, value: Tensor, grad: Tensor) -> Tensor:
        fall = -value.to(grad)
        falls = torch.cat([fall, fall + (grad * (x - image)).flatten(1).sum(1)])
        points = torch.cat([x, image])
        moves = shortest_move(torch.cat([grad, grad]), falls, self.norm, -points, 1 - points)
        length = self.norm.measure(moves).clamp_min(torch.finfo(moves.dtype).tiny).reshape(2, len(x))
        alpha = expanded((length[0] / length.sum(0)).clamp(max=self.alpha_max), x)
        own, from_image = (points + self.eta * moves).reshape(2, *x.shape)
        return own + alpha * (from_image - own)

    def over(self, state: tuple[Tensor, Tensor]) -> Tensor:
        """Who has taken all steps, bool ``(B,)``."""
        return state[0] >= self.steps

    def at(self, index: Tensor) -> FABStep:
        return replace(self, image=self.image[index])
