"""The benchmarks run, compare what they say they compare, and give numbers. No test asks how fast anything is."""

from __future__ import annotations

import json
import math
import sys
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from benchmarks import (
    attacks,
    construction,
    contenders,
    evaluation,
    graphs,
    hostile,
    interleaved,
    linear_bias,
    optimality,
    published,
    strength,
    training_step,
    verdicts,
)
from benchmarks.interleaved import Spread
from robustlab import gnn
from robustlab import linear_bias as lb
from robustlab.attacks import APGD, FAB, LineUp, Square, Within
from robustlab.constraints import ThreatModel
from robustlab.data.shapes import shapes
from robustlab.models.checkpoints import pretrained
from robustlab.models.zoo import load
from robustlab.norms import L2, Linf, Norm

# The `small` network on two images of the default data: enough to run every line.
ATTACKS = ["--arch", "small", "--batch-size", "2", "--steps", "2", "--repeats", "2", "--device", "cpu"]
TRAINING = ["--arch", "small", "--batch-size", "4", "--steps", "2", "--repeats", "2", "--updates", "2", "--limit", "8", "--device", "cpu"]
BUILDING = [
    "--images",
    "4",
    "--batch-size",
    "2",
    "--shard-size",
    "2",
    "--steps",
    "2",
    "--repeats",
    "2",
    "--threads",
    "1",
    "--device",
    "cpu",
]


def finite(spread: dict[str, float]) -> bool:
    return all(math.isfinite(value) for value in spread.values()) and spread["low"] <= spread["median"] <= spread["high"]


def images_and_labels() -> tuple[Tensor, Tensor]:
    """Images whose pixels stay off the ends of their range, where the libraries' L2 steps differ from each other."""
    return torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1, torch.arange(8)


