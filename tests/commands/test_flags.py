"""Flags: what is read from a command line and from a TOML file, and what is said of a value or a name that is wrong."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from robustlab.commands import COMMANDS, settings
from robustlab.commands.flags import build_parser, parse, with_flags
from robustlab.errors import UserError
from robustlab.options import changed, leaves, value_of


def train(*words: str) -> settings.Train:
    return parse(settings.Train, words, "robustlab train")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What is said of a command line for ``robustlab train`` that is wrong."""

    def called(*words: str) -> str:
        try:
            train(*words)
        except UserError as error:
            return str(error)
        except SystemExit as exit:
            assert exit.code == 2
            said = capsys.readouterr().err
            assert said.count("\n") == 1 and said.startswith("robustlab train: ")
            return said.strip()
        raise AssertionError("it was accepted")

    return called


# Flags and help


@pytest.mark.parametrize("cls", COMMANDS.values(), ids=COMMANDS)
def test_no_words_give_the_defaults_which_their_own_flags_would_read(cls: type) -> None:
    assert parse(cls, [], "x") == cls()
    for leaf in leaves(cls).values():
        if leaf.option.type is None:
            assert leaf.default in (False, None)
        elif leaf.default is not None:
            assert leaf.option.type(str(leaf.default)) == leaf.default
            assert leaf.option.choices is None or leaf.default in leaf.option.choices


@pytest.mark.parametrize("cls", COMMANDS.values(), ids=COMMANDS)
def test_help_names_every_flag_once_in_its_group_with_its_default_and_examples(cls: type) -> None:
    text = build_parser(cls, "robustlab x").format_help()
    for leaf in leaves(cls).values():
        assert len(re.findall(rf"^  {leaf.flag}\b(?!-)", text, re.MULTILINE)) == 1
        assert leaf.option.help
        if leaf.default not in (None, False):
            assert f"(default: {leaf.default})" in " ".join(text.split()) or leaf.option.shown
    assert text.count("\n  --config") == 1 and (cls.__doc__ or "x") in " ".join(text.split())
    assert "examples:\n  robustlab " in text


@pytest.mark.parametrize("cls", COMMANDS.values(), ids=COMMANDS)
def test_a_sentence_of_the_library_names_an_option_by_its_flag(cls: type) -> None:
    for leaf in leaves(cls).values():
        value = "" if leaf.option.type is None else " 3"
        for name in (leaf.name, leaf.path[-1]):  # as files and the command line call it, and as Python does
            assert with_flags(f"try `{name}`, or `{name}=3`.", cls) == f"try {leaf.flag}, or {leaf.flag}{value}."


@pytest.mark.parametrize("sentence", ["give `nothing`", "`nothing=3`", "run `robustlab train` again", "seed and `"])
def test_a_sentence_without_options_stays_as_it_is(sentence: str) -> None:
    assert with_flags(sentence, settings.Export) == sentence


def test_an_argument_of_a_function_is_named_by_the_option_that_gives_it() -> None:
    assert with_flags("give `trust=True`", settings.Evaluate) == "give --trust-checkpoint"


@pytest.mark.parametrize("name, cls", COMMANDS.items(), ids=COMMANDS)
def test_examples_are_commands_that_are_understood(name: str, cls: Any) -> None:
    for line in cls.examples:
        program, command, *words = shlex.split(line)
        assert (program, command) == ("robustlab", name)
        parse(cls, words, "x")


# Values


@pytest.mark.parametrize("text, value", [("8/255", 8 / 255), ("0.5", 0.5), ("1", 1.0), ("0", 0.0), ("1e-3", 1e-3), ("1.5/3", 0.5)])
def test_a_radius_may_be_a_fraction(text: str, value: float) -> None:
    assert value_of(train("--eps", text), "eps") == value_of(train(f"--eps={text}"), "eps") == value


