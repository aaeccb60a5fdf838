"""Are ours as strong as other libraries' attacks of the same name, with as many forward passes? Image by image, on one model.

    python benchmarks/strength.py --data datasets/cifar10 --model cifar10-small-l2 --norm linf --limit 500
    python benchmarks/strength.py --data datasets/cifar10 --model cifar10-small-l2 --norm l1 --steps 50 --repeats 1

Settings are the same on both sides. An image counts as broken where the model itself, in float32, predicts something else of a point in
[0, 1] that lies within eps, up to a millionth of it. Ours search the model itself. Libraries that are missing are named.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contenders import Budget  # noqa: E402
from benchmarks.evaluation import Counted, classified_correctly  # noqa: E402
from benchmarks.interleaved import described, exit_code, imported, table  # noqa: E402
from robustlab import files, seeding  # noqa: E402
from robustlab.attacks import APGD, CW, DDN, FAB, FGSM, FMN, PGD, DeepFool, Square, Within  # noqa: E402
from robustlab.data.batches import Batch  # noqa: E402
from robustlab.errors import unknown  # noqa: E402
from robustlab.evaluation.accuracy import predictions  # noqa: E402
from robustlab.goals import dlr  # noqa: E402
from robustlab.models.frozen import frozen  # noqa: E402
from robustlab.norms import L1, L2, Linf  # noqa: E402
from robustlab.options import positive, radius  # noqa: E402
from robustlab.records import environment  # noqa: E402
from robustlab.threats import named_threat  # noqa: E402

SEARCHES = 4  # values of c that Carlini and Wagner's attack tries
TOLERANCE = 1e-6  # of eps, for points that other libraries round

Theirs = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Task(Budget):
    """What every attack is asked: also queries of a search without gradients, and classes."""

    queries: int
    classes: int

    @property
    def p(self) -> float:
        return {L1: 1, L2: 2, Linf: math.inf}[type(self.threat.norm)]


def ours(task: Task) -> dict[str, Any]:
    """Our attacks by name. FAB takes one forward pass for a step where the others' take two, so it gets as many passes."""
    threat, norm, steps, others = task.threat, task.threat.norm, task.steps, task.classes - 1
    attacks: dict[str, Any] = {
        "FGSM": FGSM(threat),
        "PGD": PGD(threat, steps, task.step_size),
        "APGD-CE": APGD(threat, steps=steps),
        "APGD-DLR": APGD(threat, steps=steps, surrogate=dlr),
        "APGD-T": APGD(threat, steps=steps, targets=others),
        "FAB": Within(FAB(norm, steps=steps, targets=0), threat),
        "FMN": Within(FMN(norm, steps=steps), threat),
    }
    if not isinstance(norm, L1):
        attacks["MI-FGSM"] = PGD(threat, steps, task.step_size, random_start=False, momentum=1.0)
        attacks["Square"] = Square(threat, queries=task.queries, rescale_schedule=True)
        attacks["DeepFool"] = Within(DeepFool(norm, steps=steps), threat)
    if isinstance(norm, L2):
        attacks["DDN"] = Within(DDN(norm, steps=steps), threat)
        attacks["C&W"] = Within(CW(norm, steps=steps, searches=SEARCHES), threat)
        attacks["C&W at c = 1"] = Within(CW(norm, steps=SEARCHES * steps, searches=1, c=1), threat)
    return attacks


