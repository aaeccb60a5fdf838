"""Attacks made to fool networks that they have not seen: MI-FGSM (Dong et al. 2018) and what was added to it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from robustlab.attacks.protocols import Asked, Checked
from robustlab.attacks.starts import judged
from robustlab.attacks.transfer_inputs import Diverse, over_scales
from robustlab.attacks.transfer_rules import Nesterov, Smoothed, Tuned
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.goals import Surrogate, cross_entropy
from robustlab.objectives import Objective, PerStep, goal_objective
from robustlab.optimize import Solution, StepRule, minimize
from robustlab.steps import Momentum, Steepest, attack_directions

# As published; None is a share of the image's width.
DIVERSITY, SCALES, KERNEL, NEIGHBOURS = 0.5, 5, None, 20


@dataclass(frozen=True)
class Transfer(Checked):
    """Steps from the image whose gradients carry over to other networks; with the defaults MI-FGSM. Every part can be added alone.

    In a step the order is that of the public code of variance tuning: a gradient, at the point or ahead of it, averaged over ``scales``
    of images in random sizes; plus the last step's variance; smoothed; added to the momentum. A step goes along the steepest direction of
    the threat's norm, so all parts work in Linf, where they were published, and in L2 and L1 as well.

    The last point is returned, not the best one: what fools the network at hand best does not fool others best. Whether it fools is
    the verdict of ``model`` itself.

    Costs, for an image, ``scales`` forward and backward passes at each step, another ``scales * neighbours`` at each but the last, and one
    forward pass at the end. The device is asked for what comes in and what was found.

    Attributes:
        threat: what the adversary may do.
        steps: gradient steps.
        step_size: in pixel units, a number or one for each image ``(B,)``; None is ``eps / steps``.
        momentum: decay of the gradient sum, the paper's mu; 0 is none.
        nesterov: take gradients ahead of the point (Lin et al. 2020); see ``robustlab.attacks.transfer_rules.Nesterov``.
        scales: copies of the image, divided by 1, 2, 4, ..., the paper's m (Lin et al. 2020); 1 is the image alone.
        diversity: probability of a random size at each step, the paper's p (Xie et al. 2019); 0 is never. For images ``(B, C, H, W)``.
        resize_rate: the smallest size, as a share of the image's.
        kernel: width in pixels, odd, of the Gaussian that smooths gradients (Dong et al. 2019); 1 is none. None is the share that 15 pixels
            are of the paper's images of 299, and at least 3; at 32 pixels that is 3, which smooths hardly anything. For images
            ``(B, C, H, W)``.
        neighbours: random points around each one for variance tuning, the paper's N (Wang and He 2021); 0 is none.
        beta: how far they are, in units of eps.
        surrogate: the loss for plain labels.
    """

    threat: ThreatModel
    steps: int = 10
    step_size: float | Tensor | None = field(default=None, kw_only=True)
    momentum: float = field(default=1.0, kw_only=True)
    nesterov: bool = field(default=False, kw_only=True)
    scales: int = field(default=1, kw_only=True)
    diversity: float = field(default=0.0, kw_only=True)
    resize_rate: float = field(default=0.9, kw_only=True)
    kernel: int | None = field(default=1, kw_only=True)
    neighbours: int = field(default=0, kw_only=True)
    beta: float = field(default=1.5, kw_only=True)
    surrogate: Surrogate = field(default=cross_entropy, kw_only=True)

    def __post_init__(self) -> None:
        if self.steps < 0 or self.scales < 1 or self.neighbours < 0:
            found = f"{self.steps}, {self.scales} and {self.neighbours}"
            raise UserError(f"a transfer attack needs steps >= 0, scales >= 1 and neighbours >= 0, got {found}")
        if self.step_size is not None and not torch.all(torch.as_tensor(self.step_size) >= 0):
            raise UserError(f"step_size must be >= 0 in pixel units, got {self.step_size}")
        if not (self.momentum >= 0 and self.beta >= 0):
            raise UserError(f"momentum and beta must be >= 0, got {self.momentum} and {self.beta}")
        if not (0 <= self.diversity <= 1 and 0 < self.resize_rate < 1):
            raise UserError(
                f"diversity is a probability, resize_rate a share above 0 and below 1, got {self.diversity} and {self.resize_rate}"
            )
        if self.kernel is not None and (self.kernel < 1 or self.kernel % 2 == 0):
            raise UserError(f"kernel is a width in pixels, odd and at least 1, got {self.kernel}")
        if self.nesterov and not self.momentum:
            raise UserError("nesterov looks ahead along the momentum, which is 0")

    def __str__(self) -> str:
        parts = [name for name, on in (("SI", self.scales > 1), ("DI", self.diversity > 0), ("TI", self.kernel != 1)) if on]
        parts = ["CT"] if len(parts) == 3 else parts
        core = "V" * (self.neighbours > 0) + ("N" if self.nesterov else "M" if self.momentum else "") + "I"
        parts = [core, *parts] if parts == ["CT"] else [*parts, core] if core != "I" or not parts else parts
        number = "" if self.steps == 10 else f"-{self.steps}"
        return f"{'-'.join(parts)}-FGSM{number} ({self._unusual}{self.threat})"

    @property
    def _unusual(self) -> str:
        """The settings that are neither off nor as published, each with the paper's name."""
        usual: dict[str, tuple[float | None, tuple[float | None, ...]]] = {
            "m": (self.scales, (1, SCALES)),
            "p": (self.diversity, (0, DIVERSITY)),
            "rate": (self.resize_rate, (0.9,)),
            "kernel": (self.kernel, (1, KERNEL)),
            "N": (self.neighbours, (0, NEIGHBOURS)),
            "beta": (self.beta, (1.5,)),
            "mu": (self.momentum, (0, 1)),
        }
        step = self.step_size
        shown = "" if step is None else "own steps, " if isinstance(step, Tensor) and step.ndim else f"step {float(step):.4g}, "
        return shown + "".join(f"{name} {value:.4g}, " for name, (value, known) in usual.items() if value not in known)

    def _solve(self, asked: Asked) -> Solution:
        x, keys = asked.x, asked.keys
        if x.ndim != 4 and (self.diversity or self.kernel != 1):
            raise UserError(f"`diversity` and `kernel` need images of shape (B, C, H, W), got shape {tuple(x.shape)}")
        itself, stepped = (goal_objective(model, asked.goal(self.surrogate)) for model in (asked.model, asked.stepped))
        allowed, rule = self.threat.around(x), self._rule(x, keys)
        found = minimize(self._objective(stepped, keys), x, allowed, rule, steps=self.steps, keep_best=False, allow_nonfinite=True)
        assert found.passes is not None
        around = self.neighbours * max(self.steps - 1, 0)
        return judged(replace(found, passes=self.scales * (found.passes + around)), itself)

    def _objective(self, objective: Objective, keys: Tensor) -> Objective | PerStep:
        objective = over_scales(objective, self.scales)
        return Diverse(objective, keys, self.diversity, self.resize_rate) if self.diversity else objective

    def _rule(self, x: Tensor, keys: Tensor) -> StepRule:
        size = self.threat.default_step_size(self.steps, 1) if self.step_size is None else self.step_size
        size = size.to(x.device) if isinstance(size, Tensor) else size
        directions = attack_directions(self.threat.norm)
        momentum = Momentum(directions, size, self.momentum)
        rule: StepRule = momentum if self.momentum else Steepest(directions, size)
        rule = Nesterov(momentum) if self.nesterov else rule
        rule = Smoothed(rule, self._width(x)) if self.kernel != 1 else rule
        return Tuned(rule, self.threat.norm, self.beta * self.threat.radius(x), self.neighbours, keys) if self.neighbours else rule

    def _width(self, x: Tensor) -> int:
        """Of the kernel for images ``x``, in pixels."""
        return self.kernel or max(2 * round((15 / 299 * min(x.shape[2:]) - 1) / 2) + 1, 3)


