"""What does a step on a linear model cost, and what is certified at size in which time?

    python benchmarks/linear_bias.py                                # 15 x 40, then 10,000 x 100,000 with 6.5e5 non-zeros
    python benchmarks/linear_bias.py --documents 1000 --words 5000 --steps 500

The bare loop is gradient descent by hand on the same problem: two products, the softmax and the step. Gaps are certified, without a solver:
see ``robustlab.linear_bias.certified_gap``. LinearSVC of scikit-learn and HiGHS of scipy stand beside where they are installed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.demo import peak_megabytes  # noqa: E402
from benchmarks.interleaved import Spread, clock, described, in_turn, table, timed  # noqa: E402
from robustlab import files  # noqa: E402
from robustlab import linear_bias as lb  # noqa: E402
from robustlab.devices import choose_device  # noqa: E402
from robustlab.errors import UserError  # noqa: E402
from robustlab.linear_bias.at_size import GameAcceleration, SparseProblem, text_like  # noqa: E402
from robustlab.norms import Norm  # noqa: E402
from robustlab.options import positive  # noqa: E402
from robustlab.records import environment  # noqa: E402

BARE = "bare loop, one seed"
NORMS: dict[str, Norm] = {"l1": lb.L1(), "l2": lb.L2(), "linf": lb.Linf()}


def bare(data: lb.Problem, step_size: float, steps: int) -> Tensor:
    """Gradient descent on the logarithm of the exponential loss, and nothing else."""
    w = lb.zeros(data)
    for _ in range(steps):
        mixture = torch.softmax(-data.outputs(w) * data.y, 1)
        w = w + step_size * data.pulled_back(mixture * data.y)
    return w


def ours(data: lb.Problem, norm: Norm, step: float, steps: int) -> Tensor:
    """The same by ``descend``, in any norm."""
    rule = lb.Steepest(norm, step, scaled=True)
    return lb.descend(lb.LinearObjective(data, lb.LogExponential()), lb.zeros(data), rule, steps, keep=()).last


def step_size(data: lb.Problem, norm: Norm) -> float:
    """The one that is safe for all seeds."""
    return float(1 / lb.largest(data, norm).max() ** 2)


def _bare(data: lb.Problem, step: float, steps: int, number: int) -> Tensor:
    return bare(data, step, steps)


def _run(data: lb.Problem, norm: Norm, steps: int) -> Callable[[int], Tensor]:
    step = step_size(data, norm)
    return lambda number: ours(data, norm, step, steps)


def steps_compared(one: lb.Problem, ten: lb.Problem | None, steps: int, repeats: int) -> list[dict[str, Any]]:
    """Milliseconds of a step: by hand, in three norms, and for ten seeds at once; all take turns."""
    tasks: dict[str, Callable[[int], Tensor]] = {BARE: partial(_bare, one, step_size(one, lb.L2()), steps)}
    for name, norm in NORMS.items():
        tasks[f"{name}, one seed"] = _run(one, norm, steps)
    if ten is not None:
        tasks["l2, ten seeds"] = _run(ten, lb.L2(), steps)
    for task in tasks.values():
        task(-1)  # the first call is the slowest
    seconds = in_turn(tasks, range(repeats), clock(torch.device("cpu")), lambda name, number, result: None)
    rows = []
    for name, taken in seconds.items():
        ratio, each = Spread.ratio(taken, seconds[BARE]), Spread.of([1000 * value / steps for value in taken])
        rows.append({"name": name, "ms": vars(each), "ratio": vars(ratio)})
    return rows


def product_share(data: SparseProblem, steps: int, repeats: int) -> list[dict[str, Any]]:
    """Steps at size against their two products alone."""
    w, mixture = lb.zeros(data) + 1, torch.full((1, data.n), 1 / data.n, dtype=torch.float64)

    def products(number: int) -> None:
        for _ in range(steps):
            data.outputs(w), data.pulled_back(mixture)

    tasks: dict[str, Callable[[int], Any]] = {"two products": products}
    for name, norm in NORMS.items():
        tasks[name] = _run(data, norm, steps)
    seconds = in_turn(tasks, range(repeats), clock(torch.device("cpu")), lambda name, number, result: None)
    ratios = {name: Spread.ratio(taken, seconds["two products"]) for name, taken in seconds.items()}
    return [{"name": name, "ms": vars(Spread.of([1000 * s / steps for s in seconds[name]])), "ratio": vars(ratios[name])} for name in tasks]


def certified(data: SparseProblem, name: str, rule: Any, norm: Norm, steps: int) -> dict[str, Any]:
    """What a descent reached, and how far at most it is from the best margin."""
    objective = lb.MeanMixture(data, lb.LogExponential())
    path, seconds = timed(lambda: lb.descend(objective, lb.zeros(data), rule, steps, keep=()), clock(torch.device("cpu")))
    margin = float(lb.margins(data, path.last, norm))
    gap = float(lb.certified_gap(data, path.last, norm, objective.mean))
    return {"name": name, "steps": steps, "seconds": seconds, "margin": margin, "gap": gap}


def at_size(data: SparseProblem, steps: int) -> list[dict[str, Any]]:
    """A descent for each norm; ``steps`` is for linf, the others take their share of it."""
    largest = {name: float(lb.largest(data, norm)) for name, norm in NORMS.items()}
    sign = lb.Steepest(lb.Linf(), largest["linf"] ** -2, scaled=True)
    game = GameAcceleration(316 / largest["l1"], 316 / largest["l1"])
    return [
        certified(data, "linf, sign descent", sign, lb.Linf(), steps),
        certified(data, "l2, dual acceleration", lb.DualAcceleration(largest["l2"] ** -2), lb.L2(), max(steps * 2 // 5, 1)),
        certified(data, "l1, game", game, lb.L1(), 2 * steps),
    ]


def peers(data: SparseProblem, wanted: bool) -> tuple[list[dict[str, Any]], list[str]]:
    """Solvers of others, and a sentence for each that is missing or found nothing."""
    rows, missing = [], []
    others: dict[str, tuple[Callable[[SparseProblem], Tensor], Norm]] = {"LinearSVC": (linear_svc, lb.L2()), "HiGHS": (highs, lb.L1())}
    for name, (solve, norm) in others.items() if wanted else ():
        try:
            w, seconds = timed(partial(solve, data), clock(torch.device("cpu")))
        except ImportError:
            missing.append(f"not installed: {name}")
            continue
        except UserError as error:
            missing.append(str(error))
            continue
        margin, gap = (float(f(data, w, norm)) for f in (lb.margins, lb.certified_gap))
        rows.append({"name": name, "steps": None, "seconds": seconds, "margin": margin, "gap": gap})
    return rows, missing


def _scipy(data: SparseProblem) -> Any:
    from scipy.sparse import csr_matrix

    return csr_matrix((data.X.values().numpy(), data.X.col_indices().numpy(), data.X.crow_indices().numpy()), shape=tuple(data.X.shape))


def linear_svc(data: SparseProblem) -> Tensor:
    """Weights of a support vector machine without intercept that hardly pays for its margin."""
    from sklearn.svm import LinearSVC  # type: ignore[import-untyped, import-not-found, unused-ignore]

    machine = LinearSVC(C=1e4, loss="hinge", fit_intercept=False, tol=1e-3)
    return torch.from_numpy(machine.fit(_scipy(data), data.y[0].numpy()).coef_)


def highs(data: SparseProblem) -> Tensor:
    """The smallest L1 norm with margins of one, within five minutes: a linear program in both signs of the weights."""
    from scipy.optimize import linprog
    from scipy.sparse import diags, hstack

    signed = diags(data.y[0].numpy()) @ _scipy(data)
    both = hstack([-signed, signed]).tocsr()
    found = linprog(np.ones(2 * data.d), A_ub=both, b_ub=-np.ones(data.n), bounds=(0, None), method="highs", options={"time_limit": 300.0})
    if found.x is None:
        raise UserError(f"HiGHS found nothing: {found.message}")
    return torch.from_numpy(found.x[: data.d] - found.x[data.d :])[None]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables; returns the exit code."""
    try:
        return _main(argv)
    except UserError as error:
        print(f"linear_bias: {error}", file=sys.stderr)
        return 2


