"""Paths as users write them, at every door: the home folder, commas, and names that no file can have."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from laws import seeded

from robustlab import files
from robustlab.commands import COMMANDS, main
from robustlab.commands.flags import parse
from robustlab.commands.settings import synthesize_settings
from robustlab.data import open_dataset
from robustlab.errors import UserError
from robustlab.options import TEXTS, Leaf, leaves, location, paths, several, value_of
from robustlab.paths import place_of, shown
from robustlab.synthesis.tasks import TASKS


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


PLACES = ("PATH", "FOLDER", "FILE", "NAME|PATH")


def places(settings: type) -> list[Leaf]:
    """The options that take a path."""
    return [leaf for leaf in leaves(settings).values() if leaf.option.metavar in PLACES and leaf.option.type in TEXTS]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_that_takes_a_path_knows_the_home_folder(home, name):
    """On the command line and in TOML."""
    found = [([], leaf) for leaf in places(COMMANDS[name])]
    if name == "synthesize":  # a mask is a name or a path, and is found where it is used
        found = [(["--task", task], leaf) for task in TASKS for leaf in places(synthesize_settings(task)) if leaf.name != "mask"]
    for first, leaf in found:
        typed = parse(COMMANDS[name], [*first, f"{leaf.flag}=~/a b"], name)
        Path("run.toml").write_text(f'{leaf.name} = "~/a b"\n')
        read = parse(COMMANDS[name], [*first, "--config", "run.toml"], name)
        assert value_of(typed, leaf.name) == value_of(read, leaf.name) == f"{home}/a b", leaf.flag


def test_a_config_in_the_home_folder_is_read(home):
    (home / "run.toml").write_text('out = "~/runs"\n')
    assert value_of(parse(COMMANDS["train"], ["--config=~/run.toml"], "train"), "out") == f"{home}/runs"


def test_what_is_written_from_python_lies_in_the_home_folder(home):
    files.write_text("~/a/b.txt", "hello")
    with files.atomic_folder("~/c") as folder:
        (folder / "d").write_text("x")
    assert (home / "a" / "b.txt").read_text() == "hello" and (home / "c" / "d").exists()
    np.savez(home / "train.npz", x=np.zeros((2, 4, 4, 3), np.uint8), y=[0, 1])
    assert len(open_dataset("~")) == len(open_dataset("npz", "~")) == 2
    assert not os.listdir(".")


# Commas


@pytest.mark.parametrize("there", ["lr=0.1,bs=8/a.pt", "a,b,c,d/x", "one"])
def test_a_path_that_is_there_is_taken_whole(home, there):
    Path(there).parent.mkdir(parents=True, exist_ok=True)
    Path(there).write_text("")
    assert paths(there) == [there] and paths(f"name,{there},other") == ["name", there, "other"]
    assert paths(f"{there},{there}") == [there, there]


@seeded
@given(st.lists(st.text("ab=. /", min_size=1).filter(lambda s: s.strip()), min_size=1, max_size=5))
def test_names_are_cut_at_commas(parts):
    assert paths(",".join(parts)) == [part.strip() for part in parts]


def test_nothing_stays_nothing():
    assert location("") == several("") == "" and several(" , ") == " , "


def test_nothing_is_no_list():
    for text in ("", ",", " , "):
        with pytest.raises(UserError, match="names nothing"):
            paths(text)


# Names that no file can have


@pytest.mark.parametrize("path", ["a\0b", "x" * 300, "x/" * 3000])
def test_impossible_names_are_a_sentence(path):
    for door in (place_of, location, lambda path: files.write_text(path, ""), files.check_vacant):
        with pytest.raises(UserError, match="can be no path") as caught:
            door(path)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


@seeded
@given(st.text())
def test_any_path_is_shown_in_one_line_that_can_be_written(text):
    assert shown(text).isprintable() and len(shown(text).encode()) < 2000


def test_messages_reach_the_terminal_in_one_line(capsys, tmp_path):
    assert main(["train", "--data", f"{tmp_path}/a\nb\x1b[31m"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
