"""Linear networks, convolutional ones and homogeneous ones: one class of functions, other limits."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from robustlab.experiments.finding import LinePlot
from robustlab.experiments.linear_bias.claim import FAILS, TWO_CLASSES, Claim, Evidence, Row, Setting, falling, numbers, over_steps, spread
from robustlab.experiments.linear_bias.two_classes import GAP, TURN, gap_to, margin_gap, turned
from robustlab.linear_bias.descent import Path, descend, moments
from robustlab.linear_bias.interpolants import flow_interpolant, nearest_interpolant, norm_interpolant
from robustlab.linear_bias.kkt import kkt_residual, normalized_margin, rank_one_defect, refuse_unseparated, smoothed_margin
from robustlab.linear_bias.losses import LogExponential, ModelObjective
from robustlab.linear_bias.parametrizations import (
    CircularConvolution,
    Difference,
    LinearNetwork,
    Model,
    Parametrization,
    Product,
    ReLUNetwork,
)
from robustlab.linear_bias.potentials import diagonal_flow
from robustlab.linear_bias.problems import Problem, separable
from robustlab.linear_bias.separators import max_margin
from robustlab.norms import L1, L2, FourierL1, FourierLinf, Norm
from robustlab.reports.plots import Axes, Line, spread_line
from robustlab.steps import Decaying, Relative, Steepest

RESIDUAL = "residual of the KKT conditions"
LAST = 100  # iterates of which the best one counts where networks are deep
USED = 1e-2  # a frequency is used if its modulus is above that share of the largest


def _quick() -> Decaying:
    """Steps of ``(t + 10)^-0.75`` times the norm of the parameters."""
    return Decaying(Relative(Steepest(L2(), 10**-0.75)), 0.75, 10)


def _late() -> Decaying:
    """Steps of ``10 / (t + 300)`` times the norm of the parameters."""
    return Decaying(Relative(Steepest(L2(), 10 / 300)), 1.0, 300)


def _long() -> Decaying:
    """Long steps for 3,000 steps, then ever shorter ones: parameters that end at zero fall by a power of the norm, which must grow far."""
    return Decaying(Relative(Steepest(L2(), 0.05)), 3.0, 3000)


def _trained(
    setting: Setting, problem: Problem, model: Model, steps: int, start: float, rule: Decaying | Relative, keep: Sequence[int] | None = None
) -> Path:
    """A model trained from normal parameters on the logarithm of the exponential loss; one that does not separate is refused."""
    theta = model.random(setting.seeds, start)
    path = descend(ModelObjective(problem, LogExponential(), model), theta, rule, steps, keep=keep)
    refuse_unseparated(model.outputs(path.last, problem.X) * problem.y)
    return path


def _of_weights(model: Parametrization, measure: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    return lambda theta: measure(model.weights(theta))


def linear_networks(setting: Setting) -> Evidence:
    """Networks of depth 1 to 4 without activations all go to the separator of largest L2 margin, and their layers to rank one."""
    problem = setting.separable(15, 20)
    best, other = max_margin(problem, L2())[0], max_margin(problem, L1())[0]
    rows, lines = [], []
    for depth in (1, 2, 3, 4):
        model = LinearNetwork((problem.d, *[10] * (depth - 1)))
        path = _trained(setting, problem, model, 6000, 0.3, _quick())
        w = model.weights(path.last)
        predicted = "the separator of largest L2 margin"
        rows.append(Row(f"depth {depth}", predicted, numbers(turned(w, best)), numbers(turned(other, best)), 1e-4, TURN))
        if depth > 1:
            at_start, at_end = (_worst_rank(model, theta) for theta in (path.points[0], path.last))
            measure = "1 - largest singular value squared / all of them, the worst layer"
            rows.append(Row(f"depth {depth}, layers", "matrices of rank one", numbers(at_end), numbers(at_start), 1e-2, measure))
        lines.append(over_steps(f"depth {depth}", path, _of_weights(model, lambda w: turned(w, best))))
    apart = {"the separator of largest L1 margin": statistics.median(numbers(turned(other, best)))}
    return Evidence(tuple(rows), {"": falling("Linear networks and the L2 separator", lines, TURN, references=apart)})


def _worst_rank(model: LinearNetwork, theta: Tensor) -> Tensor:
    """The largest defect of rank one among the layers that could have more, ``(S,)``."""
    return torch.stack([rank_one_defect(factor) for factor in model.factors(theta)]).amax(0)


def convolution_depth_2(setting: Setting) -> Evidence:
    """A circular network of two layers goes to the largest margin in the L1 norm of the spectrum."""
    problem, steps = setting.separable(8, 16), 10_000
    best, shortest = max_margin(problem, FourierL1())[1], max_margin(problem, L2())[0]
    model = CircularConvolution(problem.d)
    path = _trained(setting, problem, model, steps, 1.0, _long())
    gap, control = (margin_gap(problem, w, FourierL1(), best) for w in (model.weights(path.last), shortest))
    row = Row(
        "depth 2",
        "the separator of largest margin in the L1 norm of the spectrum",
        numbers(gap),
        numbers(control),
        1e-2,
        GAP,
        note=f"the L2 separator is at least {float((control / gap).min()):.0f} times as far from it",
    )
    line = over_steps("depth 2", path, _of_weights(model, gap_to(problem, FourierL1(), best)))
    apart = {"the L2 separator": statistics.median(numbers(control))}
    return Evidence((row,), {"": falling("A circular network and sparse spectra", [line], GAP, references=apart)})


def convolution_deeper(setting: Setting) -> Evidence:
    """Circular networks of depth L go to stationary points of the sum of moduli to the power 2 / L: sparser ones, the deeper."""
    problem, steps = setting.separable(8, 16), 8000
    shortest, flattest = (max_margin(problem, norm)[0].expand(setting.seeds, -1) for norm in (L2(), FourierLinf()))
    rows, lines, used = [], [], {"1 (fully connected)": _frequencies(shortest)}
    for depth in (2, 3, 4, 5):
        model = CircularConvolution(problem.d, depth)
        path = _trained(setting, problem, model, steps, 1.0, _late(), _with_last(steps))
        used[str(depth)] = _frequencies(model.weights(path.last))
        if depth == 2:
            continue
        control = kkt_residual(model, _balanced(model, flattest), problem)
        rows += _stationary(problem, model, path, control)
        lines.append(over_steps(f"depth {depth}", _thinned(path), partial(_residual_or_one, model, problem)))
    facts = {"frequencies in use": {depth: list(numbers(counts)) for depth, counts in used.items()}}
    ladder = Line("frequencies", list(range(1, 6)), [statistics.median(numbers(c)) for c in used.values()], *_ends(used))
    plots = {
        "": falling("Circular networks and stationary points", lines, RESIDUAL),
        "sparsity": LinePlot("Frequencies in use, median and range", (ladder,), Axes("depth", f"of {problem.d} frequencies")),
    }
    return Evidence(tuple(rows), plots, facts)


def _stationary(problem: Problem, model: CircularConvolution, path: Path, control: Tensor) -> list[Row]:
    """The rows of one depth: every residual, and their median, which the theory's tolerance is for."""
    # At hard maxima the last iterate's support vectors may miss some: the best of the last ones counts.
    depth, alone = model.depth, kkt_residual(model, path.last, problem)
    predicted = f"a stationary point of the sum of moduli to the power 2/{depth}"
    residual = _best_of_last(model, problem, path)
    counts = [int((values >= 0.1).sum()) for values in (residual, alone)]
    note = f"the best of the last {LAST} iterates: {counts[0]} of {len(residual)} above 0.1; the very last alone: {counts[1]}"
    middle, usual = (numbers(values.median()) for values in (residual, control))
    return [
        Row(
            f"depth {depth}", predicted, numbers(residual), numbers(control), 0.1, f"{RESIDUAL}; control: the flattest spectrum", note=note
        ),
        Row(f"depth {depth}, median", predicted, middle, usual, 5e-3, RESIDUAL),
    ]


