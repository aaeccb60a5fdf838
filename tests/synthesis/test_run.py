"""``synthesize`` from Python: every task, on any model, with pictures that depend on their image, the model and the seed alone."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from laws import restless, untouched
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import robustlab
from robustlab import synthesis
from robustlab.commands import main
from robustlab.data.imageset import ImageSet, whole
from robustlab.data.shapes import shapes
from robustlab.errors import UserError
from robustlab.models.architectures import build
from robustlab.models.checkpoints import Provenance, save_weights
from robustlab.models.classifier import Classifier
from robustlab.synthesis import Pictures, synthesize
from robustlab.synthesis.ensemble import ensemble, members_of
from robustlab.synthesis.selection import in_turn, match, select
from robustlab.synthesis.tasks import SPECIAL, TASKS, Generate, Translate, options_of
from robustlab.synthesis.tasks.classes import drawing_of

CLASSES = ("red", "green", "blue")
SEARCHING = [name for name, task in TASKS.items() if task.presets]
OTHERS: dict[str, Any] = {"progress": False, "batch_size": 4}


def coloured(n: int, seed: int) -> ImageSet:
    """8x8 images of three classes in turn, told apart by their colour, in noise."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 3
    pixels = torch.randint(0, 160, (n, 3, 8, 8), generator=generator)
    pixels[torch.arange(n), y] += 60
    return ImageSet(pixels.to(torch.uint8), y, CLASSES, "colours")


IMAGES, TRAIN = coloured(24, 0), coloured(60, 1)


def network(seed: int, classes: tuple[str, ...] = CLASSES) -> Classifier:
    return build("tiny", num_classes=len(classes), classes=classes, mean=[0.4] * 3, std=[0.2] * 3, seed=seed).eval()