def torchattacks(library: Any, task: Task, seed: int) -> dict[str, Theirs]:
    """Those of torchattacks."""
    eps, steps, norm = task.eps, task.steps, "Linf" if task.p > 2 else "L2"
    if task.p == 1:
        return {}

    def made(kind: str, **settings: Any) -> Theirs:
        return lambda model, x, y: getattr(library, kind)(model, **settings)(x, y)

    again = {"norm": norm, "eps": eps, "seed": seed}
    found = {
        "APGD-CE": made("APGD", **again, steps=steps, loss="ce"),
        "APGD-DLR": made("APGD", **again, steps=steps, loss="dlr"),
        "APGD-T": made("APGDT", **again, steps=steps, n_classes=task.classes),
        "FAB": made("FAB", **again, steps=steps // 2, n_classes=task.classes),
        "Square": made("Square", **again, n_queries=task.queries),
    }
    if task.p == 2:
        found["PGD"] = made("PGDL2", eps=eps, alpha=task.step_size, steps=steps)
        found["DeepFool"] = made("DeepFool", steps=steps)
        found["C&W at c = 1"] = made("CW", c=1, steps=SEARCHES * steps)
    else:
        found["FGSM"] = made("FGSM", eps=eps)
        found["PGD"] = made("PGD", eps=eps, alpha=task.step_size, steps=steps)
        found["MI-FGSM"] = made("MIFGSM", eps=eps, alpha=task.step_size, steps=steps)
    return found


def foolbox(library: Any, task: Task, seed: int) -> dict[str, Theirs]:
    """Those of foolbox."""
    names = {1: "L1", 2: "L2", math.inf: "Linf"}
    name = names[task.p]

    def made(kind: str, eps: float | None = task.eps, **settings: Any) -> Theirs:
        """An attack within eps, or, where that is None, what it found without also shortening it to eps."""
        attack = getattr(library.attacks, kind)(**settings)
        return lambda model, x, y: attack(library.PyTorchModel(model, bounds=(0, 1)), x, y, epsilons=eps)[1]

    pgd = "SparseL1DescentAttack" if task.p == 1 else f"{name}PGD"  # in L1 ours moves 1 % of the values, too
    found = {
        "FGSM": made(f"{name}FastGradientAttack"),
        "PGD": made(pgd, abs_stepsize=task.step_size, steps=task.steps),
        "FMN": made(f"{name.replace('Linf', 'LInf')}FMNAttack", None, steps=task.steps),
    }
    if task.p == 1:
        return found
    found["MI-FGSM"] = made(f"{name}MomentumIterativeFastGradientMethod", abs_stepsize=task.step_size, steps=task.steps)
    found["DeepFool"] = made(f"{name}DeepFoolAttack", None, steps=task.steps)
    if task.p == 2:
        found["DDN"] = made("DDNAttack", None, steps=task.steps)
        found["C&W"] = made("L2CarliniWagnerAttack", None, binary_search_steps=SEARCHES, steps=task.steps)
    return found


def adv_lib(library: Any, task: Task, seed: int) -> dict[str, Theirs]:
    """Those of adversarial-library."""
    eps, steps, p = task.eps, task.steps, task.p
    large = {"use_large_reps": p == 1}
    found: dict[str, Theirs] = {
        "APGD-CE": lambda model, x, y: library.apgd(model, x, y, eps, p, n_iter=steps, loss_function="ce", **large),
        "APGD-DLR": lambda model, x, y: library.apgd(model, x, y, eps, p, n_iter=steps, loss_function="dlr", **large),
        "APGD-T": lambda model, x, y: library.apgd_targeted(model, x, y, eps, p, n_iter=steps, **large),
        "FAB": lambda model, x, y: library.fab(model, x, y, norm=p, n_iter=steps // 2, restarts=1),
        "FMN": lambda model, x, y: library.fmn(model, x, y, norm=p, steps=steps),
    }
    if p > 2:
        found["PGD"] = lambda model, x, y: library.pgd_linf(model, x, y, eps, steps=steps, absolute_step_size=task.step_size)
    if p > 1:
        found["DeepFool"] = lambda model, x, y: library.df(model, x, y, norm=p, steps=steps)
    if p == 2:
        found["DDN"] = lambda model, x, y: library.ddn(model, x, y, steps=steps, levels=None)
        found["C&W"] = lambda model, x, y: library.carlini_wagner_l2(model, x, y, binary_search_steps=SEARCHES, max_iterations=steps)
    return found


LIBRARIES: dict[str, tuple[str, Callable[[Any, Task, int], dict[str, Theirs]]]] = {
    "torchattacks": ("torchattacks", torchattacks),
    "foolbox": ("foolbox", foolbox),
    "adversarial-library": ("adv_lib.attacks", adv_lib),
}


@dataclass(frozen=True)
class Outcome:
    """What an attack left.

    Attributes:
        stands: share of the repeats in which each image was not broken, float64 ``(N,)``.
        passes: forward passes per image.
        beyond: farthest point beyond eps, in units of eps.
    """

    stands: Tensor
    passes: float
    beyond: float


def outcome(model: nn.Module, task: Task, batch: Batch, attack: Callable[[nn.Module, Tensor, int], Tensor], repeats: int) -> Outcome:
    """Put an attack, called with the model, images and the number of the repeat, to the test.

    Args:
        model: what is attacked.
        task: what is asked.
        batch: images with their labels.
        attack: returns the attacked images.
        repeats: how often, each time with other random numbers.
    """
    counted, stands, beyond = Counted(model), torch.zeros(len(batch.x), dtype=torch.float64), 0.0
    for repeat in range(repeats):
        torch.manual_seed(repeat)
        with frozen(counted):
            x_adv = attack(counted, batch.x.clone(), repeat).detach()
        far = task.threat.norm.measure(x_adv.double() - batch.x.double()) / task.eps - 1
        inside = ((x_adv >= 0) & (x_adv <= 1)).flatten(1).all(1) & (far <= TOLERANCE)
        broken = inside & (predictions(model, x_adv.float().clamp(0, 1)) != batch.y)
        stands += (~broken).double() / repeats
        beyond = max(beyond, float(far.max()))
    return Outcome(stands, counted.forwards / len(batch.x) / repeats, beyond)


def rows(
    model: nn.Module, task: Task, batch: Batch, libraries: dict[str, Any], repeats: int, attacks: Mapping[str, Any]
) -> Iterator[dict[str, object]]:
    """A row for each attack of each library that has the name of one of ours, ``attacks``."""
    mine: dict[str, Outcome] = {}
    for library, module in libraries.items():
        _, named = LIBRARIES[library]
        for name in [name for name in named(module, task, 0) if name in attacks]:

            def theirs(one: nn.Module, x: Tensor, seed: int, name: str = name, module: Any = module, named: Any = named) -> Tensor:
                attacked: Tensor = named(module, task, seed)[name](one, x, batch.y.clone())
                return attacked

            def own(one: nn.Module, x: Tensor, seed: int, name: str = name) -> Tensor:
                attacked: Tensor = attacks[name](one, x, batch.y, keys=seeding.fold(batch.keys, "repeat", seed), accelerate=False)
                return attacked

            if name not in mine:
                mine[name] = outcome(model, task, batch, own, repeats)
            print(f"  {library} {name}", file=sys.stderr)
            yield row(name, library, mine[name], outcome(model, task, batch, theirs, repeats))


def row(name: str, library: str, our: Outcome, their: Outcome) -> dict[str, object]:
    """Accuracies in percent, and the difference with its 95 % interval over images."""
    apart = our.stands - their.stands
    error = 1.96 * float(apart.std()) / math.sqrt(len(apart)) if len(apart) > 1 else math.nan
    return {
        "attack": name,
        "library": library,
        "theirs leaves": f"{100 * float(their.stands.mean()):.1f}",
        "ours leaves": f"{100 * float(our.stands.mean()):.1f}",
        "difference": f"{100 * float(apart.mean()):+.1f} ± {100 * error:.1f}",
        "forwards, theirs": f"{their.passes:,.0f}",
        "ours": f"{our.passes:,.0f}",
        "beyond eps, theirs": f"{their.beyond:.0e}" if their.beyond > 0 else "0",
        "of ours": f"{our.beyond:.0e}" if our.beyond > 0 else "0",
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Our attacks beside other libraries' of the same name, at as many forward passes.")
    parser.add_argument("--model", metavar="NAME|PATH", help="a trained model (default: `small` with random weights)")
    parser.add_argument("--data", metavar="PATH", help="images to attack (default: the generated shapes)")
    parser.add_argument("--limit", type=positive, default=100, metavar="N", help="images (default: 100)")
    parser.add_argument("--norm", choices=("linf", "l2", "l1"), default="linf")
    parser.add_argument("--eps", type=radius, help="pixel units; 8/255 in linf, 0.5 in l2 and 12 in l1 where left out")
    parser.add_argument("--steps", type=positive, default=20, help="gradient steps (default: 20)")
    parser.add_argument("--queries", type=positive, default=200, help="of a search without gradients (default: 200)")
    parser.add_argument("--attacks", metavar="NAME,...", help="only these, by the names in the table")
    parser.add_argument("--repeats", type=positive, default=1, metavar="N", help="with other random numbers (default: 1)")
    parser.add_argument("--out", metavar="FILE", help="also write the numbers as JSON")
    return parser.parse_args(argv)


def run(wanted: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    threat = named_threat(wanted.norm, wanted.eps)
    model, batch, told = classified_correctly(wanted.model, wanted.data, wanted.limit)
    task = Task(threat, wanted.steps, wanted.queries, len(model.classes))
    libraries, missing = imported({name: package for name, (package, _) in LIBRARIES.items()})
    attacks = ours(task)
    for name in wanted.attacks.split(",") if wanted.attacks else ():
        if name not in attacks:
            raise unknown("attack", name, attacks)
    chosen = {name: attack for name, attack in attacks.items() if not wanted.attacks or name in wanted.attacks.split(",")}
    found = list(rows(model, task, batch, libraries, wanted.repeats, chosen))
    where = environment()
    print(f"Attacks of {wanted.steps} steps, {wanted.repeats} repeats, {threat}: {wanted.model or 'small, random weights'}")
    print(f"{told}; {described(where)}\n")
    if found:
        print(table(found))
    for library, why in missing.items():
        print(f"\n{library} is not here ({why})")
    if wanted.out:
        files.write_json(wanted.out, {"settings": vars(wanted), "environment": where, "rows": found})


def main(argv: Sequence[str] | None = None) -> int:
    return exit_code(lambda: run(parse(argv)))


if __name__ == "__main__":
    sys.exit(main())