def _best_of_last(model: Model, problem: Problem, path: Path) -> Tensor:
    """The smallest residual of the last iterates, of which all are kept, ``(S,)``."""
    return torch.stack([_residual_or_one(model, problem, theta) for theta in path.points[-LAST:]]).amin(0)


def _residual_or_one(model: Model, problem: Problem, theta: Tensor, radius: float = 0.0) -> Tensor:
    """``kkt_residual``, and 1 where the classes are not separated yet."""
    found = theta.new_ones(len(theta))
    apart = ((model.outputs(theta, problem.X) * problem.y).amin(1) > 0).nonzero()[:, 0]
    if len(apart):
        found[apart] = kkt_residual(model, theta[apart], problem.at(apart), radius=radius)
    return found


def _with_last(steps: int) -> tuple[int, ...]:
    """The moments of a plot, and the last iterates."""
    return (*moments(steps), *range(steps - LAST + 1, steps))


def _thinned(path: Path) -> Path:
    """The moments of a plot alone."""
    kept = moments(path.moments[-1])
    rows = [path.moments.index(moment) for moment in kept]
    return Path(kept, path.points[rows], path.values[rows], path.finite)


def _balanced(model: CircularConvolution, w: Tensor) -> Tensor:
    """The shortest parameters of some weights: every layer has the same moduli, and the first has all the phases."""
    spectrum = torch.fft.rfft(w, norm="ortho")
    moduli = spectrum.abs() ** (1 / model.depth)
    layers = torch.stack([torch.polar(moduli, spectrum.angle()), *[moduli.to(spectrum)] * (model.depth - 1)], 1)
    return torch.fft.irfft(layers, model.d, norm="ortho").flatten(1)


