"""Laws of run folders: one folder, one set of settings; whatever was written is whole and comes back."""

from __future__ import annotations

import json
import math
import pickle
from dataclasses import asdict, dataclass

import pytest
import torch
from laws import small_files
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from robustlab import records
from robustlab.errors import UserError
from robustlab.options import group, option, positive, radius
from robustlab.records import Board, Run, differences

SETTINGS = {"eps": 0.5, "norm": "l2", "epochs": 3, "threads": None, "radii": (0.1, 0.2)}


@pytest.fixture
def run(tmp_path):
    run = Run.create(tmp_path / "run", SETTINGS)
    yield run
    run.close()


def test_a_new_run_says_what_was_asked_and_where_it_ran(run):
    assert json.loads((run.folder / "settings.json").read_text()) == {**SETTINGS, "radii": [0.1, 0.2]}
    environment = json.loads((run.folder / "environment.json").read_text())
    assert environment["torch"] == torch.__version__ and environment["threads"] == torch.get_num_threads()
    assert {"python", "torchvision", "processor", "gpus", "commit", "command"} <= environment.keys()


def test_an_empty_folder_is_taken(tmp_path):
    assert Run.create(tmp_path, SETTINGS).metrics == []


def test_a_folder_that_holds_a_run_is_not_taken_again(run):
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    with pytest.raises(UserError, match="holds a run already: .*`resume`.*`out`"):
        Run.create(run.folder, SETTINGS)
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before


