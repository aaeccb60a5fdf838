"""Squared loss, more values than examples: which of the many solutions gradient and mirror descent find, and what breaks it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from robustlab import seeding
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
from robustlab.linear_bias.problems import Problem, problem, zeros
from robustlab.norms import L1, L2, Linf, Lp, Norm
from robustlab.reports.plots import Line, spread_line
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
        for share in (0.1, 0.8):
            path = descend(case.objective, case.start, MirrorDescent(potential, share * case.stable), 10_000)
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
        path = descend(objective, case.start, MirrorDescent(case.potential, 0.5 * case.stable_for_one), 20_000)
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
ONE_EXAMPLE, KNOWN = problem([[1.0, 2.0]], [1.0]), torch.tensor([[0.5, 0.25]], dtype=torch.float64)


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
    sizes = torch.tensor([1e-4, 1e-3, 1e-2, 0.05, 0.1], dtype=torch.float64)
    objective, start = LinearObjective(ONE_EXAMPLE, Squared()), torch.ones(len(sizes), 2).double()
    natural = descend(objective, start, NaturalGradient(Entropy(), sizes), 100_000, keep=(0,)).last
    mirror = descend(objective, start, MirrorDescent(Entropy(), sizes), 100_000, keep=(0,)).last
    gaps, controls = _from_known(natural), _from_known(mirror)
    rows = [
        _breaks(f"step {size:g}", (gap,), (control,), 1e-3, "ends at ({:.4g}, {:.4g})".format(*w))
        for size, gap, control, w in zip(sizes.tolist(), gaps.tolist(), controls.tolist(), natural, strict=True)
        if size >= 0.01
    ]
    lines = [
        Line("natural gradient", sizes.tolist(), gaps.tolist()),
        Line("mirror descent", sizes.tolist(), controls.clamp(min=1e-17).tolist()),
    ]
    plot = falling("The limit of natural gradient depends on the step", lines, DISTANCE, "step size")
    slope = float((gaps[2] / gaps[0]).log10() / 2)
    return Evidence(tuple(rows), {"": plot}, {"exponent of the gap over the step, .0001 to .01": slope})


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
    rows = [_breaks("Adam, step 0.01", numbers(distance(adam.last)), numbers(distance(plain.last)), 1e-2, note)]
    lines = [over_steps("Adam", adam, distance), over_steps("gradient descent (control)", plain, distance)]
    return Evidence(tuple(rows), {"": falling("Adam and the nearest interpolant", lines, DISTANCE)})


# Gunasekar et al. 2018, section 2.3.
TWO_EXAMPLES = problem([[1.0, 1.0, 1.0], [1.0, 2.0, 0.0]], [1.0, 10.0])


def steepest_descent(setting: Setting) -> Evidence:
    """Steepest descent does not find the interpolant of smallest norm, not even with steps that go to zero."""
    rows, plot, facts = _two_examples()
    problem = setting.regression(8, 24)
    objective, lines = LinearObjective(problem, Squared()), []
    gradient = descend(objective, zeros(problem), Steepest(L2(), 0.5 * _stable(problem), scaled=True), 5000)
    control = numbers(_excess(L2(), gradient.last, nearest_interpolant(problem)))
    for name, norm in (("coordinate descent, L1", L1()), ("sign descent, Linf", Linf())):
        smallest = norm_interpolant(problem, norm)
        largest = 1 / norm.dual.measure(problem.X.flatten(0, 1)).square().reshape(len(problem.X), -1).sum(1)
        found = {}
        for share in (0.1, 0.03):
            path = descend(objective, zeros(problem), Steepest(norm, share * largest, scaled=True), 20_000)
            found[share] = path.last
            lines.append(over_steps(f"{name}, step {share:g}", path, lambda w, n=norm, s=smallest: _excess(n, w, s).abs()))
        note = f"residual {_residual(problem, path.last).max():.0e}; a third of the step changes the weights by at most "
        note += f"{relative_distance(found[0.03], found[0.1]).max():.1g}"
        rows.append(
            _fails_by(
                name, f"the interpolant of smallest {type(norm).__name__} norm", _excess(norm, path.last, smallest), control, 1e-3, note
            )
        )
    plots = {"example": plot, "": falling("Steepest descent and the smallest norm", lines, "excess of the norm")}
    return Evidence(tuple(rows), plots, facts)


def _two_examples() -> tuple[list[Row], Any, dict[str, Any]]:
    """Steepest descent in the norm of p = 4/3 on two examples, with smaller and smaller steps."""
    norm, sizes = Lp(4 / 3), torch.tensor([0.05, 0.02, 0.01, 1e-3, 1e-4], dtype=torch.float64)
    smallest = norm_interpolant(TWO_EXAMPLES, norm)
    objective, start = LinearObjective(TWO_EXAMPLES, Squared()), torch.zeros(len(sizes), 3).double()
    found = descend(objective, start, Steepest(norm, sizes / 2, scaled=True), 100_000, keep=(0,)).last
    away, excess = relative_distance(found, smallest), _excess(norm, found, smallest)
    change = float(relative_distance(found[3:4], found[4:5]))
    mirror = descend(objective, start[:1], MirrorDescent(PNorm(4 / 3), 1e-3), 20_000, keep=(0,)).last
    note = f"norm excess {100 * float(excess[3]):.2f} % at step .001; steps ten times smaller change the weights by {change:.1g}"
    case = "p = 4/3, two examples, step {:g}"
    rows = [
        Row(
            case.format(size),
            "the interpolant of smallest norm",
            (float(gap),),
            numbers(relative_distance(mirror, smallest)),
            1e-2,
            DISTANCE,
            FAILS,
            note,
        )
        for size, gap in zip(sizes[3:].tolist(), away[3:], strict=True)
    ]
    lines = [Line("distance", sizes.tolist(), away.tolist()), Line("excess of the norm", sizes.tolist(), excess.tolist())]
    plot = falling("Steepest descent in the norm of p = 4/3", lines, "from the interpolant of smallest norm", "step size")
    facts = {
        "smallest norm": smallest[0].tolist(),
        "limits": found.tolist(),
        "residuals": _residual(TWO_EXAMPLES, found).tolist(),
        "norm excess": excess.tolist(),
        "change from step .001 to .0001": change,
    }
    return rows, plot, facts


def boosting_and_lasso(setting: Setting) -> Evidence:
    """Boosting with small steps follows the lasso path exactly where no weight on it ever falls."""
    rows, lines, eps = [], [], 1e-3
    monotone, correlated = _orthonormal(setting.seeds), _correlated(setting.seeds)
    control: tuple[float, ...] = ()
    for name, problem in (("orthonormal", monotone), ("correlated", correlated)):
        paths = lasso_path(problem)
        for size in (10 * eps, eps):
            boosted = _boosted(problem, size)
            away = [_from_path(path, boosted.points[:, s]) for s, path in enumerate(paths)]
            gap = tuple(float(each.max()) for each in away)
            backward = _backward(boosted, size)
            note = (
                f"{min(backward)} to {max(backward)} backward steps; "
                + f"{sum(path.monotone for path in paths)} of {len(paths)} paths monotone"
            )
            case, predicted = f"{name} design, step {size:g}", "the lasso path"
            measure = "largest difference of a weight on the path"
            if name == "orthonormal":
                other = tuple(float(_from_path(path, _gradient_path(problem)[:, s]).max()) for s, path in enumerate(paths))
                rows.append(Row(case, predicted, gap, other, 2 * size, measure, note=note))
                control = gap
            else:
                rows.append(Row(case, predicted, gap, control, 2 * size if size == eps else 20 * eps, measure, FAILS, note))
            if size == eps:
                moments = [m for m in boosted.moments if m]
                lines.append(spread_line(f"{name} design", moments, [each[1:].clamp(min=1e-17).tolist() for each in away]))
    return Evidence(
        tuple(rows), {"": falling("Boosting and the lasso path", lines, "largest difference of a weight", references={"2 steps": 2 * eps})}
    )


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
        """Curvature is ``2 X psi''^-1 X^T``, at the interpolant or at the start, whichever is larger."""
        whole, alone = [], []
        for w in (self.reference, self.start):
            scaled = self.problem.X * self.potential.inverse_slope(self.potential.dual(w)).clamp(max=1e3).sqrt()[:, None]
            whole.append(torch.linalg.matrix_norm(scaled, ord=2).square())
            alone.append(scaled.square().sum(2).amax(1))
        return 1 / torch.stack(whole).amax(0), 1 / torch.stack(alone).amax(0)

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


def _from_known(w: Tensor) -> Tensor:
    return relative_distance(w, KNOWN)


def _to_one_not_the_other(case: str, predicted: str, w: Tensor, one: Tensor, other: Tensor, tolerance: float) -> Row:
    return Row(case, predicted, numbers(relative_distance(w, one)), numbers(relative_distance(w, other)), tolerance, DISTANCE)


def _breaks(case: str, gap: tuple[float, ...], control: tuple[float, ...], tolerance: float, note: str = "") -> Row:
    return Row(case, "the interpolant of smallest divergence", gap, control, tolerance, DISTANCE, FAILS, note)


def _fails_by(case: str, predicted: str, excess: Tensor, control: tuple[float, ...], tolerance: float, note: str) -> Row:
    return Row(case, predicted, numbers(excess), tuple(map(abs, control)), tolerance, "excess of the norm", FAILS, note)


def _orthonormal(seeds: int, n: int = 50, d: int = 8) -> Problem:
    """Examples whose columns are orthonormal."""
    keys = example_keys(2, torch.arange(seeds))
    X = torch.linalg.qr(normal(seeding.fold(keys, "X"), (n, d), torch.float64))[0]
    w = normal(seeding.fold(keys, "w"), (d,), torch.float64)
    return Problem(X, torch.bmm(X, w[..., None])[..., 0] + 0.1 * normal(seeding.fold(keys, "noise"), (n,), torch.float64))


def _correlated(seeds: int, n: int = 50, d: int = 8, rank: int = 3) -> Problem:
    """Examples whose columns are mixtures of a few."""
    keys = example_keys(3, torch.arange(seeds))
    few, mixed = normal(seeding.fold(keys, "few"), (n, rank), torch.float64), normal(seeding.fold(keys, "mixed"), (rank, d), torch.float64)
    X = few @ mixed / n**0.5
    w = normal(seeding.fold(keys, "w"), (d,), torch.float64)
    return Problem(X, torch.bmm(X, w[..., None])[..., 0])


def _boosted(problem: Problem, eps: float) -> Path:
    steps = int(12 / eps)
    keep = range(0, steps + 1, 10)
    return descend(LinearObjective(problem, Squared()), zeros(problem), Steepest(L1(), eps), steps, keep=keep)


def _gradient_path(problem: Problem) -> Tensor:
    """Points of gradient descent with small steps, which is no lasso path."""
    return descend(LinearObjective(problem, Squared()), zeros(problem), Steepest(L2(), 0.01 * _stable(problem), scaled=True), 1000).points


def _from_path(path: LassoPath, points: Tensor) -> Tensor:
    """The largest difference of a weight between points ``(T, d)`` and the lasso path at the same L1 norm, ``(T,)``."""
    return (points - path.at(L1().measure(points))).abs().amax(1)


def _backward(boosted: Path, eps: float) -> list[int]:
    """In how many steps a weight came nearer to zero: those whose lengths are not in the L1 norm."""
    grown = L1().measure(boosted.last)
    return [round((boosted.moments[-1] - size / eps) / 2) for size in grown.tolist()]


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
