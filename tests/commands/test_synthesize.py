"""``robustlab synthesize``: every task from end to end, replay files that make the same bytes, independent judges, and mistakes."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from killing import Killed, dying
from PIL import Image

from robustlab.commands import COMMANDS
from robustlab.commands import synthesize as command
from robustlab.commands import train as training
from robustlab.commands.flags import parse
from robustlab.commands.settings import Synthesize, Train
from robustlab.models.checkpoints import Provenance, save_weights
from robustlab.models.zoo import build, load
from robustlab.synthesis import budget
from robustlab.synthesis.budget import published_search
from robustlab.synthesis.tasks import SPECIAL, TASKS, options_of

LIGHT = ["--device", "cpu", "--threads", "1"]
JUDGED = [name for name, task in TASKS.items() if task.judged]
SEARCHING = [name for name, task in TASKS.items() if task.presets]
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def models(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small networks of the data's classes, hardly trained, so that they make mistakes; the last of another architecture."""
    with pytest.MonkeyPatch.context() as patch:
        tiny.add_architectures(patch)
        found = {}
        for seed, name in enumerate("abcd"):
            out, arch = tmp_path_factory.mktemp("runs") / name, "tiny2" if name == "d" else "tiny"
            words = ["--arch", arch, "--epochs", "1", "--batch-size", "16", "--lr", "0.001", "--seed", str(seed), "--no-amp", "--no-test"]
            training.run(parse(Train, [*words, "--workers", "0", *LIGHT, "--data", str(data), "--out", str(out)], "train"))
            found[name] = out / "model.json"
    return found


@pytest.fixture(autouse=True)
def architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.add_architectures(monkeypatch)


@pytest.fixture
def synthesize(call: Call, models: dict[str, Path], data: Path, tmp_path: Path) -> Call:
    """Runs a task with a few steps, with the first model and the last one as its judge; the sheet is ``out.png``."""

    def called(task: str, *words: object, out: str = "out.png", model: str = "a", judge: bool = True) -> Any:
        few = ["--steps", 3] if task in SEARCHING and "--steps" not in words else []
        judged = ["--judge", models["c"]] if judge and task in JUDGED and "--judge" not in words else []
        where = ["--model", ",".join(str(models[name]) for name in model.split(",")), "--data", data, "--grid", tmp_path / out]
        return call("synthesize", task, *where, *few, *judged, *LIGHT, *words)

    return called


def read(path: Path) -> Any:
    return json.loads(path.read_text())


# Every task


@pytest.mark.parametrize("task", TASKS)
def test_every_task_makes_a_sheet_numbers_and_a_replay_file(synthesize: Call, models: dict[str, Path], tmp_path: Path, task: str) -> None:
    told = synthesize(task, model="a,b")
    assert told.code == 0, told.err
    with Image.open(tmp_path / "out.png") as sheet:
        assert sheet.format == "PNG" and sheet.mode == "RGB" and sheet.width > 150
    record = read(tmp_path / "out.json")
    assert set(record["numbers"]) == {str(models["a"]), str(models["b"])}
    for numbers in record["numbers"].values():
        assert numbers and all(value is None or isinstance(value, float) for value in numbers.values())
        assert set(numbers) <= {line.split("|")[1].strip() for line in told.out.splitlines() if line.startswith("|")}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json", "out.png"]


@pytest.mark.parametrize("task", TASKS)
def test_a_replay_file_makes_the_same_bytes_again(synthesize: Call, call: Call, tmp_path: Path, task: str) -> None:
    assert synthesize(task, "--seed", "3").code == 0
    before = (tmp_path / "out.png").read_bytes()
    record = read(tmp_path / "out.json")
    told = call("synthesize", "--replay", tmp_path / "out.json", *LIGHT)
    assert told.code == 0 and "byte for byte" in told.out, told
    assert (tmp_path / "out-replay.png").read_bytes() == before
    again = read(tmp_path / "out-replay.json")
    assert {**again, "versions": None} == {**record, "versions": None}
    typed = shlex.split(record["command"])
    assert typed[:2] == ["robustlab", "synthesize"]
    assert call(*typed[1:], *LIGHT, "--grid", tmp_path / "typed.png").code == 0
    assert (tmp_path / "typed.png").read_bytes() == before


