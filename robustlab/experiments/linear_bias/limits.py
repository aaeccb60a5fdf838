"""Where the talk's words do not hold as said: each with the honest result."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.experiments.linear_bias.claim import FAILS, Claim, Evidence, Row, Setting, falling, numbers, over_steps, relative_distance
from robustlab.experiments.linear_bias.two_classes import (
    GAP,
    LEAST,
    LONG,
    STEPS,
    TURN,
    drawn_starts,
    gap_to,
    margin_gap,
    scaled_descent,
    smooth_step,
    turned,
    with_both_labels,
)
from robustlab.linear_bias.certificates import log_slope
from robustlab.linear_bias.descent import Path, descend, moments
from robustlab.linear_bias.losses import Exponential, LinearObjective, LogExponential, Logistic, PolynomialTail
from robustlab.linear_bias.optimizers import AdaBoost
from robustlab.linear_bias.problems import Problem, separable, zeros
from robustlab.linear_bias.separators import logistic_minimizer, max_margin, split_nonseparable, tail_direction
from robustlab.norms import L1, L2
from robustlab.seeding import example_keys, fold, normal, uniform
from robustlab.steps import Relative, Steepest


def step_and_start_in_practice(setting: Setting) -> Evidence:
    """Independent of step and start only as log t goes to infinity, and only where the loss stays finite."""
    problem = separable(setting.seeds, 15, 40)
    _, best = max_margin(problem, L2())
    gap = gap_to(problem, L2(), best)

    far = drawn_starts(setting, problem, 3.0)
    large = _logistic(problem, zeros(problem), 100 * smooth_step(problem), STEPS)
    constant = _logistic(problem, far, smooth_step(problem), STEPS)
    scaled, scaled_far = scaled_descent(problem, L2()), scaled_descent(problem, L2(), start=far)
    frozen = f"control: scaled steps; the loss is {float(large.values[-1].median()):.0e}, so the rest takes for ever"
    rows = (
        Row(
            "50 times the largest stable step",
            "the L2 separator",
            numbers(gap(large.last)),
            numbers(gap(scaled.last)),
            1e-2,
            GAP,
            FAILS,
            frozen,
        ),
        Row(
            "start of size 3, constant steps",
            "the L2 separator",
            numbers(gap(constant.last)),
            numbers(gap(scaled_far.last)),
            1e-2,
            GAP,
            FAILS,
            "control: scaled steps from the same start",
        ),
        *_two_points(),
    )
    lines = (
        over_steps("50 times the stable step", large, gap, LEAST),
        over_steps("start of size 3, constant steps", constant, gap, LEAST),
        over_steps("start of size 3, scaled steps", scaled_far, gap, LEAST),
    )
    return Evidence(rows, {"": falling("How long step and start matter", lines, GAP)})


def _logistic(problem: Problem, start: Tensor, step: Tensor | float, steps: int) -> Path:
    return descend(LinearObjective(problem, Logistic()), start, Steepest(L2(), step, scaled=True), steps)


def _two_points() -> tuple[Row]:
    """Two examples on which a step of 10 is far above the stable one (Wu et al. 2023)."""
    problem = with_both_labels(torch.tensor([[[0.1, 0.9], [0.1, -0.5]]]).double())
    _, best = max_margin(problem, L2())
    rule = Steepest(L2(), 10.0, scaled=True)
    logistic = descend(LinearObjective(problem, Logistic()), zeros(problem), rule, LONG)
    exponential = descend(LinearObjective(problem, Exponential()), zeros(problem), rule, 50, keep=range(51), allow_nonfinite=True)
    infinite = next((t for t, value in zip(exponential.moments, exponential.values, strict=True) if not value.isfinite().all()), None)
    reached, broken = numbers(margin_gap(problem, logistic.last, L2(), best)), (1.0,) if infinite else (0.0,)
    note = f"any constant step is safe for the logistic loss; the exponential one, the control, is infinite after {infinite} steps"
    return (Row("two points, logistic loss, step 10", "the L2 separator", reached, broken, 0.05, GAP, note=note),)


# Recalled from Rudin, Daubechies and Schapire 2004; what comes of it is computed here.
_CYCLE = "-++++--+ -++--+++ +-+++-++ +-++-+++ +-+-+++- ++-++++- ++-+++-+ ++++--+-"


def adaboost_cycles(setting: Setting) -> Evidence:
    """AdaBoost's own step, an exact line search, goes round in a cycle short of the largest L1 margin; small steps do not."""
    problem = with_both_labels(torch.tensor([[[1.0 if sign == "+" else -1.0 for sign in row] for row in _CYCLE.split()]]).double())
    _, best = max_margin(problem, L1())
    objective = LinearObjective(problem, LogExponential())
    paths = {
        "AdaBoost's own step": descend(objective, zeros(problem), AdaBoost(), STEPS),
        "steps of length 0.01": descend(objective, zeros(problem), Steepest(L1(), 0.01), STEPS),
        "scaled steps": scaled_descent(problem, L1()),
    }
    gap = gap_to(problem, L1(), best)

    gaps = {name: numbers(gap(path.last)) for name, path in paths.items()}
    cycle, small, scaled = gaps
    reached = {name: f"margin {float(best) * (1 - gaps[name][0]):.4f} of {float(best):.4f}" for name in gaps}
    rows = [Row(cycle, "the L1 separator", gaps[cycle], gaps[scaled], 1e-2, GAP, FAILS, f"{reached[cycle]}; control: scaled steps")]
    rows += [Row(name, "the L1 separator", gaps[name], gaps[cycle], 1e-2, GAP, note=reached[name]) for name in (small, scaled)]
    lines = [over_steps(name, path, gap, LEAST) for name, path in paths.items()]
    return Evidence(tuple(rows), {"": falling("AdaBoost goes round in a cycle", lines, GAP)})


