"""Adversarial images that are kept: what the attack returned, rounded within eps, and a folder that others can read."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from laws import every_norm, images, seeded
from measured import Across, X, cut, labelled, remembering
from oracles import halfway
from PIL import Image

from robustlab.attacks import FGSM, PGD
from robustlab.constraints import ThreatModel
from robustlab.data import open_dataset
from robustlab.errors import UserError
from robustlab.evaluation import evaluate, save_adversarial, saving
from robustlab.evaluation.adversarial import rounded
from robustlab.norms import L2
from robustlab.pixels import to_float, to_uint8

THREAT = ThreatModel(L2(), 0.3)
X8 = to_float(to_uint8(X))  # made of 8-bit values
NAMES = ("a/b", "c", *"defghijk"[:8])


@pytest.fixture
def kept(tiny_model):
    """A report that holds what two attacks returned, and what was asked of the first."""
    attack, calls = remembering(PGD(THREAT, steps=3))
    report = evaluate(tiny_model, (X8, labelled(tiny_model)), [attack, FGSM(THREAT)], batch_size=10, keep=True)
    return report, calls


def test_what_is_kept_is_what_the_attack_returned(kept, tiny_model):
    report, calls = kept
    name = report.attacks[0]
    found = report.adversarial[name]
    assert list(report.adversarial) == list(report.attacks) and len(found) == 18
    assert torch.equal(found.x_adv, torch.cat([call[3] for call in calls])) and torch.equal(found.x, torch.cat([call[0] for call in calls]))
    attacked = [record for record in report.records if record.attacks]
    assert found.index.tolist() == [r.index for r in attacked] and found.label.tolist() == [r.label for r in attacked]
    assert found.prediction_adv.tolist() == [r.attacks[name].prediction for r in attacked]
    assert found.distance.tolist() == [r.attacks[name].distance for r in attacked]
    with torch.no_grad():
        for x, classes, confidence in ((found.x, found.label, found.confidence), (found.x_adv, found.prediction_adv, found.confidence_adv)):
            torch.testing.assert_close(tiny_model(x).softmax(1).gather(1, classes[:, None])[:, 0], confidence)
        assert torch.equal(tiny_model(to_float(found.pixels_adv)).argmax(1), found.prediction_8bit)
    assert found.broken.tolist() == [r.broken_by is not None and r.attacks[name].prediction != r.label for r in attacked]


def test_keeping_changes_no_record_and_costs_nothing_where_nothing_is_kept(kept, tiny_model):
    calls = []
    tiny_model.register_forward_pre_hook(lambda module, args: calls.append(len(args[0])))
    report = evaluate(tiny_model, (X8, labelled(tiny_model)), [PGD(THREAT, steps=3), FGSM(THREAT)], batch_size=10)
    assert report == kept[0] and report.adversarial is None
    plain = len(calls)
    evaluate(tiny_model, (X8, labelled(tiny_model)), [PGD(THREAT, steps=3), FGSM(THREAT)], batch_size=10, keep=True)
    assert len(calls) == 2 * plain + 2 * 3, "one forward pass more for each attack and batch: of the 8-bit images"


@every_norm
@seeded
@given(eps=st.sampled_from([0.0, 1 / 255, 0.05, 0.3, 1.0]), seed=st.integers(0, 5))
def test_rounding_stays_within_eps_of_the_8_bit_original(norm, eps, seed):
    x = to_float(to_uint8(images(3, 3, 4, 4, seed=seed)))
    threat = ThreatModel(norm, eps)
    x_adv = threat.around(x).project(x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)))
    pixels, distance = rounded(x, x_adv, eps, norm)
    assert pixels.dtype == torch.uint8 and (distance <= eps).all()
    torch.testing.assert_close(distance, norm.measure((pixels.double() - to_uint8(x).double()) / 255), rtol=0, atol=1e-12)


def test_distances_after_rounding_are_from_the_true_original():
    x = X + 0.2 / 255 * (X < 0.5)
    pixels, distance = rounded(x, x, 0.5, L2())
    torch.testing.assert_close(distance, L2().measure(to_float(pixels).double() - x.double()), rtol=0, atol=1e-7)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def test_the_folder_holds_images_records_and_exact_floats(kept, tmp_path):
    report, _ = kept
    save_adversarial(report, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"PGD-3-L2-eps=0.3", "FGSM-L2-eps=0.3"}
    folder, found = tmp_path / "out" / "PGD-3-L2-eps=0.3", report.adversarial[report.attacks[0]]
    records = lines(folder)
    assert [record["index"] for record in records] == found.index.tolist()
    for row, record in enumerate(records):
        with Image.open(folder / record["file"]) as image:
            assert np.array_equal(np.array(image), found.pixels_adv[row].permute(1, 2, 0).numpy())
        assert record["distance_8bit"] <= 0.3 and record["prediction"] == record["label"] == int(found.label[row])
        assert record["prediction_adv"] == int(found.prediction_adv[row]) and 0 < record["confidence_adv"] <= 1
        assert (
            record["distance_8bit"] == float(L2().measure((found.pixels_adv[row].double() - to_uint8(found.x[row]).double())[None])) / 255
        )
    exact = open_dataset(folder, split="test")
    assert torch.equal(exact.pixels, found.x_adv) and torch.equal(exact.labels, found.label)
    assert len(open_dataset("folder", folder, "test")) == 18
    assert {path.name for path in folder.iterdir()} == {"records.jsonl", "test", "test.safetensors"}


def test_writing_batch_by_batch_gives_the_same_folder_and_keeps_nothing(kept, tiny_model, tmp_path):
    report, _ = kept
    report.save_adversarial(tmp_path / "at once")
    seen = []
    with saving(tmp_path / "in pieces") as save:
        streamed = evaluate(
            tiny_model,
            (X8, labelled(tiny_model)),
            [PGD(THREAT, steps=3), FGSM(THREAT)],
            batch_size=10,
            on_adversarial=lambda found: (save(found), seen.append(len(found))),
        )
    assert streamed == report and streamed.adversarial is None and len(seen) == 6 and max(seen) <= 10
    trees = [{path.relative_to(root): path.read_bytes() for path in root.rglob("*.*") if path.is_file()} for root in tmp_path.iterdir()]
    assert len(trees) == 2 and trees[0] == trees[1] and len(trees[0]) == 2 * (18 + 2)


def test_another_model_is_measured_on_saved_images(kept, tiny_model, tmp_path):
    """As a transfer attack; here the same model, which must answer as before."""
    report, _ = kept
    report.save_adversarial(tmp_path / "out")
    found = report.adversarial[report.attacks[0]]
    again = evaluate(tiny_model, open_dataset(tmp_path / "out" / "PGD-3-L2-eps=0.3", split="test"))
    assert [record.prediction for record in again.records] == found.prediction_adv.tolist()


def test_class_names_become_folders_that_are_safe(kept, tmp_path):
    found = replace(kept[0].adversarial[kept[0].attacks[0]], classes=NAMES)
    with saving(tmp_path / "out") as save:
        save(found)
    folder = tmp_path / "out" / "PGD-3-L2-eps=0.3"
    assert open_dataset(folder, split="test").classes == NAMES
    assert {path.name for path in (folder / "test").iterdir()} <= {"a_b-0", *NAMES[1:]}


def test_images_of_one_position_do_not_overwrite_each_other(kept, tmp_path):
    found = kept[0].adversarial[kept[0].attacks[0]]
    with saving(tmp_path / "out") as save:
        save(found)
        save(found)
    records = lines(tmp_path / "out" / "PGD-3-L2-eps=0.3")
    assert len(records) == 36 == len({record["file"] for record in records})


def test_an_interruption_leaves_nothing(kept, tmp_path):
    with pytest.raises(KeyboardInterrupt), saving(tmp_path / "out") as save:
        save(kept[0].adversarial[kept[0].attacks[0]])
        raise KeyboardInterrupt
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_is_refused(kept, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(UserError, match="is not an empty folder"):
        kept[0].save_adversarial(tmp_path / "full")
    found = kept[0].adversarial[kept[0].attacks[0]]
    with pytest.raises(UserError, match="only images of 1 or 3 channels can be written as PNG files"), saving(tmp_path / "two") as save:
        save(replace(found, x=found.x[:, :2]))
    assert not (tmp_path / "two").exists()


def test_grey_images_are_written_grey(kept, tmp_path):
    found = kept[0].adversarial[kept[0].attacks[0]]
    with saving(tmp_path / "out") as save:
        save(replace(found, x=found.x[:, :1], x_adv=found.x_adv[:, :1], pixels_adv=found.pixels_adv[:, :1]))
    folder = tmp_path / "out" / "PGD-3-L2-eps=0.3"
    with Image.open(folder / lines(folder)[0]["file"]) as image:
        assert image.mode == "L" and np.array_equal(np.array(image), found.pixels_adv[0, 0].numpy())
    assert open_dataset(folder, split="test").shape == (1, 8, 8)


@every_norm
def test_nearest_images_are_rounded_no_farther_away(norm):
    x = to_float(to_uint8(0.45 + images(24, 27) / 10)).double()
    model, y = halfway(x)
    report = evaluate(model, cut(x, y), Across(norm), keep=True)
    found = report.adversarial[str(Across(norm))]
    assert len(found) == 24 and found.broken.all() and (found.distance_8bit <= found.distance).all()
    assert repr(found) == f"across ({type(norm).__name__}): 24 images attacked, 24 of them no longer classified as their label"
