"""Newer than the talk: Adam, Signum, spectral descent and Muon, steepest descent in homogeneous networks."""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.experiments.linear_bias.claim import FAILS, TWO_CLASSES, Claim, Evidence, Row, Setting, falling, numbers, over_steps
from robustlab.experiments.linear_bias.two_classes import GAP, gap_to
from robustlab.linear_bias.descent import Path, descend, moments
from robustlab.linear_bias.kkt import tangent_gap
from robustlab.linear_bias.losses import LinearObjective, LogExponential, Logistic, ModelObjective, MulticlassObjective, OneExample
from robustlab.linear_bias.parametrizations import LinearNetwork, Model, ReLUNetwork
from robustlab.linear_bias.polar import NewtonSchulz
from robustlab.linear_bias.problems import Problem, separable, zeros
from robustlab.linear_bias.separators import max_margin, multiclass_max_margin, multiclass_rows
from robustlab.norms import L1, L2, Linf, Norm, Spectral
from robustlab.optimize import StepRule
from robustlab.reports.plots import spread_line
from robustlab.steps import Adam, Decaying, Directions, Relative, RunningMean, Steepest

LINF, SPECTRAL = "the separator of largest Linf margin", "the largest margin between classes in the spectral norm"


def adam_linf(setting: Setting) -> Evidence:
    """Adam of full batches and decaying steps nears the Linf margin while its gradients stay above its own small constant."""
    problem = setting.separable(15, 40)
    measure = gap_to(problem, Linf(), max_margin(problem, Linf())[1])
    rule = Decaying(Adam(0.2), 0.6)
    plain = descend(LinearObjective(problem, LogExponential()), zeros(problem), rule, 40_000)
    faint = descend(LinearObjective(problem, Logistic()), zeros(problem), rule, 20_000)
    reached, far = measure(plain.last), measure(faint.last)
    other = measure(max_margin(problem, L2())[0])
    rows = (
        Row("log of the exponential loss", LINF, numbers(reached), numbers(other), 3e-2, GAP),
        Row(
            "logistic loss, constant 1e-8", LINF, numbers(far), numbers(reached), 3e-2, GAP, FAILS, "its gradients fall below the constant"
        ),
    )
    lines = [over_steps("log of the exponential loss", plain, measure), over_steps("logistic loss", faint, measure)]
    apart = {"the L2 separator": statistics.median(numbers(other))}
    return Evidence(rows, {"": falling("Adam and the Linf margin", lines, GAP, references=apart)})


def adam_one_example(setting: Setting) -> Evidence:
    """Adam of one example a step is near the L2 margin, and far from the Linf one."""
    problem = setting.separable(15, 40)
    objective = OneExample(problem, Logistic(), in_turn=True)
    # The constant must be below the gradients, which fall like the loss.
    path = descend(objective, zeros(problem), Decaying(Adam(0.03, tiny=1e-300), 0.5, 10), 20_000)
    measures = {f"in {norm!r}": gap_to(problem, norm, max_margin(problem, norm)[1]) for norm in (L2(), Linf())}
    near, far = (measure(path.last) for measure in measures.values())
    row = Row("in turn", "near the largest L2 margin", numbers(near), numbers(far), 0.1, f"{GAP} in L2; control: in Linf")
    lines = [over_steps(name, path, measure) for name, measure in measures.items()]
    return Evidence((row,), {"": falling("Adam, one example a step", lines, GAP)})


def signum(setting: Setting) -> Evidence:
    """Signum of one example a step keeps the Linf margin if its mean is longer than a round of all examples."""
    problem = setting.separable(15, 40)
    measure = gap_to(problem, Linf(), max_margin(problem, Linf())[1])
    paths = {}
    for momentum, steps in ((0.99, 150_000), (0.5, 20_000)):
        rule = RunningMean(Decaying(Steepest(Linf(), 0.03), 0.5, 10), momentum)
        paths[momentum] = descend(OneExample(problem, Logistic(), in_turn=True), zeros(problem), rule, steps)
    long, short = (measure(path.last) for path in paths.values())
    other = measure(max_margin(problem, L2())[0])
    rows = (
        Row("momentum 0.99", LINF, numbers(long), numbers(other), 3e-2, GAP),
        Row("momentum 0.5", LINF, numbers(short), numbers(long), 3e-2, GAP, FAILS, "its mean is shorter than a round"),
    )
    lines = [over_steps(f"momentum {momentum:g}", path, measure) for momentum, path in paths.items()]
    apart = {"the L2 separator": statistics.median(numbers(other))}
    return Evidence(rows, {"": falling("Signum, one example a step", lines, GAP, references=apart)})


