"""``robustlab evaluate``: its numbers are those of the library, every one with its attack's name, and mistakes are told in a sentence."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from killing import Killed, dying
from PIL import Image

from robustlab.attacks import PGD, named_attack
from robustlab.commands import settings
from robustlab.commands import train as command
from robustlab.commands.flags import parse
from robustlab.constraints import ThreatModel
from robustlab.data.batches import Batches
from robustlab.data.catalog import open_dataset
from robustlab.evaluation import evaluate
from robustlab.models.zoo import load
from robustlab.norms import L2, Linf
from robustlab.reports import measurement
from robustlab.reports.measurement import Measuring

LIGHT = ["--device", "cpu", "--threads", "1", "--workers", "0"]
FEW = ["--steps", "3", "--norm", "linf", "--eps", "16/255", *LIGHT]
ATTACK = PGD(ThreatModel(Linf(), 16 / 255), steps=3)


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a trained model, right on most test images and fooled on some."""
    out = tmp_path_factory.mktemp("runs") / "run"
    words = ["--arch", "mlp", "--epochs", "3", "--batch-size", "16", "--lr", "0.02", "--no-amp", "--no-test", *LIGHT]
    command.run(parse(settings.Train, [*words, "--data", str(data), "--out", str(out)], "train"))
    return out


@pytest.fixture(scope="module")
def expected(run: Path, data: Path) -> Any:
    """What the library finds."""
    batches = Batches(open_dataset(None, data, "test"), 250, seed=0)
    return evaluate(load(run / "model.json"), batches.epoch(0), [ATTACK])


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]


def test_it_begins_without_large_packages_that_it_does_not_use(run: Path, data: Path) -> None:
    words = ["evaluate", "--model", str(run / "model.json"), "--data", str(data), *FEW]
    code = f"import sys; from robustlab.commands import main; assert main({words!r}) == 0; print('imported', *sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    imported = set(told.stdout.partition("imported")[2].split())
    assert "torch" in imported, told.stderr
    assert not imported & {"torchvision", "sympy", "torch._dynamo", "scipy", "timm", "networkx"}


def test_numbers_are_the_library_s_and_carry_their_attack_s_name(call, run, data, expected) -> None:
    told = call("evaluate", "--model", run / "model.json", "--data", data, *FEW)
    assert told.code == 0 and told.err == ""
    assert 0 < expected.under(str(ATTACK)).count < expected.clean.count
    lines = [re.split(r"\s{2,}", line.strip()) for line in told.out.splitlines()]
    assert lines[0] == [f"{run / 'model.json'} on test (test)"]
    assert lines[1:3] == [["clean", str(expected.clean)], ["PGD-3 (Linf eps=0.06275)", str(expected.under(str(ATTACK)))]]
    assert lines[3:] == [[expected.headline]] and expected.headline.endswith("(upper bound, PGD-3 only)")


def test_what_is_written_can_be_counted_again(call, run, data, expected, tmp_path) -> None:
    out = tmp_path / "report"
    assert call("evaluate", "--model", run / "model.json", "--data", data, *FEW, "--curve", "0.5,0,8/255", "--out", out).code == 0
    assert {path.name for path in out.iterdir()} == {"records.jsonl", "report.json", "examples.png", "curve.json", "curve.png"}
    report = json.loads((out / "report.json").read_text())
    assert report["accuracies"] == {name: rate.to_json() for name, rate in expected.rates().items()}
    assert report["settings"]["attack"]["steps"] == 3 and report["settings"]["threat"]["eps"] == 16 / 255
    found = records(out)
    assert [record["index"] for record in found] == list(range(20))
    assert sum(record["prediction"] == record["label"] for record in found) == expected.clean.count
    assert sum(record["broken_by"] is None for record in found) == expected.under(str(ATTACK)).count
    distances = [attacked["distance"] for record in found for attacked in record["attacks"].values()]
    assert len(distances) == expected.clean.count and max(distances) <= 16 / 255

    points = json.loads((out / "curve.json").read_text())["points"]
    assert [point["eps"] for point in points] == [0, 8 / 255, 0.5]
    assert points[0]["accuracy"] == expected.clean.value
    assert points[0]["accuracy"] >= points[1]["accuracy"] >= points[2]["accuracy"]
    for name in ("curve.png", "examples.png"):
        with Image.open(out / name) as image:
            assert image.size > (50, 50)