@pytest.fixture
def no_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the other libraries, whatever is installed."""
    for name in ("torchattacks", "foolbox", "art", "art.attacks.evasion", "art.estimators.classification"):
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_attacks_compares_ours_with_the_bare_loop(norm, tmp_path, capsys, no_peers):
    out = tmp_path / "attacks.json"
    assert attacks.main([*ATTACKS, "--norm", norm, "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    rows = found["rows"]
    assert [row["name"] for row in rows][0] == attacks.BARE and len(rows) == 6
    assert all(finite(row["seconds"]) and finite(row["ratio"]) for row in rows)
    assert rows[0]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert all(row["success"]["n"] == 4 for row in rows)
    assert all(row["excess"] == 0 for row in rows[1:]), "ours stay within eps exactly"
    assert -1 <= found["gradient_cosine"]["low"] <= found["gradient_cosine"]["high"] <= 1 + 1e-6

    printed = capsys.readouterr().out
    assert set(found["missing"]) == set(contenders.PEERS)
    assert all(f"not installed: {name}" in printed for name in contenders.PEERS)
    lines = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(rows) and len({line.count("|") for line in lines}) == 1


def test_training_step_measures_eight_trainings(tmp_path, capsys):
    out = tmp_path / "training.json"
    assert training_step.main([*TRAINING, "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["name"].partition(",")[0] for row in rows] == ["standard"] * 2 + ["N-FGSM"] * 2 + ["PGD-2"] * 4
    for row in rows:
        assert all(finite(row[part]) for part in ("seconds", "ratio", "data", "draws", "projection"))
        assert 0 < row["data"]["median"] < 1 and row["images_per_second"] > 0
    assert sum(line.startswith("|") for line in capsys.readouterr().out.splitlines()) == 2 + len(rows)


def test_linear_bias_compares_steps_and_certifies_gaps(tmp_path, capsys):
    out, few = tmp_path / "linear_bias.json", ["--small-steps", "3", "--product-steps", "2", "--repeats", "2", "--steps", "5"]
    assert linear_bias.main([*few, "--documents", "30", "--words", "200", "--no-peers", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    for rows in (found["small"], found["share"]):
        assert all(finite(row["ms"]) and finite(row["ratio"]) for row in rows)
        assert rows[0]["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert [row["steps"] for row in found["size"]] == [5, 2, 10] and all(math.isfinite(row["gap"]) for row in found["size"])
    assert found["matrix_mb"] > 0 and found["missing"] == []
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(lines) == 6 + sum(len(found[part]) for part in ("small", "share", "size"))


def test_graphs_compares_networks_with_their_formulas_and_with_others_layers(capsys):
    few = ["--n", "40", "--depth", "2", "--product", "50", "--repeats", "2", "--edges", "60", "300", "--nodes", "600"]
    few += ["--channels", "3", "--side", "6", "--tensors", "2", "--molecules", "5", "--large", "1"]
    wanted = graphs._parser().parse_args(few)
    found = {part: run(wanted) for part, run in graphs.PARTS.items()}
    assert finite(found["step"]["ratio"]) and found["step"]["recorded_ratio"] > 0 and found["step"]["loss_difference"] < 1e-4
    assert found["memory"]["peak_mb"] >= found["memory"]["before_mb"] > 0
    assert [row["edges"] > 0 for row in found["edges"]["rows"]] == [True, True] and math.isfinite(found["edges"]["exponent"])
    assert finite(found["split"]["ratio"]) and 0.3 < found["split"]["overlap"] < 1
    assert all(finite(row["ratio"]) for row in found["tensors"]["rows"]) and found["tensors"]["difference"] < 1e-5
    assert found["tensors-memory"]["peak_mb"] > 0 and found["stacked-memory"]["tensor_mb"] > 0
    assert len(found["messages"]["rows"]) == 4 and all(row["difference"] < 1e-4 for row in found["messages"]["rows"])
    assert finite(found["refinement"]["ratio"]) and found["refinement"]["pairs"] == 1 and len(found["refinement"]["rows"]) == 2
    for show in graphs.SHOWN.values():
        assert show(found).count("|") > 6


def test_numpy_draws_the_same_block_model():
    n, a, b = 3000, 8.0, 2.0
    edges, labels = graphs.naive_block_model(n, a, b)
    batch = gnn.graph(torch.from_numpy(edges), n)  # both directions, no loops, none twice
    same = labels[edges[0]] == labels[edges[1]]
    assert abs(batch.mean_degree - (a + b) / 2) < 0.2 and abs(same.mean() - a / (a + b)) < 0.02


def test_the_bare_loop_of_linear_models_is_gradient_descent():
    data = lb.separable(2, 6, 9)
    step = linear_bias.step_size(data, lb.L2())
    torch.testing.assert_close(linear_bias.bare(data, step, 20), linear_bias.ours(data, lb.L2(), step, 20))


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """Noise with the class names of the shipped models."""
    random, names = np.random.default_rng(0), pretrained()["cifar10-small-standard"]["classes"]
    path = tmp_path / "data" / "train.npz"
    path.parent.mkdir()
    np.savez(path, x=random.integers(0, 256, (20, 8, 8, 3)).astype(np.uint8), y=np.arange(20) % 10, classes=np.array(names))
    return path.parent


def test_construction_compares_both_kinds_of_sets_with_the_bare_loop(cifar, tmp_path, capsys):
    out = tmp_path / "construction.json"
    assert construction.main([*BUILDING, "--amp", "--data", str(cifar), "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    rows = found["rows"]
    kinds = [[construction.BARE, f"{kind}, float32", f"{kind}, bfloat16"] for kind in ("relabelled", "inverted")]
    assert [row["name"] for row in rows] == sum(kinds, [])
    for row in rows:
        assert finite(row["seconds"]) and finite(row["ratio"]) and row["speed"] == pytest.approx(4 * 2 / row["seconds"]["median"])
        if row["name"] == construction.BARE:
            assert row["ratio"] == {"median": 1.0, "low": 1.0, "high": 1.0} and row["taken_for_label"] is None
        else:
            assert row["taken_for_label"] in (0, 0.25, 0.5, 0.75, 1)
    assert found["largest_memory_mb"] > 0 and "processes" not in found
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(rows) and len({line.count("|") for line in lines}) == 1


@pytest.fixture
def threads_for_processes(monkeypatch):
    """They come up faster. No more than one of them may build at a time: torch.fx traces for a whole process."""

    class Barrier(threading.Barrier):
        def wait(self, timeout: float | None = None) -> int:
            return super().wait(20)

    context = SimpleNamespace(Barrier=Barrier, Process=partial(threading.Thread, daemon=True))
    monkeypatch.setattr(construction.multiprocessing, "get_context", lambda kind: context)


def test_construction_times_processes_that_build_a_set(cifar, tmp_path, capsys, threads_for_processes):
    out = tmp_path / "construction.json"
    assert construction.main([*BUILDING, "--no-amp", "--processes", "1", "--data", str(cifar), "--out", str(out)]) == 0
    seconds = json.loads(out.read_text())["processes"]
    assert all(len(seconds[name]) == 2 and min(seconds[name]) > 0 for name in ("alone", "together"))
    assert "1 processes against one, one thread each: " in capsys.readouterr().out


def test_processes_begin_and_end_each_round_together(monkeypatch, threads_for_processes):
    begun = []

    def work(folder, argv, rounds, barrier, rank, processes):
        for number in range(rounds + 1):
            barrier.wait()
            begun.append((number, rank))
            barrier.wait()

    monkeypatch.setattr(construction, "_work", work)
    assert len(construction.together(3, [], 2)) == 2
    assert [number for number, _ in begun] == [0, 0, 0, 1, 1, 1, 2, 2, 2] and len(set(begun)) == 9


def test_the_bare_loop_of_construction_is_passes_and_nothing_else(tiny_model):
    seen: list[int] = []
    tiny_model.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    x, _ = images_and_labels()
    before = x.clone()
    construction.bare(tiny_model, x, steps=3, batch_size=5)
    assert seen == [5, 5, 5, 3, 3, 3]
    assert torch.equal(x, before) and all(parameter.grad is None for parameter in tiny_model.parameters())


@pytest.mark.parametrize("argv", [["--data", "nowhere"], ["--model", "nowhere.pt"], ["--device", "abacus"]])
def test_mistakes_in_construction_are_one_sentence(argv, cifar, capsys):
    assert construction.main([*BUILDING, "--data", str(cifar), *argv]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("norm", [Linf(), L2()], ids=repr)
def test_the_bare_loop_is_the_attack_that_ours_is(norm: Norm, tiny_model):
    """Without random starts they walk the same path, up to the rounding at the ball's surface."""
    x, y = images_and_labels()
    task = contenders.Task(ThreatModel(norm, 8 / 255), 5, False, (8, 3, 8, 8), 10)
    by_hand, found = (make(tiny_model, task)(x, y) for make in (contenders.bare_loop, contenders.ours))
    assert (by_hand - x).abs().max() > 0.5 * task.step_size
    torch.testing.assert_close(by_hand, found, rtol=0, atol=1e-6)