def polynomial_tail(setting: Setting) -> Evidence:
    """With a polynomial tail descent goes to the end of the regularization path, which is no largest margin."""
    problem = separable(setting.seeds, 15, 40)
    tail, (separator, _) = tail_direction(problem), max_margin(problem, L2())
    objective = LinearObjective(problem, PolynomialTail())
    constant = descend(objective, zeros(problem), Steepest(L2(), smooth_step(problem) / 8, scaled=True), LONG)
    # Steps that grow with the weights, as the curvature allows: the same path, sooner.
    relative = descend(objective, constant.last, Relative(Steepest(L2(), 0.01)), STEPS)
    exponential = scaled_descent(problem, L2())
    wrong = numbers(turned(separator, tail))
    predicted = "least sum of 1 / margin on the sphere"
    rows = (
        Row("steps that grow with the weights", predicted, numbers(turned(relative.last, tail)), wrong, 1e-8, TURN),
        Row("constant steps", predicted, numbers(turned(constant.last, tail)), wrong, 1e-3, TURN),
        Row(
            "any loss",
            "the L2 separator",
            numbers(turned(relative.last, separator)),
            numbers(turned(exponential.last, separator)),
            1e-3,
            TURN,
            FAILS,
            "control: the exponential tail",
        ),
    )
    lines = (
        over_steps("constant steps, to the least sum of 1 / margin", constant, lambda w: turned(w, tail), 1e-16),
        over_steps("constant steps, to the L2 separator", constant, lambda w: turned(w, separator), 1e-16),
        over_steps("growing steps after them, to the least sum of 1 / margin", relative, lambda w: turned(w, tail), 1e-16),
    )
    return Evidence(rows, {"": falling("A polynomial tail goes elsewhere", lines, TURN)})


