"""Two Gaussian classes: what robust training learns, why smoothing works, and what robustness costs. Exact, where no samples are named."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustlab.experiments.finding import LinePlot
from robustlab.experiments.linear_bias.claim import FAILS, Claim, Evidence, Row, Setting
from robustlab.linear_bias.gaussian import (
    Gaussian,
    averaging_accuracy,
    best_robust_weights,
    examples_needed,
    lagrangian_excess,
    pointwise_likelihood,
    robust_likelihood,
)
from robustlab.reports.plots import Axes, Line

PART = "Gaussians"
# Much of the accuracy lies along an axis of small variance, which a small eps erases.
THIN = Gaussian.from_axes([3, 1.5], [4, 0.09], 0.5)
WIDE = Gaussian.from_axes([4, 3], [100, 4])
EPS = 0.6
TRAINED = (0.0, 0.1, 0.3, 0.6, 1.0, 2.0)


def vulnerability(setting: Setting) -> Evidence:
    """Theorem 1: how much an adversary gains is known from the eigenvalues, and least where the metrics agree."""
    z = WIDE.sample(200_000)
    centred = (z - WIDE.mean).T @ (z - WIDE.mean) / len(z)
    rows = []
    for price in (0.375, 0.75):
        exact = lagrangian_excess(WIDE, price)
        # The expected distance of moved examples, by the sample's own covariance in place of 200,000 separate distances.
        eye = torch.eye(2, dtype=torch.float64)
        moved = eye + torch.linalg.inv(price * WIDE.covariance - eye)
        seen = torch.trace(torch.linalg.solve(WIDE.covariance, moved @ centred @ moved)) - torch.trace(
            torch.linalg.solve(WIDE.covariance, centred)
        )
        round_one = Gaussian(WIDE.mean, 52 * eye)
        gap, control = abs(float(seen) / exact - 1), abs(lagrangian_excess(round_one, price) / exact - 1)
        rows.append(
            Row(
                f"price {price:g}",
                "tr (I + (C Sigma - I)^-1)^2 - d",
                (gap,),
                (control,),
                0.01,
                "relative difference of the gain, 200,000 draws",
            )
        )
    prices = torch.logspace(math.log10(0.3), 1, 40).tolist()
    lines = (
        Line("variances 100 and 4", prices, [lagrangian_excess(WIDE, price) for price in prices]),
        Line(
            "variances 52 and 52", prices, [lagrangian_excess(Gaussian(WIDE.mean, 52 * torch.eye(2).double()), price) for price in prices]
        ),
    )
    axes = Axes("price of a squared step", "what the adversary gains", log_x=True, log_y=True)
    return Evidence(tuple(rows), {"": LinePlot("Vulnerability comes from misaligned metrics", lines, axes)})


def parameters(setting: Setting) -> Evidence:
    """Theorem 2: the mean stays and the covariance blends with the identity; exact for the average budget, near for the pointwise one."""
    rows = [_stationary(eps) for eps in TRAINED[1:]]
    nearest = []
    for eps in TRAINED[1:]:
        learned = _spectrum(pointwise_likelihood(THIN, eps))
        fits = [_spectrum(robust_likelihood(THIN, eps * factor).learned) for factor in torch.linspace(0.6, 1.4, 161).tolist()]
        same = float(((fits[80] - learned) / learned).abs().amax())
        refit = min(float(((fit - learned) / learned).abs().amax()) for fit in fits)
        none = float(((_spectrum(THIN) - learned) / learned).abs().amax())
        nearest.append((eps, same, refit))
        note = f"with the same eps {same:.2g}"
        rows.append(
            Row(
                f"pointwise budget {eps:g}, multiplier fitted",
                "the closed form",
                (refit,),
                (none,),
                0.03,
                "relative difference of variances",
                note=note,
            )
        )
    axes = Axes("x1", "x2")
    circles = tuple(_ellipse(f"eps {eps:g}", robust_likelihood(WIDE, eps).learned.covariance) for eps in (0.0, 1.0, 5.0, 10.0))
    over = [0.01 * 2**k for k in range(10)]
    grown = [_spectrum(robust_likelihood(WIDE, eps).learned).tolist() for eps in over]
    lines = tuple(Line(f"variance of axis {2 - k}", over, [one[k] for one in grown]) for k in (1, 0))
    blend = LinePlot("The covariance blends with the identity", lines, Axes("eps in training", "variance learned", log_x=True, log_y=True))
    return Evidence(tuple(rows), {"": blend, "ellipses": LinePlot("The metric that is learned (one standard deviation)", circles, axes)})


def _stationary(eps: float) -> Row:
    """Whether moved examples have the covariance that is learned, and the adversary spends the budget: what defines the solution."""
    fit = robust_likelihood(THIN, eps)
    learned, eye = fit.learned.covariance, torch.eye(2, dtype=torch.float64)
    step = torch.linalg.inv(fit.multiplier * learned - eye)

    def residual(covariance: Tensor) -> float:
        moved = (eye + step) @ THIN.covariance @ (eye + step).T
        return float((moved - covariance).norm() / covariance.norm())

    spent = abs(float(torch.trace(step @ THIN.covariance @ step.T)) / eps**2 - 1)
    measure = "residual of the optimality condition, and of the budget"
    return Row(
        f"average budget {eps:g}",
        "the closed form",
        (max(residual(learned), spent),),
        (residual(THIN.covariance + eps * eye),),
        1e-8,
        measure,
    )


def alignment(setting: Setting) -> Evidence:
    """Theorem 3: the gradient of a robust classifier points from one class to the other, and the more so the larger eps is."""
    learned = [robust_likelihood(THIN, eps).learned for eps in TRAINED]
    worst = [_smallest_cosine(one) for one in learned]
    gap = max(abs(one.worst_alignment - seen) for one, seen in zip(learned, worst, strict=True))
    control = min(abs(a.worst_alignment - b.worst_alignment) for a, b in zip(learned, learned[1:], strict=False))
    falls = sum(b.alignment <= a.alignment or b.worst_alignment <= a.worst_alignment for a, b in zip(learned, learned[1:], strict=False))
    cosines, radii = ", ".join(f"{one.alignment:.3f}" for one in learned), ", ".join(map(str, TRAINED))
    note = f"cosine of this mean {cosines} at eps {radii}; it falls {falls} times"
    row = Row(
        "worst mean",
        "2 sqrt(c) / (1 + c)",
        (gap,),
        (control,),
        1e-4,
        "difference from the smallest cosine on a grid of directions",
        note=note,
    )
    over = [0.01 * 1.3**k for k in range(24)]
    lines = (
        Line("mean (3, 1.5)", over, [robust_likelihood(THIN, eps).learned.alignment for eps in over]),
        Line("worst mean", over, [robust_likelihood(THIN, eps).learned.worst_alignment for eps in over]),
    )
    return Evidence((row,), {"": LinePlot("Gradients align", lines, Axes("eps in training", "cosine of gradient and mean", log_x=True))})


def accuracy(setting: Setting) -> Evidence:
    """Robust training gives up some accuracy and gains more under attack; nearly as much as any linear classifier can."""
    learned = [robust_likelihood(THIN, eps).learned for eps in TRAINED]
    best = THIN.accuracy(best_robust_weights(THIN, EPS), EPS)
    robust = [THIN.accuracy(one.weights, EPS) for one in learned]
    standard = THIN.accuracy(THIN.weights, EPS)
    note = f"under attack {', '.join(f'{value:.4f}' for value in robust)} after training at {', '.join(map(str, TRAINED))}"
    measure = f"accuracy at eps {EPS:g} below the best linear classifier's"
    row = Row(f"trained at {EPS:g}", "the best robust linear classifier", (best - robust[3],), (best - standard,), 1e-3, measure, note=note)
    radii = [0.05 * k for k in range(25)]
    lines = [
        Line(f"trained at {eps:g}", radii, [THIN.accuracy(one.weights, r) for r in radii])
        for eps, one in zip(TRAINED[:4], learned, strict=False)
    ]
    bound = Line("best for each eps", radii, [THIN.accuracy(best_robust_weights(THIN, r), r) for r in radii])
    plot = LinePlot("Accuracy under attack", (*lines, bound), Axes("eps of the attack, L2", "accuracy"))
    return Evidence((row,), {"": plot})


def smoothing(setting: Setting) -> Evidence:
    """Noise adds sigma^2 to every variance, as robust training does nearly: small ones stop to matter."""
    noisy = THIN.smoothed(EPS)
    best, standard = THIN.accuracy(best_robust_weights(THIN, EPS), EPS), THIN.accuracy(THIN.weights, EPS)
    seen = THIN.accuracy(noisy.weights, EPS)
    note = f"accuracy {seen:.4f} (standard {standard:.4f}), cosine {noisy.alignment:.3f} (standard {THIN.alignment:.3f})"
    measure = f"accuracy at eps {EPS:g} below the best linear classifier's"
    row = Row(f"noise {EPS:g}", "the best robust linear classifier", (best - seen,), (best - standard,), 1e-3, measure, note=note)
    over = [0.01 * 1.3**k for k in range(24)]
    lines = (
        Line("noise of that deviation", over, [THIN.accuracy(THIN.smoothed(value).weights, EPS) for value in over]),
        Line("robust training at that eps", over, [THIN.accuracy(robust_likelihood(THIN, value).learned.weights, EPS) for value in over]),
    )
    axes = Axes("sigma or eps in training", f"accuracy at eps {EPS:g}", log_x=True)
    return Evidence(
        (row,), {"": LinePlot("Why smoothing works", lines, axes, {"best linear classifier": best, "standard training": standard})}
    )


def no_help(setting: Setting) -> Evidence:
    """Robust likelihood is not robust accuracy: where the small variance carries little of the mean's worth, it only gives up accuracy."""
    eps = (1.0, 5.0, 10.0)
    best = WIDE.accuracy(best_robust_weights(WIDE, 1.0), 1.0)
    lost = tuple(best - WIDE.accuracy(robust_likelihood(WIDE, value).learned.weights, 1.0) for value in eps)
    standard, after = WIDE.accuracy(WIDE.weights, 1.0), ", ".join(f"{best - value:.4f}" for value in lost)
    note = f"accuracy at eps 1: standard {standard:.4f}, after training at 1, 5, 10: {after}"
    kept = best - standard
    measure = "accuracy at eps 1 below the best linear classifier's"
    row = Row("trained at 5", "robust training helps", (lost[1],), (kept,), 0.02, measure, FAILS, note)
    over = [0.05 * 1.3**k for k in range(22)]
    lines = (
        Line("under attack, eps 1", over, [WIDE.accuracy(robust_likelihood(WIDE, value).learned.weights, 1.0) for value in over]),
        Line("clean", over, [WIDE.accuracy(robust_likelihood(WIDE, value).learned.weights) for value in over]),
    )
    axes = Axes("eps in training", "accuracy", log_x=True)
    return Evidence((row,), {"": LinePlot("Where robust training does not help", lines, axes)})