class _Classes:
    """Normal examples of four classes in turn, with their margin between classes in the spectral norm."""

    def __init__(self, seeds: int, n: int = 20, d: int = 20, classes: int = 4) -> None:
        keys = seeding.fold(seeding.example_keys(0, torch.arange(seeds)), "classes")
        y = (torch.arange(n) % classes).double().expand(seeds, -1).contiguous()
        self.problem = Problem(seeding.normal(keys, (n, d), torch.float64), y)
        self.rows, self.shape = multiclass_rows(self.problem.X, y)
        _, self.best = multiclass_max_margin(self.problem.X, y, Spectral())
        self.wrong, _ = multiclass_max_margin(self.problem.X, y, L2())

    def gap(self, w: Tensor) -> Tensor:
        """From ``(S, K, d)`` to ``(S,)``."""
        smallest = (self.rows @ w.flatten(1)[..., None])[..., 0].amin(1)
        return 1 - smallest / Spectral().measure(w) / self.best

    def muon(self, directions: Directions) -> Path:
        """Normalized steps along a running mean of the gradients, long ones first."""
        return self._descent(RunningMean(Decaying(Steepest(directions, 1.0), 2.0, 1000)), 4000)

    def scaled(self) -> Path:
        """Steps times the nuclear norm of the gradient, as long as theory allows: a row has at most ``sqrt(2) ‖x‖`` of it."""
        longest = torch.linalg.vector_norm(self.problem.X, dim=2).amax(1)
        return self._descent(Steepest(Spectral(), 1 / (2 * longest**2), scaled=True), 20_000)

    def _descent(self, rule: StepRule, steps: int) -> Path:
        start = torch.zeros(len(self.problem.X), *self.shape, dtype=torch.float64)
        return descend(MulticlassObjective(self.problem), start, rule, steps)


def spectral_descent(setting: Setting) -> Evidence:
    """Spectral descent goes to the largest margin between classes in the spectral norm: plain scaled steps, and momentum."""
    classes = _Classes(setting.seeds)
    other, rows, lines = classes.gap(classes.wrong), [], []
    for case, path in (("scaled steps", classes.scaled()), ("momentum 0.9, decaying steps", classes.muon(Spectral()))):
        rows.append(Row(case, SPECTRAL, numbers(classes.gap(path.last)), numbers(other), 1e-2, GAP))
        lines.append(over_steps(case, path, classes.gap))
    apart = {"the Frobenius separator": statistics.median(numbers(other))}
    return Evidence(tuple(rows), {"": falling("Spectral descent and the spectral margin", lines, GAP, references=apart)})


def muon(setting: Setting) -> Evidence:
    """Muon's quintic Newton-Schulz steps stall short of the spectral margin, however many; steps that converge do not."""
    classes = _Classes(setting.seeds)
    ways: dict[str, Any] = {
        "polar factor": Spectral(),
        "5 quintic steps": NewtonSchulz(),
        "10 quintic steps": NewtonSchulz(10),
        "15 cubic steps": NewtonSchulz(15, "cubic"),
    }
    paths = {name: classes.muon(directions) for name, directions in ways.items()}
    exact, five, ten, cubic = (numbers(classes.gap(path.last)) for path in paths.values())
    rows = (
        Row("5 quintic steps", SPECTRAL, five, exact, 5e-3, GAP, FAILS),
        Row("10 quintic steps", SPECTRAL, ten, exact, 5e-3, GAP, FAILS),
        Row("15 cubic steps", SPECTRAL, cubic, five, 5e-3, GAP),
    )
    lines = [over_steps(name, path, classes.gap) for name, path in paths.items()]
    return Evidence(rows, {"": falling("Muon's short cut and the spectral margin", lines, GAP)})