@pytest.mark.parametrize("task", ["generate", "inpaint", "invert"])
def test_the_seed_alone_decides_what_is_drawn(synthesize: Call, tmp_path: Path, task: str) -> None:
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        assert synthesize(task, "--seed", seed, out=f"{name}.png").code == 0
    one, same, other = ((tmp_path / f"{name}.png").read_bytes() for name in ("one", "same", "other"))
    assert one == same and one != other


def test_a_replay_file_says_what_the_picture_depends_on(synthesize: Call, models: dict[str, Path], tmp_path: Path) -> None:
    assert synthesize("translate", "--target", "blue", "--eps", "1", "--images", "4").code == 0
    record = read(tmp_path / "out.json")
    assert record["settings"]["target"] == "blue" and record["settings"]["eps"] == 1 and record["settings"]["steps"] == 3
    assert record["settings"]["step_size"] == published_search("translate", 8).step_size
    assert not set(record["settings"]) & set(command.HERE)
    assert record["images"] == [0, 1, 2, 3] and record["data"]["test"]["n"] == 20
    assert set(record["models"]) == {str(models["a"]), str(models["c"])}
    assert record["judges"] == {str(models["a"]): str(models["c"])}
    assert record["picture"] == command.files.sha256(tmp_path / "out.png")
    assert {"robustlab", "python", "torch", "torchvision", "pillow"} <= set(record["versions"])


def test_a_folder_holds_every_picture_and_what_tensorboard_shows(synthesize: Call, tmp_path: Path) -> None:
    out = tmp_path / "folder"
    assert synthesize("visualize", "--units", "3,7", "--out", out, "--tensorboard").code == 0
    assert len(list((out / "pictures").glob("visualized-*.png"))) == 2
    with Image.open(next((out / "pictures").iterdir())) as picture:
        assert picture.size == (8, 8)
    assert len(list((out / "tensorboard").iterdir())) == 1


# What flags do


def test_the_images_are_the_first_of_each_class_in_turn(synthesize: Call, tmp_path: Path) -> None:
    assert synthesize("gradients", "--images", "5").code == 0
    assert read(tmp_path / "out.json")["images"] == [0, 1, 2, 3, 4], "three classes that take turns"
    assert synthesize("gradients", "--positions", "17,4").code == 0
    assert read(tmp_path / "out.json")["images"] == [17, 4]


def test_nothing_outside_a_mask_moves_with_an_infinite_weight(synthesize: Call, call: Call, data: Path, tmp_path: Path) -> None:
    """A mask from a file."""
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 1:4] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    out = tmp_path / "folder"
    words = ["--mask", tmp_path / "mask.png", "--positions", "0,1,2,3,4,5", "--weight", "inf", "--step-size", "0.5", "--out", out]
    assert synthesize("paint", *words).code == 0
    made = np.stack([np.asarray(Image.open(path), dtype=int) for path in sorted((out / "pictures").iterdir())])
    with np.load(data / "test.npz") as stored:
        images = stored["x"][:6].transpose(0, 2, 3, 1).astype(int)
    moved = np.abs(made - images).max((0, 3)) > 1
    assert moved[mask > 0].any() and not moved[mask == 0].any()
    assert read(tmp_path / "out.json")["settings"]["weight"] == "inf"
    assert "byte for byte" in call("synthesize", "--replay", tmp_path / "out.json", *LIGHT).out


def test_on_shapes_the_share_on_the_object_is_known(call: Call, tmp_path: Path) -> None:
    words = ["--arch", "tiny", "--epochs", "1", "--limit", "200", "--no-amp", "--no-test", "--workers", "0", *LIGHT]
    training.run(parse(Train, [*words, "--dataset", "shapes", "--out", str(tmp_path / "run")], "train"))
    where = ["--model", tmp_path / "run" / "model.json", "--dataset", "shapes", "--limit", "60", "--grid", tmp_path / "out.png"]
    assert call("synthesize", "gradients", *where, *LIGHT).code == 0
    (numbers,) = read(tmp_path / "out.json")["numbers"].values()
    assert 0 < numbers["share of the squared gradient on the object"] < 1
    assert 0.03 < numbers["share of the pixels on the object"] < 0.5


