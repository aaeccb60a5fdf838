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
    blended,
    examples_needed,
    lagrangian_excess,
    lagrangian_step,
    one_and_average_accuracy,
    pointwise_likelihood,
    robust_likelihood,
    sampled_mean_accuracy,
)
from robustlab.reports.plots import Axes, Line
from robustlab.seeding import example_keys, fold, normal

PART = "Gaussians"
# Much of the accuracy lies along an axis of small variance, which a small eps erases.
THIN = Gaussian.from_axes([3, 1.5], [4, 0.09], 0.5)
WIDE = Gaussian.from_axes([4, 3], [100, 4])
EPS = 0.6
SURE = 0.95  # how often the strong feature is right
DRAWS = 5000
TRAINED = (0.0, 0.1, 0.3, 0.6, 1.0, 2.0)


def vulnerability(setting: Setting) -> Evidence:
    """Theorem 1: how much an adversary gains is known from the eigenvalues, and least where the metrics agree."""
    eye = torch.eye(2, dtype=torch.float64)
    round_one, samples = Gaussian(WIDE.mean, 52 * eye), [WIDE.sample(200_000, seed) for seed in range(setting.seeds)]
    rows = []
    for price in (0.375, 0.75):
        exact = lagrangian_excess(WIDE, price)
        gains = [_gain(WIDE, z, lagrangian_step(WIDE, price, z)) for z in samples]
        control = abs(lagrangian_excess(round_one, price) / exact - 1)
        measure = "relative difference of the gain, 200,000 draws"
        gaps = tuple(abs(gain / exact - 1) for gain in gains)
        rows.append(Row(f"price {price:g}", "tr (I + (C Sigma - I)^-1)^2 - d", gaps, (control,) * len(gaps), 0.01, measure))
    rows.append(_roundest(setting))
    prices = torch.logspace(math.log10(0.3), 1, 40).tolist()
    lines = (
        Line("variances 100 and 4", prices, [lagrangian_excess(WIDE, price) for price in prices]),
        Line("variances 52 and 52", prices, [lagrangian_excess(round_one, price) for price in prices]),
    )
    axes = Axes("price of a squared step", "what the adversary gains", log_x=True, log_y=True)
    return Evidence(tuple(rows), {"": LinePlot("Vulnerability comes from misaligned metrics", lines, axes)})


def _gain(true: Gaussian, z: Tensor, step: Tensor) -> float:
    """How much steps raise the mean squared Mahalanobis distance."""
    before = z - true.mean
    after = before + step
    return float(
        (after * torch.linalg.solve(true.covariance, after.T).T - before * torch.linalg.solve(true.covariance, before.T).T).sum(1).mean()
    )


def _roundest(setting: Setting) -> Row:
    """Of random covariances of one trace none is less vulnerable than the multiple of the identity."""
    gaps, controls = [], []
    for seed in range(setting.seeds):
        roots = normal(example_keys(seed, torch.arange(50)), (5, 5), torch.float64)
        more = [_above_round(root @ root.T + 0.1 * torch.eye(5, dtype=torch.float64)) for root in roots]
        gaps.append(max(0.0, -min(more)))
        controls.append(min(more))
    predicted = "at equal trace a round covariance is the least vulnerable"
    return Row("50 random covariances", predicted, tuple(gaps), tuple(controls), 1e-6, "relative gain below (control: above) a round one's")


def _above_round(covariance: Tensor) -> float:
    d = len(covariance)
    price = 2 / float(torch.linalg.eigvalsh(covariance)[0])
    even = Gaussian(covariance[0], covariance.trace() / d * torch.eye(d, dtype=torch.float64))
    return lagrangian_excess(Gaussian(covariance[0], covariance), price) / lagrangian_excess(even, price) - 1


def parameters(setting: Setting) -> Evidence:
    """Theorem 2: the mean stays and the covariance blends with the identity; exact for the average budget, near for the pointwise one."""
    rows = [_stationary(eps) for eps in TRAINED[1:]] + [_pointwise(setting, eps) for eps in (0.1, 0.6, 2.0)]
    over = [0.01 * 2**k for k in range(12)]
    grown = [_spectrum(robust_likelihood(WIDE, eps).learned).tolist() for eps in over]
    lines = [Line(f"variance of axis {2 - k}", over, [one[k] for one in grown]) for k in (1, 0)]
    references = {"standard training, axis 1": 100.0, "standard training, axis 2": 4.0}
    axes = Axes("eps in training", "variance learned", log_x=True, log_y=True)
    plots = {
        "": LinePlot("The covariance blends with the identity", tuple(lines), axes, references),
        "ellipses": _ellipses(),
        "gradients": _gradients(),
    }
    return Evidence(tuple(rows), plots)