def steepest_homogeneous(setting: Setting) -> Evidence:
    """Steepest descent in a norm goes to stationary points of the margin over that norm of the parameters, in homogeneous networks too."""
    problem = separable(setting.seeds, 10, 12)
    models: dict[str, tuple[Model, float]] = {
        "linear network": (LinearNetwork((problem.d, 6)), 0.0),
        "ReLU network": (ReLUNetwork(problem.d, 20), 0.01),
    }
    rows, lines = [], []
    for name, (model, radius) in models.items():
        ends = {norm: _steepest_path(setting, problem, model, norm) for norm in (L1(), L2(), Linf())}
        for norm, path in ends.items():
            case = f"{name}, {norm!r}"
            shown = [(m, theta) for m, theta in zip(path.moments, path.points, strict=True) if m >= 100 or m == path.moments[-1]]
            falls = torch.stack([_gap_or_one(model, problem, theta, norm, radius) for _, theta in shown])
            wrong = [_gap_or_one(model, problem, other.last, norm, radius) for key, other in ends.items() if key != norm]
            predicted = f"a stationary point of the margin over {norm!r} of the parameters"
            measure = "share by which the margin can still grow; control: in the other norms' networks"
            control, tolerance = numbers(torch.stack(wrong).amin(0)), 1e-2 if isinstance(norm, L2) else 3e-2
            note = "to the first order, in a ball of 1 %" if radius else ""
            note = "one value a step: slow, and still falling" if isinstance(norm, L1) else note
            rows.append(Row(case, predicted, numbers(falls[-1].clamp(min=0)), control, tolerance, measure, note=note))
            lines.append(spread_line(case, [m for m, _ in shown], falls.clamp(min=1e-4).T.tolist()))
    return Evidence(tuple(rows), {"": falling("Steepest descent in homogeneous networks", lines, "share by which the margin can grow")})


def _steepest_path(setting: Setting, problem: Problem, model: Model, norm: Norm) -> Path:
    """Steps in a norm, of a share of the parameters' size in it, long ones first."""
    # As long for all norms as the parameters need: in Linf every value moves, in L1 a single one. Margins are soon so far apart that
    # each gradient is that of one example; the mean mixes them, and must be longest where a step moves one value.
    single = isinstance(norm, L1)
    size = model.size**-0.5 if isinstance(norm, Linf) else 3.0 if single else 1.0
    steps, mean = (32_000, 0.9995) if single else (8000, 0.99)
    rule = RunningMean(Decaying(Relative(Steepest(norm, 0.01 * size)), 2.0, steps / 4), mean)
    objective = ModelObjective(problem, LogExponential(), model)
    return descend(objective, model.random(setting.seeds, 0.5), rule, steps, keep=moments(steps, 4))


def _gap_or_one(model: Model, problem: Problem, theta: Tensor, norm: Norm, radius: float) -> Tensor:
    """``tangent_gap``, and 1 where the classes are not separated."""
    found = theta.new_ones(len(theta))
    apart = ((model.outputs(theta, problem.X) * problem.y).amin(1) > 0).nonzero()[:, 0]
    if len(apart):
        found[apart] = tangent_gap(model, theta[apart], problem.at(apart), norm, radius=radius, draws=32)
    return found


CLAIMS = (
    Claim(
        "adam-linf",
        "Adam of full batches with decaying steps goes to the Linf margin, until its gradients fall below its own small constant.",
        "Zhang et al. 2024",
        adam_linf,
        TWO_CLASSES,
        "newer",
    ),
    Claim(
        "adam-one-example",
        "Adam of one example a step is near the L2 margin, not the Linf one.",
        "Baek et al. 2026",
        adam_one_example,
        TWO_CLASSES,
        "newer",
    ),
    Claim(
        "signum",
        "Signum of one example a step keeps the Linf margin if its momentum is close to 1, and not if it is small.",
        "Baek et al. 2026",
        signum,
        TWO_CLASSES,
        "newer",
    ),
    Claim(
        "spectral-descent",
        "Spectral descent goes to the largest margin between classes in the spectral norm, with momentum too.",
        "Fan et al. 2025",
        spectral_descent,
        part="newer",
    ),
    Claim(
        "muon",
        "Muon's few Newton-Schulz steps keep that margin.",
        "Jordan et al. 2024",
        muon,
        part="newer",
    ),
    Claim(
        "steepest-homogeneous",
        "Steepest descent in a norm takes homogeneous networks to stationary points of the margin over that norm of the parameters.",
        "Tsilivis et al. 2025",
        steepest_homogeneous,
        part="newer",
    ),
)