def _main(argv: Sequence[str] | None) -> int:
    wanted = _parser().parse_args(argv)
    choose_device("cpu", wanted.threads)
    found: dict[str, Any] = {"settings": vars(wanted), "environment": environment()}
    print(f"{described(found['environment'])}; {wanted.repeats} rounds\n")
    one, ten = lb.separable(1, 15, 40), lb.separable(10, 15, 40)
    found["small"] = steps_compared(one, ten, wanted.small_steps, wanted.repeats)
    print(_times(found["small"], "a step at 15 x 40"))
    data = text_like(wanted.documents, wanted.words)
    before = peak_megabytes()
    found["share"] = product_share(data, wanted.product_steps, wanted.repeats)
    print("\n" + _times(found["share"], f"a step at {data.n} x {data.d}, {data.nonzeros} non-zeros"))
    found["size"] = at_size(data, wanted.steps)
    found["matrix_mb"], found["added_mb"] = data.nbytes / 1e6, peak_megabytes() - before
    print("\n" + _gaps(found["size"]), flush=True)
    print(f"\nthe matrix takes {found['matrix_mb']:.1f} MB, its transpose as much; descents added {found['added_mb']:.1f} MB to the peak")
    found["peers"], found["missing"] = peers(data, wanted.peers)
    if found["peers"]:
        print("\n" + _gaps(found["peers"]))
    for sentence in found["missing"]:
        print(sentence)
    if wanted.out:
        files.write_json(Path(wanted.out), found)
    return 0


def _times(rows: Sequence[dict[str, Any]], title: str) -> str:
    return table([{title: row["name"], "ms": str(Spread(**row["ms"])), "ratio": str(Spread(**row["ratio"]))} for row in rows])


def _gaps(rows: Sequence[dict[str, Any]]) -> str:
    return table([{key: _short(value) for key, value in row.items()} for row in rows])


def _short(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--small-steps", type=positive, default=1000, help="of each run at 15 x 40 (default: 1000)")
    parser.add_argument("--product-steps", type=positive, default=50, help="of each run at size that is compared (default: 50)")
    parser.add_argument("--repeats", type=positive, default=7, help="rounds (default: 7)")
    parser.add_argument("--documents", type=positive, default=10_000, help="examples at size (default: 10000)")
    parser.add_argument("--words", type=positive, default=100_000, help="values of each (default: 100000)")
    parser.add_argument("--steps", type=positive, default=6000, help="of the descent in linf (default: 6000)")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True, help="LinearSVC and HiGHS too")
    parser.add_argument("--threads", type=positive, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--out", help="JSON file for everything measured")
    return parser


if __name__ == "__main__":
    sys.exit(main())