def _frequencies(w: Tensor) -> Tensor:
    """How many frequencies weights use, those below zero counted too, ``(S,)``."""
    moduli = torch.fft.fft(w, norm="ortho").abs()
    return (moduli > USED * moduli.amax(1, keepdim=True)).sum(1)


def _ends(used: dict[str, Tensor]) -> tuple[list[float], list[float]]:
    return [float(counts.min()) for counts in used.values()], [float(counts.max()) for counts in used.values()]


def same_functions(setting: Setting) -> Evidence:
    """Three networks that compute the same functions of the same data: three limits, one for each parametrization."""
    problem, steps = setting.separable(8, 16), 8000
    models: dict[str, tuple[Parametrization, Norm]] = {
        "fully connected": (LinearNetwork((problem.d, 10)), L2()),
        "convolutional": (CircularConvolution(problem.d), FourierL1()),
        "diagonal": (Product(problem.d), L1()),
    }
    paths = {name: _trained(setting, problem, model, steps, 0.3, _long()) for name, (model, _) in models.items()}
    ends = {name: model.weights(paths[name].last) for name, (model, _) in models.items()}
    rows, lines, table = [], [], {}
    for name, (model, norm) in models.items():
        measure = gap_to(problem, norm, max_margin(problem, norm)[1])
        gaps = {other: measure(w) for other, w in ends.items()}
        nearest = torch.stack([gap for other, gap in gaps.items() if other != name]).amin(0)
        rows.append(Row(name, f"the largest margin in {norm!r}", numbers(gaps[name]), numbers(nearest), 1e-2, GAP))
        table[repr(norm)] = {other: float(gap.median()) for other, gap in gaps.items()}
        lines.append(over_steps(f"{name}: {norm!r}", paths[name], _of_weights(model, measure)))
    plot = falling("The same functions, three limits: each network and its own margin", lines, GAP)
    return Evidence(tuple(rows), {"": plot}, {"median gap by norm and network": table})