def overlapping(seeds: int, *, bounded: int = 6, separated: int = 6, inner: int = 3, outer: int = 15) -> Problem:
    """Problems that cannot be separated as a whole.

    Args:
        seeds: how many.
        bounded: pairs of examples against each other, zero outside the inner values.
        separated: examples that can be separated by the outer values.
        inner, outer: numbers of values.
    """
    keys = example_keys(2, torch.arange(seeds))
    rows = normal(fold(keys, "bounded"), (bounded, inner), torch.float64)
    against = -rows * (0.5 + 1.5 * uniform(fold(keys, "against"), (bounded, 1), torch.float64))
    pairs = torch.cat([torch.cat([rows, against], 1), rows.new_zeros(seeds, 2 * bounded, outer)], 2)
    free = torch.cat([normal(fold(keys, "free"), (separated, inner), torch.float64), separable(seeds, separated, outer).signed], 2)
    return with_both_labels(torch.cat([pairs, free], 1))


def non_separable(setting: Setting) -> Evidence:
    """Where not all can be separated, the weights go to the minimizer of one part, and along the L2 separator of the other."""
    problem = overlapping(setting.seeds)
    split = split_nonseparable(problem)
    signed = problem.signed
    pairs = [logistic_minimizer(rows[~part]) for rows, part in zip(signed, split.separable, strict=True)]
    minimizer = torch.stack(pairs)
    path = descend(
        LinearObjective(problem, Logistic()),
        zeros(problem),
        Steepest(L2(), smooth_step(problem), scaled=True),
        LONG,
        keep=(*moments(LONG), LONG // 10),
    )
    slope = log_slope(path, LONG // 10)
    outward = slope - split.within(slope)
    alone = torch.stack([_separator_alone(rows[part]) for rows, part in zip(signed, split.separable, strict=True)])
    counts = sorted(set(split.separable.sum(1).tolist()))
    still = float(turned(path.last - split.within(path.last), split.direction).median())

    def inside(w: Tensor) -> Tensor:
        return relative_distance(split.within(w), minimizer)

    rows = (
        Row(
            "bounded part",
            "its minimizer",
            numbers(inside(path.last)),
            numbers(inside(path.points[0])),
            1e-3,
            "relative L2 distance",
            note=f"the linear program finds {counts[0]} to {counts[-1]} of {problem.n} examples separable",
        ),
        Row(
            "separable part, growth",
            "along its L2 separator",
            numbers(turned(outward, split.direction)),
            numbers(turned(alone, split.direction)),
            1e-3,
            TURN,
            note=f"control: its separator without the rest; the weights' own distance is still {still:.2g}",
        ),
    )
    lines = (
        over_steps("bounded part, to its minimizer", path, inside, LEAST),
        over_steps("separable part, weights to its separator", path, lambda w: turned(w - split.within(w), split.direction), LEAST),
    )
    return Evidence(rows, {"": falling("Data that cannot be separated", lines, "distance")}, {"separable examples": counts})


def _separator_alone(rows: Tensor) -> Tensor:
    """The L2 separator of rows ``y x`` by themselves, ``(d,)``."""
    return max_margin(with_both_labels(rows[None]), L2())[0][0]


CLAIMS = tuple(
    Claim(name, says, source, test, part="where the words do not hold as said")
    for name, says, source, test in (
        (
            "step-and-start-in-practice",
            "Independence of step and start holds as log t goes to infinity, and can be out of reach.",
            "Wu et al. 2023 for large steps; measured",
            step_and_start_in_practice,
        ),
        (
            "adaboost-cycles",
            "Boosting goes to the largest L1 margin with small steps, but AdaBoost's own step can go round in a cycle.",
            "Rudin et al. 2004; Telgarsky 2013",
            adaboost_cycles,
        ),
        (
            "polynomial-tail",
            "Not any loss leads to the largest margin: a polynomial tail leads to another direction.",
            "Ji et al. 2020",
            polynomial_tail,
        ),
        (
            "non-separable",
            "On data that cannot be separated the bounded part has a minimizer, and the rest goes to its own largest margin.",
            "Ji and Telgarsky 2019, theorem 1.1",
            non_separable,
        ),
    )
)
