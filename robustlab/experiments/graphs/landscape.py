"""Have all local minima of a linear graph network a small loss? Many starts, each run to convergence, beside the Bethe Hessian.

The claim is that of Chen, Li and Bruna (2019, theorem 5.1): on two communities, with one feature and the cosine loss, the loss at a local
minimum exceeds the smallest one by a factor that goes to 1 with n.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from robustlab import seeding
from robustlab.errors import UserError
from robustlab.experiments.cache import ExperimentCache, Measurement, Values
from robustlab.experiments.finding import Finding, LinePlot
from robustlab.extras import scipy_module
from robustlab.gnn.generators import stochastic_block_model
from robustlab.gnn.graphs import GraphBatch
from robustlab.gnn.layers import node_groups, normalized, propagate
from robustlab.gnn.operators import Adjacency, BetheHessian, Degree, Identity, Operator
from robustlab.gnn.spectral import eigenvectors
from robustlab.linear_bias.descent import descend
from robustlab.reports.plots import Axes, Line
from robustlab.reports.tables import Table
from robustlab.steps import Adam, Decaying

VERSION = 3  # of the measurements: another one measures again
OPERATORS: tuple[Operator, ...] = (Identity(), Degree(), Adjacency())  # of them a layer can be a shifted step with the Bethe Hessian
REST = 1e-4  # slope below which a start counts as arrived; curvature above minus that everywhere makes it a minimum
MOST = 500  # steps of Newton's method from where Adam ended
BLOCK = 10  # starts of one measurement, which is kept when it is done
NEAR = 1e-8  # between the two slopes whose difference is the curvature
AT_ONCE = 10**7  # numbers, for a layer of several networks, when the curvature is measured
TEST_SEED = 1  # of the graphs that nothing is fitted to


@dataclass(frozen=True)
class Condition:
    """Where the landscape is looked at: two communities of ``n`` nodes that like each other.

    Attributes:
        n: nodes of each graph.
        ratio: signal to noise, at most the mean degree.
        depth: layers.
        degree: the mean degree.
        graphs: over whose mean loss the network is fitted.
    """

    n: int = 400
    ratio: float = 2.0
    depth: int = 10
    degree: float = 3.0
    graphs: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.ratio <= self.degree:
            raise UserError(f"with a mean degree of {self.degree:g} the signal-to-noise ratio is 0 to {self.degree:g}, got {self.ratio:g}")

    def drawn(self, seed: int) -> GraphBatch:
        """Its graphs of a seed."""
        half = (self.degree * self.ratio) ** 0.5  # (a - b)^2 / (4 c) is the ratio
        inside, between = (self.degree + half) / self.n, (self.degree - half) / self.n
        return stochastic_block_model(self.n, 2, inside=inside, between=between, graphs=self.graphs, seed=seed)

    def __str__(self) -> str:
        return f"n = {self.n}, ratio {self.ratio:g}, depth {self.depth}"


@dataclass(frozen=True)
class Config:
    """Attributes:
    seeds: starts of each network.
    steps: of Adam from each start, before Newton's method.
    base: the condition from which one thing is changed at a time.
    ns, ratios, depths: what it is changed to.
    """

    seeds: int = 100
    steps: int = 200
    base: Condition = Condition()
    ns: tuple[int, ...] = (200, 400, 800)
    ratios: tuple[float, ...] = (1.5, 2.0, 2.5)
    depths: tuple[int, ...] = (3, 5, 10, 20)

    @property
    def conditions(self) -> list[Condition]:
        """All of them, each once."""
        changed = [replace(self.base, n=n) for n in self.ns]
        changed += [replace(self.base, ratio=ratio) for ratio in self.ratios]
        return list(dict.fromkeys([self.base, *changed, *(replace(self.base, depth=depth) for depth in self.depths)]))


FULL = Config(steps=1000, base=Condition(n=1000, graphs=40), ns=(500, 1000, 4000), depths=(3, 10, 30))


def outputs(graphs: GraphBatch, theta: Tensor) -> Tensor:
    """What linear networks with one feature give, many at a time: ``x <- normalize(sum_m theta_lm Op_m x)`` for each layer ``l``, from the
    degree on.

    ``theta`` is in the basis ``I, (D - c) / sqrt(c), A / sqrt(c)`` of the span of ``OPERATORS``, with the mean degree c: the networks are
    the same, but D is nearly c times I, and descent would take ten times as many steps.

    Args:
        theta: ``(S, L, M)`` for ``S`` networks, ``L`` layers and the ``M`` of ``OPERATORS``.

    Returns:
        ``(N, S)``: of mean 0 over each graph.
    """
    groups, c = node_groups(graphs), max(graphs.mean_degree, 1e-12)
    basis = torch.tensor([[1, -(c**0.5), 0], [0, c**-0.5, 0], [0, 0, c**-0.5]], dtype=theta.dtype, device=theta.device)
    x = graphs.degree.to(theta)[:, None].expand(-1, len(theta))
    for layer in (theta @ basis.T).unbind(1):
        moved = sum(weight * values for weight, values in zip(layer.T, propagate(OPERATORS, graphs, x.contiguous()), strict=True))
        assert isinstance(moved, Tensor)
        x = normalized(groups, moved, eps=1e-12, relative=0.0)
    return x


def cosine_losses(graphs: GraphBatch, x: Tensor, target: Tensor) -> Tensor:
    """``1 - cos^2`` of the angle between values and a target over the nodes of each graph: from ``(N, S)`` and ``(N,)`` to ``(B, S)``.

    Names of the two communities do not matter to it.
    """
    groups = node_groups(graphs)
    target = target.to(x)[:, None]
    target = target - groups.repeated(groups.mean(target))
    x = x - groups.repeated(groups.mean(x))
    sizes = (groups.mean(x.square()) * groups.mean(target.square())).clamp(min=1e-300)
    return 1 - groups.mean(x * target).square() / sizes


def signs(graphs: GraphBatch) -> Tensor:
    """True labels 0 and 1 as -1 and 1, float64 ``(N,)``."""
    assert graphs.y is not None
    return 2.0 * graphs.y.double() - 1


def overlaps(graphs: GraphBatch, x: Tensor) -> Tensor:
    """The overlap of the signs of values with the true communities, for blocks of equal size: ``(B, S)``."""
    return node_groups(graphs).mean(torch.where(x > 0, 1.0, -1.0) * signs(graphs)[:, None]).abs()


def by_spectrum(graphs: GraphBatch) -> Tensor:
    """The second eigenvector of each graph's Bethe Hessian at the root of its mean degree: ``(N, 1)``."""
    alone = [graphs.one(which) for which in range(len(graphs))]
    return torch.cat([eigenvectors(BetheHessian().sparse(one), 2).vectors[:, 1:] for one in alone])