@pytest.fixture(autouse=True)
def architectures(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    tiny.add_architectures(monkeypatch)
    yield


@pytest.fixture
def model() -> Classifier:
    return network(0)


@pytest.fixture
def judge() -> Classifier:
    return network(1)


def made(task: str, model: Any, judge: Any = False, images: Any = IMAGES, **options: Any) -> Pictures:
    """A few steps of a task."""
    few: dict[str, Any] = {"steps": 3} if task in SEARCHING else {}
    train: dict[str, Any] = {"train": TRAIN} if task == "generate" else {}
    return synthesize(task, model, images, judge=judge, **{**OTHERS, **few, **train, **options})


# Every task


@pytest.mark.parametrize("task", TASKS)
def test_every_task_makes_pictures_and_leaves_the_models_as_they_were(task: str, model: Classifier, judge: Classifier) -> None:
    restless(model)
    with untouched(model, IMAGES.pixels), untouched(judge):
        pictures = made(task, model, judge, n=12)
    width = len(pictures.heads)
    for title, x in [*pictures.given, *pictures.rows]:
        assert title and x.ndim == 4 and len(x) == width and x.shape[2:] == (8, 8) and 0 <= x.min() and x.max() <= 1
    assert pictures.rows and pictures.numbers and pictures.model == "tiny"
    assert pictures.judge == ("tiny" if TASKS[task].judged else None)
    assert pictures.source == ("24 images of colours" if task == "extremes" else "12 images of colours")
    assert len(pictures.objective) == (4 if task in SEARCHING else 0)
    if task in SEARCHING:
        assert pictures.objective[-1] <= pictures.objective[0]


@pytest.mark.parametrize("task", TASKS)
def test_the_table_says_what_a_task_is(task: str) -> None:
    known = TASKS[task]
    assert callable(known.function) and known.function.__doc__ and known.n > 0
    assert re.fullmatch(r"[a-z][a-z ,]*[a-z]", known.about), "a few words"
    assert all("option" in field.metadata for field in fields(known.settings)), "every setting has its help"
    assert set(options_of(known)) <= SPECIAL


def test_the_package_has_the_names_that_it_promises() -> None:
    assert set(synthesis.__all__) == set(synthesis._HOME) and set(synthesis.__all__) <= set(dir(synthesis))
    for name in synthesis.__all__:
        assert getattr(synthesis, name) is not None
    assert robustlab.synthesize is synthesize
    with pytest.raises(AttributeError, match="has no attribute 'synthesise'"):
        synthesis.synthesise  # noqa: B018


# What pictures depend on


@pytest.mark.parametrize("task", ["translate", "inpaint", "invert", "paint", "sketch"])
def test_a_picture_depends_on_its_image_alone(task: str, model: Classifier) -> None:
    """Not on the batch, the order or the other images; convolutions may round differently in batches of another size."""
    all_at_once = made(task, model, positions=range(24), batch_size=24).images
    some = made(task, model, positions=torch.tensor([17, 4, 9]), batch_size=2).images
    if task == "invert":  # its start of noise is the image's own; its neighbour's image would not be
        assert torch.allclose(made(task, model, positions=[9, 4], start="noise").images[0], some[2], atol=1e-4)
    torch.testing.assert_close(some, all_at_once[[17, 4, 9]], atol=1e-4, rtol=0)


def test_a_generated_picture_depends_on_its_number_and_the_seed(model: Classifier) -> None:
    few, more, other = (made("generate", model, n=n, seed=seed).images for n, seed in ((3, 0), (9, 0), (3, 1)))
    torch.testing.assert_close(few, more[:3], atol=1e-4, rtol=0)
    assert not torch.allclose(few, other, atol=1e-3)


def test_settings_are_given_by_name_or_as_an_object(model: Classifier) -> None:
    by_name = made("translate", model, target="blue", eps=2.0)
    settings = Translate(target="blue", eps=2.0, steps=3)
    assert torch.equal(by_name.images, synthesize(settings, model, IMAGES, judge=False, **OTHERS).images)
    changed = synthesize(replace(settings, target="red"), model, IMAGES, judge=False, target="blue", **OTHERS)
    assert torch.equal(by_name.images, changed.images), "a name that is given wins"
    assert by_name.heads == ["to blue"] * 10


def test_several_models_make_what_each_makes_alone(model: Classifier, judge: Classifier) -> None:
    both = made("translate", {"one": model, "two": judge}, network(2))
    alone = made("translate", judge, network(2))
    assert list(both.by_model) == ["one", "two"] and both.model == "one"
    assert torch.equal(both.by_model["two"].images, alone.images) and both.by_model["two"].numbers == alone.numbers
    assert both.sheet().shape[1] > alone.sheet().shape[1]


def test_a_network_of_ones_own_is_no_classifier(judge: Classifier) -> None:
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    assert made("translate", plain, judge).model == "Sequential"
    assert made("gradients", plain).numbers
    with pytest.raises(UserError, match="Sequential has 4 outputs, but colours has 3 classes"):
        made("translate", nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))
    with pytest.raises(UserError, match="Sequential has no features of its own: name a layer, one of 0, 1"):
        made("invert", plain)
    assert made("invert", plain, layer="0").images.shape == (10, 3, 8, 8)


# The judge


def test_a_judge_is_no_maker_and_may_be_left_out(model: Classifier, judge: Classifier) -> None:
    judged, alone = made("translate", model, {"J": judge}), made("translate", model, False)
    assert judged.judge == "J" and alone.judge is None and torch.equal(judged.images, alone.images)
    assert set(judged.numbers) - set(alone.numbers) == {"targeted success rate"}
    with pytest.raises(UserError, match="tiny makes the pictures and cannot judge them: name another classifier by `judge`"):
        made("translate", model, network(0))


