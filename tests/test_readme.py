"""The README's Python runs, and its commands are commands."""

import re
import shlex
from pathlib import Path

import pytest

from robustlab.commands import COMMANDS
from robustlab.commands.flags import parse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCUMENTS = [README, *(path.read_text() for path in sorted((ROOT / "docs").glob("*.md")))]


def blocks(language: str) -> list[str]:
    return [block for text in DOCUMENTS for block in re.findall(rf"```{language}\n(.*?)```", text, re.S)]


@pytest.mark.parametrize("code", blocks("python"))
def test_python_blocks_run(code):
    exec(compile(code, "README.md", "exec"), {})


def command_lines() -> list[list[str]]:
    lines = [shlex.split(line, comments=True) for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize("line", command_lines(), ids=" ".join)
def test_commands_parse(line):
    if line[0] == "robustlab":
        parse(COMMANDS[line[1]], line[2:], "robustlab")
    elif line[0] == "torchrun":
        script = next(i for i, word in enumerate(line) if word.startswith("scripts/"))
        parse(COMMANDS[Path(line[script]).stem], line[script + 1 :], "robustlab")
    scripts = [word for word in line if word.startswith("scripts/")]
    assert all((ROOT / script).is_file() for script in scripts)


def test_every_recipe_is_described():
    from robustlab.training import RECIPES

    assert all(f"`{name}`" in README for name in RECIPES)
