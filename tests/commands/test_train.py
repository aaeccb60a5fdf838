"""``robustlab train``: ended in any way it can be resumed to the same bits, it chooses without the test set, it says what is wrong."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from robustlab import files, training
from robustlab.commands import common, settings
from robustlab.commands import train as command
from robustlab.commands.flags import parse
from robustlab.data.catalog import open_dataset
from robustlab.evaluation import Rate
from robustlab.models.zoo import build, load
from robustlab.options import changed, flat, from_file, words
from robustlab.settings import Network
from robustlab.training import RECIPES, image_trainer, prepare, start, trainer
from robustlab.training.method import method_of

REPOSITORY = Path(__file__).parents[2]
CPU = torch.device("cpu")
EPOCHS, STEPS = 3, 3
# 48 images to train on and 12 to choose by; the network has BatchNorm, the recipe attacks, the result is an average.
SMALL = ["--arch", "small", "--recipe", "madry-linf", "--steps", "2", "--epochs", str(EPOCHS), "--batch-size", "16", "--ema", "0.8"]
LIGHT = ["--device", "cpu", "--threads", "1", "--workers", "0"]
MLP = ["--arch", "mlp", "--epochs", "1", "--batch-size", "16", *LIGHT]
CLOCK = ("seconds", "images_per_second")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    command.run(parse(settings.Train, [*SMALL, *LIGHT, "--data", str(data), "--out", str(out)], "train"))
    return out


@pytest.fixture
def saving_after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "SAVE_EVERY", -1.0)


def metrics(out: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]


def checkpoint(path: Path) -> dict[str, Any]:
    """What ``torch.save`` wrote, but for the time it took."""
    saved = torch.load(path, weights_only=True)
    del saved["seconds"]
    return saved


def equal(a: Any, b: Any) -> bool:
    """Bit for bit, through dicts and lists."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def assert_same_run(out: Path, whole: Path) -> None:
    assert metrics(out) == metrics(whole)
    for name in ("last.pt", "best.pt"):
        assert equal(checkpoint(out / name), checkpoint(whole / name)), name
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert json.loads((out / "model.json").read_text())["accuracies"] == json.loads((whole / "model.json").read_text())["accuracies"]
    assert not list(out.glob(".*"))


# Resuming


def test_a_run_can_be_repeated_to_the_bit(call, data: Path, whole: Path, tmp_path: Path) -> None:
    assert call("train", *SMALL, *LIGHT, "--data", data, "--out", tmp_path / "run").code == 0
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.parametrize(
    "number, step", [(signal.SIGINT, 1), (signal.SIGTERM, STEPS), (signal.SIGINT, STEPS + 2), (signal.SIGTERM, EPOCHS * STEPS)]
)
def test_a_signal_writes_last_and_the_printed_command_goes_on(call, monkeypatch, data, whole, tmp_path, number: int, step: int) -> None:
    out = tmp_path / "a run"
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "fit", sending(number, step))
        told = call("train", *SMALL, *LIGHT, "--data", data, "--out", out)
    assert told.code == 130
    last = checkpoint(out / "last.pt")
    assert last["epoch"] * STEPS + last["step"] == step
    printed = re.search(r"^stopped in epoch \d of 3; go on with: robustlab (.*)$", told.err, re.MULTILINE)
    assert printed, told.err
    assert call(*shlex.split(printed[1])).code == 0
    assert_same_run(out, whole)


def sending(number: int, step: int) -> Callable[..., Iterator[Any]]:
    """The training loop, in which this process gets a signal after so many steps."""
    fit = trainer.fit

    def interrupted(*args: Any, on_step: Callable[[Any], None], **options: Any) -> Iterator[Any]:
        def on_step_and_once_a_signal(state: Any) -> None:
            nonlocal step
            on_step(state)
            step -= 1
            if step == 0:
                os.kill(os.getpid(), number)

        return fit(*args, on_step=on_step_and_once_a_signal, **options)

    return interrupted