def starts(count: int, depth: int, seed: int = 0, first: int = 0) -> Tensor:
    """Normal first weights, ``(count, depth, M)``, each start from its own key.

    Args:
        count: how many starts.
        depth: layers.
        seed: of all starts.
        first: number of the first one.
    """
    keys = seeding.fold(seeding.example_keys(seed, torch.arange(first, first + count)), "landscape")
    return seeding.normal(keys, (depth, len(OPERATORS)), torch.float64)


def measured(condition: Condition, first: int, count: int, steps: int) -> Values:
    """Run some starts of a condition to the end, and look at where they came.

    Args:
        condition: the graphs and the depth.
        first: number of the first start.
        count: how many starts.
        steps: of Adam, before Newton's method.
    """
    graphs, unseen = condition.drawn(0), condition.drawn(TEST_SEED)

    def objective(theta: Tensor) -> Tensor:
        return cosine_losses(graphs, outputs(graphs, theta), signs(graphs)).mean(0)

    # A weight's scale means nothing, as each layer is normalized, so the angle of a step becomes smaller as weights grow.
    rule = Decaying(Adam(0.1), power=1.0, offset=steps / 4)
    path = descend(objective, starts(count, condition.depth, first=first), rule, steps, keep=sorted({0, steps}))
    at_once = max(1, AT_ONCE // graphs.n)
    ends = [arrived(objective, one, at_once) for one in path.last.split(1)]
    theta = torch.cat([end for end, _ in ends])
    losses, slope = slopes(objective, theta)
    with torch.no_grad():
        here, there = outputs(graphs, theta), outputs(unseen, theta)
    eigen, eigen_unseen = by_spectrum(graphs), by_spectrum(unseen)
    return {
        "first": path.values[0].tolist(),
        "losses": losses.tolist(),
        "by_adam": path.values[-1].tolist(),
        "slope": slope.tolist(),
        "curvature": [lowest for _, lowest in ends],
        "overlap": overlaps(graphs, here).mean(0).tolist(),
        "unseen": cosine_losses(unseen, there, signs(unseen)).mean(0).tolist(),
        "unseen_overlap": overlaps(unseen, there).mean(0).tolist(),
        "from_spectral": cosine_losses(graphs, here, eigen[:, 0]).mean(0).tolist(),
        "spectral": float(cosine_losses(graphs, eigen, signs(graphs)).mean()),
        "spectral_unseen": float(cosine_losses(unseen, eigen_unseen, signs(unseen)).mean()),
        "spectral_overlap": float(overlaps(unseen, eigen_unseen).mean()),
    }


def together(blocks: Sequence[Values]) -> Values:
    """Blocks of starts as one: their lists one after another; what is of no start is the same in all."""
    return {name: sum((block[name] for block in blocks), []) if isinstance(one, list) else one for name, one in blocks[0].items()}


def _gradients(objective: Callable[[Tensor], Tensor], theta: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each network, ``(S,)``, and its gradient."""
    theta = theta.clone().requires_grad_()
    losses = objective(theta)
    (gradient,) = torch.autograd.grad(losses.sum(), theta)
    return losses.detach(), gradient


def slopes(objective: Callable[[Tensor], Tensor], theta: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each network, and the largest slope of the loss by the angle of a layer's weights, in a layer: ``(S,)`` each."""
    losses, gradient = _gradients(objective, theta)
    return losses, (gradient.norm(dim=2) * theta.norm(dim=2)).amax(1)


def hessian(objective: Callable[[Tensor], Tensor], theta: Tensor, at_once: int) -> Tensor:
    """Second derivatives at one network ``(1, L, M)``, as differences of gradients: ``(L M, L M)``.

    Args:
        objective: the loss of each network.
        theta: float64.
        at_once: networks in one pass.
    """
    beside = torch.cat([theta, theta + NEAR * torch.eye(theta.numel()).to(theta).reshape(-1, *theta.shape[1:])])
    gradients = torch.cat([_gradients(objective, some)[1] for some in beside.split(at_once)]).flatten(1)
    rows = (gradients[1:] - gradients[0]) / NEAR
    return (rows + rows.T) / 2


def arrived(objective: Callable[[Tensor], Tensor], theta: Tensor, at_once: int = 100) -> tuple[Tensor, float]:
    """Where Newton's method in a trust region (scipy's ``trust-exact``) comes to rest from one network, or after ``MOST`` steps.

    Args:
        objective: the loss of each network.
        theta: ``(1, L, M)``, float64.
        at_once: networks in one pass.

    Returns:
        The network there, and the least curvature of the loss in any direction: below 0 it is no minimum.
    """

    def there(point: Any) -> Tensor:
        return torch.from_numpy(point).reshape(theta.shape)

    def value(point: Any) -> tuple[float, Any]:
        loss, gradient = _gradients(objective, there(point))
        return float(loss), gradient.flatten().numpy()

    unit = theta / theta.norm(dim=2, keepdim=True)  # no layer's scale means anything
    options = {"maxiter": MOST, "gtol": REST / 10, "initial_trust_radius": 0.1}
    found = scipy_module("optimize").minimize(
        value,
        unit.flatten().numpy(),
        jac=True,
        hess=lambda point: hessian(objective, there(point), at_once).numpy(),
        method="trust-exact",
        options=options,
    )
    end = there(found.x)
    end = end / end.norm(dim=2, keepdim=True)
    return end, float(torch.linalg.eigvalsh(hessian(objective, end, at_once))[0])


def run(cache: ExperimentCache, config: Config) -> Finding:
    """Look at the landscape in every condition, or in what is missing of them, and put the numbers into a table."""
    blocks = [(first, min(BLOCK, config.seeds - first)) for first in range(0, config.seeds, BLOCK)]
    pieces = []
    for one in config.conditions:
        for first, count in blocks:
            settings = {"first": first, "count": count, "steps": config.steps, "version": VERSION, **asdict(one)}
            name = f"{one}, starts {first + 1} to {first + count}"
            pieces.append(Measurement(name, settings, partial(measured, one, first, count, config.steps)))
    parts = iter(cache.measured("landscape", pieces))
    found = [(one, together([next(parts) for _ in blocks])) for one in config.conditions]
    plots = {f"landscape-{name}": _plot(name, found, config) for name in ("n", "ratio", "depth")}
    told = [{"condition": asdict(one), **values} for one, values in found]
    return Finding((_table(found, config),), {"conditions": told}, lines=plots)


def _quantile(values: Sequence[float], share: float) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(share))


def _table(found: Sequence[tuple[Condition, Values]], config: Config) -> Table:
    columns = ("condition", "smallest loss", "median", "95 %", "largest", "within 5 %", "spectral", "from spectral: best, median")
    unseen = ("unseen: best, median", "spectral", "overlap: best", "spectral", "at rest", "minima")
    return Table(
        "Are all local minima of a linear graph network good?",
        f"Linear networks of one feature with the operators I, D and A on two communities, mean degree {config.base.degree:g}. The loss "
        f"is 1 - cos^2 of the angle to the communities, over {config.base.graphs} graphs; {config.seeds} random starts, {config.steps} "
        f"steps of Adam each and then Newton's method, at most {MOST:,}; unseen: the same weights on as many new graphs. Spectral: the "
        "Bethe Hessian's second eigenvector, untrained.",
        (*columns, *unseen),
        tuple((str(condition), *_cells(values)) for condition, values in found),
        (
            "within 5 %: starts that end within 5 % of the smallest loss. From spectral: 1 - cos^2 to that eigenvector. At rest: starts "
            f"where the loss changes by less than {REST:g} per radian of any layer's weights at the end; the others are still under way. "
            f"Minima: those at rest where it curves down in no direction (no eigenvalue of the second derivatives below -{REST:g}).",
            "The claim (Chen, Li and Bruna 2019, theorem 5.1): all local minima have nearly the smallest loss as n grows.",
        ),
    )


def _cells(values: Values) -> tuple[str, ...]:
    losses, best = values["losses"], min(range(len(values["losses"])), key=values["losses"].__getitem__)
    near = sum(loss <= 1.05 * losses[best] for loss in losses) / len(losses)
    rest = [slope < REST for slope in values["slope"]]
    quantiles = [losses[best], *(_quantile(losses, share) for share in (0.5, 0.95, 1.0))]
    pairs = [f"{values[name][best]:.3f}, {_quantile(values[name], 0.5):.3f}" for name in ("from_spectral", "unseen")]
    return (
        *(f"{loss:.3f}" for loss in quantiles),
        f"{100 * near:.0f} %",
        f"{values['spectral']:.3f}",
        *pairs,
        f"{values['spectral_unseen']:.3f}",
        f"{values['unseen_overlap'][best]:.3f}",
        f"{values['spectral_overlap']:.3f}",
        f"{100 * sum(rest) / len(losses):.0f} %",
        f"{100 * sum(at and low > -REST for at, low in zip(rest, values['curvature'], strict=True)) / len(losses):.0f} %",
    )


def _plot(name: str, found: Sequence[tuple[Condition, Values]], config: Config) -> LinePlot:
    """The losses of all starts in order, one line for each value of what is changed."""
    lines: list[Line] = []
    for condition, values in found:
        others: dict[str, Any] = {**asdict(condition), name: getattr(config.base, name)}
        if others == asdict(config.base):
            losses = sorted(values["losses"])
            shares = [(i + 1) / len(losses) for i in range(len(losses))]
            lines.append(Line(f"{_WORDS[name]} {getattr(condition, name):g}", shares, losses))
    lines.sort(key=lambda line: float(line.name.rpartition(" ")[2]))
    return LinePlot("Final losses of all starts, the smallest first", tuple(lines), Axes("share of the starts", "1 - cos²"))


_WORDS = {"n": "n =", "ratio": "signal to noise", "depth": "depth"}
