"""What the results of attacks tell about the attacks: AutoAttack's limit for Square, PGD beside Auto-PGD."""

from __future__ import annotations

import pytest

from robustlab.evaluation import after_attacks
from robustlab.evaluation.report import Attacked, Record


def records(n: int, **broken: range) -> list[Record]:
    """``n`` images that are right, and by attack which of them it broke."""
    names = {name: name.replace("_", "-") for name in broken}
    return [Record(i, 0, 0, {names[name]: Attacked(int(i in those), 0.1) for name, those in broken.items()}) for i in range(n)]


@pytest.mark.parametrize(("beyond", "told"), [(0, False), (2, False), (3, True), (50, True)])
def test_square_beyond_two_in_a_thousand_is_told(beyond, told):
    found = after_attacks(records(1000, APGD_CE=range(300), Square=range(100, 300 + beyond)))
    assert [one.name for one in found] == ["square"] * told
    assert not told or found[0].numbers == {"images": beyond, "n": 1000, "share": beyond / 1000}


def test_square_alone_is_compared_with_nothing():
    assert after_attacks(records(100, Square=range(50))) == ()
    assert after_attacks([]) == ()


def test_square_that_ran_only_where_the_others_failed_is_judged_alike():
    whole = records(100, APGD_CE=range(30), Square=range(40))
    cascade = [Record(r.index, 0, 0, dict(list(r.attacks.items())[: 1 if r.index < 30 else 2])) for r in whole]
    assert after_attacks(cascade) == after_attacks(whole) != ()


@pytest.mark.parametrize(
    ("pgd", "told"), [(range(60), False), (range(55), False), (range(40), True), (range(0), True), (range(100), False)]
)
def test_pgd_far_above_auto_pgd_is_told(pgd, told):
    found = after_attacks(records(100, PGD_20=pgd, APGD_CE=range(60)))
    assert [one.name for one in found] == ["pgd-above-apgd"] * told
    assert not told or found[0].numbers["missed"] == 60 - len(pgd)


def test_what_was_counted_elsewhere_is_told():
    found = after_attacks(records(10, PGD_20=range(3)), silent={"PGD-20": 2, "FGSM": 0}, zero_gradients={"PGD-20": 4})
    assert [(one.name, one.numbers["images"]) for one in found] == [("silent-success", 2), ("zero-gradient", 4)]