def price(setting: Setting) -> Evidence:
    """Many weak features make an accurate classifier that one small step turns around; one strong feature makes a robust one."""
    rows, over = [], [10, 100, 1000, 10_000]
    for d in over:
        shift = 3 / math.sqrt(d)
        clean, attacked = averaging_accuracy(d, shift), averaging_accuracy(d, shift, 2 * shift)
        note = f"the average of {d} features: {clean:.4f} clean, {attacked:.4f} at Linf {2 * shift:.3g}; the one feature: 0.95 and 0.95"
        rows.append(
            Row(
                f"{d} features",
                "all accuracy above the one feature's is turned around",
                (abs(clean + attacked - 1),),
                (clean - 0.5,),
                1e-9,
                "clean + attacked - 1",
                note=note,
            )
        )
    steps = [0.05 * k for k in range(61)]
    lines = (
        Line("average of weak features", steps, [averaging_accuracy(1000, 3 / math.sqrt(1000), s * 3 / math.sqrt(1000)) for s in steps]),
        Line("the one strong feature", steps, [0.95] * len(steps)),
    )
    axes = Axes("eps in units of the weak features' shift", "accuracy", percent=True)
    return Evidence(tuple(rows), {"": LinePlot("Accuracy's price", lines, axes)})


def more_data(setting: Setting) -> Evidence:
    """One example is enough for an accurate classifier; a robust one needs a number that grows like the root of the dimension."""
    dimensions = [int(10 ** (2 + k / 2)) for k in range(21)]
    robust = [examples_needed(d, 0.5 * d**0.25, 0.5) for d in dimensions]
    plain = [examples_needed(d, 0.5 * d**0.25) for d in dimensions]
    slope, flat = (math.log10(counts[-1] / counts[-5]) / 2 for counts in (robust, plain))
    found = ", ".join(str(robust[k]) for k in (0, 2, 4, 6))
    note = f"robust: {found} examples at d = 1e2, 1e3, 1e4, 1e5; standard: {max(plain)} at each"
    row = Row(
        "from d = 1e10 to 1e12",
        "examples grow like d^0.5",
        (abs(slope - 0.5),),
        (abs(flat - 0.5),),
        0.05,
        "slope of log n over log d, minus 0.5",
        note=note,
    )
    lines = (Line("robust, eps 0.5", dimensions, robust), Line("standard", dimensions, plain))
    plot = LinePlot("Examples for an accuracy of 99 %", lines, Axes("dimension", "examples", log_x=True, log_y=True))
    return Evidence((row,), {"": plot})


