"""A run goes on from another folder, after its data moved, after a terminal was closed; several processes tell what went wrong once."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from robustlab import files
from robustlab.errors import UserError
from robustlab.training import distributed, trainer
from robustlab.training.distributed import World, join, launch_words

REPOSITORY = Path(__file__).parents[2]
LIGHT = ["--device", "cpu", "--threads", "1", "--workers", "0"]
MLP = ["--arch", "mlp", "--epochs", "2", "--batch-size", "16", *LIGHT]


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


# Places


def test_relative_places_lead_there_from_any_folder(call, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    shutil.copytree(data, tmp_path / "here" / "set")
    monkeypatch.chdir(tmp_path / "here")
    assert call("train", *MLP, "--data", "set", "--out", "first").code == 0
    assert call("train", *MLP, "--data", "set", "--test-data", "set", "--init", "first/model.json", "--out", "run").code == 0
    found = json.loads(Path("run/settings.json").read_text())
    assert found["data"]["path"] == found["data"]["test_data"] == str(tmp_path / "here" / "set")
    assert found["training"]["network"]["init"] == str(tmp_path / "here" / "first" / "model.json")
    before = weights(Path("run"))
    for name in ("last.pt", "best.pt", "model.safetensors", "metrics.jsonl"):
        Path("run", name).unlink()  # as if it was killed before its first checkpoint, so that it needs all of its places
    monkeypatch.chdir(tmp_path / "there")
    assert call("train", "--resume", "../here/run").code == 0
    assert weights(tmp_path / "here" / "run") == before
    monkeypatch.chdir(tmp_path / "here")
    assert call("train", "--resume", "run", "--data", "set", "--test-data", "set", "--init", "first/model.json").code == 0


@pytest.mark.parametrize("flag", ["--data", "--test-data"])
def test_images_may_have_moved_and_the_printed_command_says_where_they_are(call, refused, monkeypatch, data, tmp_path, flag: str) -> None:
    (tmp_path / "old").mkdir()
    shutil.copytree(data, tmp_path / "old" / "set")
    out, places = tmp_path / "run", {"--data": tmp_path / "old" / "set", "--test-data": tmp_path / "old" / "set"}
    interrupt_after(monkeypatch, 1)
    words = [word for pair in places.items() for word in pair]
    assert call("train", *MLP, *words, "--out", out).code == 130
    shutil.copytree(data, tmp_path / "called otherwise")
    if flag == "--data":
        shutil.rmtree(tmp_path / "old" / "set")
        words = [flag, tmp_path / "called otherwise", "--test-data", tmp_path / "called otherwise"]
    else:
        words = [flag, tmp_path / "called otherwise"]
    interrupt_after(monkeypatch, 1)
    told = call("train", "--resume", out, *words)
    assert told.code == 130
    printed = re.search(r"go on with: robustlab (.*)$", told.err, re.MULTILINE)
    assert printed is not None and str(tmp_path / "called otherwise") in printed[1]
    assert call(*shlex.split(printed[1])).code == 0
    assert call("train", *MLP, "--data", data, "--out", tmp_path / "whole").code == 0
    assert weights(out) == weights(tmp_path / "whole")


def interrupt_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Ctrl-C after so many steps of the next training, and never again."""
    fit, left = trainer.fit, [steps]

    def interrupted(*args: Any, on_step: Callable[[Any], object], **options: Any) -> Any:
        def step(state: Any) -> None:
            on_step(state)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGINT)

        return fit(*args, on_step=step, **options)

    monkeypatch.setattr(trainer, "fit", interrupted)


@pytest.mark.filterwarnings("ignore:D_rand needs a standard model")
def test_a_set_goes_on_where_its_images_have_moved(call, data: Path, tmp_path: Path) -> None:
    assert call("train", *MLP, "--data", data, "--out", tmp_path / "run").code == 0
    words = [
        "construct",
        "--kind",
        "D_rand",
        "--steps",
        "1",
        "--model",
        tmp_path / "run" / "model.json",
        "--limit",
        "12",
        "--shard-size",
        "4",
    ]
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        shutil.copy(data / "train.npz", tmp_path / name / f"{name}.npz")
    light = ["--device", "cpu", "--threads", "1", "--split", "train"]
    assert call(*words, *light, "--data", tmp_path / "old" / "old.npz", "--out", tmp_path / "set").code == 0
    shard = tmp_path / "set" / "shards" / "00001.safetensors"
    before, manifest = shard.read_bytes(), (tmp_path / "set" / "manifest.json").read_bytes()
    shard.unlink()
    assert call(*words, *light, "--data", tmp_path / "new" / "new.npz", "--out", tmp_path / "set").code == 0
    assert shard.read_bytes() == before and (tmp_path / "set" / "manifest.json").read_bytes() == manifest


