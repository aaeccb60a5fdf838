"""The trainer from Python: in memory or in a folder, in any thread, stopped and gone on with, and what it refuses before it begins."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from robustlab import load
from robustlab.attacks import FGSM
from robustlab.constraints import ThreatModel
from robustlab.data.imageset import ImageSet
from robustlab.errors import UserError
from robustlab.models.classifier import Classifier
from robustlab.norms import L2
from robustlab.options import changed, flat
from robustlab.settings import Optimizing, Training
from robustlab.training import Stopped, Trained, train
from robustlab.training.method import complete
from robustlab.training.prepare import matching

COLOURS = ("red", "green", "blue")
SHORT: dict[str, Any] = {"arch": "mlp", "epochs": 2, "batch_size": 16, "lr": 0.05, "device": "cpu", "progress": False}
STEPS = 3  # an epoch: 48 of the 60 images are trained on


def coloured(n: int, classes: tuple[str, ...] = COLOURS, size: int = 8) -> ImageSet:
    """Images whose colour tells the class, in noise."""
    generator = torch.Generator().manual_seed(n)
    y = torch.arange(n) % len(classes)
    x = torch.randint(0, 160, (n, 3, size, size), generator=generator)
    for i, label in enumerate(y.tolist()):
        x[i, COLOURS.index(classes[label])] += 60
    return ImageSet(x.to(torch.uint8), y, classes, "colours")


IMAGES, TEST = coloured(60), coloured(20)


def same_weights(a: Classifier, b: Classifier) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def stop_after(steps: int) -> Callable[[], bool]:
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked >= steps

    return stop


# What comes back


def test_in_five_lines_a_network_is_trained_and_tested(tmp_path: Path) -> None:
    trained = train(IMAGES, recipe="fast-l2", eps=0.25, test=TEST, out=tmp_path / "run", **SHORT)
    assert isinstance(trained, Trained) and not trained.model.training
    assert trained.settings.threat.eps == 0.25 and trained.settings.recipe == "fast-l2"
    assert [line["epoch"] for line in trained.history] == [0, 1]
    assert trained.report is not None and set(trained.report.rates()) == {"clean", "PGD-20 (L2 eps=0.25)"}
    assert trained.report.clean.n == 20
    for name in ("model.json", "best.pt"):
        assert same_weights(load(tmp_path / "run" / name), trained.model)
    record = json.loads((tmp_path / "run" / "model.json").read_text())
    assert record["accuracies"]["clean"] == 100 * trained.report.clean.value
    assert record["details"]["best_epoch"] == trained.best_epoch and record["details"]["settings"]["eps"] == 0.25


def test_without_a_folder_nothing_is_written_and_the_result_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    in_memory = train(IMAGES, test=TEST, **SHORT, patience=1)
    assert not list(tmp_path.iterdir()) and in_memory.folder is None
    written = train(IMAGES, test=TEST, out="run", **SHORT, patience=1)
    assert same_weights(in_memory.model, written.model) and in_memory.best_epoch == written.best_epoch
    assert in_memory.report == written.report and in_memory.settings == written.settings
    clock = ("seconds", "images_per_second")
    lines = [[{k: v for k, v in line.items() if k not in clock} for line in each.history] for each in (in_memory, written)]
    assert lines[0] == lines[1]


def test_the_best_epoch_is_kept_in_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the first one here, so the weights must be a copy of those that trained on."""
    seen: list[dict[str, Tensor]] = []
    from robustlab.evaluation import Rate
    from robustlab.training import image_trainer

    def validate(self: Any, validation: Any) -> Any:
        seen.append({name: value.clone() for name, value in self.state.result.state_dict().items()})
        return {"clean": Rate(12 - len(seen), 12)}

    monkeypatch.setattr(image_trainer.ImageTrainer, "validate", validate)
    trained = train(IMAGES, **SHORT)
    assert trained.best_epoch == 0 and len(seen) == 2
    assert all(torch.equal(value, seen[0][name]) for name, value in trained.model.state_dict().items())
    assert any(not torch.equal(value, seen[0][name]) for name, value in seen[1].items())


