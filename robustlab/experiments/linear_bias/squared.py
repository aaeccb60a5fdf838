"""Squared loss, more values than examples: which of the many solutions gradient and mirror descent find, and what breaks it."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.experiments.finding import LinePlot
from robustlab.experiments.linear_bias.claim import (
    FAILS,
    REGRESSION,
    Claim,
    Evidence,
    Row,
    Setting,
    falling,
    numbers,
    over_steps,
    relative_distance,
)
from robustlab.linear_bias.descent import Path, descend
from robustlab.linear_bias.interpolants import LassoPath, bregman_interpolant, lasso_path, nearest_interpolant, norm_interpolant
from robustlab.linear_bias.losses import LinearObjective, OneExample, Squared
from robustlab.linear_bias.optimizers import MirrorDescent, NaturalGradient, PrimalMomentum
from robustlab.linear_bias.potentials import Entropy, HypEntropy, PNorm, Potential
from robustlab.linear_bias.problems import Problem, zeros
from robustlab.linear_bias.problems import problem as one_problem
from robustlab.norms import L1, L2, Linf, Lp, Norm
from robustlab.reports.plots import Line
from robustlab.seeding import example_keys, normal
from robustlab.steps import Adam, RunningMean, Steepest

DISTANCE = "relative L2 distance"
POTENTIALS: dict[str, Potential] = {
    "entropy": Entropy(),
    "hypentropy, beta 0.001": HypEntropy(0.001),
    "hypentropy, beta 1": HypEntropy(1.0),
    "p-norm, p 1.1": PNorm(1.1),
    "p-norm, p 1.5": PNorm(1.5),
    "p-norm, p 3": PNorm(3.0),
}


def gradient_descent(setting: Setting) -> Evidence:
    """From any start gradient descent goes to the nearest interpolant, with any step that converges."""
    problem = setting.regression(10, 30)
    start = normal(example_keys(1, torch.arange(setting.seeds)), (problem.d,), torch.float64)
    stable = _stable(problem)
    nearest, shortest = nearest_interpolant(problem, start), nearest_interpolant(problem)
    rows, lines = [], []
    for share in (0.05, 0.5, 0.95):
        path = descend(LinearObjective(problem, Squared()), start, Steepest(L2(), share * stable, scaled=True), 5000)
        case, predicted = f"step {share:g} of the largest", "the interpolant nearest to the start"
        rows.append(_to_one_not_the_other(case, predicted, path.last, nearest, shortest, 1e-10))
        lines.append(over_steps(case, path, lambda w: relative_distance(w, nearest)))
    return Evidence(tuple(rows), {"": falling("Gradient descent and the nearest interpolant", lines, DISTANCE)})


def updates_in_span(setting: Setting) -> Evidence:
    """How far the updates leave the span of the examples, at any moment; Adam's do."""
    problem = setting.regression(10, 30)
    start, objective = zeros(problem), LinearObjective(problem, Squared())
    basis = torch.linalg.svd(problem.X, full_matrices=False)[2]

    def outside(w: Tensor) -> Tensor:
        inside = torch.bmm(basis.mT, torch.bmm(basis, w[..., None]))[..., 0]
        return relative_distance(inside, torch.where(w.any(1, keepdim=True), w, 1.0))

    def farthest(path: Path) -> Tensor:
        return torch.stack([outside(w) for w in path.points[1:]]).amax(0)

    stable = _stable(problem)
    one = 0.3 / problem.X.square().sum(2).amax(1)
    runs = {
        "gradient descent": descend(objective, start, Steepest(L2(), 0.5 * stable, scaled=True), 3000),
        "momentum 0.9": descend(objective, start, RunningMean(Steepest(L2(), 0.5 * stable, scaled=True)), 3000),
        "one example a step": descend(OneExample(problem, Squared()), start, Steepest(L2(), one, scaled=True), 3000),
    }
    adam = descend(objective, start, Adam(0.01), 3000)
    predicted = "in the span of the examples at all times"
    measure = "share of the weights outside the span"
    rows = [Row(case, predicted, numbers(farthest(path)), numbers(outside(adam.last)), 1e-10, measure) for case, path in runs.items()]
    lines = [over_steps(case, path, outside) for case, path in (runs | {"Adam (control)": adam}).items()]
    return Evidence(tuple(rows), {"": falling("Do the updates stay in the span?", lines, measure)})


