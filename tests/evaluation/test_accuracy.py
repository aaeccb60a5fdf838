"""Laws of evaluation: the model alone judges, on the very images that came back, and every example is accounted for."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace

import pytest
import torch
from laws import every_norm, images, restless, untouched
from oracles import Counting, halfway
from torch import Tensor, nn

from robustlab import files
from robustlab.attacks import FGSM, PGD
from robustlab.constraints import ThreatModel
from robustlab.errors import UserError
from robustlab.evaluation import Rate, Record, Report, curve, evaluate, predictions
from robustlab.evaluation.accuracy import Attacked
from robustlab.models.accelerate import accelerate
from robustlab.norms import L1, L2, Linf
from robustlab.seeding import example_keys

THREAT = ThreatModel(Linf(), 0.02)
X = images(24, 3, 8, 8)
INDEX = torch.arange(100, 124)


@dataclass(frozen=True)
class Batch:
    x: Tensor
    y: Tensor
    index: Tensor
    keys: Tensor


def cut(x: Tensor, y: Tensor, size: int = 10) -> list[Batch]:
    index, keys = INDEX[: len(x)], example_keys(0, INDEX[: len(x)])
    return [Batch(*columns) for columns in zip(x.split(size), y.split(size), index.split(size), keys.split(size), strict=True)]


def labelled(model: nn.Module) -> Tensor:
    """The model's predictions, every fourth one made wrong."""
    with torch.no_grad():
        y = model.eval()(X).argmax(1)
    return torch.where(torch.arange(len(X)) % 4 == 3, (y + 1) % 10, y)


# Rates.


PUBLISHED = {(8, 10): (0.4902, 0.9433), (0, 10): (0.0, 0.2775), (10, 10): (0.7225, 1.0), (50, 100): (0.4038, 0.5962)}


@pytest.mark.parametrize("counted, ends", PUBLISHED.items())
def test_the_interval_against_published_numbers(counted, ends):
    assert Rate(*counted).interval == pytest.approx(ends, abs=5e-5)


