"""Projected gradient descent (Madry et al. 2018), and with one step and no random start FGSM (Goodfellow et al. 2015)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.attacks.protocols import Asked, Checked
from robustlab.attacks.starts import Starts, first_else_best, judged
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.goals import Surrogate, cross_entropy
from robustlab.optimize import Solution, StepRule, minimize
from robustlab.steps import Momentum, Steepest, attack_directions


@dataclass(frozen=True)
class PGD(Checked):
    """Steepest descent in the threat's norm, projected, from one or more random starts.

    Values that already lie at a side of the pixel box and would leave it have no part in a step's direction, and in L1 a
    step goes along the 1 % of values with the largest gradients (see ``robustlab.steps.Sparse``). In L0 a step goes along the gradient, and
    the projection chooses the pixels: PGD-L0 (Croce and Hein 2019). Its step size is the mean change of a value before that.

    A call costs, per restart, ``steps`` forward and backward passes with respect to the input, and one forward pass
    more with ``keep_best``; a separate ``fast_model`` with more than one restart adds a forward pass of the model. After the first
    start only the examples that have not achieved their goal are run, in training mode all. A call asks the device twice, for a look
    at what came in and one at what was found, twice more where it searches on a stand-in of its own, and once more for each further
    restart.

    Attributes:
        threat: what the adversary may do.
        steps: gradient steps per restart.
        step_size: in pixel units, a number or one for each image ``(B,)``; None is ``reach * eps / steps``, in L0 0.15.
        reach: how far all steps go together, in units of eps; 2.5 (Madry et al.) can cross the ball.
        restarts: independent random starts; each example keeps the first that achieves its goal, else the best. More than one needs
            ``random_start``.
        random_start: start uniformly in the ball rather than at the image.
        keep_best: return the best point met rather than the last: for evaluation. Training takes the last, for speed.
        momentum: decay of the gradient sum; 0 is plain steepest descent, 1 is MI-FGSM.
        surrogate: the loss for plain labels.
        training_mode: attack the model as it is in training mode (its batch statistics are put back afterwards).
    """

    threat: ThreatModel
    steps: int = 10
    step_size: float | Tensor | None = None
    reach: float = field(default=2.5, kw_only=True)
    restarts: int = 1
    random_start: bool = True
    keep_best: bool = True
    momentum: float = 0.0
    surrogate: Surrogate = cross_entropy
    training_mode: bool = False

    def __post_init__(self) -> None:
        if self.steps < 0 or self.restarts < 1:
            raise UserError(f"PGD needs steps >= 0 and restarts >= 1, got {self.steps} and {self.restarts}")
        if self.step_size is not None and not torch.all(torch.as_tensor(self.step_size) >= 0):
            raise UserError(f"step_size must be >= 0 in pixel units, got {self.step_size}")
        if not self.reach >= 0:
            raise UserError(f"reach must be >= 0, in units of eps, got {self.reach}")
        if self.restarts > 1 and not (self.random_start and self.keep_best):
            raise UserError("more than one restart needs random_start and keep_best: restarts from the same point are identical")

    def __str__(self) -> str:
        many = f"x{self.restarts}" if self.restarts > 1 else ""
        named: dict[tuple[object, ...], str] = {_SIGN: "FGSM", _MOMENTUM: "MI-FGSM"}
        return f"{named.get(self._outline, f'PGD-{self.steps}{many}')} ({self.threat})"

    @property
    def _outline(self) -> tuple[object, ...]:
        return self.steps, self.step_size is None and self.reach, self.random_start, self.momentum

    @property
    def rule(self) -> StepRule:
        """The step rule that the settings describe."""
        return self._rule(torch.device("cpu"))

    def _rule(self, device: torch.device) -> StepRule:
        size = self.threat.default_step_size(self.steps, self.reach) if self.step_size is None else self.step_size
        size = size.to(device) if isinstance(size, Tensor) else size
        directions = attack_directions(self.threat.norm)
        return Momentum(directions, size, self.momentum) if self.momentum else Steepest(directions, size)

    def _solve(self, asked: Asked) -> Solution:
        x = asked.x
        objectives, judges = asked.objectives((asked.goal(self.surrogate),))
        judges = judges if self.restarts > 1 else ()
        run = Starts(objectives, judges, self.threat.around(x), self._rule(x.device), x, self.threat.radius(x), asked.keys)
        return first_else_best(run, self.restarts, self._start, whole=self.training_mode)

    def _start(self, run: Starts, restart: int) -> Solution:
        start = run.x
        if self.random_start:
            noise = self.threat.norm.sample(seeding.fold(run.keys, "start", restart), run.x.shape[1:], run.eps)
            start = run.x + noise.to(run.x)
        found = minimize(run.objectives[0], start, run.allowed, run.rule, steps=self.steps, keep_best=self.keep_best, allow_nonfinite=True)
        return judged(found, run.judges[0]) if run.judges else found


_SIGN, _MOMENTUM = (1, 1, False, 0), (10, 1, False, 1)


def FGSM(threat: ThreatModel) -> PGD:
    """The fast gradient sign method (Goodfellow et al. 2015), in any norm: one step of length eps from the image."""
    return PGD(threat, steps=1, reach=1, random_start=False, keep_best=False)


def MIFGSM(threat: ThreatModel) -> PGD:
    """MI-FGSM (Dong et al. 2018), in any norm: ten steps of a tenth of eps from the image, with a momentum of 1."""
    return PGD(threat, steps=10, reach=1, random_start=False, keep_best=False, momentum=1.0)
