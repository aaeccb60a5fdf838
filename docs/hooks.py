"""The site's generated pages, one per package and one of all commands, and its promise: no page loads anything from elsewhere."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PACKAGE = Path(__file__).resolve().parents[1] / "robustlab"

# Modules that belong to no package, by what they are about; a module that is not named here is on the page "foundations".
PROBLEM = ("norms", "constraints", "goals", "objectives", "optimize", "steps")
HIDDEN = ("__init__", "__main__", "commands")

# What a browser fetches by itself when it opens a page. A link that a reader may follow is not.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\ssrc=["']?(?:https?:)?//|<link\b(?![^>]*canonical)[^>]*\shref=["']?(?:https?:)?//"""
)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the entry "API" of the navigation."""
    for entry in config.nav or []:
        if "API" in entry:
            entry["API"] = [{name: page_path(name)} for name in api_pages()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the API."""
    for name, text in api_pages().items():
        files.append(File.generated(config, page_path(name), content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> None:
    """A page without siblings needs no column that lists them."""
    if page.parent is None:
        page.meta["hide"] = ["navigation"]


def on_post_page(output: str, page: Page, **_: object) -> None:
    """Refuse a page that would load something from elsewhere.

    Raises:
        PluginError: names the page and the tag.
    """
    found = FETCHED.search(output)
    if found:
        raise PluginError(f"{page.file.src_uri} loads something from elsewhere: {found[0]}")


@cache
def api_pages() -> dict[str, str]:
    """Name and Markdown of each page: the modules that belong to no package, one page per package, and the commands."""
    modules = [name for name in names("*.py") if name not in HIDDEN]
    pages = {
        "robustlab": top_level_text(),
        "problem": page_text("# The problem", [name for name in PROBLEM if name in modules]),
        "foundations": page_text("# Foundations", [name for name in modules if name not in PROBLEM]),
    }
    for package in sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")):
        if package not in HIDDEN:
            head = f"::: robustlab.{package}\n    options:\n      heading_level: 1\n      members: false"
            pages[package] = page_text(head, [f"{package}.{name}" for name in names(f"{package}/*.py") if name not in HIDDEN])
    pages["commands"] = commands_text()
    return pages


def top_level_text() -> str:
    """robustlab's own names, in the order of its docstring, each with a link to where it is explained."""
    module = griffe.load("robustlab", search_paths=[PACKAGE.parent], resolve_aliases=True)
    lines = ["# robustlab", "What `import robustlab` gives."]
    assert module.docstring is not None
    for line in inspect.cleandoc(module.docstring.value).splitlines():
        if re.fullmatch(r"[A-Z][\w ]+:", line):
            lines += [f"## {line[:-1]}", "| name | |\n| --- | --- |"]
        elif found := re.fullmatch(r"    (\w+): (.+)", line):
            lines[-1] += f"\n| [`{found[1]}`][{module[found[1]].canonical_path}] | {found[2]} |"
    return "\n\n".join(lines) + "\n"


def commands_text() -> str:
    """What ``--help`` says, of every command."""
    sections = ["# commands", *(f"## {name}\n\n```text\n{help_of(name)}```" for name in re.findall(r"^  ([a-z]+) ", help_of(), re.M))]
    return "\n\n".join(sections) + "\n"


def help_of(*words: str) -> str:
    environment = {**os.environ, "COLUMNS": "110", "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-m", "robustlab", *words, "--help"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def names(pattern: str) -> list[str]:
    return sorted(path.stem for path in PACKAGE.glob(pattern))


def page_path(name: str) -> str:
    return f"api/{name}.md"


def page_text(head: str, modules: list[str]) -> str:
    """A head, and for each module the line that mkdocstrings replaces by its documentation."""
    return "\n\n".join([head, *(f"::: robustlab.{module}" for module in modules)]) + "\n"
