"""Laws of evaluation: the model alone judges, on the very images that came back, and every example is accounted for."""

from __future__ import annotations

import json
import math

import pytest
import torch
from laws import restless, untouched
from measured import INDEX, X, cut, labelled, remembering
from oracles import Counting
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from robustlab import files
from robustlab.attacks import PGD
from robustlab.constraints import ThreatModel
from robustlab.data.imageset import ImageSet
from robustlab.errors import UserError
from robustlab.evaluation import Attacked, Rate, Record, curve, evaluate, predictions
from robustlab.models.accelerate import accelerate
from robustlab.models.classifier import Classifier
from robustlab.norms import L2, Linf
from robustlab.seeding import example_keys

THREAT = ThreatModel(Linf(), 0.02)


# Records.


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

    def never(x: Tensor) -> Tensor:
        raise AssertionError("the model was asked about no images")

    assert evaluate(never, (X[:0], [])).records == ()


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


# Any data, any attack, any model.


def test_data_in_any_form_give_the_same_report(tiny_model):
    y, attack = labelled(tiny_model), PGD(THREAT, steps=2)
    expected = [(r.index, r.label, r.prediction, r.broken_by) for r in evaluate(tiny_model, [(X, y)], attack).records]
    singles = [(x, int(label)) for x, label in zip(X, y, strict=True)]
    for data in ((X, y), TensorDataset(X, y), DataLoader(TensorDataset(X, y), batch_size=7), singles):
        found = evaluate(tiny_model, data, attack, batch_size=5)
        assert [(r.index, r.label, r.prediction, r.broken_by) for r in found.records] == expected


def test_shuffling_a_loader_changes_nothing_of_an_image(tiny_model):
    """One step from a random start: what is found depends on the start."""
    x, y = X.double(), labelled(tiny_model)
    attack, calls = remembering(PGD(ThreatModel(L2(), 0.3), steps=1))
    found = []
    for _ in range(2):
        calls.clear()
        evaluate(tiny_model, DataLoader(TensorDataset(x, y), batch_size=7, shuffle=True), [attack])
        pairs = [pair for x, _, _, x_adv in calls for pair in zip(x, x_adv, strict=True)]
        found.append({before.numpy().tobytes(): after for before, after in pairs})
    assert found[0].keys() == found[1].keys() and len(found[0]) == 18
    assert all(torch.allclose(found[0][image], found[1][image], atol=1e-6) for image in found[0])


def test_attacks_come_alone_by_name_or_as_a_list(tiny_model):
    data = (X, labelled(tiny_model))
    alone = evaluate(tiny_model, data, PGD(THREAT, steps=20))
    assert evaluate(tiny_model, data, "pgd-20", threat=THREAT) == alone == evaluate(tiny_model, data, [PGD(THREAT, steps=20)])
    several = evaluate(tiny_model, data, ["fgsm", PGD(THREAT, steps=3)], threat=THREAT)
    assert len(several.attacks) == 2 and several.attacks[1] == "PGD-3 (Linf eps=0.02)"


@pytest.mark.parametrize(
    ("attacks", "sentence"),
    [
        ("pgd-20", r"the attack 'pgd-20' needs a threat model, such as threat=ThreatModel\(L2\(\), 0.5\)"),
        ([PGD], "an attack is a name or an object with a threat model, such as .*, got PGD"),
        ([THREAT], "an attack is a name or an object with a threat model, .*, got ThreatModel"),
        ([lambda model, x, y: x], "an attack is a name or an object with a threat model, .*, got function"),
    ],
)
def test_what_is_no_attack_is_refused_before_anything_runs(attacks, sentence):
    def never():
        raise AssertionError("the images were read")
        yield

    with pytest.raises(UserError, match=sentence):
        evaluate(Counting(27), never(), attacks)


def test_an_unknown_name_is_refused_with_the_nearest(tiny_model):
    with pytest.raises(UserError, match="unknown attack 'pdg-20'. Did you mean 'pgd-20'"):
        evaluate(tiny_model, [], "pdg-20", threat=THREAT)