@pytest.mark.parametrize("change", [["--batch-size", "7"], ["--amp"], ["--workers", "1"]], ids=" ".join)
def test_numbers_do_not_depend_on_how_they_are_computed(call, run, data, expected, tmp_path, change: list[str]) -> None:
    assert call("evaluate", "--model", run / "model.json", "--data", data, *FEW, *change, "--out", tmp_path / "out").code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["accuracies"]["clean"] == expected.clean.to_json()
    if "--amp" not in change:
        assert report["accuracies"][str(ATTACK)] == expected.under(str(ATTACK)).to_json()


def test_restarts_break_at_least_as_much(call, run, data, tmp_path) -> None:
    alive = []
    for restarts in ("1", "3"):
        out = tmp_path / restarts
        assert call("evaluate", "--model", run / "model.json", "--data", data, *FEW, "--restarts", restarts, "--out", out).code == 0
        alive.append({record["index"] for record in records(out) if record["broken_by"] is None})
    assert alive[1] <= alive[0]
    assert "PGD-3x3 (Linf eps=0.06275)" in json.loads((tmp_path / "3" / "report.json").read_text())["accuracies"]


def test_checkpoints_of_a_run_and_their_released_form_are_the_same_model(call, run, data) -> None:
    told = [call("evaluate", "--model", run / name, "--data", data, *FEW) for name in ("best.pt", "model.safetensors", "model.json")]
    numbers = {tuple(one.out.splitlines()[1:]) for one in told}
    assert len(numbers) == 1 and all(one.code == 0 for one in told)


def test_several_models_are_compared_on_the_same_images(call, run, data, tmp_path) -> None:
    out = tmp_path / "out"
    models = f"{run / 'model.json'},{run / 'last.pt'}"
    told = call("evaluate", "--model", models, "--data", data, *FEW, "--curve", "0,0.1", "--out", out)
    assert told.code == 0 and told.out.count(" on test (test)") == 2
    assert {path.name for path in out.iterdir()} == {"model", "last", "curve.png"}
    assert (out / "model" / "report.json").exists() and (out / "last" / "report.json").exists()


def test_models_of_the_same_name_do_not_overwrite_each_other(call, run, data, tmp_path) -> None:
    twin = tmp_path / "twin"
    twin.mkdir()
    (twin / "best.pt").write_bytes((run / "last.pt").read_bytes())
    out = tmp_path / "out"
    told = call("evaluate", "--model", f"{run / 'best.pt'},{twin / 'best.pt'}", "--data", data, *FEW, "--out", out)
    assert told.code == 0
    assert len(list(out.glob("*/report.json"))) == 2


def test_other_splits_limits_and_norms(call, run, data) -> None:
    told = call("evaluate", "--model", run / "model.json", "--data", data, *LIGHT, "--split", "train", "--limit", "9", "--steps", "2")
    assert told.code == 0
    assert "(train)" in told.out and "PGD-2 (L2 eps=0.5)" in told.out and told.out.count("(n = 9)") == 2


def test_in_l0_eps_is_a_number_of_pixels_in_all_that_is_told(call, run, data, tmp_path) -> None:
    words = ["--norm", "l0", "--eps", "32", "--attack", "sparse-rs,pgd,fmn", "--limit", "4", *LIGHT]
    out = tmp_path / "report"
    told = call("evaluate", "--model", run / "model.json", "--data", data, *words, "--out", out)
    assert (
        told.code == 0
        and all(f"{name} (L0 eps=32 pixels)" in told.out for name in ("Sparse-RS", "PGD-20"))
        and "FMN-100 (L0 in pixels)" in told.out
    )
    found = [attacked for record in records(out) for attacked in record["attacks"].values()]
    assert found and all(attacked["distance"] in range(33) for attacked in found)


@pytest.mark.parametrize("words", [["--eps", "0"], ["--steps", "0", "--eps", "0.1"]], ids=" ".join)
def test_an_attack_that_cannot_move_breaks_nothing_or_little(call, run, data, expected, words: list[str]) -> None:
    told = call("evaluate", "--model", run / "model.json", "--data", data, *LIGHT, "--norm", "l2", *words)
    assert told.code == 0
    clean, attacked = (line.split()[-7:] for line in told.out.splitlines()[1:3])
    if words[0] == "--eps":
        assert clean == attacked
    assert ("note: PGD-20 (L2 eps=0) changed no image" in told.out) == (words[0] == "--eps")  # the other has its random start