def _spectrum(one: Gaussian) -> Tensor:
    return torch.linalg.eigvalsh(one.covariance)


def _smallest_cosine(one: Gaussian, directions: int = 20_001) -> float:
    angle = torch.linspace(0, math.pi, directions, dtype=torch.float64)
    means = torch.stack([angle.cos(), angle.sin()])
    weights = torch.linalg.solve(one.covariance, means)
    return float(((weights * means).sum(0) / weights.norm(dim=0)).amin())


def _ellipse(name: str, covariance: Tensor) -> Line:
    angle = torch.linspace(0, 2 * math.pi, 121, dtype=torch.float64)
    points = torch.linalg.cholesky(covariance) @ torch.stack([angle.cos(), angle.sin()])
    return Line(name, points[0].tolist(), points[1].tolist())


ILYAS, TSIPRAS, SCHMIDT = "Ilyas et al. 2019", "Tsipras et al. 2019, section 2", "Schmidt et al. 2018, section 2"
CLAIMS = (
    Claim(
        "gaussian-vulnerability",
        "Adversarial examples come from a metric of the data that is not the adversary's.",
        f"{ILYAS}, theorem 1",
        vulnerability,
        part=PART,
    ),
    Claim(
        "gaussian-parameters",
        "Robust training keeps the mean and blends the covariance with the identity.",
        f"{ILYAS}, theorem 2",
        parameters,
        part=PART,
    ),
    Claim(
        "gaussian-alignment", "Gradients of robust models point from one class to the other.", f"{ILYAS}, theorem 3", alignment, part=PART
    ),
    Claim(
        "gaussian-accuracy",
        "Robust training trades accuracy that is lost under attack for accuracy that stays.",
        f"{ILYAS}, section 4",
        accuracy,
        part=PART,
    ),
    Claim(
        "smoothing",
        "Randomized smoothing works because noise overwhelms the non-robust features.",
        "the talk; closed form",
        smoothing,
        part=PART,
    ),
    Claim(
        "robust-training-helps",
        "Robust training raises accuracy under attack on any two Gaussians.",
        "the talk, implied",
        no_help,
        part=PART,
    ),
    Claim("accuracy-price", "Weak features make an accurate classifier that an adversary turns around.", TSIPRAS, price, part=PART),
    Claim("more-data", "Robust learning needs more data, by a factor that grows with the dimension.", SCHMIDT, more_data, part=PART),
)