def test_the_judge_counts_what_it_says_to_count(model: Classifier, judge: Classifier) -> None:
    pictures = made("translate", model, judge, target="green")
    with torch.no_grad():
        assert pictures.numbers["targeted success rate"] == float((judge(pictures.images).argmax(1) == 1).double().mean())
    moved = (pictures.images - pictures.given[0][1]).flatten(1).norm(dim=1)
    assert pictures.numbers["L2 distance to the image"] == pytest.approx(float(moved.mean()), rel=1e-5)


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.judged])
def test_where_nobody_can_judge_the_pictures_are_made_and_a_note_says_so(task: str, model: Classifier) -> None:
    alone, unasked = made(task, model, None), made(task, model, False)
    assert torch.equal(alone.images, unasked.images) and alone.numbers == unasked.numbers and alone.judge is None
    (note,) = set(alone.notes) - set(unasked.notes)
    assert note.startswith("no pretrained classifier of these classes can judge the pictures of tiny: --judge names one")
    assert alone.replay is not None and made(task, model, None, replay=alone.replay).replay == alone.replay


# Networks that write over what they are given


class Overwriting(nn.Module):
    """Normalizes in place, and ends the way a ``Classifier`` does."""

    def __init__(self, inner: Classifier) -> None:
        super().__init__()
        self.body, self.head, self.arch = inner.body, inner.head, "overwriting"

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x.sub_(0.4).div_(0.2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x))


@pytest.mark.parametrize("task", TASKS)
def test_a_network_that_writes_over_its_input_leaves_the_images_alone(task: str, model: Classifier, judge: Classifier) -> None:
    """And makes the pictures of one that does not, with the layers that both have."""
    images = (IMAGES.pixels.float() / 255, IMAGES.labels)
    before = images[0].clone()
    hurting = Overwriting(model)
    pictures = made(task, hurting, judge, images=images, n=12)
    assert torch.equal(images[0], before) and not hurting._forward_pre_hooks
    kind = Overwriting(model)
    kind.features = lambda x: kind.body(x.sub(0.4).div(0.2))  # type: ignore[method-assign]
    alike = made(task, kind, judge, images=images, n=12)
    assert torch.equal(pictures.images, alike.images) and pictures.numbers == alike.numbers
    for title, x in pictures.given:
        assert 0 <= x.min() and x.max() <= 1, title


# Ensembles


def test_an_ensemble_is_a_classifier_whose_logits_are_the_mean_of_its_members(judge: Classifier) -> None:
    one, two = network(0), network(3, ("blue", "red", "green"))
    both = ensemble([one, two])
    x = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        expected = (one(x) + two(x)[:, [1, 2, 0]]) / 2
        torch.testing.assert_close(both(x), expected, rtol=1e-5, atol=1e-5)
    assert both.classes == CLASSES and members_of(both) == [one, two] and members_of(one) == [one]
    for task in TASKS:
        assert made(task, both, judge, n=12).rows, task
    with pytest.raises(UserError, match="J makes the pictures and cannot judge them"):
        made("translate", both, {"J": one})


def test_an_ensemble_is_named_by_its_members(tmp_path: Path, judge: Classifier) -> None:
    for seed, name in enumerate(("a", "b+c")):
        save_weights(tmp_path / name, network(seed + 4), Provenance("none", "none", "none", {}, 0, 0, "abc"))
    one, whole = f"{tmp_path}/a.json", f"{tmp_path}/b+c.json"
    assert torch.equal(made("translate", whole, judge).images, made("translate", network(5), judge).images), "a path is taken whole"
    joined = made("translate", f"{one}+{one}", judge)
    torch.testing.assert_close(joined.images, made("translate", one, judge).images, atol=1e-4, rtol=0)
    with pytest.raises(UserError, match="must know the same classes and channels, but model 2 differs from model 1"):
        ensemble([network(0), network(1, ("a", "b"))])
    with pytest.raises(UserError, match="made of Classifiers, but model 1 is a Linear"):
        ensemble([nn.Linear(2, 2)])  # type: ignore[list-item]
    with pytest.raises(UserError, match="at least one model"):
        ensemble([])


# Images


SOME = torch.tensor([17, 4, 9, 20])