def homogeneous_kkt(setting: Setting) -> Evidence:
    """Homogeneous models, ReLU networks among them: the KKT residual falls, and the smoothed margin never does."""
    problem = setting.separable(10, 12)
    models: dict[str, Model] = {
        "u * v": Product(problem.d, 2),
        "three factors": Product(problem.d, 3),
        "ReLU network": ReLUNetwork(problem.d, 20),
    }
    rows, lines, growth, predicted = [], [], [], "a stationary point of the margin"
    for name, model in models.items():
        radius = 0.01 if name == "ReLU network" else 0.0  # it comes to rest on kinks
        path = _trained(setting, problem, model, 8000, 0.5, _long(), _with_last(8000))
        shown = _thinned(path)
        residual = torch.stack([_residual_or_one(model, problem, theta, radius) for theta in shown.points])
        if radius:
            one, last = kkt_residual(model, path.last, problem), residual[-1]
            note = f"it rests on kinks: with one gradient for each example {spread(numbers(one))}"
        else:
            last, note = _best_of_last(model, problem, path), f"the best of the last {LAST} iterates"
        measure = f"{RESIDUAL}; control: when it first separates"
        rows.append(Row(name, predicted, numbers(last), numbers(_at_first(residual)), 0.1, measure, note=note))
        lines.append(spread_line(name, shown.moments[1:], residual[1:].clamp(min=1e-12).T.tolist()))
        row, line = _never_falls(setting, problem, model, name)
        rows.append(row)
        growth.append(line)
    plots = {
        "": falling("Homogeneous models and stationary points", lines, RESIDUAL),
        "margin": LinePlot("The smoothed margin of short steps", tuple(growth), Axes("steps", "log(1 / loss) / norm^L", log_x=True)),
    }
    return Evidence(tuple(rows), plots)


def _at_first(residual: Tensor) -> Tensor:
    """The residual at the first kept point that separates the classes, where it is below 1: from ``(T, S)`` to ``(S,)``."""
    return residual.gather(0, (residual < 1).int().argmax(0)[None])[0]


def _never_falls(setting: Setting, problem: Problem, model: Model, name: str) -> tuple[Row, Line]:
    """The smoothed margin at every step, with short steps, and with long ones as control."""
    steps, margins, falls = 2000, {}, {}
    # The curvature grows like the norm to the power 2 L - 2, with a smaller factor where it is shared among more factors.
    short = Relative(Steepest(L2(), 0.2 if model.degree == 2 else 5.0, scaled=True), 2 - 2 * model.degree)
    for case, rule in (("short", short), ("long", Relative(Steepest(L2(), 0.3)))):
        objective = ModelObjective(problem, LogExponential(), model)
        path = descend(objective, model.random(setting.seeds, 0.5), rule, steps, keep=range(steps + 1))
        margin = torch.stack([smoothed_margin(model, theta, problem) for theta in path.points])
        below = path.values < 0  # a loss below 1
        fall = ((margin[:-1] - margin[1:]) * below[:-1]).clamp(min=0).amax(0) / margin.amax(0)
        margins[case], falls[case] = margin, torch.where(below.any(0), fall, 1) + 0.0  # what never gets there shows nothing
        if case == "short":
            note = f"looked at from step {int(below.int().argmax(0).max())} on at the latest, when the loss is below 1"
    kept = moments(steps)[1:]
    line = spread_line(name, kept, margins["short"][list(kept)].T.tolist())
    measure = "largest fall in one step / largest smoothed margin"
    case, predicted = f"{name}, each of {steps} steps", "a smoothed margin that never falls"
    return Row(case, predicted, numbers(falls["short"]), numbers(falls["long"]), 1e-9, measure, note=note), line


