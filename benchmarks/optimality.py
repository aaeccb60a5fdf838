"""How near do minimum-norm attacks come to the best known, over numbers of queries? Ours and other libraries', on one model.

    python benchmarks/optimality.py --data datasets/cifar10 --model cifar10-small-l2 --norm l2 --limit 100
    python benchmarks/optimality.py --data datasets/cifar10 --model cifar10-small-standard --norm linf --budgets 200,1000

A query is a forward or a backward pass of one image, as in AttackBench (Cinà et al. 2025); each attack gets as many steps as its budget
pays. The best known of an image is the nearest point of all attacks at all budgets. Only the model itself, in float32, says what is
adversarial; a point outside [0, 1] counts for nothing. Libraries that are missing are named.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.evaluation import classified_correctly  # noqa: E402
from benchmarks.interleaved import described, exit_code, imported, table  # noqa: E402
from robustlab import files  # noqa: E402
from robustlab.attacks import CW, DDN, FAB, FMN, DeepFool, SigmaZero  # noqa: E402
from robustlab.errors import UserError  # noqa: E402
from robustlab.evaluation import optimality  # noqa: E402
from robustlab.evaluation.accuracy import predictions  # noqa: E402
from robustlab.models.frozen import frozen  # noqa: E402
from robustlab.norms import L0, L1, L2, Linf, Norm  # noqa: E402
from robustlab.options import positive  # noqa: E402
from robustlab.records import environment  # noqa: E402

NORMS: dict[str, Norm] = {"l0": L0(pixels=False), "l1": L1(), "l2": L2(), "linf": Linf()}
SEARCHES = 4  # values of c that Carlini and Wagner's attack tries

Attack = Callable[[nn.Module, Tensor, Tensor], Tensor]


def ours(norm: Norm, budget: int, classes: int) -> dict[str, Attack]:
    """Our minimum-norm attacks with the steps that a budget of queries pays, by name."""
    each, others = budget // 2, min(classes - 1, 9)
    if isinstance(norm, L0):
        return {"FMN": FMN(norm, steps=each), "sigma-zero": SigmaZero(norm, steps=each)}
    found: dict[str, Attack] = {"FMN": FMN(norm, steps=each), "FAB-T": FAB(norm, steps=each // others, targets=others)}
    found["FAB"] = FAB(norm, steps=budget // (others + 1), targets=0)
    if not isinstance(norm, L1):
        found["DeepFool"] = DeepFool(norm, steps=budget // (others + 1))
    if isinstance(norm, L2):
        found |= {"DDN": DDN(norm, steps=each), "C&W": CW(norm, steps=each // SEARCHES, searches=SEARCHES)}
    return found


def adv_lib(norm: Norm, budget: int, classes: int) -> dict[str, Attack]:
    """Those of adversarial-library."""
    lib = import_module("adv_lib.attacks")
    each, p = budget // 2, {L0: 0, L1: 1, L2: 2, Linf: math.inf}[type(norm)]
    if isinstance(norm, L0):
        return {
            "FMN": lambda model, x, y: lib.fmn(model, x, y, norm=p, steps=each),
            "sigma-zero": lambda model, x, y: lib.sigma_zero(model, x, y, num_steps=each),
        }
    found: dict[str, Attack] = {
        "FMN": lambda model, x, y: lib.fmn(model, x, y, norm=p, steps=each),
        # two forward passes of each step, and a backward pass for each class
        "FAB": lambda model, x, y: lib.fab(model, x, y, norm=p, n_iter=budget // (classes + 2), restarts=1),
        "PDPGD": lambda model, x, y: lib.pdpgd(model, x, y, norm=p, num_steps=each),
    }
    if not isinstance(norm, L1):
        found["DeepFool"] = lambda model, x, y: lib.df(model, x, y, norm=p, steps=budget // (classes + 1))
    if isinstance(norm, L2):
        found |= {
            "DDN": lambda model, x, y: lib.ddn(model, x, y, steps=each, levels=None),
            "ALMA": lambda model, x, y: lib.alma(model, x, y, distance="l2", num_steps=each),
            "C&W": lambda model, x, y: lib.carlini_wagner_l2(model, x, y, binary_search_steps=SEARCHES, max_iterations=each // SEARCHES),
        }
    return found


LIBRARIES: dict[str, Callable[[Norm, int, int], dict[str, Attack]]] = {"ours": ours, "adversarial-library": adv_lib}


def measure(
    model: nn.Module, norm: Norm, x: Tensor, y: Tensor, classes: int, budgets: Sequence[int], libraries: Sequence[str]
) -> list[dict[str, object]]:
    """A row for each attack and budget; seconds are those of this process's CPU."""
    rows: list[dict[str, object]] = []
    distances: dict[str, Tensor] = {}
    for budget in budgets:
        for library in libraries:
            for name, attack in LIBRARIES[library](norm, budget, classes).items():
                torch.manual_seed(0)
                begin = time.process_time()
                with frozen(model):
                    x_adv = attack(model, x, y).detach()
                seconds = time.process_time() - begin
                far = distance(model, norm, x, y, x_adv)
                distances[f"{library} {name} {budget}"] = far
                hit = far.isfinite()
                median = f"{far.median():.4g}" if hit.float().mean() > 0.5 else "-"
                row = {"attack": name, "by": library, "queries": budget, "optimality": "", "found": f"{int(hit.sum())}"}
                rows.append({**row, "median distance": median, "CPU ms per image": f"{1000 * seconds / len(x):.0f}"})
                print(f"  {library} {name}, {budget} queries: {seconds:.0f} s", file=sys.stderr)
    for row, share in zip(rows, optimality(distances).values(), strict=True):
        row["optimality"] = f"{100 * share:.1f}"
    return rows