def test_no_images_are_no_error(call, run, tmp_path) -> None:
    names = np.array(["red", "green", "blue"])
    np.savez(tmp_path / "test.npz", x=np.zeros((0, 3, 8, 8), np.uint8), y=np.zeros(0, np.int64), classes=names)
    words = ["--dataset", "npz", "--data", tmp_path, *FEW, "--curve", "0,0.1", "--out", tmp_path / "out"]
    told = call("evaluate", "--model", run / "model.json", *words)
    assert told.code == 0 and "(n = 0)" in told.out


def test_some_of_the_classes_are_compared_by_name(call, run, data, tmp_path) -> None:
    """Images of two classes, in another order than the model's: each is right or wrong as among all the images."""
    everything, some = tmp_path / "all", tmp_path / "some"
    words = ["--model", run / "model.json", "--data", data, *LIGHT]
    assert call("evaluate", *words, "--out", everything).code == 0
    assert call("evaluate", *words, "--classes", "blue,red", "--out", some).code == 0
    kept = [record for record in records(everything) if record["label"] != 1]
    assert [(r["label"], r["prediction"]) for r in records(some)] == [(r["label"], r["prediction"]) for r in kept]
    assert len(kept) < len(records(everything))


def test_the_order_of_the_classes_changes_nothing(call, run, data, expected) -> None:
    for order in ("red,green,blue", "blue,red,green"):
        told = call("evaluate", "--model", run / "model.json", "--data", data, "--classes", order, *FEW)
        assert told.code == 0 and str(expected.clean) in told.out and str(expected.under(str(ATTACK))) in told.out


def test_a_limit_counts_among_the_chosen_classes(call, run, data, tmp_path) -> None:
    words = ["--model", run / "model.json", "--data", data, "--classes", "blue,red", "--limit", "6", "--out", tmp_path / "out"]
    assert call("evaluate", *words, *FEW).code == 0
    assert sorted(record["label"] for record in records(tmp_path / "out")) == [0, 0, 0, 2, 2, 2]


