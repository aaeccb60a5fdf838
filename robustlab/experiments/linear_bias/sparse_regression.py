"""Squared loss in other parameters: products find sparse solutions, matrix factors find low ranks; how small a start must be."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import combinations

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.experiments.linear_bias.claim import (
    FAILS,
    HOLDS,
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
from robustlab.linear_bias.interpolants import (
    bregman_interpolant,
    flow_interpolant,
    nearest_interpolant,
    norm_interpolant,
    nuclear_interpolant,
    null_space_constant,
)
from robustlab.linear_bias.losses import ModelObjective, Squared
from robustlab.linear_bias.parametrizations import Difference, MatrixProduct, Parametrization, Product
from robustlab.linear_bias.potentials import diagonal_flow
from robustlab.linear_bias.problems import Problem, regression
from robustlab.norms import L1, L2, Norm, Nuclear
from robustlab.reports.plots import spread_line
from robustlab.seeding import example_keys, normal
from robustlab.steps import Steepest

DISTANCE, EXCESS = "relative L2 distance", "excess of the L1 norm"


def product_l1(setting: Setting) -> Evidence:
    """``u * v`` from ``u = alpha, v = 0`` nears the L1 interpolant as alpha falls; from ``u = v > 0`` it never changes a sign."""
    problem, alpha = _some_negative(setting.seeds), 1e-4
    smallest, shortest = norm_interpolant(problem, L1()), nearest_interpolant(problem)
    model, rows = Product(problem.d), []
    predicted = "the interpolant of smallest L1 norm"

    def excess(w: Tensor) -> Tensor:
        return _excess(L1(), w, smallest)

    case = f"u = {alpha:g}, v = 0"
    signed = _descent(problem, model, model.start(setting.seeds, alpha, 0.0), smallest)
    note, control = _left(problem, signed), numbers(excess(shortest))
    rows.append(Row(case, predicted, numbers(excess(signed.last).abs()), control, 0.02, EXCESS, note=note))
    exact = bregman_interpolant(problem, diagonal_flow(alpha / 2))
    rows.append(_near(case, "the smallest Q of alpha / 2", signed.last, exact, shortest, 1e-2))
    positive = _descent(problem, model, model.start(setting.seeds, alpha, alpha), smallest)
    gap, control = (numbers(relative_distance(path.last, smallest)) for path in (positive, signed))
    note = f"no weight is below {positive.points.min():.0e} at any time; " + _left(problem, positive)
    rows.append(Row(f"u = v = {alpha:g}", predicted, gap, control, 0.03, DISTANCE, FAILS, note))
    easy = Problem(problem.X, problem.outputs(smallest.abs()))
    target = norm_interpolant(easy, L1())
    found = _descent(easy, model, model.start(setting.seeds, alpha, alpha), target)
    gap, control = (numbers(_excess(L1(), w, target).abs()) for w in (found.last, nearest_interpolant(easy)))
    rows.append(Row(f"u = v = {alpha:g}, weights of one sign", predicted, gap, control, 0.02, EXCESS, note=_left(easy, found)))
    runs = {case: signed, f"u = v = {alpha:g}": positive}
    lines = [over_steps(name, path, partial(_from, smallest)) for name, path in runs.items()]
    lines.append(over_steps("u = v, weights of one sign", found, partial(_from, target)))
    return Evidence(tuple(rows), {"": falling("u * v and the interpolant of smallest L1 norm", lines, DISTANCE)})


def small_initialization(setting: Setting) -> Evidence:
    """How the excess of the L1 norm falls with alpha: a power, whose exponent a linear program tells."""
    rows, lines = [], []
    facts: dict[str, list[float]] = {}
    alphas = torch.logspace(0, -8, 25, dtype=torch.float64)
    for name, noise in (("exact targets", 0.0), ("noisy targets", 0.3)):
        problem = regression(setting.seeds, 20, 60, nonzero=5, noise=noise)
        smallest = norm_interpolant(problem, L1())
        rho = null_space_constant(problem, smallest)
        excess = torch.stack([_excess(L1(), bregman_interpolant(problem, diagonal_flow(float(a))), smallest) for a in alphas])
        slope = _exponent(alphas, excess)
        # If the excess were one over the logarithm of 1 / alpha, the same fit would find this.
        law = _exponent(alphas, (1 / (1 - alphas.log()))[:, None].where(excess > ROUNDING, 0.0))
        for words, chosen in (("rho below 0.8", rho < 0.8), ("rho from 0.8", rho >= 0.8)):
            if chosen.any():
                rows.append(_power(f"{name}, {words}", slope[chosen], rho[chosen], law[chosen]))
        for s in range(min(len(rho), 3)):
            kept = excess[:, s] > ROUNDING
            lines.append(spread_line(f"{name}, rho {rho[s]:.2f}", alphas[kept].tolist(), [excess[kept, s].tolist()]))
        facts |= {f"{name}: rho": rho.tolist(), f"{name}: exponents": slope.tolist()}
    plot = falling("How small an initialization?", lines, EXCESS, "alpha", {"1 %": 0.01})
    return Evidence(tuple(rows), {"": plot}, facts)


def _power(case: str, slope: Tensor, rho: Tensor, law: Tensor) -> Row:
    predicted = 2 * (1 - rho)
    note = f"exponents {_listed(slope)}, predicted {_listed(predicted)}; rho {_listed(rho)}"
    if (rho >= 0.8).all():
        note += "; near rho 1 the power has not set in, or looks like a logarithm, down to alpha 1e-8"
    gap, control = numbers((slope - predicted).abs()), numbers((law - predicted).abs())
    return Row(case, "excess ~ alpha^(2 (1 - rho))", gap, control, 0.1, "difference of the exponents", note=note)


def initialization_scale(setting: Setting) -> Evidence:
    """``u^2 - v^2`` from ``u = v = alpha`` goes to the smallest ``Q_alpha``: L2 for a large alpha, L1 for a small one."""
    problem = _sparse(setting, noise=0.3)
    smallest, shortest = norm_interpolant(problem, L1()), nearest_interpolant(problem)
    alphas, predicted = (10.0, 1.0, 0.3, 0.1, 1e-2, 1e-3, 1e-4, 1e-6), "the smallest Q_alpha"
    exact = {alpha: bregman_interpolant(problem, diagonal_flow(alpha)) for alpha in alphas}
    rows, lines = [], []
    for alpha in (1.0, 0.1, 1e-3, 1e-6):
        flow, other = flow_interpolant(problem, diagonal_flow(alpha)), smallest if alpha == 1 else shortest
        rows.append(_near(f"alpha {alpha:g}, flow", predicted, flow, exact[alpha], other, 1e-6))
    model = Difference(problem.d)
    for alpha in (1.0, 0.1, 1e-2, 1e-3):
        other = smallest if alpha == 1 else shortest
        path = _descent(problem, model, model.start(setting.seeds, alpha), exact[alpha], early=(3000, 0.05), share=0.7, floor=2 * alpha**2)
        note = "early steps that are not small act like a smaller alpha; " + _left(problem, path)
        rows.append(replace(_near(f"alpha {alpha:g}, descent", predicted, path.last, exact[alpha], other, 1e-2), note=note))
        lines.append(over_steps(f"alpha {alpha:g}", path, partial(_from, exact[alpha])))
    curves = []
    for norm, alpha, best, other in ((L1(), 1e-6, smallest, shortest), (L2(), 10.0, shortest, smallest)):
        name = type(norm).__name__
        gap, control, measure = _excess(norm, exact[alpha], best), _excess(norm, other, best), f"excess of the {name} norm"
        rows.append(Row(f"alpha {alpha:g}", f"the interpolant of smallest {name} norm", numbers(gap), numbers(control), 0.02, measure))
        each = torch.stack([_excess(norm, exact[a], best).clamp(min=1e-6) for a in alphas])
        curves.append(spread_line(name, alphas, each.T.tolist()))
    plots = {
        "": falling("From the smallest L2 norm to the smallest L1 norm", curves, "excess of the norm", "alpha"),
        "steps": falling("u^2 - v^2 and the smallest Q_alpha", lines, DISTANCE),
    }
    return Evidence(tuple(rows), plots)


def deep_products(setting: Setting) -> Evidence:
    """Deeper products go to the smallest L1 norm too, and sooner; not to that of ``l_(2/k)``."""
    problem, rows, lines = _sparse(setting, noise=0.3), [], []
    smallest, shortest = norm_interpolant(problem, L1()), nearest_interpolant(problem)
    alphas = torch.logspace(0, -1.5, 7, dtype=torch.float64).tolist()
    for depth, alpha, small in ((3, 0.2, 0.03), (4, 0.3, 0.1)):
        model = Difference(problem.d, depth)
        exact = bregman_interpolant(problem, diagonal_flow(alpha, depth))
        path = _descent(problem, model, model.start(setting.seeds, alpha), exact, share=0.1, floor=alpha**depth)
        rows.append(
            _near(f"depth {depth}, alpha {alpha:g}, descent", f"the smallest Q_alpha of depth {depth}", path.last, exact, shortest, 1e-2)
        )
        flow = flow_interpolant(problem, diagonal_flow(small, depth))
        case, gap, control = f"depth {depth}, alpha {small:g}, flow", _excess(L1(), flow, smallest), _excess(L1(), shortest, smallest)
        rows.append(Row(case, "the interpolant of smallest L1 norm", numbers(gap), numbers(control), 0.02, EXCESS))
    few, sparse = _norms_that_differ(setting.seeds)
    for depth, alpha in ((3, 0.001), (4, 0.02)):
        flow = flow_interpolant(few, diagonal_flow(alpha, depth))
        case = f"depth {depth}, 3 examples of 6 values"
        rows.append(_near(case, f"smallest L1 norm, not l_(2/{depth})", flow, norm_interpolant(few, L1()), sparse[depth], 1e-2))
    for depth in (2, 3, 4):
        each = [_excess(L1(), bregman_interpolant(problem, diagonal_flow(a, depth)), smallest) for a in alphas]
        lines.append(spread_line(f"depth {depth}", alphas, torch.stack(each).clamp(min=1e-9).T.tolist()))
    return Evidence(tuple(rows), {"": falling("Depth and the smallest L1 norm", lines, EXCESS, "alpha")})


def factorization_nuclear(setting: Setting) -> Evidence:
    """``U V^T`` from a small start finds the smallest nuclear norm, if there are examples enough to recover the matrix; else low rank."""
    rows, lines, d = [], [], 8
    predicted, measure = "the matrix of smallest nuclear norm", "excess of the nuclear norm"
    control: tuple[float, ...] = ()
    model = MatrixProduct(d, d)
    for name, problem, tolerance, expected in (
        ("40 examples, rank 1", _matrices(setting.seeds, 40, d, 1), 2e-3, HOLDS),
        ("24 examples, rank 2", _matrices(setting.seeds, 24, d, 2), 2e-3, FAILS),
        ("6 examples that commute", _commuting(setting.seeds, d), 1e-4, HOLDS),
    ):
        smallest = nuclear_interpolant(problem, d, positive="commute" in name)
        path = _matrix_descent(problem, model, model.start(setting.seeds, 1e-5))

        def excess(w: Tensor, smallest: Tensor = smallest) -> Tensor:
            return _excess(Nuclear(), w.reshape(-1, d, d), smallest)

        gap, wrong = numbers(excess(path.last).abs()), numbers(excess(nearest_interpolant(problem)))
        control = gap if not control else control
        rows.append(Row(name, predicted, gap, control if expected == FAILS else wrong, tolerance, measure, expected, _left(problem, path)))
        lines.append(over_steps(name, path, lambda w: excess(w).abs(), 1e-9))
    return Evidence(tuple(rows), {"": falling("U V^T and the smallest nuclear norm", lines, measure)})


def conserved(setting: Setting) -> Evidence:
    """What gradient flow leaves as it is drifts with the step of gradient descent, in proportion to it."""
    rows, lines = [], []
    sizes = (1e-2, 1e-3, 1e-4)
    matrices = _matrices(setting.seeds, 20, 4, 1)
    cases: dict[str, tuple[Problem, Product | MatrixProduct]] = {
        "u^2 - v^2 of u * v": (regression(setting.seeds, 5, 10), Product(10)),
        "U^T U - V V^T of U V": (matrices, MatrixProduct(4, 4)),
    }
    for name, (problem, model) in cases.items():
        start = model.random(setting.seeds, 0.5)
        drifts, changes = [], []
        for size in sizes:
            step = size / problem.X.square().sum((1, 2)).max().sqrt().item()
            objective, steps = ModelObjective(problem, Squared(), model), int(5 / size)
            end = descend(objective, start, Steepest(L2(), step, scaled=True), min(steps, 20_000), keep=(0,)).last
            scale = L2().measure(start.square())
            drifts.append(L2().measure(model.conserved(end) - model.conserved(start)) / scale)
            changes.append(L2().measure(end.square() - start.square()) / scale)
        ratio = (drifts[1] / drifts[2]).log10()
        note = f"ten times smaller steps, drift 10^{ratio.median():.2f} times smaller"
        measure, predicted = "change, relative to the squares at the start", "no change"
        rows.append(Row(f"{name}, step {sizes[-1]:g}", predicted, numbers(drifts[-1]), numbers(changes[-1]), 1e-3, measure, note=note))
        lines.append(spread_line(name, sizes, torch.stack(drifts).clamp(min=1e-17).T.tolist()))
        lines.append(spread_line(f"all squares of {name.split(' of ')[1]} (control)", sizes, torch.stack(changes).T.tolist()))
    plot = falling("What gradient flow conserves", lines, "relative change", "step, in units of the examples' size")
    return Evidence(tuple(rows), {"": plot})


def _sparse(setting: Setting, noise: float = 0.0) -> Problem:
    return regression(setting.seeds, 20, 60, nonzero=3, noise=noise)


def _some_negative(seeds: int) -> Problem:
    """The first problems whose interpolant of smallest L1 norm has a weight below -1/2; one draw in eight has none."""
    drawn = regression(4 * seeds, 25, 40, nonzero=3)
    return drawn.at((norm_interpolant(drawn, L1()).amin(1) < -0.5).nonzero().flatten()[:seeds])


def _descent(
    problem: Problem,
    model: Parametrization,
    start: Tensor,
    reference: Tensor,
    *,
    early: tuple[int, float] = (0, 0.25),
    share: float = 0.25,
    floor: float = 0.0,
) -> Path:
    """Gradient descent on a model's parameters, as a path of weights; the step is a share of the largest that is stable at a solution.

    Args:
        reference: weights near which it ends; the curvature there, and that at the start, tell the step.
        early: how many steps at the beginning have another share, and which: they tell which solution is found.
        floor: the least ``|w|`` that counts, as parameters stay above zero where weights are zero.
    """
    k = model.degree
    # The curvature of weights u_1 ... u_k is the sum of squares of products of k - 1 factors, at most k |w|^(2 - 2/k) for equal factors.
    slopes = k * k * torch.maximum(reference.abs(), torch.full_like(reference, max(floor, 1e-300))) ** (2 - 2 / k)
    scaled = problem.X * slopes.sqrt()[:, None]
    largest, objective = 1 / torch.linalg.matrix_norm(scaled, ord=2).square() / 2, ModelObjective(problem, Squared(), model)
    path = descend(objective, start, Steepest(L2(), early[1] * largest, scaled=True), early[0])
    path = path.then(descend(objective, path.last, Steepest(L2(), share * largest, scaled=True), 20_000 - early[0]))
    return _of_weights(model, path)


def _of_weights(model: Parametrization, path: Path) -> Path:
    """A path of parameters as one of weights."""
    return Path(path.moments, torch.stack([model.weights(theta) for theta in path.points]), path.values, path.finite)


def _matrix_descent(problem: Problem, model: MatrixProduct, start: Tensor, steps: int = 10_000) -> Path:
    """Gradient descent on the factors of a matrix whose largest singular value is about one, as a path of matrices."""
    step = 0.4 / torch.linalg.matrix_norm(problem.X, ord=2).square()
    path = descend(ModelObjective(problem, Squared(), model), start, Steepest(L2(), step, scaled=True), steps)
    return _of_weights(model, path)


def _excess(norm: Norm, w: Tensor, best: Tensor) -> Tensor:
    return norm.measure(w) / norm.measure(best) - 1


def _from(reference: Tensor, w: Tensor) -> Tensor:
    return relative_distance(w, reference)


def _near(case: str, predicted: str, w: Tensor, one: Tensor, other: Tensor, tolerance: float) -> Row:
    return Row(case, predicted, numbers(relative_distance(w, one)), numbers(relative_distance(w, other)), tolerance, DISTANCE)


def _left(problem: Problem, path: Path) -> str:
    left = L2().measure(problem.outputs(path.last) - problem.y) / L2().measure(problem.y)
    return f"relative residual {left.max():.0e} at most"


def _listed(values: Tensor) -> str:
    return " ".join(f"{value:.2f}" for value in values.tolist())


ROUNDING = 1e-11  # of an excess: below that it is no number


def _exponent(alphas: Tensor, excess: Tensor) -> Tensor:
    """The slope of the logarithm over the smallest decade of alpha in which the excess is not rounding, ``(S,)``."""
    found = []
    for each in excess.T:
        first, last = (each > ROUNDING).nonzero().flatten()[[-4, -1]]
        found.append((each[last] / each[first]).log() / (alphas[last] / alphas[first]).log())
    return torch.stack(found)


def _norms_that_differ(seeds: int, n: int = 3, d: int = 6) -> tuple[Problem, dict[int, Tensor]]:
    """The first problems whose smallest ``l_(2/3)`` and ``l_(1/2)`` norms are at vertices other than that of the smallest L1 norm, and
    these vertices by depth: all of them are tried."""
    drawn = regression(60 * seeds, n, d)
    bases = torch.tensor(list(combinations(range(d), n)))
    square = drawn.X[:, :, bases].permute(0, 2, 1, 3)  # (S, bases, n, n)
    inside = torch.linalg.solve(square, drawn.y[:, None, :, None].expand(-1, len(bases), -1, -1))[..., 0]
    vertices = torch.zeros(len(drawn.X), len(bases), d, dtype=torch.float64).scatter_(2, bases.expand(len(drawn.X), -1, -1), inside)

    def best(p: float) -> Tensor:
        return (vertices.abs() ** p).sum(2).argmin(1)

    one, roots = best(1.0), {depth: best(2 / depth) for depth in (3, 4)}
    each = torch.arange(len(drawn.X))
    differ = torch.stack([relative_distance(vertices[each, one], vertices[each, other]) > 0.3 for other in roots.values()]).all(0)
    chosen = differ.nonzero().flatten()[:seeds]
    return drawn.at(chosen), {depth: vertices[chosen, other[chosen]] for depth, other in roots.items()}


def _matrices(seeds: int, n: int, d: int, rank: int) -> Problem:
    """Normal examples, which are matrices, and a matrix of a low rank, of Frobenius norm one."""
    keys = example_keys(4, torch.arange(seeds))
    A = normal(seeding.fold(keys, "A"), (n, d, d), torch.float64) / n**0.5
    U, V = (normal(seeding.fold(keys, name), (d, rank), torch.float64) for name in ("U", "V"))
    W = U @ V.mT
    W = W / torch.linalg.matrix_norm(W)[:, None, None]
    return Problem(A.flatten(2), torch.einsum("snij,sij->sn", A, W))


def _commuting(seeds: int, d: int, n: int = 6) -> Problem:
    """Examples with the same eigenvectors, and a matrix of rank one among these."""
    keys = example_keys(5, torch.arange(seeds))
    basis = torch.linalg.qr(normal(seeding.fold(keys, "basis"), (d, d), torch.float64))[0]
    values = torch.linalg.qr(normal(seeding.fold(keys, "values"), (d, n), torch.float64))[0].mT
    A = torch.einsum("sik,snk,sjk->snij", basis, values, basis)
    return Problem(A.flatten(2), values[..., 0])


CLAIMS = (
    Claim(
        "product-l1",
        "Gradient descent on u * v finds the interpolant of smallest L1 norm from a small start; not from u = v > 0, as the talk has it, "
        "unless all weights have that sign.",
        "Gunasekar et al. 2017; Woodworth et al. 2020",
        product_l1,
    ),
    Claim(
        "small-initialization",
        "The start need not be exponentially small: for fixed data the excess of the L1 norm falls like a power of alpha, "
        "2 (1 - rho), with rho the null space constant.",
        "after arXiv 2506.01143",
        small_initialization,
    ),
    Claim(
        "initialization-scale",
        "The scale of the start leads u^2 - v^2 from the smallest L2 norm, where it is large, to the smallest L1 norm, where it is small.",
        "Woodworth et al. 2020, theorem 1",
        initialization_scale,
    ),
    Claim(
        "deep-products",
        "Products of more factors go to the smallest L1 norm too, not to that of l_(2/k), and with less small starts.",
        "Woodworth et al. 2020, theorem 3",
        deep_products,
    ),
    Claim(
        "factorization-nuclear",
        "Gradient descent on U V^T from a small start finds the smallest nuclear norm where there are examples enough to recover the "
        "matrix, and not below that.",
        "Gunasekar et al. 2017; Arora et al. 2019; Razin and Cohen 2020",
        factorization_nuclear,
    ),
    Claim(
        "conserved",
        "Small steps keep what gradient flow conserves: u^2 - v^2 of products, U^T U - V V^T of matrix products.",
        "Arora et al. 2018; Du et al. 2018",
        conserved,
    ),
)