def kernel_to_rich(setting: Setting) -> Evidence:
    """From a large start ``u^2 - v^2`` is at first a kernel method, with the L2 margin; it becomes sparse as the loss falls to nothing."""
    problem, steps = separable(setting.seeds, 15, 40), 8000
    model, norms = Difference(problem.d), (L1(), L2())
    (w1, best1), (w2, best2) = (max_margin(problem, norm) for norm in norms)
    measures = gap_to(problem, L1(), best1), gap_to(problem, L2(), best2)
    wrong = measures[0](w2), measures[1](w1)  # each norm's gap of the other one's separator
    rows, lines = [], []
    for alpha, shown in SHOWN.items():
        objective = ModelObjective(problem, LogExponential(), model)
        path = descend(objective, model.start(setting.seeds, alpha), Relative(Steepest(L2(), 0.002)), steps, keep=range(0, steps + 1, 5))
        decades = -path.values / math.log(10)
        gaps = {e: [measure(_first(model, path, decades >= e)) for measure in measures] for e in DECADES}
        for which, norm in enumerate(norms):
            runs = torch.stack([pair[which] for pair in gaps.values()]).T.tolist()
            lines.append(spread_line(f"{norm!r}, start {alpha:g}", list(gaps), runs))
        for decade, which in shown.items():
            case, predicted = f"start {alpha:g}, loss 1e-{decade}", f"the largest {norms[which]!r} margin"
            measure = f"{GAP}; control: the other separator"
            rows.append(Row(case, predicted, numbers(gaps[decade][which]), numbers(wrong[which]), 0.05, measure))
    return Evidence(tuple(rows), {"": falling("Kernel to rich, in the time of the log loss", lines, GAP, "decades of the loss")})


DECADES = (1, 2, 3, 5, 10, 30, 100, 300, 1000, 3000, 10_000, 100_000, 1_000_000)  # the loss is 10^-k
# By start: at which loss which norm is expected, 0 for L1 and 1 for L2.
SHOWN: dict[float, dict[int, int]] = {0.1: {1000: 0}, 3.0: {30: 1, 1_000_000: 0}, 10.0: {1000: 1, 1_000_000: 0}}


def _first(model: Parametrization, path: Path, reached: Tensor) -> Tensor:
    """The weights of each seed when it has reached something, ``(T, S)`` bool, for the first time; NaN if it never has."""
    when = reached.int().argmax(0)
    w = model.weights(path.points[when, torch.arange(path.points.shape[1])])
    return torch.where(reached.any(0)[:, None], w, torch.nan)


def depth_changes_the_norm(setting: Setting) -> Evidence:
    """On squared loss products of any depth near the L1 norm as starts get smaller; with margins depth 3 does not, and tiny starts ruin."""
    fit, fit_lines = _depth_in_regression(setting)
    apart, apart_lines = _depth_in_classification(setting)
    plots = {
        "": falling("Squared loss: the smaller the start, the nearer to L1", fit_lines, "excess of the L1 norm", "start alpha"),
        "margin": falling("Two classes: depth changes the norm", apart_lines, GAP),
    }
    return Evidence((*fit, *apart), plots)


def _depth_in_regression(setting: Setting) -> tuple[list[Row], list[Line]]:
    problem = setting.regression(10, 20, nonzero=2)
    smallest, shortest = norm_interpolant(problem, L1()), nearest_interpolant(problem)

    def excess(w: Tensor) -> Tensor:
        return (L1().measure(w) / L1().measure(smallest) - 1).clamp(min=1e-12)

    rows, lines, alphas = [], [], (1.0, 0.1, 0.01, 1e-3, 1e-4)
    for depth in (2, 3):
        found = [excess(flow_interpolant(problem, diagonal_flow(alpha, depth))) for alpha in alphas]
        predicted, measure = "the interpolant of smallest L1 norm", "excess of the L1 norm"
        control = numbers(excess(shortest))
        rows.append(Row(f"squared loss, depth {depth}, start 1e-4", predicted, numbers(found[-1]), control, 0.02, measure))
        lines.append(spread_line(f"depth {depth}", alphas, torch.stack(found).T.tolist()))
    return rows, lines


