"""The console command: quick answers, exit codes, one sentence on stderr."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

import robustlab
from robustlab import commands
from robustlab.commands import COMMANDS, main
from robustlab.errors import UserError

REPOSITORY = Path(__file__).parents[2]


def modules_after(*words: str) -> tuple[int, str, set[str]]:
    """Exit code, output and imported modules of a command in a fresh interpreter."""
    code = f"""
import sys
sys.argv = ["robustlab", *{list(words)!r}]
from robustlab.commands import main
try:
    code = main()
except SystemExit as exit:
    code = exit.code
print("imported", *sys.modules, sep="\\n")
sys.exit(code)
"""
    told = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    out, _, imported = told.stdout.partition("imported\n")
    return told.returncode, out + told.stderr, set(imported.split())


@pytest.mark.parametrize(
    "words, code, text",
    [
        (["--help"], 0, "usage: robustlab COMMAND"),
        ([], 2, "usage: robustlab COMMAND"),
        (["--version"], 0, robustlab.__version__),
        (["train", "--help"], 0, "--weight-decay"),
        (["evaluate", "--help"], 0, "--restarts"),
        (["synthesize", "--help"], 0, "translate      images turned into another class"),
        (["synthesize", "translate", "--help"], 0, "--target CLASS"),
        (["synthesize", "translat"], 2, "unknown task 'translat'. Did you mean 'translate'?"),
        (["synthesize", "invert", "--mask", "left"], 2, "the task 'invert' has no --mask; it has --flips, --fourier, --jitter, --layer,"),
        (["trian"], 2, "unknown command 'trian'. Did you mean 'train'?"),
        (["train", "--epoch", "3"], 2, "Did you mean '--epochs'?"),
        (["train", "--eps", "x"], 2, "argument --eps: 'x' is not a number"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_and_mistakes_are_answered_before_anything_heavy_is_imported(words: list[str], code: int, text: str) -> None:
    told, out, imported = modules_after(*words)
    assert told == code and text in out
    assert "robustlab.commands" in imported
    assert not imported & {"torch", "torchvision", "numpy", "PIL", "tqdm", "tensorboard"}
    if code == 2 and words:
        assert out.count("\n") == 1 and "Traceback" not in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_answers_help_and_has_a_module_that_runs_it(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main([name, "--help"])
    assert exit.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: robustlab {name} ")
    assert (REPOSITORY / "robustlab" / "commands" / f"{name}.py").exists()


def test_usage_has_one_line_per_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-h"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in COMMANDS:
        assert sum(line.startswith(f"  {name} ") for line in lines) == 1
    assert all(len(line) < 140 for line in lines)


@pytest.mark.parametrize("script", ["train", "evaluate"])
def test_a_script_is_its_command(script: str) -> None:
    told = subprocess.run([sys.executable, REPOSITORY / "scripts" / f"{script}.py", "--help"], capture_output=True, text=True, cwd="/")
    assert told.returncode == 0 and told.stdout.startswith(f"usage: robustlab {script} ") and not told.stderr


def test_python_m_robustlab_is_the_console_command() -> None:
    told = subprocess.run([sys.executable, "-m", "robustlab", "trian"], cwd=REPOSITORY, capture_output=True, text=True)
    assert told.returncode == 2 and not told.stdout
    assert told.stderr.startswith("robustlab: unknown command 'trian'. Did you mean 'train'?") and told.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "raised, code, said",
    [
        (None, 0, ""),
        (UserError("the disk is full"), 2, "robustlab: the disk is full\n"),
        (KeyboardInterrupt(), 130, "robustlab: interrupted\n"),
    ],
)
def test_exit_codes(monkeypatch, capsys, raised: BaseException | None, code: int, said: str) -> None:
    def run(args: object) -> None:
        if raised:
            raise raised

    monkeypatch.setattr(commands, "import_module", lambda name: SimpleNamespace(run=run))
    assert main(["models"]) == code
    assert capsys.readouterr().err == said


def test_a_warning_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(args: object) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("your weights are odd", stacklevel=2)

    monkeypatch.setattr(commands, "import_module", lambda name: SimpleNamespace(run=run))
    before = warnings.showwarning
    assert commands.main(["models"]) == 0
    assert capsys.readouterr().err == "warning: your weights are odd\n"
    assert warnings.showwarning is before


def test_an_error_of_our_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(args: object) -> None:
        raise RuntimeError("a mistake in the code")

    monkeypatch.setattr(commands, "import_module", lambda name: SimpleNamespace(run=run))
    with pytest.raises(RuntimeError):
        main(["models"])


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"]], ids=" ".join)
@pytest.mark.parametrize("buffering", [[], ["-u"]], ids=["", "unbuffered"])
def test_a_reader_that_goes_away_is_no_error(words: list[str], buffering: list[str]) -> None:
    """``robustlab --help | head -0``."""
    read, write = os.pipe()
    os.close(read)
    told = subprocess.run(
        [sys.executable, *buffering, "-m", "robustlab", *words], cwd=REPOSITORY, stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert told.stderr == ""


def test_models_lists_architectures_and_pretrained_models(call) -> None:
    told = call("models")
    assert told.code == 0
    assert "small, resnet18" in told.out and "pretrained models:" in told.out
