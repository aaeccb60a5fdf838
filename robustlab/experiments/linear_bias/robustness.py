"""The optimizer is the defence: how much of the best robust radius each one reaches, by closed form and under attack."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.attacks import PGD
from robustlab.constraints import Box, ThreatModel
from robustlab.experiments.finding import LinePlot
from robustlab.experiments.linear_bias.claim import TWO_CLASSES, Claim, Evidence, Row, Setting, numbers
from robustlab.experiments.linear_bias.two_classes import STEPS, scaled_descent
from robustlab.linear_bias.certificates import margins
from robustlab.linear_bias.problems import Problem
from robustlab.linear_bias.separators import max_margin
from robustlab.norms import L1, L2, AttackNorm, Linf, Norm
from robustlab.reports.plots import Axes, Line

# An attack in a norm is met by the margin in its dual: coordinate descent finds the largest L1 margin, which is the defence against Linf.
OPTIMIZERS: dict[str, Norm] = {"coordinate descent": L1(), "gradient descent": L2(), "sign descent": Linf()}
ATTACKS: dict[str, tuple[AttackNorm, Norm]] = {"Linf": (Linf(), L1()), "L2": (L2(), L2()), "L1": (L1(), Linf())}
HALVINGS = 30


def optimizer_is_defence(setting: Setting) -> Evidence:
    """Each optimizer reaches the best robust radius under the attack dual to its norm, and far less under the others."""
    problem = setting.separable(15, 40)
    weights = {name: scaled_descent(problem, norm, STEPS).last for name, norm in OPTIMIZERS.items()}
    best = {name: max_margin(problem, dual)[1] for name, (_, dual) in ATTACKS.items()}
    closed = {(o, a): margins(problem, weights[o], ATTACKS[a][1]) for o in OPTIMIZERS for a in ATTACKS}
    attacked = {(o, a): robust_radius(problem, weights[o], ATTACKS[a][0]) for o in OPTIMIZERS for a in ATTACKS}
    rows = []
    for optimizer, attack in zip(OPTIMIZERS, ATTACKS, strict=True):
        lost = {o: 1 - attacked[o, attack] / best[attack] for o in OPTIMIZERS}
        others = torch.stack([lost[o] for o in OPTIMIZERS if o != optimizer]).amin(0)
        kept = ", ".join(f"{o} {float(1 - lost[o].median()):.3f}" for o in OPTIMIZERS)
        row = Row(
            f"{optimizer}, {attack} attack",
            "the largest robust radius",
            numbers(lost[optimizer]),
            numbers(others),
            1e-2,
            "share of the radius lost under PGD",
            note=f"shares kept: {kept}",
        )
        rows.append(row)
    apart = torch.stack([(attacked[case] / closed[case] - 1).abs() for case in closed]).amax(0)
    wrong = torch.stack([(attacked[o, "Linf"] / closed[o, "L2"] - 1).abs() for o in OPTIMIZERS]).amin(0)
    rows.append(
        Row(
            "PGD and the closed form",
            "radius = margin / dual norm",
            numbers(apart),
            numbers(wrong),
            1e-3,
            "relative difference",
            note="nine pairs of optimizer and attack; control: the Linf radius by the closed form of L2",
        )
    )
    shares = {f"{o}, {a}": float((attacked[o, a] / best[a]).median()) for o, a in closed}
    return Evidence(tuple(rows), {"": _plot(problem, weights, best)}, {"share of the best radius": shares})


def robust_radius(problem: Problem, w: Tensor, norm: AttackNorm) -> Tensor:
    """The largest radius within which PGD turns no example of a seed, by halving, ``(S,)``; 0 where one is wrong anyway.

    Args:
        w: weights, ``(S, d)``.
        norm: of the attack.
    """
    w = w / problem.outputs(w).abs().amax(1, keepdim=True)  # outputs of hundreds leave cross-entropy without a gradient
    far = (problem.outputs(w) * problem.y).abs() / norm.dual.measure(w)[:, None]
    low, high = torch.zeros(len(w), dtype=w.dtype), 4 * far.amax(1)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        safe = _withstands(problem, w, norm, middle)
        low, high = torch.where(safe, middle, low), torch.where(safe, high, middle)
    return low


def _withstands(problem: Problem, w: Tensor, norm: AttackNorm, radius: Tensor) -> Tensor:
    """Whether PGD of a radius for each seed turns none of its examples, bool ``(S,)``."""
    x = problem.X.expand(len(w), -1, -1)
    labels = (problem.y.expand(len(w), -1) > 0).long()
    rows = w[:, None].expand_as(x).flatten(0, 1)
    threat = ThreatModel(norm, radius[:, None].expand(-1, problem.n).flatten(), Box(-torch.inf, torch.inf))
    attack = PGD(threat, steps=3, random_start=False)

    def model(v: Tensor) -> Tensor:
        outputs = (v * rows).sum(1)
        return torch.stack([-outputs, outputs], 1)

    found = attack.solve(model, x.flatten(0, 1), labels.flatten())
    assert found.achieved is not None
    return ~found.achieved.reshape(labels.shape).any(1)


def _plot(problem: Problem, weights: dict[str, Tensor], best: dict[str, Tensor]) -> LinePlot:
    """Share of seeds that withstand an attack in Linf over its radius, as a share of the best radius."""
    shares = [0.02 * 2 ** (k / 4) for k in range(24)]
    lines = []
    for name, w in weights.items():
        unit = w / problem.outputs(w).abs().amax(1, keepdim=True)
        kept = [_withstands(problem, unit, Linf(), share * best["Linf"]).double().mean().item() for share in shares]
        lines.append(Line(name, shares, kept))
    axes = Axes("radius / largest possible robust radius", "problems without an error", log_x=True, percent=True)
    return LinePlot("The optimizer is the defence: attacks in Linf by PGD", tuple(lines), axes)


CLAIMS = (
    Claim(
        "optimizer-is-defence",
        "The optimizer is the defence: each one is as robust as can be to attacks in the dual of its norm, and to no others.",
        "after Faghri et al. 2021",
        optimizer_is_defence,
        takes=TWO_CLASSES,
        part="robustness",
    ),
)