def _pointwise(setting: Setting, eps: float) -> Row:
    """Every example moved by eps, learned from 3,000 draws, beside the closed form with the multiplier that fits best."""
    refits, nones, sames, means = [], [], [], []
    for seed in range(setting.seeds):
        z = THIN.sample(3000, seed)
        plain, learned = Gaussian.fit(z, torch.ones(len(z))), pointwise_likelihood(z, eps)
        seen, before = _spectrum(learned), _spectrum(plain)
        family = blended(before, 1 / torch.logspace(-4, 3, 4001, dtype=torch.float64)[:, None])
        refits.append(float((family / seen - 1).abs().amax(1).amin()))
        nones.append(float((before / seen - 1).abs().amax()))
        sames.append(float((_spectrum(robust_likelihood(plain, eps).learned) / seen - 1).abs().amax()))
        means.append(float((learned.mean - plain.mean).norm() / plain.mean.norm()))
    note = f"with the same eps {max(sames):.2g}; the mean moves by {max(means):.1g} of its length at most"
    case, measure = f"pointwise budget {eps:g}, 3,000 draws, multiplier fitted", "relative difference of variances"
    return Row(case, "the closed form", tuple(refits), tuple(nones), 0.03, measure, note=note)


def _ellipses() -> LinePlot:
    """Figure 4 of Ilyas et al. 2019 in one picture."""
    lines = [_ellipse(f"trained at {eps:g}", robust_likelihood(WIDE, eps).learned.covariance) for eps in (0.0, 1.0, 5.0, 10.0)]
    ball = _ellipse("the adversary's ball of 10", 100 * torch.eye(2, dtype=torch.float64))
    return LinePlot("The metric that is learned (one standard deviation)", (*lines, ball), Axes("x1", "x2", equal=True))


def _gradients() -> LinePlot:
    """What is learned (one standard deviation), and where its gradient points."""
    lines = [Line("from one class to the other", [0.0, 3.0], [0.0, 1.5])]
    for eps in (0.0, EPS):
        learned = robust_likelihood(THIN, eps).learned
        arrow = (learned.weights / learned.weights.norm() * THIN.mean.norm()).tolist()
        lines.append(_ellipse(f"trained at {eps:g}", learned.covariance))
        lines.append(Line(f"trained at {eps:g}", [0.0, arrow[0]], [0.0, arrow[1]]))
    return LinePlot("Gradients align as the metric grows round (ellipse and gradient)", tuple(lines), Axes("x1", "x2", equal=True))


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
    fits = [robust_likelihood(fit, EPS).learned.alignment for fit in _fits(setting)]
    right, plain = learned[3].alignment, THIN.alignment
    case, predicted = f"{DRAWS:,} draws, trained at {EPS:g}", f"the cosine of infinitely many, {right:.3f}"
    gaps, controls = tuple(abs(fit - right) for fit in fits), tuple(abs(fit.alignment - right) for fit in _fits(setting))
    sampled = Row(case, predicted, gaps, controls, 0.02, "difference of cosines (control: standard training)")
    over = [0.01 * 1.3**k for k in range(24)]
    lines = (
        Line("mean (3, 1.5)", over, [robust_likelihood(THIN, eps).learned.alignment for eps in over]),
        Line("worst mean", over, [robust_likelihood(THIN, eps).learned.worst_alignment for eps in over]),
    )
    references = {"standard training, mean (3, 1.5)": plain, "standard training, worst mean": learned[0].worst_alignment}
    return Evidence(
        (row, sampled),
        {"": LinePlot("Gradients align", lines, Axes("eps in training", "cosine of gradient and mean", log_x=True), references)},
    )


def accuracy(setting: Setting) -> Evidence:
    """Robust training gives up some accuracy and gains more under attack; nearly as much as any linear classifier can."""
    learned = [robust_likelihood(THIN, eps).learned for eps in TRAINED]
    best = THIN.accuracy(best_robust_weights(THIN, EPS), EPS)
    robust = [THIN.accuracy(one.weights, EPS) for one in learned]
    standard = THIN.accuracy(THIN.weights, EPS)
    note = f"under attack {', '.join(f'{value:.4f}' for value in robust)} after training at {', '.join(map(str, TRAINED))}"
    measure = f"accuracy at eps {EPS:g} below the best linear classifier's"
    row = Row(f"trained at {EPS:g}", "the best robust linear classifier", (best - robust[3],), (best - standard,), 1e-3, measure, note=note)
    sampled = _from_draws(setting, best, [robust_likelihood(fit, EPS).learned for fit in _fits(setting)], f"trained at {EPS:g}")
    radii = [0.05 * k for k in range(25)]
    lines = [
        Line(f"trained at {eps:g}", radii, [THIN.accuracy(one.weights, r) for r in radii])
        for eps, one in zip(TRAINED[:4], learned, strict=False)
    ]
    bound = Line("best for each eps", radii, [THIN.accuracy(best_robust_weights(THIN, r), r) for r in radii])
    plot = LinePlot("Accuracy under attack", (*lines, bound), Axes("eps of the attack, L2", "accuracy"))
    return Evidence((row, sampled), {"": plot})