def mirror_descent(setting: Setting) -> Evidence:
    """Mirror descent goes to the interpolant of smallest divergence, whatever the step."""
    rows, lines = [], []
    for name, potential in POTENTIALS.items():
        case = _MirrorCase(setting, potential)
        for share in (0.3, 0.8):
            path = descend(case.objective, case.start, MirrorDescent(potential, share * case.stable), 8000)
            rows.append(case.row(f"{name}, step {share:g} of the largest", path.last))
            lines += [over_steps(name, path, case.distance)] if share == 0.8 else []
    return Evidence(tuple(rows), {"": falling("Mirror descent and its interpolant", lines, DISTANCE)})


def mirror_descent_one_example(setting: Setting) -> Evidence:
    """The same with one example a step, drawn at random or in turn."""
    rows, lines = [], []
    for name, in_turn in (("entropy", False), ("hypentropy, beta 1", False), ("p-norm, p 1.5", False), ("p-norm, p 1.5", True)):
        case = _MirrorCase(setting, POTENTIALS[name])
        order = "in turn" if in_turn else "at random"
        objective = OneExample(case.problem, Squared(), in_turn=in_turn)
        path = descend(objective, case.start, MirrorDescent(case.potential, 0.5 * case.stable_for_one), 6000)
        rows.append(case.row(f"{name}, {order}", path.last))
        lines.append(over_steps(f"{name}, {order}", path, case.distance))
    return Evidence(tuple(rows), {"": falling("Mirror descent, one example a step", lines, DISTANCE)})


def dual_momentum(setting: Setting) -> Evidence:
    """Momentum of the dual variable changes nothing but the speed."""
    rows, lines = [], []
    for name in ("entropy", "hypentropy, beta 0.001", "p-norm, p 1.5"):
        case = _MirrorCase(setting, POTENTIALS[name])
        for word, nesterov in (("heavy ball", False), ("Nesterov", True)):
            rule = RunningMean(MirrorDescent(case.potential, 0.8 * case.stable), 0.9, nesterov)
            path = descend(case.objective, case.start, rule, 5000)
            rows.append(case.row(f"{name}, {word}", path.last))
            lines.append(over_steps(f"{name}, {word}", path, case.distance))
    return Evidence(tuple(rows), {"": falling("Momentum in the dual", lines, DISTANCE)})


# The one example of Gunasekar et al. 2018, section 2.2, of which entropy's interpolant nearest to (1, 1) is known.
ONE_EXAMPLE, KNOWN = one_problem([[1.0, 2.0]], [1.0]), torch.tensor([[0.5, 0.25]], dtype=torch.float64)


def primal_momentum(setting: Setting) -> Evidence:
    """Momentum of the weights leads elsewhere, farther with more of it."""
    objective, start = LinearObjective(ONE_EXAMPLE, Squared()), torch.ones_like(KNOWN)
    plain = descend(objective, start, PrimalMomentum(Entropy(), 0.01), 5000)
    rows, lines = [], [over_steps("none (mirror descent)", plain, _from_known)]
    for beta, gamma in ((0.3, 0.0), (0.6, 0.0), (0.5, 0.5)):
        path = descend(objective, start, PrimalMomentum(Entropy(), 0.01, beta, gamma), 5000)
        case = f"beta {beta:g}, gamma {gamma:g}"
        note = "ends at ({:.4g}, {:.4g})".format(*path.last[0])
        rows.append(_breaks(case, numbers(_from_known(path.last)), numbers(_from_known(plain.last)), 1e-3, note))
        lines.append(over_steps(case, path, _from_known))
    facts = {"without momentum": plain.last[0].tolist(), "closed form": KNOWN[0].tolist()}
    return Evidence(tuple(rows), {"": falling("Momentum of the weights", lines, DISTANCE)}, facts)