def NIFGSM(threat: ThreatModel) -> Transfer:
    """NI-FGSM (Lin et al. 2020): MI-FGSM with gradients taken ahead of the point."""
    return Transfer(threat, nesterov=True)


def SINIFGSM(threat: ThreatModel) -> Transfer:
    """SI-NI-FGSM (Lin et al. 2020): gradients ahead of the point, averaged over five scales of the image."""
    return Transfer(threat, nesterov=True, scales=SCALES)


def DIFGSM(threat: ThreatModel) -> Transfer:
    """DI-FGSM (Xie et al. 2019): steps at random sizes with a probability of 0.5, without momentum; the paper calls it DI²-FGSM."""
    return Transfer(threat, momentum=0.0, diversity=DIVERSITY)


def TIFGSM(threat: ThreatModel) -> Transfer:
    """TI-FGSM (Dong et al. 2019): gradients smoothed by a Gaussian of 15 pixels for images of 299, see ``Transfer``, without momentum.

    Ten steps, as in torchattacks; the paper calls that TI-BIM, and one step TI-FGSM.
    """
    return Transfer(threat, momentum=0.0, kernel=KERNEL)


def VMIFGSM(threat: ThreatModel) -> Transfer:
    """VMI-FGSM (Wang and He 2021): MI-FGSM with variance tuning by twenty neighbours within 1.5 eps."""
    return Transfer(threat, neighbours=NEIGHBOURS)


def VNIFGSM(threat: ThreatModel) -> Transfer:
    """VNI-FGSM (Wang and He 2021): NI-FGSM with variance tuning by twenty neighbours within 1.5 eps."""
    return Transfer(threat, nesterov=True, neighbours=NEIGHBOURS)
