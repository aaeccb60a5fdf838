"""What a model answers to some images and to images near them: all the passes that ``diagnose`` makes, in one fixed order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from robustlab import seeding
from robustlab.attacks.protocols import Model
from robustlab.checks import with_logit_checks
from robustlab.constraints import PIXELS, ConstraintSet, ThreatModel
from robustlab.errors import UserError, in_one_line
from robustlab.evaluation.traces import Trace
from robustlab.goals import Surrogate, Untargeted, cross_entropy, dlr, margin
from robustlab.norms import Linf
from robustlab.objectives import goal_objective, value_and_gradient
from robustlab.optimize import Solution, minimize
from robustlab.steps import Steepest, attack_directions

TINY = 1e-4  # a change of a pixel that no quantization to 8 bits lets through, and that float32 shows
RUNS = 5  # as AutoAttack's check
STEPS = 4  # of the two short attacks
# What somebody may do to images before a network, or forget to do.
SCALES: dict[str, Callable[[Tensor], Tensor]] = {
    "multiplied by 255": lambda x: 255 * x,
    "mapped to [-1, 1]": lambda x: 2 * x - 1,
    "normalized with mean .5 and deviation .25": lambda x: (x - 0.5) / 0.25,
    "normalized backwards (times .25, plus .5)": lambda x: x * 0.25 + 0.5,
}


@dataclass(frozen=True)
class Run:
    """A short attack, from the images: its notes and what it found."""

    trace: Trace
    found: Solution


@dataclass(frozen=True)
class Answers:
    """The logits ``(B, K)`` of a batch in its fixed order, and what else came with them.

    Attributes:
        x, y: the images, and their labels.
        near_first: at ``x + u`` with pixels changed by at most ``TINY``, the very first call.
        runs: at ``x``, ``RUNS`` calls.
        near_again: at ``x + u`` again, with the random state that the first call had.
        further: at ``x + 2 u``.
        company: at ``x`` for the first half of the batch, beside other images than before.
        tenth, whole: at a uniform draw from the ball of a tenth of eps, and of eps.
        dynamic: whether a forward pass took gradients.
        waking: names of modules that stay in training mode when the model is in evaluation mode, or know no statistics but the batch's.
        gradients: by loss, the gradient at ``x`` of leaving the predicted class; or why there is none.
        limited, unlimited: a short attack within the threat model, and one that may use the whole pixel box; None without gradients.
        scaled: by what was done to the images, how many are right then; empty where nearly all are right as they are.
        threat: the threat model.
    """

    x: Tensor
    y: Tensor
    near_first: Tensor
    runs: Tensor
    near_again: Tensor
    further: Tensor
    company: Tensor
    tenth: Tensor
    whole: Tensor
    dynamic: bool
    waking: tuple[str, ...]
    gradients: dict[str, Tensor | str]
    limited: Run | None
    unlimited: Run | None
    scaled: dict[str, Tensor]
    threat: ThreatModel

    @property
    def logits(self) -> Tensor:
        """The first answer to ``x``, ``(B, K)``."""
        return self.runs[0]

    @property
    def n(self) -> int:
        return len(self.x)


def probe(model: Model, x: Tensor, y: Tensor, keys: Tensor, threat: ThreatModel, highest_label: int = -1) -> Answers:
    """Ask a model, which is already in evaluation mode, all that ``diagnose`` wants to know.

    Args:
        model: maps ``x`` to logits ``(B, K)``.
        x, y, keys: at least one image, its label, and the key of its draws.
        threat: what the adversary may do.
        highest_label: the model must have more classes than this.

    Raises:
        UserError: the model returns no logits.
    """
    watch = Watch(with_logit_checks(model, highest_label))
    ask = _asking(watch)
    tiny = _tiny(x, keys)
    with random_states_kept(x):
        near_first = ask(x + tiny)
        runs = torch.stack([ask(x) for _ in range(RUNS)])
    near_again = ask(x + tiny)
    half = (len(x) + 1) // 2
    company = ask(torch.cat([x[:half], 1 - x[: max(len(x) - half, 1)]]))[:half]
    tenth, whole = (ask(_drawn(threat, x, keys, factor)) for factor in (0.1, 1.0))
    own = runs[0].nan_to_num(-torch.inf).argmax(1)
    gradients = {name: _gradient(watch, x, own, loss) for name, loss in (("cross-entropy", cross_entropy), ("DLR", dlr))}
    can = all(isinstance(one, Tensor) for one in gradients.values())
    size = threat.default_step_size(STEPS)
    limited = _attack(watch, x, own, threat.around(x), Steepest(attack_directions(threat.norm), size)) if can else None
    unlimited = _attack(watch, x, own, PIXELS, Steepest(attack_directions(Linf()), 1 / STEPS)) if can else None
    scaled = {name: _right(ask, change(x), y) for name, change in SCALES.items()} if (own == y).sum() < 0.9 * len(x) else {}
    return Answers(
        x,
        y,
        near_first,
        runs,
        near_again,
        ask(x + 2 * tiny),
        company,
        tenth,
        whole,
        watch.took_gradients,
        _waking(model),
        gradients,
        limited,
        unlimited,
        scaled,
        threat,
    )


class Watch:
    """A model that is watched for gradients taken within its forward pass.

    torch shows every call of its functions to a ``TorchFunctionMode`` of the thread: nothing is replaced, and other threads see nothing.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.took_gradients = model, False

    def __call__(self, x: Tensor) -> Tensor:
        with _Mode(self):
            return self.model(x)