def test_the_help_names_every_task(call: Call) -> None:
    told = call("synthesize", "--help")
    assert told.code == 0
    for name, task in TASKS.items():
        assert sum(line.split() == [name, *task.about.split()] for line in told.out.splitlines()) == 1


@pytest.mark.parametrize("task", TASKS)
def test_the_help_of_a_task_has_its_options_only(call: Call, task: str) -> None:
    told = call("synthesize", task, "--help")
    assert told.code == 0 and told.out.startswith(f"usage: robustlab synthesize {task} ")
    shown = {line.split()[0] for line in told.out.splitlines() if line.startswith("  --")}
    own = {f"--{name.replace('_', '-')}" for name in options_of(TASKS[task])}
    assert own <= shown and not {f"--{name.replace('_', '-')}" for name in SPECIAL} - own & shown
    assert {"--model", "--data", "--images", "--seed", "--device", "--out", "--grid", "--replay"} <= shown
    assert f"(default: {TASKS[task].n})" in " ".join(told.out.split())


def test_the_task_may_stand_in_a_file_of_settings(
    synthesize: Call, call: Call, models: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    lines = ['task = "invert"', f'model = "{models["a"]}"', f'data = "{data}"', "steps = 2", "images = 3"]
    (tmp_path / "run.toml").write_text("\n".join(lines))
    assert call("synthesize", "--config", tmp_path / "run.toml", *LIGHT, "--grid", tmp_path / "out.png").code == 0
    assert read(tmp_path / "out.json")["settings"]["task"] == "invert"
    (tmp_path / "run.toml").write_text("\n".join([*lines, 'mask = "left"']))
    told = call("synthesize", "--config", tmp_path / "run.toml", *LIGHT)
    assert told.code == 2 and "the task 'invert' has no --mask; it has --flips, --fourier, --jitter, --layer, --positions" in told.err


@pytest.mark.parametrize("factor, width", [("1", 8), ("1.5", 5), ("2", 4), ("3", 3), ("100", 1)])
def test_any_factor_enlarges(synthesize: Call, tmp_path: Path, factor: str, width: int) -> None:
    out = tmp_path / "folder"
    assert synthesize("super-resolve", "--factor", factor, "--start", "nearest", "--images", "2", "--steps", "0", "--out", out).code == 0
    with Image.open(next((out / "pictures").iterdir())) as picture:
        assert picture.size == (8, 8)
        assert len({picture.getpixel((x, 0)) for x in range(8)}) <= width


def test_pictures_that_stay_are_said_to(synthesize: Call, models: dict[str, Path], tmp_path: Path) -> None:
    told = synthesize("translate", "--steps", "0")
    assert told.code == 0 and f"the pictures of {models['a']} are their starts" in told.err
    assert "are their starts" not in synthesize("translate").err
    # With nothing to reach, the loss of every picture is zero, and so is its gradient.
    told = synthesize("add-feature", "--level", "-1", "--images", "4")
    assert told.code == 0 and f"note: 4 of 4 pictures of {models['a']} are their starts, as the gradient is zero" in told.err


def test_a_mistake_is_taken_apart_feature_by_feature(synthesize: Call, models: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "folder"
    assert synthesize("sensitivity", "--top", "2", "--images", "20", "--out", out).code == 0
    (numbers,) = read(tmp_path / "out.json")["numbers"].values()
    margins = [
        numbers[f"margin {which}"]
        for which in ("of the predicted class", "without the first feature alone", "without the second feature alone")
    ]
    assert margins[0] > 0 and margins[1] < margins[2] < margins[0], "the first feature carries most of the mistake"
    assert "margin without the third feature alone" not in numbers
    assert 0 <= numbers["corrected without the top 2 features"] <= 1
    titles = {path.name.split("-")[0] for path in (out / "pictures").iterdir()}
    assert titles == {"mistaken", "first", "second"}


# Pictures of one's own


def own_files(folder: Path) -> list[Path]:
    """A photograph that lies on its side, and a drawing without a background."""
    photograph = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 9, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    photograph.save(folder / "photograph.jpg", exif=turned)
    drawing = Image.new("RGBA", (12, 12), (0, 0, 0, 0))
    drawing.paste((0, 0, 0, 255), (2, 2, 6, 6))
    drawing.save(folder / "drawing.png")
    return [folder / "photograph.jpg", folder / "drawing.png"]


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.own])
def test_files_of_ones_own(call: Call, models: dict[str, Path], tmp_path: Path, task: str) -> None:
    files = own_files(tmp_path)
    judge = ["--judge", models["c"]] if task in JUDGED else []
    words = [task, "--model", models["a"], "--images", f"{files[0]},{files[1]}", "--image-size", "8", "--steps", "2", *judge, *LIGHT]
    told = call("synthesize", *words, "--grid", tmp_path / "out.png")
    assert told.code == 0 and "classifies the pictures as" in told.err, told
    record = read(tmp_path / "out.json")
    assert record["images"] == [0, 1] and record["data"]["test"]["name"] == "your own"
    assert "byte for byte" in call("synthesize", "--replay", tmp_path / "out.json", *LIGHT).out
    # They may lie elsewhere by now.
    for file in files:
        file.rename(tmp_path / f"moved-{file.name}")
    moved = ",".join(str(tmp_path / f"moved-{file.name}") for file in files)
    assert "byte for byte" in call("synthesize", "--replay", tmp_path / "out.json", "--images", moved, *LIGHT).out