def natural_gradient(setting: Setting) -> Evidence:
    """Natural gradient steps: their limit depends on their size, and nears mirror descent's only as that goes to zero."""
    sizes = torch.tensor([1e-3, 3e-3, 1e-2, 0.05, 0.1], dtype=torch.float64)
    objective, start = LinearObjective(ONE_EXAMPLE, Squared()), torch.ones(len(sizes), 2).double()
    natural = descend(objective, start, NaturalGradient(Entropy(), sizes), 15_000, keep=(0,)).last
    mirror = descend(objective, start, MirrorDescent(Entropy(), sizes), 15_000, keep=(0,)).last
    gaps, controls = _from_known(natural), _from_known(mirror)
    rows = [
        _breaks(f"step {size:g}", (gap,), (control,), 1e-3, "ends at ({:.4g}, {:.4g})".format(*w))
        for size, gap, control, w in zip(sizes.tolist(), gaps.tolist(), controls.tolist(), natural, strict=True)
        if size >= 0.01
    ]
    runs = {"natural gradient": gaps, "mirror descent": controls.clamp(min=1e-17)}
    lines = [Line(name, sizes.tolist(), each.tolist()) for name, each in runs.items()]
    plot = falling("The limit of natural gradient depends on the step", lines, DISTANCE, "step size")
    slope = float((gaps[2] / gaps[0]).log10())
    return Evidence(tuple(rows), {"": plot}, {"exponent of the gap over the step, .001 to .01": slope})


def adam_squared(setting: Setting) -> Evidence:
    """Adam interpolates too, and not at the nearest interpolant."""
    problem = setting.regression(10, 30)
    nearest, start = nearest_interpolant(problem), zeros(problem)
    objective = LinearObjective(problem, Squared())
    adam = descend(objective, start, Adam(0.01), 10_000)
    plain = descend(objective, start, Steepest(L2(), 0.5 * _stable(problem), scaled=True), 5000)

    def distance(w: Tensor) -> Tensor:
        return relative_distance(w, nearest)

    note = f"relative residual {_residual(problem, adam.last).max():.1g} at most"
    gap, control, predicted = numbers(distance(adam.last)), numbers(distance(plain.last)), "the interpolant nearest to the start"
    rows = [Row("Adam, step 0.01", predicted, gap, control, 1e-2, DISTANCE, FAILS, note)]
    lines = [over_steps("Adam", adam, distance), over_steps("gradient descent (control)", plain, distance)]
    return Evidence(tuple(rows), {"": falling("Adam and the nearest interpolant", lines, DISTANCE)})


# Gunasekar et al. 2018, section 2.3.
TWO_EXAMPLES = one_problem([[1.0, 1.0, 1.0], [1.0, 2.0, 0.0]], [1.0, 10.0])


def steepest_descent(setting: Setting) -> Evidence:
    """Steepest descent does not find the interpolant of smallest norm, not even with steps that go to zero."""
    rows, plot, facts = _two_examples()
    problem, lines = setting.regression(8, 24), []
    objective, start = LinearObjective(problem, Squared()), zeros(problem)
    gradient = descend(objective, start, Steepest(L2(), 0.5 * _stable(problem), scaled=True), 2000)
    control = _excess(L2(), gradient.last, nearest_interpolant(problem)).abs()
    for name, norm in (("coordinate descent, L1", L1()), ("sign descent, Linf", Linf())):
        smallest = norm_interpolant(problem, norm)
        largest = 1 / norm.dual.measure(problem.X.flatten(0, 1)).square().reshape(len(problem.X), -1).sum(1)
        found = {}
        for share in (0.3, 0.1):
            path = descend(objective, start, Steepest(norm, share * largest, scaled=True), 10_000)
            found[share] = path.last
            lines.append(over_steps(f"{name}, step {share:g}", path, partial(_away, norm, smallest)))
        note = f"relative residual {_residual(problem, path.last).max():.0e}; three times the step changes the weights by at most "
        note += f"{relative_distance(found[0.3], found[0.1]).max():.1g}"
        predicted, measure = f"the interpolant of smallest {type(norm).__name__} norm", "excess of the norm"
        rows.append(Row(name, predicted, numbers(_excess(norm, path.last, smallest)), numbers(control), 1e-3, measure, FAILS, note))
    plots = {"example": plot, "": falling("Steepest descent and the smallest norm", lines, "excess of the norm")}
    return Evidence(tuple(rows), plots, facts)


