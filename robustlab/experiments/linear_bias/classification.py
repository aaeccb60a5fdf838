"""Two classes that can be separated: margins, in which norm, how fast, and how little start and step matter in the end."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from robustlab.experiments.finding import LinePlot
from robustlab.experiments.linear_bias.claim import (
    FAILS,
    TWO_CLASSES,
    Claim,
    Evidence,
    Row,
    Setting,
    falling,
    numbers,
    over_steps,
)
from robustlab.experiments.linear_bias.two_classes import (
    GAP,
    LEAST,
    LONG,
    LP_NORMS,
    STEPS,
    TURN,
    drawn_starts,
    gap_to,
    margin_gap,
    repeated,
    scaled_descent,
    smooth_step,
    turned,
)
from robustlab.linear_bias.certificates import largest, log_slope, path_length
from robustlab.linear_bias.descent import Path, descend, moments
from robustlab.linear_bias.losses import LinearObjective, LogExponential, Logistic, Loss, Squared, SquaredHinge
from robustlab.linear_bias.optimizers import DualAcceleration, MirrorDescent
from robustlab.linear_bias.potentials import Cosh, HypEntropy, PNorm, Potential
from robustlab.linear_bias.problems import Problem, separable, zeros
from robustlab.linear_bias.separators import margin_path, max_margin, separator
from robustlab.norms import L1, L2, Linf, Lp, Norm, Nuclear, Shaped, Spectral
from robustlab.reports.plots import Line
from robustlab.steps import Steepest

TALK = "Gunasekar et al. 2018"
FEWER = STEPS // 2  # where many norms are tried
EARLY = LONG // 10  # the growth of weights is measured from here to the end


@lru_cache(maxsize=1)
def _constant_steps(setting: Setting) -> tuple[Problem, Path]:
    """Gradient descent on the logistic loss with a constant step."""
    problem = setting.separable(15, 40)
    return problem, _kept(problem, Logistic(), smooth_step(problem), LONG)


def _kept(problem: Problem, loss: Loss, step: Tensor, steps: int) -> Path:
    rule = Steepest(L2(), step, scaled=True)
    return descend(LinearObjective(problem, loss), zeros(problem), rule, steps, keep=(*moments(steps), steps // 10))


def _growth(path: Path, sizes: Tensor) -> Tensor:
    """How much sizes ``(T, S)`` grow per factor of e in steps, over the last factor of ten, ``(S,)``."""
    last = path.moments[-1]
    return (sizes[-1] - sizes[path.moments.index(last // 10)]) / math.log(10)


def _sizes(path: Path) -> Tensor:
    return torch.linalg.vector_norm(path.points, dim=2)


def no_minimizer(setting: Setting) -> Evidence:
    """Norm and length of the path grow like ``‖w*‖ log t``; the loss falls like ``‖w*‖^2 / (step t)``."""
    problem, path = _constant_steps(setting)
    step, best = smooth_step(problem), L2().measure(max_margin(problem, L2())[0])
    hinge = _kept(problem, SquaredHinge(), step / 8, EARLY)  # its curvature is eight times as large; it has a minimizer

    def error(of: Path, what: Tensor) -> tuple[float, ...]:
        return numbers((_growth(of, what) / best - 1).abs())

    def product(of: Path) -> tuple[float, ...]:
        return numbers((of.moments[-1] * step * of.values[-1] / best**2 - 1).abs())

    stopped, measure = error(hinge, _sizes(hinge)), "relative error of the growth"
    rows = (
        Row("norm of the weights", "grows like ‖w*‖ log t, w* the L2 separator", error(path, _sizes(path)), stopped, 0.06, measure),
        Row("length of the path", "grows like ‖w*‖ log t: infinite", error(path, path_length(path)), stopped, 0.06, measure),
        Row("steps x step size x loss", "goes to ‖w*‖²", product(path), product(hinge), 0.06, "relative error"),
    )
    lines = (
        over_steps("logistic loss", path, lambda w: L2().measure(w) / best),
        over_steps("squared hinge, which has a minimizer", hinge, lambda w: L2().measure(w) / best),
    )
    return Evidence(rows, {"": falling("On separable data the weights grow for ever", lines, "norm / norm of the L2 separator")})


def support_vectors(setting: Setting) -> Evidence:
    """The weights that descent puts on examples become the multipliers of the largest margin: zero but on support vectors."""
    problem = setting.separable(40, 6)
    best = separator(problem, L2())
    # Accelerated: plain steps need far longer where an example is nearly a support vector.
    path = descend(LinearObjective(problem, LogExponential()), zeros(problem), DualAcceleration(1 / largest(problem, L2()) ** 2), STEPS)
    others = best.mixture <= 1e-9

    def mixture(w: Tensor) -> Tensor:
        return torch.softmax(-problem.outputs(w) * problem.y, 1)

    def elsewhere(w: Tensor) -> Tensor:
        return (mixture(w) * others).sum(1)

    def off(w: Tensor) -> Tensor:
        return (mixture(w) - best.mixture).abs().sum(1) / 2

    counts = sorted((~others).sum(1).tolist())
    note = f"{counts[0]} to {counts[-1]} of {problem.n} examples are support vectors"
    start = path.points[0]
    rows = (
        Row(
            "weight on other examples",
            "goes to 0",
            numbers(elsewhere(path.last)),
            numbers(elsewhere(start)),
            1e-2,
            "share of weight",
            note=note,
        ),
        Row(
            "weights of examples",
            "go to the multipliers of the largest margin",
            numbers(off(path.last)),
            numbers(off(start)),
            1e-2,
            "total variation",
        ),
    )
    lines = (over_steps("weight on other examples", path, elsewhere, LEAST), over_steps("distance to the multipliers", path, off, LEAST))
    return Evidence(rows, {"": falling("Support vectors get all the weight", lines, "share of the weight")}, {"support vectors": counts})


def gradient_descent_margin(setting: Setting) -> Evidence:
    """Gradient descent goes to the L2 separator: by 1/t with scaled steps, by 1/log t with constant ones, whose growth shows it sooner."""
    problem, constant = _constant_steps(setting)
    w, best = max_margin(problem, L2())
    wrong, _ = max_margin(problem, L1())
    scaled = scaled_descent(problem, L2())
    gap = gap_to(problem, L2(), best)

    slope, rate = log_slope(constant, EARLY), _exponent(scaled, gap)
    length = (L2().measure(slope) / L2().measure(w) - 1).abs()
    wrong_length = (L2().measure(wrong) / L2().measure(w) - 1).abs()
    direction, longer = numbers(turned(slope, w)), numbers(length)
    still = f"the weights' own gap is still {float(gap(constant.last).median()):.2g} after {LONG:,} steps"
    rows = (
        Row("scaled steps", "the L2 separator", numbers(gap(scaled.last)), numbers(gap(wrong)), 1e-2, GAP),
        Row("constant steps, growth", "along the L2 separator", direction, numbers(turned(wrong, w)), 1e-3, TURN, note=still),
        Row(
            "constant steps, growth",
            "as long as the L2 separator",
            longer,
            numbers(wrong_length),
            0.06,
            "relative error of length",
        ),
        Row(
            "rate of scaled steps",
            "the gap falls like 1 / t",
            numbers((rate + 1).abs()),
            numbers((_exponent(constant, gap) + 1).abs()),
            0.1,
            "error of the exponent",
            note=f"exponent {float(rate.median()):.3f}; constant steps {float(_exponent(constant, gap).median()):.2f}, since 1 / log t",
        ),
    )
    lines = (
        over_steps("constant steps", constant, gap, LEAST),
        over_steps("scaled steps", scaled, gap, LEAST),
    )
    references = {"the L1 separator": float(gap(wrong).median())}
    return Evidence(rows, {"": falling("Gradient descent and the largest L2 margin", lines, GAP, references=references)})


def _exponent(path: Path, gap: Callable[[Tensor], Tensor]) -> Tensor:
    """The slope of the gap over the last factor of ten in steps, both logarithmic, ``(S,)``."""
    last = path.moments[-1]
    first = min(path.moments, key=lambda t: abs(t - last / 10))
    start, end = (gap(path.points[path.moments.index(t)]) for t in (first, last))
    return (end / start).log() / math.log(last / first)


def start_and_step(setting: Setting) -> Evidence:
    """The direction is the same from every start and with every step that converges; on squared loss the limit moves with the start."""
    problem = setting.separable(15, 40)
    w, best = max_margin(problem, L2())
    wrong = numbers(margin_gap(problem, max_margin(problem, L1())[0], L2(), best))
    cases = [(0.0, 1.0), (1.0, 1.0), (3.0, 1.0), (0.0, 0.25), (3.0, 0.25)]
    starts = [drawn_starts(setting, problem, size) for size, _ in cases]
    seeds = len(starts[0])
    shares = torch.tensor([share for _, share in cases], dtype=torch.float64).repeat_interleave(seeds)
    many = repeated(problem, len(cases))
    path = scaled_descent(many, L2(), LONG, torch.cat(starts), shares)
    ends = path.last.split(seeds)
    rows, lines = [], []
    for place, (size, share) in enumerate(cases):
        case = f"start of size {size:g}, step {share:g} / B²"
        rows.append(Row(case, "the L2 separator", numbers(margin_gap(problem, ends[place], L2(), best)), wrong, 1e-2, GAP))
        part = Path(path.moments, path.points[:, place * seeds : (place + 1) * seeds], path.values, path.finite)
        lines.append(over_steps(case, part, gap_to(problem, L2(), best), LEAST))
    apart = torch.stack([turned(end, ends[0]) for end in ends[1:]]).amax(0)
    rows.append(
        Row(
            "squared loss, the same starts",
            "one limit for all starts",
            numbers(_apart_on_squared_loss(problem, starts[0], starts[2])),
            numbers(apart),
            1e-2,
            TURN,
            FAILS,
            "the limit moves with the start: classification alone is independent of it",
        )
    )
    return Evidence(tuple(rows), {"": falling("One direction from every start", lines, GAP)})


def _apart_on_squared_loss(problem: Problem, one: Tensor, other: Tensor) -> Tensor:
    """The angle between where gradient descent on squared loss ends from two starts, ``(S,)``."""
    step = 0.9 / torch.linalg.matrix_norm(problem.X, ord=2) ** 2
    rule = Steepest(L2(), step, scaled=True)
    ends = [descend(LinearObjective(problem, Squared()), start, rule, 5000).last for start in (one, other)]
    return turned(*ends)


# For each norm a separator that is far enough away in it: neighbours are nearly alike.
_CONTROLS = {"L1": "L2", "L1.5": "L1", "L2": "L1", "L4": "L2", "Linf": "L2"}


def steepest_descent_margin(setting: Setting) -> Evidence:
    """Scaled steepest descent in a norm goes to the separator of largest margin in it."""
    problem = setting.separable(15, 40)
    found = {name: max_margin(problem, norm) for name, norm in LP_NORMS.items()}
    rows, lines = [], []
    for name, norm in LP_NORMS.items():
        path = scaled_descent(problem, norm, FEWER)
        gaps = {other: margin_gap(problem, w, norm, found[name][1]) for other, (w, _) in found.items() if other != name}
        nearest = min(gaps, key=lambda other: float(gaps[other].median()))
        note = f"the {nearest} separator: {float(gaps[nearest].median()):.2g}"
        reached = numbers(margin_gap(problem, path.last, norm, found[name][1]))
        rows.append(Row(name, f"the {name} separator", reached, numbers(gaps[_CONTROLS[name]]), 1e-2, GAP, note=note))
        lines.append(over_steps(name, path, gap_to(problem, norm, found[name][1]), LEAST))
    plots = {"": falling("Steepest descent and the largest margin in its norm", lines, GAP)}
    matrix_rows, plots["matrices"] = _of_matrices(setting)
    return Evidence((*rows, *matrix_rows), plots)


def _of_matrices(setting: Setting) -> tuple[list[Row], LinePlot]:
    """The same for matrices of weights."""
    problem, shape = separable(setting.seeds, 15, 30), (6, 5)
    wrong, _ = max_margin(problem, L2())
    rows, lines = [], []
    for name, norm in (("spectral", Shaped(Spectral(), shape)), ("nuclear", Shaped(Nuclear(), shape))):
        _, best = max_margin(problem, norm)
        path = scaled_descent(problem, norm, FEWER)
        reached, control = (numbers(margin_gap(problem, w, norm, best)) for w in (path.last, wrong))
        rows.append(Row(f"{name} norm", f"the separator of largest {name} margin", reached, control, 1e-2, GAP))
        lines.append(over_steps(f"{name} norm", path, gap_to(problem, norm, best), LEAST))
    return rows, falling("Steepest descent of matrices", lines, GAP)


def normalized_steps(setting: Setting) -> Evidence:
    """Steps of constant length go to the largest margin in L2 alone; in other norms they go round it for ever."""
    problem = setting.separable(15, 40)
    rows, lines = [], []
    for name in ("L2", "L1", "L4", "Linf"):
        norm = LP_NORMS[name]
        w, best = max_margin(problem, norm)
        path = descend(LinearObjective(problem, LogExponential()), zeros(problem), Steepest(norm, 1.0), FEWER)
        reached = numbers(margin_gap(problem, path.last, norm, best))
        lines.append(over_steps(name, path, gap_to(problem, norm, best), LEAST))
        if name == "L2":
            wrong = numbers(margin_gap(problem, max_margin(problem, L1())[0], norm, best))
            rows.append(Row(name, "the L2 separator", reached, wrong, 1e-2, GAP))
        else:
            scaled = numbers(margin_gap(problem, scaled_descent(problem, norm, FEWER).last, norm, best))
            rows.append(Row(name, f"the {name} separator", reached, scaled, 1e-2, GAP, FAILS, "control: scaled steps"))
    return Evidence(tuple(rows), {"": falling("Steps of length 1", lines, GAP)})


def dual_acceleration(setting: Setting) -> Evidence:
    """Acceleration in the dual reaches the L2 separator like ``1 / t^2``."""
    problem = setting.separable(15, 40)
    _, best = max_margin(problem, L2())
    rule = DualAcceleration(1 / largest(problem, L2()) ** 2)
    path, plain = descend(LinearObjective(problem, LogExponential()), zeros(problem), rule, STEPS), scaled_descent(problem, L2())
    gap = gap_to(problem, L2(), best)

    rate = _exponent(path, gap)
    note = f"control: plain scaled steps; exponent {float(rate.median()):.2f}"
    row = Row("dual acceleration", "the L2 separator", numbers(gap(path.last)), numbers(gap(plain.last)), 1e-6, GAP, note=note)
    lines = (over_steps("dual acceleration", path, gap, LEAST), over_steps("plain scaled steps", plain, gap, LEAST))
    return Evidence((row,), {"": falling("The largest L2 margin, faster", lines, GAP)})


def mirror_descent_margin(setting: Setting) -> Evidence:
    """Mirror descent goes along the margin path of its potential: for a power of a norm to the largest margin in that norm."""
    problem = setting.separable(15, 40)
    rows, lines = [], []
    for p, share in ((1.5, 1.0), (3.0, 16.0)):
        norm = Lp(p)
        _, best = max_margin(problem, norm)
        wrong, _ = max_margin(problem, L1() if p < 2 else Linf())
        path = _mirror(problem, PNorm(p), share)
        reached, control = (numbers(margin_gap(problem, w, norm, best)) for w in (path.last, wrong))
        rows.append(Row(f"|w|^{p:g}", f"the L{p:g} separator", reached, control, 1e-2, GAP))
        lines.append(over_steps(f"|w|^{p:g}", path, gap_to(problem, norm, best), LEAST))
    margin_lines = []
    for name, potential, share, limit in (("cosh", Cosh(), 1.0, Linf()), ("hypentropy", HypEntropy(0.01), 1.0, L1())):
        row, line = _along_the_path(problem, name, potential, share, limit)
        rows.append(row)
        margin_lines.append(line)
    plots = {
        "": falling("Mirror descent and the largest margin in the norm of its potential", lines, GAP),
        "path": falling("Mirror descent and the margin path, at the same margin", margin_lines, TURN),
    }
    return Evidence(tuple(rows), plots)


def _mirror(problem: Problem, potential: Potential, share: float) -> Path:
    step = share / largest(problem, L2()) ** 2
    return descend(LinearObjective(problem, LogExponential()), zeros(problem), MirrorDescent(potential, step), STEPS)


def _along_the_path(problem: Problem, name: str, potential: Potential, share: float, limit: Norm) -> tuple[Row, Line]:
    """Mirror descent beside the point of the margin path that has its own margin, and beside the limit of the path.

    Under the hypentropy weights grow exponentially: what comes after margins of ``FARTHEST`` is not looked at.
    """
    path = _mirror(problem, potential, share)
    lowest = [(problem.outputs(w) * problem.y).amin(1) for w in path.points]
    separates = [t for t, margin in enumerate(lowest) if (margin > 0).all() and (margin < FARTHEST).all()]
    some = Path(tuple(path.moments[t] for t in separates), path.points[separates], path.values[separates], path.finite)
    gammas = torch.stack([(problem.outputs(w) * problem.y).amin(1) for w in some.points])
    named = dict(zip(some.moments, margin_path(problem, potential, gammas), strict=True))
    away = {t: turned(w, named[t]) for t, w in zip(some.moments, some.points, strict=True)}
    w_limit, best = max_margin(problem, limit)
    wrong = turned(max_margin(problem, L2())[0], named[some.moments[-1]])
    still = float(margin_gap(problem, path.last, limit, best).median())
    note = f"the gap to the path's limit, the largest {type(limit).__name__} margin, is still {still:.2g}; control: the L2 separator"
    note += "; falls like 1 / log of the margin" if isinstance(potential, HypEntropy) else ""
    row = Row(name, "the margin path at the same margin", numbers(away[some.moments[-1]]), numbers(wrong), 1e-2, TURN, note=note)
    values = iter(away.values())
    return row, over_steps(name, some, lambda w: next(values), LEAST)


FARTHEST = 1e6  # margins
CLAIMS = tuple(
    Claim(name, says, source, test, takes=TWO_CLASSES, part="classification")
    for name, says, source, test in (
        (
            "no-minimizer",
            "On separable data the logistic loss has no minimizer: the weights grow like log t, along a path of infinite length.",
            "Soudry et al. 2018, theorem 3",
            no_minimizer,
        ),
        (
            "support-vectors",
            "In the end only support vectors count: the weights are a mixture of them, with the multipliers of the largest margin.",
            "Soudry et al. 2018, section 2",
            support_vectors,
        ),
        (
            "gradient-descent-margin",
            "On data that can be separated gradient descent goes to the direction of the largest L2 margin.",
            "Soudry et al. 2018, theorem 3; Ji and Telgarsky 2021 for scaled steps",
            gradient_descent_margin,
        ),
        (
            "start-and-step",
            "In classification the direction depends neither on the start nor on the step, unlike on squared loss.",
            f"{TALK}, theorem 5",
            start_and_step,
        ),
        (
            "steepest-descent-margin",
            "Steepest descent in a norm goes to the largest margin in this norm: coordinate descent in L1, sign descent in Linf.",
            f"{TALK}, theorem 5; Telgarsky 2013 for L1",
            steepest_descent_margin,
        ),
        (
            "mirror-descent-margin",
            "Mirror descent goes where the margin path of its potential goes.",
            "Sun et al. 2022 for powers of norms; Pesme et al. 2024",
            mirror_descent_margin,
        ),
        (
            "dual-acceleration",
            "Momentum in the dual reaches the largest L2 margin like 1 / t^2.",
            "Ji, Srebro and Telgarsky 2021, theorem 3.1",
            dual_acceleration,
        ),
        (
            "normalized-steps",
            "Steps of constant length are safe for gradient descent, and for no other steepest descent.",
            "Nacson et al. 2019 for L2",
            normalized_steps,
        ),
    )
)