@pytest.mark.parametrize(
    "flag, text, sentence",
    [
        ("--eps", "-0.5", "-0.5 is negative; it must be >= 0"),
        ("--eps", "-8/255", "-8/255 is negative; it must be >= 0"),
        ("--eps", "nan", "'nan' is not finite"),
        ("--eps", "inf", "'inf' is not finite"),
        ("--eps", "1e999", "'1e999' is not finite"),
        ("--eps", "8/0", "'8/0' is not a number like 0.5 or 8/255"),
        ("--eps", "8/255/2", "'8/255/2' is not a number like 0.5 or 8/255"),
        ("--eps", "eight", "'eight' is not a number like 0.5 or 8/255"),
        ("--eps", "", "'' is not a number like 0.5 or 8/255"),
        ("--lr", "nan", "'nan' is not finite"),
        ("--lr", "__import__('os')", "is not a number"),
        ("--epochs", "0", "0 is too small; it must be >= 1"),
        ("--epochs", "-3", "-3 is negative"),
        ("--epochs", "2.5", "'2.5' is not a whole number"),
        ("--seed", "-1", "-1 is negative"),
        ("--norm", "l3", "invalid choice: 'l3'"),
        ("--schedule", "cyclic", "invalid choice: 'cyclic'"),
    ],
)
def test_a_value_that_is_wrong_is_told_with_its_flag(refused, flag: str, text: str, sentence: str) -> None:
    said = refused(f"{flag}={text}")
    assert said.startswith(f"robustlab train: argument {flag}: ") and sentence in said


def test_a_negative_number_may_stand_apart(refused) -> None:
    assert "-0.5 is negative" in refused("--eps", "-0.5")
    assert "argument --eps" in refused("--eps", "-8/255")


def test_radii_are_separated_by_commas() -> None:
    args = parse(settings.Evaluate, ["--curve", "0,0.25,8/255"], "x")
    assert args.attack.curve == [0.0, 0.25, 8 / 255]


def test_a_value_that_is_missing(refused) -> None:
    assert "argument --eps: expected one argument" in refused("--eps")


def test_resume_takes_a_folder_or_none() -> None:
    assert train().output.resume is None
    assert train("--resume").output.resume == "auto"
    assert train("--resume", "runs/a").output.resume == "runs/a"


def test_switches() -> None:
    assert train("--download").data.download is True and train().data.download is False
    told = [train(*words).training.optimizing.amp for words in (["--amp"], ["--no-amp"], [])]
    assert told == [True, False, None]


# Names


@pytest.mark.parametrize(
    "word, nearest",
    [
        ("--epoch", "--epochs"),
        ("--step_size", "--step-size"),
        ("--labels-smoothing", "--label-smoothing"),
        ("--batchsize=3", "--batch-size"),
    ],
)
def test_a_flag_that_is_not_known_is_told_with_the_nearest(refused, word: str, nearest: str) -> None:
    said = refused(word, "3")
    assert said.startswith(f"unknown flag '{word.partition('=')[0]}'. ") and "Known: --accumulate, --amp, " in said
    assert f"Did you mean '{nearest}" in said


def test_flags_are_never_abbreviated(refused) -> None:
    assert "unknown flag '--arc'. Did you mean '--arch'?" in refused("--arc", "small")


def test_a_word_that_is_no_flag(refused) -> None:
    assert refused("resnet18") == "unexpected argument 'resnet18': every setting is a flag, such as --out FOLDER"


# TOML


@pytest.fixture
def config(tmp_path: Path) -> Callable[[str], str]:
    def written(text: str) -> str:
        (tmp_path / "run.toml").write_text(text)
        return str(tmp_path / "run.toml")

    return written


def test_a_file_is_read_below_the_command_line(config) -> None:
    path = config('recipe = "madry-l2"\neps = "8/255"\nlr = 0.05\nepochs = 7\nbatch-size = 64\nno_test = true\ndownload = false\n')
    args = train("--epochs", "9", "--config", path, "--lr", "0.1")
    assert args == changed(settings.Train(), recipe="madry-l2", eps=8 / 255, lr=0.1, epochs=9, batch_size=64, no_test=True)