@pytest.fixture(scope="module")
def unnamed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model without its classes' names."""
    folder = tmp_path_factory.mktemp("unnamed")
    described = json.loads((run / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**described, "classes": ["0", "1", "2"], "description_sha256": None}))
    (folder / "model.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    return folder / "model.json"


def test_unnamed_classes_are_compared_by_number(call, refused, unnamed, data, expected, tmp_path) -> None:
    """As many named ones are taken in their own order, which a choice of classes would change; numbers name the outputs."""
    assert str(expected.clean) in call("evaluate", "--model", unnamed, "--data", data, *FEW).out
    words = ["--model", unnamed, "--data", data, "--classes", "blue,red,green"]
    assert "does not name its classes, so that --classes cannot say" in refused("evaluate", *words, *LIGHT)
    with np.load(data / "test.npz") as stored:
        np.savez(tmp_path / "test.npz", x=stored["x"], y=stored["y"])
        np.savez(tmp_path / "val.npz", x=stored["x"][stored["y"] < 2], y=stored["y"][stored["y"] < 2])
    words = ["--model", unnamed, "--dataset", "npz", "--data", tmp_path, *FEW]
    assert str(expected.clean) in call("evaluate", *words, "--classes", "2,0,1").out
    right = sum(record.prediction == record.label for record in expected.records if record.label < 2)
    told = call("evaluate", *words, "--split", "val", "--out", tmp_path / "out").out
    assert f"(n = {sum(record.label < 2 for record in expected.records)})" in told
    assert sum(record["prediction"] == record["label"] for record in records(tmp_path / "out")) == right


def test_a_run_is_taken_by_its_folder(call, run, data, tmp_path) -> None:
    for place in (run, run / "model.safetensors"):
        call("evaluate", *LIGHT, "--model", place, "--data", data, "--out", tmp_path / place.name)
    assert records(tmp_path / run.name) == records(tmp_path / "model.safetensors") != []


# What is wrong


@pytest.mark.parametrize(
    "words, sentence",
    [
        ([], "which model? --model takes a checkpoint's path"),
        (["--model", "nowhere.pt"], "there is no checkpoint nowhere.pt"),
        (["--model", "cifar10-robst"], "cifar10-robst"),
        (["--model", "{run}/.."], "is a folder without model.safetensors, the weights of a run that ended; name a checkpoint in it"),
        (["--model", "{run}/best.pt", "--arch", "small"], "holds a mlp, not the small asked for"),
        (["--model", "{run}/best.pt", "--dataset", "cifar11"], "unknown dataset 'cifar11'. Did you mean 'cifar10'?"),
        (["--model", "{run}/best.pt", "--data", "nowhere"], "there is nothing at nowhere"),
        (["--model", "{run}/best.pt", "--dataset", "shapes", "--limit", "20"], "does not know all classes of shapes: unknown class"),
        (["--model", "{run}/best.pt", "--classes", "red,gren"], "unknown class 'gren'. Did you mean 'green'?"),
        (["--model", "{run}/best.pt", "--classes", ","], "argument --classes: ',' names nothing"),
        (["--model", "{run}/best.pt", "--device", "cpuu"], "unknown device 'cpuu'"),
        (["--model", "{run}/best.pt", "--eps=-0.1"], "argument --eps: -0.1 is negative"),
        (["--model", "{run}/best.pt", "--curve", "0,-1"], "argument --curve: -1 is negative"),
        (["--model", "{run}/best.pt", "--norm", "l0", "--eps", "2.5"], "L0 eps is a whole number of pixels, got 2.5"),
        (["--model", "{run}/best.pt", "--norm", "l0", "--attack", "square"], "Square attacks in Linf, L2 and L1, not in L0"),
        (["--model", "{run}/best.pt", "--attack", "sparse-rs"], "Sparse-RS attacks in L0, a number of pixels, not in L2 eps=0.5"),
        (["--model", "{run}/best.pt", "--out", "{run}"], "is not an empty folder: name another one with --out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_one_sentence(refused, run, data, monkeypatch, tmp_path, words: list[str], sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    default = ["--data", data] if "--dataset" not in words and "--data" not in words else []
    assert sentence in refused("evaluate", *LIGHT, *default, *(word.format(run=run) for word in words))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "damage, sentence",
    [
        (lambda b: b[: len(b) // 2], "is a damaged or incomplete checkpoint"),
        (lambda b: b"", "is empty"),
        (lambda b: b"<html>404</html>", "it looks like a web page"),
    ],
    ids=["half", "empty", "web page"],
)
def test_a_damaged_checkpoint_is_named(refused, run, data, tmp_path, damage: Callable[[bytes], bytes], sentence: str) -> None:
    (tmp_path / "model.pt").write_bytes(damage((run / "best.pt").read_bytes()))
    assert sentence in refused("evaluate", "--model", tmp_path / "model.pt", "--data", data, *FEW)


class Boom:
    """What runs code while it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("boom",)


def test_a_checkpoint_that_would_run_code_is_refused_by_the_name_of_what_it_calls(call, refused, data, tmp_path) -> None:
    torch.save({"state_dict": Boom()}, tmp_path / "model.pt")
    said = refused("evaluate", "--model", tmp_path / "model.pt", "--data", data, *FEW)
    assert "would run code when read" in said and "print" in said and "--trust-checkpoint" in said
    told = call("evaluate", "--model", tmp_path / "model.pt", "--data", data, *FEW, "--trust-checkpoint")
    assert told.code == 2 and "boom" in told.out and "holds no weights" in told.err


def test_a_model_that_answers_nan_is_refused_and_nothing_is_written(refused, run, data, tmp_path) -> None:
    checkpoint = torch.load(run / "best.pt", weights_only=True)
    checkpoint["model"]["head.bias"].fill_(torch.nan)
    torch.save(checkpoint, tmp_path / "nan.pt")
    assert "NaN" in refused("evaluate", "--model", tmp_path / "nan.pt", "--data", data, *FEW, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_l2_numbers_are_the_library_s_too(call, run, data) -> None:
    attack = PGD(ThreatModel(L2(), 1.0), steps=3)
    report = evaluate(load(run / "model.json"), Batches(open_dataset(None, data, "test"), 250, seed=0).epoch(0), [attack])
    told = call("evaluate", "--model", run / "model.json", "--data", data, *LIGHT, "--norm", "l2", "--eps", "1", "--steps", "3")
    assert f"{str(attack):<28} {report.under(str(attack))}" in told.out


# Interrupted and gone on with

MANY = ["--steps", "2", "--norm", "linf", "--eps", "16/255", "--batch-size", "3", *LIGHT]


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, but for the words of the command that is part of a report."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in found:
        if name.endswith("report.json"):
            report = json.loads(found[name])
            report["environment"].pop("command")
            for place in ("out", "save_adversarial"):
                report["settings"]["output"].pop(place)
            found[name] = json.dumps(report).encode()
    return found


@pytest.mark.parametrize(
    "name, batch, n, block",
    [("pgd-20", 250, 10_000, 250), ("pgd-20", 250, 9, 250)]
    + [("standard", 250, n, block) for n, block in ((10_000, 1000), (5000, 625), (1000, 125), (400, 62), (9, 62))]
    + [("standard", 3, 100, 12), ("standard", 1, 2, 1)],
)
def test_a_kill_costs_a_batch_or_of_a_line_up_an_eighth_at_most(name: str, batch: int, n: int, block: int) -> None:
    attack = named_attack(name, ThreatModel(Linf(), 8 / 255))
    assert Measuring([attack], batch_size=batch).block(n) == block


def test_what_was_cut_into_other_blocks_is_refused(call, refused, monkeypatch, run, data, tmp_path) -> None:
    words = ["evaluate", "--model", run / "model.json", "--data", data, *MANY[2:], "--attack", "apgd-ce+square", "--out", tmp_path / "out"]
    with monkeypatch.context() as patch:
        dying(patch)(11)
        with pytest.raises(Killed):
            call(*words)
    monkeypatch.setattr(measurement, "SHARES", 3)
    assert "block: 3 there, 7 here" in refused(*words)


@pytest.mark.slow
@pytest.mark.parametrize("places", [["--out"], ["--save-adversarial"], ["--out", "--save-adversarial"]], ids=" ".join)
@pytest.mark.parametrize("models", [1, 2])
def test_killed_at_any_write_it_goes_on_to_the_same_bytes(call, monkeypatch, run, data, tmp_path, places, models: int) -> None:
    names = ",".join(str(run / name) for name in ("model.json", "last.pt")[:models])

    def words(folder: Path) -> list[object]:
        curve = ["--curve", "0,0.1"] if models == 1 and "--out" in places else []
        here = [word for place in places for word in (place, folder / place.strip("-"))]
        return ["evaluate", "--model", names, "--data", data, "--limit", "5", *MANY, *curve, *here]

    after = dying(monkeypatch)
    writes = after(1 << 30)
    assert call(*words(tmp_path / "whole")).code == 0
    total, whole = writes(), content(tmp_path / "whole")
    assert total > 8 and not [name for name in whole if "/." in name or name.startswith(".")]
    # Blocks are kept by the same two writes each, so with both places every third is enough, but for the last ones, which make the results.
    step = 5 if models > 1 else len(places) ** 2 - len(places) + 1
    for victim in [k for k in range(1, total + 1) if k % step == 1 % step or (models == 1 and k > total - 14)]:
        out = tmp_path / str(victim)
        after(victim)
        with pytest.raises(Killed):
            call(*words(out))
        after(0)
        told = call(*words(out))
        assert told.code == 0, (victim, told)
        assert content(out) == whole, victim


def test_kill_9_wherever_it_is_and_the_same_command_goes_on(call, run, data, tmp_path) -> None:
    words = ["evaluate", "--model", str(run / "model.json"), "--data", str(data), *MANY, "--steps", "200"]
    assert call(*words, "--out", tmp_path / "whole", "--save-adversarial", tmp_path / "whole-images").code == 0
    here = ["--out", str(tmp_path / "out"), "--save-adversarial", str(tmp_path / "images")]
    for lines in (1, 4):
        process = subprocess.Popen([sys.executable, "-m", "robustlab", *words, *here], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        kept = tmp_path / "out" / ".unfinished" / "records 0"
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline and len(list(kept.glob("*.json"))) < lines:
            time.sleep(0.005)
        process.kill()
        process.wait()
    assert call(*words, *here).code == 0
    assert content(tmp_path / "out") == content(tmp_path / "whole")
    assert content(tmp_path / "images") == content(tmp_path / "whole-images")


def test_only_what_is_missing_is_computed_and_ctrl_c_says_that_it_goes_on(call, monkeypatch, run, data, tmp_path) -> None:
    words = ["evaluate", "--model", run / "model.json", "--data", data, *MANY, "--out", tmp_path / "out"]
    attacked: list[int] = []
    attack = PGD.__call__

    def interrupted(self: Any, model: Any, x: Any, *args: Any, **options: Any) -> Any:
        attacked.append(len(x))
        if len(attacked) == 3:
            raise KeyboardInterrupt
        return attack(self, model, x, *args, **options)

    monkeypatch.setattr(PGD, "__call__", interrupted)
    told = call(*words)
    assert told.code == 130 and "the same command goes on from here" in told.err
    attacked.clear()
    attacked.extend([0] * 3)  # so that nothing interrupts it again
    assert call(*words).code == 0
    assert len(attacked) - 3 == 7 - 2 + 4, "five batches of seven, and four for the ten examples"
    again = len(attacked)
    told = call(*words)
    assert told.code == 0 and "this was finished before" in told.out and len(attacked) == again


@pytest.mark.parametrize("ended", [True, False])
def test_other_settings_are_refused_by_naming_the_difference(call, refused, monkeypatch, run, data, tmp_path, ended: bool) -> None:
    out = tmp_path / "out"
    words = ["evaluate", "--model", run / "model.json", "--data", data, *MANY, "--out", out]
    if ended:
        assert call(*words).code == 0
    else:
        with monkeypatch.context() as patch:
            after = dying(patch)
            after(11)
            with pytest.raises(Killed):
                call(*words)
    before = content(out)
    for more, name in ((["--seed", "1"], "compute.seed: 0 there, 1 here"), (["--steps", "3"], "attacks"), (["--limit", "9"], "images.n")):
        said = refused(*words, *more)
        assert "holds a measurement with other settings" in said and name in said
    assert content(out) == before


def test_where_the_model_and_the_images_lie_may_change_meanwhile(call, monkeypatch, run, data, tmp_path) -> None:
    out, words = tmp_path / "out", [*MANY, "--out", tmp_path / "out"]
    with monkeypatch.context() as patch:
        after = dying(patch)
        after(12)
        with pytest.raises(Killed):
            call("evaluate", "--model", run / "model.json", "--data", data, *words)
    shutil.copytree(data, tmp_path / "moved")
    for name in ("model.json", "model.safetensors"):
        shutil.copy(run / name, tmp_path / name)
    assert list((out / ".unfinished" / "records 0").glob("*.json"))
    assert call("evaluate", "--model", tmp_path / "model.json", "--data", tmp_path / "moved", *words).code == 0
    assert len(records(out)) == 20


def test_processes_share_the_batches_and_the_one_that_ends_last_writes_the_same_bytes(call, monkeypatch, run, data, tmp_path) -> None:
    attack, joined, attacked = PGD.__call__, [], []

    def meanwhile(self: Any, model: Any, x: Any, *args: Any, **options: Any) -> Any:
        attacked.append(len(x))
        if not joined:  # this process is at its first batch when another comes, which does all the others
            joined.append("on its way")
            joined[0] = call(*words)
        return attack(self, model, x, *args, **options)

    monkeypatch.setattr(PGD, "__call__", meanwhile)
    for flag in ("--out", "--save-adversarial"):
        alone, shared = ([*MANY, flag, tmp_path / f"{name}{flag}"] for name in ("alone", "shared"))
        words, joined[:], attacked[:] = ["evaluate", "--model", run / "model.json", "--data", data, *alone], ["nobody"], []
        assert call(*words).code == 0
        calls = sorted(attacked)
        words, joined[:], attacked[:] = [*words[:5], *shared], [], []
        told = call(*words)
        assert joined[0].code == 0 and "other processes are at the rest" in joined[0].out
        assert told.code == 0 and "PGD-2" in told.out
        assert sorted(attacked) == calls, "no batch was computed twice"
        assert content(shared[-1]) == content(alone[-1])