def _two_examples() -> tuple[list[Row], LinePlot, dict[str, Any]]:
    """Steepest descent in the norm of p = 4/3 on two examples, with smaller and smaller steps."""
    norm, sizes = Lp(4 / 3), torch.tensor([0.05, 0.02, 0.01, 1e-3, 2e-4], dtype=torch.float64)
    smallest = norm_interpolant(TWO_EXAMPLES, norm)
    objective, start = LinearObjective(TWO_EXAMPLES, Squared()), zeros(TWO_EXAMPLES)
    many = descend(objective, start.expand(4, -1), Steepest(norm, sizes[:4], scaled=True), 20_000, keep=(0,)).last
    found = torch.cat([many, descend(objective, start, Steepest(norm, float(sizes[4]), scaled=True), 100_000, keep=(0,)).last])
    away, excess = relative_distance(found, smallest), _excess(norm, found, smallest)
    mirror = descend(objective, start, MirrorDescent(PNorm(4 / 3), 1e-3), 10_000, keep=(0,)).last
    change = float(relative_distance(found[3:4], found[4:5]))
    control, predicted, rows = numbers(relative_distance(mirror, smallest)), "the interpolant of smallest norm", []
    for i in (3, 4):
        note = f"norm excess {100 * float(excess[i]):.2f} %; step .0002 instead of .001 changes the weights by {change:.1g}"
        case = f"p = 4/3, two examples, step {sizes[i]:g}"
        rows.append(Row(case, predicted, (float(away[i]),), control, 1e-2, DISTANCE, FAILS, note))
    lines = [Line("distance", sizes.tolist(), away.tolist()), Line("excess of the norm", sizes.tolist(), excess.tolist())]
    plot = falling("Steepest descent in the norm of p = 4/3", lines, "from the interpolant of smallest norm", "step size")
    facts = {"smallest norm": smallest[0].tolist(), "limits": found.tolist(), "norm excess": excess.tolist()}
    return rows, plot, {**facts, "residuals": _residual(TWO_EXAMPLES, found).tolist(), "change from step .001 to .0002": change}


def boosting_and_lasso(setting: Setting) -> Evidence:
    """Boosting with small steps follows the lasso path exactly where no weight on it ever falls."""
    rows, lines, controls = [], [], {}
    for name, problem in (("monotone", _orthonormal(setting.seeds)), ("not monotone", _not_monotone(setting.seeds))):
        paths = lasso_path(problem)
        for size in (0.01, 0.001):
            boosted = [_Boosted(path, points, size) for path, points in zip(paths, _boosted(problem, size).unbind(1), strict=True)]
            gap = tuple(float(each.away.max()) for each in boosted)
            backward = [each.backward for each in boosted]
            note = f"{min(backward)} to {max(backward)} backward steps"
            case, measure = f"{name}, step {size:g}", "largest difference of a weight, on the whole path"
            if name == "monotone":
                controls[size] = gap
                other = tuple(float(_from_path(*each).max()) for each in zip(paths, _gradient_path(problem).unbind(1), strict=True))
                rows.append(Row(case, "the lasso path", gap, other, 2 * size, measure, note=note))
            else:
                rows.append(Row(case, "the lasso path", gap, controls[size], 2 * size, measure, FAILS, note))
            if size == 0.001:
                lines += [Line(name, *each.line) for each in boosted]
    plot = falling(
        "Boosting and the lasso path", lines, "largest difference of a weight", "share of the path's L1 norm", {"2 steps": 0.002}
    )
    return Evidence(tuple(rows), {"": plot})


EVERY = 10  # steps of boosting between two points that are kept