@pytest.mark.parametrize("out", [None, "run"])
def test_without_validation_images_the_last_epoch_is_kept(tmp_path: Path, out: str | None) -> None:
    folder = None if out is None else tmp_path / out
    epochs: list[dict[str, Any]] = []
    trained = train(IMAGES, val_size=0, ema=0.5, out=folder, on_epoch=epochs.append, **SHORT)
    assert trained.best_epoch == 1 and list(trained.history) == epochs
    assert "train/accuracy" in epochs[0] and not any(name.startswith("val/") for name in epochs[0])
    if folder:
        assert not (folder / "best.pt").exists() and same_weights(load(folder / "last.pt"), trained.model)
        assert [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [0, 1]


def test_settings_and_changes_mean_the_same(tmp_path: Path) -> None:
    settings = Training(optimizing=Optimizing(epochs=2, batch_size=16, lr=0.05, optimizer="adam"), seed=3)
    options = {"device": "cpu", "progress": False}
    first = train(IMAGES, settings, arch="mlp", **options)
    second = train(IMAGES, arch="mlp", epochs=2, batch_size=16, lr=0.05, optimizer="adam", seed=3, **options)
    assert first.settings == second.settings and same_weights(first.model, second.model)


def test_what_is_left_open_is_filled_in() -> None:
    trained = train(IMAGES, **{**SHORT, "lr": None, "epochs": 1}, optimizer="adamw", recipe="fast-linf")
    said = flat(trained.settings)
    assert (said["lr"], said["steps"], said["norm"], said["eps"], said["schedule"]) == (1e-3, 1, "linf", 8 / 255, "one-cycle")


def test_another_attack_can_test() -> None:
    attack = FGSM(ThreatModel(L2(), 0.5))
    trained = train(IMAGES, test=TEST, test_attack=attack, **{**SHORT, "epochs": 1})
    assert trained.report is not None and trained.report.attacks == (str(attack),)


def test_a_result_shows_what_a_person_wants_to_know(tmp_path: Path) -> None:
    trained = train(IMAGES, recipe="fast-l2", test=TEST, out=tmp_path, **SHORT)
    first, *others = repr(trained).splitlines()
    assert first == f"mlp, trained by fast-l2: epoch {trained.best_epoch + 1} of 2 was kept"
    starts = ("training: loss ", "validation: clean ", "test: clean ", f"folder: {tmp_path}")
    assert all(line.strip().startswith(start) for line, start in zip(others, starts, strict=True))
    assert "tensor" not in repr(trained)


def test_gradients_may_be_added_up_over_parts_of_a_batch() -> None:
    """Without BatchNorm, which sees each part by itself, and but for rounding, it is the same."""
    whole, parts = (train(IMAGES, accumulate=k, **SHORT, no_augment=True, amp=False) for k in (1, 4))  # bfloat16 rounds too much
    assert [line["train/loss"] for line in parts.history] == pytest.approx([line["train/loss"] for line in whole.history], rel=1e-4)


def test_progress_is_shown_only_when_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    train(IMAGES, **SHORT)
    assert capsys.readouterr() == ("", "")
    train(IMAGES, **{**SHORT, "progress": True})
    told = capsys.readouterr()
    assert [line.split()[1] for line in told.out.splitlines()] == ["1/2", "2/2"]


def test_narrow_images_are_augmented_too() -> None:
    """An eighth of the height would be as much as the whole width."""
    generator = torch.Generator().manual_seed(0)
    for height, width in ((64, 8), (9, 1), (1, 9)):
        pixels = torch.randint(0, 256, (40, 3, height, width), generator=generator, dtype=torch.uint8)
        train(ImageSet(pixels, torch.arange(40) % 2, ("a", "b"), "narrow"), **{**SHORT, "epochs": 1})


# Stopping and going on


@pytest.mark.parametrize("steps", [1, STEPS, STEPS + 2])
def test_stopped_and_resumed_from_python_it_ends_with_the_same_bits(tmp_path: Path, steps: int) -> None:
    whole = train(IMAGES, recipe="fast-l2", test=TEST, **SHORT)
    with pytest.raises(Stopped, match=r"stopped in epoch \d of 2") as stopped:
        train(IMAGES, recipe="fast-l2", test=TEST, out=tmp_path / "run", stop=stop_after(steps), **SHORT)
    assert stopped.value.folder == tmp_path / "run" and stopped.value.epochs == 2
    resumed = train(IMAGES, test=TEST, out=tmp_path / "run", resume=True, device="cpu", progress=False)
    assert same_weights(resumed.model, whole.model) and resumed.report == whole.report and resumed.settings == whole.settings
    again = train(IMAGES, whole.settings, test=TEST, out=tmp_path / "run", resume=True, device="cpu", progress=False)
    assert same_weights(again.model, whole.model) and len(again.history) == 2


@pytest.mark.parametrize("options", [{"stand_in": "float32"}, {"stand_in": "bfloat16", "awp": 0.01, "accumulate": 2}], ids=str)
def test_so_does_a_run_whose_attack_searches_on_a_stand_in(tmp_path: Path, options: dict[str, Any]) -> None:
    options = {**SHORT, "recipe": "madry-l2", "arch": "small-4", "steps": 2, **options}
    whole = train(IMAGES, **options)
    with pytest.raises(Stopped):
        train(IMAGES, out=tmp_path / "run", stop=stop_after(4), **options)
    resumed = train(IMAGES, out=tmp_path / "run", resume=True, device="cpu", progress=False)
    assert same_weights(resumed.model, whole.model) and resumed.settings.attack.stand_in == options["stand_in"]


@pytest.mark.parametrize(
    ("settings", "stand_in"),
    [
        ({"recipe": "madry-l2"}, "none"),
        ({"recipe": "madry-l2", "amp": True, "stand_in": "bfloat16"}, "bfloat16"),
        ({"recipe": "madry-l2", "attack_in_train_mode": True, "stand_in": "none"}, "none"),
        ({"recipe": "standard"}, None),
    ],
    ids=str,
)
def test_an_attack_searches_on_a_stand_in_where_that_is_said(settings: dict[str, Any], stand_in: str | None) -> None:
    assert complete(changed(Training(), **settings), bfloat16=False).attack.stand_in == stand_in


def test_a_run_is_not_gone_on_with_by_other_settings_or_images(tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(IMAGES, out=out, **SHORT)
    again: dict[str, Any] = {"out": out, "resume": True, "device": "cpu", "progress": False}
    with pytest.raises(UserError, match=r"other settings \(training.optimizing.lr: 0.05 there, 0.3 here\)"):
        train(IMAGES, lr=0.3, **again)
    with pytest.raises(UserError, match="other settings .*training.recipe: 'standard' there, 'fast-l2' here"):
        train(IMAGES, Training("fast-l2"), **again)
    with pytest.raises(UserError, match="images.n: 60 there, 63 here"):
        train(coloured(63), **again)
    with pytest.raises(UserError, match=r"\(images.fingerprint: "):
        train(replace(IMAGES, pixels=255 - IMAGES.pixels), **again)
    train(replace(IMAGES, name="moved"), **again)


def test_settings_that_came_later_do_not_keep_a_run_from_going_on(tmp_path: Path) -> None:
    """As a run was written before there were groups, images and optimizers in its settings."""
    options = {**SHORT, "recipe": "fast-l2", "arch": "small-4", "stand_in": "none"}
    whole = train(IMAGES, **options)
    out = tmp_path / "run"
    with pytest.raises(Stopped):
        train(IMAGES, out=out, stop=stop_after(4), **options)
    before = {name: value for name, value in flat(whole.settings).items() if name not in ("optimizer", "accumulate", "stand_in")}
    (out / "settings.json").write_text(json.dumps({**before, "data": "somewhere", "threads": 1, "no_test": True}))
    checkpoint = torch.load(out / "last.pt", weights_only=True)
    assert checkpoint.pop("metrics") == ["accuracy"]
    torch.save(checkpoint, out / "last.pt")
    resumed = train(IMAGES, out=out, resume=True, device="cpu", progress=False)
    assert same_weights(resumed.model, whole.model)


@pytest.mark.parametrize("arguments, sentence", [({}, "name it by `out`"), ({"out": "nowhere"}, "does not exist")])
def test_there_must_be_a_run_to_go_on_with(tmp_path, monkeypatch, arguments: dict[str, Any], sentence: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        train(IMAGES, resume=True, **SHORT, **arguments)
    assert not list(tmp_path.iterdir())


def test_it_trains_in_a_thread_as_it_does_elsewhere(tmp_path: Path) -> None:
    expected, found = train(IMAGES, recipe="fast-l2", **SHORT), []
    thread = threading.Thread(target=lambda: found.append(train(IMAGES, recipe="fast-l2", out=tmp_path / "run", **SHORT)))
    thread.start()
    thread.join(timeout=120)
    assert same_weights(found[0].model, expected.model)


# What is refused, before the first step


@pytest.mark.parametrize(
    "images, changes, sentence",
    [
        (IMAGES, {"recipe": "fast-l3"}, "unknown recipe 'fast-l3'. Did you mean 'fast-l2'"),
        (IMAGES, {"learning_rate": 0.1}, "unknown setting 'learning_rate'"),
        (IMAGES, {"optimizer": "adan"}, "unknown optimizer 'adan'. Did you mean 'adam'"),
        (IMAGES, {"arch": "resnet-18"}, "Did you mean 'resnet18'"),
        (IMAGES, {"arch": "torchvision:alexnet"}, "torchvision:alexnet cannot read images of 8x8 pixels"),
        (IMAGES, {"batch_size": 64}, "48 images do not fill one batch of 64"),
        (IMAGES, {"batch_size": 50, "accumulate": 2}, "48 images do not fill one batch of 50"),
        (IMAGES, {"stand_in": "float16"}, "unknown stand_in 'float16'. Did you mean 'bfloat16'"),
        (IMAGES, {"stand_in": "float32"}, "trains without an attack: leave out `steps`, `step_size` and `stand_in`"),
        (
            IMAGES,
            {"recipe": "fast-l2", "stand_in": "float32", "attack_in_train_mode": True},
            "leave out `stand_in` or `attack_in_train_mode`",
        ),
        (IMAGES, {"accumulate": 3}, "`accumulate=3` cannot take `batch_size=16` in equal parts"),
        (IMAGES, {"val_size": 0, "patience": 2}, "`patience` counts epochs without a better validation accuracy"),
        (IMAGES, {"test": coloured(20, size=9)}, "are 9x9x3 .width, height, channels., but those to train on are 8x8x3"),
        (IMAGES, {"test": coloured(0)}, "has no test images"),
        (IMAGES, {"test": coloured(20, ("red", "blue"))}, "unknown class 'green'"),
        (IMAGES.only_classes(["red"]), {}, "at least two classes, but colours has only red"),
        ("nowhere", {}, "there is nothing at nowhere"),
        ([1, 2], {}, r"data must give pairs \(x, y\) of images and labels, got int"),
    ],
)
def test_what_cannot_be_trained_is_one_sentence_and_no_folder(
    tmp_path, monkeypatch, images: Any, changes: dict[str, Any], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        train(images, out="run", **{**SHORT, **changes})
    assert not list(tmp_path.iterdir())


def test_a_training_that_diverged_writes_no_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="training diverged: the loss is (nan|inf) in epoch 1 at a learning rate of"):
        train(IMAGES, out=tmp_path / "run", **{**SHORT, "lr": 1e30})
    assert not list((tmp_path / "run").glob("model.*"))


def test_weights_that_are_no_numbers_after_the_last_step_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robustlab.training import trainer

    fit = trainer.fit

    def spoiling(state: Any, *args: Any, **options: Any) -> Any:
        for epoch in fit(state, *args, **options):
            with torch.no_grad():
                next(state.model.parameters()).fill_(torch.nan)
            yield epoch

    monkeypatch.setattr(trainer, "fit", spoiling)
    with pytest.raises(UserError, match="training diverged: the weights are no longer numbers"):
        train(IMAGES, out=tmp_path / "run", val_size=0, **{**SHORT, "epochs": 1})
    assert not list((tmp_path / "run").glob("model.*"))


@pytest.mark.parametrize("where", ["validation", "test"])
def test_answers_that_are_nan_are_told_as_divergence_and_nothing_is_released(tmp_path: Path, monkeypatch, where: str) -> None:
    """Weights that are finite, and so large that evaluation mode overflows."""
    from robustlab.evaluation.accuracy import NoNumbers
    from robustlab.training import image_trainer

    evaluate = image_trainer.evaluate

    def overflowing(model: Any, *args: Any, **options: Any) -> Any:
        if ("on_batch" in options) == (where == "test"):
            raise NoNumbers("the model returned NaN logits for 3 of 4 images")
        return evaluate(model, *args, **options)

    monkeypatch.setattr(image_trainer, "evaluate", overflowing)
    with pytest.raises(UserError, match="training diverged: the network's answers .* are NaN in epoch 1 at a learning rate of .*`lr`"):
        train(IMAGES, out=tmp_path / "run", test=IMAGES, **{**SHORT, "epochs": 1})
    assert not list((tmp_path / "run").glob("model.*"))


@pytest.mark.parametrize("lr", [1e3, 1e10])
@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("val_size", [0, 12])
def test_whatever_the_learning_rate_only_finite_weights_are_released(tmp_path: Path, lr: float, ema: float, val_size: int) -> None:
    try:
        train(IMAGES, out=tmp_path / "run", **{**SHORT, "lr": lr, "ema": ema, "val_size": val_size})
    except UserError as error:
        assert re.search(r"training diverged: .* in epoch . at a learning rate of", str(error))
        assert not list((tmp_path / "run").glob("model.*"))
    else:
        assert all(tensor.isfinite().all() for tensor in load(tmp_path / "run").state_dict().values())


# Test images


def test_test_images_of_more_classes_are_numbered_as_those_trained_on() -> None:
    mixed = coloured(20, ("blue", "green", "red"))
    found = matching(mixed, IMAGES.only_classes(["red", "blue"]))
    assert found.classes == ("red", "blue") and found.labels.bincount().tolist() == [6, 7]
    blue = found.fetch((found.labels == 1).nonzero()[:, 0])
    assert torch.equal(blue, mixed.fetch((mixed.labels == 0).nonzero()[:, 0]))
    assert matching(found, IMAGES.only_classes(["red", "blue"])) is found


def test_the_settings_of_a_run_say_which_images(tmp_path: Path) -> None:
    trained = train(IMAGES, out=tmp_path, **SHORT)
    written = json.loads((tmp_path / "settings.json").read_text())
    assert written["training"] == json.loads(json.dumps(asdict(trained.settings)))
    assert written["images"].items() >= {"n": 60, "shape": [3, 8, 8], "classes": list(COLOURS)}.items()