@pytest.mark.parametrize("task, asked", [("invert", {"start": "noise"}), ("gradients", {})])
def test_an_image_is_known_by_its_place_in_the_whole_split(task: str, asked: dict[str, Any], model: Classifier) -> None:
    every = made(task, model, positions=range(24), batch_size=1, **asked)
    few = made(task, model, images=IMAGES.subset(SOME), positions=[9, 17], batch_size=1, **asked)
    assert torch.equal(few.images, every.images[[9, 17]])
    assert few.replay is not None and every.replay is not None
    assert few.replay["images"] == [9, 17] and few.replay["places"] == "in the whole split"
    assert every.replay["images"] == list(range(24)) and "places" not in every.replay, "as before"
    with pytest.raises(UserError, match="no image at position 3: colours .test. is 4 of a split, without it"):
        made(task, model, images=IMAGES.subset(SOME), positions=[3], **asked)


def test_a_replay_file_from_before_counts_within_the_images_as_it_did(model: Classifier) -> None:
    some = IMAGES.subset(SOME)
    now = made("invert", model, images=some, positions=[9], start="noise").replay
    assert now is not None
    before = {name: value for name, value in now.items() if name != "places"}
    within = made("invert", model, images=replace(some, positions=None), positions=[2], start="noise")
    again = made("invert", model, images=some, positions=[2], start="noise", replay=before)
    assert torch.equal(again.images, within.images) and again.replay is not None
    assert again.replay["images"] == [2] and "places" not in again.replay
    assert not torch.equal(again.images, made("invert", model, images=some, positions=[9], start="noise", replay=now).images)


def test_the_object_of_shapes_is_known_where_positions_are_those_of_the_set(tmp_path: Path) -> None:
    images = shapes(30, "test")
    model = network(0, images.classes)
    known = "share of the pixels on the object"
    assert 0.03 < made("gradients", model, images=images).numbers[known] < 0.5
    backwards = images.subset(torch.arange(29, -1, -1))
    assert 0.03 < made("gradients", model, images=backwards).numbers[known] < 0.5, "each image has its place"
    assert known not in made("gradients", model, images=whole(backwards)).numbers


def test_data_of_any_kind_are_worked_on(model: Classifier, judge: Classifier) -> None:
    """Numbers for classes are those of the model's outputs, which give them their names."""
    x, y = IMAGES.pixels.float() / 255, IMAGES.labels
    expected = made("translate", model, judge, target="green")
    data = (x.numpy(), y.numpy()), TensorDataset(x, y), DataLoader(TensorDataset(x, y), 5), [(x[:9], y[:9]), (x[9:], y[9:])]
    for images in data:
        pictures = made("translate", model, judge, images=images, target="green")
        assert torch.equal(pictures.images, expected.images) and pictures.numbers == expected.numbers
    assert torch.equal(made("generate", model, judge, train=(TRAIN.pixels, TRAIN.labels)).images, made("generate", model, judge).images)
    first = made("translate", model, judge, images=(x[:1], y[:1]), target="blue")
    assert torch.equal(first.images, made("translate", model, judge, positions=[0], target="blue").images), "also where labels are few"


def test_where_every_image_is_worked_on_they_are_compared_with_themselves(model: Classifier) -> None:
    assert made("gradients", model, n=24).numbers and made("visualize", model, n=24, units=[1]).numbers


def test_picture_files_are_labelled_by_the_first_model(model: Classifier, judge: Classifier, tmp_path: Path) -> None:
    for i, name in enumerate(("a.png", "b.png")):
        Image.fromarray(IMAGES.pixels[i].permute(1, 2, 0).numpy()).save(tmp_path / name)
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    pictures = made("translate", model, judge, images=paths)
    names = [CLASSES[k] for k in model(IMAGES.pixels[:2].float() / 255).argmax(1).tolist()]
    assert f"tiny classifies the pictures as {', '.join(names)}; `target` names another class" in pictures.notes
    assert pictures.replay is not None and pictures.replay["settings"]["images"] == [str(path) for path in paths]
    assert made("translate", model, judge, images=str(paths[0]), target="red").notes == ()
    with pytest.raises(UserError, match="the task 'gradients' needs a set of labelled images, by `data`; picture files are for inp"):
        made("gradients", model, images=paths)


