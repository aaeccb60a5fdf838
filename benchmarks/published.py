"""AutoAttack's standard line-up in Linf and L2 as its public code runs it, by hand: what a user pays without this package.

Nobody leaves the batch inside an attack; a further target runs what the targets before it left. Every target asks for the clean logits
anew, FAB asks once to see whether a point fools and once more for the gradient, and takes the gradients of the weights along. Square
draws one window for the whole batch. The line-up itself gives each attack what is left.
"""

from __future__ import annotations

import math
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.constraints import ThreatModel
from robustlab.goals import margin, targeted_dlr
from robustlab.hyperplanes import shortest_move
from robustlab.norms import Linf
from robustlab.steps import checkpoints

TARGETS, STEPS, QUERIES = 9, 100, 5000
_HALVED = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


def standard(model: nn.Module, threat: ThreatModel, x: Tensor, y: Tensor) -> Tensor:
    """The attacked images; those that withstand are as they were. Labels must be what the model predicts."""
    found, left = x.clone(), torch.arange(len(x))
    for attack in (apgd_ce, apgd_t, fab_t, square):
        if len(left):
            x_adv = attack(model, threat, x[left], y[left])
            with torch.no_grad():
                fooled = model(x_adv).argmax(1) != y[left]
            found[left[fooled]] = x_adv[fooled]
            left = left[~fooled]
    return found


def _project(x: Tensor, z: Tensor, threat: ThreatModel) -> Tensor:
    eps = float(threat.eps)
    if isinstance(threat.norm, Linf):
        return torch.min(torch.max(z, x - eps), x + eps).clamp(0, 1)
    delta = z - x
    length = delta.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)
    return (x + delta * (eps / length).clamp(max=1)).clamp(0, 1)


def _unit(v: Tensor, threat: ThreatModel) -> Tensor:
    if isinstance(threat.norm, Linf):
        return v.sign()
    return v / (v.flatten(1).norm(dim=1).view(-1, 1, 1, 1) + 1e-12)


def apgd_ce(model: nn.Module, threat: ThreatModel, x: Tensor, y: Tensor) -> Tensor:
    return _apgd(model, threat, x, y, lambda logits: F.cross_entropy(logits, y, reduction="none"))


def apgd_t(model: nn.Module, threat: ThreatModel, x: Tensor, y: Tensor) -> Tensor:
    found, left = x.clone(), torch.arange(len(x))
    for number in range(TARGETS):
        if not len(left):
            break
        with torch.no_grad():
            target = model(x[left]).argsort(1, descending=True)[:, number + 1]
        own, aim = y[left], target
        x_adv = _apgd(model, threat, x[left], own, lambda logits, own=own, aim=aim: targeted_dlr(logits, own, aim))
        with torch.no_grad():
            fooled = model(x_adv).argmax(1) != own
        found[left[fooled]] = x_adv[fooled]
        left = left[~fooled]
    return found