class _Mode(TorchFunctionMode):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward):
            self.watch.took_gradients = True
        return func(*args, **(kwargs or {}))


def _asking(model: Model) -> Callable[[Tensor], Tensor]:
    """Answers without a graph, in float32 at least; of a copy, since a model may write over its input."""

    @torch.no_grad()
    def ask(x: Tensor) -> Tensor:
        logits = model(x.clone())
        return logits.detach().to(torch.promote_types(logits.dtype, torch.float32))

    return ask


def _tiny(x: Tensor, keys: Tensor) -> Tensor:
    """Changes of every pixel by a half to one ``TINY`` (more where the images' dtype is coarse), the way that leaves room for two."""
    size = max(TINY, 8 * torch.finfo(x.dtype).eps)
    sign = torch.where(seeding.uniform(seeding.fold(keys, "sign"), x.shape[1:]) < 0.5, -1.0, 1.0).to(x)
    sign = torch.where(x < 2 * size, 1.0, torch.where(x > 1 - 2 * size, -1.0, sign))
    return (sign * (0.5 + seeding.uniform(seeding.fold(keys, "tiny"), x.shape[1:]).to(x) / 2) * size).to(x)


def _drawn(threat: ThreatModel, x: Tensor, keys: Tensor, factor: float) -> Tensor:
    """A uniform draw around each image, of a part of the radius, in the pixel box."""
    noise = threat.norm.sample(seeding.fold(keys, "noise", str(factor)), x.shape[1:], threat.radius(x))
    return threat.box.project(x + factor * noise.to(x))


def _gradient(model: Model, x: Tensor, y: Tensor, loss: Surrogate) -> Tensor | str:
    try:
        return value_and_gradient(goal_objective(model, Untargeted(y, loss)), x)[2]
    except (UserError, RuntimeError) as error:  # RuntimeError: what torch says where a graph has a hole
        return in_one_line(error, 120)


def _attack(model: Model, x: Tensor, y: Tensor, allowed: ConstraintSet, rule: Steepest) -> Run:
    trace = Trace()
    objective = goal_objective(model, Untargeted(y, margin))
    return Run(trace, minimize(objective, x, allowed, trace.watching(rule), steps=STEPS, allow_nonfinite=True, on_step=trace))


def _right(ask: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Which images are right, bool ``(B,)``; none where the model refuses such values."""
    try:
        return ask(x).argmax(1) == y
    except Exception:  # whatever a stranger's check of its input raises: then that scale is not what it wants
        return torch.zeros(len(x), dtype=torch.bool, device=x.device)


def _waking(model: Model) -> tuple[str, ...]:
    """Modules that are in training mode though the model was set to evaluation mode, or that have only the batch's statistics."""
    parts = model.named_modules() if isinstance(model, nn.Module) else ()
    alone = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
    return tuple(
        name or type(part).__name__
        for name, part in parts
        if getattr(part, "training", False) or (isinstance(part, alone[0]) and not isinstance(part, alone[1]) and part.running_mean is None)
    )


@contextmanager
def random_states_kept(x: Tensor) -> Iterator[None]:
    """Afterwards the random states that a model may draw from are as before, those of numpy and Python among them.

    Args:
        x: the images; the state of their device is kept too.
    """
    known: list[tuple[Callable[[Any], object], Any]] = [
        (torch.set_rng_state, torch.get_rng_state()),
        (np.random.set_state, np.random.get_state()),
        (random.setstate, random.getstate()),
    ]
    if x.device.type in ("cuda", "xpu"):
        backend = getattr(torch, x.device.type)
        known.append((lambda state: backend.set_rng_state(state, x.device), backend.get_rng_state(x.device)))
    try:
        yield
    finally:
        for put, state in known:
            put(state)