class _Boosted:
    """What boosting did on the way to the end of a lasso path.

    Attributes:
        away: the largest difference of a weight from the path, ``(T,)``.
        share: of the path's whole L1 norm, ``(T,)``.
        backward: how many steps moved a weight towards zero.
    """

    def __init__(self, path: LassoPath, points: Tensor, size: float) -> None:
        share = L1().measure(points) / path.radii[-1]
        end = int((share >= 0.99).int().argmax()) if (share >= 0.99).any() else len(share) - 1
        self.away, self.share = _from_path(path, points[: end + 1]), share[: end + 1]
        self.backward = round((EVERY * end - float(L1().measure(points[end : end + 1])) / size) / 2)

    @property
    def line(self) -> tuple[list[float], list[float]]:
        """Shares and differences there, some of them."""
        some = torch.linspace(1, len(self.away) - 1, min(len(self.away) - 1, 60)).long()
        return self.share[some].tolist(), self.away[some].clamp(min=1e-6).tolist()


class _MirrorCase:
    """A potential with a problem, a start, the interpolant that theory names, and steps that converge near it.

    Attributes:
        stable, stable_for_one: the largest step near the interpolant, of all examples and of each alone, one per seed.
    """

    def __init__(self, setting: Setting, potential: Potential) -> None:
        self.potential, positive = potential, isinstance(potential, Entropy)
        self.problem = _positive(setting) if positive else setting.regression(8, 24)
        self.start = torch.ones(len(self.problem.X), self.problem.d).double() if positive else zeros(self.problem)
        self.objective = LinearObjective(self.problem, Squared())
        self.reference = bregman_interpolant(self.problem, potential, self.start)
        self.shortest = nearest_interpolant(self.problem)
        self.stable, self.stable_for_one = self._steps()

    def _steps(self) -> tuple[Tensor, Tensor]:
        """Curvature is ``2 X psi''^-1 X^T``; at the interpolant, as it may be infinite at the start."""
        scaled = self.problem.X * self.potential.inverse_slope(self.potential.dual(self.reference)).sqrt()[:, None]
        return 1 / torch.linalg.matrix_norm(scaled, ord=2).square(), 1 / scaled.square().sum(2).amax(1)

    def distance(self, w: Tensor) -> Tensor:
        return relative_distance(w, self.reference)

    def row(self, case: str, w: Tensor) -> Row:
        return _to_one_not_the_other(case, "the interpolant of smallest divergence", w, self.reference, self.shortest, 1e-8)


def _positive(setting: Setting) -> Problem:
    """A problem that positive weights solve: one's own data are left out, for which there may be none."""
    X = Setting(setting.seeds).regression(8, 24).X
    w = seeding.uniform(seeding.fold(example_keys(0, torch.arange(setting.seeds)), "positive"), (24,), torch.float64)
    return Problem(X, torch.bmm(X, w[..., None])[..., 0])


def _stable(problem: Problem) -> Tensor:
    """The largest step of gradient descent, two over the largest curvature, one per problem."""
    return 1 / torch.linalg.matrix_norm(problem.X, ord=2) ** 2


def _residual(problem: Problem, w: Tensor) -> Tensor:
    return L2().measure(problem.outputs(w) - problem.y) / L2().measure(problem.y)


def _excess(norm: Norm, w: Tensor, smallest: Tensor) -> Tensor:
    return norm.measure(w) / norm.measure(smallest) - 1


def _away(norm: Norm, smallest: Tensor, w: Tensor) -> Tensor:
    return _excess(norm, w, smallest).abs()


def _from_known(w: Tensor) -> Tensor:
    return relative_distance(w, KNOWN)


def _to_one_not_the_other(case: str, predicted: str, w: Tensor, one: Tensor, other: Tensor, tolerance: float) -> Row:
    return Row(case, predicted, numbers(relative_distance(w, one)), numbers(relative_distance(w, other)), tolerance, DISTANCE)


def _breaks(case: str, gap: tuple[float, ...], control: tuple[float, ...], tolerance: float, note: str = "") -> Row:
    return Row(case, "the interpolant of smallest divergence", gap, control, tolerance, DISTANCE, FAILS, note)