def distance(model: nn.Module, norm: Norm, x: Tensor, y: Tensor, x_adv: Tensor) -> Tensor:
    """How far the points are, float64 ``(N,)``; infinite where they are not adversarial, or no images."""
    inside = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1)
    fools = predictions(model, x_adv.float().clamp(0, 1)) != y
    return torch.where(inside & fools, norm.measure(x_adv.double() - x.double()), torch.inf)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Optimality of minimum-norm attacks over numbers of queries, ours and others'.")
    parser.add_argument("--model", metavar="NAME|PATH", help="a trained model (default: `small` with random weights)")
    parser.add_argument("--data", metavar="PATH", help="images to attack (default: the generated shapes)")
    parser.add_argument("--limit", type=positive, default=100, metavar="N", help="images (default: 100)")
    parser.add_argument("--norm", choices=NORMS, default="l2")
    parser.add_argument("--budgets", default="200,1000,2000", metavar="N,N,...", help="queries for an image (default: 200,1000,2000)")
    parser.add_argument("--no-peers", action="store_true", help="only ours")
    parser.add_argument("--out", metavar="FILE", help="also write the numbers as JSON")
    return parser.parse_args(argv)


def run(wanted: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    try:
        budgets = sorted({positive(number) for number in wanted.budgets.split(",")})
    except ValueError as error:
        raise UserError(f"--budgets takes whole numbers with commas between them, such as 200,1000: {error}") from error
    if budgets[0] < 80:
        raise UserError(f"--budgets starts at 80 queries, which some attacks need for a step, got {budgets[0]}")
    norm = NORMS[wanted.norm]
    model, batch, told = classified_correctly(wanted.model, wanted.data, wanted.limit)
    peers, missing = imported({} if wanted.no_peers else {"adversarial-library": "adv_lib.attacks"})
    rows = measure(model, norm, batch.x, batch.y, len(model.classes), budgets, ["ours", *peers])
    where = environment()
    print(f"Optimality in {type(norm).__name__}: {wanted.model or 'small, random weights'}")
    print(f"{told}; {described(where)}\n")
    print(table(rows))
    for library, why in missing.items():
        print(f"\n{library} is not here ({why})")
    if wanted.out:
        files.write_json(wanted.out, {"settings": vars(wanted), "environment": where, "rows": rows})


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code(lambda: run(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