@pytest.mark.parametrize("n", [1, 7, 1000, 10_000])
def test_the_interval_ends_where_the_count_is_just_as_likely_as_five_percent_allow(n):
    """Wilson's definition: at either end ``p``, the share found lies 1.96 of its standard deviations ``sqrt(p (1 - p) / n)`` away."""
    for count in {0, 1, n // 3, n - 1, n}:
        rate = Rate(count, n)
        for p in rate.interval:
            assert (rate.value - p) ** 2 == pytest.approx(1.959963984540054**2 * p * (1 - p) / n, rel=1e-6, abs=1e-12)
        assert 0 <= rate.interval[0] <= rate.value <= rate.interval[1] <= 1


def test_no_examples_say_nothing():
    assert Rate(0, 0).value == 0 and Rate(0, 0).interval == (0, 1)


def test_a_rate_prints_its_interval_and_its_number():
    assert str(Rate(8, 10)) == "80.00 % [49.02, 94.33] (n = 10)"
    assert Rate(1, 4).to_json() == {"accuracy": 0.25, "interval95": list(Rate(1, 4).interval), "n": 4}


# Records.


def remembering(attack: PGD):
    """The attack, with a note of what it was asked and what it gave back."""
    calls = []

    class Remembering:
        threat = attack.threat

        def __call__(self, model, x, y, *, keys=None, fast_model=None):
            x_adv = attack(model, x, y, keys=keys, fast_model=fast_model)
            calls.append((x, y, keys, x_adv))
            return x_adv

        def __str__(self) -> str:
            return str(attack)

    return Remembering(), calls


@pytest.mark.parametrize("fast_model", [False, True])
def test_records_agree_with_an_independent_forward_pass(fast_model, tiny_model):
    y = labelled(tiny_model)
    attack, calls = remembering(PGD(THREAT, steps=2))
    report = evaluate(tiny_model, cut(X, y), [attack], fast_model=accelerate(tiny_model, dtype=torch.bfloat16) if fast_model else None)
    clean = tiny_model(X).argmax(1)
    assert [r.index for r in report.records] == INDEX.tolist()
    assert [r.label for r in report.records] == y.tolist()
    assert [r.prediction for r in report.records] == clean.tolist()
    attacked = [r for r in report.records if r.attacks]
    x, x_adv = torch.cat([call[0] for call in calls]), torch.cat([call[3] for call in calls])
    found = [r.attacks[str(attack)] for r in attacked]
    assert [f.prediction for f in found] == tiny_model(x_adv).argmax(1).tolist()
    assert [f.distance for f in found] == (x_adv.double() - x.double()).abs().flatten(1).amax(1).tolist()
    standing = sum(f.prediction == r.label for f, r in zip(found, attacked, strict=True))
    assert 0 < standing < len(attacked)
    assert report.under(str(attack)) == Rate(standing, 24) and report.clean == Rate(18, 24)


def test_what_is_misclassified_already_is_not_attacked(tiny_model):
    y = labelled(tiny_model)
    attack, calls = remembering(PGD(THREAT, steps=1))
    report = evaluate(tiny_model, cut(X, y), [attack])
    right = torch.arange(24) % 4 != 3
    assert torch.equal(torch.cat([call[0] for call in calls]), X[right])
    assert torch.equal(torch.cat([call[1] for call in calls]), y[right])
    assert torch.equal(torch.cat([call[2] for call in calls]), example_keys(0, INDEX)[right])
    assert [bool(r.attacks) for r in report.records] == right.tolist()
    assert all(r.broken_by == "clean" for r in report.records if not r.attacks)


def test_a_batch_without_a_correct_prediction_is_not_attacked_at_all(tiny_model):
    wrong = (tiny_model(X).argmax(1) + 1) % 10
    attack, calls = remembering(PGD(THREAT, steps=1))
    assert evaluate(tiny_model, cut(X, wrong), [attack]).clean == Rate(0, 24) and not calls


def test_the_batch_size_changes_no_record(tiny_model):
    y, attack = labelled(tiny_model), PGD(THREAT, steps=3, restarts=2)
    reports = [evaluate(tiny_model.double(), cut(X.double(), y, size), [attack]) for size in (24, 7, 1)]
    for report in reports[1:]:
        assert [r.broken_by for r in report.records] == [r.broken_by for r in reports[0].records]


def test_two_attacks_and_the_worst_of_them(tiny_model):
    y = labelled(tiny_model)
    weak, strong = PGD(THREAT, steps=0), PGD(ThreatModel(L2(), 0.3), steps=3)
    report = evaluate(tiny_model, cut(X, y), [weak, strong])
    standing = [r for r in report.records if r.prediction == r.label and all(a.prediction == r.label for a in r.attacks.values())]
    assert report.worst == Rate(len(standing), 24)
    assert report.worst.count <= min(report.under(str(weak)).count, report.under(str(strong)).count) <= report.clean.count
    assert list(report.rates()) == ["clean", str(weak), str(strong), f"worst of {weak}, {strong}"]
    assert list(evaluate(tiny_model, cut(X, y), [weak]).rates()) == ["clean", str(weak)]


def test_the_first_attack_that_broke_an_example_is_named():
    def attacked(prediction):
        return Record(0, 1, 1, {"first": Attacked(1, 0.5), "second": Attacked(prediction, 0.5)})

    assert attacked(1).broken_by is None and attacked(2).broken_by == "second"
    assert Record(0, 1, 3, {}).broken_by == "clean"


def test_a_report_is_json_and_comes_back(tiny_model, tmp_path):
    report = evaluate(tiny_model, cut(X, labelled(tiny_model)), [PGD(THREAT, steps=2)])
    files.write_json(tmp_path / "records.json", [r.to_json() for r in report.records])
    back = json.loads((tmp_path / "records.json").read_text())
    for read, record in zip(back, report.records, strict=True):
        assert read.pop("broken_by") == record.broken_by
        attacks = {name: Attacked(**found) for name, found in read.pop("attacks").items()}
        assert Record(**read, attacks=attacks).to_json() == record.to_json()
    assert json.loads(json.dumps({name: rate.to_json() for name, rate in report.rates().items()}))


# Who judges.


class Liar(nn.Module):
    """A stand-in that sees an error everywhere, and whose gradients lead nowhere."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.pad(1e-9 * x.flatten(1).sum(1, keepdim=True), (9, 0)) + torch.tensor([0.0] * 9 + [1.0])


@pytest.mark.parametrize("restarts", [1, 3])
def test_a_stand_in_that_lies_creates_no_success(restarts, tiny_model):
    with torch.no_grad():
        y = tiny_model(X).argmax(1)
    x, y = X[y != 9], y[y != 9]
    attack, calls = remembering(PGD(ThreatModel(Linf(), 1e-6), steps=2, restarts=restarts))
    report = evaluate(tiny_model, cut(x, y), [attack], fast_model=Liar())
    assert report.under(str(attack)) == Rate(len(x), len(x))
    assert (Liar()(torch.cat([call[3] for call in calls])).argmax(1) != y).all(), "the stand-in believed in every one"


class Cheat:
    """An attack that gives back what it should not."""

    threat = ThreatModel(Linf(), 0.1)

    def __init__(self, change) -> None:
        self.change = change

    def __call__(self, model, x, y, *, keys=None, fast_model=None):
        return self.change(x)

    def __str__(self) -> str:
        return "cheat"


@pytest.mark.parametrize(
    "change, sentence",
    [
        (lambda x: (x + 0.2).clamp(0, 1), "cheat returned an image at distance 0.2.*, farther than eps = 0.1"),
        (lambda x: torch.where(x < 0.5, x + math.nextafter(0.1, 1), x), "farther than eps"),
        (lambda x: x - 0.09, r"images must lie in \[0, 1\]"),
        (lambda x: x * torch.nan, "found NaN"),
    ],
)
def test_an_attack_that_leaves_its_threat_model_is_refused_without_tolerance(change, sentence, tiny_model):
    x = X.double()
    with pytest.raises(UserError, match=sentence):
        evaluate(tiny_model.double(), cut(x, tiny_model(x).argmax(1)), [Cheat(change)])


def test_the_model_is_judged_in_evaluation_mode_and_left_as_it_was(tiny_model):
    y, attack = labelled(tiny_model), PGD(THREAT, steps=1)
    expected = evaluate(tiny_model, cut(X, y), [attack]), curve(tiny_model, lambda: cut(X, y), attack, [0.0, 0.01])
    with untouched(restless(tiny_model), X, y):
        assert evaluate(tiny_model, cut(X, y), [attack]) == expected[0]
        assert curve(tiny_model, lambda: cut(X, y), attack, [0.0, 0.01]) == expected[1]


def test_progress_is_told_batch_by_batch(tiny_model):
    told = []
    report = evaluate(tiny_model, cut(X, labelled(tiny_model), 9), [PGD(THREAT, steps=1)], on_batch=told.append)
    assert [len(records) for records in told] == [9, 9, 6] and sum(told, []) == list(report.records)


def test_no_batches_and_empty_batches(tiny_model):
    assert evaluate(tiny_model, [], [PGD(THREAT)]).rates()["clean"] == Rate(0, 0)
    assert evaluate(tiny_model, cut(X[:0], labelled(tiny_model)[:0]), [PGD(THREAT)]).records == ()
    assert predictions(tiny_model, X[:0]).shape == (0,)


BAD = {
    "0-255": (X * 255, torch.zeros(24, dtype=torch.int64), "divide by 255"),
    "label too high": (X, torch.full((24,), 10), "labels go up to 10, but the model has 10 classes"),
    "label negative": (X, torch.full((24,), -1), "class indices from 0"),
}


@pytest.mark.parametrize("x, y, sentence", BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused(x, y, sentence, tiny_model):
    for run in (
        lambda: evaluate(tiny_model, cut(x, y), [PGD(THREAT, steps=1)]),
        lambda: curve(tiny_model, lambda: cut(x, y), PGD(THREAT, steps=1), [0.0]),
    ):
        with untouched(tiny_model), pytest.raises(UserError, match=sentence):
            run()


@pytest.mark.parametrize("label", [0, 1])
def test_logits_that_are_no_numbers_count_neither_as_right_nor_as_wrong(label, tiny_model):
    """argmax takes NaN for the largest, or class 0: such an example would be robust or broken depending on its label."""
    tiny_model[-1].bias.data[0] = torch.nan
    with pytest.raises(UserError, match="NaN logits for 10 of 10 images"):
        evaluate(tiny_model, cut(X, torch.full((24,), label)))


def test_numbers_must_have_different_names(tiny_model):
    with pytest.raises(UserError, match="two attacks have the same name: PGD-1 .*, PGD-1"):
        evaluate(tiny_model, cut(X, labelled(tiny_model)), [PGD(THREAT, steps=1), PGD(THREAT, steps=1, momentum=1.0)])


# Curves.

RADII = [0.3, 0.0, 0.01, 0.05, 0.1, 0.05]


@every_norm
def test_on_a_linear_model_the_curve_is_known(norm):
    x = 0.45 + images(24, 27, dtype=torch.float64) / 10
    model, y = halfway(x)
    single = PGD(ThreatModel(norm, 1.0), steps=1, random_start=False)
    found = curve(model, lambda: cut(x, y), single, RADII)
    with torch.no_grad():
        distance = model.distance(x, norm)
    assert found == {eps: Rate(int((distance > eps).sum()), 24) for eps in sorted(set(RADII))}
    assert list(found) == sorted(set(RADII)) and len({rate.count for rate in found.values()}) > 1
    for eps in sorted(set(RADII))[1:]:
        attack = replace(single, threat=ThreatModel(norm, eps))
        assert evaluate(model, cut(x, y), [attack]).under(str(attack)) == found[eps]


def test_a_curve_starts_at_the_clean_accuracy_and_never_rises(tiny_model):
    y = labelled(tiny_model)
    found = curve(tiny_model, lambda: cut(X, y), PGD(THREAT, steps=2), [0.0, 0.005, 0.01, 0.02, 0.05])
    counts = [rate.count for rate in found.values()]
    assert counts[0] == 18 and counts == sorted(counts, reverse=True) and counts[-1] < 18
    assert all(rate.n == 24 for rate in found.values())


def test_what_is_broken_is_not_attacked_again():
    x, model = images(12, 27), Counting(27)
    y = model(x).argmax(1)
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    found = curve(model, lambda: cut(x, y, 12), FGSM(ThreatModel(Linf(), 0.1)), [0.0, 0.01, 0.05, 0.1])
    alive = [rate.count for rate in found.values()]
    assert seen == [12] + [n for n in alive[:-1] for _ in range(2)], "once clean, then a step and a judgement of those alive"


@pytest.mark.parametrize("radius", [-0.1, math.nan, math.inf])
def test_radii_are_checked_before_anything_runs(radius):
    def never():
        raise AssertionError("the images were read")

    with pytest.raises(UserError, match="eps must be a finite number >= 0"):
        curve(Counting(27), never, PGD(ThreatModel(L1(), 1.0)), [0.1, radius])


def test_an_empty_report():
    assert Report(("PGD",), ()).rates()["PGD"] == Rate(0, 0)