def _apgd(model: nn.Module, threat: ThreatModel, x: Tensor, y: Tensor, loss) -> Tensor:
    rows = (-1, 1, 1, 1)

    def gradient(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = z.clone().requires_grad_()
        logits = model(z)
        values = loss(logits)
        (grad,) = torch.autograd.grad(values.sum(), z)
        return logits.detach(), values.detach(), grad

    noise = torch.rand_like(x) * 2 - 1 if isinstance(threat.norm, Linf) else torch.randn_like(x)
    scale = noise.abs().flatten(1).amax(1) if isinstance(threat.norm, Linf) else noise.flatten(1).norm(dim=1)
    z = (x + float(threat.eps) * noise / scale.view(rows)).clamp(0, 1)
    logits, values, grad = gradient(z)
    fools, found = logits.argmax(1) != y, z.clone()
    best, z_best, grad_best, before = values, z, grad, z
    size = torch.full_like(values, 2 * float(threat.eps))
    halved, best_then, improved, since = torch.ones_like(fools), best, torch.zeros_like(values), 0
    for i in range(STEPS):
        moved = _project(x, z + size.view(rows) * _unit(grad, threat), threat)
        a = 1.0 if i == 0 else 0.75
        z, before = _project(x, z + a * (moved - z) + (1 - a) * (z - before), threat), z
        last = values
        logits, values, grad = gradient(z)
        wrong = logits.argmax(1) != y
        fools, found = fools | wrong, torch.where(wrong.view(rows), z, found)
        improved, since = improved + (values > last), since + 1
        better = values > best
        best = torch.where(better, values, best)
        z_best, grad_best = (torch.where(better.view(rows), new, old) for new, old in ((z, z_best), (grad, grad_best)))
        if i + 1 in checkpoints(STEPS):
            halved = (improved <= 0.75 * since) | (~halved & (best_then >= best))
            size = torch.where(halved, size / 2, size)
            z, grad = torch.where(halved.view(rows), z_best, z), torch.where(halved.view(rows), grad_best, grad)
            best_then, improved, since = best, torch.zeros_like(improved), 0
    return torch.where(fools.view(rows), found, x)


def fab_t(model: nn.Module, threat: ThreatModel, x: Tensor, y: Tensor) -> Tensor:
    found, left = x.clone(), torch.arange(len(x))
    for number in range(TARGETS):
        if not len(left):
            break
        x_adv = _fab(model, threat, x[left], y[left], number)
        with torch.no_grad():
            fooled = model(x_adv).argmax(1) != y[left]
        found[left[fooled]] = x_adv[fooled]
        left = left[~fooled]
    return found


def _fab(model: nn.Module, threat: ThreatModel, x: Tensor, y: Tensor, number: int) -> Tensor:
    rows, norm = (-1, 1, 1, 1), threat.norm
    with torch.no_grad():
        target = model(x).argsort(1, descending=True)[:, number + 1]
    z, nearest, shortest = x.clone(), x.clone(), torch.full((len(x),), math.inf)
    for _ in range(STEPS):
        z_ = z.clone().requires_grad_()
        logits = model(z_)
        gap = (logits.gather(1, y[:, None]) - logits.gather(1, target[:, None]))[:, 0]
        gap.sum().backward()  # with the gradients of the weights, as there
        grad, gap = z_.grad, gap.detach()
        assert grad is not None
        falls = torch.cat([-gap, -gap + (grad * (z - x)).flatten(1).sum(1)])
        points = torch.cat([z, x])
        with mock.patch("robustlab.hyperplanes.rows_in_order", lambda values: values.sort(1)):  # torch sorts there
            moves = shortest_move(torch.cat([grad, grad]), falls, norm, -points, 1 - points)
        length = norm.measure(moves).clamp_min(1e-8).reshape(2, -1)
        alpha = (length[0] / length.sum(0)).clamp(max=0.1).view(rows)
        own, from_image = (points + 1.05 * moves).reshape(2, *x.shape)
        z = (own + alpha * (from_image - own)).clamp(0, 1)
        with torch.no_grad():
            fools = model(z).argmax(1) != y
        distance = norm.measure(z - x)
        nearer = fools & (distance < shortest)
        nearest, shortest = torch.where(nearer.view(rows), z, nearest), torch.where(nearer, distance, shortest)
        z = torch.where(fools.view(rows), x + 0.9 * (z - x), z)
    model.zero_grad(set_to_none=True)
    return torch.where((shortest <= float(threat.eps)).view(rows), nearest, x)


@torch.no_grad()
def square(model: nn.Module, threat: ThreatModel, x: Tensor, y: Tensor) -> Tensor:
    """In Linf; in L2 a query is a window of noise, scaled to the ball: it costs what the published one costs, and finds less."""
    eps, linf = float(threat.eps), isinstance(threat.norm, Linf)
    n, channels, height, width = x.shape
    stripes = torch.where(torch.rand(n, channels, 1, width) < 0.5, eps, -eps) if linf else torch.randn_like(x)
    z = (x + stripes).clamp(0, 1) if linf else _scaled(x, stripes, eps)
    lead = -margin(model(z), y)
    for query in range(QUERIES):
        left = (lead > 0).nonzero()[:, 0]
        if not len(left):
            break
        side = max(round(math.sqrt(0.8 / 2 ** sum(query > last for last in _HALVED) * height * width)), 1)
        top, start = (int(torch.randint(0, size - side + 1, (1,))) for size in (height, width))
        delta = (z - x)[left]
        window = (slice(None), slice(None), slice(top, top + side), slice(start, start + side))
        colours = torch.where(torch.rand(1, channels, 1, 1) < 0.5, eps, -eps) if linf else torch.randn(len(left), channels, side, side)
        delta[window] = colours if linf else delta[window] + 0.1 * colours
        tried = (x[left] + delta).clamp(0, 1) if linf else _scaled(x[left], delta, eps)
        new = -margin(model(tried), y[left])
        kept = new < lead[left]
        z[left[kept]], lead[left[kept]] = tried[kept], new[kept]
    return z


def _scaled(x: Tensor, delta: Tensor, eps: float) -> Tensor:
    return (x + delta * eps / delta.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)).clamp(0, 1)