def test_a_random_start_of_the_bare_loop_lies_in_the_ball(tiny_model):
    x, y = torch.full((8, 3, 8, 8), 0.5), torch.arange(8)
    for norm in (Linf(), L2()):
        task = contenders.Task(ThreatModel(norm, 0.1), 0, True, (8, 3, 8, 8), 10)
        distance = norm.measure(contenders.bare_loop(tiny_model, task)(x, y) - x)
        assert (distance <= 0.1 + 1e-6).all() and (distance > 0.05).all()


def test_candidates_take_turns():
    seen: list[tuple[str, int]] = []
    tasks = {name: (lambda number, name=name: seen.append((name, number))) for name in "AB"}
    now = interleaved.clock(torch.device("cpu"))
    seconds = interleaved.in_turn(tasks, range(2), now, lambda name, number, result: None)
    assert seen == [("A", 0), ("B", 0), ("A", 1), ("B", 1)]
    assert {name: len(values) for name, values in seconds.items()} == {"A": 2, "B": 2}


def test_a_ratio_is_taken_within_each_round():
    """The machine slowed down tenfold between the rounds: the ratio does not notice."""
    assert Spread.ratio([1.0, 10.0], [2.0, 20.0]) == Spread(0.5, 0.5, 0.5)


def test_random_weights_come_with_gradients_of_usual_size():
    images = shapes(4, "test")
    x = images.pixels / 255
    model = attacks.calibrated("small", images, x)
    assert not model.training and 0.1 < model(x).std() < 100


