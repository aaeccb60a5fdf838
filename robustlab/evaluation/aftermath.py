"""What only the results of attacks tell: which one should have been the stronger, and was not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import product

from robustlab.evaluation.findings import Finding, short
from robustlab.evaluation.report import Record

FAR = 0.1  # of all images: published models differ by .01 to .05


def after_attacks(
    records: Iterable[Record],
    *,
    silent: Mapping[str, int] | None = None,
    zero_gradients: Mapping[str, int] | None = None,
) -> tuple[Finding, ...]:
    """What only the results of attacks tell: which attack should have been the stronger one, and was not.

    Args:
        records: of an evaluation, ``report.records``. Attacks are known by their names: Square's begins with ``Square``.
        silent: by attack, how many images were broken on the way and came back unbroken, where that was counted.
        zero_gradients: by attack, at how many images it met a gradient of exactly zero, where that was counted.
    """
    kept = tuple(records)
    found = [*_square(kept), *_pgd_above_apgd(kept)] if kept else []
    for attack, count in (silent or {}).items():
        if count:
            sentence = f"{attack} met an adversarial image for {count} images and did not return it: count them as broken"
            found.append(Finding("silent-success", sentence, {"attack": attack, "images": count, "n": len(kept)}))
    for attack, count in (zero_gradients or {}).items():
        if count:
            sentence = (
                f"{attack} met a gradient of exactly zero at {count} images: they may count as robust without having been attacked; use "
                "another loss or an attack without gradients"
            )
            found.append(Finding("zero-gradient", sentence, {"attack": attack, "images": count, "n": len(kept)}))
    return tuple(found)


def _square(records: tuple[Record, ...]) -> Iterator[Finding]:
    """More than .2 % of the images that every white-box attack left and Square broke: AutoAttack's limit."""

    def hidden(record: Record) -> bool:
        broke = {found.by or name: found.prediction != record.label for name, found in record.attacks.items()}
        squares = [fooled for name, fooled in broke.items() if _is(name, "square")]
        others = [fooled for name, fooled in broke.items() if not _is(name, "square")]
        tried = bool(others) or any(found.by for found in record.attacks.values())  # in a line-up Square comes behind others
        return any(squares) and tried and not any(others)

    count = sum(hidden(record) for record in records)
    if count > 0.002 * len(records):
        yield Finding(
            "square",
            f"Square, which uses no gradient, broke {count} of {len(records)} images that every white-box attack left: gradients are "
            "masked, so the robust accuracy is an overestimate; attack with more queries, and look for what hides the gradient",
            {"images": count, "n": len(records), "share": short(count / len(records))},
        )


def _pgd_above_apgd(records: tuple[Record, ...]) -> Iterator[Finding]:
    """An accuracy under PGD far above that under Auto-PGD, of the images that both attacked."""
    names = sorted({name for record in records for name in record.attacks})
    for weak, strong in product((n for n in names if _is(n, "pgd-")), [n for n in names if _is(n, "apgd-")]):
        both = [record for record in records if {weak, strong} <= record.attacks.keys()]
        fooled = [tuple(record.attacks[name].prediction != record.label for name in (weak, strong)) for record in both]
        missed, only = fooled.count((False, True)), fooled.count((True, False))
        if missed - only >= max(FAR * len(records), 3 * (missed + only) ** 0.5, 1):
            yield Finding(
                "pgd-above-apgd",
                f"{strong} broke {missed} images that {weak} left, {only} the other way round: the step size, loss or number of steps of "
                "the second is wrong for this model, so do not report it alone",
                {"pgd": weak, "apgd": strong, "missed": missed, "only_pgd": only, "n": len(records)},
            )
            return


def _is(name: str, kind: str) -> bool:
    return name.lower().startswith(kind)