def test_images_are_selected_in_turn() -> None:
    assert in_turn(torch.tensor([0, 0, 0, 1, 1, 2]), 5).tolist() == [0, 3, 5, 1, 4]
    assert in_turn(torch.tensor([2, 2]), 5).tolist() == [0, 1] and len(in_turn(torch.tensor([], dtype=torch.int64), 5)) == 0


def test_drawings_are_dark_where_brightness_changes_and_white_elsewhere() -> None:
    x = torch.zeros(1, 3, 8, 8)
    x[..., 4:] = 0.5
    drawn = drawing_of(x)
    assert drawn.shape == x.shape and torch.equal(drawn[:, 0], drawn[:, 2])
    assert drawn[..., 3:5].max() == 0 and drawn[..., :3].min() == drawn[..., 5:].min() == 1
    assert drawing_of(x * 0).min() == 1


# What is shown and saved


def test_pictures_save_themselves_with_what_makes_them_again(model: Classifier, judge: Classifier, tmp_path: Path) -> None:
    pictures = made("translate", {"A": model}, {"J": judge}, target="blue")
    pictures.save(tmp_path / "out.png", columns=4, singly=tmp_path / "singly")
    with Image.open(tmp_path / "out.png") as sheet:
        assert (sheet.width, sheet.height) == (pictures.sheet(4).shape[2], pictures.sheet(4).shape[1])
    assert len(list((tmp_path / "singly").iterdir())) == 10
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["settings"]["target"] == "blue" and record["settings"]["columns"] == 4 and record["command"] is None
    assert record["numbers"] == {"A": pictures.numbers} and record["judges"] == {"A": "J"}
    assert made("translate", {"A": model}, {"J": judge}, target="blue", replay=record).numbers == pictures.numbers
    with pytest.raises(UserError, match="made with other models: A is not the same here"):
        made("translate", {"A": network(5)}, {"J": judge}, replay=record)
    with pytest.raises(UserError, match="made with other data: test is not the same here"):
        made("translate", {"A": model}, {"J": judge}, images=TRAIN, replay=record)
    (tmp_path / "other.json").write_text("{}")
    for place, sentence in (("out.jpg", "a PNG file"), ("other.png", "is something else: choose another name")):
        with pytest.raises(UserError, match=sentence):
            pictures.save(tmp_path / place)


def test_paths_give_a_command_that_makes_the_same_pictures(model: Classifier, judge: Classifier, tmp_path: Path) -> None:
    paths = []
    for name, network_ in (("model", model), ("judge", judge)):
        save_weights(tmp_path / name, network_, Provenance("none", "none", "none", {}, 0, 0, "abc"))
        paths.append(str(tmp_path / f"{name}.json"))
    for split, images in (("train", TRAIN), ("test", IMAGES)):
        np.savez(tmp_path / f"{split}.npz", x=images.pixels.numpy(), y=images.labels.numpy(), classes=np.array(CLASSES))
    made("generate", paths[0], paths[1], images=str(tmp_path), train=None, target="green").save(tmp_path / "out.png")
    typed = shlex.split(json.loads((tmp_path / "out.json").read_text())["command"])
    assert main([*typed[1:], "--threads", "1", "--device", "cpu", "--grid", str(tmp_path / "typed.png")]) == 0
    assert (tmp_path / "typed.png").read_bytes() == (tmp_path / "out.png").read_bytes()
    assert main(["synthesize", "--replay", str(tmp_path / "out.json"), "--threads", "1", "--device", "cpu"]) == 0
    assert (tmp_path / "out-replay.png").read_bytes() == (tmp_path / "out.png").read_bytes()


