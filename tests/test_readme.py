"""The README's Python runs, and the commands of all documents are commands."""

from __future__ import annotations

from pathlib import Path

import documents
import pytest

from robustlab.commands import COMMANDS
from robustlab.commands.flags import parse
from robustlab.training import RECIPES

SCRIPTS = {"make_dataset": "construct", "serve_demo": "demo"}  # whose name is not that of their command
LINES = [line for page in documents.ALL for line in documents.commands(page)]


def test_python_blocks_run_from_top_to_bottom(tmp_path):
    documents.run(documents.README, tmp_path)


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_commands_parse(line):
    scripts = [word for word in line if word.startswith(("scripts/", "benchmarks/"))]
    assert all((documents.ROOT / script).is_file() for script in scripts)
    if line[0] == "robustlab":
        name, flags = line[1], line[2:]
    else:
        name = next((SCRIPTS.get(Path(script).stem, Path(script).stem) for script in scripts), "")
        flags = line[line.index(scripts[0]) + 1 :] if scripts else []
    if name in COMMANDS and "--help" in flags:
        with pytest.raises(SystemExit, match="0"):
            parse(COMMANDS[name], flags, "robustlab")
    elif name in COMMANDS:
        parse(COMMANDS[name], flags, "robustlab")
    else:
        assert name in ("", "bootstrap") or scripts[0].startswith("benchmarks/")


def test_every_recipe_is_described():
    assert all(f"`{name}`" in documents.README.read_text(encoding="utf-8") for name in RECIPES)