def test_a_signal_while_validating_ends_the_run_after_that_epoch(call, monkeypatch, data, whole, tmp_path) -> None:
    out = tmp_path / "run"
    evaluate = image_trainer.evaluate

    def interrupted(*args: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(image_trainer, "evaluate", interrupted)
        assert call("train", *SMALL, *LIGHT, "--data", data, "--out", out).code == 130
    last = checkpoint(out / "last.pt")
    assert (last["epoch"], last["step"], len(metrics(out))) == (1, 0, 1)
    assert call("train", "--resume", out).code == 0
    assert_same_run(out, whole)


class Killed(BaseException):
    """Nothing in the code may catch it, as nothing can catch SIGKILL."""


def test_killed_while_it_writes_any_of_its_files_it_goes_on_to_the_same_bits(
    call, monkeypatch, saving_after_every_step, data, tmp_path
) -> None:
    def start(out: Path) -> list[object]:
        return ["train", *MLP, "--epochs", "2", "--no-test", "--ema", "0.8", "--data", data, "--out", out]

    def write_or_die(path: Any, content: bytes) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            Path(path).parent.mkdir(exist_ok=True)
            Path(path).with_name(f".{Path(path).name}.1.tmp").write_bytes(bytes(content)[:100])
            raise Killed
        write_bytes(path, content)

    def append_or_die(path: Any, content: bytes) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            append_bytes(path, content[: len(content) // 2])
            raise Killed
        append_bytes(path, content)

    write_bytes, append_bytes, left = files.write_bytes, files.append_bytes, 0
    monkeypatch.setattr(files, "write_bytes", write_or_die)
    monkeypatch.setattr(files, "append_bytes", append_or_die)
    assert call(*start(tmp_path / "whole")).code == 0
    writes = -left
    assert writes > 2 + 2 * (STEPS + 2)
    for victim in range(1, writes + 1):
        out, left = tmp_path / str(victim), victim
        with pytest.raises(Killed):
            call(*start(out))
        # The settings come first: without them there is no run yet, and the same command starts it.
        assert call(*(["train", "--resume", out] if victim > 1 else start(out))).code == 0
        assert_same_run(out, tmp_path / "whole")


def test_kill_9_and_resume_gives_the_same_bits(call, data: Path, tmp_path: Path) -> None:
    """A process of its own, killed wherever it happens to be; it saves after every step, so mostly within an epoch."""
    out, longer = tmp_path / "run", ["--epochs", "6", "--no-test", "--awp", "0.01"]
    arguments = ["train", *SMALL, *LIGHT, *longer, "--data", str(data)]
    setup = "from robustlab.commands import main; from robustlab.training import trainer; trainer.SAVE_EVERY = -1.0"
    code = f"{setup}; main({[*arguments, '--out', str(out)]!r})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    wait_for(lambda: (out / "metrics.jsonl").exists() and len(metrics(out)) >= 2, process)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    done = len(metrics(out))
    assert 2 <= done < 6
    assert call("train", "--resume", out).code == 0
    assert call(*arguments, "--out", tmp_path / "whole").code == 0
    assert_same_run(out, tmp_path / "whole")


def wait_for(happened: Callable[[], bool], process: subprocess.Popen) -> None:
    limit = time.monotonic() + 120
    while not happened():
        assert process.poll() is None, f"it ended with {process.returncode} before"
        assert time.monotonic() < limit
        time.sleep(0.005)


def test_sigterm_ends_a_process_with_130(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = [*SMALL, *LIGHT, "--epochs", "1000", "--data", str(data), "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "scripts/train.py", *arguments], cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_for((out / "metrics.jsonl").exists, process)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"go on with: robustlab train --resume {out}\n" in err and "Traceback" not in err
    assert checkpoint(out / "last.pt")["epoch"] >= 1


def test_a_finished_run_resumed_is_tested_again_and_stays_as_it_is(call, data: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert call("train", *SMALL, *LIGHT, "--data", data, "--out", out).code == 0
    told = call("train", "--resume", "--out", out)
    assert told.code == 0 and "test clean: " in told.out and "epoch   1/3" not in told.out
    assert_same_run(out, whole)


def test_device_threads_and_workers_may_change_and_nothing_else(call, refused, monkeypatch, data, whole, tmp_path) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "fit", sending(signal.SIGINT, 4))
        assert call("train", *SMALL, *LIGHT, "--data", data, "--out", out).code == 130
    said = refused("train", "--resume", out, "--lr", "0.3")
    assert f"{out} was started with --lr 0.1, not 0.3" in said
    assert "was started with --seed 0, not 1" in refused("train", "--resume", out, "--seed", "1")
    assert "was started with --epochs 3, not 4" in refused("train", "--resume", out, "--epochs", "4")
    assert "--out" in refused("train", "--resume", out, "--out", tmp_path / "other")
    asked = []
    choose = command.choose_device
    monkeypatch.setattr(command, "choose_device", lambda *args: asked.append(args) or choose(*args))
    assert call("train", "--resume", out, "--workers", "1", "--threads", "1", "--device", "cpu", "--lr", "0.1").code == 0
    assert asked[0] == ("cpu", 1)
    assert_same_run(out, whole)


def test_a_run_from_before_settings_were_in_groups_goes_on(call, refused, monkeypatch, data, whole, tmp_path) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "fit", sending(signal.SIGINT, 4))
        assert call("train", *SMALL, *LIGHT, "--data", data, "--out", out).code == 130
    found = json.loads((out / "settings.json").read_text())
    before = flat(from_file(settings.Train, found, "settings.json", passed_over=True))
    (out / "settings.json").write_text(json.dumps({n: v for n, v in before.items() if n not in ("optimizer", "accumulate", "cache")}))
    assert f"{out} was started with --lr 0.1, not 0.3" in refused("train", "--resume", out, "--lr", "0.3")
    assert call("train", "--resume", out).code == 0
    assert_same_run(out, whole)


def test_the_images_of_a_run_may_have_moved_but_must_be_the_same(call, refused, data: Path, tmp_path: Path) -> None:
    first, out = tmp_path / "first", tmp_path / "run"
    shutil.copytree(data, first)
    assert call("train", *MLP, "--data", first, "--out", out).code == 0
    first.rename(tmp_path / "second")
    assert call("train", "--resume", out, "--data", tmp_path / "second").code == 0
    named(tmp_path / "second" / "train.npz", 63, ["red", "green", "blue"])
    said = refused("train", "--resume", out, "--data", tmp_path / "second")
    assert f"{out} holds a run with other settings (images.fingerprint: " in said and "images.n: 60 there, 63 here" in said


def test_a_run_from_python_goes_on_there(refused, data: Path, tmp_path: Path) -> None:
    training.train(open_dataset(None, data), arch="mlp", epochs=1, batch_size=16, out=tmp_path / "run", device="cpu", progress=False)
    assert "was trained from Python, on images of its own: go on there" in refused("train", "--resume", tmp_path / "run")


# Several processes


def test_torchrun_with_two_processes_gives_the_losses_of_one_and_one_cannot_go_on_with_it(call, data: Path, tmp_path: Path) -> None:
    words = ["--arch", "small", "--recipe", "madry-linf", "--steps", "2", "--epochs", "2", "--batch-size", "16", "--lr", "0.05"]
    assert call("train", *words, *LIGHT, "--data", data, "--out", tmp_path / "one").code == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "scripts/train.py"]
    told = subprocess.run(
        [*launch, *words, *LIGHT, "--data", str(data), "--out", str(tmp_path / "two")],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert told.returncode == 0, told.stderr
    assert "warn" not in told.stderr.lower()
    assert told.stdout.count("epoch   1/2") == told.stdout.count("best epoch") == 1
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert len(one) == len(two) == 2
    for alone, shared in zip(one, two, strict=True):
        assert shared == pytest.approx(alone, abs=1e-5)
    records = [json.loads((tmp_path / name / "model.json").read_text()) for name in ("one", "two")]
    assert records[0]["accuracies"] == records[1]["accuracies"] and records[0]["n"] == records[1]["n"] == 20
    assert {path.name for path in (tmp_path / "one").iterdir()} == {path.name for path in (tmp_path / "two").iterdir()}
    assert len(list((tmp_path / "two" / "tensorboard").iterdir())) == 1
    assert json.loads((tmp_path / "two" / "settings.json").read_text())["processes"] == 2
    refused = call("train", "--resume", tmp_path / "two")
    assert refused.code == 2
    assert "was started by 2 processes, not 1: each process draws numbers of its own" in refused.err
    assert "go on with torchrun --nproc-per-node 2" in refused.err


def test_a_batch_that_the_processes_cannot_share_is_refused(data: Path) -> None:
    from robustlab.errors import UserError
    from robustlab.training.distributed import World

    args = changed(settings.Train(), data=str(data), arch="mlp", batch_size=15)
    with pytest.raises(UserError, match="multiple of the 2 processes"):
        command.train_run(args, CPU, World(0, 2))


# Choosing the best epoch


@pytest.mark.parametrize("recipe, judged_by", [("standard", "val/clean"), ("fast-linf", "val/PGD-10 (Linf eps=0.03137)")])
def test_the_best_epoch_is_chosen_by_validation_images_and_test_images_are_looked_at_once_at_the_end(
    call, monkeypatch, data, tmp_path, recipe: str, judged_by: str
) -> None:
    """MadryLab's robustness keeps the epoch that is best on the test set (train.py:347-372)."""
    out, opened, batches, weights, looked_at = tmp_path / "run", [], [], [], []

    def opening(name: str | None, root: str, split: str, **options: Any) -> Any:
        opened.append((split, len(metrics(out)) if (out / "metrics.jsonl").exists() else 0))
        return open_dataset(name, root, split, **options)

    def validating(model: Any, examples: Any, attacks: Any, **options: Any) -> Any:
        weights.append({name: value.clone() for name, value in model.state_dict().items()})
        report = evaluate(model, examples, attacks, **options)
        looked_at.append((report.clean.n, len(metrics(out)) if (out / "metrics.jsonl").exists() else 0))
        return report

    make, evaluate = prepare.Batches, image_trainer.evaluate
    monkeypatch.setattr(common, "open_dataset", opening)
    monkeypatch.setattr(prepare, "Batches", lambda *args, **options: batches.append(make(*args, **options)) or batches[-1])
    monkeypatch.setattr(image_trainer, "evaluate", validating)
    words = ["--arch", "mlp", "--recipe", recipe, "--epochs", "4", "--batch-size", "16", "--lr", "0.1", "--val-size", "9"]
    assert call("train", *words, *LIGHT, "--data", data, "--out", out).code == 0

    assert opened == [("train", 0), ("test", 0)]  # so that nothing that is wrong with them is met at the end
    assert looked_at == [(9, 0), (9, 1), (9, 2), (9, 3), (20, 4)]
    training, validation, test = ({image.numpy().tobytes() for image in b.images.fetch(torch.arange(len(b.images)))} for b in batches)
    assert (len(training), len(validation), len(test)) == (51, 9, 20)
    assert not training & validation and not training & test and not validation & test

    judged = [line[judged_by] for line in metrics(out)]
    best = judged.index(max(judged))
    assert checkpoint(out / "last.pt")["best"] == {"value": max(judged), "epoch": best}
    assert json.loads((out / "model.json").read_text())["details"]["best_epoch"] == best
    assert equal(dict(load(out / "best.pt").state_dict()), weights[best])
    assert equal(dict(load(out / "model.json").state_dict()), weights[best])


def test_training_stops_when_validation_no_longer_improves_and_stays_stopped(call, monkeypatch, data, tmp_path) -> None:
    out, found = tmp_path / "run", iter([3, 5, 5, 4, 9, 9, 9, 9])

    def judged(self: Any, validation: Any) -> Any:
        return {"clean": Rate(next(found), 12), "PGD-10 (L2 eps=0.5)": Rate(0, 12)}

    monkeypatch.setattr(image_trainer.ImageTrainer, "validate", judged)
    words = ["--arch", "mlp", "--epochs", "8", "--patience", "2", "--batch-size", "16", "--no-test"]
    assert call("train", *words, *LIGHT, "--data", data, "--out", out).code == 0
    assert [line["val/clean"] * 12 for line in metrics(out)] == [3, 5, 5, 4]
    before = checkpoint(out / "last.pt")
    assert call("train", "--resume", out).code == 0
    assert equal(checkpoint(out / "last.pt"), before) and len(metrics(out)) == 4


def test_without_a_test_set_training_is_refused_unless_there_is_to_be_no_test(call, refused, data: Path, tmp_path: Path) -> None:
    out, only = tmp_path / "run", tmp_path / "data"
    only.mkdir()
    (only / "train.npz").write_bytes((data / "train.npz").read_bytes())
    words = ["train", "--arch", "mlp", "--epochs", "1", "--batch-size", "16", *LIGHT, "--data", only, "--out", out]
    assert "has no test.npz or val.npz" in refused(*words)
    assert not out.exists()
    assert call(*words, "--no-test").code == 0
    record = json.loads((out / "model.json").read_text())
    assert record["accuracies"] == {} and record["n"] == 0


def test_a_test_set_that_is_gone_when_a_run_is_resumed_loses_nothing(call, data: Path, tmp_path: Path) -> None:
    out, only = tmp_path / "run", tmp_path / "data"
    shutil.copytree(data, only)
    words = ["--arch", "mlp", "--epochs", "1", "--batch-size", "16"]
    assert call("train", *words, *LIGHT, "--data", only, "--out", out).code == 0
    (only / "test.npz").unlink()
    told = call("train", "--resume", out)
    assert told.code == 2 and "has no test.npz or val.npz" in told.err
    # The trained run can still be turned into weights.
    assert call("train", "--resume", out, "--no-test").code == 0
    record = json.loads((out / "model.json").read_text())
    assert record["accuracies"] == {} and record["n"] == 0


# Beginning with trained weights


def test_a_run_begins_with_the_weights_it_is_given(whole: Path, data: Path) -> None:
    given = load(whole / "model.json")
    network = Network(init=str(whole / "model.json"), arch="small")
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for classes in (None, ["blue", "red"]):
            images = open_dataset(None, str(data), "train", classes=classes)
            model = start.pretrained_network_for(images, network, seed=5).eval()
            assert model.classes == images.classes and torch.equal(model.mean, given.mean) and torch.equal(model.std, given.std)
            torch.testing.assert_close(model(x), given(x)[:, given.outputs_for(images.classes, images.name)])


def test_the_last_layer_begins_anew_for_other_classes(whole: Path, tmp_path: Path) -> None:
    named(tmp_path / "train.npz", 30, ["grey", "red"])
    images = open_dataset(None, str(tmp_path), "train")
    with pytest.warns(UserWarning, match="knows other classes than"):
        model = start.pretrained_network_for(images, Network(init=str(whole / "model.json"), arch="small"), seed=5)
    given, fresh = load(whole / "model.json"), start.network_for(images, "small", seed=5)
    assert equal(dict(model.body.state_dict()), dict(given.body.state_dict()))
    assert equal(dict(model.head.state_dict()), dict(fresh.head.state_dict()))


def test_a_run_from_given_weights_can_be_resumed_and_says_where_it_began(call, refused, whole: Path, data: Path, tmp_path: Path) -> None:
    words = ["--init", whole / "model.json", "--epochs", "2", "--batch-size", "16", "--lr", "0.01", *LIGHT, "--data", data]
    assert call("train", *words, "--out", tmp_path / "once").code == 0
    assert call("train", *words, "--out", tmp_path / "twice").code == 0
    assert_same_run(tmp_path / "twice", tmp_path / "once")
    (tmp_path / "twice" / "model.safetensors").unlink()
    assert call("train", "--resume", tmp_path / "twice").code == 0
    assert_same_run(tmp_path / "twice", tmp_path / "once")
    record = json.loads((tmp_path / "once" / "model.json").read_text())
    assert record["arch"] == "small" and record["details"]["settings"]["init"] == "model.json", "the name, not the place"
    out = tmp_path / "no run"
    assert "holds a small, not the mlp asked for" in refused("train", *words, "--arch", "mlp", "--out", out)
    assert "there is no checkpoint nowhere.pt" in refused("train", "--init", "nowhere.pt", *LIGHT, "--data", data, "--out", out)
    assert not out.exists()


def test_a_resumed_run_computes_with_as_many_threads(call, monkeypatch, data: Path, tmp_path: Path) -> None:
    asked: list[int | None] = []
    monkeypatch.setattr(command, "choose_device", lambda device, threads: asked.append(threads) or CPU)
    assert call("train", *MLP, "--data", data, "--out", tmp_path / "run").code == 0
    assert call("train", "--resume", tmp_path / "run").code == 0
    assert call("train", "--resume", tmp_path / "run", "--threads", "2").code == 0
    assert asked == [1, 1, 2]


def test_a_resumed_run_needs_the_weights_it_began_with_no_more(call, refused, whole: Path, data: Path, tmp_path: Path) -> None:
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    words = ["--init", tmp_path / "model.json", "--epochs", "1", "--batch-size", "16", *LIGHT, "--data", data, "--out", tmp_path / "run"]
    assert call("train", *words).code == 0
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    (tmp_path / "model.json").unlink()
    assert call("train", "--resume", tmp_path / "run").code == 0
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before
    (tmp_path / "run" / "last.pt").unlink()
    assert "there is no checkpoint" in refused("train", "--resume", tmp_path / "run"), "it has nothing else to begin with"


def test_weights_of_another_project_begin_a_run(call, refused, monkeypatch, data: Path, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": build("mlp", num_classes=3).state_dict()}, "theirs.pt")
    words = ["--init", "theirs.pt", "--mean", "0.4,0.4,0.4", "--std", "0.3,0.3,0.3", "--epochs", "1", "--batch-size", "16", *LIGHT]
    told = call("train", *words, "--arch", "mlp", "--data", data, "--image-size", "8")
    assert told.code == 0, told
    assert load("runs/standard-mlp/model.json").mean.flatten().tolist() == pytest.approx([0.4] * 3)
    assert call("train", *words, "--data", data, "--image-size", "8", "--resume").code == 0, (
        "the folder is found by the weights' architecture"
    )
    assert "say how to read the weights of --init" in refused("train", "--mean", "0.4,0.4,0.4", *LIGHT, "--data", data)


# Some classes, and test images from elsewhere


def named(path: Path, n: int, classes: list[str] | None, dtype: Any = np.uint8, size: int = 8) -> Path:
    """A file of images whose colour tells the class by its name: red, green, blue, or grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random, colours = np.random.default_rng(n), {"red": 0, "green": 1, "blue": 2}
    names = classes or ["0", "1", "2"]
    y = np.arange(n) % len(names)
    x = random.integers(0, 160, (n, 3, size, size))
    for image, label in zip(x, y, strict=True):
        if names[label] in colours:
            image[colours[names[label]]] += 60
    pixels = x.astype(np.uint8) if dtype == np.uint8 else ((x + random.random(x.shape) / 2) / 255).astype(dtype)
    np.savez(path, x=pixels, y=y, **({"classes": np.array(classes)} if classes else {}))
    return path


def seen_in_testing(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Filled with the images of each ``Batches`` that training makes: to train on, to choose by, to test."""
    seen: list[Any] = []
    make = prepare.Batches
    monkeypatch.setattr(prepare, "Batches", lambda images, *args, **options: seen.append(images) or make(images, *args, **options))
    return seen


def test_only_some_classes_are_trained_on_and_tested(call, monkeypatch, data: Path, tmp_path: Path) -> None:
    seen, out = seen_in_testing(monkeypatch), tmp_path / "run"
    assert call("train", *MLP, "--data", data, "--classes", "blue,red", "--out", out).code == 0
    assert load(out / "model.json").classes == ("blue", "red")
    assert [images.classes for images in seen] == [("blue", "red")] * 3
    assert sum(len(images) for images in seen[:2]) == 40
    whole = open_dataset(None, data, "test")
    for images, number in ((seen[2], 0), (whole, 2)):
        blue = images.fetch((images.labels == number).nonzero()[:, 0])
        assert torch.equal(blue, whole.fetch((whole.labels == 2).nonzero()[:, 0]))


def test_a_limit_counts_among_the_chosen_classes(call, monkeypatch, data: Path, tmp_path: Path) -> None:
    seen = seen_in_testing(monkeypatch)
    words = ["--batch-size", "8", "--data", data, "--classes", "blue,red", "--limit", "12", "--out", tmp_path / "run"]
    assert call("train", *MLP, *words).code == 0
    assert len(seen[0]) + len(seen[1]) == 12 and seen[2].labels.bincount().tolist() == [6, 6]


def test_a_limit_means_the_test_images_that_evaluating_takes(call, monkeypatch, tmp_path: Path) -> None:
    seen = seen_in_testing(monkeypatch)
    assert call("train", *MLP, "--dataset", "shapes", "--limit", "30", "--out", tmp_path / "run").code == 0
    expected = open_dataset("shapes", None, "test", limit=30)
    assert torch.equal(seen[2].fetch(torch.arange(30)), expected.fetch(torch.arange(30)))


def test_test_images_come_from_elsewhere_numbered_as_those_trained_on(call, monkeypatch, tmp_path: Path) -> None:
    """Float images to train on, and more classes in another order to test on; the resumed run tests on the same."""
    seen, out = seen_in_testing(monkeypatch), tmp_path / "run"
    training = named(tmp_path / "made" / "train.npz", 60, ["red", "green", "blue"], np.float32).parent
    original = named(tmp_path / "original" / "test.npz", 40, ["blue", "grey", "red", "green"])
    named(original.with_name("train.npz"), 8, ["blue", "grey", "red", "green"])
    words = [*MLP, "--epochs", "3", "--lr", "0.02", "--data", training, "--test-data", original.parent, "--out", out]
    assert call("train", *words).code == 0
    assert all(images.classes == ("red", "green", "blue") for images in seen)
    assert seen[0].pixels.dtype == torch.float32 and seen[2].pixels.dtype == torch.uint8
    whole = open_dataset(None, original.parent, "test")
    for number, name in enumerate(("red", "green", "blue")):
        there = whole.fetch((whole.labels == whole.classes.index(name)).nonzero()[:, 0])
        assert torch.equal(seen[2].fetch((seen[2].labels == number).nonzero()[:, 0]), there)
    first = json.loads((out / "model.json").read_text())
    assert first["n"] == 30 and first["accuracies"]["clean"] > 50  # a third by chance
    assert str(tmp_path) not in json.dumps(first)

    (out / "model.json").unlink()
    assert call("train", "--resume", out).code == 0
    assert json.loads((out / "model.json").read_text())["accuracies"] == first["accuracies"]
    told = call("train", "--resume", out, "--test-data", training)
    assert told.code == 2 and "was started with --test-data" in told.err


def test_what_shapes_teach_is_tested_on_shapes(call, tmp_path, monkeypatch) -> None:
    """They lie nowhere, so that no path leads there; a run that goes on draws them again."""
    monkeypatch.chdir(tmp_path)
    images = open_dataset("shapes", limit=40)
    np.savez("made.npz", x=images.fetch(torch.arange(40)).numpy(), y=images.labels.numpy(), classes=np.array(images.classes))
    words = [*MLP, "--epochs", "1", "--data", "made.npz", "--test-data", "shapes", "--limit", "40", "--out", "run"]
    told = call("train", *words)
    assert told.code == 0 and "(n = 40)" in told.out
    assert call("train", "--resume", "run", "--test-data", "shapes").code == 0


def test_a_small_test_set_may_lack_the_last_unnamed_class(call, tmp_path: Path) -> None:
    named(tmp_path / "train.npz", 60, None)
    named(tmp_path / "test.npz", 2, None)
    assert call("train", *MLP, "--data", tmp_path, "--out", tmp_path / "run").code == 0
    assert json.loads((tmp_path / "run" / "model.json").read_text())["n"] == 2


@pytest.mark.parametrize(
    "classes, size, sentence",
    [
        (["red", "green"], 8, "unknown class 'blue'"),
        (["red", "green", "bleu"], 8, "unknown class 'blue'. Did you mean 'bleu'?"),
        (["red", "green", "blue"], 10, "are 10x10x3 (width, height, channels), but those to train on are 8x8x3"),
    ],
    ids=["too few", "another name", "another size"],
)
def test_foreign_test_images_are_refused_before_training(refused, data, tmp_path, classes: list[str], size: int, sentence: str) -> None:
    foreign = named(tmp_path / "foreign" / "test.npz", 12, classes, size=size).parent
    words = ["--dataset", "npz", "--data", data, "--test-data", foreign, "--out", tmp_path / "run"]
    named(foreign / "train.npz", 12, classes, size=size)
    assert sentence in refused("train", *MLP, *words)
    assert not (tmp_path / "run").exists()


def test_a_set_without_test_images_of_its_own_is_refused_before_training(call, refused, data: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    assert call("export", "--data", data, "--format", "released", "--out", made).code == 0
    assert "name the original data, --data or --test-data" in refused("train", *MLP, "--data", made, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert call("train", *MLP, "--data", made, "--no-test", "--out", tmp_path / "run").code == 0


@pytest.mark.parametrize(
    "classes, sentence",
    [("red,gren", "unknown class 'gren'. Did you mean 'green'?"), ("red", "needs at least two classes"), ("red,red", "named twice")],
)
def test_a_choice_of_classes_that_cannot_be_trained_on_is_refused(refused, data, tmp_path, classes: str, sentence: str) -> None:
    assert sentence in refused("train", *MLP, "--data", data, "--classes", classes, "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


# What is written


def test_the_run_folder_says_what_was_asked_and_what_happened(whole: Path, data: Path) -> None:
    assert {path.name for path in whole.iterdir()} == {
        "settings.json", "environment.json", "metrics.jsonl", "tensorboard", "last.pt", "best.pt", "model.safetensors", "model.json"
    }  # fmt: skip
    asked = flat(from_file(settings.Train, json.loads((whole / "settings.json").read_text()), "settings.json", passed_over=True))
    assert asked["recipe"] == "madry-linf" and asked["data"] == str(data) and asked["resume"] is None
    # Also what only the recipe says.
    assert (asked["lr"], asked["schedule"], asked["weight_decay"], asked["norm"], asked["eps"]) == (0.1, "steps", 5e-4, "linf", 8 / 255)
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1, 2]
    name = "val/PGD-10 (Linf eps=0.03137)"
    assert set(lines[0]) == {"epoch", "train/loss", "train/accuracy", "val/clean", name, "lr", *CLOCK}
    assert all(line[name] <= line["val/clean"] for line in lines)
    record = json.loads((whole / "model.json").read_text())
    assert set(record["accuracies"]) == {"clean", "PGD-20 (Linf eps=0.03137)"}
    assert record["classes"] == ["red", "green", "blue"]
    assert record["details"]["settings"]["lr"] == 0.1 and "data" not in record["details"]["settings"]


def test_what_is_learned_helps_on_the_test_set(whole: Path, data: Path) -> None:
    record = json.loads((whole / "model.json").read_text())
    model, test = load(whole / "model.json"), open_dataset(None, data, "test")
    right = (model(test.fetch(torch.arange(20)) / 255).argmax(1) == test.labels).sum()
    assert record["accuracies"]["clean"] == 100 * right / 20


def as_words(args: settings.Train) -> list[str]:
    """A command line that says every setting."""
    values = flat(args)
    return [*words(values), *(["--no-amp"] if values["amp"] is False else [])]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    "given", [[], ["--eps", "1/255", "--norm", "linf", "--lr", "0.01", "--amp", "--ema", "0"]], ids=["plain", "changed"]
)
def test_settings_that_were_saved_mean_the_same_when_given_again(recipe: str, given: list[str]) -> None:
    args = command.completed(parse(settings.Train, ["--recipe", recipe, *given], "train"), CPU)
    saved = from_file(settings.Train, json.loads(json.dumps(dataclasses.asdict(args))), "settings.json")
    again = parse(settings.Train, as_words(saved), "train")
    assert again == args == saved == command.completed(again, CPU)
    left_open = {name for name, value in flat(saved).items() if value is None}
    data = {"dataset", "data", "image_size", "classes", "limit", "cache", "test_data"}
    noise = {"sigma", "noises", "consistency", "entropy"}
    assert left_open <= data | noise | {"init", "mean", "std", "step_size", "patience", "threads", "resume", "steps", "stand_in"}
    assert ("steps" in left_open) == ("stand_in" in left_open) == (RECIPES[recipe].threat is None)
    assert left_open & noise == noise - set(RECIPES[recipe].noise)
    planned = method_of(args.training)
    if not given:
        amp = bool(args.training.optimizing.amp)
        assert planned.optimization == dataclasses.replace(RECIPES[recipe].optimization, amp=amp)
        assert planned.threat == RECIPES[recipe].threat
    else:
        assert (planned.optimization.lr, planned.optimization.ema, planned.optimization.amp) == (0.01, 0.0, True)
        assert planned.validation_attack.threat.eps == 1 / 255


def test_classes_and_test_data_that_were_saved_mean_the_same_when_given_again() -> None:
    args = command.completed(parse(settings.Train, ["--classes", "dog, cat", "--test-data", "some where"], "train"), CPU)
    assert (args.data.classes, args.data.test_data) == (["dog", "cat"], "some where")
    saved = from_file(settings.Train, json.loads(json.dumps(dataclasses.asdict(args))), "settings.json")
    assert parse(settings.Train, as_words(saved), "train") == args


def test_bfloat16_is_left_out_where_it_would_be_emulated_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for fast in (True, False):
        monkeypatch.setattr(command, "computes_bfloat16", lambda device, fast=fast: fast)
        asked = {told: changed(settings.Train(), recipe="fast-l2", amp=told) for told in (None, True, False)}
        amp = {told: command.completed(args, CPU).training.optimizing.amp for told, args in asked.items()}
        assert amp == {None: fast, True: True, False: False}
    assert command.completed(changed(settings.Train(), recipe="madry-l2"), CPU).training.optimizing.amp is False


def test_a_run_from_the_saved_settings_is_the_same_run(call, data: Path, whole: Path, tmp_path: Path) -> None:
    saved = flat(from_file(settings.Train, json.loads((whole / "settings.json").read_text()), "settings.json", passed_over=True))
    config = tmp_path / "run.toml"
    config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in saved.items() if value is not None and name != "out"))
    assert call("train", "--config", config, "--out", tmp_path / "run").code == 0
    assert_same_run(tmp_path / "run", whole)


def test_norm_and_eps_of_the_flags_replace_the_recipe_s() -> None:
    def threat(**told: Any) -> str:
        return repr(method_of(command.completed(changed(settings.Train(), recipe="madry-linf", **told), CPU).training).threat)

    assert threat() == "Linf eps=0.03137"
    assert threat(eps=4 / 255) == "Linf eps=0.01569"
    assert threat(norm="l2") == "L2 eps=0.5"
    assert threat(norm="l2", eps=0.25) == "L2 eps=0.25"


# Odd data


@pytest.mark.parametrize(
    "shape, classes, n, words",
    [
        ((1, 6, 10), 2, 12, ["--batch-size", "4"]),
        ((3, 8, 8), 2, 4, ["--batch-size", "2"]),
        ((3, 8, 8), 3, 30, ["--batch-size", "8", "--recipe", "madry-l2", "--eps", "0"]),
        ((3, 8, 8), 3, 30, ["--batch-size", "8", "--recipe", "madry-l2", "--steps", "0"]),
    ],
    ids=["grey, not square, two classes", "four images", "eps 0", "no steps"],
)
def test_small_and_odd_data_train(call, tmp_path: Path, shape: tuple[int, ...], classes: int, n: int, words: list[str]) -> None:
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", x=random.integers(0, 256, (n, *shape), dtype=np.uint8), y=np.arange(n) % classes)
    out = tmp_path / "run"
    assert call("train", "--arch", "mlp", "--epochs", "1", *words, *LIGHT, "--data", tmp_path, "--out", out).code == 0
    assert load(out / "model.json").num_classes == classes


# What is wrong


@pytest.mark.parametrize(
    "words, sentence",
    [
        (["--recipe", "mardy-l2"], r"unknown recipe 'mardy-l2'\. Did you mean 'madry-l2'\?"),
        (["--arch", "resnet-18"], r"unknown architecture 'resnet-18'\. Did you mean 'resnet18'\?"),
        (["--arch", "torchvision:resnet81"], r"Did you mean torchvision:resnet18"),
        (["--dataset", "cifar-10"], r"unknown dataset 'cifar-10'\. Did you mean 'cifar10'\?"),
        (["--data", "nowhere"], r"there is nothing at nowhere"),
        (["--dataset", "npz"], r"the dataset 'npz' needs the place of its images, --data PATH"),
        (["--dataset", "cifar10"], r"--download"),
        (["--device", "tpu"], r"unknown device 'tpu'"),
        (["--steps", "3"], r"the recipe 'standard' trains without an attack"),
        (["--step-size", "0.1"], r"the recipe 'standard' trains without an attack"),
        (["--recipe", "fast-l2", "--steps", "7"], r"one single step, not in 7"),
        (["--label-smoothing", "1.5"], r"label smoothing must lie in \[0, 1\], got 1\.5"),
        (["--lr", "-1"], r"lr > 0"),
        (["--ema", "1"], r"ema in \[0, 1\)"),
        (["--recipe", "fast-l2", "--awp", "1"], r"--awp moves each layer's weights by a share of their norm in \[0, 1\), got 1\.0"),
        (["--awp", "0.01"], r"the recipe 'standard' trains without an attack: leave out --awp"),
        (["--eps", "-1"], r"-1 is negative; it must be >= 0"),
        (["--norm", "l3"], r"invalid choice: 'l3' \(choose from"),
        (["--resume"], r"run/settings\.json does not exist"),
        (["--resume", "nowhere"], r"--resume names nowhere and --out run"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_in_a_flag_is_told_in_one_sentence(refused, monkeypatch, tmp_path, words: list[str], sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert re.search(sentence, refused("train", *MLP, "--limit", "40", "--out", "run", *words))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_gpu_where_there_is_none_is_refused(refused, tmp_path: Path) -> None:
    assert "device 'cuda' is not available on this machine" in refused("train", *MLP, "--device", "cuda", "--out", tmp_path / "run")


def test_more_images_in_a_batch_than_there_are(refused, data: Path, tmp_path: Path) -> None:
    said = refused("train", *MLP, "--batch-size", "64", "--data", data, "--out", tmp_path / "run")
    assert "48 images do not fill one batch of 64" in said


def test_a_folder_that_holds_something_else_is_left_alone(refused, data: Path, whole: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert f"{whole} holds a run already: go on with it by --resume" in refused("train", *MLP, "--data", data, "--out", whole)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
    (tmp_path / "thesis.tex").write_text("all I have")
    assert f"{tmp_path} is not an empty folder" in refused("train", *MLP, "--data", data, "--out", tmp_path)
    assert "is not an empty folder" in refused("train", *MLP, "--data", data, "--out", tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for i in range(20):
                Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i:02}.png")
    return tmp_path / "images"


def test_an_empty_class_folder_and_a_broken_image_are_named(call, refused, image_folder: Path, tmp_path: Path) -> None:
    start = ["train", *MLP, "--data", image_folder, "--out", tmp_path / "run"]
    (image_folder / "train" / "empty").mkdir()
    (image_folder / "test" / "empty").mkdir()
    assert f"the class folder {image_folder / 'train' / 'empty'} holds no images" in refused(*start)
    (image_folder / "train" / "empty").rmdir()
    (image_folder / "test" / "empty").rmdir()
    picture = image_folder / "train" / "dog" / "07.png"
    whole = picture.read_bytes()
    for broken in (whole[:60], b"", b"not a picture"):
        picture.write_bytes(broken)
        assert f"cannot read the image {picture}" in refused(*start)
    assert not (tmp_path / "run").exists()
    picture.write_bytes(whole)
    assert call(*start).code == 0


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"PK\x03\x04" + b[4:500], lambda b: b"no checkpoint"]
)
def test_a_damaged_checkpoint_is_named_when_a_run_is_resumed(call, refused, data, tmp_path, damage: Callable[[bytes], bytes]) -> None:
    out = tmp_path / "run"
    assert call("train", *MLP, "--data", data, "--out", out).code == 0
    (out / "last.pt").write_bytes(damage((out / "last.pt").read_bytes()))
    assert f"{out / 'last.pt'} is" in refused("train", "--resume", out)


@pytest.mark.parametrize("content", [[1, 2], {"model": {}}, {"format": "robustlab-training-1"}], ids=str)
def test_another_file_in_place_of_the_checkpoint_is_named(call, refused, data, tmp_path, content: Any) -> None:
    out = tmp_path / "run"
    assert call("train", *MLP, "--data", data, "--out", out).code == 0
    torch.save(content, out / "last.pt")
    assert str(out / "last.pt") in refused("train", "--resume", out)


@pytest.mark.parametrize("name", ["settings.json", "metrics.jsonl"])
@pytest.mark.parametrize("content", ["{", "[1]\n", "\udc80"], ids=["half", "list", "not text"])
def test_a_damaged_text_file_of_a_run_is_named(call, refused, data, tmp_path, name: str, content: str) -> None:
    out = tmp_path / "run"
    assert call("train", *MLP, "--data", data, "--out", out).code == 0
    (out / name).write_text(content, errors="surrogateescape")
    assert str(out / name) in refused("train", "--resume", out)


def test_a_full_disk_ends_training_with_a_sentence_and_loses_nothing(
    call, refused, monkeypatch, saving_after_every_step, data, whole, tmp_path
) -> None:
    out, fsync, free = tmp_path / "run", os.fsync, 8

    def sync_until_full(descriptor: int) -> None:
        nonlocal free
        free -= 1
        if free < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", sync_until_full)
        said = refused("train", *SMALL, *LIGHT, "--data", data, "--out", out)
    assert re.fullmatch(rf"robustlab: cannot write {re.escape(str(out))}/\S+: No space left on device", said)
    last = checkpoint(out / "last.pt")
    assert last["epoch"] * STEPS + last["step"] > 0
    assert not list(out.glob(".*"))
    assert call("train", "--resume", out).code == 0
    assert_same_run(out, whole)


def test_pictures_that_find_no_room_are_told_in_one_sentence(call, refused, monkeypatch, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"

    def full(self: Any, *args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("torch.utils.tensorboard.SummaryWriter.add_image", full)
        said = refused("train", *MLP, "--data", data, "--out", out)
    assert said == f"robustlab: cannot write {out}/tensorboard: No space left on device"
    assert call("train", "--resume", out).code == 0


def test_a_checkpoint_that_finds_no_room_is_told_in_one_sentence(refused, data: Path, tmp_path: Path) -> None:
    """Not simulated: the system refuses the rest of the file, of which torch's own writer makes a puzzle."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        said = refused("train", *MLP, "--data", data, "--out", tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert said == f"robustlab: cannot write {tmp_path}/run/best.pt: File too large"
    assert not (tmp_path / "run" / "best.pt").exists() and not list((tmp_path / "run").glob(".*"))