def test_a_folder_of_other_files_or_a_file_is_not_taken(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    for place in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(UserError, match="is not an empty folder: .*`out`"):
            Run.create(place, SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_run_is_reopened_with_its_settings(run):
    run.log({"epoch": 0, "loss": 2.5})
    assert Run.reopen(run.folder, SETTINGS).metrics == [{"epoch": 0, "loss": 2.5}]


def test_a_folder_is_opened_whether_or_not_there_is_a_run_in_it(tmp_path):
    assert not Run.is_run(tmp_path / "run")
    Run.open(tmp_path / "run", SETTINGS).log({"epoch": 0})
    assert Run.is_run(tmp_path / "run") and Run.settings_of(tmp_path / "run")["eps"] == 0.5
    assert Run.open(tmp_path / "run", SETTINGS).metrics == [{"epoch": 0}]
    with pytest.raises(UserError, match="holds a set with other settings .eps: 0.5 there, 1.0 here.: name another folder with `out`"):
        Run.open(tmp_path / "run", {**SETTINGS, "eps": 1.0}, what="set")
    Run.open(tmp_path / "run", {**SETTINGS, "eps": 1.0}, ["eps"])


def test_settings_of_an_older_form_are_read_as_the_caller_says(run):
    renamed = {name.replace("eps", "radius"): value for name, value in SETTINGS.items()}
    with pytest.raises(UserError, match="radius: None there, 0.5 here"):
        Run.reopen(run.folder, renamed)
    Run.reopen(run.folder, renamed, read=lambda found: {name.replace("eps", "radius"): value for name, value in found.items()})


@dataclass(frozen=True)
class Attack:
    """The attack."""

    eps: float = option(0.5, "radius", radius)
    steps: int = option(10, "steps", positive, name="attack_steps")


@dataclass(frozen=True)
class Settings:
    """Settings in groups."""

    attack: Attack = group(Attack)
    device: str = option("cpu", "where")


def test_settings_in_groups_are_written_so_and_told_apart_by_their_whole_names(tmp_path):
    Run.create(tmp_path, Settings())
    assert json.loads((tmp_path / "settings.json").read_text()) == {"attack": {"eps": 0.5, "steps": 10}, "device": "cpu"}
    Run.reopen(tmp_path, Settings())
    with pytest.raises(UserError, match=r"\(attack.eps: 0.5 there, 1.0 here; device: 'cpu' there, 'cuda' here\)"):
        Run.reopen(tmp_path, Settings(Attack(eps=1.0), "cuda"))
    Run.reopen(tmp_path, Settings(Attack(eps=1.0, steps=3), "cuda"), free=["attack", "device"])
    Run.reopen(tmp_path, Settings(Attack(steps=3), "cuda"), free=["attack_steps", "device"])


@pytest.mark.parametrize(
    "old", [{"eps": 0.5, "attack_steps": 10, "device": "cpu"}, {"eps": 0.5}, {**asdict(Settings()), "gone": 1}], ids=str
)
def test_flat_settings_of_before_are_read_as_groups(tmp_path, old):
    Run.create(tmp_path, old)
    Run.reopen(tmp_path, Settings())
    with pytest.raises(UserError, match="attack.eps: 0.5 there, 1.0 here"):
        Run.reopen(tmp_path, Settings(Attack(eps=1.0)))


def test_other_settings_are_refused_naming_each_difference(run):
    with pytest.raises(UserError, match="other settings") as error:
        Run.reopen(run.folder, {**SETTINGS, "eps": 1.0, "epochs": 3, "new": 1})
    assert "(eps: 0.5 there, 1.0 here; new: None there, 1 here)" in str(error.value)
    assert "norm" not in str(error.value)


@pytest.mark.parametrize("content", [None, "", "{", "[1, 2]", b"\xff\xfe"], ids=repr)
def test_a_folder_without_readable_settings_is_no_run(tmp_path, content):
    if content is not None:
        (tmp_path / "settings.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match="settings.json .*a run's settings"):
        Run.reopen(tmp_path, SETTINGS)


def test_metrics_come_back_in_their_order(run):
    lines = [{"epoch": epoch, "loss": 1 / (epoch + 1), "val/PGD-20 (L2 eps=0.5)": 0.5} for epoch in range(3)]
    for line in lines:
        run.log(line)
    assert [json.loads(text) for text in (run.folder / "metrics.jsonl").read_text().splitlines()] == lines
    assert Run.reopen(run.folder, SETTINGS).metrics == lines


def test_epochs_that_run_again_are_forgotten(run):
    for epoch in range(4):
        run.log({"epoch": epoch, "loss": epoch})
    run.close()
    again = Run.reopen(run.folder, SETTINGS)
    again.keep_epochs_before(2)
    again.log({"epoch": 2, "loss": 20})
    again.close()
    assert [line["loss"] for line in Run.reopen(run.folder, SETTINGS).metrics] == [0, 1, 20]


def test_a_line_is_added_without_touching_those_before(run):
    for epoch in range(3):
        run.log({"epoch": epoch})
    inode, before = run.log_file.stat().st_ino, run.log_file.read_bytes()
    run.log({"epoch": 3})
    assert run.log_file.stat().st_ino == inode and run.log_file.read_bytes().startswith(before)


@pytest.mark.parametrize("left", [0, 1, 5, 11])
def test_half_a_line_that_a_kill_left_is_taken_away(run, left):
    run.log({"epoch": 0, "loss": 2.5})
    whole = run.log_file.read_bytes()
    run.log_file.write_bytes(whole + b'{"epoch": 1, "loss": 1.5}\n'[:left])
    again = Run.reopen(run.folder, SETTINGS)
    assert again.metrics == [{"epoch": 0, "loss": 2.5}] and run.log_file.read_bytes() == whole
    again.log({"epoch": 1, "loss": 9.0})
    again.close()
    assert Run.reopen(run.folder, SETTINGS).metrics[1] == {"epoch": 1, "loss": 9.0}


@pytest.mark.parametrize("content", [b'{"epoch"\n{"epoch": 1}\n', b"[1]\n", b'{"loss": 1}\n', b"\xff\n"], ids=repr)
def test_a_log_that_is_damaged_in_its_middle_is_named(run, content):
    run.log_file.write_bytes(content)
    with pytest.raises(UserError, match="metrics.jsonl"):
        Run.reopen(run.folder, SETTINGS)
    assert run.log_file.read_bytes() == content


def test_a_log_may_go_by_steps(run):
    for step in range(0, 40, 10):
        run.log({"step": step, "epoch": 0, "margin": step / 10})
    run.close()
    again = Run.reopen(run.folder, SETTINGS)
    again.keep_steps_before(20)
    again.log({"step": 20, "margin": 7.0})
    again.close()
    assert [(line["step"], line["margin"]) for line in Run.reopen(run.folder, SETTINGS).metrics] == [(0, 0), (10, 1), (20, 7)]
    board = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in board.Scalars("margin")] == [(0, 0), (10, 1), (20, 7)]


def test_a_line_without_epoch_and_step_is_a_mistake_of_ours(run):
    with pytest.raises(KeyError):
        run.log({"loss": 1.0})
    assert run.metrics == [] and not run.log_file.exists()


def test_a_board_needs_no_run_and_says_where_it_cannot_write(tmp_path):
    with Board(tmp_path / "board") as board:
        board.number("objective", 0.5, 3)
        board.picture("picture", torch.zeros(3, 4, 4), 0)
    found = EventAccumulator(str(tmp_path / "board")).Reload()
    assert [(e.step, e.value) for e in found.Scalars("objective")] == [(3, 0.5)] and found.Tags()["images"] == ["picture"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=f"cannot write {tmp_path / 'file'}: "):
        Board(tmp_path / "file")


def test_tensorboard_gets_the_numbers_and_the_pictures(run):
    run.log({"epoch": 0, "loss": 2.5, "note": "words are no curve"})
    run.log({"epoch": 1, "loss": 1.5, "note": ""})
    run.picture("examples", torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)), 1)
    run.close()
    board = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in board.Scalars("loss")] == [(0, 2.5), (1, 1.5)]
    assert board.Tags()["scalars"] == ["loss"] and board.Tags()["images"] == ["examples"]