@pytest.mark.parametrize("argv", [["--model", "nowhere.pt"], ["--data", "nowhere"], ["--device", "abacus"]])
def test_mistakes_are_one_sentence(argv, capsys):
    assert attacks.main([*ATTACKS, *argv]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.filterwarnings("default")  # other libraries' warnings are their own
@pytest.mark.parametrize("norm", [Linf(), L2()], ids=repr)
@pytest.mark.parametrize("name", contenders.PEERS)
def test_other_libraries_walk_the_same_path(name, norm, tiny_model):
    pytest.importorskip({"ART": "art"}.get(name, name))
    x, y = images_and_labels()
    task = contenders.Task(ThreatModel(norm, 8 / 255), 5, False, (8, 3, 8, 8), 10)
    theirs, by_hand = (make(tiny_model, task)(x, y) for make in (contenders.PEERS[name], contenders.bare_loop))
    torch.testing.assert_close(theirs, by_hand, rtol=0, atol=1e-6)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is asked of Linux")
def test_hostile_input_is_put_to_the_commands(capsys):
    assert hostile.main(["--only", "label"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(lines) == 3 and "exit 0" in lines[1] and "exit 2: label.npz: label 10000000 means 10,000,001 classes" in lines[2]
    harmless, hostile_peak = (float(line.split("|")[3]) for line in lines[1:])
    assert hostile_peak < harmless + 100, "nothing of the size that is asked for is made"


def test_hostile_input_that_does_harm_is_told(capsys, monkeypatch):
    monkeypatch.setattr(hostile, "CASES", {"bad": lambda folder: iter([hostile.Row("a file", "it ran", held=False)])})
    if hostile.main([]) == 1:
        assert "**NOT HELD**: it ran" in capsys.readouterr().out
    assert hostile.main(["--only", "worse"]) == 2


def test_tags_that_names_make_are_found(tmp_path):
    (tmp_path / "a.html").write_text("<p>x</p>")
    (tmp_path / "b.html").write_text("<p>x<img src=y onerror=z></p>")
    assert hostile._tags(tmp_path / "b.html") - hostile._tags(tmp_path / "a.html") == {"img", "img src", "img onerror"}


def test_the_line_up_as_published_and_ours_are_compared_on_the_same_images(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(published, "QUERIES", 10)
    monkeypatch.setattr(published, "TARGETS", 2)
    monkeypatch.setattr(published, "STEPS", 6)
    monkeypatch.setattr(evaluation, "autoattack", lambda threat: LineUp([APGD(threat, steps=6), Square(threat, queries=10)]))
    for norm, eps in (("linf", "0.002"), ("l2", "0.02")):
        assert evaluation.main(["--limit", "3", "--norm", norm, "--eps", eps, "--out", str(tmp_path / "out.json")]) == 0
        rows = json.loads((tmp_path / "out.json").read_text())["rows"]
        assert [row["line-up"] for row in rows] == ["as published", "ours, the model itself", "ours, float32", "ours, bfloat16"]
        assert all(row["beyond eps"] == "0" for row in rows[1:]) and all(0 <= row["robust"] <= 3 for row in rows)
        assert rows[1]["robust"] == rows[2]["robust"] and float(rows[0]["published / this"]) == 1
    assert "3 of 3 images of shapes" in capsys.readouterr().out


@pytest.mark.parametrize("norm", optimality.NORMS)
def test_optimality_of_all_attacks_of_a_norm_is_told_by_budget(norm, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(optimality, "adv_lib", lambda *_: {"still": lambda model, x, y: x})
    monkeypatch.setitem(optimality.LIBRARIES, "adversarial-library", optimality.adv_lib)
    monkeypatch.setattr(optimality, "imported", lambda packages: (dict.fromkeys(packages), {}))
    assert optimality.main(["--limit", "2", "--norm", norm, "--budgets", "80", "--out", str(tmp_path / "out.json")]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    mine = optimality.ours(optimality.NORMS[norm], 80, 10)
    assert [(row["attack"], row["queries"]) for row in rows] == [(name, 80) for name in [*mine, "still"]]
    shares = {(row["attack"], row["queries"]): float(row["optimality"]) for row in rows}
    assert 0 < max(shares.values()) <= 100 and shares["still", 80] == 0
    assert "2 of 2 images of shapes" in capsys.readouterr().out


@pytest.mark.parametrize("norm, eps", [("linf", "0.1"), ("l2", "2"), ("l1", "24")])
def test_attacks_of_one_name_are_compared_image_by_image(norm, eps, monkeypatch, capsys, tmp_path):
    """A library that does nothing, and one that fools all of the images by leaving the ball, both break none."""

    def named(library, task, seed):
        return {"PGD": lambda model, x, y: x if library == "still" else 1 - x.round(), "FMN": lambda model, x, y: x}

    monkeypatch.setattr(strength, "LIBRARIES", {"one": ("still", named), "two": ("far", named), "three": ("no_such_package", named)})
    monkeypatch.setattr(interleaved, "import_module", import_only("still", "far"))
    words = ["--limit", "4", "--norm", norm, "--eps", eps, "--steps", "3", "--repeats", "2", "--out", str(tmp_path / "out.json")]
    assert strength.main(words) == 0
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [(row["attack"], row["library"]) for row in rows] == [("PGD", "one"), ("FMN", "one"), ("PGD", "two"), ("FMN", "two")]
    assert all(row["theirs leaves"] == "100.0" and row["of ours"] == "0" for row in rows)
    assert float(rows[0]["ours leaves"]) < 100 and rows[0]["ours leaves"] == rows[2]["ours leaves"]
    assert float(rows[0]["difference"].split()[0]) == pytest.approx(float(rows[0]["ours leaves"]) - 100)
    assert float(rows[0]["ours"]) <= 5 and float(rows[2]["beyond eps, theirs"]) > 0
    assert "three is not here (no no_such_package)" in capsys.readouterr().out
    assert strength.main([*words, "--attacks", "FMN"]) == 0
    assert [row["attack"] for row in json.loads((tmp_path / "out.json").read_text())["rows"]] == ["FMN", "FMN"]
    assert strength.main([*words, "--attacks", "FNM"]) == 2 and "Did you mean 'FMN'?" in capsys.readouterr().err


def import_only(*names: str):
    """As ``import_module``, where there are these packages and no other; a package is its name."""

    def imported(name: str) -> str:
        if name not in names:
            raise ImportError(f"no {name}")
        return name

    return imported


def test_a_difference_carries_its_interval_over_images():
    ours, theirs = (strength.Outcome(torch.tensor(stands, dtype=torch.float64), 1, 0) for stands in ([1, 0, 0, 0], [1, 1, 0, 0]))
    told = strength.row("PGD", "others", ours, theirs)
    assert (told["theirs leaves"], told["ours leaves"], told["difference"]) == ("50.0", "25.0", "-25.0 ± 49.0")


def test_budgets_that_pay_no_step_are_refused(capsys):
    for words, sentence in ((["--budgets", "20"], "starts at 80 queries"), (["--budgets", "many"], "takes whole numbers")):
        assert optimality.main(words) == 2 and sentence in capsys.readouterr().err


@pytest.mark.parametrize("norm, eps", [(Linf(), 0.03), (L2(), 0.3)], ids=repr)
def test_what_is_kept_as_published_breaks_what_ours_breaks(norm, eps, tiny_model, monkeypatch):
    """On a small network, whoever draws what: Auto-PGD and FAB of both find the same images."""
    monkeypatch.setattr(published, "TARGETS", 2)
    monkeypatch.setattr(published, "STEPS", 25)
    x = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        y = tiny_model(x).argmax(1)
    threat = ThreatModel(norm, eps)
    auto, aimed, fab = APGD(threat, 25), APGD(threat, 25, targets=2), Within(FAB(norm, 25, targets=2), threat)
    for theirs, mine in ((published.apgd_ce, auto), (published.apgd_t, aimed), (published.fab_t, fab)):
        x_adv = theirs(tiny_model, threat, x, y)
        with torch.no_grad():
            fooled, broken = tiny_model(x_adv).argmax(1) != y, tiny_model(mine(tiny_model, x, y)).argmax(1) != y
        assert (fooled != broken).sum() <= 1 and 0 < broken.sum() < 12


def test_verdicts_of_two_evaluations_are_compared_image_by_image(capsys, tmp_path, monkeypatch):
    for label in load("cifar10-small-standard").classes:
        folder = tmp_path / "images" / "test" / label
        folder.mkdir(parents=True)
        for k in range(3):
            pixels = np.random.default_rng(k).integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{k}.png")
    row = {"model": "cifar10-small-standard", "norm": "L2", "eps": 0.5, "n": 20, "broken_by": {"cat/0.png": "fab-t"}}
    (tmp_path / "verdicts.json").write_text(json.dumps({"rows": [row]}))
    words = ["--data", str(tmp_path / "images"), "--verdicts", str(tmp_path / "verdicts.json"), "--attack", "apgd-ce+apgd-dlr"]
    assert verdicts.main(words) == 0
    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].split("|")[1:-1]]
    assert cells[:4] == ["cifar10-small-standard", "L2 eps=0.5", "20", "19"]
    ours, only_ours, only_other = map(int, cells[4:7])
    assert ours <= 20 and only_other - only_ours == 19 - ours
    (tmp_path / "verdicts.json").write_text(json.dumps({"rows": [{**row, "cpu_seconds": 7}], "bare_ms_per_image": {"folded": 0.5}}))
    monkeypatch.setattr(verdicts, "bare", lambda model, x: 1.5)
    assert verdicts.main(words) == 0
    cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].split("|")[1:-1]]
    assert cells[-3:-1] == ["1.50", "21"] and float(cells[-1]) > 0
    (tmp_path / "verdicts.json").write_text(json.dumps({"rows": [row], "bare_ms_per_image": {"folded": 0.5}}))
    assert verdicts.main(words) == 2 and "cpu_seconds missing" in capsys.readouterr().err
    (tmp_path / "verdicts.json").write_text("{}")
    assert verdicts.main(words) == 2 and "should hold rows of verdicts" in capsys.readouterr().err
