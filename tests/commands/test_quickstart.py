"""Quickstart: one page that says what results.json says, needs nothing beside it, and is safe with any data."""

from __future__ import annotations

import json
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from PIL import Image
from robustlab.commands.comparison import COLUMNS, Cell, Row, columns, exchange_lengths
from robustlab.commands.page import clear, interval, percent, render

from robustlab.commands import COMMANDS, main
from robustlab.commands.flags import parse
from robustlab.commands.quickstart import completed, next_commands
from robustlab.commands.settings import Quickstart
from robustlab.data.shapes import CLASSES, shapes
from robustlab.experiments.known_features import contradictions

HOSTILE = ("<script>alert('x')<", 'b"&amp;<img src=x>')
SMALL = ["--limit", "160", "--epochs", "1", "--batch-size", "64", "--threads", "1", "--device", "cpu"]


def quickstart(out: Path, *flags: str) -> int:
    return main(["quickstart", *SMALL, *flags, "--out", str(out)])


def read(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


class Page(HTMLParser):
    """A page's tags, addresses, alternative texts, plain text, and the texts of its table's rows; refuses bad nesting."""

    VOID = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.alts: list[str | None] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        found = dict(attrs)
        self.addresses += [found[key] for key in ("src", "href", "action", "data", "poster", "srcset") if key in found]
        if tag == "img":
            self.alts.append(found.get("alt"))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A quickstart on shapes."""
    out = tmp_path_factory.mktemp("quickstart") / "out"
    assert quickstart(out) == 0
    return out


@pytest.fixture(scope="module")
def made_of_hostile_images(tmp_path_factory) -> Path:
    """A quickstart on a folder of two classes, images that are not square, and names that would be tags.

    The folder bears the name of the embedded data, about whose features more is known.
    """
    place = tmp_path_factory.mktemp("hostile")
    for split, each in (("train", 50), ("test", 4)):
        for label, name in enumerate(HOSTILE):
            folder = place / "shapes" / split / name
            folder.mkdir(parents=True)
            for i in range(each):
                Image.new("RGB", (20, 16), (i, 200 * label, 90)).save(folder / f"{i}.png")
    assert quickstart(place / "out", "--data", str(place / "shapes"), "--batch-size", "32") == 0
    return place / "out"


@pytest.mark.parametrize("which", ["made", "made_of_hostile_images"])
def test_the_page_needs_nothing_beside_it_and_runs_nothing(which, request):
    text = (request.getfixturevalue(which) / "index.html").read_text()
    page = Page(text)
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert "url(" not in text and "@import" not in text and "://" not in text
    assert page.tags.count("h1") == page.tags.count("main") == 1
    assert "$" not in page.text, "a placeholder was left over"


@pytest.mark.parametrize("which", ["made", "made_of_hostile_images"])
def test_every_picture_has_its_words(which, request):
    alts = Page((request.getfixturevalue(which) / "index.html").read_text()).alts
    assert len(alts) >= 8 * COLUMNS and all(alts)


def test_class_names_are_shown_as_they_are(made_of_hostile_images):
    page = Page((made_of_hostile_images / "index.html").read_text())
    assert all(name in page.text for name in HOSTILE)
    assert "Two clues" not in page.text  # nobody knows the features of real images


@pytest.mark.parametrize("which", ["made", "made_of_hostile_images"])
def test_the_table_says_what_the_results_say(which, request):
    out = request.getfixturevalue(which)
    models = read(out)["models"].values()
    header, *rows = Page((out / "index.html").read_text()).rows
    assert header[1:3] == ["Standard model", "Robust model"]
    expected = [[model["accuracies"][name] for model in models] for name in ("clean", "PGD-20 (L2 eps=0.5)")]
    expected += [list(pair) for pair in zip(*(model["curve"] for model in models), strict=True)]
    expected += [[model["follows"][name] for model in models] for name in ("shape", "pattern") if which == "made"]
    for (_, *cells, n), rates in zip(rows, expected, strict=True):
        assert cells == [f"{percent(rate)} {interval(rate)}" for rate in rates]
        assert n == f"{rates[0]['n']:,}"


def test_every_number_names_its_attack_and_its_n(made):
    results = read(made)
    assert results["attack"] == "PGD-20 (L2 eps=0.5)"
    for model in results["models"].values():
        assert set(model["accuracies"]) == {"clean", "PGD-20 (L2 eps=0.5)"} and model["accuracies"]["clean"]["n"] == 160
        assert [point["eps"] for point in model["curve"]] == sorted(point["eps"] for point in model["curve"])


def test_the_pictures_are_files_too(made, made_of_hostile_images):
    for out, names in ((made, ["attacks", "contradictions", "gradients"]), (made_of_hostile_images, ["attacks", "gradients"])):
        assert sorted(path.stem for path in out.glob("*.png")) == names


def test_another_call_goes_on_where_the_last_one_was(made, capsys):
    before, trained = read(made), (made / "standard" / "model.safetensors").stat().st_mtime_ns
    (made / "robust" / "model.json").unlink()  # as if stopped just before the end of the second training
    assert quickstart(made) == 0
    said = capsys.readouterr().out
    assert "the standard model is there already" in said and "training the robust model" in said and "epoch   1/1" not in said
    assert (made / "standard" / "model.safetensors").stat().st_mtime_ns == trained
    assert read(made)["models"]["standard"] == before["models"]["standard"]
    assert read(made)["models"]["robust"]["accuracies"] == before["models"]["robust"]["accuracies"]


def test_another_quickstart_in_the_same_folder_is_refused(made, capsys):
    kept = (made / "index.html").read_bytes()
    assert quickstart(made, "--seed", "1", "--arch", "mlp") == 2
    said = capsys.readouterr().err
    assert "--seed 0 there, --seed 1 here" in said and "--arch small there, --arch mlp here" in said and "--out" in said
    assert (made / "index.html").read_bytes() == kept


def test_a_folder_with_other_things_is_refused(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert quickstart(tmp_path) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_mistake_in_the_first_call_does_not_bind_the_second(tmp_path, capsys):
    assert quickstart(tmp_path / "out", "--data", str(tmp_path / "nowhere")) == 2
    assert quickstart(tmp_path / "out", "--arch", "smal") == 2
    said = capsys.readouterr().err.splitlines()
    assert "nowhere" in said[0] and "Did you mean 'small'?" in said[1]


def test_columns_spread_over_the_classes_and_prefer_recognized_images():
    labels = torch.arange(40) % 10
    recognized = torch.ones(40, dtype=torch.bool)
    recognized[0] = False
    chosen = columns(labels, recognized, 10)
    assert labels[chosen].tolist() == [0, 1, 3, 5, 6, 8] and chosen[0] == 10
    assert columns(labels[:4], recognized[:4], 10).sort().values.tolist() == [0, 1, 2, 3]
    two = columns(torch.arange(12) % 2, torch.zeros(12, dtype=torch.bool), 2)
    assert (two % 2).tolist() == [0, 1, 0, 1, 0, 1] and len(two.unique()) == COLUMNS


def test_contradictions_differ_from_the_test_pictures_in_the_two_features_only():
    pixels, shape, pattern = contradictions(40)
    assert not (shape == pattern).any() and shape.tolist() == [i % len(CLASSES) for i in range(40)]
    change = (pixels.int() - shapes(40, "test").pixels.int()).flatten(1).abs().amax(1)
    assert change.median() < 40, "most pictures keep their shape, so only the faint pattern is another"
    lengths = exchange_lengths(40)
    assert lengths["shape"] > 3 * lengths["pattern"] > 0


def rate(value: float, half: float) -> dict:
    return {"accuracy": value, "interval95": [value - half, value + half], "n": 100}


@pytest.mark.parametrize(("robust", "expected"), [(0.55, False), (0.75, True)])
def test_a_difference_is_clear_when_the_intervals_do_not_touch(robust, expected):
    models = {"standard": {"accuracies": {"a": rate(0.5, 0.1)}}, "robust": {"accuracies": {"a": rate(robust, 0.1)}}}
    assert clear(models, "a") is expected


def test_any_picture_and_any_text_can_be_shown():
    model = {"accuracies": {"clean": rate(0.5, 0.1), "a": rate(0.5, 0.1)}, "curve": [{"eps": 0.5, **rate(0.5, 0.1)}], "follows": {}}
    results = {"image": [1, 9, 7], "eps": 0.5, "attack": "a", "models": {"standard": model, "robust": model}, "made": {}}
    rows = [Row("title", (Cell(torch.rand(1, 9, 7), "caption", "alt"),))]
    page = Page(render({**results, "dataset": "<b>&amp;"}, {"attacks": rows, "gradients": rows}, [("a < b", "c > d")]))
    assert page.alts == ["alt", "alt"] and all(text in page.text for text in ("<b>&amp;", "a < b", "c > d"))


@pytest.mark.parametrize("args", [Quickstart(), Quickstart(data="x y", dataset="npz", image_size=64)])
def test_the_next_commands_can_be_typed(args):
    """Each is parsed by the command that it names."""
    commands = next_commands(completed(args))
    assert len(commands) == 4 and any("demo" in command for command, _ in commands)
    for command, what in commands:
        words = shlex.split(command)
        name, flags = next((word, words[i + 1 :]) for i, word in enumerate(words) if word in COMMANDS)
        parsed = parse(COMMANDS[name], flags, name)
        assert what and (args.data is None or parsed.image_size == 64)