def test_a_named_class_holds_for_files_too(call: Call, models: dict[str, Path], tmp_path: Path) -> None:
    files = own_files(tmp_path)
    words = ["--model", models["a"], "--judge", models["c"], "--images", files[1], "--target", "blue", "--steps", "2", *LIGHT]
    told = call("synthesize", "sketch", "--drawn", *words, "--grid", tmp_path / "out.png")
    assert told.code == 0 and "classifies the pictures as" not in told.err
    with Image.open(tmp_path / "out.png") as sheet:
        assert sheet.getpixel((160, 28)) == (255, 255, 255), "white behind the drawing, not black"


def test_files_whose_classes_have_no_names(call: Call, refused: Call, models: dict[str, Path], tmp_path: Path) -> None:
    theirs, file = tmp_path / "theirs.pt", own_files(tmp_path)[1]
    torch.save({"state_dict": load(models["a"]).state_dict()}, theirs)
    words = [
        "translate",
        "--model",
        theirs,
        "--arch",
        "tiny",
        "--mean",
        "0.5,0.5,0.5",
        "--std",
        "0.2,0.2,0.2",
        "--images",
        file,
        "--steps",
        "2",
    ]
    named = [*words, "--image-size", "8", "--target", "blue", *LIGHT, "--grid", tmp_path / "out.png"]
    told = call("synthesize", *words, "--image-size", "8", *LIGHT, "--grid", tmp_path / "alone.png")
    assert told.code == 0 and "can judge the pictures of" in told.err and "have no names" in told.err
    assert call("synthesize", *named, "--judge", models["c"]).code == 0, "the judge names them"


def test_pictures_of_a_size_that_a_network_cannot_read(refused: Call, tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "two.png")
    save_weights(tmp_path / "vgg", build("vgg_small", num_classes=3), Provenance("none", "none", "none", {}, 0, 0, "abc"))
    said = refused("synthesize", "invert", "--model", tmp_path / "vgg.json", "--images", tmp_path / "two.png", *LIGHT)
    assert "cannot read images of 2x2 pixels; other images, or --image-size, may help" in said


# Judges


