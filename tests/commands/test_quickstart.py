"""Quickstart: one page that says what results.json says, needs nothing beside it, and is safe with any data."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from markup import Page
from PIL import Image

from robustlab.commands import COMMANDS, main
from robustlab.commands.flags import parse
from robustlab.experiments.quickstart import Settings, next_commands
from robustlab.reports.comparison import COLUMNS
from robustlab.reports.pages import accuracy_percent, interval

HOSTILE = ("<script>alert('x')<", 'b"&amp;<img src=x>')
SMALL = ["--limit", "160", "--epochs", "1", "--batch-size", "64", "--threads", "1", "--device", "cpu"]


def quickstart(out: Path, *flags: str) -> int:
    return main(["quickstart", *SMALL, *flags, "--out", str(out)])


def read(out: Path) -> dict:
    return json.loads((out / "results.json").read_text())


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
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert len(set(page.ids)) == len(page.ids)
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
        assert cells == [f"{accuracy_percent(rate)} {interval(rate)}" for rate in rates]
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


def test_it_prints_the_numbers_where_the_page_is_and_what_to_type_next(made, capsys):
    assert quickstart(made) == 0
    said = capsys.readouterr().out
    robust = read(made)["models"]["robust"]["accuracies"]["clean"]["accuracy"]
    assert f"{100 * robust:.1f} %" in said and str(made / "index.html") in said
    assert all(command in said and what in said for command, what in next_commands(Settings(), made))


def test_another_quickstart_in_the_same_folder_is_refused(made, capsys):
    kept = (made / "index.html").read_bytes()
    assert quickstart(made, "--seed", "1", "--arch", "mlp") == 2
    said = capsys.readouterr().err
    assert "seed: 0 there, 1 here" in said and "arch: 'small' there, 'mlp' here" in said and "--out" in said
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


@pytest.mark.parametrize("settings", [Settings(), Settings(data="x y", dataset="npz", image_size=64)])
def test_the_next_commands_can_be_typed(settings):
    """Each is parsed by the command that it names."""
    commands = next_commands(settings.completed(), Path("runs/quickstart"))
    assert len(commands) == 4 and any("demo" in command for command, _ in commands)
    for command, what in commands:
        words = shlex.split(command)
        name, flags = next((word, words[i + 1 :]) for i, word in enumerate(words) if word in COMMANDS)
        parsed = parse(COMMANDS[name], flags, name)
        assert what and (settings.data is None or parsed.data.image_size == 64)