def test_a_flag_that_says_the_default_still_wins_over_the_file(config) -> None:
    assert train("--config", config("seed = 5\nval_size = 10\n"), "--seed", "0").training.seed == 0


@pytest.mark.parametrize("told, value", [("true", True), ("false", False)])
def test_a_switch_with_two_forms_can_be_turned_off_in_a_file(config, told: str, value: bool) -> None:
    assert train("--config", config(f"amp = {told}\n")).training.optimizing.amp is value
    assert train("--config", config(f"amp = {told}\n"), "--no-amp").training.optimizing.amp is False


def test_resume_in_a_file(config) -> None:
    told = {text: train("--config", config(f"resume = {text}\n")).output.resume for text in ("true", "false", '"runs/a"')}
    assert told == {"true": "auto", "false": None, '"runs/a"': "runs/a"}


def test_options_may_stand_in_tables_of_their_groups(config) -> None:
    path = config(
        '[data]\npath = "here"\nlimit = 5\n[training]\nrecipe = "fast-l2"\n[training.threat]\neps = 1\n[output]\nno-test = true\n'
    )
    assert train("--config", path) == changed(settings.Train(), data="here", limit=5, recipe="fast-l2", eps=1.0, no_test=True)
    assert (
        train("--config", config('data = "here"\n')).data.path == train("--config", config('[data]\ndata = "here"\n')).data.path == "here"
    )


def test_lists_in_a_file(config) -> None:
    assert parse(settings.Evaluate, ["--config", config('curve = [0, 0.5, "8/255"]\n')], "x").attack.curve == [0.0, 0.5, 8 / 255]


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("epoch = 3", "unknown setting 'epoch'. Did you mean 'epochs'?"),
        ("[train]\nepochs = 3", "unknown setting 'train'."),
        ("config = 'other.toml'", "unknown setting 'config'."),
        ("epochs = 'ten'", "argument --epochs: 'ten' is not a whole number"),
        ("epochs = 3.0", "argument --epochs: '3.0' is not a whole number"),
        ("epochs = false", "epochs must be a number, got False"),
        ("epochs = {a = 1}", "epochs must be a number, got {'a': 1}"),
        ("epochs = [1, 2]", "argument --epochs: '1,2' is not a whole number"),
        ("eps = -1", "argument --eps: -1 is negative"),
        ("eps = nan", "argument --eps: 'nan' is not finite"),
        ("norm = 'l3'", "argument --norm: invalid choice: 'l3'"),
        ("recipe = 3", "recipe must be text in quotes, got 3"),
        ("recipe = ['a']", "recipe must be text in quotes, got ['a']"),
        ("download = 1", "download must be true or false, got 1"),
        ("amp = 'yes'", "amp must be true or false, got 'yes'"),
        ("epochs = ", "is not TOML"),
        ("epochs = 1\nepochs = 2", "is not TOML"),
        ("epochs = 1\nepochs_ = 2", "unknown setting 'epochs_'. Did you mean 'epochs'?"),
    ],
)
def test_a_file_that_is_wrong_is_named_with_what_is_wrong_in_it(refused, config, text: str, sentence: str) -> None:
    path = config(text)
    said = refused("--config", path)
    assert path in said and sentence in said


def test_a_file_that_cannot_be_read(refused, tmp_path: Path) -> None:
    assert refused("--config", str(tmp_path / "none.toml")) == f"cannot read {tmp_path / 'none.toml'}: No such file or directory"
    assert refused("--config", str(tmp_path)) == f"cannot read {tmp_path}: Is a directory"
    (tmp_path / "picture.toml").write_bytes(b"\x89PNG\xff\xfe")
    assert "is not TOML" in refused("--config", str(tmp_path / "picture.toml"))


def test_a_value_in_a_file_is_never_taken_for_a_flag(config) -> None:
    args: Any = train("--config", config('out = "--seed"\ndata = "-x"\n'))
    assert (args.output.out, args.data.path, args.training.seed) == ("--seed", "-x", 0)