def test_the_judge_is_none_of_the_models_also_under_another_name(synthesize: Call, models: dict[str, Path], tmp_path: Path) -> None:
    for name in ("model.json", "model.safetensors"):
        (tmp_path / name).write_bytes(models["b"].with_name(name).read_bytes())
    for judge in (models["b"], tmp_path / "model.json"):
        told = synthesize("generate", "--judge", judge, model="a,b")
        assert told.code == 2 and "makes the pictures and cannot judge them" in told.err and told.err.count("\n") == 1


def test_left_out_the_judge_is_a_released_model_that_did_not_make_the_pictures(
    synthesize: Call, call: Call, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBUSTLAB_CHECKPOINTS", str(tmp_path / "shelf"))
    (tmp_path / "shelf").mkdir()

    def judges(model: str) -> Any:
        told = synthesize("translate", model=model, judge=False)
        assert told.code == 0 and ("no pretrained classifier of these classes can judge the pictures of" in told.err) == (
            "judged by" not in told.out
        )
        return list(read(tmp_path / "out.json")["judges"].values())

    def release(name: str, **changes: Any) -> None:
        record = read(models[name])
        (tmp_path / "shelf" / f"{name}.safetensors").write_bytes(models[name].with_suffix(".safetensors").read_bytes())
        (tmp_path / "shelf" / f"{name}.json").write_text(json.dumps({**record, **changes}))

    release("a")
    assert judges("a") == [], "a missing judge is a missing row"
    release("b", classes=["dog", "cat", "bird"])
    assert judges("a") == []
    alone = (tmp_path / "out.json").read_bytes()
    release("b")
    assert judges("a") == ["b"]
    assert judges("a,b") == ["b", "a"], "each judges what the other made"
    release("c")
    assert judges("a,b") == ["c", "c"]
    record = (tmp_path / "out.json").read_bytes()
    release("d")
    (tmp_path / "alone.json").write_bytes(alone)
    told = call("synthesize", "--replay", tmp_path / "alone.json", *LIGHT)
    assert told.code == 0 and "byte for byte" in told.out and "judged by" not in told.out, "and none comes where there was none"
    (tmp_path / "before.json").write_bytes(record)
    told = call("synthesize", "--replay", tmp_path / "before.json", *LIGHT)
    assert told.code == 0 and "byte for byte" in told.out, "a replay file keeps its judge, whatever is released later"
    assert judges("a") == ["d"] and judges("a,b") == ["d", "d"], "rather one of another architecture"


# Mistakes

MISTAKES = [
    ([], "what to make? One of: gradients"),
    (["generat"], "unknown task 'generat'. Did you mean 'generate'?"),
    (["gradients", "--model", ""], "with which model?"),
    (["gradients", "--model", "{a}"], "needs images: --data PATH, or --dataset shapes"),
    (["gradients", "{data}", "--model", "{a},{a}"], "the names of different models"),
    (["gradients", "{data}", "--model", "nowhere.pt"], "there is no checkpoint nowhere.pt"),
    (["gradients", "--model", "{a}", "--dataset", "shapes"], "does not know all classes of shapes"),
    (["gradients", "--model", "{a}", "--data", "nowhere"], "there is nothing at nowhere"),
    (["translate", "{data}", "{model}", "--target", "grean"], "unknown class 'grean'. Did you mean 'green'?"),
    (["translate", "{data}", "{model}", "--classes", "rad,blue"], "unknown class 'rad'. Did you mean 'red'?"),
    (["invert", "{data}", "{model}", "--layer", "bodi"], "unknown layer 'bodi'. Did you mean 'body"),
    (["paint", "{data}", "{model}", "--layer", "body"], "which features of the layer? Give their numbers by --units"),
    (["visualize", "{data}", "{model}", "--units", "3,999"], "there is no feature unit 999: the layer has 16"),
    (
        ["invert", "{data}", "{model}", "--mask", "left"],
        "the task 'invert' has no --mask; it has --flips, --fourier, --jitter, --layer, --positions",
    ),
    (["gradients", "{data}", "{model}", "--images", "2", "--positions", "3"], "give one of them"),
    (["gradients", "{data}", "{model}", "--positions", "3,20"], "there is no image at position 20: test (test) has 20, from 0 on"),
    (["gradients", "{data}", "{model}", "--positions", "3,x"], "'x' is not a whole number"),
    (["super-resolve", "{data}", "{model}", "--factor", "0.5"], "0.5 is too small; it must be >= 1"),
    (["inpaint", "{data}", "{model}", "--mask", "nowhere.png"], "there is no mask 'nowhere.png': --mask takes a picture, or one of square"),
    (["inpaint", "{data}", "{model}", "--mask", "{large}"], "must be as large as the images, 8x8, got 9x8"),
    (["inpaint", "{data}", "{model}", "--mask", "{black}"], "is black everywhere"),
    (["inpaint", "{data}", "{model}", "--mask", "{white}"], "the mask must leave some pixels"),
    (["inpaint", "{data}", "{model}", "--mask", "{text}"], "cannot be read as a picture"),
    (["interpolate", "{data}", "{model}", "--images", "1"], "needs at least 2 images"),
    (["sensitivity", "{data}", "{model}", "--top", "99"], "--top must be at most the number of features, 16, got 99"),
    (["gradients", "{data}", "{model}", "--grid", "out.jpg"], "a sheet of pictures is a PNG file, such as sheet.png, not out.jpg"),
    (["gradients", "{data}", "{model}", "--tensorboard"], "--tensorboard writes into --out FOLDER"),
    (["gradients", "{data}", "{model}", "--out", "{here}"], "is not an empty folder"),
    (
        ["gradients", "{data}", "{model}", "--grid", "{foreign}"],
        "is something else: choose another name for the picture",
    ),
    (
        ["gradients", "--model", "{a}", "--images", "{white}"],
        "needs a set of labelled images, by --data; picture files are for inpaint",
    ),
    (["invert", "{data}", "{model}", "--images", "{white}"], "--images names files already, so --data means nothing: leave it out"),
    (["invert", "{model}", "--images", "{white},{large}"], "is 9x8 but the images before it are 8x8; give --image-size"),
    (["invert", "{model}", "--images", "nowhere.png"], "cannot read the image nowhere.png"),
    (["invert", "{model}", "--images", "{text}"], "cannot read the image"),
    (["invert", "{model}", "--images", "{deep}"], "has more than 8 bits per channel, convert it to 8 bits first"),
    (["invert", "{model}", "--images", "-3"], "-3 is negative"),
    (["invert", "--model", "{a}"], "needs images: --data PATH, or --dataset shapes, or --images FILE,FILE"),
    (["--replay", "nowhere.json"], "nowhere.json does not exist"),
    (["--replay", "{text}"], "cannot be read as a replay file"),
    (["--replay", "{object}"], "is no replay file of robustlab synthesize"),
]


@pytest.fixture
def places(models: dict[str, Path], data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    here = tmp_path_factory.mktemp("wrong")
    for name, size, value in (("large", (9, 8), 255), ("black", (8, 8), 0), ("white", (8, 8), 255)):
        Image.new("L", size, value).save(here / f"{name}.png")
    Image.new("I;16", (8, 8), 40_000).save(here / "deep.png")
    (here / "text.png").write_text("no picture")
    (here / "foreign.json").write_text("{}")
    return {
        **{name: here / f"{name}.png" for name in ("large", "black", "white", "text", "foreign", "deep")},
        "object": here / "foreign.json",
        "here": here,
        **models,
    }


@pytest.mark.parametrize("words, sentence", MISTAKES, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_a_mistake_is_told_in_one_sentence(
    refused: Call, places: dict[str, Any], models: dict[str, Path], data: Path, tmp_path: Path, monkeypatch, words: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    judge = ["--judge", models["c"]] if words and words[0] in JUDGED else []
    short = {"{data}": ["--data", data], "{model}": ["--model", models["a"], *judge]}
    typed = [part for word in words for part in short.get(word) or [word.format(**places)]]
    few = ["--steps", "1"] if words and words[0] in SEARCHING else []
    assert sentence in refused("synthesize", *typed, *few, *LIGHT)
    assert not list(tmp_path.iterdir())


def test_a_replay_with_other_weights_data_or_settings_is_refused(
    synthesize: Call, refused: Call, models: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    assert synthesize("gradients").code == 0
    record, path = read(tmp_path / "out.json"), tmp_path / "changed.json"

    def changed(**changes: Any) -> str:
        path.write_text(json.dumps({**record, **changes}))
        return refused("synthesize", "--replay", path, *LIGHT)

    assert "the replay file was made with other models" in changed(models={name: "0" for name in record["models"]})
    assert "the replay file was made with other data: test is not the same here" in changed(data={"test": {}})
    assert "unknown setting 'stpes'. Did you mean 'steps'?" in changed(settings={**record["settings"], "stpes": 3})
    for name in ("trust_checkpoint", "out", "replay"):
        assert f"unknown setting '{name}'" in changed(settings={**record["settings"], name: True})
    assert "is not a whole number" in changed(settings={**record["settings"], "seed": "x"})
    assert "leave out --seed" in refused("synthesize", "--replay", tmp_path / "out.json", "--seed", "4", *LIGHT)
    assert not (tmp_path / "changed-replay.png").exists()


def test_a_file_from_before_weights_were_written_down_means_the_published_one(synthesize: Call, call: Call, tmp_path: Path) -> None:
    assert synthesize("inpaint", "--weight", "10").code == 0
    record = read(tmp_path / "out.json")
    (tmp_path / "old.json").write_text(json.dumps({**record, "settings": {**record["settings"], "weight": None}}))
    assert "byte for byte" in call("synthesize", "--replay", tmp_path / "old.json", *LIGHT).out


@pytest.mark.parametrize("task", SEARCHING)
def test_a_file_from_before_pictures_were_kept_natural_makes_what_it_made(synthesize: Call, call: Call, tmp_path: Path, task: str) -> None:
    """What such a file does not name was not there: it names eps, steps and step size, which were other defaults."""
    presets = TASKS[task].presets
    assert presets is not None
    then = {name: published for name, (_, published) in presets.choices.items()}
    plain = [word for name, value in then.items() for word in (f"--{name}", value)]
    assert synthesize(task, "--tv", "0", "--jitter", "0", "--flips", "0", *plain).code == 0
    record = read(tmp_path / "out.json")
    old = {name: value for name, value in record["settings"].items() if name not in ("tv", "jitter", "flips", "fourier", *then)}
    (tmp_path / "old.json").write_text(json.dumps({**record, "settings": old}))
    assert "byte for byte" in call("synthesize", "--replay", tmp_path / "old.json", *LIGHT).out


def test_sheets_from_before_there_was_a_harmonic_fill_have_no_row_of_it(synthesize: Call, tmp_path: Path) -> None:
    heights = {}
    for start in ("mean", "harmonic"):
        assert synthesize("inpaint", "--start", start, out=f"{start}.png").code == 0
        with Image.open(tmp_path / f"{start}.png") as sheet:
            heights[start] = sheet.height
    assert heights["mean"] < heights["harmonic"]


def test_a_replay_that_makes_other_bytes_says_so_and_why(synthesize: Call, call: Call, tmp_path: Path) -> None:
    assert synthesize("gradients").code == 0
    record = read(tmp_path / "out.json")
    (tmp_path / "old.json").write_text(json.dumps({**record, "picture": "0", "versions": {**record["versions"], "torch": "1.0"}}))
    told = call("synthesize", "gradients", "--replay", tmp_path / "old.json", *LIGHT)
    assert told.code == 0 and "differs from that of the replay file (torch 1.0 there" in told.err and "byte for byte" not in told.out


def test_the_command_is_one_of_the_commands() -> None:
    assert COMMANDS["synthesize"] is Synthesize


# Interrupted and gone on with


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, but for the words of the command in the replay file."""
    found = {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and "events.out" not in path.name
    }
    record = json.loads(found["grid.json"])
    record["versions"].pop("command")
    found["grid.json"] = json.dumps(record).encode()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("task", ["translate", "interpolate", "extremes", "sensitivity", "visualize", "gradients"])
def test_killed_at_any_write_it_goes_on_to_the_same_bytes(synthesize: Call, monkeypatch, tmp_path: Path, task: str) -> None:
    many = {"sensitivity": ["--images", 4], "interpolate": ["--images", 4], "extremes": ["--top", 2]}.get(task, ["--images", 3])

    def make(folder: Path) -> Any:
        where = ["--out", folder, "--grid", folder / "grid.png", "--batch-size", "2"]
        return synthesize(task, *where, *([] if task == "gradients" else ["--tensorboard"]), *many, model="a,b")

    after = dying(monkeypatch)
    writes = after(1 << 30)
    assert make(tmp_path / "whole").code == 0
    total, whole = writes(), content(tmp_path / "whole")
    assert total > 8 and not [name for name in whole if "/." in name or name.startswith(".")]
    for victim in range(1, total + 1, 5 if task == "sensitivity" else 3):  # whose pictures take longest
        after(victim)
        with pytest.raises(Killed):
            make(tmp_path / str(victim))
        after(0)
        told = make(tmp_path / str(victim))
        assert told.code == 0, (victim, told)
        assert content(tmp_path / str(victim)) == whole, victim
        assert len(list((tmp_path / str(victim)).rglob("events.out*"))) == (task != "gradients")


def test_only_what_is_missing_is_made_and_ctrl_c_says_that_it_goes_on(synthesize: Call, refused: Call, monkeypatch, tmp_path: Path) -> None:
    out, searched = tmp_path / "out", []
    search = budget.Search.__call__

    def interrupted(self: Any, objective: Any, x0: Any, **options: Any) -> Any:
        searched.append(len(x0))
        if len(searched) == 3:
            raise KeyboardInterrupt
        return search(self, objective, x0, **options)

    monkeypatch.setattr(budget.Search, "__call__", interrupted)
    words = ["--out", out, "--grid", out / "grid.png", "--images", "5", "--batch-size", "1", "--target", "red"]
    told = synthesize("translate", *words)
    assert told.code == 130 and "the same command goes on from here" in told.err
    said = synthesize("translate", *words, "--seed", "1")
    assert said.code == 2 and "set of pictures with other settings" in said.err and "seed: 0 there, 1 here" in said.err
    searched.clear()
    searched.extend([0] * 3)
    assert synthesize("translate", *words).code == 0 and searched[3:] == [1, 1, 1]
    assert not (out / ".unfinished").exists()


def test_what_is_finished_is_told_again_and_nothing_is_made(synthesize: Call, refused: Call, monkeypatch, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--out", out, "--grid", out / "grid.png", "--images", "3", "--target", "red"]
    first = synthesize("translate", *words)
    assert first.code == 0, first.err
    made = content(out) | {"grid.json": (out / "grid.json").read_bytes()}
    monkeypatch.setattr(budget.Search, "__call__", lambda *args, **options: pytest.fail("a picture is made again"))
    again = synthesize("translate", *words)
    assert (again.code, again.out) == (0, first.out)
    assert again.err.endswith(f"these pictures were finished before, in {out}\n")
    assert content(out) | {"grid.json": (out / "grid.json").read_bytes()} == made
    for more, named in (
        (["--seed", "1"], "seed: 0 there, 1 here"),
        (["--columns", "2"], "columns: "),
        (["--tensorboard"], "tensorboard: False there, True here"),
        (["--steps", "4"], "steps: 3 there, 4 here"),
    ):
        told = synthesize("translate", *words, *more)
        assert told.code == 2 and "holds a set of pictures with other settings" in told.err and named in told.err, more
    told = synthesize("translate", *words[:2], "--grid", tmp_path / "elsewhere.png", *words[4:])
    assert told.code == 2 and "elsewhere.png is not there or is not their sheet" in told.err
    (out / "grid.png").write_bytes(b"another")
    told = synthesize("translate", *words)
    assert told.code == 2 and "is not their sheet" in told.err
