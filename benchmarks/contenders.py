"""PGD by hand, by this package, and by other libraries, all behind ``attack(x, y) -> x_adv``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.evaluation.accuracy import predictions
from robustlab.norms import Linf

Attack = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Budget:
    """What an attack may do, and in how many gradient steps."""

    threat: ThreatModel
    steps: int

    @property
    def eps(self) -> float:
        return float(self.threat.eps)

    @property
    def step_size(self) -> float:
        """That of plain PGD."""
        return 2.5 * self.eps / max(self.steps, 1)


@dataclass(frozen=True)
class Task(Budget):
    """What every contender is asked to do: untargeted PGD in Linf or L2, on the cross-entropy, returning the last point."""

    random_start: bool
    shape: tuple[int, int, int, int]  # of a batch of images
    num_classes: int

    @property
    def linf(self) -> bool:
        return isinstance(self.threat.norm, Linf)


def bare_loop(model: nn.Module, task: Task) -> Attack:
    """PGD as a careful user writes it: float32, no gradients of parameters, nothing beside the loop itself."""
    model = copy.deepcopy(model).requires_grad_(False)
    loop = bare_linf if task.linf else bare_l2
    return lambda x, y: loop(model, x, y, task)


def bare_linf(model: nn.Module, x: Tensor, y: Tensor, task: Task) -> Tensor:
    eps = task.eps
    lo, hi = (x - eps).clamp_(min=0), (x + eps).clamp_(max=1)
    x_adv = x.clone()
    if task.random_start:
        x_adv.add_(torch.empty_like(x).uniform_(-eps, eps)).clamp_(0, 1)
    for _ in range(task.steps):
        x_adv.requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(model(x_adv), y, reduction="sum"), x_adv)
        x_adv = (x_adv.detach() + task.step_size * grad.sign()).clamp_(lo, hi)
    return x_adv


def bare_l2(model: nn.Module, x: Tensor, y: Tensor, task: Task) -> Tensor:
    def length(v: Tensor) -> Tensor:
        return v.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)

    eps, x_adv = task.eps, x.clone()
    if task.random_start:
        direction = torch.randn_like(x)
        share = torch.rand(len(x), 1, 1, 1, device=x.device) ** (1 / x[0].numel())
        x_adv.add_(eps * share * direction / length(direction)).clamp_(0, 1)
    for _ in range(task.steps):
        x_adv.requires_grad_()
        (grad,) = torch.autograd.grad(F.cross_entropy(model(x_adv), y, reduction="sum"), x_adv)
        delta = x_adv.detach() + task.step_size * grad / length(grad) - x
        x_adv = (x + delta * (eps / length(delta)).clamp(max=1)).clamp_(0, 1)
    return x_adv


def ours(model: nn.Module, task: Task, fast_model: nn.Module | None = None, keep_best: bool = False, accelerate: bool = False) -> Attack:
    """Ours; with a stand-in for the search also the verdict of the model itself, without which no success counts.

    Args:
        model: what is attacked.
        task: what is asked.
        fast_model: what is searched in its place.
        keep_best: return the best point met.
        accelerate: let the attack choose a stand-in by itself.
    """
    pgd = PGD(task.threat, task.steps, task.step_size, random_start=task.random_start, keep_best=keep_best)

    def attack(x: Tensor, y: Tensor) -> Tensor:
        x_adv = pgd(model, x, y, fast_model=fast_model, accelerate=accelerate)
        if fast_model or accelerate:
            predictions(model, x_adv)
        return x_adv

    return attack


def torchattacks(model: nn.Module, task: Task) -> Attack:
    library = import_module("torchattacks")
    attack = library.PGD if task.linf else library.PGDL2
    return attack(model, eps=task.eps, alpha=task.step_size, steps=task.steps, random_start=task.random_start)


def foolbox(model: nn.Module, task: Task) -> Attack:
    library = import_module("foolbox")
    attack = library.attacks.LinfPGD if task.linf else library.attacks.L2PGD
    pgd = attack(abs_stepsize=task.step_size, steps=task.steps, random_start=task.random_start)
    wrapped = library.PyTorchModel(model, bounds=(0, 1), device=next(model.parameters()).device)
    return lambda x, y: pgd(wrapped, x, y, epsilons=task.eps)[1]


def art(model: nn.Module, task: Task) -> Attack:
    attacks, estimators = import_module("art.attacks.evasion"), import_module("art.estimators.classification")
    device = next(model.parameters()).device
    wrapped = estimators.PyTorchClassifier(
        model,
        nn.CrossEntropyLoss(),
        input_shape=task.shape[1:],
        nb_classes=task.num_classes,
        clip_values=(0, 1),
        device_type="gpu" if device.type == "cuda" else device.type,
    )
    pgd = attacks.ProjectedGradientDescent(
        wrapped,
        norm="inf" if task.linf else 2,
        eps=task.eps,
        eps_step=task.step_size,
        max_iter=task.steps,
        num_random_init=int(task.random_start),
        batch_size=task.shape[0],
        verbose=False,
    )
    return lambda x, y: torch.from_numpy(pgd.generate(x.cpu().numpy(), y.cpu().numpy())).to(x)


PEERS: dict[str, Callable[[nn.Module, Task], Attack]] = {"torchattacks": torchattacks, "foolbox": foolbox, "ART": art}