def _orthonormal(seeds: int, n: int = 50, d: int = 8) -> Problem:
    """Examples whose columns are orthonormal."""
    keys = example_keys(2, torch.arange(seeds))
    X = torch.linalg.qr(normal(seeding.fold(keys, "X"), (n, d), torch.float64))[0]
    w = normal(seeding.fold(keys, "w"), (d,), torch.float64)
    return Problem(X, torch.bmm(X, w[..., None])[..., 0] + 0.1 * normal(seeding.fold(keys, "noise"), (n,), torch.float64))


def _not_monotone(seeds: int, n: int = 50, d: int = 8, rank: int = 3) -> Problem:
    """Examples whose columns are mixtures of a few: the first draws on whose lasso path a weight falls by a tenth of the largest."""
    keys = example_keys(3, torch.arange(40 * seeds))
    few, mixed = normal(seeding.fold(keys, "few"), (n, rank), torch.float64), normal(seeding.fold(keys, "mixed"), (rank, d), torch.float64)
    X = few @ mixed / n**0.5
    drawn = Problem(X, torch.bmm(X, normal(seeding.fold(keys, "w"), (d, 1), torch.float64))[..., 0])
    falls = [s for s, path in enumerate(lasso_path(drawn)) if path.fall > 0.1]
    return drawn.at(torch.tensor(falls[:seeds]))


def _boosted(problem: Problem, size: float) -> Tensor:
    """Points of boosting, every tenth, ``(T, S, d)``."""
    steps = int(12 / size)
    return descend(LinearObjective(problem, Squared()), zeros(problem), Steepest(L1(), size), steps, keep=range(0, steps + 1, EVERY)).points


def _gradient_path(problem: Problem) -> Tensor:
    """Points of gradient descent with small steps, which is no lasso path."""
    return descend(LinearObjective(problem, Squared()), zeros(problem), Steepest(L2(), 0.01 * _stable(problem), scaled=True), 1000).points


def _from_path(path: LassoPath, points: Tensor) -> Tensor:
    """The largest difference of a weight between points ``(T, d)`` and the lasso path at the same L1 norm, ``(T,)``."""
    return (points - path.at(L1().measure(points))).abs().amax(1)


CLAIMS = (
    Claim(
        "gradient-descent",
        "On squared loss gradient descent goes to the interpolant that is nearest to its start, whatever the step.",
        "Gunasekar et al. 2018, section 2",
        gradient_descent,
        REGRESSION,
    ),
    Claim(
        "updates-in-span",
        "All updates of gradient descent stay in the span of the examples, with momentum and with one example a step; Adam's do not.",
        "Gunasekar et al. 2018, section 2",
        updates_in_span,
        REGRESSION,
    ),
    Claim(
        "mirror-descent",
        "Mirror descent goes to the interpolant of smallest divergence from its start, whatever the step.",
        "Gunasekar et al. 2018, theorem 1",
        mirror_descent,
    ),
    Claim(
        "mirror-descent-one-example",
        "So it does with one example a step, in any order.",
        "Gunasekar et al. 2018, theorem 1; Azizan and Hassibi 2019",
        mirror_descent_one_example,
    ),
    Claim(
        "dual-momentum",
        "So it does with momentum of the dual variable, heavy ball or Nesterov.",
        "Gunasekar et al. 2018, theorem 2",
        dual_momentum,
    ),
    Claim(
        "primal-momentum",
        "With momentum of the weights mirror descent goes elsewhere.",
        "Gunasekar et al. 2018, example 2",
        primal_momentum,
    ),
    Claim(
        "natural-gradient",
        "Where natural gradient descent goes depends on its step.",
        "Gunasekar et al. 2018, example 3",
        natural_gradient,
    ),
    Claim(
        "adam-squared",
        "Adam does not go to the nearest interpolant.",
        "Wilson et al. 2017",
        adam_squared,
        REGRESSION,
    ),
    Claim(
        "steepest-descent-squared",
        "Steepest descent in other norms does not go to the interpolant of smallest norm, not even with steps that go to zero.",
        "Gunasekar et al. 2018, example 4",
        steepest_descent,
        REGRESSION,
    ),
    Claim(
        "boosting-and-lasso",
        "Boosting with small steps follows the lasso path where no weight on that path ever falls, and leaves it elsewhere.",
        "Efron et al. 2004, section 3.2",
        boosting_and_lasso,
    ),
)