def test_pictures_show_themselves(model: Classifier, judge: Classifier) -> None:
    pictures = made("translate", {"A": model, "B": network(3)}, {"<J>": judge}, steps=0)
    text = repr(pictures)
    assert text.startswith("Pictures: 3 rows of 10, 8x8 pixels\n10 images of colours")
    assert re.search(r"^targeted success rate +\S+ +\S+$", text, re.M) and "tensor" not in text
    assert "note: without steps, or with a step or radius of 0, the pictures of A are their starts" in text
    page = pictures._repr_html_()
    assert '<img src="data:image/png;base64,' in page and "<td>&lt;J&gt;</td>" in page and "<th>A</th><th>B</th>" in page
    assert pictures._repr_png_().startswith(b"\x89PNG")


# Mistakes


@pytest.mark.parametrize(
    "task, options, sentence",
    [
        ("translat", {}, "unknown task 'translat'. Did you mean 'translate'?"),
        ("translate", {"stpes": 3}, "unknown setting 'stpes'. Did you mean 'steps'?"),
        (
            "invert",
            {"mask": "left"},
            "the task 'invert' has no mask; it has flips, fourier, jitter, layer, positions, published, start, step_size, steps, tv",
        ),
        ("generate", {"positions": [3]}, "the task 'generate' has no positions; it has eps, flips, fourier, jitter, judge"),
        ("gradients", {"n": 3, "positions": [3]}, "n and positions both say which images to work on: give one of them"),
        ("gradients", {"positions": [3, 24]}, "there is no image at position 24: colours (test) has 24, from 0 on"),
        ("gradients", {"positions": [-1]}, "there is no image at position -1"),
        ("gradients", {"positions": []}, "positions must name at least one image"),
        ("gradients", {"n": 0}, "n must be at least 1, got 0"),
        ("gradients", {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ("generate", {"train": None}, "the task 'generate' needs training images, from which it draws its seeds: give them by `train`"),
        ("generate", {"train": shapes(3)}, "the training images shapes must have the classes and the size of colours"),
        ("visualize", {"start": "nosie"}, "unknown start 'nosie'. Did you mean 'noise'?"),
        ("super-resolve", {"factor": 0.5}, "factor must be >= 1, got 0.5"),
        ("extremes", {"top": 0}, "top must be at least 1, got 0"),
        ("translate", {"eps": -1.0}, "eps must be"),
        ("translate", {"target": "grean"}, "unknown class 'grean'. Did you mean 'green'?"),
        ("interpolate", {"points": 1}, "an interpolation needs at least 2 points, got 1"),
        ("gradients", {"images": torch.zeros(3)}, "labels are missing: give a pair (x, y) of images and class numbers"),
        ("gradients", {"images": "nowhere/data"}, "there is nothing at nowhere/data"),
        ("gradients", {"model": 3}, "a model must be a network, a name or a path, got int"),
        ("gradients", {"model": []}, "no model was given"),
        ("gradients", {"model": "cifar10-smal-l2"}, "Did you mean 'cifar10-small-l2'?"),
    ],
    ids=str,
)
def test_a_mistake_is_told_in_one_sentence(task: str, options: dict[str, Any], sentence: str, model: Classifier) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        made(task, **{"model": model, **options})


def test_models_need_names_that_differ(model: Classifier, judge: Classifier) -> None:
    with pytest.raises(UserError, match=r"models need different names, got tiny, tiny: give them as \{name: model\}"):
        made("gradients", [model, judge])
    with pytest.raises(UserError, match="a task is a name, one of gradients, .*, or its settings, got int"):
        synthesize(3, model, IMAGES)
    with pytest.raises(UserError, match="a sheet needs at least 1 column, got 0"):
        made("gradients", model).sheet(0)
    with pytest.raises(UserError, match="generation draws its seeds from training images: give them by `train`"):
        TASKS["generate"].function(match("m", model, IMAGES), select(IMAGES, 3), Generate())