# One process in a folder


def test_two_trainings_in_one_folder_at_the_same_time(call, refused, monkeypatch, data: Path, tmp_path: Path) -> None:
    out, said, fit = tmp_path / "run", [], trainer.fit

    def meanwhile(*args: Any, **options: Any) -> Any:
        if not said:
            said.append("")
            said[0] = refused("train", "--resume", out)
        return fit(*args, **options)

    monkeypatch.setattr(trainer, "fit", meanwhile)
    assert call("train", *MLP, "--data", data, "--out", out).code == 0
    assert f"another process works on the run in {out}" in said[0]
    assert not list(out.glob(".*"))


@pytest.mark.parametrize("left", [".run.123.tmp", ".settings.json.7.tmp", ".lock", ".DS_Store"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_hidden_blocks_no_run_and_what_is_not_ours_stays(call, data: Path, tmp_path: Path, left: str, kind: str) -> None:
    if (left, kind) == (".lock", "folder"):
        pytest.skip("nobody makes that")
    out = tmp_path / "run"
    (out / left).mkdir(parents=True) if kind == "folder" else out.mkdir()
    (out / left / "x" if kind == "folder" else out / left).write_text("left")
    for words in (["train", *MLP, "--data", data, "--out", out], ["train", "--resume", out]):
        assert call(*words).code == 0
        assert (out / left).exists() == (left == ".DS_Store")


def test_leftovers_of_an_export_are_taken_away_by_the_next_one_to_the_same_place(call, data: Path, tmp_path: Path) -> None:
    words = ["export", "--data", data, "--format", "npz", "--out"]
    for name in ("mine", "others"):
        (tmp_path / f".{name}.123.tmp").mkdir()
        (tmp_path / f".{name}.123.tmp" / "half").write_text("of it")
    assert call(*words, tmp_path / "mine").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [".others.123.tmp", "mine"]
    with files.file_lock(tmp_path / ".theirs.lock"):
        told = call(*words, tmp_path / "theirs")
    assert told.code == 2 and "another process writes" in told.err


# A terminal that is closed


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_saves_the_run_as_sigterm_does(call, data: Path, tmp_path: Path, number: int) -> None:
    """Its bar has no terminal any more by the time that the step ends."""
    out, (ours, theirs) = tmp_path / "run", os.openpty()
    words = [*MLP, "--epochs", "3000", "--data", str(data), "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "scripts/train.py", *words], cwd=REPOSITORY, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    deadline = time.monotonic() + 120
    os.set_blocking(ours, False)
    while not ((out / "metrics.jsonl").exists() and (out / "metrics.jsonl").read_bytes().count(b"\n") > 2):
        assert process.poll() is None and time.monotonic() < deadline
        try:
            os.read(ours, 1 << 16)
        except BlockingIOError:
            time.sleep(0.01)
    os.close(ours)
    process.send_signal(number)
    assert process.wait(timeout=60) == 130
    saved = torch.load(out / "last.pt", weights_only=True)
    assert saved["epoch"] >= 3
    lines = (out / "metrics.jsonl").read_bytes().count(b"\n")
    assert saved["epoch"] == lines


# Several processes


@pytest.mark.parametrize(
    "environment, sentence",
    [
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE, the number of processes, is 'x'"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE, the number of processes, is '0'"),
        ({"WORLD_SIZE": "2"}, "RANK, this process's number, is ''"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK, this process's number, is '2'"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR does not say where the processes meet"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1"}, "MASTER_PORT, the port where the processes meet, is ''"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "x"}, "MASTER_PORT"),
    ],
)
def test_an_environment_that_names_no_meeting_is_told(monkeypatch, refused, data, environment: dict[str, str], sentence: str) -> None:
    for name in ("WORLD_SIZE", "RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=re.escape(sentence)):
        join(torch.device("cpu"))
    assert sentence in refused("train", *MLP, "--data", data)


def test_who_never_comes_is_waited_for_as_long_as_the_message_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "PATIENCE", distributed.timedelta(seconds=1.5))
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"process 0 of 2 did not meet the others at 127.0.0.1:\d+ within 0.025 minutes"):
        join(torch.device("cpu"))
    assert time.monotonic() - began < 30


def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def two_processes(out: Path, data: Path, second: str) -> list[subprocess.Popen[str]]:
    """A training by two processes; what the second does after its third step, in Python."""
    port, found = free_port(), []
    for rank in range(2):
        code = (
            "import os, signal, time\n"
            "from datetime import timedelta\n"
            "from robustlab.commands import main\n"
            "from robustlab.training import distributed, trainer\n"
            "distributed.PATIENCE = timedelta(seconds=6)\n"
            "fit, steps = trainer.fit, []\n"
            "def watched(*args, on_step, **options):\n"
            "    def step(state):\n"
            "        on_step(state)\n"
            "        steps.append(0)\n"
            f"        if {rank} == 1 and len(steps) == 3: {second}\n"
            "    return fit(*args, on_step=step, **options)\n"
            "trainer.fit = watched\n"
            f"raise SystemExit(main({['train', *MLP, '--data', str(data), '--out', str(out)]!r}))\n"
        )
        environment = {"WORLD_SIZE": "2", "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": "2"}
        found.append(
            subprocess.Popen(
                [sys.executable, "-c", code], cwd=REPOSITORY, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True
            )
        )
    return found


@pytest.mark.slow
@pytest.mark.parametrize("what", ["os.kill(os.getpid(), signal.SIGKILL)", "time.sleep(60)"], ids=["gone", "hanging"])
def test_a_process_that_is_gone_or_hangs_ends_the_others_with_one_sentence(data: Path, tmp_path: Path, what: str) -> None:
    first, second = two_processes(tmp_path / "run", data, what)
    _, err = first.communicate(timeout=120)
    second.kill()
    second.communicate()
    assert first.returncode == 2 and "Traceback" not in err, err
    sentences = [line for line in err.splitlines() if line.startswith("robustlab: ")]
    assert len(sentences) == 1
    assert "another of the 2 processes has gone, or has not answered for 0.1 minutes; go on with: torchrun --standalone" in sentences[0]
    assert sentences[0].endswith(f"--nproc-per-node 2 -m robustlab train --resume {tmp_path / 'run'}")


def test_a_mistake_that_all_make_is_told_by_one(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "scripts/train.py"]
    words = [*launch, *MLP, "--data", str(data), "--arch", "mlpp", "--out", str(out)]
    told = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=240)
    assert told.returncode != 0 and told.stderr.count("unknown architecture 'mlpp'") == 1 and not out.exists()


def test_the_printed_command_starts_as_many_processes_on_as_many_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert launch_words(World()) == ["robustlab"]
    assert launch_words(World(0, 4)) == ["torchrun", "--standalone", "--nproc-per-node", "4", "-m", "robustlab"]
    for name, value in {"LOCAL_WORLD_SIZE": "2", "GROUP_WORLD_SIZE": "2", "MASTER_ADDR": "first", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    several = ["--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", "first:29500", "--nproc-per-node", "2"]
    assert launch_words(World(0, 4)) == ["torchrun", *several, "-m", "robustlab"]


# What can be known is told before the first step


@pytest.mark.parametrize("command", ["train", "evaluate", "construct", "export", "synthesize", "reproduce", "quickstart"])
def test_a_place_that_is_below_a_file_is_told_before_any_work(call, refused, monkeypatch, data: Path, tmp_path: Path, command: str) -> None:
    assert call("train", *MLP, "--data", data, "--out", tmp_path / "run").code == 0
    (tmp_path / "file").write_text("")
    out, model = tmp_path / "file" / "out", ["--model", tmp_path / "run" / "model.json"]

    def work(*args: Any, **options: Any) -> Any:
        raise AssertionError("it has begun")

    monkeypatch.setattr(trainer, "fit", work)
    monkeypatch.setattr("robustlab.optimize.minimize", work)
    light = ["--device", "cpu", "--threads", "1"]
    words = {
        "train": [*MLP, "--data", data],
        "evaluate": [*model, *light, "--data", data],
        "construct": [*model, *light, "--kind", "D_det", "--data", data],
        "export": ["--data", data, "--format", "npz"],
        "synthesize": ["translate", *model, *light, "--data", data],
        "reproduce": ["known-features", *light],
        "quickstart": [*light],
    }
    assert "cannot write" in refused(command, *words[command], "--out", out)