def smoothing(setting: Setting) -> Evidence:
    """Noise adds sigma^2 to every variance, as robust training does nearly: small ones stop to matter."""
    noisy = THIN.smoothed(EPS)
    best, standard = THIN.accuracy(best_robust_weights(THIN, EPS), EPS), THIN.accuracy(THIN.weights, EPS)
    seen = THIN.accuracy(noisy.weights, EPS)
    note = f"accuracy {seen:.4f} (standard {standard:.4f}), cosine {noisy.alignment:.3f} (standard {THIN.alignment:.3f})"
    measure = f"accuracy at eps {EPS:g} below the best linear classifier's"
    row = Row(f"noise {EPS:g}", "the best robust linear classifier", (best - seen,), (best - standard,), 1e-3, measure, note=note)
    fits = [_noisy_fit(seed) for seed in range(setting.seeds)]
    sampled = _from_draws(setting, best, fits, f"noise {EPS:g}")
    over = [0.01 * 1.3**k for k in range(24)]
    lines = (
        Line("noise of that deviation", over, [THIN.accuracy(THIN.smoothed(value).weights, EPS) for value in over]),
        Line("robust training at that eps", over, [THIN.accuracy(robust_likelihood(THIN, value).learned.weights, EPS) for value in over]),
    )
    axes = Axes("sigma or eps in training", f"accuracy at eps {EPS:g}", log_x=True)
    return Evidence(
        (row, sampled), {"": LinePlot("Why smoothing works", lines, axes, {"best linear classifier": best, "standard training": standard})}
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
    rows = [
        Row(f"trained at {r:g}", "robust training helps", (one,), (kept,), 0.02, measure, FAILS, note)
        for r, one in ((5, lost[1]), (10, lost[2]))
    ]
    over = [0.05 * 1.3**k for k in range(22)]
    lines = (
        Line("under attack, eps 1", over, [WIDE.accuracy(robust_likelihood(WIDE, value).learned.weights, 1.0) for value in over]),
        Line("clean", over, [WIDE.accuracy(robust_likelihood(WIDE, value).learned.weights) for value in over]),
    )
    axes, references = Axes("eps in training", "accuracy", log_x=True), {"best linear classifier under attack": best}
    return Evidence(tuple(rows), {"": LinePlot("Where robust training does not help", lines, axes, references)})


def price(setting: Setting) -> Evidence:
    """Many weak features make an accurate classifier that one small step turns around; one strong feature makes a robust one."""
    rows = []
    for d in (10, 100):
        shift = 3 / math.sqrt(d)
        clean, attacked = averaging_accuracy(d, shift), averaging_accuracy(d, shift, 2 * shift)
        gaps = []
        for seed in range(setting.seeds):
            mean = shift + normal(example_keys(seed, torch.arange(20_000)), (d,), torch.float64).mean(1)
            seen = [float((mean > eps).double().mean()) for eps in (0.0, 2 * shift)]
            gaps.append(max(abs(seen[0] - clean), abs(seen[1] - attacked)))
        note = f"{clean:.4f} clean, {attacked:.4f} at Linf {2 * shift:.3g}"
        controls, measure = (clean - attacked,) * len(gaps), "difference of accuracies, 20,000 draws"
        rows.append(Row(f"average of {d} features", "right on .9987, and .0013 attacked", tuple(gaps), controls, 2e-3, measure, note=note))
    rows.append(_no_classifier_has_both())
    steps, shift = [0.05 * k for k in range(61)], 3 / math.sqrt(1000)
    lines = [Line("average of weak features", steps, [averaging_accuracy(1000, shift, s * shift) for s in steps])]
    for strength in (1, 2, 4):
        accuracies = [one_and_average_accuracy(strength, SURE, 1000, shift, s * shift) for s in steps]
        lines.append(Line(f"with {strength} x the strong feature", steps, accuracies))
    lines.append(Line("the one strong feature", steps, [SURE] * len(steps)))
    axes = Axes("eps in units of the weak features' shift", "accuracy", percent=True)
    return Evidence(tuple(rows), {"": LinePlot("Accuracy's price", tuple(lines), axes)})


def _no_classifier_has_both() -> Row:
    """Theorem 2.1: who is right on 1 - delta is right on at most p / (1 - p) delta under attack."""
    d, shift = 1000, 3 / math.sqrt(1000)
    strengths = torch.linspace(0, 12, 241).tolist()
    clean = [one_and_average_accuracy(a, SURE, d, shift) for a in strengths]
    attacked = [one_and_average_accuracy(a, SURE, d, shift, 2 * shift) for a in strengths]
    allowed = [SURE / (1 - SURE) * (1 - one) for one in clean]
    gap = max(max(0.0, one - most) for one, most in zip(attacked, allowed, strict=True))
    control = max(one - most for one, most in zip(clean, allowed, strict=True))
    best = max(range(len(strengths)), key=lambda k: attacked[k])
    note = f"the most robust of them: {clean[best]:.4f} clean, {attacked[best]:.4f} attacked"
    case, measure = "241 mixtures with the strong feature", "accuracy above what the theorem allows (control: without attack)"
    return Row(case, "right under attack on at most 19 times the errors", (gap,), (control,), 1e-9, measure, note=note)


def more_data(setting: Setting) -> Evidence:
    """One example is enough for an accurate classifier; a robust one needs a number that grows like the root of the dimension."""
    dimensions = [int(10 ** (2 + k / 2)) for k in range(21)]
    robust = [examples_needed(d, 0.5 * d**0.25, 0.5) for d in dimensions]
    plain = [examples_needed(d, 0.5 * d**0.25) for d in dimensions]
    slope, flat = (math.log10(counts[-1] / counts[-5]) / 2 for counts in (robust, plain))
    found = ", ".join(str(robust[k]) for k in (0, 2, 4, 6))
    note = f"robust: {found} examples at d = 1e2, 1e3, 1e4, 1e5; standard: {max(plain)} at each"
    gap, control = (abs(slope - 0.5),), (abs(flat - 0.5),)
    row = Row("from d = 1e10 to 1e12", "examples grow like d^0.5", gap, control, 0.05, "slope of log n over log d, minus 0.5", note=note)
    root = Line("the root of the dimension", dimensions, [robust[-1] * math.sqrt(d / dimensions[-1]) for d in dimensions])
    lines = (Line("robust, eps 0.5", dimensions, robust), Line("standard", dimensions, plain), root)
    plot = LinePlot("Examples for an accuracy of 99 %", lines, Axes("dimension", "examples", log_x=True, log_y=True))
    return Evidence((row, *(_sampled_means(setting, d) for d in (1000, 10_000))), {"": plot})


def _sampled_means(setting: Setting, d: int) -> Row:
    """The closed form behind the count beside means of examples that were drawn."""
    sigma = 0.5 * d**0.25
    n = examples_needed(d, sigma, 0.5)
    exact = sampled_mean_accuracy(d, sigma, n, 0.5)
    gaps = []
    for seed in range(setting.seeds):
        mean = 1 + sigma / math.sqrt(n) * normal(example_keys(seed, torch.arange(100)), (d,), torch.float64)
        seen = torch.special.ndtr((mean.sum(1) - 0.5 * mean.abs().sum(1)) / (sigma * mean.norm(dim=1))).mean()
        gaps.append(abs(float(seen) - exact))
    controls = (exact - sampled_mean_accuracy(d, sigma, 1, 0.5),) * len(gaps)
    measure = "difference of robust accuracies, 100 means (control: of one example)"
    return Row(f"d = {d:,}, means of {n} draws", f"accuracy {exact:.4f}", tuple(gaps), controls, 5e-3, measure)


def _fits(setting: Setting) -> list[Gaussian]:
    """Standard maximum likelihood from some draws of each seed."""
    return [Gaussian.fit(*THIN.draw(DRAWS, seed)) for seed in range(setting.seeds)]


def _noisy_fit(seed: int) -> Gaussian:
    x, y = THIN.draw(DRAWS, seed)
    noise = normal(fold(example_keys(seed, torch.arange(DRAWS)), "noise"), (2,), torch.float64)
    return Gaussian.fit(x + EPS * noise, y)


def _from_draws(setting: Setting, best: float, fits: list[Gaussian], case: str) -> Row:
    """The same learned from some draws of each seed."""
    gaps = tuple(best - THIN.accuracy(fit.weights, EPS) for fit in fits)
    controls = tuple(best - THIN.accuracy(fit.weights, EPS) for fit in _fits(setting))
    measure = f"accuracy at eps {EPS:g} below the best linear classifier's (control: standard training)"
    return Row(f"{case}, {DRAWS:,} draws", "the best robust linear classifier", gaps, controls, 5e-3, measure)


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