def test_any_function_is_a_model(tiny_model):
    data = (X, labelled(tiny_model))
    expected = evaluate(tiny_model, data, PGD(THREAT, steps=2))
    assert evaluate(lambda x: tiny_model(x), data, PGD(THREAT, steps=2)) == expected
    assert curve(lambda x: tiny_model(x), data, PGD(THREAT, steps=2), [0.0, 0.02]) == curve(
        tiny_model, data, PGD(THREAT, steps=2), [0.0, 0.02]
    )


def test_a_model_may_write_over_its_images(tiny_model):
    def careful(x: Tensor) -> Tensor:
        return tiny_model(x if x.requires_grad else x - 0.1)

    def careless(x: Tensor) -> Tensor:
        return tiny_model(x if x.requires_grad else x.sub_(0.1))

    attack = PGD(THREAT, steps=1, keep_best=False)  # which looks at its images with gradients only
    given, y = X.clone(), predictions(careful, X)
    found = evaluate(careless, [(given, y)], attack, keep=True)
    assert torch.equal(given, X) and found == evaluate(careful, [(given, y)], attack)


def test_a_device_that_is_not_the_model_s_is_refused(tiny_model):
    with pytest.raises(UserError, match=r"the model is on cpu, not on meta: move it with model.to\('meta'\)"):
        evaluate(tiny_model, (X, labelled(tiny_model)), device="meta")
    assert evaluate(tiny_model, (X, labelled(tiny_model)), device="cpu").clean == Rate(18, 24)


NAMES = ("cat", "dog", "owl")


def named_model(names: tuple[str, ...] | None) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier(nn.Flatten(), nn.Linear(192, 3), mean=[0.5] * 3, std=[0.25] * 3, classes=names).eval()


def test_labels_are_matched_by_the_names_of_classes():
    """The same images, with their classes numbered in another order."""
    model = named_model(NAMES)
    y = model(X).argmax(1)
    right, other = ImageSet(X, y, NAMES, "set"), ImageSet(X, 2 - y, NAMES[::-1], "turned")
    for images_ in (right, other):
        report = evaluate(model, images_, PGD(THREAT, steps=1))
        assert report.clean == Rate(24, 24) and [r.label for r in report.records] == y.tolist() and report.classes == NAMES
        assert curve(model, images_, PGD(THREAT, steps=1), [0.0])[0.0] == Rate(24, 24)
    assert evaluate(model, (X, y)).clean == Rate(24, 24) and evaluate(model, (X, y)).classes == NAMES
    assert evaluate(model, ImageSet(X, y, ("0", "1", "2"), "numbers")).clean == Rate(24, 24), "numbers are the model's"
    assert evaluate(named_model(None), right).clean == Rate(24, 24) and evaluate(named_model(None), right).classes == NAMES
    assert evaluate(nn.Sequential(model), other).clean.count < 24, "of another network nothing is known"
    with pytest.raises(UserError, match="the model does not know all classes of set: unknown class 'wolf'"):
        evaluate(model, ImageSet(X, y, ("cat", "dog", "wolf"), "set"))


def test_progress_is_shown_unless_somebody_else_shows_it(tiny_model, monkeypatch, capsys):
    monkeypatch.setattr("robustlab.progress.EVERY", 0.0)
    data = (X, labelled(tiny_model))
    evaluate(tiny_model, data, PGD(THREAT, steps=1), batch_size=12)
    shown = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0] for line in shown] == ["PGD-1", "PGD-1"] and "24 of 24 img" in shown[1]
    for quiet in ({"progress": False}, {"on_batch": lambda records: None}):
        evaluate(tiny_model, data, PGD(THREAT, steps=1), **quiet)
    curve(tiny_model, data, PGD(THREAT, steps=1), [0.0], on_batch=lambda n: None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("attack", [(), "pgd"])
def test_one_output_is_refused_with_and_without_an_attack(attack):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(27, 1))
    with pytest.raises(UserError, match=r"one number for each image.*torch.cat\(\[-z, z\], 1\)"):
        evaluate(model, (torch.rand(4, 27), torch.zeros(4, dtype=torch.int64)), attack, threat=ThreatModel(L2(), 1.0))
