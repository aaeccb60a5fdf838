"""What the documents show: their Python, and their commands."""

from __future__ import annotations

import os
import re
import shlex
import textwrap
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = sorted((ROOT / "docs").rglob("*.md"))

ALL = (README, *PAGES)
PROGRAMS = ("robustlab ", "torchrun ", "python ", "python3 ", "srun ")
GAPS = {"...", "COMMAND", "NAME", "TASK"}  # what a reader is to replace, where it decides which settings there are


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in order, also those within tabs, which are indented."""
    fenced = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", page.read_text(encoding="utf-8"), re.S | re.M)
    return [textwrap.dedent(code) for _, code in fenced]


def commands(page: Path) -> list[list[str]]:
    """The words of each command: in blocks of bash, in indented blocks and within a line, but for those with a gap, such as ``...``."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    shown = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    shown += re.findall(r"^    (.*)", re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.S | re.M), re.M)
    shown += re.findall(r"`(robustlab [^`]+)`", text)
    lines = [shlex.split(line.strip().removeprefix("srun "), comments=True) for line in shown if line.strip().startswith(PROGRAMS)]
    return [line for line in lines if not GAPS & set(line)]


def run(page: Path, folder: Path) -> dict[str, object]:
    """Run a page's Python from top to bottom, in ``folder``; returns the names that it leaves behind."""
    names: dict[str, object] = {"__name__": "__main__"}
    before = Path.cwd()
    os.chdir(folder)
    try:
        with warnings.catch_warnings():
            # The documents' small networks are hardly trained, and construction says so.
            warnings.filterwarnings("ignore", "D_det needs a standard model")
            for number, code in enumerate(blocks(page, "python"), start=1):
                exec(compile(code, f"{page.name}, block {number}", "exec"), names)
    finally:
        os.chdir(before)
    return names