def _depth_in_classification(setting: Setting) -> tuple[list[Row], list[Line]]:
    problem = separable(setting.seeds, 15, 40)
    best = max_margin(problem, L1())[1]
    gap, rows, lines, ends = gap_to(problem, L1(), best), [], [], {}
    for depth, start in ((2, 1.0), (3, 1.0), (3, 0.01)):
        model = Product(problem.d, depth)
        objective = ModelObjective(problem, LogExponential(), model)
        path = descend(objective, model.random(setting.seeds, start), _long(), 10_000)
        ends[depth, start] = gap(model.weights(path.last)), normalized_margin(model, path.last, problem)
        lines.append(over_steps(f"depth {depth}, start {start:g}", path, _of_weights(model, gap)))
    two, three, tiny = (ends[key] for key in ((2, 1.0), (3, 1.0), (3, 0.01)))
    other = numbers(gap(max_margin(problem, L2())[0]))
    rows.append(Row("two classes, depth 2", "the largest L1 margin", numbers(two[0]), other, 1e-2, GAP))
    rows.append(Row("two classes, depth 3", "the largest L1 margin", numbers(three[0]), numbers(two[0]), 1e-2, GAP, FAILS))
    reach = torch.maximum(three[1], tiny[1])
    lost, kept = 1 - tiny[1] / reach, 1 - three[1] / reach
    measure = "1 - margin of the network / the larger of both"
    note = f"from {float(lost.min()):.2g} to {float(lost.max()):.2g}"
    case, predicted = "two classes, depth 3, start 0.01, the median", "no worse a margin than from start 1"
    rows.append(Row(case, predicted, numbers(lost.median()), numbers(kept.median()), 0.05, measure, FAILS, note))
    return rows, lines


NEURIPS = "Gunasekar et al. 2018b"
CLAIMS = (
    Claim(
        "linear-networks",
        "Gradient descent on a fully connected linear network of any depth goes to the L2 separator.",
        f"{NEURIPS}, theorem 1; Ji and Telgarsky 2019",
        linear_networks,
        TWO_CLASSES,
        "classification",
    ),
    Claim(
        "convolution-depth-2",
        "Gradient descent on a linear convolutional network of two layers goes to the separator with the smallest L1 norm of its spectrum.",
        f"{NEURIPS}, theorem 2",
        convolution_depth_2,
        TWO_CLASSES,
        "classification",
    ),
    Claim(
        "convolution-deeper",
        "With L convolutional layers it goes to stationary points of the sum of moduli to the power 2 / L: the deeper, the sparser.",
        f"{NEURIPS}, theorem 2a",
        convolution_deeper,
        TWO_CLASSES,
        "classification",
    ),
    Claim(
        "same-functions-three-limits",
        "The bias is not that of the functions but of gradient descent on their parameters: one class of functions, three limits.",
        f"{NEURIPS}, section 1",
        same_functions,
        TWO_CLASSES,
        "classification",
    ),
    Claim(
        "homogeneous-kkt",
        "Homogeneous models go to stationary points of the margin over the L2 norm of the parameters; the smoothed margin never falls.",
        "Lyu and Li 2020, theorems 4.1 and 4.4; Nacson et al. 2019",
        homogeneous_kkt,
        TWO_CLASSES,
        "classification",
    ),
    Claim(
        "kernel-to-rich",
        "With an exponential loss the start is forgotten, but in the time of the log loss: a large start is a kernel method for long.",
        "Moroshko et al. 2020, section 3",
        kernel_to_rich,
        part="classification",
    ),
    Claim(
        "depth-changes-the-norm",
        "Depth changes the norm in classification and not in regression; tiny starts help regression and ruin deep classification.",
        f"Woodworth et al. 2020, section 4; {NEURIPS}, section 5",
        depth_changes_the_norm,
        part="classification",
    ),
)