def test_a_checkpoint_comes_back_as_it_was(run):
    checkpoint = {"weights": {"w": torch.arange(6.0).reshape(2, 3)}, "epoch": 3, "best": {"value": 0.5}, "random": torch.get_rng_state()}
    run.save("last", checkpoint)
    loaded = run.load("last")
    assert loaded["epoch"] == 3 and loaded["best"] == {"value": 0.5}
    assert torch.equal(loaded["weights"]["w"], checkpoint["weights"]["w"]) and torch.equal(loaded["random"], checkpoint["random"])
    assert run.load("best") is None


@pytest.mark.parametrize(
    "damage, sentence",
    [
        (lambda content: b"", "the checkpoint of a run .*last.pt is empty"),
        (lambda content: content[: len(content) // 2], "last.pt is a damaged or incomplete checkpoint of a run"),
        (lambda content: b"PK" + bytes(500), "last.pt is a damaged or incomplete checkpoint of a run"),
    ],
)
def test_a_damaged_checkpoint_is_named(run, damage, sentence):
    run.save("last", {"w": torch.ones(1000)})
    path = run.folder / "last.pt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=sentence):
        run.load("last")


class Trap:
    """What a foreign pickle can do: run code of its choice when it is read."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code from a checkpoint was run')",))


def test_a_checkpoint_that_would_run_code_is_refused(run):
    torch.save({"w": Trap()}, run.folder / "last.pt")
    (run.folder / "best.pt").write_bytes(pickle.dumps(Trap(), protocol=2))
    for name in ("last", "best"):
        with pytest.raises(UserError, match=f"{name}.pt would run code when read .*exec"):
            run.load(name)


def test_a_full_disk_keeps_the_checkpoint_and_the_metrics_of_before(run):
    run.save("last", {"w": torch.zeros(2)})
    with small_files(4000), pytest.raises(UserError, match="cannot write .*last.pt: File too large"):
        run.save("last", {"w": torch.zeros(100_000)})
    assert torch.equal(run.load("last")["w"], torch.zeros(2))
    run.log({"epoch": 0, "loss": 1.0})
    run.close()
    with small_files(1000), pytest.raises(UserError, match="cannot write .*metrics.jsonl: File too large"):
        Run.reopen(run.folder, SETTINGS).log({"epoch": 1, "note": "x" * 5000})
    assert Run.reopen(run.folder, SETTINGS).metrics == [{"epoch": 0, "loss": 1.0}]
    assert {path.name for path in run.folder.iterdir()} == {"settings.json", "environment.json", "metrics.jsonl", "tensorboard", "last.pt"}


def test_a_loss_that_is_no_number_does_not_spoil_the_folder(run):
    """Settings and metrics must stay readable: they are all that is left of a run that diverged."""
    run.log({"epoch": 0, "loss": math.nan})
    assert math.isnan(Run.reopen(run.folder, SETTINGS).metrics[0]["loss"])


def test_the_commit_is_told_or_none():
    commit = records.commit()
    assert commit is None or len(commit.rstrip("+")) >= 7


@pytest.mark.parametrize(
    "before, now, told",
    [
        ({"eps": 0.5, "norm": "l2"}, {"norm": "l2", "eps": 0.5}, ""),
        ({"eps": 0.5, "norm": "l2"}, {"eps": 1.0, "norm": "l1"}, "eps: 0.5 there, 1.0 here; norm: 'l2' there, 'l1' here"),
        ({"old": 1}, {"new": 2}, "new: None there, 2 here; old: 1 there, None here"),
        ({"a": {"b": {"c": 1, "d": 2}}}, {"a": {"b": {"c": 1, "d": 3}}}, "a.b.d: 2 there, 3 here"),
        ({"a": {"b": 1}}, {"a": "none"}, "a: None there, 'none' here; a.b: 1 there, None here"),
        ({"radii": [0.1, 0.2]}, {"radii": (0.1, 0.2)}, ""),
        ({"radii": [0.1, 0.2]}, {"radii": (0.1, 0.3)}, "radii: [0.1, 0.2] there, [0.1, 0.3] here"),
        ({}, {}, ""),
    ],
)
def test_differences_are_named_one_by_one_as_json_would_hold_them(before, now, told):
    assert differences(before, now) == told


def test_settings_do_not_differ_from_what_was_written_of_them():
    assert differences(json.loads(json.dumps(SETTINGS)), SETTINGS) == ""
